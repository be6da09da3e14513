#!/bin/sh
# Process 1 of a private root: mounts, then `ready` on standard output, then sleep. Started by privateroot.py and the quickstart as
#   unshare --mount --pid --fork --kill-child --propagation unchanged \
#       sh private_root.sh BASE SCRATCH [--bind DIR | --tmpfs DIR | --image SQUASHFS DIR]... [-- COMMAND...]
# BASE is the root to show (/ or an unpacked distribution), SCRATCH an empty directory. With a COMMAND, that is run instead of sleeping.
#
# BASE is seen through an overlay, because
# - nothing is ever created on the host: mount points, /etc/docker/key.json, /run/containerd all land in a tmpfs;
# - the new root is a mount point, as runc's pivot_root needs it, also when the caller itself sits in a chroot.
# Measured: overlayfs mounts over ext4 and over tmpfs, loop devices come from devtmpfs, and dockerd's overlay2 works below it as long as
# its data-root is a bind mount of a real file system or a tmpfs: overlay's own upper directory cannot lie on an overlay.
# --as-it-is shows BASE itself, writable: for a bare chroot that shall look like a machine (tests/run).
set -eu
PATH=$PATH:/usr/sbin:/sbin

base=$1 scratch=$2
shift 2

# In a chroot / is no mount point: from inside it can neither be made private nor be pivoted away. Entering our own mount namespace anew starts
# at its real root, which can; through a pidfd, since a chroot may lack /proc. from_real_root private | from_real_root pivot ROOT COMMAND...
from_real_root='
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def must(name, *arguments):
    if getattr(libc, name)(*arguments):
        sys.exit(f"private_root.sh: {name}: {os.strerror(ctypes.get_errno())}")
root = os.open(sys.argv[2] if sys.argv[1] == "pivot" else "/", os.O_DIRECTORY)
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 0x40000, 2
must("setns", os.pidfd_open(os.getpid()), CLONE_NEWNS)
if sys.argv[1] == "private":
    must("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
else:
    os.fchdir(root)
    must("pivot_root", b".", b"run/.host")
    os.chdir("/")
    must("umount2", b"/run/.host", MNT_DETACH)
    os.rmdir("/run/.host")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python had ignored it, and exec would hand that on
    os.execvp(sys.argv[3], sys.argv[3:])
'
# Nothing mounted here may show outside.
mount --make-rprivate / 2>/dev/null || python3 -c "$from_real_root" private

if [ "${1:-}" = --as-it-is ]; then
    shift
    root=$scratch
    mount --rbind "$base" "$root"
else
    mount -t tmpfs -o mode=0755 shiplap-private-root "$scratch"
    root=$scratch/root
    mkdir "$scratch/upper" "$scratch/work" "$root"
    mount -t overlay -o "lowerdir=$base,upperdir=$scratch/upper,workdir=$scratch/work" shiplap-private-root "$root"
fi

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
            # From inside, where the loop devices are.
            chroot "$root" mount -o loop,ro "$2" "$3" || { echo "private_root.sh: cannot mount $2" >&2; exit 1; }
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

if [ $# -gt 1 ]; then
    shift
else
    # Orphans come to process 1; a process that ignores SIGCHLD never has to reap them, and exec keeps that.
    trap '' CHLD
    set -- sh -c 'echo ready; exec sleep infinity'
fi

mkdir "$root/run/.host"
cd "$root"
if pivot_root . run/.host 2>/dev/null; then
    cd /
    exec sh -c 'umount -l /run/.host && rmdir /run/.host && exec "$@"' sh "$@"
fi
# A mere chroot would not do: `docker exec` enters a container through its mount namespace and would come out above it.
cd /
exec python3 -c "$from_real_root" pivot "$root" "$@"
