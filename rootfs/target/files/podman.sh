# Podman's graphroot. Sourced by shiplap-target; everything may be run again after a power cut at any point.
#
# Podman reads the mounted store itself (additionalimagestores in storage.conf), so nothing is copied. But it looks into its own
# graphroot first: for names, images, layers, their folders and short links. Whatever there stands in front of the store is
# taken away at each boot, and what was built on layers of another firmware, on which Podman would fail.
# shellcheck shell=sh disable=SC2154,SC2034

LAYERS=overlay-layers/layers.json
IMAGES=overlay-images/images.json

seed_podman() {
    open_state
    if [ "$PERSISTENCE $MODE" = "persistent store" ]; then clear_way; fi
    link_volumes
    stamp
}

# Nothing in the graphroot may pass for a part of the store, or be built on a part of another one.
clear_way() {
    for folder in overlay overlay/l overlay-layers overlay-images overlay-containers; do
        if [ -L "$ROOT/$folder" ]; then real_folder "$ROOT/$folder"; fi
    done
    : >"$RUN/store-layers"
    for path in "$STORE/overlay"/*; do
        if is_hash "${path##*/}"; then echo "${path##*/}" >>"$RUN/store-layers"; fi
    done
    [ -s "$RUN/store-layers" ] || die "cannot read the layers in the store"
    if ! records layer "$STORE/$IMAGES" "$RUN/store-images" || [ ! -s "$RUN/store-images" ]; then die "cannot read the images in the store"; fi
    own_records parent "$LAYERS" layers
    own_records parent overlay-layers/volatile-layers.json volatile-layers
    own_records layer overlay-containers/containers.json containers
    own_records layer overlay-containers/volatile-containers.json volatile-containers
    own_records layer "$IMAGES" images
    former_names >"$RUN/former"
    rm -f "$RUN"/new-*
    judge >"$RUN/findings" || die "cannot judge what is in $DATA_ROOT"
    while read -r layer; do uncover_layer "$layer"; done <"$RUN/store-layers"
    while read -r what id names; do act "$what" "$id" "$names"; done <"$RUN/findings"
    while read -r id _; do same_big_data "$id"; done <"$RUN/store-images"
    put_list volatile-layers overlay-layers/volatile-layers.json
    put_list layers "$LAYERS"
    put_list images "$IMAGES"
    awk -F '\t' '{ count = split($3, name, " "); for (i = 1; i <= count; i++) print $1, name[i] }' "$RUN/store-images" >"$RUN/names"
    cmp -s "$RUN/names" "$STATE/names" || put_file "$RUN/names" "$STATE/names" 600
}

# records KEY FILE OUT: a list of containers/storage, one record a line: id, value of KEY, names, and its text up to the names
# and after them, between tabs. What the engine never writes (escapes in a key or name, a key twice) has "-" as id: a reader that
# is not the engine's must not be led to see something else. Fails for what is no such list.
records() {
    # Callers ask whether this fails, so nothing in here stops by itself.
    tr -d '\n\r' <"$2" >"$RUN/list" || return
    awk -v wanted="$1" '
        function end_of_record() {
            if (!(value["id"] ~ /^[0-9a-f]+$/) || length(value["id"]) != 64) odd = 1
            if (value[wanted] != "" && length(value[wanted]) != 64) odd = 1
            printf "%s\t%s\t%s\t%s\t%s\n", odd ? "-" : value["id"], value[wanted], substr(names, 2), has_names ? head : text, has_names ? text : ""
        }
        function structure(c) {
            if (depth == 0 && c != "[" || depth == 1 && !index("{,]", c)) exit wrong = 1
            if (c == "[" || c == "{") {
                depth++
                if (depth == 2 && c != "{") exit wrong = 1
                if (depth == 2) { split("", value); split("", seen); text = names = key = ""; odd = has_names = 0 }
                if (depth == 3 && key == "names") { if (c != "[") odd = 1; head = text; has_names = 1 }
            }
            if (depth > 3 && key == "names") odd = 1
            if (depth > 1 && !(depth == 3 && key == "names")) text = text c
            if (c == "]" || c == "}") {
                if (depth == 3 && key == "names") text = ""
                if (depth == 2) end_of_record()
                if (--depth < 0) exit wrong = 1
            }
            if (depth == 2) place = c
        }
        { all = $0 }
        END {
            if (wrong) exit 1
            if (all == "" || all == "null") exit 0
            count = split(all, part, "\"")
            for (i = 1; i <= count; i++) {
                outside = part[i]
                gsub(/[ \t]/, "", outside)
                size = length(outside)
                for (j = 1; j <= size; j++) structure(substr(outside, j, 1))
                if (++i > count) break
                string = part[i]
                while (match(string, /\\+$/) && RLENGTH % 2 && i < count) string = string "\"" part[++i]
                if (i == count || depth < 2) exit 1
                if (string ~ /\t/) odd = 1
                if (depth == 3 && key == "names") {
                    if (string ~ /[\\ ]/) odd = 1
                    names = names " " string
                    continue
                }
                text = text "\"" string "\""
                if (depth == 2 && place == ":") value[key] = string
                else if (depth == 2) {
                    key = string
                    if (key !~ /^[a-z-]+$/ || key in seen) odd = 1
                    seen[key] = 1
                }
            }
            exit (depth != 0)
        }' "$RUN/list" >"$3"
}

# own_records KEY FILE NAME: of the graphroot. A list that cannot be read would stop the engine: it is put aside.
own_records() {
    : >"$RUN/$3"
    if is_there "$ROOT/$2" && ! is_file "$ROOT/$2"; then
        say "repaired $2, which was no file"
        rm -rf "${ROOT:?}/$2"
    fi
    [ -e "$ROOT/$2" ] || return 0
    records "$1" "$ROOT/$2" "$RUN/$3" && return 0
    # Somebody may have killed the reader.
    [ $? -eq 1 ] || die "cannot read $2"
    say "$2 is no list that the engine writes: it is in $DATA_ROOT/.shiplap/unreadable now"
    real_folder "$STATE/unreadable"
    rm -rf "$STATE/unreadable/${2##*/}"
    mv -f "$ROOT/$2" "$STATE/unreadable/"
    : >"$RUN/$3"
}

# Names that an earlier firmware gave to its images, "CONFIG NAME": the engine copies them when it writes a record of its own.
former_names() {
    is_file "$STATE/names" || return 0
    grep -E '^[0-9a-f]{64} [^ ]+$' "$STATE/names" || [ $? -eq 1 ]
}

# Prints what has to happen, "WHAT ID NAMES"; writes new-layers, new-volatile-layers, new-images where a record goes or changes.
judge() {
    awk -F '\t' -v run="$RUN" '
        function stands(layer) {
            if (layer == "" || layer in factory) return 1
            if (!(layer in parent) || layer in asked) return 0
            if (layer in known) return known[layer]
            asked[layer] = 1
            known[layer] = stands(parent[layer])
            delete asked[layer]
            return known[layer]
        }
        FILENAME == ARGV[1] { factory[$1] = 1; next }
        FILENAME == ARGV[2] { top[$1] = $2; count = split($3, name, " "); for (i = 1; i <= count; i++) { owner[name[i]] = $1; our[++ours] = name[i] } next }
        FILENAME == ARGV[3] { split($1, word, " "); former[word[1] " " word[2]] = 1; next }
        FILENAME == ARGV[4] || FILENAME == ARGV[5] { of_container[$2] = 1; containers++; container[containers] = $1; its[containers] = $2; called[containers] = $3; next }
        FILENAME == ARGV[6] || FILENAME == ARGV[7] {
            layers++; list[layers] = FILENAME == ARGV[6] ? "layers" : "volatile-layers"
            layer[layers] = $1; text[layers] = $4 ($5 == "" ? "" : names_of($3) $5)
            if ($1 != "-" && !($1 in factory)) parent[$1] = $2
            next
        }
        { images++; image[images] = $1; uses[images] = $2; named[images] = $3; head[images] = $4; tail[images] = $5 }
        function missing_names(id, have,   i, all) {
            for (i = 1; i <= ours; i++) if (owner[our[i]] == id && !index(have " ", " " our[i] " ")) all = all " " our[i]
            return all
        }
        function names_of(names,   all, one, i, count) {
            count = split(names, one, " ")
            for (i = 1; i <= count; i++) all = all (i > 1 ? "," : "") "\"" one[i] "\""
            return "[" all "]"
        }
        END {
            for (i = 1; i <= layers; i++) {
                if (layer[i] == "-") { print "odd-layer"; touched[list[i]] = 1 }
                else if (layer[i] in factory) { print "shadow", layer[i]; touched[list[i]] = 1 }
                else if (!stands(layer[i]) && !(layer[i] in of_container)) { print "layer", layer[i]; touched[list[i]] = 1 }
                else kept[list[i]] = kept[list[i]] "," text[i]
            }
            for (i = 1; i <= containers; i++) if (container[i] != "-" && !stands(its[i])) print "container", container[i], called[i]
            for (i = 1; i <= images; i++) {
                id = image[i]
                if (id == "-") { print "odd-image"; touched["images"] = 1; continue }
                good = stands(uses[i]) && !(id in top && top[id] != uses[i])
                count = split(named[i], name, " ")
                left = own = ""
                lost = 0
                for (j = 1; j <= count; j++) {
                    is_former = (id " " name[j]) in former
                    if (!(name[j] in owner)) {
                        if (!is_former) { left = left " " name[j]; own = own " " name[j] }
                    } else if (owner[name[j]] == id) left = left " " name[j]
                    else if (good && !is_former) { print "name", id, name[j]; lost = 1 }
                }
                if (!good || own == "" && !lost && (id in top || named[i] != "" && left == "")) {
                    print (own == "" && (good || named[i] != "")) ? "former" : "image", id own
                    touched["images"] = 1
                    continue
                }
                # Of an image with a record of its own Podman 5 knows the names in there only.
                if (id in top) left = left missing_names(id, left)
                if (left != (named[i] == "" ? "" : " ") named[i]) touched["images"] = 1
                kept["images"] = kept["images"] "," head[i] (tail[i] == "" ? "" : names_of(left) tail[i])
            }
            for (one in touched) print "[" substr(kept[one], 2) "]" >(run "/new-" one)
        }' "$RUN/store-layers" "$RUN/store-images" "$RUN/former" "$RUN/containers" "$RUN/volatile-containers" "$RUN/layers" \
        "$RUN/volatile-layers" "$RUN/images"
}

# act WHAT ID NAMES: folders go before the records, so that a power cut in between leaves something to find.
act() {
    case $1 in
    odd-layer | odd-image) say "repaired: ${1#odd-} record that the engine did not write" ;;
    shadow) rm -f "$ROOT/overlay-layers/$2.tar-split.gz" ;;
    layer)
        say "layer $2 was built on a layer of another firmware and goes with it; pull its image again"
        remove_layer_folder "$2"
        rm -f "$ROOT/overlay-layers/$2.tar-split.gz"
        ;;
    image)
        say "image ${3:-$2} is gone with another firmware's layers; pull it again if you need it"
        rm -rf "${ROOT:?}/overlay-images/$2"
        ;;
    former) rm -rf "${ROOT:?}/overlay-images/$2" ;;
    name) say "the name $3 is the firmware's: it was another image's, which stays without it" ;;
    container) say "container ${3:-$2} was made of an image that went with another firmware; it cannot start" ;;
    esac
}

remove_layer_folder() {
    link=$(first_line "$ROOT/overlay/$1/link")
    case $link in '' | *[!0-9A-Z]*) ;; *) rm -f "$ROOT/overlay/l/$link" ;; esac
    rm -rf "${ROOT:?}/overlay/$1"
}

# uncover_layer ID: a factory layer's folder and short link exist in the store only. A layer that somebody had pulled before the
# firmware shipped it has another short link, which the layers above name in their file `lower`.
uncover_layer() {
    link=$(first_line "$STORE/overlay/$1/link")
    if is_there "$ROOT/overlay/l/$link"; then
        say "repaired the link overlay/l/$link"
        rm -rf "${ROOT:?}/overlay/l/$link"
        changed=yes
    fi
    is_there "$ROOT/overlay/$1" || return 0
    say "layer $1 is the firmware's: another copy of it is removed"
    changed=yes
    theirs=
    if [ ! -L "$ROOT/overlay/$1" ]; then theirs=$(first_line "$ROOT/overlay/$1/link"); fi
    case $theirs in
    '' | *[!0-9A-Z]*) ;;
    *)
        for lower in "$ROOT/overlay"/*/lower; do
            if is_file "$lower" && [ ! -L "${lower%/lower}" ]; then
                sed "s,l/$theirs,l/$link,g" "$lower" >"$RUN/lower"
                cmp -s "$RUN/lower" "$lower" || put_file "$RUN/lower" "$lower" 644
            fi
        done
        ;;
    esac
    remove_layer_folder "$1"
}

# same_big_data ID: what the graphroot has of a factory image's manifest and config is the store's.
same_big_data() {
    mine=$ROOT/overlay-images/$1
    if [ -L "$mine" ]; then
        say "repaired overlay-images/$1"
        rm -f "$mine"
    fi
    for path in "$STORE/overlay-images/$1"/*; do
        is_there "$mine/${path##*/}" || continue
        if is_file "$mine/${path##*/}" && cmp -s "$path" "$mine/${path##*/}"; then continue; fi
        say "repaired overlay-images/$1/${path##*/}"
        put_file "$path" "$mine/${path##*/}" 600
    done
}

# put_list NAME FILE: the list without what went.
put_list() {
    [ -e "$RUN/new-$1" ] || return 0
    tr -d '\n' <"$RUN/new-$1" >"$RUN/list"
    put_file "$RUN/list" "$ROOT/$2" 600
}
