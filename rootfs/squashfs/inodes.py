"""Inodes: fourteen types, seven kinds, each basic or extended."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from shiplap.core.entries import Kind
from shiplap.rootfs.squashfs.file import SquashfsError
from shiplap.rootfs.squashfs.metadata import METADATA_BYTES, Cursor, LookupTable, MetadataArea
from shiplap.rootfs.squashfs.superblock import NOTHING

SOCKET_TYPE = 7
KINDS = {1: Kind.DIRECTORY, 2: Kind.REGULAR, 3: Kind.SYMLINK, 4: Kind.BLOCK, 5: Kind.CHARACTER, 6: Kind.FIFO}
"""Kind of each basic type number, as directory listings use them. 7 is a socket, for which there is no kind."""

# Linux accepts no longer target (PATH_MAX); some writers store more.
_TARGET_LIMIT_BYTES = 65535

_HEADER = struct.Struct("<HHHHII")
_BASIC_DIRECTORY = struct.Struct("<IIHHI")
_EXTENDED_DIRECTORY = struct.Struct("<IIIIHHI")
_BASIC_FILE = struct.Struct("<IIII")
_EXTENDED_FILE = struct.Struct("<QQQIIII")
_SYMLINK = struct.Struct("<II")
_DEVICE = struct.Struct("<II")
_WORD = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a directory's listing lies in the directory area, and where its index lies in the inode area."""

    reference: int
    size_bytes: int
    index_count: int = 0
    index_reference: int = 0


@dataclass(frozen=True, slots=True)
class FileData:
    """Where a regular file's bytes lie.

    ``start``: first data block. ``fragment``: number of the fragment block with the file's tail, or None.
    ``words_reference``: where the ``block_count`` words with the blocks' stored sizes lie in the inode area;
    they are read with the content, because a sparse file can have very many.
    """

    size_bytes: int
    start: int
    block_count: int
    words_reference: int
    fragment: int | None
    fragment_offset: int


@dataclass(frozen=True, slots=True)
class Inode:
    """One inode. ``detail``: Listing, FileData, a symbolic link's target, a device's (major, minor) or None."""

    number: int
    type: int
    mode: int
    uid: int
    gid: int
    mtime_epoch: int
    link_count: int
    xattrs: int | None
    detail: Listing | FileData | bytes | tuple[int, int] | None


_Tail = tuple[int, int | None, Listing | FileData | bytes | tuple[int, int] | None]


class InodeTable:
    """The inodes of an image; nothing is kept but the area's cache of blocks."""

    def __init__(self, area: MetadataArea, ids: LookupTable, inode_count: int, block_size_bytes: int) -> None:
        self.area = area
        self._ids = ids
        self._known_ids: dict[int, int] = {}
        self._inode_count = inode_count
        self._block_size_bytes = block_size_bytes
        self._parsers: dict[int, Callable[[Cursor], _Tail]] = {
            1: _basic_directory,
            2: self._basic_file,
            3: self._symlink,
            4: _device,
            5: _device,
            6: _plain,
            7: _plain,
            8: _extended_directory,
            9: self._extended_file,
            10: self._extended_symlink,
            11: _extended_device,
            12: _extended_device,
            13: _extended_plain,
            14: _extended_plain,
        }

    def read(self, reference: int) -> Inode:
        """The inode at ``reference``; raises SquashfsError."""
        cursor = self.area.cursor(reference)
        type_, mode, uid, gid, mtime, number = _HEADER.unpack(cursor.take(_HEADER.size))
        parser = self._parsers.get(type_)
        if parser is None:
            raise self._error(number, reference, f"has the unknown type {type_}")
        if mode > 0o7777:
            raise self._error(number, reference, f"has the impossible mode {mode:o}")
        if not 0 < number <= self._inode_count:
            raise self._error(number, reference, f"has a number outside 1 to {self._inode_count}")
        links, xattrs, detail = parser(cursor)
        if not links:
            raise self._error(number, reference, "has no link")
        basic = type_ if type_ <= SOCKET_TYPE else type_ - SOCKET_TYPE
        return Inode(number, basic, mode, self._id(uid), self._id(gid), mtime, links, None if xattrs == NOTHING else xattrs, detail)

    def _error(self, number: int, reference: int, what: str) -> SquashfsError:
        return self.area.error(f"inode {number} (at {reference >> 16}+{reference & 0xFFFF}) {what}")

    def _id(self, index: int) -> int:
        found = self._known_ids.get(index)
        if found is None:
            (found,) = _WORD.unpack(self._ids.record(index))
            self._known_ids[index] = found
        return found

    def _basic_file(self, cursor: Cursor) -> _Tail:
        start, fragment, fragment_offset, size = _BASIC_FILE.unpack(cursor.take(_BASIC_FILE.size))
        return 1, None, self._file(cursor, size, start, fragment, fragment_offset)

    def _extended_file(self, cursor: Cursor) -> _Tail:
        start, size, _sparse, links, fragment, fragment_offset, xattrs = _EXTENDED_FILE.unpack(cursor.take(_EXTENDED_FILE.size))
        return links, xattrs, self._file(cursor, size, start, fragment, fragment_offset)

    def _file(self, cursor: Cursor, size: int, start: int, fragment: int, fragment_offset: int) -> FileData:
        blocks, tail = divmod(size, self._block_size_bytes)
        if fragment == NOTHING:
            blocks += tail > 0
        # As many words as the rest of the area could hold at the very most (a block is three bytes or more).
        if blocks * 4 > ((self.area.end - cursor.position) // 3 + 1) * METADATA_BYTES:
            raise self.area.error(f"a file claims {size} bytes, but the table has no room for its {blocks} blocks")
        return FileData(size, start, blocks, cursor.reference, None if fragment == NOTHING else fragment, fragment_offset)

    def _symlink(self, cursor: Cursor) -> _Tail:
        links, size = _SYMLINK.unpack(cursor.take(_SYMLINK.size))
        if size > _TARGET_LIMIT_BYTES:
            raise self.area.error(f"a symbolic link claims a target of {size} bytes")
        target = cursor.take(size)
        if b"\0" in target:
            raise self.area.error(f"a symbolic link's target holds a NUL byte: {target[:64]!r}")
        return links, None, target

    def _extended_symlink(self, cursor: Cursor) -> _Tail:
        links, _, target = self._symlink(cursor)
        return links, _WORD.unpack(cursor.take(4))[0], target


def _basic_directory(cursor: Cursor) -> _Tail:
    block, links, size, offset, _parent = _BASIC_DIRECTORY.unpack(cursor.take(_BASIC_DIRECTORY.size))
    return links, None, Listing(block << 16 | offset, _listing_bytes(size))


def _extended_directory(cursor: Cursor) -> _Tail:
    links, size, block, _parent, index_count, offset, xattrs = _EXTENDED_DIRECTORY.unpack(cursor.take(_EXTENDED_DIRECTORY.size))
    return links, xattrs, Listing(block << 16 | offset, _listing_bytes(size), index_count, cursor.reference)


def _listing_bytes(size: int) -> int:
    # The stored size counts three bytes more, for "." and "..", which are not there.
    return max(0, size - 3)


def _device(cursor: Cursor) -> _Tail:
    links, device = _DEVICE.unpack(cursor.take(_DEVICE.size))
    # Linux's "new" encoding: 12 bits of major number between 8 and 12 bits of minor number.
    return links, None, (device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00)


def _extended_device(cursor: Cursor) -> _Tail:
    links, _, device = _device(cursor)
    return links, _WORD.unpack(cursor.take(4))[0], device


def _plain(cursor: Cursor) -> _Tail:
    return _WORD.unpack(cursor.take(4))[0], None, None


def _extended_plain(cursor: Cursor) -> _Tail:
    links, xattrs = _DEVICE.unpack(cursor.take(_DEVICE.size))
    return links, xattrs, None
