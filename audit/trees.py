"""Any tree of entries, in one order: a SquashFS image, or a tar, whatever the order of its records.

Paths are in tree order: a directory before what is in it, names by their bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from shiplap.core.entries import Entry, FileSlice, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.rules import clean
from shiplap.core.tar.reader import TarHeader, read_headers
from shiplap.core.tar.records import KINDS
from shiplap.core.tar.window import Window
from shiplap.rootfs.squashfs.reader import ENTRY_LIMIT, SquashfsReader

_CONTIGUOUS = b"7"  # a regular file to everybody but its inventors
_SOCKETS_LISTED = 1000


class TreeUnreadable(Refused):
    """A tar whose records are no tree."""


class NotInTree(Refused):
    """A path that was asked for and is not there."""


class Node(NamedTuple):
    """One path.

    ``entry``: of its inode, so that a further name of a file comes with kind, content and xattrs; its kind is
    HARDLINK only where a tar's link leads nowhere. ``first``: the inode's first name in this tree, or its own path.
    """

    entry: Entry
    first: bytes


class Tree(Protocol):
    """``left_out``: paths of what cannot be told as an entry (sockets), noted while the tree is walked."""

    name: str
    left_out: list[bytes]

    def nodes(self, below: bytes = b"") -> Iterator[Node]:
        """``below`` and everything in it, in tree order. Raises Refused, also when it is not there."""
        ...

    def find(self, path: bytes) -> Entry | None: ...


def order_key(path: bytes) -> bytes:
    """Sorts paths in tree order: no name holds a NUL byte, and it is the smallest."""
    return path.replace(b"/", b"\0")


class SquashfsTree:
    """The tree of an image."""

    def __init__(self, name: str, reader: SquashfsReader) -> None:
        self.name = name
        self.reader = reader
        self.left_out: list[bytes] = []
        self.left_out_count = 0

    def nodes(self, below: bytes = b"") -> Iterator[Node]:
        return map(Node._make, self.reader.nodes(below, on_socket=self._leave_out))

    def find(self, path: bytes) -> Entry | None:
        return self.reader.find(path)

    def _leave_out(self, path: bytes) -> None:
        self.left_out_count += 1
        if len(self.left_out) < _SOCKETS_LISTED:
            self.left_out.append(path)


class TarTree:
    """The tree that a tar describes; of several records of one path the last counts, as when it is unpacked.

    Only paths and positions are kept; a record is read again when its turn comes. ``repeated``: how many records
    were followed by another of the same path. A directory that no record makes is not there.
    """

    def __init__(self, name: str, tar: FileSlice, *, entry_limit: int = ENTRY_LIMIT) -> None:
        self.name = name
        self.tar = tar
        self.left_out: list[bytes] = []
        self.repeated = 0
        self._window = Window(tar)
        positions: dict[bytes, int] = {}
        links: dict[bytes, bytes] = {}
        for header in read_headers(self._window, what=name):
            if header.typeflag == b"g":
                continue
            path = path_of(header)
            if path in positions:
                self.repeated += 1
                links.pop(path, None)
            positions[path] = header.start
            if header.typeflag == b"1":
                links[path] = _cleaned(header.linkname)
            if len(positions) > entry_limit:
                raise TreeUnreadable(f"{name} has more than {entry_limit} entries")
        self._inodes = _resolved(links, positions)
        self._positions = positions
        self._keys = sorted(map(order_key, positions))
        self._firsts: dict[bytes, bytes] = {}
        for path in sorted((*self._inodes, *self._inodes.values()), key=order_key):
            self._firsts.setdefault(self._inodes.get(path, path), path)

    def __contains__(self, path: bytes) -> bool:
        return path in self._positions

    def nodes(self, below: bytes = b"") -> Iterator[Node]:
        start = order_key(below)
        at = bisect_left(self._keys, start) if below else 0
        if below and below not in self._positions and not self._is_directory(start, at):
            raise TreeUnreadable(f"{self.name} has no entry '{printable(below)}'")
        inside = start + b"\0"
        for index in range(at, len(self._keys)):
            key = self._keys[index]
            if below and key != start and not key.startswith(inside):
                break
            path = key.replace(b"\0", b"/")
            yield Node(self._entry(path), self._firsts.get(self._inodes.get(path, path), path))

    def find(self, path: bytes) -> Entry | None:
        return self._entry(path) if path in self._positions else None

    def _is_directory(self, key: bytes, at: int) -> bool:
        return at < len(self._keys) and self._keys[at].startswith(key + b"\0")

    def _entry(self, path: bytes) -> Entry:
        header = self._header(self._positions[self._inodes.get(path, path)])
        kind = Kind.REGULAR if header.typeflag == _CONTIGUOUS else KINDS.get(header.typeflag)
        if kind is None or header.sparse:
            what = "a GNU sparse file" if header.sparse else f"of the type '{printable(header.typeflag)}'"
            raise TreeUnreadable(f"{self.name}: '{printable(path)}' is {what}, which no tree of entries holds")
        content = None
        if kind is Kind.REGULAR:
            content = FileSlice(self.tar.descriptor, self.tar.offset + header.data_offset, header.data_bytes, self.name)
        return Entry(
            path,
            kind,
            header.mode & 0o7777,
            header.uid,
            header.gid,
            header.mtime_epoch,
            header.mtime_nanoseconds,
            _cleaned(header.linkname) if kind is Kind.HARDLINK else header.linkname if kind is Kind.SYMLINK else b"",
            (header.devmajor, header.devminor) if kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0),
            header.xattrs,
            content,
        )

    def _header(self, start: int) -> TarHeader:
        header = next(read_headers(_From(self._window, start), what=self.name))
        return header._replace(data_offset=header.data_offset + start)


class _From:
    """A tar from one of its records on."""

    __slots__ = ("_start", "_window", "size_bytes")

    def __init__(self, window: Window, start: int) -> None:
        self._window = window
        self._start = start
        self.size_bytes = window.size_bytes - start

    def read(self, offset: int, count: int) -> bytes:
        return self._window.read(self._start + offset, count)


def path_of(header: TarHeader) -> bytes:
    """The path of a record, whatever it is written like (``./a``, ``/a``, ``a/``)."""
    return _cleaned(header.name)


def _cleaned(name: bytes) -> bytes:
    path = clean(name.lstrip(b"/"))
    return b"" if path == b"." else path


def _resolved(links: dict[bytes, bytes], positions: dict[bytes, int]) -> dict[bytes, bytes]:
    """Path of each hard link → the path that has the inode; links that lead nowhere or in a circle are left as they are."""
    found: dict[bytes, bytes] = {}
    lost: set[bytes] = set()
    for path in links:
        trail = {path}
        target = links[path]
        while target in links and target not in found and target not in trail and target not in lost:
            trail.add(target)
            target = links[target]
        target = found.get(target, target)
        if target in positions and target not in links:
            found.update(dict.fromkeys(trail, target))
        else:
            lost |= trail
    return found


def relative(nodes: Iterator[Node], root: bytes) -> Iterator[Node]:
    """The same nodes with paths below ``root``."""
    cut = len(root) + 1 if root else 0
    for entry, first in nodes:
        yield Node(_moved(entry, entry.path[cut:]), first[cut:])


def _moved(entry: Entry, path: bytes) -> Entry:
    if path == entry.path:
        return entry
    return Entry(
        path,
        entry.kind,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_epoch,
        entry.mtime_nanoseconds,
        entry.link,
        entry.device,
        entry.xattrs,
        entry.content,
    )


@contextmanager
def open_squashfs_tree(path: Path, *, entry_limit: int = ENTRY_LIMIT) -> Iterator[SquashfsTree]:
    """The tree of the image at ``path``. Raises SquashfsError."""
    with SquashfsReader.open(path, entry_limit=entry_limit) as reader:
        yield SquashfsTree(path.name, reader)
