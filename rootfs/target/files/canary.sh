# Whether this kernel sees the extended attributes of a SquashFS. Sourced by shiplap-target where the store has any.
#
# A kernel without CONFIG_SQUASHFS_XATTR leaves them out in silence: opaque directories show again what an image deleted, and
# programs lose their capabilities. The canary is a tiny image of two layers, of the store's own compression; the upper one has
# an opaque directory over a name of the lower one.
# shellcheck shell=sh disable=SC2154

check_attributes() {
    leave_canary
    grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || :
    layers=$CANARY_AT
    if [ -z "$IMAGE" ]; then
        # Unpacked like the store; somebody who unpacked that by other means may have left it out.
        layers=$LIB/canary
        [ -d "$layers" ] || return 0
    elif [ -b "$image" ] && [ ! -e /dev/loop-control ] && [ ! -e /dev/loop0 ]; then
        say "this kernel has no loop devices: whether its SquashFS has extended attributes is not looked at"
        return 0
    else
        mkdir -p "$CANARY_AT"
        mount -t squashfs -o ro,loop "$LIB/canary.squashfs" "$CANARY_AT" ||
            die "this kernel cannot mount $LIB/canary.squashfs, which is compressed as the store is"
    fi
    mkdir -p "$CANARY_AT-view"
    mount -t overlay -o "ro,lowerdir=$layers/upper:$layers/lower" shiplap-canary "$CANARY_AT-view" ||
        die "this kernel cannot mount an overlayfs, which the engine lays over the store's layers"
    if [ ! -e "$CANARY_AT-view/folder/shown" ]; then die "the overlayfs over $layers shows nothing"; fi
    if [ -e "$CANARY_AT-view/folder/hidden" ]; then
        die "this kernel's SquashFS has no extended attributes (CONFIG_SQUASHFS_XATTR), which the store needs:" \
            "set it, or build the store with squashfs: {whiteouts: explicit}"
    fi
    leave_canary
}

# Also after a failure, and after a try that was cut off.
leave_canary() {
    let_go "$CANARY_AT-view"
    let_go "$CANARY_AT"
}
