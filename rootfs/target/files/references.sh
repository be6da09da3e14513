# repositories.json, the names of Docker's images, for the drivers overlay2 and vfs. Sourced by shiplap-target.
# shellcheck shell=sh disable=SC2154

# repositories.json → lines "NAME REFERENCE DIGEST". Nothing in a reference needs an escape, or has a blank, brace or comma: what
# has one is left out, because the engine would read another name in it than we do.
references() {
    # One program: of a pipe whose front is killed, the rest would read a shorter list.
    awk 'BEGIN { RS = "}" }
        {
            gsub(/[ \t\r\n]/, "")
            if (NR == 1) sub(/^[{]"Repositories":[{]/, "")
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
                if (at < 2 || substr(one, at, 8) != ":sha256:" || substr(one, at + 8) ~ /[^0-9a-f]/) continue
                if ((name substr(one, 1, at)) !~ "[^]a-zA-Z0-9._/@:[-]") print name, substr(one, 1, at - 1), substr(one, at + 1)
            }
        }'
}

# Sorted lines "NAME REFERENCE DIGEST" → repositories.json as the engine writes it.
to_repositories() {
    awk '
        BEGIN { printf "{\"Repositories\":{" }
        $1 != name { if (name != "") printf "},"; name = $1; printf "\"%s\":{", name; first = 1 }
        { printf "%s\"%s\":\"%s\"", first ? "" : ",", $2, $3; first = 0 }
        END { if (name != "") printf "}"; printf "}}" }'
}

# Factory references (ours) win; what the user made or pulled stays; what an older firmware named (before) and this one does not goes.
merge_references() {
    if ! is_file "$WRITTEN/$REPOSITORIES" || [ ! -s "$WRITTEN/$REPOSITORIES" ]; then
        if is_there "$WRITTEN/$REPOSITORIES"; then say "repaired $REPOSITORIES"; fi
        put_file "$RUN/repositories-in-store" "$WRITTEN/$REPOSITORIES" 600
        return 0
    fi
    references <"$WRITTEN/$REPOSITORIES" >"$RUN/have"
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
    sort -u "$1" >"$RUN/sorted"
    to_repositories <"$RUN/sorted" >"$RUN/repositories"
    cmp -s "$RUN/repositories" "$WRITTEN/$REPOSITORIES" || put_file "$RUN/repositories" "$WRITTEN/$REPOSITORIES" 600
}
