# How a disk is read, written and held against its sums. Sourced by `install`; needs nothing but a shell and files, so that a file can be a disk.
# shellcheck shell=sh disable=SC2154,SC2015

MIB=1048576
SECTORS_OF_MIB=2048
ENTRY=128

say() { echo "shiplap-install: $*" >&2; }
die() { say "ERROR: $*"; exit 1; }

# --- numbers in a partition table: little-endian, unsigned -----------------------------------------------------------

# field FILE OFFSET BYTES
field() {
    value=0 bits=0
    for byte in $(dd if="$1" bs=1 skip="$2" count="$3" 2>/dev/null | od -An -v -tu1); do
        value=$((value | byte << bits)) bits=$((bits + 8))
    done
    echo "$value"
}

# put FILE OFFSET BYTES VALUE
put() {
    octal='' left=$3 value=$4
    while [ "$left" -gt 0 ]; do
        octal="$octal\\0$(printf %03o $((value & 255)))" value=$((value >> 8)) left=$((left - 1))
    done
    printf %b "$octal" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

# crc FILE BYTES: CRC-32 of the file's beginning, which is what gzip puts behind its data.
crc() {
    dd if="$1" bs="$2" count=1 2>/dev/null | gzip -c | tail -c 8 | dd of="$work/crc" bs=4 count=1 2>/dev/null
    field "$work/crc" 0 4
}

# --- reading the table that is there ---------------------------------------------------------------------------------

# read_entries DISK SECTORS: the entries of its table into $work/entries; false where neither of its two copies holds.
read_entries() {
    for sector in 1 $(($2 - 1)); do
        dd if="$1" of="$work/header" bs=512 skip="$sector" count=1 2>/dev/null
        [ "$(dd if="$work/header" bs=8 count=1 2>/dev/null | tr -d '\000')" = "EFI PART" ] || continue
        header_bytes=$(field "$work/header" 12 4) stated=$(field "$work/header" 16 4)
        [ "$header_bytes" -ge 92 ] && [ "$header_bytes" -le 512 ] || continue
        put "$work/header" 16 4 0
        [ "$(crc "$work/header" "$header_bytes")" = "$stated" ] || continue
        count=$(field "$work/header" 80 4)
        [ "$(field "$work/header" 84 4)" = $ENTRY ] && [ "$count" -ge 1 ] && [ "$count" -le 1024 ] || continue
        dd if="$1" of="$work/entries" bs=512 skip="$(field "$work/header" 72 8)" count=$(((count + 3) / 4)) 2>/dev/null
        [ "$(crc "$work/entries" $((count * ENTRY)))" = "$(field "$work/header" 88 4)" ] && return 0
    done
    return 1
}

# find_entry HEX_BEFORE HEX: the number (from 0) of the entry with HEX behind so many digits.
find_entry() {
    line=$(od -An -v -tx1 "$work/entries" | tr -d ' \n' | fold -w $((ENTRY * 2)) | grep -n "^.\{$1\}$2" | head -n 1)
    [ -n "$line" ] || return 1
    echo $((${line%%:*} - 1))
}

# find_data: sets data_first and data_last (sectors) to where the data partition lies; false where there is none.
find_data() {
    [ -n "$DATA_UUID" ] && at=$(find_entry 32 "$DATA_UUID") || return 1
    data_first=$(field "$work/entries" $((at * ENTRY + 32)) 8) data_last=$(field "$work/entries" $((at * ENTRY + 40)) 8)
}

# Nothing but zeros, or what erased flash reads as.
is_blank() { [ "$(dd if="$1" bs=$MIB count=1 2>/dev/null | tr -d '\000\377' | wc -c)" -eq 0 ]; }

# Ours: the data partition is there, or root-a and root-verity-a; or a table without entries, as an interrupted installation leaves it.
is_ours() {
    find_data && return 0
    find_entry 112 72006f006f0074002d0061000000 >/dev/null &&
        find_entry 112 72006f006f0074002d007600650072006900740079002d0061000000 >/dev/null && return 0
    [ "$(tr -d '\000' <"$work/entries" | wc -c)" -eq 0 ]
}

# --- writing ---------------------------------------------------------------------------------------------------------

# write_table DISK SECTORS all|data: both copies, the second first: a power cut leaves one that holds. `data`: only the data
# partition is in it, until everything else is written and proven.
write_table() {
    last=$(($2 - 1))
    cp "$HERE/table" "$work/table"
    dd if="$work/table" of="$work/header" bs=512 skip=1 count=1 2>/dev/null
    dd if="$work/table" of="$work/new" bs=512 skip=2 2>/dev/null
    if [ -n "$DATA_UUID" ]; then
        put "$work/new" $((DATA_ENTRY * ENTRY + 32)) 8 "$data_first"
        put "$work/new" $((DATA_ENTRY * ENTRY + 40)) 8 "$data_last"
    fi
    if [ "$3" = data ]; then
        number=0
        while [ $number -lt 128 ]; do
            [ -n "$DATA_UUID" ] && [ $number = "$DATA_ENTRY" ] ||
                dd if=/dev/zero of="$work/new" bs=$ENTRY seek=$number count=1 conv=notrunc 2>/dev/null
            number=$((number + 1))
        done
    fi
    put "$work/header" 48 8 $((last - 33))
    put "$work/header" 88 4 "$(crc "$work/new" $((128 * ENTRY)))"
    write_header "$last" 1 $((last - 32))
    dd if="$work/new" of="$1" bs=512 seek=$((last - 32)) conv=notrunc,fsync 2>/dev/null &&
        dd if="$work/header" of="$1" bs=512 seek=$last conv=notrunc,fsync 2>/dev/null || die "cannot write to the end of $1"
    write_header 1 "$last" 2
    # The protective partition of the MBR covers the disk, as far as 32 bits go.
    put "$work/table" 458 4 $((last > 4294967295 ? 4294967295 : last))
    dd if="$work/header" of="$work/table" bs=512 seek=1 conv=notrunc 2>/dev/null
    dd if="$work/new" of="$work/table" bs=512 seek=2 conv=notrunc 2>/dev/null
    dd if="$work/table" of="$1" bs=512 conv=notrunc,fsync 2>/dev/null || die "cannot write to the beginning of $1"
}

# write_header OWN OTHER ENTRIES: sectors, and the header's own checksum
write_header() {
    put "$work/header" 24 8 "$1"
    put "$work/header" 32 8 "$2"
    put "$work/header" 72 8 "$3"
    put "$work/header" 16 4 0
    put "$work/header" 16 4 "$(crc "$work/header" 92)"
}

# sum_of FILE MIB COUNT: sha256 of so many MiB
sum_of() { dd if="$1" bs=$MIB skip="$2" count="$3" 2>/dev/null | sha256sum | cut -d ' ' -f 1; }

forget_cached() {
    sync
    # What is read now comes from the disk, not from memory.
    { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null || :
    blockdev --flushbufs "$1" 2>/dev/null || :
}

# copy MEDIUM DISK: every partition of $HERE/payload, each read back from the disk and held against its sha256
copy() {
    while read -r name from to count sum; do
        say "writing $name, $count MiB"
        dd if="$1" of="$2" bs=$MIB skip="$from" seek="$to" count="$count" conv=notrunc,fsync 2>"$work/said" ||
            die "cannot write $name: $(tail -n 1 "$work/said")"
        forget_cached "$2"
        found=$(sum_of "$2" "$to" "$count")
        [ "$found" = "$sum" ] && continue
        if [ "$(sum_of "$1" "$from" "$count")" = "$sum" ]; then
            die "$2 does not give back what was written to $name: the disk is bad"
        fi
        die "$name on the medium is damaged: sha256 $found, it should be $sum"
    done <"$HERE/payload"
}

# --- the whole -------------------------------------------------------------------------------------------------------

# place_data DISK SECTORS: decides where the data partition goes: data_first, data_last; data_new is 1 where it begins empty.
place_data() {
    room_end=$((($2 - 33) / SECTORS_OF_MIB * SECTORS_OF_MIB))
    data_new=1 end=$((END_MIB * SECTORS_OF_MIB))
    [ "$2" -ge $((end + (DATA_MIB + 1) * SECTORS_OF_MIB)) ] ||
        die "$1 is too small: it has $(($2 / SECTORS_OF_MIB)) MiB, $((END_MIB + DATA_MIB + 1)) are needed"
    known='' ours=''
    if read_entries "$1" "$2"; then known=1; if is_ours; then ours=1; fi; fi
    if [ -z "$ours" ] && [ "$overwrite" != yes ]; then
        is_blank "$1" || die "$1 holds something that is not this firmware's: to have it overwritten, boot with shiplap.overwrite=yes"
    fi
    [ -n "$DATA_UUID" ] || return 0
    if [ "$data" = keep ] && [ -n "$known" ] && find_data; then
        [ "$data_first" -ge "$end" ] && [ "$data_last" -lt "$2" ] && [ "$data_first" -le "$data_last" ] ||
            die "the data partition begins at $((data_first / SECTORS_OF_MIB)) MiB, and this firmware needs the first $END_MIB MiB: it cannot be kept"
        data_new=
        say "the data partition stays where it is"
        return 0
    fi
    data_first=$end data_last=$((room_end - 1))
}

# install_disk MEDIUM DISK SECTORS
install_disk() {
    place_data "$2" "$3"
    say "installing $TITLE on $2 ($(($3 / SECTORS_OF_MIB)) MiB)"
    write_table "$2" "$3" data
    copy "$1" "$2"
    if [ -n "$DATA_UUID" ] && [ -n "$data_new" ]; then
        # So that nobody takes what lay there before for a file system.
        dd if=/dev/zero of="$2" bs=$MIB seek=$((data_first / SECTORS_OF_MIB)) count=$((DATA_MIB < 4 ? DATA_MIB : 4)) conv=notrunc,fsync 2>/dev/null ||
            die "cannot write to the data partition"
        say "the data partition is new: $(((data_last + 1 - data_first) / SECTORS_OF_MIB)) MiB"
    fi
    write_table "$2" "$3" all
    forget_cached "$2"
    read_entries "$2" "$3" && cmp -s "$work/entries" "$work/new" || die "$2 does not give back its partition table: the disk is bad"
}
