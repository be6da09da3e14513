"""Directory listings on their way into the image: groups of names below headers, and an index for large ones."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from shiplap.rootfs.squashfs.metadata import METADATA_BYTES
from shiplap.rootfs.squashfs.write.metadata import MetadataWriter

_HEADER = struct.Struct("<III")
_NAME = struct.Struct("<HhHH")
_INDEX = struct.Struct("<III")
_GROUP_LIMIT = 256
_INDEX_LIMIT = 0xFFFF


class Name(NamedTuple):
    """One line of a listing. ``type``: basic type number; ``reference``: the inode's."""

    name: bytes
    type: int
    reference: int
    number: int


class Listing(NamedTuple):
    """Where a listing lies, and what its directory's inode says. ``index_bytes``: packed, of ``index_entries`` entries."""

    block: int
    offset: int
    size_bytes: int
    link_count: int
    index_bytes: bytes
    index_entries: int


class DirectoryTable:
    """Writes listings one after another."""

    def __init__(self, metadata: MetadataWriter) -> None:
        self._metadata = metadata

    def write(self, names: Iterable[Name], link_count: int) -> Listing:
        """Write one listing, its names sorted by their bytes.

        Besides where the format wants it (256 names, another inode block) a new group begins where the names have
        reached the next metadata block. So every block has a header early on for the index to point to, and Linux
        finds a name by reading hardly more than one block. Inodes are numbered as they lie, so that the numbers of
        those in one block never differ by more than the format's 16 bits.
        """
        metadata = self._metadata
        start = metadata.reference
        parts = _Parts(metadata)
        for name, type_, reference, number in names:
            block = reference >> 16
            if parts.count and (
                parts.count == _GROUP_LIMIT
                or block != parts.inode_block
                or len(metadata.pending) + _HEADER.size + len(parts.lines) >= METADATA_BYTES
            ):
                parts.flush()
            if not parts.count:
                parts.first, parts.inode_block, parts.base = name, block, number
            parts.count += 1
            parts.lines += _NAME.pack(reference & 0xFFFF, number - parts.base, type_, len(name) - 1) + name
        if not parts.count:
            return Listing(0, 0, 0, link_count, b"", 0)
        parts.flush()
        index = parts.index if parts.size_bytes > METADATA_BYTES else []
        # An index may leave blocks out; Linux then reads from the last one that it names.
        index = index[:: len(index) // _INDEX_LIMIT + 1]
        return Listing(start >> 16, start & 0xFFFF, parts.size_bytes, link_count, b"".join(index), len(index))


class _Parts:
    """What a listing consists of so far: the group under way, the index, the size of the groups before."""

    __slots__ = ("_block", "_metadata", "base", "count", "first", "index", "inode_block", "lines", "size_bytes")

    def __init__(self, metadata: MetadataWriter) -> None:
        self._metadata = metadata
        self._block = metadata.block
        self.lines = bytearray()
        self.count = self.base = self.inode_block = 0
        self.first = b""
        self.index: list[bytes] = []
        self.size_bytes = 0

    def flush(self) -> None:
        """Write the group under way; the first group that begins in a further block gets an entry of the index."""
        block = self._metadata.block
        if block != self._block:
            self._block = block
            self.index.append(_INDEX.pack(self.size_bytes, block, len(self.first) - 1) + self.first)
        self._metadata.write(_HEADER.pack(self.count - 1, self.inode_block, self.base) + self.lines)
        self.size_bytes += _HEADER.size + len(self.lines)
        self.lines.clear()
        self.count = 0
