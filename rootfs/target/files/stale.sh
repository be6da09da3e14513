# What an older firmware left in a persistent data-root, and everything of ours when it is reset. Sourced by shiplap-target.
# shellcheck shell=sh disable=SC2154,SC2034

MOUNTS=image/overlay2/layerdb/mounts

# Layers that the older store held and this one does not: their diff links lead nowhere now, or will. The engine would list
# images on them, could not run them, and would answer a pull with "exists".
remove_stale() {
    known_lines >"$RUN/known"
    awk 'FILENAME == ARGV[1] { ours[$0] = 1; next } !($0 in ours)' "$RUN/factory" "$RUN/known" >"$RUN/stale"
    sed -n 's/^config //p' "$RUN/stale" >"$RUN/stale-configs"
    sed -n 's/^layer //p' "$RUN/stale" >"$RUN/stale-layers"
    remove_orphans
    references <"$DATA_ROOT/$REPOSITORIES" >"$RUN/have"
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

is_hash() { case $1 in *[!0-9a-f]*) return 1 ;; esac; [ ${#1} -eq 64 ]; }

# first_line FILE: without the line's end, which the engine does not write.
first_line() {
    line=
    if [ -f "$1" ]; then read -r line <"$1" || :; fi
    echo "$line"
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
    references <"$DATA_ROOT/$REPOSITORIES" >"$RUN/have"
    : >"$RUN/kept"
    while read -r name reference digest; do
        config=${digest#sha256:}
        is_hash "$config" || continue
        if [ -e "$DATA_ROOT/$CONFIGS/$config" ] && has_layers "$config"; then
            echo "$name $reference $digest" >>"$RUN/kept"
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
        parent=$(first_line "$path/parent")
        if grep -qxF "${parent#sha256:}" "$RUN/gone"; then
            say "container ${path##*/} was made of an image that went with another firmware; it cannot start"
        fi
    done
}

# --- reset -----------------------------------------------------------------------------------------------------------

do_reset() {
    if [ "$MODE" != store ] || [ "$ENGINE" != docker ]; then die "only a store's data-root is reset"; fi
    [ "$PERSISTENCE" = persistent ] || { say "the data-root is volatile: a restart resets it"; return 0; }
    [ -s "$STATE/factory" ] || { say "nothing of ours is in $DATA_ROOT"; return 0; }
    if engine_runs; then die "stop the engine first"; fi
    changed=no
    : >"$RUN/factory"
    # From here on it is as after a power cut: the next seed completes what is there.
    rm -f "$STATE/stamp"
    remove_stale
    sed -n 's/^reference //p' "$STATE/factory" >"$RUN/before"
    references <"$DATA_ROOT/$REPOSITORIES" >"$RUN/have"
    awk 'FILENAME == ARGV[1] { before[$0] = 1; next } !($0 in before)' "$RUN/before" "$RUN/have" >"$RUN/kept"
    write_references "$RUN/kept"
    rm -rf "$STATE"
    sync
    say "what the firmware had put into $DATA_ROOT is removed"
}
