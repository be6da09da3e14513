"""Inodes: kept as small records while the stream runs, packed into the image's inode table at its end."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from shiplap.rootfs.squashfs.superblock import NOTHING
from shiplap.rootfs.squashfs.write.contents import ContentWriter
from shiplap.rootfs.squashfs.write.directorytable import Listing
from shiplap.rootfs.squashfs.write.metadata import MetadataWriter

DIRECTORY, REGULAR, SYMLINK, BLOCK, CHARACTER, FIFO = 1, 2, 3, 4, 5, 6
"""Basic type numbers; seven more is the extended one."""

_EXTENDED = 7
_HOLE = 0
_WORDS_AT_ONCE = 2048

_HEADER = struct.Struct("<HHHHII")
_BASIC_DIRECTORY = struct.Struct("<IIHHI")
_EXTENDED_DIRECTORY = struct.Struct("<IIIIHHI")
_BASIC_FILE = struct.Struct("<IIII")
_EXTENDED_FILE = struct.Struct("<QQQIIII")
_TWO_WORDS = struct.Struct("<II")
_WORD = struct.Struct("<I")


class Attributes(NamedTuple):
    """One inode while the stream runs.

    ``uid`` and ``gid`` index the id table, ``xattrs`` the xattr table (or NOTHING). What ``size``, ``first``,
    ``second`` and ``third`` mean depends on the type: a file's size, run, fragment and offset; the size of a link's
    target and where it lies in ``InodeRows.targets``; a device's encoded number.
    """

    type: int
    mode: int
    uid: int
    gid: int
    mtime_epoch: int
    xattrs: int
    size: int = 0
    first: int = 0
    second: int = 0
    third: int = 0


class InodeRows:
    """All inodes of the image in 35 bytes each."""

    _ROW = struct.Struct("<BHHHIIQIII")

    def __init__(self) -> None:
        self._rows = bytearray()
        self.targets = bytearray()

    def __len__(self) -> int:
        return len(self._rows) // self._ROW.size

    def add(self, attributes: Attributes) -> int:
        """Keep one inode; its index."""
        self._rows += self._ROW.pack(*attributes)
        return len(self._rows) // self._ROW.size - 1

    def add_target(self, target: bytes) -> int:
        """Keep a symbolic link's target; where it lies in ``targets``."""
        at = len(self.targets)
        if at + len(target) > NOTHING:
            raise OverflowError("the targets of symbolic links have more than 4 GiB together")
        self.targets += target
        return at

    def replace(self, index: int, attributes: Attributes) -> None:
        self._ROW.pack_into(self._rows, index * self._ROW.size, *attributes)

    def __getitem__(self, index: int) -> Attributes:
        return Attributes(*self._ROW.unpack_from(self._rows, index * self._ROW.size))

    def type(self, index: int) -> int:
        return self._rows[index * self._ROW.size]


def encoded_device(major: int, minor: int) -> int:
    """Linux's "new" encoding: 12 bits of major number between 8 and 12 bits of minor number."""
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


class InodeTable:
    """Packs inodes, each basic where that is enough. ``references``: of each inode written, by index."""

    def __init__(self, metadata: MetadataWriter, rows: InodeRows, contents: ContentWriter, block_size_bytes: int) -> None:
        self._metadata = metadata
        self._rows = rows
        self._contents = contents
        self._block_size_bytes = block_size_bytes
        self.references = array("Q", bytes(8 * len(rows)))

    def write(self, index: int, number: int, link_count: int) -> None:
        """Write an inode that is no directory."""
        inode = self._rows[index]
        self.references[index] = self._metadata.reference
        if inode.type == REGULAR:
            for piece in self._file(inode, number, link_count):
                self._metadata.write(piece)
        elif inode.type == SYMLINK:
            target = bytes(self._rows.targets[inode.first : inode.first + inode.size])
            self._plain(inode, number, _TWO_WORDS.pack(link_count, len(target)) + target)
        elif inode.type == FIFO:
            self._plain(inode, number, _WORD.pack(link_count))
        else:
            self._plain(inode, number, _TWO_WORDS.pack(link_count, inode.first))

    def write_directory(self, index: int, number: int, listing: Listing, parent: int) -> None:
        """Write a directory; ``parent``: the number of the inode above it."""
        inode = self._rows[index]
        self.references[index] = self._metadata.reference
        # Three bytes more, for "." and "..", which are not there.
        size = listing.size_bytes + 3
        if inode.xattrs == NOTHING and not listing.index_entries and size <= 0xFFFF:
            tail = _BASIC_DIRECTORY.pack(listing.block, listing.link_count, size, listing.offset, parent)
            self._metadata.write(_header(inode, number) + tail)
            return
        tail = _EXTENDED_DIRECTORY.pack(
            listing.link_count, size, listing.block, parent, listing.index_entries, listing.offset, inode.xattrs
        )
        self._metadata.write(_header(inode, number, extended=True) + tail + listing.index_bytes)

    def _plain(self, inode: Attributes, number: int, body: bytes) -> None:
        """An inode whose extended form has the number of its xattrs behind the basic one."""
        if inode.xattrs == NOTHING:
            self._metadata.write(_header(inode, number) + body)
        else:
            self._metadata.write(_header(inode, number, extended=True) + body + _WORD.pack(inode.xattrs))

    def _file(self, inode: Attributes, number: int, link_count: int) -> Iterator[bytes]:
        size, run, fragment, offset = inode.size, inode.first, inode.second, inode.third
        start, words = 0, array("I")
        if run != NOTHING:
            # A tail in a fragment has no word.
            whole = size if fragment == NOTHING else size - size % self._block_size_bytes
            start, words = self._contents.run(run, -(-whole // self._block_size_bytes))
        hole_bytes = words.count(_HOLE) * self._block_size_bytes
        if hole_bytes and words[-1] == _HOLE and fragment == NOTHING:
            hole_bytes -= -size % self._block_size_bytes
        if link_count == 1 and inode.xattrs == NOTHING and not hole_bytes and start <= NOTHING and size <= NOTHING:
            yield _header(inode, number) + _BASIC_FILE.pack(start, fragment, offset, size)
        else:
            # Linux counts a file's 512-byte blocks without its holes; like mksquashfs we never let it come to none at all.
            sparse = min(hole_bytes, size - 1) if hole_bytes else 0
            body = _EXTENDED_FILE.pack(start, size, sparse, link_count, fragment, offset, inode.xattrs)
            yield _header(inode, number, extended=True) + body
        for first in range(0, len(words), _WORDS_AT_ONCE):
            few = words[first : first + _WORDS_AT_ONCE]
            yield struct.pack(f"<{len(few)}I", *few)


def _header(inode: Attributes, number: int, *, extended: bool = False) -> bytes:
    type_ = inode.type + _EXTENDED if extended else inode.type
    return _HEADER.pack(type_, inode.mode, inode.uid, inode.gid, inode.mtime_epoch, number)
