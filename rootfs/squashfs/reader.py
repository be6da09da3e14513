"""The tree of an image: walked, or looked up by path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from shiplap.core.entries import Entry, Kind, printable
from shiplap.core.limits import PastLimit
from shiplap.rootfs.squashfs.content import DataBlocks, SquashfsContent
from shiplap.rootfs.squashfs.decompress import inflater
from shiplap.rootfs.squashfs.directories import DirectoryTable, Name
from shiplap.rootfs.squashfs.file import ImageFile, SquashfsError, open_image_file
from shiplap.rootfs.squashfs.inodes import KINDS, SOCKET_TYPE, FileData, Inode, InodeTable, Listing
from shiplap.rootfs.squashfs.metadata import LookupTable, MetadataArea
from shiplap.rootfs.squashfs.superblock import Superblock, read_superblock
from shiplap.rootfs.squashfs.xattrs import XattrTable

ENTRY_LIMIT = 4_000_000
"""Default bound on the entries of one walk, and on the inodes of an image."""

PATH_LIMIT_BYTES = 16384
"""Longest path that is walked: four times Linux's PATH_MAX."""

# Paths of hard-linked inodes are remembered until their last name has passed.
_REMEMBERED_LIMIT_BYTES = 256 << 20


class SquashfsTooLarge(SquashfsError, PastLimit):
    """More entries than the limit."""


class SquashfsReader:
    """A SquashFS 4.0 image, read without mounting it.

    Everything is read when it is asked for; an image that contradicts itself raises SquashfsError at the
    place where that shows. Memory is bounded by a few caches of blocks, whatever the image claims; time by
    ``entry_limit`` and by the sizes of the files that the caller reads.
    """

    def __init__(self, file: ImageFile, *, entry_limit: int = ENTRY_LIMIT) -> None:
        self.superblock: Superblock = read_superblock(file)
        block = self.superblock
        # Nothing behind the image is part of it: padding, a hash tree, the next partition.
        self.file = self._file = file = ImageFile(file.descriptor, file.name, file.start_bytes, block.bytes_used)
        self._entry_limit = entry_limit
        if block.inode_count > entry_limit:
            raise self._too_many(block.inode_count)
        inflate = inflater(block.compressor)

        def table(name: str, start: int, count: int, record_bytes: int) -> LookupTable:
            return LookupTable(MetadataArea(file, inflate, 0, start, name, cached_blocks=8), start, count, record_bytes)

        inodes = MetadataArea(file, inflate, block.inode_table, block.directory_table, "inode table")
        self._inodes = InodeTable(inodes, table("id table", block.id_table, block.id_count, 4), block.inode_count, block.block_size_bytes)
        listings = MetadataArea(file, inflate, block.directory_table, block.bytes_used, "directory table")
        self._directories = DirectoryTable(listings, inodes)
        self._xattrs = None if block.xattr_table is None else XattrTable(file, inflate, block.xattr_table)
        fragments = None
        if block.fragment_table is not None:
            fragments = table("fragment table", block.fragment_table, block.fragment_count, 16)
        self._blocks = DataBlocks(file, inflate, block.block_size_bytes, fragments, inodes)

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, offset_bytes: int = 0, entry_limit: int = ENTRY_LIMIT) -> Iterator[SquashfsReader]:
        """Open the image at ``path``, beginning at ``offset_bytes`` of the file or block device.

        Raises SquashfsError when it is none, ProgramMissing when its compressor's library is not installed.
        """
        with open_image_file(path, offset_bytes=offset_bytes) as file:
            yield cls(file, entry_limit=entry_limit)

    def work_ahead(self, pool: Executor, blocks: int) -> None:
        """From now on let ``pool`` decompress up to ``blocks`` blocks of contents before they are asked for."""
        self._blocks.work_ahead(pool, blocks)

    def entries(self, below: bytes = b"") -> Iterator[Entry]:
        """Walk the tree at ``below``, itself first: parents before children, children sorted by their bytes.

        A second name of an inode is a HARDLINK to the path of its first name in this walk; it repeats
        the inode's owner, mode and time. Raises SquashfsError, also when ``below`` does not exist.
        """
        for path, inode, first in self._walk(below):
            yield self._entry(path, inode) if first is None else _hard_link(path, inode, first)

    def nodes(self, below: bytes = b"", *, on_socket: Callable[[bytes], object] | None = None) -> Iterator[tuple[Entry, bytes]]:
        """Like ``entries``, but every name of an inode comes as ``find`` gives it, with the inode's first name in this walk.

        ``on_socket``: told the paths of sockets, which are left out then; without it they raise, as everywhere.
        """
        for path, inode, first in self._walk(below):
            if inode.type == SOCKET_TYPE and on_socket is not None:
                on_socket(path)
            else:
                yield self._entry(path, inode), path if first is None else first

    def _walk(self, below: bytes) -> Iterator[tuple[bytes, Inode, bytes | None]]:
        """Path, inode and, for a further name of it, the first one."""
        inode = self._locate(below)
        if inode is None:
            raise self._file.error(f"has no entry '{printable(below)}'")
        yield below, inode, None
        if not isinstance(inode.detail, Listing):
            return
        links = _Links(self._file, self.superblock.inode_count)
        links.enter(inode, below)
        count = 1
        stack = [(below + b"/" if below else b"", self._directories.names(inode.detail))]
        while stack:
            prefix, names = stack[-1]
            for name in names:
                path = prefix + name.name
                count += 1
                if count > self._entry_limit:
                    raise self._too_many(count)
                if len(path) > PATH_LIMIT_BYTES:
                    raise self._file.error(f"a path is longer than {PATH_LIMIT_BYTES} bytes: {printable(path[:64])}…")
                inode = self._inode(name, path)
                first = links.enter(inode, path)
                yield path, inode, first
                if first is None and isinstance(inode.detail, Listing):
                    stack.append((path + b"/", self._directories.names(inode.detail)))
                    break
            else:
                stack.pop()

    def find(self, path: bytes) -> Entry | None:
        """The entry at ``path`` (as Entry.path writes it), or None. Follows no symbolic link.

        Every name of a hard-linked inode comes back with the inode's own kind and content.
        """
        inode = self._locate(path)
        return None if inode is None else self._entry(path, inode)

    def children(self, path: bytes) -> Iterator[Entry]:
        """The entries directly below the directory ``path``, sorted; each as ``find`` gives it.

        Raises SquashfsError when there is no such directory.
        """
        inode = self._locate(path)
        if inode is None or not isinstance(inode.detail, Listing):
            raise self._file.error(f"has no directory '{printable(path)}'")
        prefix = path + b"/" if path else b""
        for name in self._directories.names(inode.detail):
            child = prefix + name.name
            yield self._entry(child, self._inode(name, child))

    def read(self, path: bytes, limit_bytes: int) -> bytes:
        """The whole content of the regular file ``path``; raises SquashfsError when it is none or larger than the limit."""
        entry = self.find(path)
        if entry is None or entry.content is None:
            raise self._file.error(f"has no regular file '{printable(path)}'")
        if entry.content.size_bytes > limit_bytes:
            raise self._file.error(f"{printable(path)} has {entry.content.size_bytes} bytes, more than the {limit_bytes} allowed")
        return b"".join(entry.content.chunks())

    def stored_fragment_bytes(self, index: int) -> int:
        """What fragment block ``index`` takes in the image, compressed; raises SquashfsError when there is none."""
        return self._blocks.stored_fragment_bytes(index)

    def identity(self, path: bytes) -> int:
        """The inode number of ``path``: equal for all names of one inode. Raises SquashfsError when there is no such entry."""
        inode = self._locate(path)
        if inode is None:
            raise self._file.error(f"has no entry '{printable(path)}'")
        return inode.number

    def _too_many(self, count: int) -> SquashfsError:
        return SquashfsTooLarge(
            f"{self._file.name}: has {count} entries or more; {self._entry_limit} are the limit",
            hint="give --limit entries=… if you trust the image",
        )

    def _root(self) -> Inode:
        inode = self._inodes.read(self.superblock.root_inode)
        if not isinstance(inode.detail, Listing):
            raise self._file.error("the root of the image is no directory")
        return inode

    def _locate(self, path: bytes) -> Inode | None:
        inode = self._root()
        if not path:
            return inode
        done = b""
        for component in path.split(b"/"):
            if not isinstance(inode.detail, Listing):
                return None
            done = done + b"/" + component if done else component
            found = next((name for name in self._directories.names(inode.detail) if name.name == component), None)
            if found is None:
                return None
            inode = self._inode(found, done)
        return inode

    def _inode(self, name: Name, path: bytes) -> Inode:
        inode = self._inodes.read(name.reference)
        if inode.number != name.number or inode.type != name.type:
            raise self._file.error(
                f"{printable(path)}: the directory says inode {name.number} of type {name.type},"
                f" the inode table has {inode.number} of type {inode.type} there"
            )
        return inode

    def _entry(self, path: bytes, inode: Inode) -> Entry:
        if inode.type == SOCKET_TYPE:
            raise self._file.error(f"{printable(path)} is a socket, which no layer and no archive can hold")
        detail = inode.detail
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        if inode.xattrs is not None:
            if self._xattrs is None:
                raise self._file.error(f"{printable(path)} has extended attributes, the image has no table of them")
            xattrs = self._xattrs.get(inode.xattrs)
        return Entry(
            path=path,
            kind=KINDS[inode.type],
            mode=inode.mode,
            uid=inode.uid,
            gid=inode.gid,
            mtime_epoch=inode.mtime_epoch,
            link=detail if isinstance(detail, bytes) else b"",
            device=detail if isinstance(detail, tuple) else (0, 0),
            xattrs=xattrs,
            content=SquashfsContent(self._blocks, detail, path) if isinstance(detail, FileData) else None,
        )


open_squashfs = SquashfsReader.open


def _hard_link(path: bytes, inode: Inode, first: bytes) -> Entry:
    return Entry(path, Kind.HARDLINK, inode.mode, inode.uid, inode.gid, inode.mtime_epoch, link=first)


class _Links:
    """Which inodes a walk has seen, and the first names of those with more than one."""

    def __init__(self, file: ImageFile, inode_count: int) -> None:
        self._file = file
        self._seen = bytearray(inode_count // 8 + 1)
        self._names: dict[int, tuple[bytes, int]] = {}
        self._remembered_bytes = 0

    def enter(self, inode: Inode, path: bytes) -> bytes | None:
        """Note a name of ``inode``; its first name if this is a further one. Raises SquashfsError for a directory seen twice."""
        byte, bit = inode.number >> 3, 1 << (inode.number & 7)
        directory = isinstance(inode.detail, Listing)
        if not self._seen[byte] & bit:
            self._seen[byte] |= bit
            if inode.link_count > 1 and not directory:
                self._remember(inode.number, path, inode.link_count - 1)
            return None
        if directory:
            raise self._file.error(f"{printable(path)} is a directory that lies elsewhere too (inode {inode.number}): a loop")
        found = self._names.pop(inode.number, None)
        if found is None:
            raise self._file.error(f"{printable(path)} is one name more of inode {inode.number} than its link count of {inode.link_count}")
        first, left = found
        self._remembered_bytes -= len(first)
        if left > 1:
            self._remember(inode.number, first, left - 1)
        return first

    def _remember(self, number: int, path: bytes, left: int) -> None:
        self._names[number] = (path, left)
        self._remembered_bytes += len(path)
        if self._remembered_bytes > _REMEMBERED_LIMIT_BYTES:
            raise self._file.error(f"the paths of hard-linked files are longer than {_REMEMBERED_LIMIT_BYTES} bytes together")
