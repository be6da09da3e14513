# The data-root. Sourced by shiplap-target; everything may be run again after a power cut at any point.
# shellcheck shell=sh disable=SC2154,SC2034

do_seed() {
    left=no
    open_etc
    if [ "$ENGINE" = podman ]; then
        seed_podman
    elif [ "$MODE" = archive ]; then
        seed_archive
    elif [ "$DRIVER" = vfs ]; then
        seed_vfs
    else
        seed_overlay2
    fi
    if [ "$left" = no ]; then this_seeding >"$RUN/seeded"; fi
}

# Neither an earlier boot's nor another firmware's, also where RUN outlives a boot.
this_seeding() { echo "$STORE_ID $(cat /proc/sys/kernel/random/boot_id)"; }

# Docker before 24 writes a key to /etc/docker (libtrust's), Podman 4 a lock beside its networks; neither starts where it cannot.
open_etc() {
    case $ENGINE in
    docker) set -- /etc/docker ;;
    podman) set -- /etc/containers/networks /etc/cni/net.d ;;
    esac
    for folder in "$@"; do
        { [ -d "$folder" ] && is_read_only "$folder"; } || continue
        mkdir -p "$RUN$folder"
        cp -a "$folder/." "$RUN$folder/"
        mount -o bind "$RUN$folder" "$folder" || die "$folder is read-only and cannot be covered"
    done
}

seed_archive() {
    if [ "$PERSISTENCE" = volatile ]; then
        is_ours_or_free || mount_volatile
    else
        require_writable
    fi
    open_state
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

is_hash() { case $1 in *[!0-9a-f]*) return 1 ;; esac; [ ${#1} -eq 64 ]; }

# first_line FILE: without the line's end, which the engine does not write.
first_line() {
    line=
    if [ -f "$1" ]; then read -r line <"$1" || :; fi
    printf '%s\n' "$line"
}

require_writable() {
    [ -d "$DATA_ROOT" ] || mkdir -p "$DATA_ROOT" || die "cannot make the data-root $DATA_ROOT"
    held=$(mount_of "$DATA_ROOT") || die "/proc/self/mounts says nothing of $DATA_ROOT"
    case ${held##* } in ro | ro,*) die "the data-root $DATA_ROOT is not writable: is its partition mounted?" ;; esac
    case $held in *' overlay '*) die "the data-root $DATA_ROOT lies on overlayfs, which cannot carry another" ;; esac
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

# The kit's own folder; somebody may have put links into it, or what blocks a reader.
open_state() {
    real_folder "$STATE"
    rm -rf "$STATE/new"
    for own in factory names stamp loaded; do
        if [ -L "$STATE/$own" ] || { [ -e "$STATE/$own" ] && [ ! -f "$STATE/$own" ]; }; then
            say "repaired $STATE/$own"
            rm -rf "${STATE:?}/$own"
        fi
    done
}

mode_of() { stat -c %a "$1"; }

# put_file FROM TO MODE: whole or not at all.
put_file() {
    changed=yes
    real_folder "$STATE/new"
    rm -rf "$STATE/new/file"
    cat "$1" >"$STATE/new/file"
    chmod "$3" "$STATE/new/file"
    sync -d "$STATE/new/file" 2>/dev/null || sync
    # A directory in the file's place would swallow it.
    if [ -d "$2" ]; then rm -rf "$2"; fi
    mv -f "$STATE/new/file" "$2"
}
