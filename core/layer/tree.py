"""The tree of one layer, as inodes with names, before it becomes an entry stream."""

from __future__ import annotations

from collections.abc import Iterator

from shiplap.core.entries import Entry, FileSlice, Kind

OPAQUE = (b"trusted.overlay.opaque", b"y")


class Inode:
    """One object of the tree. ``names`` counts its hard links; directories have ``children``.

    ``place`` and ``below`` serve :mod:`shiplap.core.layer.vfstree`: where the inode is written first, and the directory
    that this one is a copy of.
    Mutable while the rules run: a later hard link entry changes owner and mode of what it links to.
    """

    __slots__ = (
        "below",
        "children",
        "device",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime_epoch",
        "mtime_nanoseconds",
        "names",
        "offset",
        "place",
        "size_bytes",
        "uid",
        "xattrs",
    )

    def __init__(self, kind: Kind, mode: int, uid: int, gid: int, mtime_epoch: int, mtime_nanoseconds: int = 0) -> None:
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_epoch = mtime_epoch
        self.mtime_nanoseconds = mtime_nanoseconds
        self.names = 1
        self.link = b""
        self.device = (0, 0)
        self.offset = 0
        self.size_bytes = 0
        self.xattrs: dict[bytes, bytes] | None = None
        self.place = b""
        self.below: Inode | None = None
        self.children: dict[bytes, Inode] | None = {} if kind is Kind.DIRECTORY else None

    def set_xattr(self, name: bytes, value: bytes) -> None:
        if self.xattrs is None:
            self.xattrs = {}
        self.xattrs[name] = value


class LayerTree:
    """What one layer holds: ``root`` is the directory that the engine calls ``diff``.

    ``size_bytes`` counts as the engine's ``size`` file does: each regular file and symbolic link once
    however many names it has, no directories. ``entries`` counts paths, the root not among them.
    """

    __slots__ = ("entries", "root", "size_bytes")

    def __init__(self, root: Inode) -> None:
        self.root = root
        self.entries = 0
        self.size_bytes = 0

    def walk(self) -> Iterator[tuple[bytes, Inode]]:
        """Every path below the root with its inode: parents first, children in byte order of their names."""
        stack: list[Iterator[tuple[bytes, Inode]]] = [iter(_sorted(b"", self.root))]
        while stack:
            for path, inode in stack[-1]:
                yield path, inode
                if inode.children:
                    stack.append(iter(_sorted(path + b"/", inode)))
                    break
            else:
                stack.pop()

    def measure(self, path_max_bytes: int) -> bytes | None:
        """Count ``entries`` and ``size_bytes``; stops at the first path over ``path_max_bytes`` and returns it."""
        entries = size_bytes = 0
        seen: set[int] = set()
        for path, inode in self.walk():
            if len(path) > path_max_bytes:
                return path
            entries += 1
            if inode.kind is Kind.REGULAR or inode.kind is Kind.SYMLINK:
                if inode.names > 1:
                    if id(inode) in seen:
                        continue
                    seen.add(id(inode))
                size_bytes += inode.size_bytes
        self.entries, self.size_bytes = entries, size_bytes
        return None

    def stream(self, prefix: bytes, tar: FileSlice) -> Iterator[Entry]:
        """The tree as entries below ``prefix`` (the root's own path); content is read from ``tar``."""
        first_names: dict[int, bytes] = {}
        yield entry_of(self.root, prefix)
        below = prefix + b"/" if prefix else b""
        for path, inode in self.walk():
            full = below + path
            if inode.names > 1:
                first = first_names.setdefault(id(inode), full)
                if first is not full:
                    yield entry_of(inode, full, first=first)
                    continue
            yield entry_of(inode, full, content=tar)


def entry_of(inode: Inode, path: bytes, *, content: FileSlice | None = None, first: bytes | None = None) -> Entry:
    """``inode`` as the entry at ``path``: a further name of ``first`` where that is given, with ``content`` in the layer's tar."""
    if first is not None:
        # xattrs and device belong to the first name.
        return Entry(path, Kind.HARDLINK, inode.mode, inode.uid, inode.gid, inode.mtime_epoch, inode.mtime_nanoseconds, first)
    return Entry(
        path,
        inode.kind,
        inode.mode,
        inode.uid,
        inode.gid,
        inode.mtime_epoch,
        inode.mtime_nanoseconds,
        inode.link,
        inode.device,
        tuple(sorted(inode.xattrs.items())) if inode.xattrs else (),
        FileSlice(content.descriptor, content.offset + inode.offset, inode.size_bytes, content.name)
        if content is not None and inode.kind is Kind.REGULAR
        else None,
    )


def _sorted(prefix: bytes, directory: Inode) -> list[tuple[bytes, Inode]]:
    assert directory.children is not None
    return [(prefix + name, directory.children[name]) for name in sorted(directory.children)]
