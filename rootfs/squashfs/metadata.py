"""Metadata blocks (at most 8 KiB each, compressed one by one) and the tables that are stored in them."""

from __future__ import annotations

import struct

from shiplap.rootfs.squashfs.decompress import BadBlock, Inflate
from shiplap.rootfs.squashfs.file import ImageFile, SquashfsError

METADATA_BYTES = 8192
_STORED = 0x8000
_LOCATION = struct.Struct("<Q")
_Block = tuple[bytes, int]


class MetadataArea:
    """The metadata blocks from byte ``start`` to byte ``end`` of the image, with a small cache of blocks.

    A reference into an area is ``block << 16 | offset``: the block's first byte relative to ``start``,
    and an offset into its decompressed content.
    """

    def __init__(self, file: ImageFile, inflate: Inflate, start: int, end: int, name: str, cached_blocks: int = 128) -> None:
        self.file = file
        self.start = start
        self.end = end
        self.name = name
        self._inflate = inflate
        self._cache: dict[int, _Block] = {}
        self._cached_blocks = cached_blocks

    def error(self, what: str) -> SquashfsError:
        return self.file.error(f"{self.name}: {what}")

    def block(self, position: int) -> _Block:
        """Content of the block at byte ``position`` of the image, and the position of the next block."""
        cached = self._cache.get(position)
        if cached is not None:
            return cached
        if not self.start <= position < self.end - 2:
            raise self.error(f"a block at byte {position} lies outside the bytes {self.start} to {self.end}")
        raw = self.file.read(position, min(METADATA_BYTES + 2, self.end - position), self.name)
        header = raw[0] | raw[1] << 8
        size = header & ~_STORED
        if not 0 < size <= len(raw) - 2:
            raise self.error(f"the block at byte {position} claims {size} bytes")
        content = raw[2 : 2 + size]
        if not header & _STORED:
            try:
                content = self._inflate(content, METADATA_BYTES)
            except BadBlock as error:
                raise self.error(f"the block at byte {position} is damaged: {error}") from error
            if not content:
                raise self.error(f"the block at byte {position} is empty")
        while len(self._cache) >= self._cached_blocks:
            self._cache.pop(next(iter(self._cache)), None)
        self._cache[position] = found = (content, position + 2 + size)
        return found

    def cursor(self, reference: int) -> Cursor:
        """A cursor at ``reference``; raises SquashfsError when it points outside."""
        return Cursor(self, self.start + (reference >> 16), reference & 0xFFFF)


class Cursor:
    """A reading position in an area."""

    __slots__ = ("_area", "_content", "_next", "offset", "position")

    def __init__(self, area: MetadataArea, position: int, offset: int) -> None:
        self._area = area
        self.position = position
        self._content, self._next = area.block(position)
        self.offset = offset
        if offset >= len(self._content) and offset != METADATA_BYTES:
            raise area.error(f"offset {offset} lies outside the block at byte {position}")

    def piece(self, limit_bytes: int) -> bytes:
        """At least one and at most ``limit_bytes`` bytes, all of one block; moves behind them."""
        if self.offset >= len(self._content):
            self.position = self._next
            self._content, self._next = self._area.block(self.position)
            self.offset = 0
        start, self.offset = self.offset, min(self.offset + limit_bytes, len(self._content))
        return self._content[start : self.offset]

    def take(self, size_bytes: int) -> bytes:
        """Exactly ``size_bytes`` bytes; the caller has bounded the number."""
        end = self.offset + size_bytes
        if end <= len(self._content):
            data = self._content[self.offset : end]
            self.offset = end
            return data
        pieces = []
        while size_bytes:
            pieces.append(self.piece(size_bytes))
            size_bytes -= len(pieces[-1])
        return b"".join(pieces)

    @property
    def reference(self) -> int:
        """The reference of this position."""
        return (self.position - self._area.start) << 16 | self.offset


class LookupTable:
    """A table of ``count`` records of ``record_bytes`` each, in metadata blocks that a list of positions at byte ``start`` names.

    Nothing is loaded ahead, so that a table that lies about its size costs nothing.
    """

    def __init__(self, area: MetadataArea, start: int, count: int, record_bytes: int) -> None:
        self._area = area
        self._start = start
        self._record_bytes = record_bytes
        self._in_block = METADATA_BYTES // record_bytes
        self.count = count
        blocks = -(-count // self._in_block)
        if start + blocks * _LOCATION.size > area.file.size_bytes:
            raise area.error(f"its {count} records do not fit into the image behind byte {start}")

    def record(self, index: int) -> bytes:
        """Record ``index``; raises SquashfsError when there is none."""
        if index >= self.count:
            raise self._area.error(f"record {index} is asked for, there are {self.count}")
        block, within = divmod(index, self._in_block)
        (position,) = _LOCATION.unpack(self._area.file.read(self._start + block * _LOCATION.size, _LOCATION.size, self._area.name))
        content, _ = self._area.block(position)
        record = content[within * self._record_bytes : (within + 1) * self._record_bytes]
        if len(record) != self._record_bytes:
            raise self._area.error(f"the block at byte {position} is too short for record {index}")
        return record
