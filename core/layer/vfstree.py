"""From a layer's tar and the tree below it to the whole tree that Docker's vfs driver keeps for the layer.

The driver copies the directory of the layer below and applies the tar to the copy (moby: vfs/driver.go, ``Create``;
archive/diff.go, ``UnpackLayer``): whiteouts remove, an opaque marker empties, AUFS's own names are left out. Files that
a layer does not touch stay the same inode here, in every tree that has them, so that a store holds each file once.

Where engines differ the later ones count: implied directories are 0755 (20.10: 0600), and no entry changes the root
directory (20.10 and 26 let ``./`` do that). One difference is kept on purpose: the engine's copy loses every xattr but
``security.capability``, an inode that trees share keeps them. The engine makes a container by copying once more, so no
program ever sees which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shiplap.core.entries import Entry, FileSlice, Kind, printable
from shiplap.core.layer.rules import OPAQUE_MARKER, WHITEOUT_PREFIX, LayerBuilder, Unacceptable, clean, inside_root
from shiplap.core.layer.tree import Inode, LayerTree, entry_of
from shiplap.core.tar.reader import TarHeader

_AUFS_PREFIX = b".wh..wh."
_AUFS_LINKS = b".wh..wh.plnk"


class MergedTree(LayerTree):
    """A whole tree. Each inode knows its ``place``: tree and path under which it is written first in the store."""

    __slots__ = ("name",)

    def __init__(self, name: bytes, merged: LayerTree) -> None:
        super().__init__(merged.root)
        self.name = name
        self.entries, self.size_bytes = merged.entries, merged.size_bytes
        for path, inode in self.walk():
            if not inode.place:
                inode.place = name + b"/" + path
        self.root.place = name

    def stream(self, prefix: bytes, tar: FileSlice) -> Iterator[Entry]:
        """The tree as entries below ``prefix``, which ends with the tree's name; ``tar`` is the layer's own."""
        trees = prefix[: len(prefix) - len(self.name)]
        yield entry_of(self.root, prefix)
        for path, inode in self.walk():
            full, first = prefix + b"/" + path, trees + inode.place
            if inode.kind is Kind.DIRECTORY or first == full:
                yield entry_of(inode, full, content=tar)
            else:
                yield entry_of(inode, full, first=first)


class MergingBuilder(LayerBuilder):
    """Applies a layer to a copy of the tree below it. ``name``: the tree's own, in the store."""

    def __init__(
        self, below: MergedTree | None, name: bytes, *, where: str, epoch: int, entries_max: int, note: Callable[[str], object]
    ) -> None:
        root = _copied(below.root) if below else None
        super().__init__(where=where, epoch=epoch, entries_max=entries_max, note=note, root=root)
        self._name = name
        self._made: set[bytes] = set()  # paths as the entries spell them, cleaned

    def finish(self) -> MergedTree:
        _stamp_changed(self._root, self._epoch)
        self._paths_changed = True  # always set the directories' own times at the end
        return MergedTree(self._name, super().finish())

    def _add(self, header: TarHeader) -> bool:
        cleaned = clean(header.name)
        if cleaned.startswith(_AUFS_PREFIX) and cleaned != OPAQUE_MARKER:
            self._count(cleaned)
            self._parent(inside_root(header.name).rpartition(b"/")[0])
            return False
        if header.typeflag == b"1" and clean(header.linkname).startswith(_AUFS_LINKS):
            raise Unacceptable("a hard link of AUFS, which shiplap does not resolve", "flatten the image and build it again")
        made = super()._add(header)
        if not cleaned.rpartition(b"/")[2].startswith(WHITEOUT_PREFIX):
            self._made.add(cleaned.lstrip(b"/"))
        return made

    def _forget(self, inode: Inode) -> None:
        if not inode.place:
            super()._forget(inode)

    def _hard_link(self, parent: Inode, base: bytes, header: TarHeader) -> None:
        target = self._find(inside_root(header.linkname))
        if target is not None and target.place and target.kind is not Kind.DIRECTORY:
            raise Unacceptable(
                f"a hard link to '{printable(header.linkname)}' of a lower layer",
                "only vfs could make it; the overlay drivers refuse the image",
            )
        super()._hard_link(parent, base, header)

    def _whiteout(self, parent: Inode, base: bytes, header: TarHeader) -> None:
        assert parent.children is not None
        if base == OPAQUE_MARKER:
            self._empty(inside_root(header.name).rpartition(b"/")[0], parent)
            return
        original = self._whited_out(base)
        child = parent.children.get(original)
        if child is None:
            return
        if not child.place:
            raise Unacceptable("a whiteout of a path that the same layer made before, which the overlay drivers refuse")
        self._detach(parent, original)

    def _empty(self, path: bytes, directory: Inode) -> None:
        """Take away what lies below ``path`` and was not unpacked under the same spelling by this layer."""
        if path and self._through_link:
            last = self._find(path)
            if last is not None and last.kind is Kind.SYMLINK:
                return  # the engine looks at the link, not behind it
        waiting = [(path + b"/" if path else b"", directory)]
        while waiting:
            above, inode = waiting.pop()
            for name, child in list((inode.children or {}).items()):
                if above + name not in self._made:
                    self._detach(inode, name)
                elif child.kind is Kind.DIRECTORY:
                    waiting.append((above + name + b"/", child))


def _copied(top: Inode) -> Inode:
    """A copy of a finished tree: directories anew, everything else the same objects."""
    root = _copied_directory(top)
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        assert directory.children is not None and directory.below is not None and directory.below.children is not None
        for name, child in directory.below.children.items():
            if child.kind is Kind.DIRECTORY:
                copy = _copied_directory(child)
                directory.children[name] = copy
                waiting.append(copy)
            else:
                directory.children[name] = child
    return root


def _copied_directory(one: Inode) -> Inode:
    copy = Inode(Kind.DIRECTORY, one.mode, one.uid, one.gid, one.mtime_epoch, one.mtime_nanoseconds)
    copy.xattrs = dict(one.xattrs) if one.xattrs else None
    copy.place, copy.below = one.place, one
    return copy


def _stamp_changed(root: Inode, epoch: int) -> None:
    """A directory in which something was made or removed has the time of that, which is the epoch."""
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        assert directory.children is not None
        if directory.below is not None and _names_changed(directory):
            directory.mtime_epoch, directory.mtime_nanoseconds = epoch, 0
        # What lies below a finished tree is needed no longer.
        directory.below = None
        waiting += [child for child in directory.children.values() if child.kind is Kind.DIRECTORY]


def _names_changed(directory: Inode) -> bool:
    assert directory.children is not None and directory.below is not None and directory.below.children is not None
    before = directory.below.children
    if directory.children.keys() != before.keys():
        return True
    return any((child.below if child.kind is Kind.DIRECTORY else child) is not before[name] for name, child in directory.children.items())
