# The data-root. Sourced by shiplap-target; everything may be run again after a power cut at any point.
# shellcheck shell=sh disable=SC2154,SC2034

do_seed() {
    not_refused
    if is_shown; then
        do_mount
        this_seeding >"$RUN/seeded"
    elif engine_runs; then
        do_mount
        say "the engine runs: the data-root is left as it is until the next start of the device"
    else
        hide
        do_mount
        open_etc
        changed=no
        if [ "$ENGINE" = podman ]; then
            seed_podman
        elif [ "$MODE" = archive ]; then
            open_state
            link_volumes
        elif [ "$DRIVER" = vfs ]; then
            seed_vfs
        else
            seed_overlay2
        fi
        show
    fi
}

# Ours are mounted on the data-root when they are whole.
is_shown() {
    held=$(mount_at "$DATA_ROOT") || return 1
    case $held in 'shiplap-data '* | 'shiplap-vfs '*) ;; *) return 1 ;; esac
    [ "$MODE" = archive ] || [ "$(read_stamp)" = "$STORE_ID" ] || die "$DATA_ROOT holds another store: restart the device"
}

# The data-root is covered first and prepared at another place: however that ends, an engine finds the cover, or all of it.
hide() {
    [ -d "$DATA_ROOT" ] || mkdir -p "$DATA_ROOT" || die "cannot make the data-root $DATA_ROOT"
    leave_below
    mkdir -p "$BELOW"
    if [ "$PERSISTENCE" = persistent ]; then
        require_writable
        # Of two shared views of a folder each shows what is mounted on the other.
        mount -o bind "$DATA_ROOT" "$BELOW" || die "cannot mount $DATA_ROOT on $BELOW"
        mount --make-private "$BELOW" || :
    elif held=$(mount_at "$DATA_ROOT"); then
        die "$DATA_ROOT is a mount of ${held%% *} already"
    fi
    cover "$DATA_ROOT" || die "cannot cover $DATA_ROOT"
    # BusyBox' awk, grep, sed and sort do not say when they cannot write.
    [ ! -c /dev/zero ] || dd if=/dev/zero of="$RUN/room" bs=1024 count=1024 2>/dev/null || { rm -f "$RUN/room"; die "$RUN is full"; }
    rm -f "$RUN/room"
    if [ "$PERSISTENCE" = volatile ]; then
        mount -t tmpfs -o "mode=0710${SIZE:+,size=$SIZE}" shiplap-data "$BELOW" || die "cannot mount a tmpfs on $BELOW"
    fi
    work_on "$BELOW"
}

# The last step.
show() {
    this_seeding >"$RUN/seeded"
    if [ "$PERSISTENCE$ROOT" = "persistent$BELOW" ]; then
        umount "$DATA_ROOT" || umount -l "$DATA_ROOT" || die "cannot uncover $DATA_ROOT"
    else
        mount -o bind "$ROOT" "$DATA_ROOT" || die "cannot mount $ROOT on $DATA_ROOT"
    fi
    let_go "$ROOT"
}

# Left by a seeding that was killed; or by vfs, which needs it.
leave_below() {
    for held in "$VIEW" "$BELOW"; do
        while is_mounted "$held"; do umount "$held" || die "$held is in use"; done
    done
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

read_stamp() { first_line "$STATE/stamp"; }

# When all else is on the disk.
stamp() {
    if [ "$changed$PERSISTENCE" = yespersistent ]; then sync; fi
    if [ "$(read_stamp)" != "$STORE_ID" ]; then
        echo "$STORE_ID" >"$RUN/stamp"
        put_file "$RUN/stamp" "$STATE/stamp" 600
        if [ "$PERSISTENCE" = persistent ]; then
            sync
            say "the data-root $DATA_ROOT belongs to store $STORE_ID now"
        fi
    fi
    rm -rf "$STATE/new"
}

# Mounts below the data-root would be hidden when the engine mounts it onto itself; a link is not.
link_volumes() {
    [ -n "$VOLUMES_PATH" ] || return 0
    [ -d "$VOLUMES_PATH" ] || mkdir -p "$VOLUMES_PATH" || die "cannot make $VOLUMES_PATH"
    [ "$(readlink "$ROOT/volumes")" = "$VOLUMES_PATH" ] && return 0
    if is_folder "$ROOT/volumes"; then
        rmdir "$ROOT/volumes" 2>/dev/null || die "$DATA_ROOT/volumes holds volumes already: move them to $VOLUMES_PATH"
    fi
    ln -sfn "$VOLUMES_PATH" "$ROOT/volumes"
}

# A link is neither a file nor a folder, but it is there.
is_file() { [ -f "$1" ] && [ ! -L "$1" ]; }
is_folder() { [ -d "$1" ] && [ ! -L "$1" ]; }
is_there() { [ -e "$1" ] || [ -L "$1" ]; }

# without FILE FILE: the lines of the second that are not in the first.
without() { awk 'FILENAME == ARGV[1] { first[$0] = 1; next } !($0 in first)' "$1" "$2"; }

is_hash() { case $1 in *[!0-9a-f]*) return 1 ;; esac; [ ${#1} -eq 64 ]; }

# first_line FILE: without the line's end, which the engine does not write.
first_line() {
    line=
    if [ -f "$1" ]; then read -r line <"$1" || :; fi
    printf '%s\n' "$line"
}

require_writable() {
    held=$(mount_of "$DATA_ROOT") || die "/proc/self/mounts says nothing of $DATA_ROOT"
    case ${held##* } in ro | ro,*) die "the data-root $DATA_ROOT is not writable: is its partition mounted?" ;; esac
    case $held in *' overlay '*) die "the data-root $DATA_ROOT lies on overlayfs, which cannot carry another" ;; esac
}

# real_folder PATH: a directory, and no link to one. Its parent is one already.
real_folder() {
    if is_folder "$1"; then return 0; fi
    if is_there "$1"; then
        say "repaired ${1#"$ROOT/"}, which was no folder"
        rm -f "$1"
    fi
    mkdir "$1"
}

# The kit's own folder; somebody may have put links into it, or what blocks a reader.
open_state() {
    real_folder "$STATE"
    rm -rf "$STATE/new"
    for own in factory names stamp loaded; do
        if is_there "$STATE/$own" && ! is_file "$STATE/$own"; then
            say "repaired .shiplap/$own"
            rm -rf "${STATE:?}/$own"
        fi
    done
}

mode_of() { stat -c %a "$1"; }

# on_disk OPTION PATH: where sync has no such option, everything; that it cannot write is a failure.
on_disk() { if sync "$1" "$RUN" 2>/dev/null; then sync "$@"; else sync; fi; }

# put_file FROM TO MODE: whole or not at all.
put_file() {
    changed=yes
    real_folder "$STATE/new"
    rm -rf "$STATE/new/file"
    cat "$1" >"$STATE/new/file"
    chmod "$3" "$STATE/new/file"
    on_disk -d "$STATE/new/file"
    # A directory in the file's place would swallow it.
    if [ -d "$2" ]; then rm -rf "$2"; fi
    mv -f "$STATE/new/file" "$2"
}
