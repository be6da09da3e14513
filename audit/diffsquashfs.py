"""Two SquashFS images: their superblocks, and why images of equal entries are not equal bytes."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import fields

from shiplap.audit.diffcontent import first_difference, hex_context, same_content
from shiplap.audit.differences import Change, Finding, Section, fields_of
from shiplap.audit.difftrees import compare_nodes, shown_path
from shiplap.audit.trees import Node, SquashfsTree
from shiplap.core.entries import CHUNK_BYTES, Content, Entry, FileSlice
from shiplap.rootfs.squashfs.content import SquashfsContent
from shiplap.rootfs.squashfs.file import ImageFile
from shiplap.rootfs.squashfs.superblock import SUPERBLOCK_BYTES, Superblock

FLAGS = {
    0x0001: "inodes stored uncompressed",
    0x0002: "data stored uncompressed",
    0x0008: "fragments stored uncompressed",
    0x0010: "no fragments",
    0x0020: "always fragments",
    0x0040: "duplicates removed",
    0x0080: "export table",
    0x0100: "xattrs stored uncompressed",
    0x0200: "no xattrs",
    0x0400: "compressor options",
    0x0800: "ids stored uncompressed",
}
_COMPRESSOR_OPTIONS = 0x0400
_OPTIONS_BYTES = 64
_OPTIONS = {
    "gzip": ("<IHH", ("level", "window", "strategies")),
    "lzo": ("<II", ("algorithm", "level")),
    "xz": ("<II", ("dictionary", "filters")),
    "lz4": ("<II", ("version", "flags")),
    "zstd": ("<I", ("level",)),
}
_LABELS = {
    "mtime_epoch": "time",
    "block_size_bytes": "block size",
    "bytes_used": "bytes used",
    "root_inode": "root inode reference",
}


def flag_text(flags: int) -> str:
    """The flags by name, ``none`` for no flag."""
    named = [name for bit, name in FLAGS.items() if flags & bit]
    unknown = flags & ~sum(FLAGS)
    return ", ".join([*named, *([f"{unknown:#x}"] if unknown else [])]) or "none"


def compare_superblocks(a: SquashfsTree, b: SquashfsTree, section: Section) -> None:
    """One finding with every field of the two superblocks that differs, and the compressors' options."""
    one, other = a.reader.superblock, b.reader.superblock
    pairs: list[tuple[str, str | int | None, str | int | None]] = []
    for field in fields(Superblock):
        values = getattr(one, field.name), getattr(other, field.name)
        if field.name == "flags":
            values = flag_text(one.flags), flag_text(other.flags)
        pairs.append((_LABELS.get(field.name, field.name.replace("_", " ")), *values))
    pairs.append(("compressor options", _options(a), _options(b)))
    changes = fields_of(pairs)
    if changes:
        section.changed("superblock", changes)


def _options(tree: SquashfsTree) -> str | None:
    """The compressor's options behind the superblock, one metadata block: by name, or in hex where it is of another length."""
    if not tree.reader.superblock.flags & _COMPRESSOR_OPTIONS:
        return None
    file = tree.reader.file
    size = int.from_bytes(file.read(SUPERBLOCK_BYTES, 2, "the compressor's options"), "little") & 0x7FFF
    raw = file.read(SUPERBLOCK_BYTES + 2, min(size, _OPTIONS_BYTES), "the compressor's options")
    layout, names = _OPTIONS.get(tree.reader.superblock.compressor, ("", ()))
    if not names or len(raw) != struct.calcsize(layout):
        return raw.hex(" ")
    return ", ".join(f"{name} {value}" for name, value in zip(names, struct.unpack(layout, raw), strict=True))


def content_comparison(a: SquashfsTree, b: SquashfsTree) -> Callable[[Content, Content], bool]:
    """Whether two files' contents are equal: blocks that are stored alike need no decompression."""
    if (a.reader.superblock.compressor, a.reader.superblock.block_size_bytes) != (
        b.reader.superblock.compressor,
        b.reader.superblock.block_size_bytes,
    ):
        return same_content

    def same(one: Content, other: Content) -> bool:
        if isinstance(one, SquashfsContent) and isinstance(other, SquashfsContent) and _stored_alike(one, other):
            return True
        return same_content(one, other)

    return same


def _stored_alike(a: SquashfsContent, b: SquashfsContent) -> bool:
    if a.size_bytes != b.size_bytes or a.data.fragment is not None or b.data.fragment is not None:
        return False
    position = [a.data.start, b.data.start]
    for word, other in zip(a.blocks.words(a.data), b.blocks.words(b.data), strict=True):
        size = word & 0xFFFFFF
        if word != other or size > a.blocks.block_size_bytes:
            return False
        what = "a data block"
        if a.blocks.file.read(position[0], size, what) != b.blocks.file.read(position[1], size, what):
            return False
        position = [position[0] + size, position[1] + size]
    return True


class Placement:
    """Where the two images keep the same files; fed with the nodes of every common path."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, str]] = {}

    def take(self, a: Node, b: Node) -> None:
        if a.first != a.entry.path or b.first != b.entry.path:
            return
        one, other = a.entry.content, b.entry.content
        if isinstance(one, SquashfsContent) and isinstance(other, SquashfsContent) and one.size_bytes == other.size_bytes:
            self._file(a.entry, one, other)

    def _file(self, entry: Entry, a: SquashfsContent, b: SquashfsContent) -> None:
        if (a.data.fragment is None) != (b.data.fragment is None):
            packed = "A" if b.data.fragment is None else "B"
            self._note("tail packing", entry, f"its tail is packed with others in {packed} only")
            return
        if a.data.fragment is not None and b.data.fragment is not None:
            places = [f"fragment {file.data.fragment} byte {file.data.fragment_offset}" for file in (a, b)]
            if places[0] != places[1]:
                self._note("place of a tail", entry, " / ".join(places))
        if not a.data.block_count or not b.data.block_count:
            return
        if a.data.block_count == b.data.block_count:
            for number, (word, other) in enumerate(zip(a.blocks.words(a.data), b.blocks.words(b.data), strict=True)):
                if word != other:
                    self._note("stored size of a block", entry, f"block {number}: {_stored(word)} / {_stored(other)}")
                    break
        if a.data.start != b.data.start:
            self._note("place of the data", entry, f"byte {a.data.start} / {b.data.start}")

    def _note(self, what: str, entry: Entry, example: str) -> None:
        count, first = self._counts.get(what, (0, ""))
        self._counts[what] = count + 1, first or f"{shown_path(entry.path)}: {example}"

    def report(self, section: Section) -> None:
        for what, (count, example) in self._counts.items():
            section.add(Finding(what, changes=(Change("placement", None, None),), detail=(f"{count} files, the first is {example}",)))


def _stored(word: int) -> str:
    if not word:
        return "a hole"
    return f"{word & 0xFFFFFF} bytes" + (" uncompressed" if word >> 24 else "")


def compare_squashfs(a: SquashfsTree, b: SquashfsTree, section: Section) -> None:
    """Entries first, in ``section`` itself; what differs in the container only, in a section below."""
    placement = Placement()
    compare_nodes(a.nodes(), b.nodes(), section, same=content_comparison(a, b), both=placement.take)
    compare_left_out(a.left_out, b.left_out, section)
    if not section.total:
        section.remarks.append("all entries are equal in every field; only the container differs")
        explain_container(a, b, section.section("the container", "SquashFS container"), placement)
    else:
        compare_superblocks(a, b, section.section("the container", "SquashFS container"))


def compare_left_out(a: list[bytes], b: list[bytes], section: Section) -> None:
    for side, paths in (("A", sorted(set(a) - set(b))), ("B", sorted(set(b) - set(a)))):
        for path in paths:
            section.add(Finding(shown_path(path), f"only in {side}", kind="socket"))


def explain_container(a: SquashfsTree, b: SquashfsTree, section: Section, placement: Placement) -> None:
    """Superblock, placement, tables, and what lies behind the image."""
    compare_superblocks(a, b, section)
    placement.report(section)
    files = [tree.reader.file for tree in (a, b)]
    regions = [_regions(tree.reader.superblock) for tree in (a, b)]
    for name in sorted(regions[0].keys() | regions[1].keys(), key=list(_REGIONS).index):
        one, other = (region.get(name) for region in regions)
        if one is None or other is None:
            section.add(Finding(name, "only in A" if other is None else "only in B"))
            continue
        at = first_difference(_slice(files[0], *one).chunks(), _slice(files[1], *other).chunks())
        if at is not None:
            changes = fields_of([("bytes", one[1], other[1])])
            example = tuple(_some(file, *region, at) for file, region in zip(files, (one, other), strict=True))
            section.add(Finding(name, changes=(*changes, Change("content", None, None)), detail=hex_context(at, *example)))
    _compare_padding(a, b, section)


_REGIONS = ("data", "inode table", "directory table", "fragment table", "export table", "id table", "xattr table")


def _regions(superblock: Superblock) -> dict[str, tuple[int, int]]:
    """Start and length in bytes of each region. A table's own blocks lie before the list that the superblock points to."""
    starts = {
        "data": SUPERBLOCK_BYTES,
        "inode table": superblock.inode_table,
        "directory table": superblock.directory_table,
        "fragment table": superblock.fragment_table,
        "export table": superblock.export_table,
        "id table": superblock.id_table,
        "xattr table": superblock.xattr_table,
    }
    there = sorted((start, name) for name, start in starts.items() if start is not None)
    ends = [*(start for start, _ in there[1:]), superblock.bytes_used]
    return {name: (start, end - start) for (start, name), end in zip(there, ends, strict=True)}


def _slice(file: ImageFile, start: int, size_bytes: int) -> FileSlice:
    return FileSlice(file.descriptor, file.start_bytes + start, size_bytes, file.name)


def _some(file: ImageFile, start: int, size_bytes: int, at: int) -> bytes:
    row = at - at % 16
    return file.read(start + row, max(0, min(48, size_bytes - row)), "bytes to show")


def _compare_padding(a: SquashfsTree, b: SquashfsTree, section: Section) -> None:
    behind = []
    for tree in (a, b):
        file = tree.reader.file
        size = os.fstat(file.descriptor).st_size or file.start_bytes + file.size_bytes
        behind.append(FileSlice(file.descriptor, file.start_bytes + file.size_bytes, size - file.start_bytes - file.size_bytes, file.name))
    at = first_difference(behind[0].chunks(), behind[1].chunks())
    if at is not None:
        values = [f"{one.size_bytes} bytes" + ("" if _is_zero(one) else ", not only zeros") for one in behind]
        section.add(Finding("behind the image", changes=(Change("padding", *values),)))


def _is_zero(content: Content) -> bool:
    zeros = bytes(CHUNK_BYTES)
    return all(piece == zeros[: len(piece)] for piece in content.chunks())
