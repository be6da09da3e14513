# Docker's data-root with the driver vfs: an overlayfs, the store's below, what is written above. Sourced by shiplap-target;
# everything may be run again after a power cut at any point.
#
# The data-root's own file system, a tmpfs or a partition, is seen at $BELOW once the overlay covers it. What is written belongs to
# one store: the kernel does not say what an overlay shows whose lower directory is another one than before. So each store has an
# upper directory of its own, and with another firmware begins an empty one. Volumes move along; containers and images that
# were made under the former store wait for its return, those of older stores go.
# shellcheck shell=sh disable=SC2154,SC2034

BELOW=$RUN/data-root
VFS_FOLDERS="image image/vfs image/vfs/layerdb image/vfs/layerdb/sha256 image/vfs/imagedb image/vfs/imagedb/content
 image/vfs/imagedb/content/sha256 image/vfs/distribution image/vfs/distribution/diffid-by-digest
 image/vfs/distribution/diffid-by-digest/sha256 vfs vfs/dir"

seed_vfs() {
    lower=$STORE/data-root
    [ -d "$lower/image" ] || die "$STORE holds no data-root"
    is_hash "$STORE_ID" || die "$CONF: STORE_ID is '$STORE_ID'"
    held=$(mount_at "$DATA_ROOT") || held=
    case $held in
    'shiplap-vfs '*)
        [ "$(read_stamp)" = "$STORE_ID" ] || die "$DATA_ROOT is mounted and not seeded: restart the device"
        return 0
        ;;
    'shiplap-refused '*) die "$DATA_ROOT was made unusable by an earlier failure: restart the device" ;;
    esac
    if [ "$PERSISTENCE" = volatile ]; then
        is_ours_or_free || mount_volatile
    else
        require_writable
        for folder in image vfs overlay2; do
            if [ -e "$DATA_ROOT/$folder" ]; then say "$DATA_ROOT/$folder is another data-root's: it stays, and is not seen"; fi
        done
    fi
    mkdir -p "$BELOW"
    is_mounted "$BELOW" || mount -o bind "$DATA_ROOT" "$BELOW" || die "cannot mount $DATA_ROOT on $BELOW"
    open_state
    mine=$STATE/$STORE_ID
    for folder in "$mine" "$WRITTEN" "$mine/work"; do real_folder "$folder"; done
    wanted=$(mode_of "$lower")
    [ "$(mode_of "$WRITTEN")" = "$wanted" ] || chmod "$wanted" "$WRITTEN"
    set_aside
    clear_upper
    mount_overlay
    if ! lower_is_seen; then
        say "repaired: what was written over the store's folders is in $mine/unusable now, without the volumes"
        umount "$DATA_ROOT" || die "cannot unmount $DATA_ROOT"
        rm -rf "$mine/unusable"
        mv "$WRITTEN" "$mine/unusable"
        mkdir -m "$wanted" "$WRITTEN"
        take_volumes "$mine/unusable"
        mount_overlay
        lower_is_seen || die "the store's folders are not seen on $DATA_ROOT"
    fi
    link_volumes
    if [ "$(read_stamp)" != "$STORE_ID" ]; then
        echo "$STORE_ID" >"$RUN/stamp"
        put_file "$RUN/stamp" "$STATE/stamp" 600
        sync
        say "the data-root $DATA_ROOT belongs to store $STORE_ID now"
    fi
    rm -rf "$STATE/new"
}

mount_overlay() {
    mount -t overlay -o "lowerdir=$lower,upperdir=$WRITTEN,workdir=$mine/work" shiplap-vfs "$DATA_ROOT" ||
        die "cannot mount an overlay on $DATA_ROOT"
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
    if [ -d "$1/volumes" ] && [ ! -L "$1/volumes" ] && [ ! -e "$WRITTEN/volumes" ] && [ ! -L "$WRITTEN/volumes" ]; then
        mv "$1/volumes" "$WRITTEN/volumes"
        sync
    fi
}

# Nothing that was written may stand in front of the store's layers, configs and names. What somebody removed comes back.
clear_upper() {
    for folder in $VFS_FOLDERS; do
        if [ -L "$WRITTEN/$folder" ] || { [ -e "$WRITTEN/$folder" ] && [ ! -d "$WRITTEN/$folder" ]; }; then uncover "$folder"; fi
    done
    factory_paths >"$RUN/factory-paths"
    while read -r path; do uncover "$path"; done <"$RUN/factory-paths"
    if [ -c "$WRITTEN/$VFS_REPOSITORIES" ]; then uncover "$VFS_REPOSITORIES"; fi
    if [ -e "$WRITTEN/$VFS_REPOSITORIES" ] || [ -L "$WRITTEN/$VFS_REPOSITORIES" ]; then
        cat "$lower/$VFS_REPOSITORIES" >"$RUN/repositories-in-store" || die "cannot read the references in the store"
        references <"$RUN/repositories-in-store" >"$RUN/ours"
        sed 's/^/reference /' "$RUN/ours" >"$STATE/factory"
        REPOSITORIES=$VFS_REPOSITORIES
        merge_references
        rm -f "$STATE/factory"
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
    [ -e "$WRITTEN/$1" ] || [ -L "$WRITTEN/$1" ] || return 0
    [ -c "$WRITTEN/$1" ] || say "repaired $1"
    rm -rf "${WRITTEN:?}/$1"
}

# A folder above may be marked as opaque.
lower_is_seen() {
    [ -e "$DATA_ROOT/$VFS_REPOSITORIES" ] || return 1
    while read -r path; do
        [ -e "$DATA_ROOT/$path" ] || return 1
    done <"$RUN/factory-paths"
}
