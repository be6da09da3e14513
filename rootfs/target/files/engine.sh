# The engine: loading archives, starting containers, telling how things are. Sourced by shiplap-target.
# shellcheck shell=sh disable=SC2154,SC2153

LABEL=io.shiplap.definition

engine() {
    case $ENGINE in
    docker) docker "$@" ;;
    podman) podman "$@" ;;
    esac
}

# Asked only where there is a socket: at boot, before the engine, this costs nothing.
engine_runs() {
    socket=${DOCKER_HOST:-unix:///var/run/docker.sock}
    [ "$ENGINE" = docker ] && [ -S "${socket#unix://}" ] && docker version >/dev/null 2>&1
}

short_sleep() { sleep 0.2 2>/dev/null || sleep 1; }

# Waits until the engine answers, at most TIMEOUT seconds; a question to an engine that hangs is given up.
await_engine() {
    [ "$ENGINE" = docker ] || return 0
    deadline=$(($(uptime_seconds) + TIMEOUT))
    while :; do
        engine version >/dev/null 2>&1 &
        question=$!
        while kill -0 "$question" 2>/dev/null; do
            if [ "$(uptime_seconds)" -ge "$deadline" ]; then
                kill "$question" 2>/dev/null || :
                die "the engine did not answer within $TIMEOUT seconds"
            fi
            short_sleep
        done
        if wait "$question"; then return 0; fi
        [ "$(uptime_seconds)" -lt "$deadline" ] || die "the engine did not answer within $TIMEOUT seconds"
        short_sleep
    done
}

# has_image CONFIG REFERENCE: under that name the engine has that image. Its ID is the config digest, but for the containerd
# store, whose IDs were written down when the archive was loaded.
has_image() {
    id=$(engine image inspect --format '{{.Id}}' "$2" 2>/dev/null) || return 1
    [ "$id" = "$1" ] || [ "sha256:$id" = "$1" ] || grep -qxF "$STORE_ID $2 $id" "$STATE/loaded" 2>/dev/null
}

# /etc/shiplap/images has a line "CONFIG REFERENCE" for each name of each image. Prints the first name that is missing.
first_missing() {
    while read -r config reference; do
        has_image "$config" "$reference" </dev/null || { echo "$reference"; return 0; }
    done <"$LISTS/images"
}

do_load() {
    [ "$MODE" = archive ] || return 0
    await_engine
    missing=$(first_missing)
    [ -n "$missing" ] || return 0
    do_verify
    case $image in
    *.zst) zstd -dc "$image" | engine load >/dev/null ;;
    *) engine load -i "$image" >/dev/null ;;
    esac || die "the engine does not load $image"
    while read -r config reference; do
        id=$(engine image inspect --format '{{.Id}}' "$reference" </dev/null) || die "after loading $image the engine has no $reference"
        echo "$STORE_ID $reference $id"
    done <"$LISTS/images" >"$RUN/loaded"
    mkdir -p "$STATE"
    put_file "$RUN/loaded" "$STATE/loaded" 600
    sync
    say "loaded $image, because $missing was missing"
}

# --- containers ------------------------------------------------------------------------------------------------------

# A file of /etc/shiplap/containers sets CONTAINER, IMAGE_ID, IMAGE_NAME, DEFINITION, WAIT_FOR and create().
do_start() {
    [ "$MODE" = archive ] || is_mounted "$STORE" || die "the store is not mounted"
    await_engine
    remove_former
    for definition in "$LISTS/containers"/*; do
        [ -e "$definition" ] || continue
        start_one "$definition"
    done
}

# Containers that an earlier firmware defined and this one does not.
remove_former() {
    engine ps -a --filter "label=$LABEL" --format '{{.Names}}' >"$RUN/ours" || die "the engine does not list its containers"
    while read -r container; do
        for definition in "$LISTS/containers"/*; do
            # Names of files are NNN-NAME.
            definition=${definition##*/}
            [ "${definition#???-}" = "$container" ] && continue 2
        done
        say "container $container is not part of this firmware: removed"
        engine rm -f "$container" >/dev/null </dev/null || die "cannot remove the container $container"
    done <"$RUN/ours"
}

start_one() {
    CONTAINER='' IMAGE_ID='' IMAGE_NAME='' DEFINITION='' WAIT_FOR=''
    # shellcheck source=/dev/null
    . "$1"
    for path in $WAIT_FOR; do await_path "$path"; done
    state=$(container_state)
    case $state in
    "$DEFINITION true") return 0 ;;
    "$DEFINITION false") ;;
    *)
        if [ "$state" != absent ]; then
            say "container $CONTAINER has another definition: made again"
            engine rm -f "$CONTAINER" >/dev/null || die "cannot remove the former container $CONTAINER"
        fi
        make_container
        ;;
    esac
    engine start "$CONTAINER" >/dev/null || die "cannot start the container $CONTAINER"
    say "container $CONTAINER is started"
}

# "DEFINITION true|false", or absent.
container_state() {
    # The client writes an empty line for what it does not find.
    state=$(engine inspect --type container --format "{{ index .Config.Labels \"$LABEL\" }} {{ .State.Running }}" "$CONTAINER" 2>/dev/null) ||
        state=absent
    echo "$state"
}

# By the config's digest; where the engine has other IDs, by the name, if that is still what was loaded.
make_container() {
    image=$IMAGE_ID
    if ! engine image inspect "$image" >/dev/null 2>&1; then
        has_image "$IMAGE_ID" "$IMAGE_NAME" || die "container $CONTAINER: the engine has no image $IMAGE_NAME ($IMAGE_ID)"
        image=$IMAGE_NAME
    fi
    create "$image" >/dev/null || die "cannot create the container $CONTAINER"
}

await_path() {
    deadline=$(($(uptime_seconds) + TIMEOUT))
    until [ -e "$1" ]; do
        [ "$(uptime_seconds)" -lt "$deadline" ] || die "container $CONTAINER waits for $1, which did not appear within $TIMEOUT seconds"
        short_sleep
    done
}

# --- status ----------------------------------------------------------------------------------------------------------

do_status() {
    wait=0
    if [ $# -gt 0 ]; then
        { [ "$1" = --wait ] && is_number "${2:-}"; } || { usage >&2; exit 2; }
        wait=$2
    fi
    deadline=$(($(uptime_seconds) + wait))
    while problem=$(first_problem) && [ -n "$problem" ]; do
        if [ "$(uptime_seconds)" -ge "$deadline" ]; then
            echo "shiplap: $problem" >&2
            return 1
        fi
        sleep 1
    done
    echo "shiplap: store $STORE_ID: every image is there, every container runs"
}

# The first thing that is not as it should be, or nothing.
first_problem() {
    if [ "$MODE" = store ]; then
        is_mounted "$STORE" || { echo "the store is not mounted"; return 0; }
        stamp=
        if [ -r "$STATE/stamp" ]; then read -r stamp <"$STATE/stamp" || :; fi
        [ "$ENGINE" != docker ] || [ "$stamp" = "$STORE_ID" ] || { echo "the data-root is not seeded with this firmware's store"; return 0; }
    fi
    engine version >/dev/null 2>&1 || { echo "the engine does not answer"; return 0; }
    missing=$(first_missing)
    [ -z "$missing" ] || { echo "the engine has no image $missing of this firmware"; return 0; }
    for definition in "$LISTS/containers"/*; do
        [ -e "$definition" ] || continue
        # shellcheck source=/dev/null
        . "$definition"
        state=$(container_state)
        [ "$state" = "$DEFINITION true" ] || { echo "container $CONTAINER: $(describe "$state")"; return 0; }
    done
}

describe() {
    case $1 in
    absent) echo "does not exist" ;;
    "$DEFINITION false") echo "does not run" ;;
    *) echo "is of another definition" ;;
    esac
}
