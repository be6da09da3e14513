"""Images that lie: each ends in one SquashfsError that names the file and the place, in little time and memory."""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from requirement import require
from shiplap.core.errors import ShiplapError
from shiplap.rootfs.squashfs import SquashfsError, open_squashfs
from squashfscraft import BLOCK_SIZE, DIRECTORY, EXTENDED, FIFO, FILE, NOTHING, STORED, SYMLINK, Craft, Name, listing, pair, reference
from squashfsimages import lay_out, mksquashfs, small_tree, tar2sqfs

CONTENT_LIMIT_BYTES = 32 << 20


def read_everything(path: Path) -> int:
    """Walk an image and read its files; the bytes read."""
    total = 0
    with open_squashfs(path) as image:
        for entry in image.entries():
            if entry.content is not None:
                for chunk in entry.content.chunks():
                    total += len(chunk)
                    if total > CONTENT_LIMIT_BYTES:
                        return total
    return total


def refused(tmp_path: Path, image: bytes, match: str) -> None:
    """Reading ``image`` raises one SquashfsError that names the file and matches."""
    path = tmp_path / "hostile.squashfs"
    path.write_bytes(image)
    with pytest.raises(SquashfsError, match=match) as caught:
        read_everything(path)
    assert "hostile.squashfs" in caught.value.message


def one_file(**file: object) -> Craft:
    """A root with one extended file, whose fields are given."""
    return one_entry(FILE, lambda craft: craft.file(2, **file))  # type: ignore[arg-type]


def one_entry(type_: int, make: Callable[[Craft], int], name: bytes = b"name") -> Craft:
    craft = Craft()
    craft.directory(1, listing([(name, type_, make(craft), 2)]))
    return craft


def image_of(craft: Craft, **changes: int) -> bytes:
    """The image whose root is the directory that was made last (a basic one of 32 bytes)."""
    return craft.image(reference(len(craft.inodes) - 32), **changes)


def named(*names: bytes) -> bytes:
    """An image whose root holds one file of each name."""
    craft = Craft()
    lines: list[Name] = [(name, FILE, craft.file(2 + number), 2 + number) for number, name in enumerate(names)]
    craft.directory(1, listing(lines))
    return image_of(craft)


def test_an_honest_crafted_image_is_read(tmp_path: Path) -> None:
    craft = Craft()
    start = craft.put(zlib.compress(b"a" * BLOCK_SIZE))
    words = (len(craft.data), 0)
    tail = craft.put(b"tail")
    craft.fragments.append((tail, 4 | STORED))
    craft.xattr_pairs = pair(0, b"x", b"1")
    craft.xattr_sets.append((0, 1, len(craft.xattr_pairs)))
    found = craft.file(2, size=2 * BLOCK_SIZE + 4, start=start, fragment=0, words=words, xattrs=0)
    craft.directory(1, listing([(b"file", FILE, found, 2)]))
    (tmp_path / "image").write_bytes(image_of(craft))
    with open_squashfs(tmp_path / "image") as image:
        assert image.read(b"file", 10_000) == b"a" * BLOCK_SIZE + bytes(BLOCK_SIZE) + b"tail"
        entry = image.find(b"file")
        assert entry is not None and entry.xattrs == ((b"user.x", b"1"),)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "only 0 bytes"),
        (b"hsqs", "only 4 bytes"),
        (bytes(4096), "magic number is missing"),
        (b"sqsh" + bytes(4096), "older than 4.0"),
        (named(b"a")[:-1], "cut short: the superblock says"),
        (named(b"a")[:200], "cut short"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, match: str, tmp_path: Path) -> None:
    refused(tmp_path, data, match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"major": 3}, r"version 3\.0; only 4\.0"),
        ({"compressor": 9}, "unknown compressor 9"),
        ({"block_size": 2048, "block_log": 11}, "no power of two"),
        ({"block_size": 1 << 21, "block_log": 21}, "no power of two"),
        ({"block_log": 13}, "no power of two"),
        ({"bytes_used": 1 << 60}, "cut short"),
        ({"bytes_used": 97}, "inode table"),
        ({"inode_table": 0}, "inode table"),
        ({"inode_table": 1 << 63}, "inode table"),
        ({"directory_table": 96}, "inode table"),
        ({"id_table": 1 << 50}, "the id table at byte"),
        ({"id_table": 96}, "the id table at byte 96"),
        ({"xattr_table": 1 << 50}, "the xattr table at byte"),
        ({"export_table": 5}, "the export table at byte 5"),
        ({"fragment_count": 1}, "counts 1 fragments but has no fragment table"),
        ({"fragment_count": 1 << 31, "fragment_table": 230}, "fragment table"),
        ({"inode_count": 0}, "no inodes or no ids"),
        ({"id_count": 0}, "no inodes or no ids"),
        ({"inode_count": 1 << 31}, "2147483648 inodes, more than its inode table can hold"),
        ({"root": 1 << 40}, "lies outside"),
        ({"root": 8000}, "offset 8000 lies outside"),
        ({"root": 0}, "the root of the image is no directory"),
        ({"root": 3}, "inode"),
    ],
)
def test_a_lying_superblock_is_refused(changes: dict[str, int], match: str, tmp_path: Path) -> None:
    craft = Craft()
    craft.directory(1, listing([(b"name", FILE, craft.file(2), 2)]))
    refused(tmp_path, image_of(craft, **changes), match)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ((b"a/b",), "'a/b' cannot be"),
        ((b".",), r"'\.' cannot be"),
        ((b"..",), r"'\.\.' cannot be"),
        ((b"a\0b",), "cannot be"),
        ((b"\0",), "cannot be"),
        ((b"a", b"a"), "'a' occurs twice"),
        ((b"b", b"a"), "out of order: 'a' follows 'b'"),
        ((b"x" * 257,), "a name of 257 bytes"),
    ],
)
def test_impossible_names_are_refused(names: tuple[bytes, ...], match: str, tmp_path: Path) -> None:
    refused(tmp_path, named(*names), match)


def test_a_directory_that_contains_itself_is_refused(tmp_path: Path) -> None:
    craft = Craft()
    craft.directory(1, listing([(b"self", DIRECTORY, craft.next_inode, 1)]))
    refused(tmp_path, image_of(craft), "self is a directory that lies elsewhere too .*: a loop")


def test_a_loop_through_an_ancestor_is_refused(tmp_path: Path) -> None:
    craft = Craft()
    inner = craft.directory(2, listing([(b"up", DIRECTORY, reference(32), 1)]))
    craft.directory(1, listing([(b"down", DIRECTORY, inner, 2)]))
    refused(tmp_path, image_of(craft), "down/up is a directory that lies elsewhere too")


def test_a_directory_with_two_names_is_refused(tmp_path: Path) -> None:
    # Thirty levels of two names for the next level would be a thousand million entries.
    craft = Craft()
    below = craft.directory(31, b"")
    for number in range(30, 0, -1):
        below = craft.directory(number, listing([(b"a", DIRECTORY, below, number + 1), (b"b", DIRECTORY, below, number + 1)]))
    refused(tmp_path, image_of(craft, inode_count=31), "is a directory that lies elsewhere too")


def test_more_names_than_the_link_count_are_refused(tmp_path: Path) -> None:
    craft = Craft()
    file = craft.file(2, links=2)
    craft.directory(1, listing([(name, FILE, file, 2) for name in (b"a", b"b", b"c")]))
    refused(tmp_path, image_of(craft), "c is one name more of inode 2 than its link count of 2")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ((b"n", DIRECTORY, 0, 2), "the directory says inode 2 of type 1, the inode table has 2 of type 2"),
        ((b"n", FILE, 0, 3), "the directory says inode 3 of type 2, the inode table has 2"),
        ((b"n", FILE, 1 << 30, 2), "lies outside"),
        ((b"n", FILE, 8000, 2), "offset 8000 lies outside the block"),
        ((b"n", FILE, 7, 2), "inode"),
    ],
)
def test_a_listing_that_contradicts_the_inode_is_refused(line: Name, match: str, tmp_path: Path) -> None:
    craft = Craft()
    craft.file(2)
    craft.directory(1, listing([line]))
    refused(tmp_path, image_of(craft), match)


@pytest.mark.parametrize(
    ("type_", "number", "body", "fields", "match"),
    [
        (15, 2, bytes(40), {}, "has the unknown type 15"),
        (0, 2, bytes(40), {}, "has the unknown type 0"),
        (FIFO, 0, struct.pack("<I", 1), {}, "has a number outside 1 to 10"),
        (FIFO, 11, struct.pack("<I", 1), {}, "has a number outside 1 to 10"),
        (FIFO, 2, struct.pack("<I", 0), {}, "has no link"),
        (FIFO, 2, struct.pack("<I", 1), {"mode": 0o10755}, "has the impossible mode 10755"),
        (FIFO, 2, struct.pack("<I", 1), {"uid": 1}, "id table: record 1 is asked for, there are 1"),
        (FIFO, 2, struct.pack("<I", 1), {"gid": 65535}, "id table: record 65535 is asked for"),
        (SYMLINK, 2, struct.pack("<II", 1, 1 << 31), {}, "a target of 2147483648 bytes"),
        (SYMLINK, 2, struct.pack("<II", 1, 60_000), {}, "lies outside"),
        (SYMLINK, 2, struct.pack("<II", 1, 3) + b"a\0b", {}, "target holds a NUL byte"),
    ],
)
def test_an_impossible_inode_is_refused(type_: int, number: int, body: bytes, fields: dict[str, int], match: str, tmp_path: Path) -> None:
    craft = one_entry(type_, lambda craft: craft.inode(type_, number, body, **fields))
    refused(tmp_path, image_of(craft), match)


@pytest.mark.parametrize(
    ("file", "match"),
    [
        ({"size": 100, "start": 1 << 40, "words": (100 | STORED,)}, "/name: block 0 at byte 1099511627776 .* lies outside the image"),
        ({"size": 100, "words": (5000 | STORED,)}, "/name: block 0 at byte 96 claims 5000 bytes of a block size of 4096"),
        ({"size": 100, "words": (1 << 25 | 100,)}, "claims 33554532 bytes"),
        ({"size": 100, "words": (99 | STORED,)}, "/name: block 0 at byte 96 has 99 bytes instead of 100"),
        ({"size": 5000, "words": (100 | STORED, 0)}, "block 0 at byte 96 has 100 bytes instead of 4096"),
        ({"size": 100, "words": (100,)}, "/name: block 0 at byte 96 is damaged"),
        ({"size": 100, "fragment": 0}, "/name: its tail is in fragment 0, the image has none"),
        ({"size": 1 << 62}, "a file claims 4611686018427387904 bytes, but the table has no room"),
        ({"size": (1 << 64) - 1}, "the table has no room"),
        ({"size": 12000, "words": ()}, "/name: block 0 at byte 96 claims 15532033 bytes"),
    ],
)
def test_data_that_cannot_be_is_refused(file: dict[str, object], match: str, tmp_path: Path) -> None:
    craft = one_file(**file)
    craft.put(bytes(200))
    refused(tmp_path, image_of(craft), match)


@pytest.mark.parametrize(
    ("size", "file", "match"),
    [
        (4, {"size": 5, "fragment": 0}, "its tail lies at 0 to 5 of fragment 0, which has 4 bytes"),
        (4, {"size": 2, "fragment": 0, "offset": 3}, "its tail lies at 3 to 5"),
        (4, {"size": 2, "fragment": 0, "offset": NOTHING}, "its tail lies at 4294967295"),
        (4, {"size": 2, "fragment": 1}, "fragment table: record 1 is asked for, there are 1"),
        (0, {"size": 2, "fragment": 0}, "fragment 0 is empty"),
        (1 << 23, {"size": 2, "fragment": 0}, "fragment 0 at byte 96 claims 8388608 bytes"),
    ],
)
def test_a_tail_that_cannot_be_is_refused(size: int, file: dict[str, object], match: str, tmp_path: Path) -> None:
    craft = one_file(**file)
    craft.fragments.append((craft.put(b"data"), size | STORED if size else 0))
    refused(tmp_path, image_of(craft), match)


def test_a_block_bomb_is_refused(tmp_path: Path) -> None:
    for size in (BLOCK_SIZE + 1, 4_000_000):
        bomb = zlib.compress(bytes(size))
        craft = one_file(size=BLOCK_SIZE, words=(len(bomb),))
        craft.put(bomb)
        refused(tmp_path, image_of(craft), "/name: block 0 at byte 96 is damaged: it decompresses to more than 4096 bytes")


def test_a_metadata_bomb_is_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(8193))
    image = bytearray(named(b"a"))
    start = struct.unpack_from("<Q", image, 64)[0]
    image[start : start + 2 + len(bomb)] = struct.pack("<H", len(bomb)) + bomb
    refused(tmp_path, bytes(image), f"inode table: the block at byte {start} is damaged: it decompresses to more than 8192 bytes")


@pytest.mark.parametrize(("header", "match"), [(0x8000, "claims 0 bytes"), (0xFFFF, "claims 32767 bytes"), (0xA001, "claims 8193 bytes")])
def test_a_metadata_block_of_impossible_size_is_refused(header: int, match: str, tmp_path: Path) -> None:
    image = bytearray(named(b"a"))
    start = struct.unpack_from("<Q", image, 64)[0]
    image[start : start + 2] = struct.pack("<H", header)
    refused(tmp_path, bytes(image), match)


def test_an_inode_that_runs_over_the_end_of_the_table_is_refused(tmp_path: Path) -> None:
    craft = Craft()
    craft.directory(1, listing([(b"name", FIFO, reference(32), 2)]))
    craft.inodes += struct.pack("<HHHHII", FIFO, 0o644, 0, 0, 0, 2)
    refused(tmp_path, craft.image(0), "inode table: a block at byte .* lies outside")


@pytest.mark.parametrize(
    ("raw", "size", "match"),
    [
        (listing([(b"name", FILE, 0, 2)])[:-1], None, "a listing of 23 bytes ends within a name"),
        (b"short", None, "ends within a name"),
        (struct.pack("<III", 256, 0, 2), None, "a group of 257 names"),
        (listing([(b"name", FILE, 0, 2)]), 60_000, "directory table: the block at byte 218 claims 212 bytes"),
    ],
)
def test_a_damaged_listing_is_refused(raw: bytes, size: int | None, match: str, tmp_path: Path) -> None:
    craft = Craft()
    craft.file(2)
    craft.directory(1, raw, size=size)
    refused(tmp_path, image_of(craft), match)


def test_an_index_that_the_listing_contradicts_is_refused(tmp_path: Path) -> None:
    # The kernel finds names through the index: this one would show the device another file than the walk.
    def image(index: list[tuple[int, int, bytes]]) -> bytes:
        craft = Craft()
        one, two = craft.file(2), craft.file(3)
        root = craft.directory(1, listing([(b"a", FILE, one, 2), (b"b", FILE, two, 3)]), index=index)
        return craft.image(root)

    honest = tmp_path / "honest"
    honest.write_bytes(image([(21, 0, b"b")]))
    assert read_everything(honest) == 0
    for index in ([(21, 0, b"a")], [(21, 8194, b"b")], [(20, 0, b"b")], [(0, 0, b"b")], [(21, 0, b"b"), (21, 0, b"b")]):
        refused(tmp_path, image(index), "the index of a directory")


def test_an_index_over_a_short_block_is_refused(tmp_path: Path) -> None:
    # The kernel reckons with full blocks when it follows an index, and would look at another byte than the walk.
    craft = Craft()
    one, two = craft.file(2), craft.file(3)
    first, second = listing([(b"a", FILE, one, 2)]), listing([(b"b", FILE, two, 3)])
    root = craft.directory(1, b"", size=len(first + second) + 3, index=[(len(first), len(first) + 2, b"b")])
    craft.listing_blocks = [first, second]
    refused(tmp_path, craft.image(root), "a directory with an index crosses the short block at byte")
    # Without an index nobody reckons: the same listing is fine.
    root = craft.directory(1, b"", size=len(first + second) + 3)
    (tmp_path / "image").write_bytes(craft.image(root))
    with open_squashfs(tmp_path / "image") as image:
        assert [entry.path for entry in image.entries()] == [b"", b"a", b"b"]


def test_a_table_that_is_shorter_than_its_count_is_refused(tmp_path: Path) -> None:
    craft = one_file(size=2, fragment=1)
    craft.fragments.append((craft.put(b"data"), 4 | STORED))
    refused(tmp_path, image_of(craft, fragment_count=2), "fragment table: the block at byte .* is too short for record 1")
    refused(tmp_path, image_of(craft, fragment_count=1 << 31), "fragment table: its 2147483648 records do not fit")


def test_a_metadata_block_of_nothing_is_refused(tmp_path: Path) -> None:
    image = bytearray(named(b"a"))
    start = struct.unpack_from("<Q", image, 64)[0]
    nothing = zlib.compress(b"")
    image[start : start + 2 + len(nothing)] = struct.pack("<H", len(nothing)) + nothing
    refused(tmp_path, bytes(image), f"the block at byte {start} is empty")


def xattrs(pairs: bytes, *, count: int = 1, reference: int = 0, index: int = 0) -> bytes:
    craft = one_file(xattrs=index)
    craft.xattr_pairs = pairs
    craft.xattr_sets.append((reference, count, len(pairs)))
    return image_of(craft)


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (xattrs(pair(0, b"x", b"1"), index=1), "xattr table: record 1 is asked for, there are 1"),
        (image_of(one_file(xattrs=0)), "name has extended attributes, the image has no table"),
        (xattrs(pair(3, b"x", b"1")), "unknown type 0x3"),
        (xattrs(pair(0x200, b"x", b"1")), "unknown type 0x200"),
        (xattrs(pair(0, b"", b"1")), "impossible name 'user.'"),
        (xattrs(pair(0, b"a\0b", b"1")), "impossible name"),
        (xattrs(pair(0, b"n" * 251, b"1")), "impossible name"),
        (xattrs(pair(0, b"x", b"1") * 2, count=2), r"set 0 holds user\.x twice"),
        (xattrs(pair(0, b"x", b"1"), count=NOTHING), "xattrs:"),
        (xattrs(pair(0, b"x", b"1"), reference=1 << 40), "lies outside"),
        (xattrs(struct.pack("<HH", 0, 1) + b"x" + struct.pack("<I", 65537)), r"user\.x claims a value of 65537 bytes"),
        (xattrs(struct.pack("<HH", 0x100, 1) + b"x" + struct.pack("<I", 9) + bytes(9)), "with 9 bytes instead of 8"),
        (xattrs(struct.pack("<HHcIQ", 0x100, 1, b"x", 8, 1 << 40)), "lies outside|claims"),
    ],
)
def test_lying_extended_attributes_are_refused(image: bytes, match: str, tmp_path: Path) -> None:
    refused(tmp_path, image, match)


def test_a_value_out_of_line_is_read(tmp_path: Path) -> None:
    first = pair(0, b"x", b"value")
    elsewhere = struct.pack("<HH", 0x101, 1) + b"y" + struct.pack("<IQ", 8, 5)
    craft = one_file(xattrs=0)
    craft.xattr_pairs = first + elsewhere
    craft.xattr_sets.append((0, 2, 0))
    (tmp_path / "image").write_bytes(image_of(craft))
    with open_squashfs(tmp_path / "image") as image:
        entry = image.find(b"name")
        assert entry is not None and entry.xattrs == ((b"trusted.y", b"value"), (b"user.x", b"value"))


def test_attributes_are_bounded_for_one_inode(tmp_path: Path) -> None:
    # Forty names that share one value of 64 KiB cost a few hundred bytes in the image.
    value = pair(0, b"v", bytes(65536))
    shared = b"".join(struct.pack("<HH", 0x100, 3) + b"n%02d" % number + struct.pack("<IQ", 8, 5) for number in range(40))
    craft = one_file(xattrs=0)
    craft.xattr_pairs = value + shared
    craft.xattr_sets.append((reference(len(value)), 40, 0))
    refused(tmp_path, image_of(craft), "set 0 is larger than one inode's attributes can be")


def test_the_names_of_attributes_are_bounded_for_one_inode(tmp_path: Path) -> None:
    pairs = b"".join(pair(0, b"%04d" % number + b"n" * 240, b"") for number in range(270))
    refused(tmp_path, xattrs(pairs, count=270), "set 0 is larger than one inode's attributes can be")


def test_attributes_that_lie_behind_their_table_are_refused(tmp_path: Path) -> None:
    image = bytearray(xattrs(pair(0, b"x", b"1")))
    table = struct.unpack_from("<Q", image, 56)[0]
    struct.pack_into("<Q", image, table, table + 1)
    refused(tmp_path, bytes(image), f"the attributes lie at byte {table + 1}, behind the table at {table}")


def test_a_path_has_a_limit(tmp_path: Path) -> None:
    craft = Craft()
    below = craft.directory(100, b"")
    for number in range(99, 0, -1):
        below = craft.directory(number, listing([(b"d" * 256, DIRECTORY, below, number + 1)]))
    refused(tmp_path, image_of(craft, inode_count=100), "a path is longer than 16384 bytes")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, match in (("nothing", "No such file"), ("", "neither a file nor a block device"), ("fifo", "neither a file")):
        with pytest.raises(SquashfsError, match=match), open_squashfs(tmp_path / name):
            pass


def test_claims_cost_no_memory(tmp_path: Path) -> None:
    """A sparse file of 4 GiB, tables of millions of records: only what is read is paid for."""
    craft = Craft()
    count = 1 << 20
    file = craft.file(2, size=count * BLOCK_SIZE)
    craft.inodes += bytes(4 * count)
    root = craft.next_inode
    craft.directory(1, listing([(b"sparse", FILE, file, 2)]))
    # The root's reference in compressed blocks: the last of them, and they are not of equal size.
    packed = craft.image(0, compressed=True)
    inode_table, directory_table = struct.unpack_from("<QQ", packed, 64)
    position = inode_table
    while True:
        following = position + 2 + (struct.unpack_from("<H", packed, position)[0] & 0x7FFF)
        if following >= directory_table:
            break
        position = following
    path = tmp_path / "image"
    path.write_bytes(craft.image((position - inode_table) << 16 | root & 0xFFFF, compressed=True))
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    try:
        assert read_everything(path) > CONTENT_LIMIT_BYTES
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 << 20


def _mutated(image: bytes, rng: random.Random) -> bytes:
    data = bytearray(image)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        # The superblock and the metadata at the end are where lies are made; data is a tenth of the picks.
        where = rng.random()
        at = (
            rng.randrange(96)
            if where < 0.2
            else rng.randrange(len(data))
            if where < 0.3
            else len(data) - 1 - rng.randrange(min(len(data), 1600))
        )
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x01\0\0\0", b"\0\0\0\x80"))[: len(data) - at]
        else:
            source = rng.randrange(len(data))
            data[at : at + 8] = data[source : source + 8]
    if rng.random() < 0.05:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small real images, without the padding behind them."""
    require("tar2sqfs", "mksquashfs")
    folder = tmp_path_factory.mktemp("seeds")
    images = {
        "tar2sqfs-zstd": tar2sqfs(folder / "zstd", small_tree(), "-c", "zstd", "-b", "4096"),
        "tar2sqfs-xz": tar2sqfs(folder / "xz", small_tree(), "-c", "xz", "-b", "4096", "-e"),
        "tar2sqfs-lz4": tar2sqfs(folder / "lz4", small_tree(), "-c", "lz4", "-b", "4096"),
    }
    if os.geteuid() == 0:
        lay_out(small_tree(), os.fsencode(folder / "tree"))
        images["mksquashfs-gzip"] = mksquashfs(folder / "gzip", folder / "tree", "-b", "4K")
        images["mksquashfs-lzo"] = mksquashfs(folder / "lzo", folder / "tree", "-b", "4K", "-comp", "lzo")
        # Nothing compressed: every changed byte is a changed field, not a broken stream.
        plain = ("-noI", "-noD", "-noF", "-noX", "-noId")
        images["mksquashfs-plain"] = mksquashfs(folder / "plain", folder / "tree", "-b", "4K", *plain)
    return {name: path.read_bytes()[: struct.unpack_from("<Q", path.read_bytes(), 40)[0]] for name, path in images.items()}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("tar2sqfs-zstd", 400),
        ("tar2sqfs-xz", 400),
        ("tar2sqfs-lz4", 400),
        ("mksquashfs-gzip", 400),
        ("mksquashfs-lzo", 400),
        ("mksquashfs-plain", 4000),
    ],
)
def test_a_damaged_image_raises_nothing_but_our_error(name: str, count: int, seeds: dict[str, bytes], tmp_path: Path) -> None:
    if name not in seeds:
        pytest.skip("only root can lay out devices and owners as files")
    rng = random.Random(name)
    path = tmp_path / "damaged"
    outcomes = {True: 0, False: 0}
    for number in range(count):
        path.write_bytes(_mutated(seeds[name], rng))
        begin = time.monotonic()
        try:
            read_everything(path)
            outcomes[True] += 1
        except ShiplapError as error:
            assert "damaged" in error.message
            outcomes[False] += 1
        except Exception as error:
            raise AssertionError(f"mutation {number} of {name} escaped") from error
        assert time.monotonic() - begin < 10, f"mutation {number} of {name} took too long"
    assert outcomes[False] > count // 5, "the mutations hardly hurt: they test nothing"


def test_an_image_cut_anywhere_raises_nothing_but_our_error(seeds: dict[str, bytes], tmp_path: Path) -> None:
    image = seeds["tar2sqfs-zstd"]
    path = tmp_path / "damaged"
    for length in [*range(0, 200, 7), *range(200, len(image), 97), len(image) - 1]:
        path.write_bytes(image[:length])
        with pytest.raises(SquashfsError, match="damaged"):
            read_everything(path)


def test_the_types_of_extended_inodes_are_seven_more(tmp_path: Path) -> None:
    # Guards the constant that the tests above use.
    path = tmp_path / "image"
    path.write_bytes(image_of(one_entry(FIFO, lambda craft: craft.inode(FIFO + EXTENDED, 2, struct.pack("<II", 1, NOTHING)))))
    assert read_everything(path) == 0
