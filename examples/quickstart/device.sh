#!/bin/sh
# What a device does at boot, in a private root: device.sh WORK NAME
# WORK/out is what `shiplap build` wrote; NAME is for the device-mapper and the control group, which are not private.
set -eu
work=$1 name=$2
out=$work/out
store=/usr/share/shiplap/store
socket=unix:///run/docker.sock
root_hash=$(cat "$out/store.roothash")

show() { printf '# %s\n' "$*"; "$@"; }

mkdir -p "$store"
for module in loop dm_verity; do modprobe -q "$module" 2>/dev/null || true; done
sealed=
if grep -q device-mapper /proc/misc; then
    # Without udev's help: what happens here is no business of the machine's.
    DM_DISABLE_UDEV=1 veritysetup open "$out/store.squashfs" "$name" "$out/store.verity" "$root_hash"
    sealed=yes
    show mount -o ro "/dev/mapper/$name" "$store"
    echo "sealed: the kernel checks every block against the root hash when it is read"
else
    show veritysetup verify "$out/store.squashfs" "$out/store.verity" "$root_hash"
    echo "this kernel has no dm-verity: the whole store was checked against its root hash now, and is mounted unsealed"
    show mount -o ro,loop "$out/store.squashfs" "$store"
fi

cp -a "$store/skeleton/." /var/lib/docker/
echo "data-root: $(du -sh --exclude=/var/lib/docker/overlay2/*/diff/* /var/lib/docker | cut -f1) of metadata and links on tmpfs; the layers stay in the store:"
ls -l /var/lib/docker/overlay2/*/diff | sed 's/.*\/overlay2\//  overlay2\//; s/\([0-9a-f]\{12\}\)[0-9a-f]\{52\}/\1…/g'

dockerd --host "$socket" --data-root /var/lib/docker --exec-root /run/docker --pidfile /run/docker.pid --storage-driver overlay2 \
    --bridge none --iptables=false --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$name" >"$work/dockerd.log" 2>&1 &
daemon=$!
docker() { /usr/bin/docker --config /run/docker-config --host "$socket" "$@"; }

tries=600
until docker version >/dev/null 2>&1; do
    tries=$((tries - 1))
    if [ "$tries" = 0 ] || ! kill -0 "$daemon" 2>/dev/null; then
        echo "dockerd did not start:" >&2
        tail -n 20 "$work/dockerd.log" >&2
        exit 1
    fi
    sleep 0.1
done

show docker images
show docker run --detach --name cache --network none redis:7
tries=100
until docker exec cache redis-cli ping >"$work/ping.log" 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { cat "$work/ping.log" >&2; docker logs cache >&2; exit 1; }
    sleep 0.1
done
show docker exec cache redis-cli ping
show docker exec cache /opt/hello
show docker exec cache id
show docker exec cache /sbin/getcap /bin/ping
show docker exec cache stat -c '%A %U %h link(s) %n' /usr/bin/passwd /opt/hello /opt/hello-again /var/lib/redis
show docker exec cache ls /usr/share/doc
if docker exec cache ls /usr/share/man >/dev/null 2>&1; then
    echo "a deleted directory is back" >&2
    exit 1
fi
echo "# (/usr/share/man is deleted by a layer, and absent)"
show docker ps --format 'table {{.Image}}\t{{.Status}}\t{{.Names}}\t{{.Command}}'

docker rm --force cache >/dev/null
kill "$daemon"
wait "$daemon" || true
umount "$store"
[ -z "$sealed" ] || DM_DISABLE_UDEV=1 veritysetup close "$name"
find /sys/fs/cgroup -depth -type d -path "*/$name*" -exec rmdir {} \; 2>/dev/null || true
