# The data-root. Sourced by shiplap-target; everything may be run again after a power cut at any point.
#
# Volatile: a copy of the skeleton on a fresh tmpfs. Persistent: at each boot every factory file, link and reference is held
# against the skeleton in the verified store, and only what differs is written: aside, synced, renamed. What an older
# firmware put there and this one does not ship goes last, then the list of what is ours, then the stamp. The data-root itself
# is not trusted: names are taken from it only where they have the form that they must have.
# shellcheck shell=sh disable=SC2154

do_seed() {
    open_etc
    if [ "$MODE" = archive ]; then
        seed_archive
        return 0
    fi
    [ "$ENGINE" = docker ] || return 0 # Podman reads the mounted store itself
    skeleton=$STORE/skeleton
    [ -d "$skeleton/image" ] || die "$STORE holds no skeleton of a data-root"
    case $PERSISTENCE in
    volatile) seed_volatile ;;
    persistent) seed_persistent ;;
    esac
    link_volumes
}

# Docker before 24 writes a key to /etc/docker and does not start where it cannot (libtrust's key file).
open_etc() {
    [ "$ENGINE" = docker ] && [ -d /etc/docker ] && is_read_only /etc/docker || return 0
    mkdir -p "$RUN/etc-docker"
    cp -a /etc/docker/. "$RUN/etc-docker/"
    mount -o bind "$RUN/etc-docker" /etc/docker || die "/etc/docker is read-only and cannot be covered"
}

seed_archive() {
    [ "$ENGINE" = docker ] || return 0
    if [ "$PERSISTENCE" = volatile ]; then
        is_ours_or_free || mount_volatile
    else
        require_writable
    fi
    real_folder "$STATE"
    link_volumes
}

# Whether our tmpfs is mounted there already; anything else is refused.
is_ours_or_free() {
    held=$(mount_at "$DATA_ROOT") || return 1
    [ "${held%% *}" = shiplap-data ] || die "$DATA_ROOT is a mount of ${held%% *} already"
}

mount_volatile() {
    [ -d "$DATA_ROOT" ] || mkdir -p "$DATA_ROOT" || die "there is no folder $DATA_ROOT to mount on"
    mount -t tmpfs -o "mode=0710${SIZE:+,size=$SIZE}" shiplap-data "$DATA_ROOT" || die "cannot mount a tmpfs on $DATA_ROOT"
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

read_stamp() {
    if [ -f "$STATE/stamp" ]; then cat "$STATE/stamp"; fi
}

# Mounts below the data-root would be hidden when the engine mounts it onto itself; a link is not.
link_volumes() {
    [ -n "$VOLUMES_PATH" ] || return 0
    [ -d "$VOLUMES_PATH" ] || mkdir -p "$VOLUMES_PATH" || die "cannot make $VOLUMES_PATH"
    [ "$(readlink "$DATA_ROOT/volumes")" = "$VOLUMES_PATH" ] && return 0
    if [ -d "$DATA_ROOT/volumes" ] && [ ! -L "$DATA_ROOT/volumes" ]; then
        rmdir "$DATA_ROOT/volumes" 2>/dev/null || die "$DATA_ROOT/volumes holds volumes already: move them to $VOLUMES_PATH"
    fi
    ln -sfn "$VOLUMES_PATH" "$DATA_ROOT/volumes"
}

# --- persistent ------------------------------------------------------------------------------------------------------

LAYERDB=image/overlay2/layerdb/sha256
CONFIGS=image/overlay2/imagedb/content/sha256
REPOSITORIES=image/overlay2/repositories.json
BLOBS=image/overlay2/distribution/diffid-by-digest/sha256
FOLDERS=". image image/overlay2 image/overlay2/imagedb image/overlay2/imagedb/content $CONFIGS image/overlay2/layerdb $LAYERDB overlay2 overlay2/l"

seed_persistent() {
    if held=$(mount_at "$DATA_ROOT") && [ "${held%% *}" = shiplap-refused ]; then
        die "$DATA_ROOT was made unusable by an earlier failure: restart the device"
    fi
    require_writable
    if engine_runs; then
        say "the engine runs: the data-root is left as it is until the next start of the device"
        return 0
    fi
    changed=no
    make_folders
    rm -rf "$STATE/new"
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

require_writable() {
    [ -d "$DATA_ROOT" ] || mkdir -p "$DATA_ROOT" || die "cannot make the data-root $DATA_ROOT"
    held=$(mount_of "$DATA_ROOT") || die "/proc/self/mounts says nothing of $DATA_ROOT"
    case ${held##* } in ro | ro,*) die "the data-root $DATA_ROOT is not writable: is its partition mounted?" ;; esac
    case $held in *' overlay '*) die "the data-root $DATA_ROOT lies on overlayfs, which the engine's overlay2 cannot use" ;; esac
}

# Directories of the skeleton with the modes that the engine gives them. A link in the place of one would lead our writing astray.
make_folders() {
    for folder in $FOLDERS; do
        [ "$folder" = . ] || real_folder "$DATA_ROOT/$folder"
        wanted=$(mode_of "$skeleton/$folder")
        [ "$(mode_of "$DATA_ROOT/$folder")" = "$wanted" ] || chmod "$wanted" "$DATA_ROOT/$folder"
    done
    real_folder "$STATE"
    if [ -d "$skeleton/$BLOBS" ]; then
        for folder in "${BLOBS%/*/*}" "${BLOBS%/*}" "$BLOBS"; do real_folder "$DATA_ROOT/$folder"; done
    fi
}

# real_folder PATH: a directory, and no link to one. Its parent is one already.
real_folder() {
    if [ -d "$1" ] && [ ! -L "$1" ]; then return 0; fi
    if [ -e "$1" ] || [ -L "$1" ]; then
        say "repaired $1, which was no folder"
        rm -f "$1"
    fi
    mkdir "$1"
}

mode_of() { stat -c %a "$1"; }

# put_file FROM TO MODE: whole or not at all.
put_file() {
    changed=yes
    mkdir -p "$STATE/new"
    cat "$1" >"$STATE/new/file"
    chmod "$3" "$STATE/new/file"
    sync -d "$STATE/new/file" 2>/dev/null || sync
    # A directory in the file's place would swallow it.
    if [ -d "$2" ]; then rm -rf "$2"; fi
    mv -f "$STATE/new/file" "$2"
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

# repositories.json → lines "NAME REFERENCE DIGEST". Nothing in a reference needs an escape, or has a blank, brace or comma.
references() {
    tr -d ' \t\r\n' | sed 's/^{"Repositories":{//' | tr '}' '\n' | awk '
        {
            sub(/^,/, "")
            at = index($0, "\":{")
            if (at < 3) next
            name = substr($0, 2, at - 2)
            count = split(substr($0, at + 3), pairs, ",")
            for (i = 1; i <= count; i++) {
                one = pairs[i]
                gsub(/"/, "", one)
                # The digest is the last "sha256:…"; a reference may hold one as well.
                at = length(one) - 71
                if (at > 1 && substr(one, at, 8) == ":sha256:") print name, substr(one, 1, at - 1), substr(one, at + 1)
            }
        }'
}

# Lines "NAME REFERENCE DIGEST" → repositories.json as the engine writes it.
to_repositories() {
    sort -u | awk '
        BEGIN { printf "{\"Repositories\":{" }
        $1 != name { if (name != "") printf "},"; name = $1; printf "\"%s\":{", name; first = 1 }
        { printf "%s\"%s\":\"%s\"", first ? "" : ",", $2, $3; first = 0 }
        END { if (name != "") printf "}"; printf "}}" }'
}

# Factory references win; what the user made or pulled stays; what an older firmware named and this one does not goes.
merge_references() {
    if [ ! -f "$DATA_ROOT/$REPOSITORIES" ] || [ -L "$DATA_ROOT/$REPOSITORIES" ] || [ ! -s "$DATA_ROOT/$REPOSITORIES" ]; then
        if [ -e "$DATA_ROOT/$REPOSITORIES" ] || [ -L "$DATA_ROOT/$REPOSITORIES" ]; then say "repaired $REPOSITORIES"; fi
        put_file "$RUN/repositories-in-store" "$DATA_ROOT/$REPOSITORIES" 600
        return 0
    fi
    references <"$DATA_ROOT/$REPOSITORIES" >"$RUN/have"
    sed -n 's/^reference //p' "$STATE/factory" >"$RUN/before"
    awk -v lost="$RUN/lost" '
        FILENAME == ARGV[1] { ours[$2] = $0; next }
        FILENAME == ARGV[2] { before[$0] = 1; next }
        ($2 in ours) && ours[$2] != $0 && !($0 in before) { print $2 >lost }
        !($2 in ours) && !($0 in before) { print }
        END { for (one in ours) print ours[one] }' "$RUN/ours" "$RUN/before" "$RUN/have" >"$RUN/merged"
    write_references "$RUN/merged"
    if [ -s "$RUN/lost" ]; then
        while read -r reference; do say "the name $reference is the firmware's: it was another image's, which stays without it"; done <"$RUN/lost"
    fi
    rm -f "$RUN/lost"
}

write_references() {
    to_repositories <"$1" >"$RUN/repositories"
    cmp -s "$RUN/repositories" "$DATA_ROOT/$REPOSITORIES" || put_file "$RUN/repositories" "$DATA_ROOT/$REPOSITORIES" 600
}
