"""A whole image: entries go in one after another, the tables follow at the end."""

from __future__ import annotations

import os
import struct
from array import array
from dataclasses import dataclass
from io import FileIO

from shiplap.core.entries import Entry, Kind
from shiplap.rootfs.squashfs.compress import Compressor
from shiplap.rootfs.squashfs.superblock import NOTHING, SUPERBLOCK_BYTES
from shiplap.rootfs.squashfs.write import inodetable
from shiplap.rootfs.squashfs.write.blocks import BlockWriter
from shiplap.rootfs.squashfs.write.contents import ContentWriter
from shiplap.rootfs.squashfs.write.directorytable import DirectoryTable
from shiplap.rootfs.squashfs.write.errors import SquashfsCannotHold, cannot_hold
from shiplap.rootfs.squashfs.write.fragments import FragmentWriter
from shiplap.rootfs.squashfs.write.inodetable import Attributes, InodeRows, InodeTable, encoded_device
from shiplap.rootfs.squashfs.write.metadata import NO_TABLE, MetadataWriter, write_table
from shiplap.rootfs.squashfs.write.names import ROOT, Names
from shiplap.rootfs.squashfs.write.output import ImageOutput
from shiplap.rootfs.squashfs.write.stored import StoredBlocks
from shiplap.rootfs.squashfs.write.tree import number_inodes, write_tree
from shiplap.rootfs.squashfs.write.xattrtable import XattrTable

WRITER_NUMBER = 1
"""A change that makes other bytes of the same entries, compressor and layout gets a new number."""

TARGET_LIMIT_BYTES = 4095
"""Linux can neither make longer symbolic links nor, since 6.9, read them from an image."""

ID_LIMIT = 65535
"""One less than an inode's 16 bits could number: the superblock counts the ids in 16 bits, too, and Linux refuses a count of 0."""

_MODE_MAX = 0o7777
_TIME_MAX = 0xFFFFFFFF
_ID_MAX = 0xFFFFFFFF
_MAJOR_MAX, _MINOR_MAX = 0xFFF, 0xFFFFF

_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_STORED_METADATA = 0x8000
_NO_FRAGMENTS, _DUPLICATES, _EXPORTABLE, _NO_XATTRS, _OPTIONS = 0x10, 0x40, 0x80, 0x200, 0x400
_ALL_STORED = 0x1 | 0x2 | 0x8 | 0x100 | 0x800  # inodes, data, fragments, xattrs, ids

_TYPES = {
    Kind.DIRECTORY: inodetable.DIRECTORY,
    Kind.REGULAR: inodetable.REGULAR,
    Kind.SYMLINK: inodetable.SYMLINK,
    Kind.BLOCK: inodetable.BLOCK,
    Kind.CHARACTER: inodetable.CHARACTER,
    Kind.FIFO: inodetable.FIFO,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What beside the entries and the compressor decides an image's bytes.

    ``epoch``: time of the superblock, and of directories that the stream only implies. ``tails``: the ends of files
    larger than a block go into shared fragment blocks. ``exportable``: add the table that NFS needs.
    """

    block_size_bytes: int = 131072
    epoch: int = 0
    tails: bool = True
    exportable: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What an image holds. ``bytes_used``: without the padding; ``duplicate_bytes``: of contents that were there already."""

    bytes_used: int
    inode_count: int
    fragment_count: int
    duplicate_bytes: int


class SquashfsWriter:
    """Writes one image. A context manager: leaving it ends the threads, whether ``finish`` was reached or not.

    ``file``: empty, unbuffered, for reading and writing; the caller syncs and closes it. ``jobs``: threads that compress, None for one
    for each processor; never changes the bytes.

    Entries come with parents before children, as entry streams do. A directory that is missing is 0755 of 0:0 at the
    epoch; its own entry may still follow. Contents lie in the image in the order of the stream.
    """

    def __init__(self, file: FileIO, name: str, compressor: Compressor, layout: Layout, *, jobs: int | None = None) -> None:
        self._layout = layout
        self._compressor = compressor
        self._deflate = compressor.new()
        self._output = ImageOutput(file, name)
        self._output.write(bytes(SUPERBLOCK_BYTES))
        if compressor.options:
            # Never compressed: it says how the rest is.
            self._output.write(struct.pack("<H", _STORED_METADATA | len(compressor.options)) + compressor.options)
        size = layout.block_size_bytes
        self._blocks = BlockWriter(self._output, compressor, size, jobs or len(os.sched_getaffinity(0)))
        self._fragments = FragmentWriter(self._blocks, size)
        stored = StoredBlocks(self._output, compressor, size)
        self._contents = ContentWriter(self._blocks, self._fragments, stored, size, tails=layout.tails)
        self._xattrs = XattrTable(self._deflate)
        self._ids: dict[int, int] = {}
        self._rows = InodeRows()
        self._names = Names(self._implied_directory)

    def __enter__(self) -> SquashfsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._blocks.close()

    def add(self, entry: Entry) -> None:
        """Take one entry. Raises SquashfsCannotHold, OutsideFailure when the disk is full, and what reading its content raises.

        Of a hard link only path and target count. Parts of a second are dropped.
        """
        if entry.kind is Kind.HARDLINK:
            self._names.add_link(entry.path, entry.link)
            return
        attributes = self._attributes(entry)
        if entry.kind is not Kind.DIRECTORY:
            self._names.add(entry.path, self._rows.add(attributes))
            return
        implied = self._names.take_implied(entry.path)
        if implied is None:
            self._names.add_directory(entry.path, self._rows.add(attributes))
        else:
            self._rows.replace(implied, attributes)

    def finish(self) -> Written:
        """Write the tables and the superblock. Raises SquashfsCannotHold for what only the whole tree shows."""
        self._fragments.flush()
        self._blocks.settle()
        output, rows, deflate = self._output, self._rows, self._deflate
        link_counts = self._names.finish(len(rows))
        numbered = number_inodes(self._names, rows)
        inode_table = output.position
        inode_blocks = MetadataWriter(output.write, deflate)
        inodes = InodeTable(inode_blocks, rows, self._contents, self._layout.block_size_bytes)
        # They come behind the inodes, so they wait in memory, compressed.
        listings = bytearray()
        listing_blocks = MetadataWriter(listings.extend, deflate)
        write_tree(self._names, rows, numbered, link_counts, inodes, DirectoryTable(listing_blocks))
        inode_blocks.finish()
        listing_blocks.finish()
        directory_table = output.position
        output.write(bytes(listings))
        return self._finish(inode_table, directory_table, inodes.references, numbered.numbers)

    def _finish(self, inode_table: int, directory_table: int, references: array[int], numbers: array[int]) -> Written:
        output, deflate, inode_count = self._output, self._deflate, len(self._rows)
        fragments = self._fragments
        # The order is the format's.
        fragment_table = write_table(output, bytes(fragments.records), deflate) if fragments.count else NO_TABLE
        export_table = write_table(output, _export_records(references, numbers), deflate) if self._layout.exportable else NO_TABLE
        id_table = write_table(output, struct.pack(f"<{len(self._ids)}I", *self._ids), deflate)
        xattr_table = self._xattrs.finish(output)
        bytes_used, size = output.position, self._layout.block_size_bytes
        flags = _DUPLICATES | (_ALL_STORED if self._compressor.stores else 0) | (_OPTIONS if self._compressor.options else 0)
        flags |= (0 if fragments.count else _NO_FRAGMENTS) | (_EXPORTABLE if self._layout.exportable else 0)
        flags |= _NO_XATTRS if xattr_table == NO_TABLE else 0
        # fmt: off
        output.finish(_SUPERBLOCK.pack(
            b"hsqs", inode_count, self._layout.epoch, size, fragments.count, self._compressor.number, size.bit_length() - 1, flags,
            len(self._ids), 4, 0, references[ROOT], bytes_used,
            id_table, xattr_table, inode_table, directory_table, fragment_table, export_table,
        ))
        # fmt: on
        return Written(bytes_used, inode_count, fragments.count, self._contents.duplicate_bytes)

    def _implied_directory(self) -> int:
        return self._rows.add(Attributes(inodetable.DIRECTORY, 0o755, self._id(0, b""), self._id(0, b""), self._layout.epoch, NOTHING))

    def _id(self, id_: int, path: bytes) -> int:
        """Index of a user or group in the id table."""
        found = self._ids.get(id_)
        if found is None:
            if not 0 <= id_ <= _ID_MAX:
                raise cannot_hold(path, f"its owner or group {id_} has no 32 bits")
            if len(self._ids) == ID_LIMIT:
                raise SquashfsCannotHold(f"SquashFS cannot hold more than {ID_LIMIT} different owners and groups together")
            self._ids[id_] = found = len(self._ids)
        return found

    def _attributes(self, entry: Entry) -> Attributes:
        """Check the entry and store its content, target and attributes."""
        path, kind = entry.path, entry.kind
        if not 0 <= entry.mtime_epoch <= _TIME_MAX:
            raise cannot_hold(path, f"its time {entry.mtime_epoch} does not fit into 32 bits")
        if not 0 <= entry.mode <= _MODE_MAX:
            raise cannot_hold(path, f"its mode {entry.mode:o} is none")
        size = first = 0
        second, third = NOTHING, 0
        if kind is Kind.REGULAR:
            if entry.content is not None:
                size = entry.content.size_bytes
                first, second, third = self._contents.put(entry.content)
            else:
                first = NOTHING
        elif kind is Kind.SYMLINK:
            size, first = self._target(entry)
        elif kind is Kind.CHARACTER or kind is Kind.BLOCK:
            major, minor = entry.device
            if not (0 <= major <= _MAJOR_MAX and 0 <= minor <= _MINOR_MAX):
                raise cannot_hold(path, f"its device number {major}:{minor} is larger than {_MAJOR_MAX}:{_MINOR_MAX}")
            first = encoded_device(major, minor)
        xattrs = self._xattrs.add(entry.xattrs, path) if entry.xattrs else NOTHING
        uid, gid = self._id(entry.uid, path), self._id(entry.gid, path)
        return Attributes(_TYPES[kind], entry.mode, uid, gid, entry.mtime_epoch, xattrs, size, first, second, third)

    def _target(self, entry: Entry) -> tuple[int, int]:
        if not 0 < len(entry.link) <= TARGET_LIMIT_BYTES or b"\0" in entry.link:
            what = "a NUL byte" if b"\0" in entry.link else f"{len(entry.link)} bytes, 1 to {TARGET_LIMIT_BYTES} are possible"
            raise cannot_hold(entry.path, f"its target has {what}")
        return len(entry.link), self._rows.add_target(entry.link)


def _export_records(references: array[int], numbers: array[int]) -> bytes:
    """The inodes' references in the order of their numbers."""
    ordered = array("Q", bytes(8 * len(numbers)))
    for index, number in enumerate(numbers):
        ordered[number - 1] = references[index]
    return struct.pack(f"<{len(ordered)}Q", *ordered)
