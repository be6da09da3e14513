#!/bin/sh
# Process 1 of a private root: mounts, then `ready` on standard output, then sleep. Started by privateroot.py and the quickstart as
#   unshare --mount --pid --fork --kill-child --propagation unchanged \
#       sh private_root.sh BASE SCRATCH [--bind DIR | --tmpfs DIR | --image SQUASHFS DIR]... [-- COMMAND...]
# BASE is the root to show (/ or an unpacked distribution), SCRATCH an empty directory. With a COMMAND, that is run instead of sleeping.
#
# Why an overlay of BASE and not a bind mount:
# - nothing is ever created on the host: mount points, /etc/docker/key.json, /run/containerd all land in a tmpfs;
# - the new root is a mount point, as runc's pivot_root needs it, also when the caller itself sits in a chroot.
# Measured: overlayfs mounts over ext4 and over tmpfs, loop devices come from devtmpfs, and dockerd's overlay2 works below it as long as
# its data-root is a bind mount of a real file system or a tmpfs: overlay's own upper directory cannot lie on an overlay.
set -eu
PATH=$PATH:/usr/sbin:/sbin

base=$1 scratch=$2
shift 2

# Nothing mounted here may show outside. In a chroot / is no mount point and cannot be made private from inside; entering our own mount
# namespace anew starts at its real root, which can.
mount --make-rprivate / 2>/dev/null || nsenter --mount=/proc/self/ns/mnt mount --make-rprivate / || {
    echo "private_root.sh: cannot make mounts private; in a chroot, mount /proc first" >&2
    exit 1
}

mount -t tmpfs -o mode=0755 shiplap-private-root "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay -o "lowerdir=$base,upperdir=$scratch/upper,workdir=$scratch/work" shiplap-private-root "$scratch/root"
root=$scratch/root

mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" || mount --rbind /sys "$root/sys"
# The same device nodes as the host's, also in a chroot whose own /dev is bare: loop devices are wanted.
if mount -t devtmpfs devtmpfs "$root/dev" 2>/dev/null; then
    mkdir -p "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o ptmxmode=0666 devpts "$root/dev/pts"
    mount -t tmpfs tmpfs "$root/dev/shm"
else
    mount --rbind /dev "$root/dev"
fi
mount -t tmpfs -o mode=0755 tmpfs "$root/run"

# Control groups as the host has them; a chroot without them gets what the kernel runs.
if [ -n "$(ls /sys/fs/cgroup 2>/dev/null)" ]; then
    mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
elif grep -q '^0::' "$root/proc/self/cgroup" && ! grep -qv '^0::' "$root/proc/self/cgroup"; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=0755 tmpfs "$root/sys/fs/cgroup"
    while IFS=: read -r _ controllers _; do
        case $controllers in
            '') continue ;;
            name=*) directory=${controllers#name=} option=none,$controllers ;;
            *) directory=$controllers option=$controllers ;;
        esac
        mkdir "$root/sys/fs/cgroup/$directory"
        mount -t cgroup -o "$option" cgroup "$root/sys/fs/cgroup/$directory"
    done <"$root/proc/self/cgroup"
fi

while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
        --bind)
            mkdir -p "$root$2"
            mount --bind "$2" "$root$2"
            shift 2
            ;;
        --image)
            mkdir -p "$root$3"
            mount -o loop,ro "$2" "$root$3" || { echo "private_root.sh: cannot mount $2" >&2; exit 1; }
            shift 3
            ;;
        --tmpfs)
            mkdir -p "$root$2"
            mount -t tmpfs -o mode=0711 tmpfs "$root$2"
            shift 2
            ;;
        *)
            echo "private_root.sh: unknown argument $1" >&2
            exit 2
            ;;
    esac
done

cd "$root"
mkdir -p .host
if pivot_root . .host 2>/dev/null; then
    cd /
    umount -l /.host
    rmdir /.host
    enter=
else
    # In a chroot pivot_root does not work; a chroot into a mount point is as good for runc, which looks at nothing above.
    rmdir .host
    enter="chroot $root"
fi

if [ $# -gt 1 ]; then
    shift
    exec $enter "$@"
fi
# Orphans come to process 1; a process that ignores SIGCHLD never has to reap them, and exec keeps that.
trap '' CHLD
echo ready
exec $enter sleep infinity
