"""The names of a tree, in a few bytes each: gathered in the order of the stream, sorted at its end."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from operator import lt
from typing import NamedTuple

from shiplap.core.entries import printable
from shiplap.rootfs.squashfs.write.errors import SquashfsCannotHold, cannot_hold

NAME_LIMIT_BYTES = 256
PATH_LIMIT_BYTES = 16384
"""Four times Linux's PATH_MAX: nobody could name or walk a longer path."""

ROOT = 0
"""Index of the root's inode."""

_UNRESOLVED = 0xFFFFFFFF


class _Link(NamedTuple):
    """A hard link: the number of its name, and the path that it names again."""

    name: int
    target: bytes


class Names:
    """Names, the directories they lie in, and the inodes they name, which go by their index in the inode rows.

    ``imply`` makes the inode of a directory that the stream leaves out. The root's must be the first of all inodes.
    """

    def __init__(self, imply: Callable[[], int]) -> None:
        self._imply = imply
        self._text = bytearray()
        self._ends = array("Q", [0])
        self._parents = array("I")
        self._inodes = array("I")
        self._links: list[_Link] = []
        self._directories: dict[bytes, int] = {b"": imply()}
        self._implied = {b""}
        self._last_parent = (b"", ROOT)
        # After `finish`: the text for good, the names' numbers sorted by parent and name, and each parent's first place in them.
        self._names = b""
        self._order = array("I")
        self._first = array("I")

    def add(self, path: bytes, inode: int) -> None:
        """A first name, of anything but a directory. Raises SquashfsCannotHold, here as below, for a name that cannot be."""
        self._add(path, inode)

    def add_link(self, path: bytes, target: bytes) -> None:
        """A further name of what has the path ``target``, which must have come before (and is looked for in ``finish``)."""
        self._links.append(_Link(len(self._parents), target))
        self._add(path, _UNRESOLVED)

    def add_directory(self, path: bytes, inode: int) -> None:
        """A directory that was not implied before."""
        if path in self._directories:
            raise _twice(path)
        self._add(path, inode)
        self._directories[path] = inode

    def take_implied(self, path: bytes) -> int | None:
        """The inode of the directory ``path`` if it was only implied; it is no longer then."""
        if path not in self._implied:
            return None
        self._implied.discard(path)
        return self._directories[path]

    def finish(self, inode_count: int) -> array[int]:
        """Sort every directory and find what the hard links name. The number of names of each inode (0 for the root).

        Raises SquashfsCannotHold for a name that is there twice and for a link to nothing, to a directory or ahead.
        """
        self._names = bytes(self._text)
        self._text.clear()
        self._sort(inode_count)
        self._resolve()
        counts = array("I", bytes(4 * inode_count))
        for inode in self._inodes:
            counts[inode] += 1
        return counts

    def children(self, directory: int) -> Iterator[tuple[bytes, int]]:
        """``(name, inode)`` of what lies in a directory, sorted by the names' bytes."""
        names, ends, inodes = self._names, self._ends, self._inodes
        for number in self._order[self._first[directory] : self._first[directory + 1]]:
            yield names[ends[number] : ends[number + 1]], inodes[number]

    def _add(self, path: bytes, inode: int) -> None:
        parent_path, slash, name = path.rpartition(b"/")
        if slash and not parent_path:
            raise cannot_hold(path, "paths in a stream are relative")
        if not 0 < len(name) <= NAME_LIMIT_BYTES:
            raise cannot_hold(path, f"its name has {len(name)} bytes, 1 to {NAME_LIMIT_BYTES} are possible")
        if len(path) > PATH_LIMIT_BYTES:
            raise cannot_hold(path, f"its path has {len(path)} bytes, {PATH_LIMIT_BYTES} are the limit")
        if name == b"." or name == b".." or b"\0" in name:
            raise cannot_hold(path, "nothing can have that name")
        last_path, parent = self._last_parent
        if parent_path != last_path:
            parent = self._parent(parent_path)
            self._last_parent = (parent_path, parent)
        self._text += name
        self._ends.append(len(self._text))
        self._parents.append(parent)
        self._inodes.append(inode)

    def _parent(self, path: bytes) -> int:
        missing = []
        while (found := self._directories.get(path)) is None:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for path in reversed(missing):
            found = self._imply()
            self._add(path, found)
            self._directories[path] = found
            self._implied.add(path)
        return found

    def _sort(self, inode_count: int) -> None:
        # A counting sort by parent keeps the stream's order, which within a directory is mostly the right one.
        first = array("I", bytes(4 * (inode_count + 2)))
        for parent in self._parents:
            first[parent + 2] += 1
        for inode in range(2, inode_count + 2):
            first[inode] += first[inode - 1]
        order = array("I", bytes(4 * len(self._parents)))
        for number, parent in enumerate(self._parents):
            order[first[parent + 1]] = number
            first[parent + 1] += 1
        self._order, self._first = order, first
        for directory in range(inode_count):
            if first[directory + 1] - first[directory] > 1:
                self._sort_directory(first[directory], first[directory + 1])

    def _sort_directory(self, begin: int, end: int) -> None:
        numbers = self._order[begin:end]
        names = [self._name(number) for number in numbers]
        if all(map(lt, names, names[1:])):
            return
        pairs = sorted(zip(names, numbers, strict=True))
        for (name, _), (following, number) in pairwise(pairs):
            if name == following:
                raise _twice(self._path(number))
        self._order[begin:end] = array("I", [number for _, number in pairs])

    def _resolve(self) -> None:
        directories = set(self._directories.values()) if self._links else set()
        for link in self._links:
            found = self._find(link.target)
            if found is None:
                raise self._bad_link(link, "does not exist")
            if found >= link.name:
                raise self._bad_link(link, "comes later in the stream")
            if self._inodes[found] in directories:
                raise self._bad_link(link, "is a directory")
            self._inodes[link.name] = self._inodes[found]

    def _bad_link(self, link: _Link, what: str) -> SquashfsCannotHold:
        return cannot_hold(self._path(link.name), f"it is a hard link to /{printable(link.target[:200])}, which {what}")

    def _find(self, path: bytes) -> int | None:
        """The number of the name whose path is ``path``."""
        parent_path, _, name = path.rpartition(b"/")
        parent = self._directories.get(parent_path)
        if parent is None:
            return None
        low, end = self._first[parent], self._first[parent + 1]
        high = end
        while low < high:
            middle = (low + high) // 2
            if self._name(self._order[middle]) < name:
                low = middle + 1
            else:
                high = middle
        return self._order[low] if low < end and self._name(self._order[low]) == name else None

    def _name(self, number: int) -> bytes:
        return self._names[self._ends[number] : self._ends[number + 1]]

    def _path(self, number: int) -> bytes:
        """For a message."""
        parent = next(path for path, inode in self._directories.items() if inode == self._parents[number])
        return parent + b"/" + self._name(number) if parent else self._name(number)


def _twice(path: bytes) -> SquashfsCannotHold:
    return cannot_hold(path, "it is in the stream twice")
