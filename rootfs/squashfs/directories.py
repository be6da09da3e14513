"""Directory listings: groups of names below headers, sorted, and an optional index for large directories."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from shiplap.core.entries import printable
from shiplap.rootfs.squashfs.file import SquashfsError
from shiplap.rootfs.squashfs.inodes import Listing
from shiplap.rootfs.squashfs.metadata import METADATA_BYTES, MetadataArea

NAME_LIMIT_BYTES = 256
_HEADER = struct.Struct("<III")
_NAME = struct.Struct("<HhHH")
_INDEX = struct.Struct("<III")
_GROUP_LIMIT = 256


class Name(NamedTuple):
    """One line of a listing. ``type``: basic type number; ``reference``: the inode's, in the inode area."""

    name: bytes
    type: int
    reference: int
    number: int


class DirectoryTable:
    """The listings of an image."""

    def __init__(self, area: MetadataArea, inodes: MetadataArea) -> None:
        self.area = area
        self._inodes = inodes

    def names(self, listing: Listing) -> Iterator[Name]:
        """The names of a directory, in their order, which is checked; raises SquashfsError.

        The index is checked too: the kernel looks names up through it, so an index that points elsewhere
        would show the device another file than the listing shows us.
        """
        if not listing.size_bytes:
            if listing.index_count:
                raise self.area.error("an empty directory has an index")
            return
        bytes_ = _ListingBytes(self.area, listing)
        index = self._index(listing)
        expected = next(index, None)
        previous = b""
        while bytes_.position < bytes_.size:
            position = bytes_.position
            count, block, base = _HEADER.unpack(bytes_.take(_HEADER.size))
            if count >= _GROUP_LIMIT:
                raise self.area.error(f"a group of {count + 1} names; {_GROUP_LIMIT} are the limit")
            block <<= 16
            first = previous
            for line in range(count + 1):
                offset, difference, type_, length = _NAME.unpack(bytes_.take(_NAME.size))
                if length >= NAME_LIMIT_BYTES:
                    raise self.area.error(f"a name of {length + 1} bytes; {NAME_LIMIT_BYTES} are the limit")
                name = bytes_.take(length + 1)
                if name <= previous:
                    raise self._disorder(name, previous)
                if b"/" in name or b"\0" in name or name in (b".", b".."):
                    raise self.area.error(f"the name '{printable(name)}' cannot be")
                previous = name
                if not line:
                    first = name
                yield Name(name, type_, block | offset, (base + difference) & 0xFFFFFFFF)
            if expected is not None and expected[0] <= position:
                self._check_index(expected, position, first, bytes_)
                expected = next(index, None)
        if expected is not None:
            raise self.area.error(f"the index of a directory points behind its listing, to byte {expected[0]}")

    def _disorder(self, name: bytes, previous: bytes) -> SquashfsError:
        if name == previous:
            return self.area.error(f"the name '{printable(name)}' occurs twice in one directory")
        return self.area.error(f"names out of order: '{printable(name)}' follows '{printable(previous)}'")

    def _index(self, listing: Listing) -> Iterator[tuple[int, int, bytes]]:
        """The index: byte of the listing, block of the directory area, first name there."""
        if not listing.index_count:
            return
        cursor = self._inodes.cursor(listing.index_reference)
        for _ in range(listing.index_count):
            at, block, length = _INDEX.unpack(cursor.take(_INDEX.size))
            if length >= NAME_LIMIT_BYTES:
                raise self.area.error(f"the index of a directory holds a name of {length + 1} bytes")
            yield at, block, cursor.take(length + 1)

    def _check_index(self, entry: tuple[int, int, bytes], position: int, name: bytes, bytes_: _ListingBytes) -> None:
        at, block, indexed = entry
        if (at, block, indexed) != (position, bytes_.block_of(position), name):
            raise self.area.error(
                f"the index of a directory says '{printable(indexed)}' at byte {at} in block {block}, the listing has '{printable(name)}'"
                f" at byte {position} in block {bytes_.block_of(position)}"
            )


class _ListingBytes:
    """The bytes of one listing, a metadata block at a time."""

    __slots__ = ("_area", "_at", "_blocks", "_buffer", "_cursor", "_start", "_unread", "position", "size")

    def __init__(self, area: MetadataArea, listing: Listing) -> None:
        self._area = area
        self._cursor = area.cursor(listing.reference)
        self._buffer = b""
        self._at = 0
        self._unread = self.size = listing.size_bytes
        self._start = listing.reference & 0xFFFF
        # Only an index asks for the blocks that the listing crosses.
        self._blocks = [listing.reference >> 16] if listing.index_count else None
        self.position = 0

    def take(self, size_bytes: int) -> bytes:
        if self.position + size_bytes > self.size:
            raise self._area.error(f"a listing of {self.size} bytes ends within a name")
        while len(self._buffer) - self._at < size_bytes:
            self._refill()
        start = self._at
        self._at = end = start + size_bytes
        self.position += size_bytes
        return self._buffer[start:end]

    def _refill(self) -> None:
        block, end = self._cursor.position, self._cursor.offset
        piece = self._cursor.piece(self._unread)
        self._unread -= len(piece)
        self._buffer = self._buffer[self._at :] + piece if self._at < len(self._buffer) else piece
        self._at = 0
        if self._blocks is not None and self._cursor.position != block:
            if end != METADATA_BYTES:
                raise self._area.error(f"a directory with an index crosses the short block at byte {block}")
            self._blocks.append(self._cursor.position - self._area.start)

    def block_of(self, position: int) -> int:
        """The block in which the kernel looks for byte ``position`` of this listing."""
        block = (self._start + position) // METADATA_BYTES
        return self._blocks[block] if self._blocks is not None and block < len(self._blocks) else -1
