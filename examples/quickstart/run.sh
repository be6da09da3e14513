#!/bin/bash
# shiplap's main job on a real image, from nothing: on Debian 12 as root,
#   bash examples/quickstart/run.sh
# Installs what is needed, makes a Redis image of Debian packages, builds and verifies a sealed store, and boots a real dockerd from it, as
# a device would: in namespaces of its own, so that neither a Docker of this machine nor its file systems see any of it.
# KEEP=1 leaves the image and the store in place to look at.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/sbin:/sbin

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

[ "$(id -u)" = 0 ] || { echo "run this as root: it installs packages and mounts the store (shiplap itself needs no root)" >&2; exit 3; }

say "1. Install: the engine, veritysetup, and shiplap into $checkout/.venv"
sh "$checkout/tests/install_packages" python3-venv libarchive13 docker.io cryptsetup-bin mount
[ -x "$checkout/.venv/bin/pip" ] || python3 -m venv "$checkout/.venv"
"$checkout/.venv/bin/pip" install --quiet --disable-pip-version-check --editable "$checkout"
shiplap=$checkout/.venv/bin/shiplap
"$shiplap" --version

work=$(mktemp -d "${TMPDIR:-/var/tmp}/shiplap-quickstart-XXXXXX")
undo() {
    # The engine and its mounts ended with their namespaces; what the kernel keeps outside of them goes here.
    veritysetup close "${work##*/}" 2>/dev/null || true
    find /sys/fs/cgroup -depth -type d -path "*/${work##*/}*" -exec rmdir {} \; 2>/dev/null || true
    if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf --one-file-system "$work"; fi
}
trap undo EXIT
trap 'exit 130' INT TERM

say "2. Make a real image of Debian packages"
python3 "$here/make_image.py" "$work/redis.tar"

say "3. shiplap build: image in, sealed store out; no daemon, no root, no mount"
"$shiplap" build "redis:7=docker-archive:$work/redis.tar" -o "$work/out"

say "4. shiplap verify: the store holds exactly that image"
"$shiplap" verify "$work/out"
"$shiplap" inspect "$work/out"

say "5. Boot it as a device would"
mkdir "$work/root"
unshare --mount --pid --fork --kill-child --propagation unchanged sh "$checkout/tests/engines/private_root.sh" / "$work/root" \
    --bind "$work" --tmpfs /var/lib/docker -- sh "$here/device.sh" "$work" "${work##*/}" </dev/null

say "Done"
cat <<END
The container ran from the store image: $(du -h "$work/out/store.squashfs" | cut -f1) of SquashFS for $(du -h "$work/redis.tar" | cut -f1) of image, none of it copied at boot.
root hash $(cat "$work/out/store.roothash")

Your own image:  $shiplap build app:1=docker-archive:app.tar     (any \`docker save\` file)
                 $shiplap verify shiplap-out
On a device:     docs/store.md
END
