# Docker's data-root with the driver vfs: an overlayfs, the store's below, what is written above. Sourced by shiplap-target;
# everything may be run again after a power cut at any point.
#
# The data-root's own file system, a tmpfs or a partition, stays at $BELOW. What is written belongs to
# one store: the kernel does not say what an overlay shows whose lower directory is another one than before. So each store has an
# upper directory of its own, and with another firmware begins an empty one. Volumes move along; containers and images that
# were made under the former store wait for its return, those of older stores go.
# shellcheck shell=sh disable=SC2154,SC2034

VFS_FOLDERS="image image/vfs image/vfs/layerdb image/vfs/layerdb/sha256 image/vfs/imagedb image/vfs/imagedb/content
 image/vfs/imagedb/content/sha256 image/vfs/distribution image/vfs/distribution/diffid-by-digest
 image/vfs/distribution/diffid-by-digest/sha256 vfs vfs/dir"

seed_vfs() {
    lower=$STORE/data-root
    [ -d "$lower/image" ] || die "$STORE holds no data-root"
    is_hash "$STORE_ID" || die "$CONF: STORE_ID is '$STORE_ID'"
    for folder in image vfs overlay2; do
        if [ -e "$ROOT/$folder" ]; then say "$DATA_ROOT/$folder is another data-root's: it stays, and is not seen"; fi
    done
    open_state
    mine=$STATE/$STORE_ID WRITTEN=$STATE/$STORE_ID/upper
    for folder in "$mine" "$WRITTEN" "$mine/work"; do real_folder "$folder"; done
    wanted=$(mode_of "$lower")
    [ "$(mode_of "$WRITTEN")" = "$wanted" ] || chmod "$wanted" "$WRITTEN"
    set_aside
    clear_upper
    mount_overlay
    if ! lower_is_seen; then
        say "repaired: what was written over the store's folders is in $mine/unusable now, without the volumes"
        umount "$VIEW" || die "cannot unmount $VIEW"
        rm -rf "$mine/unusable"
        mv "$WRITTEN" "$mine/unusable"
        mkdir -m "$wanted" "$WRITTEN"
        take_volumes "$mine/unusable"
        mount_overlay
        lower_is_seen || die "the store's folders are not seen on $DATA_ROOT"
    fi
    ROOT=$VIEW
    link_volumes
    stamp
}

mount_overlay() {
    mkdir -p "$VIEW"
    mount -t overlay -o "lowerdir=$lower,upperdir=$WRITTEN,workdir=$mine/work" shiplap-vfs "$VIEW" || die "cannot mount an overlay on $VIEW"
}

# Other stores' directories: the volumes come here; the former store's rest waits, older ones go when the firmware changes.
set_aside() {
    former=$(read_stamp)
    for other in "$STATE"/*; do
        is_hash "${other##*/}" || continue
        [ "$other" != "$mine" ] || continue
        if [ -L "$other" ] || [ -L "$other/upper" ]; then
            say "repaired $other, which led elsewhere"
            rm -rf "$other"
            continue
        fi
        take_volumes "$other/upper"
        [ "$former" != "$STORE_ID" ] || continue
        if [ "${other##*/}" = "$former" ]; then
            say "containers and images that were made under store $former wait for its firmware; volumes are kept"
        else
            say "what was made under store ${other##*/} is removed"
            rm -rf "$other"
        fi
    done
}

# take_volumes UPPER
take_volumes() {
    if is_folder "$1/volumes" && ! is_there "$WRITTEN/volumes"; then
        mv "$1/volumes" "$WRITTEN/volumes"
        sync
    fi
}

# Nothing that was written may stand in front of the store's layers, configs and names. What somebody removed comes back.
clear_upper() {
    for folder in $VFS_FOLDERS; do
        if is_there "$WRITTEN/$folder" && ! is_folder "$WRITTEN/$folder"; then uncover "$folder"; fi
    done
    factory_paths >"$RUN/factory-paths"
    while read -r path; do uncover "$path"; done <"$RUN/factory-paths"
    if [ -c "$WRITTEN/$VFS_REPOSITORIES" ]; then uncover "$VFS_REPOSITORIES"; fi
    if is_there "$WRITTEN/$VFS_REPOSITORIES"; then
        cat "$lower/$VFS_REPOSITORIES" >"$RUN/repositories-in-store" || die "cannot read the references in the store"
        references <"$RUN/repositories-in-store" >"$RUN/ours"
        cp "$RUN/ours" "$RUN/before"
        REPOSITORIES=$VFS_REPOSITORIES
        merge_references
    fi
}

VFS_REPOSITORIES=image/vfs/repositories.json

factory_paths() {
    for folder in vfs/dir image/vfs/layerdb/sha256 image/vfs/imagedb/content/sha256 image/vfs/distribution/diffid-by-digest/sha256; do
        for path in "$lower/$folder"/*; do
            if [ -e "$path" ]; then echo "$folder/${path##*/}"; fi
        done
    done
}

# uncover PATH: a character device is overlayfs' mark of something removed.
uncover() {
    is_there "$WRITTEN/$1" || return 0
    [ -c "$WRITTEN/$1" ] || say "repaired $1"
    rm -rf "${WRITTEN:?}/$1"
}

# A folder above may be marked as opaque.
lower_is_seen() {
    [ -e "$VIEW/$VFS_REPOSITORIES" ] || return 1
    while read -r path; do
        [ -e "$VIEW/$path" ] || return 1
    done <"$RUN/factory-paths"
}
