# The engine: loading archives, starting containers, telling how things are. Sourced by shiplap-target.
# shellcheck shell=sh disable=SC2154,SC2153

LABEL=io.shiplap.definition

engine() {
    # Under systemd Podman's runtime asks for a scope over D-Bus; without that it starts nothing.
    if [ "$ENGINE" = podman ] && is_systemd && [ ! -S /run/dbus/system_bus_socket ]; then set -- --cgroup-manager=cgroupfs "$@"; fi
    "$ENGINE" "$@"
}

is_systemd() { [ -d /run/systemd/system ]; }

# Where nobody can start the timers of a health check, Podman must not try.
if ! is_systemd; then export DISABLE_HC_SYSTEMD=true; fi

# Docker is asked only where there is a socket: at boot, before the engine, this costs nothing. Podman runs when a container is mounted.
engine_runs() {
    if [ "$ENGINE" = podman ]; then
        where=$(cd -P "$DATA_ROOT" && pwd -P) || return 1
        grep -qF " $where/overlay/" /proc/self/mounts
        return
    fi
    socket=${DOCKER_HOST:-unix:///var/run/docker.sock}
    [ -S "${socket#unix://}" ] && docker version >/dev/null 2>&1
}

short_sleep() { sleep 0.2 2>/dev/null || sleep 1; }

# Waits until the engine answers, at most TIMEOUT seconds.
await_engine() {
    # Where seeding failed the engine does not answer, or must not be asked.
    not_refused
    # Somebody ended the seeding in a way that it could not notice, and the engine was started all the same.
    [ "$(first_line "$RUN/seeded")" = "$(this_seeding)" ] || die "the data-root $DATA_ROOT was not seeded since the start of the device"
    if [ "$ENGINE" = podman ]; then
        problem=$(podman_problem)
        [ -z "$problem" ] || die "$problem"
        return 0
    fi
    within "$TIMEOUT"
    until answers; do
        in_time || die "the engine did not answer within $TIMEOUT seconds"
        short_sleep
    done
}

# A question to an engine that hangs is given up.
answers() {
    engine version >/dev/null 2>&1 &
    question=$!
    while kill -0 "$question" 2>/dev/null; do
        in_time || { kill "$question" 2>/dev/null; return 1; }
        short_sleep
    done
    wait "$question"
}

# Another configuration may be stronger than storage.conf; what it names is neither prepared nor covered after a failure.
podman_problem() {
    if ! used=$(engine info --format '{{.Store.GraphRoot}}' 2>"$RUN/said"); then
        echo "podman does not work$(engine_said)"
    elif [ "$(cd -P "$used" && pwd -P)" != "$(cd -P "$DATA_ROOT" && pwd -P)" ]; then
        echo "Podman's graphroot is $used instead of $DATA_ROOT: look for files below storage.conf.d"
    fi
}

# What the engine had to say, but for the plain news that there is no such thing.
engine_said() {
    said=$(sed -n '$p' "$RUN/said")
    case $said in '' | *'o such image'* | *'not known'* | *'failed to find image'*) ;; *) printf ': %s\n' "${said#Error: }" ;; esac
}

# has_image CONFIG REFERENCE: under that name the engine has that image. Its ID is the config digest, but for the containerd
# store, whose IDs were written down when the archive was loaded.
has_image() {
    id=$(engine image inspect --format '{{.Id}}' "$2" 2>"$RUN/said") || return 1
    [ "$id" = "$1" ] || [ "sha256:$id" = "$1" ] ||
        { [ "$MODE" = archive ] && grep -qxF "$STORE_ID $2 $id" "$STATE/loaded" 2>/dev/null; }
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
    open_state
    put_file "$RUN/loaded" "$STATE/loaded" 600
    rm -rf "$STATE/new"
    sync
    say "loaded $image, because $missing was missing"
}

# --- containers ---

# A file of /etc/shiplap/containers sets CONTAINER, IMAGE_ID, IMAGE_NAME, DEFINITION, WAIT_FOR and create().
do_start() {
    [ "$MODE" = archive ] || store_is_there || die "the store is not mounted"
    await_engine
    remove_former
    for definition in "$LISTS/containers"/*; do
        [ -e "$definition" ] || continue
        if [ "$QUADLET" = yes ] && is_systemd; then start_unit "$definition"; else start_one "$definition"; fi
    done
}

# A unit that Podman's generator made of /etc/containers/systemd; it waits for this very program to end, so nobody waits for it.
start_unit() {
    # shellcheck source=/dev/null
    . "$1"
    has_unit || die "container $CONTAINER: $(describe absent)"
    systemctl --no-block start "container-$CONTAINER.service" || die "cannot start container-$CONTAINER.service"
}

has_unit() { [ -e "/run/systemd/generator/container-$CONTAINER.service" ]; }

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
    CONTAINER='' IMAGE_ID='' IMAGE_NAME='' DEFINITION='' WAIT_FOR='' HEALTH=no
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
    if [ "$ENGINE $HEALTH" = "podman yes" ] && ! is_systemd; then
        say "container $CONTAINER: nobody runs its health check, because Podman leaves that to systemd"
    fi
}

# "DEFINITION true|false", or absent.
container_state() {
    # The client writes an empty line for what it does not find.
    state=$(engine inspect --type container --format "{{ index .Config.Labels \"$LABEL\" }} {{ .State.Running }}" "$CONTAINER" 2>/dev/null) ||
        state=absent
    # Podman 4 does not tell about a container whose image is gone.
    if [ "$ENGINE $state" = "podman absent" ] && podman container exists "$CONTAINER" 2>/dev/null; then state=unknown; fi
    echo "$state"
}

# By the config's digest; where the engine has other IDs, by the name, if that is still what was loaded.
make_container() {
    image=$IMAGE_ID
    if ! engine image inspect "$image" >/dev/null 2>&1; then
        has_image "$IMAGE_ID" "$IMAGE_NAME" || die "container $CONTAINER: the engine has no image $IMAGE_NAME ($IMAGE_ID)$(engine_said)"
        image=$IMAGE_NAME
    fi
    create "$image" >/dev/null || die "cannot create the container $CONTAINER"
}

do_await() {
    CONTAINER=$1
    shift
    for path in "$@"; do await_path "$path"; done
}

await_path() {
    within "$TIMEOUT"
    until [ -e "$1" ]; do
        in_time || die "container $CONTAINER waits for $1, which did not appear within $TIMEOUT seconds"
        short_sleep
    done
}

# --- status ---

do_status() {
    wait=0
    if [ $# -gt 0 ]; then
        { [ "$1" = --wait ] && is_number "${2:-}"; } || { usage >&2; exit 2; }
        wait=$2
    fi
    within "$wait"
    while :; do
        problem=$(first_problem) || problem="the configuration in $LISTS cannot be read"
        [ -n "$problem" ] || break
        if ! in_time; then
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
        store_is_there || { echo "the store is not mounted"; return 0; }
        [ "$(read_stamp)" = "$STORE_ID" ] || { echo "the data-root is not seeded with this firmware's store"; return 0; }
    fi
    if [ "$ENGINE" = podman ]; then
        problem=$(podman_problem)
        [ -z "$problem" ] || { echo "$problem"; return 0; }
    else
        within 10 # in a subshell
        answers || { echo "the engine does not answer"; return 0; }
    fi
    missing=$(first_missing) || return 1
    [ -z "$missing" ] || { echo "the engine has no image $missing of this firmware$(engine_said)"; return 0; }
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
    absent)
        if [ "$QUADLET" = yes ] && is_systemd && ! has_unit; then
            echo "no unit was made of /etc/containers/systemd: Quadlet needs Podman 4.4"
        else
            echo "does not exist"
        fi
        ;;
    "$DEFINITION false") echo "does not run" ;;
    *) echo "is of another definition" ;;
    esac
}
