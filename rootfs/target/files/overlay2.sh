# Docker's data-root with the driver overlay2. Sourced by shiplap-target; everything may be run again after a power cut at any point.
#
# Volatile: a copy of the skeleton on a fresh tmpfs. Persistent: at each boot every factory file, link and reference is held
# against the skeleton in the verified store, and only what differs is written: aside, synced, renamed. What an older
# firmware put there and this one does not ship goes last, then the list of what is ours, then the stamp. The data-root itself
# is not trusted: names are taken from it only where they have the form that they must have.
# shellcheck shell=sh disable=SC2154,SC2034

IMAGES=image/overlay2
LAYERDB=$IMAGES/layerdb/sha256
CONFIGS=$IMAGES/imagedb/content/sha256
REPOSITORIES=$IMAGES/repositories.json
BLOBS=$IMAGES/distribution/diffid-by-digest/sha256
FOLDERS=". image $IMAGES $IMAGES/imagedb $IMAGES/imagedb/content $CONFIGS $IMAGES/layerdb $LAYERDB overlay2 overlay2/l"

seed_overlay2() {
    skeleton=$STORE/skeleton
    [ -d "$skeleton/image" ] || die "$STORE holds no skeleton of a data-root"
    case $PERSISTENCE in
    volatile)
        cp -a "$skeleton/." "$ROOT/" || die "cannot copy the skeleton to $DATA_ROOT"
        open_state
        ;;
    persistent) seed_persistent ;;
    esac
    link_volumes
    stamp
}

seed_persistent() {
    make_folders
    list_store
    # First of all it is written down what may be ours from now on: whatever is cut off after this, and whichever firmware
    # boots next, knows what to take away.
    if ! cmp -s "$RUN/factory" "$STATE/factory"; then
        known_lines >"$RUN/known"
        sort -u "$RUN/factory" "$RUN/known" >"$RUN/either"
        cmp -s "$RUN/either" "$STATE/factory" || put_file "$RUN/either" "$STATE/factory" 600
    fi
    same_all overlay2/l
    for layer in "$skeleton/$LAYERDB"/*; do
        layer=${layer##*/}
        seed_folder "overlay2/$layer"
        seed_folder "$LAYERDB/$layer"
    done
    same_all "$CONFIGS"
    if [ -d "$skeleton/$BLOBS" ]; then same_all "$BLOBS"; fi
    sed -n 's/^reference //p' "$STATE/factory" >"$RUN/before"
    merge_references
    if ! cmp -s "$RUN/factory" "$STATE/factory"; then
        remove_stale
        sync
        put_file "$RUN/factory" "$STATE/factory" 600
    fi
}

# Directories of the skeleton with the modes that the engine gives them. A link in the place of one would lead our writing astray.
make_folders() {
    for folder in $FOLDERS; do
        [ "$folder" = . ] || real_folder "$ROOT/$folder"
        wanted=$(mode_of "$skeleton/$folder")
        [ "$(mode_of "$ROOT/$folder")" = "$wanted" ] || chmod "$wanted" "$ROOT/$folder"
    done
    open_state
    if [ -d "$skeleton/$BLOBS" ]; then
        for folder in "${BLOBS%/*/*}" "${BLOBS%/*}" "$BLOBS"; do real_folder "$ROOT/$folder"; done
    fi
}

# same_all FOLDER: the data-root has all that the skeleton has there.
same_all() {
    for path in "$skeleton/$1"/*; do
        path=$1/${path##*/}
        if [ -L "$skeleton/$path" ]; then
            same_link "$path"
        elif [ -d "$skeleton/$path" ]; then
            is_folder "$ROOT/$path" || same_folder "$path"
        else
            same_file "$path"
        fi
    done
}

# An empty one.
same_folder() {
    real_folder "$ROOT/$1"
    chmod "$(mode_of "$skeleton/$1")" "$ROOT/$1"
}

same_file() {
    if is_file "$ROOT/$1" && cmp -s "$skeleton/$1" "$ROOT/$1"; then return 0; fi
    if is_there "$ROOT/$1"; then say "repaired $1"; fi
    put_file "$skeleton/$1" "$ROOT/$1" "$(mode_of "$skeleton/$1")"
}

same_link() {
    wanted=$(readlink "$skeleton/$1") || die "$skeleton/$1 is no link"
    have=$(readlink "$ROOT/$1") || have=
    [ "$have" = "$wanted" ] && return 0
    if is_there "$ROOT/$1"; then say "repaired the link $1"; fi
    changed=yes
    mkdir -p "$STATE/new"
    rm -f "$STATE/new/link"
    ln -s "$wanted" "$STATE/new/link"
    # mv -T is not POSIX; without it a link to a folder would be moved into that folder.
    rm -rf "${ROOT:?}/$1"
    mv "$STATE/new/link" "$ROOT/$1"
}

seed_folder() { if is_folder "$ROOT/$1"; then same_all "$1"; else adopt_folder "$1"; fi; }

# A whole directory of the skeleton, copied aside and renamed into place.
adopt_folder() {
    changed=yes
    if is_there "$ROOT/$1"; then
        say "repaired $1, which was no folder"
        rm -rf "${ROOT:?}/$1"
    fi
    mkdir -p "$STATE/new"
    rm -rf "$STATE/new/folder"
    cp -a "$skeleton/$1" "$STATE/new/folder" || die "cannot copy $1 to $DATA_ROOT"
    # Small files of a folder have to be on the disk before its name is.
    on_disk -f "$STATE/new"
    mv "$STATE/new/folder" "$ROOT/$1"
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
        is_there "$path" || die "cannot read $2 in the store"
        echo "$1 ${path##*/}"
    done
}

# The list that an earlier firmware left, as far as it is one: it says what to remove.
known_lines() {
    is_file "$STATE/factory" || return 0
    grep -E '^((layer|config|blob) [0-9a-f]{64}|link [0-9A-Z]{26}|reference [^ ]+ [^ ]+ sha256:[0-9a-f]{64})$' "$STATE/factory" || [ $? -eq 1 ]
}

# --- what an older firmware left ---

# Layers that the older store held and this one does not: their diff links lead nowhere now, or will. The engine would list
# images on them, could not run them, and would answer a pull with "exists".
remove_stale() {
    known_lines >"$RUN/known"
    without "$RUN/factory" "$RUN/known" >"$RUN/stale"
    sed -n 's/^config //p' "$RUN/stale" >"$RUN/stale-configs"
    sed -n 's/^layer //p' "$RUN/stale" >"$RUN/stale-layers"
    remove_orphans
    references <"$WRITTEN/$REPOSITORIES" >"$RUN/have"
    # Under a name of the user's own it stays, if its layers do.
    sed 's/.* sha256://' "$RUN/have" >"$RUN/named"
    without "$RUN/named" "$RUN/stale-configs" >"$RUN/unnamed"
    while read -r config; do rm -rf "${ROOT:?}/$CONFIGS/$config"; done <"$RUN/unnamed"
    while read -r layer; do remove_layer "$layer"; done <"$RUN/stale-layers"
    while read -r kind name; do
        case $kind in
        link) rm -rf "${ROOT:?}/overlay2/l/$name" ;;
        blob) rm -rf "${ROOT:?}/$BLOBS/$name" ;;
        esac
    done <"$RUN/stale"
    drop_lost_references
    name_lost_containers
}

# The user's layers on top of a layer that is no longer there cannot be used; without their records a pull brings them again.
remove_orphans() {
    for path in "$ROOT/$LAYERDB"/*; do
        parent=$(first_line "$path/parent")
        if is_hash "${path##*/}" && is_hash "${parent#sha256:}"; then echo "${path##*/} ${parent#sha256:}"; fi
    done >"$RUN/parents"
    awk '
        FILENAME == ARGV[1] { gone[$1] = 1; next }
        { parent[$1] = $2 }
        END {
            do {
                found = 0
                for (one in parent) if (!(one in gone) && (parent[one] in gone)) { gone[one] = found = 1; print one }
            } while (found)
        }' "$RUN/stale-layers" "$RUN/parents" >"$RUN/orphans"
    cat "$RUN/stale-layers" "$RUN/orphans" >"$RUN/gone"
    while read -r layer; do
        say "layer $layer was built on a layer of another firmware and goes with it; pull its image again"
        remove_layer "$layer"
    done <"$RUN/orphans"
}

remove_layer() {
    # A factory layer's folder has the chain's name; it may have come without its record, when the power went between the two.
    if [ -L "$ROOT/overlay2/$1/diff" ]; then rm -rf "${ROOT:?}/overlay2/$1"; fi
    cache=$(first_line "$ROOT/$LAYERDB/$1/cache-id")
    rm -rf "${ROOT:?}/$LAYERDB/$1"
    case $cache in '' | *[!0-9a-z-]*) return 0 ;; esac
    link=$(first_line "$ROOT/overlay2/$cache/link")
    case $link in '' | *[!0-9A-Z]*) ;; *) rm -rf "${ROOT:?}/overlay2/l/$link" ;; esac
    rm -rf "${ROOT:?}/overlay2/$cache"
}

# Names of images that are gone, and images whose layers are: each is logged, so that nobody wonders.
drop_lost_references() {
    references <"$WRITTEN/$REPOSITORIES" >"$RUN/have"
    : >"$RUN/kept"
    while read -r name reference digest; do
        config=${digest#sha256:}
        is_hash "$config" || continue
        if is_file "$ROOT/$CONFIGS/$config" && has_layers "$config"; then
            printf '%s\n' "$name $reference $digest" >>"$RUN/kept"
        else
            say "image $reference is gone with another firmware's layers; pull it again if you need it"
            rm -rf "${ROOT:?}/$CONFIGS/$config"
        fi
    done <"$RUN/have"
    write_references "$RUN/kept"
}

# has_layers CONFIG: whether the image's top chain is in the data-root (chainID: OCI image specification, config.md).
has_layers() {
    diffs=$(awk 'BEGIN { RS = "]" }
        {
            gsub(/[ \t\r\n]/, "")
            if (at = index($0, "\"diff_ids\":[")) diffs = substr($0, at + 12)
        }
        END {
            gsub(/[",]/, " ", diffs)
            print diffs
        }' "$ROOT/$CONFIGS/$1") || die "cannot read image $1"
    chain=
    for diff in $diffs; do
        is_hash "${diff#sha256:}" || return 1
        if [ -z "$chain" ]; then chain=$diff; else
            sum=$(printf '%s %s' "$chain" "$diff" | sha256sum) || die "cannot hash"
            chain=sha256:${sum%% *}
        fi
    done
    [ -z "$chain" ] || [ -d "$ROOT/$LAYERDB/${chain#sha256:}" ]
}

# Containers on layers that are gone cannot start; their own files stay until someone removes them.
name_lost_containers() {
    for path in "$ROOT/$IMAGES/layerdb/mounts"/*; do
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
    not_refused
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
    without "$RUN/before" "$RUN/have" >"$RUN/kept"
    write_references "$RUN/kept"
    rm -rf "$STATE"
    sync
    say "what the firmware had put into $DATA_ROOT is removed"
}
