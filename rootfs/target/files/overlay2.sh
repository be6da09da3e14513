# Docker's data-root with the driver overlay2. Sourced by shiplap-target; everything may be run again after a power cut at any point.
#
# Volatile: a copy of the skeleton on a fresh tmpfs. Persistent: at each boot every factory file, link and reference is held
# against the skeleton in the verified store, and only what differs is written: aside, synced, renamed. What an older
# firmware put there and this one does not ship goes last, then the list of what is ours, then the stamp. The data-root itself
# is not trusted: names are taken from it only where they have the form that they must have.
# shellcheck shell=sh disable=SC2154,SC2034

LAYERDB=image/overlay2/layerdb/sha256
CONFIGS=image/overlay2/imagedb/content/sha256
REPOSITORIES=image/overlay2/repositories.json
BLOBS=image/overlay2/distribution/diffid-by-digest/sha256
FOLDERS=". image image/overlay2 image/overlay2/imagedb image/overlay2/imagedb/content $CONFIGS image/overlay2/layerdb $LAYERDB overlay2 overlay2/l"
MOUNTS=image/overlay2/layerdb/mounts

seed_overlay2() {
    skeleton=$STORE/skeleton
    [ -d "$skeleton/image" ] || die "$STORE holds no skeleton of a data-root"
    case $PERSISTENCE in
    volatile) seed_volatile ;;
    persistent) seed_persistent ;;
    esac
    link_volumes
}

seed_volatile() {
    if is_ours_or_free; then
        [ "$(read_stamp)" = "$STORE_ID" ] && return 0
        # An earlier try was interrupted.
        umount "$DATA_ROOT" || die "$DATA_ROOT is in use and not seeded"
    fi
    mount_volatile
    cp -a "$skeleton/." "$DATA_ROOT/" || die "cannot copy the skeleton to $DATA_ROOT"
    mkdir -p "$STATE"
    echo "$STORE_ID" >"$STATE/stamp"
}

seed_persistent() {
    if is_refused; then die "$DATA_ROOT was made unusable by an earlier failure: restart the device"; fi
    require_writable
    if engine_runs; then
        say "the engine runs: the data-root is left as it is until the next start of the device"
        left=yes
        return 0
    fi
    changed=no
    make_folders
    list_store
    # First of all it is written down what may be ours from now on: whatever is cut off after this, and whichever firmware
    # boots next, knows what to take away.
    if ! cmp -s "$RUN/factory" "$STATE/factory"; then
        known_lines >"$RUN/known"
        sort -u "$RUN/factory" "$RUN/known" >"$RUN/either"
        cmp -s "$RUN/either" "$STATE/factory" || put_file "$RUN/either" "$STATE/factory" 600
    fi
    for path in "$skeleton/overlay2/l"/*; do same_link "overlay2/l/${path##*/}"; done
    for path in "$skeleton/$LAYERDB"/*; do seed_layer "${path##*/}"; done
    for path in "$skeleton/$CONFIGS"/*; do same_file "$CONFIGS/${path##*/}" 600; done
    if [ -d "$skeleton/$BLOBS" ]; then
        for path in "$skeleton/$BLOBS"/*; do same_file "$BLOBS/${path##*/}" 644; done
    fi
    merge_references
    if ! cmp -s "$RUN/factory" "$STATE/factory"; then
        remove_stale
        sync
        put_file "$RUN/factory" "$STATE/factory" 600
    fi
    if [ "$changed" = yes ]; then sync; fi
    if [ "$(read_stamp)" != "$STORE_ID" ]; then
        echo "$STORE_ID" >"$RUN/stamp"
        put_file "$RUN/stamp" "$STATE/stamp" 600
        sync
        say "the data-root $DATA_ROOT belongs to store $STORE_ID now"
    fi
    rm -rf "$STATE/new"
}

# Directories of the skeleton with the modes that the engine gives them. A link in the place of one would lead our writing astray.
make_folders() {
    for folder in $FOLDERS; do
        [ "$folder" = . ] || real_folder "$DATA_ROOT/$folder"
        wanted=$(mode_of "$skeleton/$folder")
        [ "$(mode_of "$DATA_ROOT/$folder")" = "$wanted" ] || chmod "$wanted" "$DATA_ROOT/$folder"
    done
    open_state
    if [ -d "$skeleton/$BLOBS" ]; then
        for folder in "${BLOBS%/*/*}" "${BLOBS%/*}" "$BLOBS"; do real_folder "$DATA_ROOT/$folder"; done
    fi
}

# same_file PATH MODE: the data-root has the skeleton's file.
same_file() {
    if [ -f "$DATA_ROOT/$1" ] && [ ! -L "$DATA_ROOT/$1" ] && cmp -s "$skeleton/$1" "$DATA_ROOT/$1"; then return 0; fi
    if [ -e "$DATA_ROOT/$1" ] || [ -L "$DATA_ROOT/$1" ]; then say "repaired $1"; fi
    put_file "$skeleton/$1" "$DATA_ROOT/$1" "$2"
}

# same_link PATH: the data-root has the skeleton's symbolic link.
same_link() {
    wanted=$(readlink "$skeleton/$1") || die "$skeleton/$1 is no link"
    have=$(readlink "$DATA_ROOT/$1") || have=
    [ "$have" = "$wanted" ] && return 0
    if [ -e "$DATA_ROOT/$1" ] || [ -L "$DATA_ROOT/$1" ]; then say "repaired the link $1"; fi
    changed=yes
    mkdir -p "$STATE/new"
    rm -f "$STATE/new/link"
    ln -s "$wanted" "$STATE/new/link"
    # mv -T is not POSIX; without it a link to a folder would be moved into that folder.
    rm -rf "${DATA_ROOT:?}/$1"
    mv "$STATE/new/link" "$DATA_ROOT/$1"
}

seed_layer() {
    layer=$1
    if is_real_folder "overlay2/$layer"; then
        same_link "overlay2/$layer/diff"
        same_file "overlay2/$layer/link" 644
        if [ -e "$skeleton/overlay2/$layer/lower" ]; then same_file "overlay2/$layer/lower" 644; fi
        if [ -d "$skeleton/overlay2/$layer/work" ] && ! is_real_folder "overlay2/$layer/work"; then
            rm -f "$DATA_ROOT/overlay2/$layer/work"
            mkdir -m 700 "$DATA_ROOT/overlay2/$layer/work"
        fi
        same_file "overlay2/$layer/committed" 600
    else
        adopt_folder "overlay2/$layer"
    fi
    if is_real_folder "$LAYERDB/$layer"; then
        for file in cache-id diff size; do same_file "$LAYERDB/$layer/$file" 644; done
        if [ -e "$skeleton/$LAYERDB/$layer/parent" ]; then same_file "$LAYERDB/$layer/parent" 644; fi
        same_link "$LAYERDB/$layer/tar-split.json.gz"
    else
        adopt_folder "$LAYERDB/$layer"
    fi
}

is_real_folder() { [ -d "$DATA_ROOT/$1" ] && [ ! -L "$DATA_ROOT/$1" ]; }

# A whole directory of the skeleton, copied aside and renamed into place.
adopt_folder() {
    changed=yes
    if [ -e "$DATA_ROOT/$1" ] || [ -L "$DATA_ROOT/$1" ]; then
        say "repaired $1, which was no folder"
        rm -rf "${DATA_ROOT:?}/$1"
    fi
    mkdir -p "$STATE/new"
    rm -rf "$STATE/new/folder"
    cp -a "$skeleton/$1" "$STATE/new/folder" || die "cannot copy $1 to $DATA_ROOT"
    # Small files of a folder have to be on the disk before its name is.
    sync -f "$STATE/new" 2>/dev/null || sync
    mv "$STATE/new/folder" "$DATA_ROOT/$1"
}

# Everything in the store, a line each: what this firmware puts into the data-root. A store that cannot be read whole must
# not pass for a smaller one, so nothing here is at the front of a pipe.
list_store() {
    cat "$skeleton/$REPOSITORIES" >"$RUN/repositories-in-store" || die "cannot read the references in the store"
    references <"$RUN/repositories-in-store" >"$RUN/ours"
    {
        list_folder layer "$LAYERDB"
        list_folder config "$CONFIGS"
        if [ -d "$skeleton/$BLOBS" ]; then list_folder blob "$BLOBS"; fi
        list_folder link overlay2/l
        sed 's/^/reference /' "$RUN/ours"
    } >"$RUN/unsorted"
    sort "$RUN/unsorted" >"$RUN/factory"
}

# list_folder KIND FOLDER
list_folder() {
    for path in "$skeleton/$2"/*; do
        [ -e "$path" ] || [ -L "$path" ] || die "cannot read $2 in the store"
        echo "$1 ${path##*/}"
    done
}

# The list that an earlier firmware left, as far as it is one: it says what to remove.
known_lines() {
    [ -f "$STATE/factory" ] && [ ! -L "$STATE/factory" ] || return 0
    grep -E '^((layer|config|blob) [0-9a-f]{64}|link [0-9A-Z]{26}|reference [^ ]+ [^ ]+ sha256:[0-9a-f]{64})$' "$STATE/factory" || :
}

# --- what an older firmware left ---

# Layers that the older store held and this one does not: their diff links lead nowhere now, or will. The engine would list
# images on them, could not run them, and would answer a pull with "exists".
remove_stale() {
    known_lines >"$RUN/known"
    awk 'FILENAME == ARGV[1] { ours[$0] = 1; next } !($0 in ours)' "$RUN/factory" "$RUN/known" >"$RUN/stale"
    sed -n 's/^config //p' "$RUN/stale" >"$RUN/stale-configs"
    sed -n 's/^layer //p' "$RUN/stale" >"$RUN/stale-layers"
    remove_orphans
    references <"$WRITTEN/$REPOSITORIES" >"$RUN/have"
    while read -r config; do
        # Under a name of the user's own it stays, if its layers do.
        grep -q " sha256:$config\$" "$RUN/have" || rm -f "$DATA_ROOT/$CONFIGS/$config"
    done <"$RUN/stale-configs"
    while read -r layer; do remove_layer "$layer"; done <"$RUN/stale-layers"
    sed -n 's/^link //p' "$RUN/stale" >"$RUN/stale-links"
    while read -r link; do rm -f "$DATA_ROOT/overlay2/l/$link"; done <"$RUN/stale-links"
    sed -n 's/^blob //p' "$RUN/stale" >"$RUN/stale-blobs"
    while read -r blob; do rm -f "$DATA_ROOT/$BLOBS/$blob"; done <"$RUN/stale-blobs"
    drop_lost_references
    name_lost_containers
}

# The user's layers on top of a layer that is no longer there cannot be used; without their records a pull brings them again.
remove_orphans() {
    cp "$RUN/stale-layers" "$RUN/gone"
    found=yes
    while [ "$found" = yes ]; do
        found=no
        for path in "$DATA_ROOT/$LAYERDB"/*; do
            layer=${path##*/}
            is_hash "$layer" || continue
            parent=$(first_line "$path/parent")
            parent=${parent#sha256:}
            is_hash "$parent" || continue
            if grep -qxF "$parent" "$RUN/gone" && ! grep -qxF "$layer" "$RUN/gone"; then
                echo "$layer" >>"$RUN/gone"
                found=yes
            fi
        done
    done
    awk 'FILENAME == ARGV[1] { stale[$0] = 1; next } !($0 in stale)' "$RUN/stale-layers" "$RUN/gone" >"$RUN/orphans"
    while read -r layer; do
        say "layer $layer was built on a layer of another firmware and goes with it; pull its image again"
        remove_layer "$layer"
    done <"$RUN/orphans"
}

remove_layer() {
    # A factory layer's folder has the chain's name; it may have come without its record, when the power went between the two.
    if [ -L "$DATA_ROOT/overlay2/$1/diff" ]; then rm -rf "${DATA_ROOT:?}/overlay2/$1"; fi
    cache=$(first_line "$DATA_ROOT/$LAYERDB/$1/cache-id")
    rm -rf "${DATA_ROOT:?}/$LAYERDB/$1"
    case $cache in '' | *[!0-9a-z-]*) return 0 ;; esac
    link=$(first_line "$DATA_ROOT/overlay2/$cache/link")
    case $link in '' | *[!0-9A-Z]*) ;; *) rm -f "$DATA_ROOT/overlay2/l/$link" ;; esac
    rm -rf "${DATA_ROOT:?}/overlay2/$cache"
}

# Names of images that are gone, and images whose layers are: each is logged, so that nobody wonders.
drop_lost_references() {
    references <"$WRITTEN/$REPOSITORIES" >"$RUN/have"
    : >"$RUN/kept"
    while read -r name reference digest; do
        config=${digest#sha256:}
        is_hash "$config" || continue
        if [ -e "$DATA_ROOT/$CONFIGS/$config" ] && has_layers "$config"; then
            printf '%s\n' "$name $reference $digest" >>"$RUN/kept"
        else
            say "image $reference is gone with another firmware's layers; pull it again if you need it"
            rm -f "$DATA_ROOT/$CONFIGS/$config"
        fi
    done <"$RUN/have"
    write_references "$RUN/kept"
}

# has_layers CONFIG: whether the image's top chain is in the data-root (chainID: OCI image specification, config.md).
has_layers() {
    diffs=$(tr -d ' \n\t\r' <"$DATA_ROOT/$CONFIGS/$1" | sed -n 's/.*"diff_ids":\[\([^]]*\)\].*/\1/p' | tr ',"' '  ')
    chain=
    for diff in $diffs; do
        is_hash "${diff#sha256:}" || return 1
        if [ -z "$chain" ]; then chain=$diff; else
            sum=$(printf '%s %s' "$chain" "$diff" | sha256sum)
            chain=sha256:${sum%% *}
        fi
    done
    [ -z "$chain" ] || [ -d "$DATA_ROOT/$LAYERDB/${chain#sha256:}" ]
}

# Containers on layers that are gone cannot start; their own files stay until someone removes them.
name_lost_containers() {
    for path in "$DATA_ROOT/$MOUNTS"/*; do
        is_hash "${path##*/}" || continue
        parent=$(first_line "$path/parent")
        if grep -qxF "${parent#sha256:}" "$RUN/gone"; then
            say "container ${path##*/} was made of an image that went with another firmware; it cannot start"
        fi
    done
}

# --- reset ---

do_reset() {
    [ "$MODE" = store ] || die "only a store's data-root is reset"
    [ "$PERSISTENCE" = persistent ] || { say "the data-root is volatile: a restart resets it"; return 0; }
    [ -s "$STATE/factory" ] || { say "nothing of ours is in $DATA_ROOT"; return 0; }
    if engine_runs; then die "stop the engine first"; fi
    changed=no
    : >"$RUN/factory"
    # From here on it is as after a power cut: the next seed completes what is there.
    rm -f "$STATE/stamp"
    remove_stale
    sed -n 's/^reference //p' "$STATE/factory" >"$RUN/before"
    references <"$WRITTEN/$REPOSITORIES" >"$RUN/have"
    awk 'FILENAME == ARGV[1] { before[$0] = 1; next } !($0 in before)' "$RUN/before" "$RUN/have" >"$RUN/kept"
    write_references "$RUN/kept"
    rm -rf "$STATE"
    sync
    say "what the firmware had put into $DATA_ROOT is removed"
}
