"""The root file system of an image: its layers laid over each other as overlayfs shows them to a container.

What overlayfs does (kernel, filesystems/overlayfs.rst): an upper object hides a lower one of its name; two
directories are merged, and the upper one's owner, mode, time and attributes count; a whiteout (a character
device 0:0) hides and is not seen itself; an opaque directory hides everything below it, but for the root of a
layer: its mark is read by no kernel, so an image that marks it opaque still shows what lies below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from shiplap.core.entries import Entry, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.tree import OPAQUE

_WHITEOUT_DEVICE = (0, 0)


class MergeRefused(Refused):
    """Layers that cannot be laid over each other: entries without a parent, or too many."""


class _Node:
    """One path; several names of one file share ``entry``."""

    __slots__ = ("children", "entry")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.children: dict[bytes, _Node] | None = {} if entry.kind is Kind.DIRECTORY else None


class MergedTree:
    """Takes layers from the base up; gives their common view as entries.

    ``where`` names the image in errors; ``entries_max`` bounds what is kept. Layers come as tree walks in
    overlay form (:meth:`LayerTree.stream`, or a layer's tree in a store) with paths relative to the layer's root,
    the root first. The contents stay where they are: whatever they refer to has to be open until the end.
    """

    def __init__(self, where: str, entries_max: int) -> None:
        self._where = where
        self._entries_max = entries_max
        self._count = 0
        # Those of the layer that is being laid on: further names of a whiteout are whiteouts as well.
        self._whiteouts: set[bytes] = set()
        self._root = _Node(Entry(b"", Kind.DIRECTORY, 0o755))

    def add(self, layer: Iterable[Entry]) -> None:
        """Lay one more layer on top. Raises MergeRefused, and what the walk raises."""
        self._whiteouts.clear()
        for entry in layer:
            self._count += 1
            if self._count > self._entries_max:
                raise MergeRefused(f"{self._where}: its layers have more than {self._entries_max} entries together")
            if entry.path:
                self._put(entry)
            else:
                self._root.entry = _without_mark(entry)

    def _put(self, entry: Entry) -> None:
        parent_path, _, name = entry.path.rpartition(b"/")
        parent = self._find(parent_path)
        if parent is None or parent.children is None:
            raise MergeRefused(f"{self._where}: '{printable(entry.path)}' lies in no directory")
        whiteout = entry.kind is Kind.CHARACTER and entry.device == _WHITEOUT_DEVICE
        if whiteout or (entry.kind is Kind.HARDLINK and entry.link in self._whiteouts):
            self._whiteouts.add(entry.path)
            parent.children.pop(name, None)
            return
        if entry.kind is Kind.HARDLINK:
            # Its first name came earlier in this layer, and nothing above it has been laid on yet.
            first = self._find(entry.link)
            if first is None or first.children is not None:
                raise MergeRefused(f"{self._where}: '{printable(entry.path)}' is a hard link to nothing")
            parent.children[name] = _Node(first.entry)
            return
        below = parent.children.get(name)
        if entry.kind is Kind.DIRECTORY and below is not None and below.children is not None:
            self._enter_directory(below, entry)
        else:
            parent.children[name] = _Node(_without_mark(entry))

    def _enter_directory(self, below: _Node, entry: Entry) -> None:
        if OPAQUE in entry.xattrs:
            below.children = {}
        below.entry = _without_mark(entry)

    def _find(self, path: bytes) -> _Node | None:
        node: _Node | None = self._root
        for name in path.split(b"/") if path else ():
            if node is None or node.children is None:
                return None
            node = node.children.get(name)
        return node

    def nodes(self) -> Iterator[tuple[Entry, bytes]]:
        """Every path in tree order with the entry of its inode, and the inode's first name."""
        firsts: dict[int, bytes] = {}
        yield self._root.entry, b""
        stack = [iter(_sorted(b"", self._root))]
        while stack:
            for path, node in stack[-1]:
                first = path if node.children is not None else firsts.setdefault(id(node.entry), path)
                yield node.entry if node.entry.path == path else replace(node.entry, path=path), first
                if node.children:
                    stack.append(iter(_sorted(path + b"/", node)))
                    break
            else:
                stack.pop()


def _sorted(prefix: bytes, directory: _Node) -> list[tuple[bytes, _Node]]:
    assert directory.children is not None
    return [(prefix + name, directory.children[name]) for name in sorted(directory.children)]


def _without_mark(entry: Entry) -> Entry:
    if OPAQUE not in entry.xattrs:
        return entry
    return replace(entry, xattrs=tuple(pair for pair in entry.xattrs if pair != OPAQUE))
