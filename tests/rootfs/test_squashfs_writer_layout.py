"""Where the writer puts things: docs/squashfs-format.md, decision by decision."""

from __future__ import annotations

import random
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from requirement import require
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.rootfs.squashfs import SquashfsReader, open_squashfs
from shiplap.rootfs.squashfs.inodes import FileData, Listing
from shiplap.rootfs.squashfs.metadata import MetadataArea
from shiplap.rootfs.squashfs.write import Layout, Written
from shiplap.rootfs.squashfs.write.stored import StoredBlocks
from squashfsimages import expected_facts, facts_of_image, facts_of_the_kernel, torture_tree
from squashfswriting import ROOT, Pattern, file, golden_tree, kernel_says, write_image

NOISE = random.Random(5).randbytes(1 << 20)
BLOCK = 4096


def data_of(image: SquashfsReader, path: bytes) -> FileData:
    found = image._locate(path)
    assert found is not None and isinstance(found.detail, FileData)
    return found.detail


def inode_type(image: SquashfsReader, path: bytes) -> int:
    """The type number as stored: basic 1 to 7, extended 8 to 14."""
    found = None
    table = image._inodes
    read = table.read

    def noting(reference: int):  # type: ignore[no-untyped-def]
        nonlocal found
        found = struct.unpack("<H", table.area.cursor(reference).take(2))[0]
        return read(reference)

    table.read = noting  # type: ignore[method-assign]
    try:
        assert image._locate(path) is not None
    finally:
        table.read = read  # type: ignore[method-assign]
    assert found is not None
    return found


def superblock(path: Path) -> tuple[int, ...]:
    return struct.unpack("<4sIIIIHHHHHHQQQQQQQQ", path.read_bytes()[:96])  # type: ignore[return-value]


def test_the_flags_say_what_is_there(tmp_path: Path) -> None:
    duplicates, no_fragments, exportable, no_xattrs, options, all_stored = 0x40, 0x10, 0x80, 0x200, 0x400, 0x1 | 0x2 | 0x8 | 0x100 | 0x800
    small = file(b"file", b"x", xattrs=((b"user.x", b"y"),))
    plain = file(b"file", NOISE[:BLOCK])
    cases = [
        (small, "zstd", None, Layout(BLOCK), duplicates),
        (plain, "zstd", None, Layout(BLOCK), duplicates | no_fragments | no_xattrs),
        (small, "zstd", 3, Layout(BLOCK), duplicates | options),
        (small, "gzip", 9, Layout(BLOCK), duplicates),
        (small, "gzip", 1, Layout(BLOCK), duplicates | options),
        (small, "xz", None, Layout(BLOCK, exportable=True), duplicates | exportable),
        (small, "lz4", None, Layout(BLOCK), duplicates | options),
        (small, "none", None, Layout(BLOCK), duplicates | all_stored),
    ]
    for entry, compression, level, layout, flags in cases:
        write_image(tmp_path / "image", [entry], compression, level, layout)
        assert superblock(tmp_path / "image")[7] == flags, (compression, level)


def test_the_options_block_holds_what_is_not_the_default(tmp_path: Path) -> None:
    for compression, level, block in (
        ("zstd", 3, struct.pack("<HI", 0x8004, 3)),
        ("gzip", 1, struct.pack("<HIHH", 0x8008, 1, 15, 0)),
        ("lz4", None, struct.pack("<HII", 0x8008, 1, 1)),
        ("lz4", 0, struct.pack("<HII", 0x8008, 1, 0)),
    ):
        write_image(tmp_path / "image", [ROOT], compression, level)
        assert (tmp_path / "image").read_bytes()[96:].startswith(block)


def test_an_image_ends_on_4_kib_and_counts_itself_without_the_padding(tmp_path: Path) -> None:
    for size in (1, 3000, 4096, 8000, 12000):
        written = write_image(tmp_path / "image", [file(b"file", NOISE[:size])], layout=Layout(BLOCK, 123))
        data = (tmp_path / "image").read_bytes()
        assert len(data) % 4096 == 0 <= len(data) - written.bytes_used < 4096
        assert not any(data[written.bytes_used :])
        assert superblock(tmp_path / "image")[2] == 123


def test_contents_lie_in_the_order_of_the_stream(tmp_path: Path) -> None:
    names = [b"m", b"c", b"z", b"a"]
    write_image(tmp_path / "image", [ROOT, *(file(name, NOISE[n * 8192 : n * 8192 + 8192]) for n, name in enumerate(names))])
    with open_squashfs(tmp_path / "image") as image:
        starts = [data_of(image, name).start for name in names]
    assert starts == [96, 96 + 8192, 96 + 2 * 8192, 96 + 3 * 8192]


def test_a_change_on_top_moves_nothing_below(tmp_path: Path) -> None:
    base = [file(b"base/%03d" % number, NOISE[number * 3000 : number * 3000 + 5000]) for number in range(60)]
    one = write_image(tmp_path / "one", [*base, file(b"top", b"1" * 9999)])
    write_image(tmp_path / "two", [*base, file(b"top", NOISE[:99_999]), file(b"more", NOISE[5:9999])])
    first, second = (tmp_path / "one").read_bytes(), (tmp_path / "two").read_bytes()
    same = next(place for place in range(len(first)) if first[place] != second[place] and place >= 96)
    assert same > one.bytes_used * 0.9


def used(entries: list[Entry], tmp_path: Path, layout: Layout | None = None) -> Written:
    written = write_image(tmp_path / "image", entries, "none", None, layout or Layout(BLOCK))
    assert facts_of_image(tmp_path / "image") == expected_facts(sorted(entries, key=lambda entry: entry.path))
    return written


@pytest.mark.parametrize("size", [1, 2000, 3000, 4096, 5000, 7000, 8192, 100_000, 600_000])
def test_equal_contents_are_stored_once(size: int, tmp_path: Path) -> None:
    content = NOISE[:size]
    one = used([ROOT, file(b"a", content)], tmp_path)
    many = used([ROOT, *(file(name, content) for name in (b"a", b"b", b"c"))], tmp_path)
    assert many.duplicate_bytes == 2 * size
    assert many.bytes_used - one.bytes_used < 500 + 2 * size // 1024  # two names and two inodes, with four bytes for each block
    with open_squashfs(tmp_path / "image") as image:
        a, c = data_of(image, b"a"), data_of(image, b"c")
        assert (a.start, a.fragment, a.fragment_offset) == (c.start, c.fragment, c.fragment_offset)


def repeated_bytes(contents: list[bytes]) -> int:
    """What of the contents occurs again, runs of blocks and tails each for themselves."""
    seen: set[tuple[bool, bytes]] = set()
    repeated = 0
    for content in contents:
        tail_bytes = len(content) % BLOCK
        cut = len(content) - (tail_bytes if tail_bytes <= BLOCK // 2 else 0)
        for part in ((False, content[:cut]), (True, content[cut:])):
            repeated += len(part[1]) if part in seen else 0
            seen.add(part)
    return repeated


@pytest.mark.parametrize("size", [8192, 300_000, 303_000, 700_001])
def test_contents_that_only_begin_alike_are_kept_apart(size: int, tmp_path: Path) -> None:
    # Same length, same first block, another byte at the very end, in the middle, in the second block.
    contents = [NOISE[:size]]
    for place in (size - 1, size // 2, 5000):
        changed = bytearray(contents[-1])
        changed[place] ^= 1
        contents.append(bytes(changed))
    contents += [contents[1], contents[0]]
    written = used([ROOT, *(file(b"%d" % number, content) for number, content in enumerate(contents))], tmp_path)
    assert written.duplicate_bytes == repeated_bytes(contents) >= 2 * size


def test_what_is_stored_is_read_back_once_however_many_begin_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    digest = StoredBlocks.digest

    def counted(self, *arguments):  # type: ignore[no-untyped-def]
        digests.append(digest(self, *arguments))
        return digests[-1]

    monkeypatch.setattr(StoredBlocks, "digest", counted)
    contents = [NOISE[:BLOCK] + NOISE[number * 100 : number * 100 + BLOCK] for number in range(30)] * 2
    written = used([ROOT, *(file(b"%02d" % number, content) for number, content in enumerate(contents))], tmp_path)
    assert written.duplicate_bytes == 30 * 2 * BLOCK
    assert len(digests) == 1


def test_a_run_and_its_tail_are_found_again_each_alone(tmp_path: Path) -> None:
    # Two files that differ in the tail share their blocks, and the other way round.
    entries = [
        ROOT,
        file(b"a", NOISE[:8192] + b"tail"),
        file(b"b", NOISE[:8192] + b"other"),
        file(b"c", NOISE[9000:13096] + b"tail"),
        file(b"d", b"tail"),
    ]
    assert used(entries, tmp_path).duplicate_bytes == 8192 + 4 + 4
    with open_squashfs(tmp_path / "image") as image:
        assert data_of(image, b"a").start == data_of(image, b"b").start
        tails = {(data_of(image, name).fragment, data_of(image, name).fragment_offset) for name in (b"a", b"c", b"d")}
    assert len(tails) == 1


def test_blocks_that_do_not_shrink_are_stored_as_they_are(tmp_path: Path) -> None:
    write_image(tmp_path / "image", [ROOT, file(b"noise", NOISE[:12288] + NOISE[:100]), file(b"text", b"text" * 2048)], "zstd", 19)
    with open_squashfs(tmp_path / "image") as image:
        for path, stored in ((b"noise", True), (b"text", False)):
            assert [bool(word >> 24) for word in image._blocks.words(data_of(image, path))] == [stored] * (3 if stored else 2)
    assert NOISE[:12288] in (tmp_path / "image").read_bytes()


def test_whole_blocks_of_zeros_are_holes_and_take_no_room(tmp_path: Path) -> None:
    contents = {
        b"all": bytes(5 * BLOCK),
        b"first": bytes(BLOCK) + NOISE[:BLOCK],
        b"last": NOISE[BLOCK : 2 * BLOCK] + bytes(BLOCK),
        b"tail": bytes(BLOCK) + b"x",
        b"zero-tail": bytes(BLOCK + 100),
        b"long-zero-tail": bytes(2 * BLOCK - 1),
        b"short-hole": NOISE[2 * BLOCK : 3 * BLOCK] + bytes(BLOCK // 2 + 1),
    }
    used([ROOT, *(file(name, data) for name, data in contents.items())], tmp_path)
    with open_squashfs(tmp_path / "image") as image:
        words = {name: list(image._blocks.words(data_of(image, name))) for name in contents}
        assert words[b"all"] == [0] * 5 and data_of(image, b"all").start == 0
        assert words[b"first"] == [0, BLOCK | 1 << 24] and words[b"last"] == [BLOCK | 1 << 24, 0]
        assert words[b"tail"] == [0] == words[b"zero-tail"]
        assert words[b"long-zero-tail"] == [0, 0] and words[b"short-hole"] == [BLOCK | 1 << 24, 0]
        assert inode_type(image, b"all") == 9
    # What Linux counts as blocks of 512 bytes: holes do not count; never none at all.
    said = kernel_says(tmp_path / "image", tmp_path, 'stat -c "%n %b" *').split()
    assert dict(zip(said[::2], said[1::2], strict=True)) == {
        "all": "1",
        "first": "8",
        "last": "8",
        "tail": "1",
        "zero-tail": "1",
        "long-zero-tail": "1",
        "short-hole": "8",
    }


def test_short_tails_share_fragment_blocks_and_long_ones_have_their_own(tmp_path: Path) -> None:
    sizes = {b"short": 10, b"half": BLOCK // 2, b"long": BLOCK // 2 + 1, b"with-short": BLOCK + 10, b"with-long": 2 * BLOCK - 1}
    for tails in (True, False):
        used([ROOT, *(file(name, NOISE[:size]) for name, size in sizes.items())], tmp_path, Layout(BLOCK, tails=tails))
        with open_squashfs(tmp_path / "image") as image:
            packed = {name for name in sizes if data_of(image, name).fragment is not None}
        assert packed == {b"short", b"half"} | ({b"with-short"} if tails else set())


def test_a_fragment_block_that_is_all_zeros_is_no_hole(tmp_path: Path) -> None:
    used([ROOT, file(b"a", bytes(100)), file(b"b", bytes(2000))], tmp_path)
    assert facts_of_the_kernel(tmp_path / "image", tmp_path) == facts_of_image(tmp_path / "image")


def test_inodes_are_extended_only_where_they_must_be(tmp_path: Path) -> None:
    marked = ((b"trusted.x", b"y"),)
    entries = [
        ROOT,
        Entry(b"dir", Kind.DIRECTORY, 0o755),
        Entry(b"dir-marked", Kind.DIRECTORY, 0o755, xattrs=marked),
        file(b"file", NOISE[:5000]),
        file(b"file-linked", b"1"),
        file(b"file-marked", b"2", xattrs=marked),
        file(b"file-sparse", bytes(BLOCK)),
        Entry(b"link", Kind.SYMLINK, 0o777, link=b"x"),
        Entry(b"link-marked", Kind.SYMLINK, 0o777, link=b"x", xattrs=marked),
        Entry(b"null", Kind.CHARACTER, 0o600, device=(1, 3)),
        Entry(b"null-marked", Kind.CHARACTER, 0o600, device=(1, 3), xattrs=marked),
        Entry(b"pipe", Kind.FIFO, 0o600),
        Entry(b"pipe-marked", Kind.FIFO, 0o600, xattrs=marked),
        Entry(b"sda", Kind.BLOCK, 0o600, device=(8, 0)),
        Entry(b"sda-marked", Kind.BLOCK, 0o600, device=(8, 0), xattrs=marked),
        Entry(b"z-linked", Kind.HARDLINK, 0o644, link=b"file-linked"),
    ]
    write_image(tmp_path / "image", entries)
    with open_squashfs(tmp_path / "image") as image:
        types = {entry.path: inode_type(image, entry.path) for entry in entries}
    assert [types[name] for name in (b"", b"dir", b"file", b"link", b"sda", b"null", b"pipe")] == [1, 1, 2, 3, 4, 5, 6]
    assert [types[name + b"-marked"] for name in (b"dir", b"file", b"link", b"sda", b"null", b"pipe")] == [8, 9, 10, 11, 12, 13]
    assert [types[name] for name in (b"file-linked", b"z-linked", b"file-sparse")] == [9, 9, 9]


def test_inodes_of_one_directory_are_numbered_in_a_row_and_the_root_comes_last(tmp_path: Path) -> None:
    entries = golden_tree()
    written = write_image(tmp_path / "image", entries)
    with open_squashfs(tmp_path / "image") as image:
        assert image.identity(b"") == written.inode_count
        numbers = [image.identity(b"many/%04d-%s" % (number, b"n" * (number % 50))) for number in range(700)]
        assert numbers == list(range(numbers[0], numbers[0] + 700))
        below_root = [image.identity(entry.path) for entry in image.children(b"")]
        assert below_root == list(range(below_root[0], written.inode_count))


def test_a_large_directory_has_an_index_and_a_small_one_has_none(tmp_path: Path) -> None:
    write_image(tmp_path / "image", torture_tree(BLOCK))
    with open_squashfs(tmp_path / "image") as image:
        for path, large in ((b"many", True), (b"named", False), (b"", False)):
            found = image._locate(path)
            assert found is not None and isinstance(found.detail, Listing)
            # An entry for every metadata block but the one in which the listing begins.
            assert abs(found.detail.index_count - found.detail.size_bytes // 8192) <= 1 if large else found.detail.index_count == 0


def test_a_group_has_256_names_and_no_more(tmp_path: Path) -> None:
    # Fifos with short names: hundreds of inodes in one metadata block, hundreds of names too.
    entries = [ROOT, *(Entry(b"%03d" % number, Kind.FIFO, 0o600) for number in range(700))]
    write_image(tmp_path / "image", entries)
    # Our reader refuses a larger group, as the kernel does.
    assert facts_of_image(tmp_path / "image") == expected_facts(entries) == facts_of_the_kernel(tmp_path / "image", tmp_path)


def test_the_export_table_finds_every_inode_by_its_number(tmp_path: Path) -> None:
    write_image(tmp_path / "image", golden_tree(), layout=Layout(BLOCK, exportable=True))
    data = (tmp_path / "image").read_bytes()
    with open_squashfs(tmp_path / "image") as image:
        count, start = image.superblock.inode_count, image.superblock.export_table
        assert image.superblock.exportable and start is not None
        blocks = -(-count // 1024)
        positions = struct.unpack(f"<{blocks}Q", data[start : start + 8 * blocks])
        area = image._inodes.area
        table = MetadataArea(area.file, area._inflate, 0, start, "export table")
        references: list[int] = []
        for position in positions:
            content, _ = table.block(position)
            references += struct.unpack(f"<{len(content) // 8}Q", content)
        assert [image._inodes.read(reference).number for reference in references] == list(range(1, count + 1))


def test_attributes_that_repeat_are_stored_once(tmp_path: Path) -> None:
    label = b"system_u:object_r:usr_t:s0" * 30

    def size(xattrs: list[tuple[tuple[bytes, bytes], ...]]) -> int:
        return used([ROOT, *(file(b"%03d" % number, b"", xattrs=one) for number, one in enumerate(xattrs))], tmp_path).bytes_used

    same = size([((b"user.a", label),)] * 50)
    shared = size([((b"user.a", label), (b"user.n", b"%02d" % number)) for number in range(50)])
    own = size([((b"user.a", b"%02d" % number + label),) for number in range(50)])
    assert shared - same < 50 * 60
    assert own - same > 49 * len(label)
    with open_squashfs(tmp_path / "image") as image:
        assert image._xattrs is not None


def test_a_file_that_begins_behind_4_gib_is_read_by_the_kernel(tmp_path: Path) -> None:
    from io import FileIO

    from shiplap.rootfs.squashfs.compress import compressor
    from shiplap.rootfs.squashfs.write import SquashfsWriter

    entries = [ROOT, file(b"file", NOISE[:300_000]), file(b"small", b"x")]
    with FileIO(tmp_path / "image", "w+") as target, SquashfsWriter(target, "image", compressor("zstd", 1, 131072), Layout()) as writer:
        # A hole of the host's file in front of the data stands for other files' data.
        writer._output.position = target.seek(5 << 30)
        for entry in entries:
            writer.add(entry)
        writer.finish()
    with open_squashfs(tmp_path / "image") as image:
        assert data_of(image, b"file").start == 5 << 30
        assert inode_type(image, b"file") == 9
    assert facts_of_image(tmp_path / "image") == expected_facts(entries) == facts_of_the_kernel(tmp_path / "image", tmp_path)


def test_a_file_of_4_gib_is_read_by_the_kernel_at_its_end(tmp_path: Path) -> None:
    for size in ((4 << 30) - 1, 4 << 30):
        large = Entry(b"large", Kind.REGULAR, 0o644, content=Pattern(size, b"end.", (size - 4,), b"x"))
        write_image(tmp_path / "image", [ROOT, large], "lz4", 0, Layout(1 << 20))
        said = kernel_says(tmp_path / "image", tmp_path, "stat -c %s large; tail -c 6 large | od -An -c")
        assert said.split() == [str(size), "x", "x", "e", "n", "d", "."]


def test_link_counts_are_right(tmp_path: Path) -> None:
    entries = [
        ROOT,
        Entry(b"d", Kind.DIRECTORY, 0o755),
        Entry(b"d/e", Kind.DIRECTORY, 0o755),
        Entry(b"d/f", Kind.DIRECTORY, 0o755),
        file(b"d/g", b"x"),
        Entry(b"h", Kind.HARDLINK, 0o644, link=b"d/g"),
        Entry(b"i", Kind.HARDLINK, 0o644, link=b"h"),
    ]
    write_image(tmp_path / "image", entries)
    with open_squashfs(tmp_path / "image") as image:
        counts = {entry.path: image._locate(entry.path).link_count for entry in entries}  # type: ignore[union-attr]
    assert counts == {b"": 3, b"d": 4, b"d/e": 2, b"d/f": 2, b"d/g": 3, b"h": 3, b"i": 3}


def test_the_same_entries_in_another_order_are_the_same_tree_with_other_places(tmp_path: Path) -> None:
    contents = [file(name, NOISE[n * 9000 : n * 9000 + 9000]) for n, name in enumerate((b"a", b"b", b"c"))]
    write_image(tmp_path / "one", [ROOT, *contents])
    write_image(tmp_path / "two", [ROOT, *reversed(contents)])
    assert facts_of_image(tmp_path / "one") == facts_of_image(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()


def test_the_epoch_and_nothing_else_is_in_the_superblocks_time(tmp_path: Path) -> None:
    for epoch in (0, 1, 2**32 - 1):
        write_image(tmp_path / "image", [replace(ROOT, mtime_epoch=5)], layout=Layout(BLOCK, epoch))
        assert superblock(tmp_path / "image")[2] == epoch
    assert Bytes(b"").size_bytes == 0


def test_unsquashfs_reads_through_a_pipe_of_one_thread(tmp_path: Path) -> None:
    require("mksquashfs")
    write_image(tmp_path / "image", torture_tree(BLOCK), "xz")
    argv = ["unsquashfs", "-n", "-p", "1", "-cat", str(tmp_path / "image"), "sized/more"]
    expected = next(entry for entry in torture_tree(BLOCK) if entry.path == b"sized/more").content
    assert expected is not None
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"".join(expected.chunks())
