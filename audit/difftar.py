"""Two tars: their trees, and why tars of equal entries are not equal bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

from shiplap.audit.differences import Change, Finding, Section, clipped
from shiplap.audit.difftrees import compare_nodes, shown, shown_path
from shiplap.audit.trees import TarTree, path_of
from shiplap.core.compression import DETECT_BYTES, detect, uncompressed
from shiplap.core.entries import FileSlice, PathContent, printable
from shiplap.core.layer.spool import cannot_spool, spool_file
from shiplap.core.limits import Limits
from shiplap.core.tar.reader import BLOCK_BYTES, TarHeader, parse_pax, read_headers
from shiplap.core.tar.window import Window

# POSIX ustar; what read_headers has taken into account elsewhere is named here as what it is in the block.
_FIELDS = (
    ("name as written", 0, 100),
    ("mode field", 100, 108),
    ("uid field", 108, 116),
    ("gid field", 116, 124),
    ("size field", 124, 136),
    ("mtime field", 136, 148),
    ("type", 156, 157),
    ("link name as written", 157, 257),
    ("format (magic and version)", 257, 265),
    ("user name", 265, 297),
    ("group name", 297, 329),
    ("device fields", 329, 345),
    ("prefix or GNU times", 345, 512),
)
_META = {b"x": "pax header", b"g": "global pax header", b"L": "GNU long name", b"K": "GNU long link name"}


def compare_tars(a: TarTree, b: TarTree, section: Section) -> None:
    """Entries first, in ``section`` itself; what differs in the records only, in a section below."""
    compare_nodes(a.nodes(), b.nodes(), section)
    if section.total:
        return  # the records' own form follows from the entries, for the most part
    section.remarks.append("all entries are equal in every field; only the tar's own form differs")
    explain_records(a, b, section.section("the records", "tar records"))


def explain_records(a: TarTree, b: TarTree, section: Section) -> None:
    """Order, headers as written, repeated records and what lies behind the last one."""
    for side, tree in (("A", a), ("B", b)):
        if tree.repeated:
            section.remarks.append(f"{side} has {tree.repeated} records that a later one of the same path replaces")
    ends = [0, 0]
    walks = zip_longest(*(read_headers(Window(tree.tar), what=tree.name) for tree in (a, b)))
    for number, (one, other) in enumerate(walks):
        if one is None or other is None or path_of(one) != path_of(other):
            names = ["(the end)" if header is None else shown_path(path_of(header)) for header in (one, other)]
            section.add(Finding(f"record {number}", changes=(Change("order of the records", *names),)))
            return
        ends = [header.data_offset + header.data_bytes + -header.data_bytes % BLOCK_BYTES for header in (one, other)]
        changes = tuple(_header_changes(a.tar, one, b.tar, other))
        if changes:
            section.add(Finding(shown_path(path_of(one)), changes=changes))
    tails = [tree.tar.size_bytes - end for tree, end in zip((a, b), ends, strict=True)]
    if tails[0] != tails[1]:
        section.add(Finding("behind the last record", changes=(Change("bytes", *tails),)))


def _header_changes(a: FileSlice, one: TarHeader, b: FileSlice, other: TarHeader) -> Iterator[Change]:
    raw = [_raw(tar, header) for tar, header in ((a, one), (b, other))]
    if raw[0] == raw[1]:
        return
    metas = [dict(_metas(blocks[:-BLOCK_BYTES])) for blocks in raw]
    for name in sorted(metas[0].keys() | metas[1].keys()):
        texts = [meta.get(name) for meta in metas]
        if texts[0] != texts[1]:
            yield Change(name, *(None if text is None else clipped(printable(text[:5000]), 200) for text in texts))
    last = [blocks[-BLOCK_BYTES:] for blocks in raw]
    for name, start, end in _FIELDS:
        values = [block[start:end] for block in last]
        if values[0] != values[1]:
            yield Change(name, shown(values[0].rstrip(b"\0")), shown(values[1].rstrip(b"\0")))


def _raw(tar: FileSlice, header: TarHeader) -> bytes:
    return os.pread(tar.descriptor, header.data_offset - header.start, tar.offset + header.start)


def _metas(blocks: bytes) -> Iterator[tuple[str, bytes]]:
    """What the meta headers before a record say, each pax record by its key."""
    at = 0
    while at + BLOCK_BYTES <= len(blocks):
        block = blocks[at : at + BLOCK_BYTES]
        size = int(block[124:136].strip(b" \0") or b"0", 8) if not block[124] & 0x80 else 0
        data = blocks[at + BLOCK_BYTES : at + BLOCK_BYTES + size]
        name = _META.get(block[156:157], "meta header")
        if block[156:157] in b"xg":
            yield f"{name}'s own name", block[:100].rstrip(b"\0")
            for key, value in parse_pax(data).items():
                yield f"pax {printable(key[:100])}", value
        else:
            yield name, data
        at += BLOCK_BYTES + -(-size // BLOCK_BYTES) * BLOCK_BYTES


@contextmanager
def open_tar_tree(path: Path, limits: Limits, *, name: str | None = None) -> Iterator[tuple[TarTree, str]]:
    """The tree of the tar at ``path``, compressed or not, and its compression (``none``, ``gzip``…).

    Raises TarCorrupt and TreeUnreadable, what decompression raises, OutsideFailure when TMPDIR has no room.
    """
    name = name or path.name
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        compression = detect(file.read(DETECT_BYTES))
        if compression == "none":
            yield TarTree(name, FileSlice(file.fileno(), 0, size_bytes, name), entry_limit=2 * limits.entries), compression
            return
    with spool_file(name) as spool:
        unpacked_bytes = 0
        try:
            for piece in uncompressed(PathContent(path, size_bytes).chunks(), location=name, limit_bytes=limits.layer_bytes):
                spool.write(piece)
                unpacked_bytes += len(piece)
            spool.flush()
        except OSError as error:
            raise cannot_spool(name, error) from error
        yield TarTree(name, FileSlice(spool.fileno(), 0, unpacked_bytes, name), entry_limit=2 * limits.entries), compression
