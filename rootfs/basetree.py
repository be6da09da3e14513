"""A base root file system from a tar, and things put into it: a tree of inodes, nothing on disk.

A root file system's tar is no layer: there are no whiteouts, and of two entries with one name the later counts,
as when it is unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator

from shiplap.core.entries import Content, Entry, FileSlice, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.rules import clean
from shiplap.core.layer.tree import Inode
from shiplap.core.tar.reader import TarHeader, read_headers
from shiplap.core.tar.records import KINDS
from shiplap.core.tar.window import Window

_LINKS_MAX = 40  # the kernel's own limit for one path
_MODE_OF_IMPLIED = 0o755


class RootRefused(Refused):
    """A base root file system that cannot be used, or that something does not fit into."""


class BaseTree:
    """A root file system in the making.

    ``what`` names the tar in messages. Paths are bytes without leading slash. Contents stay where they are.
    """

    def __init__(self, what: str, epoch: int) -> None:
        self._what = what
        self._epoch = epoch
        self.root = Inode(Kind.DIRECTORY, _MODE_OF_IMPLIED, 0, 0, epoch)
        self._contents: dict[Inode, Content] = {}
        self.replaced: list[bytes] = []
        """Files of the base that :meth:`put` replaced."""

    def read(self, tar: FileSlice, entries_max: int) -> None:
        """Take every entry of an uncompressed tar. Raises RootRefused and TarCorrupt."""
        for count, header in enumerate(read_headers(Window(tar), what=self._what)):
            if count >= entries_max:
                raise RootRefused(f"{self._what} has more than {entries_max} entries", hint="raise `limits: {entries: …}`")
            if header.typeflag != b"g":
                self._add(header, tar)

    def _add(self, header: TarHeader, tar: FileSlice) -> None:
        path = clean(header.name).lstrip(b"/")
        where = f"{self._what}, entry {printable(header.name)}"
        if path == b".." or path.startswith(b"../"):
            raise RootRefused(f"{where}: it leaves the root file system")
        if header.sparse:
            raise RootRefused(f"{where}: a sparse file of GNU tar", hint="make the tar without --sparse")
        kind = KINDS.get(header.typeflag)
        if kind is None:
            raise RootRefused(f"{where}: its type {printable(header.typeflag)} is unknown")
        if path in (b"", b"."):
            if kind is Kind.DIRECTORY:
                self._describe(self.root, header)
            return
        folder, name = self._parent(path, where)
        assert folder.children is not None
        if kind is Kind.HARDLINK:
            target = self.find(clean(header.linkname).lstrip(b"/"))
            if target is None or target.kind is Kind.DIRECTORY:
                raise RootRefused(f"{where}: a hard link to {printable(header.linkname)}, which is no earlier file")
            target.names += 1
            self._replace(folder, name, target)
            return
        old = folder.children.get(name)
        if old is not None and old.kind is Kind.DIRECTORY and kind is Kind.DIRECTORY:
            self._describe(old, header)
            return
        inode = Inode(kind, 0, 0, 0, 0)
        self._describe(inode, header)
        if kind is Kind.REGULAR:
            inode.size_bytes = header.data_bytes
            self._contents[inode] = FileSlice(tar.descriptor, tar.offset + header.data_offset, header.data_bytes, tar.name)
        elif kind is Kind.SYMLINK:
            inode.link = header.linkname
        elif kind in (Kind.CHARACTER, Kind.BLOCK):
            inode.device = (header.devmajor & 0xFFF, header.devminor & 0xFFFFF)
        self._replace(folder, name, inode)

    def _describe(self, inode: Inode, header: TarHeader) -> None:
        inode.mode = 0o777 if inode.kind is Kind.SYMLINK else header.mode & 0o7777
        inode.uid, inode.gid = header.uid, header.gid
        inode.mtime_epoch, inode.mtime_nanoseconds = max(0, header.mtime_epoch), 0
        inode.xattrs = dict(header.xattrs) or None

    def _replace(self, folder: Inode, name: bytes, inode: Inode) -> None:
        assert folder.children is not None
        old = folder.children.get(name)
        if old is not None:
            old.names -= 1
        folder.children[name] = inode

    def _parent(self, path: bytes, where: str) -> tuple[Inode, bytes]:
        """The directory of ``path``, made where it is missing, through the symbolic links on the way."""
        folder_path, _, name = path.rpartition(b"/")
        pending = [part for part in folder_path.split(b"/") if part][::-1]
        trail = [self.root]
        links = 0
        while pending:
            part = pending.pop()
            if part == b".":
                continue
            if part == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            children = trail[-1].children
            assert children is not None
            inode = children.get(part)
            if inode is None:
                inode = children[part] = Inode(Kind.DIRECTORY, _MODE_OF_IMPLIED, 0, 0, self._epoch)
            if inode.kind is Kind.SYMLINK:
                links += 1
                if links > _LINKS_MAX:
                    raise RootRefused(f"{where}: more than {_LINKS_MAX} symbolic links on the way to it")
                if inode.link.startswith(b"/"):
                    trail = [self.root]
                pending += [step for step in inode.link.split(b"/") if step][::-1]
                continue
            if inode.kind is not Kind.DIRECTORY:
                raise RootRefused(f"{where}: {printable(part)} on the way to it is a {inode.kind.value}")
            trail.append(inode)
        return trail[-1], name

    def find(self, path: bytes) -> Inode | None:
        """The inode at ``path``, symbolic links on the way not followed; None where there is none."""
        inode: Inode | None = self.root
        for part in path.split(b"/"):
            inode = inode.children.get(part) if inode is not None and inode.children is not None else None
        return inode

    def put(self, entry: Entry) -> None:
        """Add one entry of ours: a directory is left as the base has it, a file replaces the base's and is listed in ``replaced``."""
        where = f"{self._what}, {printable(entry.path)}"
        folder, name = self._parent(entry.path, where)
        assert folder.children is not None
        old = folder.children.get(name)
        if entry.kind is Kind.DIRECTORY and old is not None:
            resolved = old
            if old.kind is Kind.SYMLINK:
                resolved, _ = self._parent(entry.path + b"/x", where)
            if resolved.kind is Kind.DIRECTORY:
                return
        if old is not None:
            if old.kind is Kind.DIRECTORY:
                raise RootRefused(f"{where}: the base has a directory there, ours is a {entry.kind.value}")
            self.replaced.append(entry.path)
        inode = Inode(entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime_epoch)
        inode.link, inode.device = entry.link, entry.device
        inode.xattrs = dict(entry.xattrs) or None
        if entry.content is not None:
            inode.size_bytes = entry.content.size_bytes
            self._contents[inode] = entry.content
        self._replace(folder, name, inode)

    def content_of(self, path: bytes) -> bytes | None:
        """A small file's bytes (at most 1 MiB), symbolic links not followed; None where there is none."""
        inode = self.find(path)
        if inode is None or inode.kind is not Kind.REGULAR or inode.size_bytes > 1 << 20:
            return None
        return b"".join(self._contents[inode].chunks())

    def entries(self) -> Iterator[Entry]:
        """The whole tree: parents first, children in byte order of their names."""
        yield self._entry(b"", self.root, {})
        first_names: dict[int, bytes] = {}
        stack = [(b"", self.root)]
        while stack:
            path, inode = stack.pop()
            if path:
                yield self._entry(path, inode, first_names)
            if inode.children:
                below = path + b"/" if path else b""
                stack.extend((below + name, inode.children[name]) for name in sorted(inode.children, reverse=True))

    def _entry(self, path: bytes, inode: Inode, first_names: dict[int, bytes]) -> Entry:
        kind, link = inode.kind, inode.link
        if inode.names > 1:
            first = first_names.setdefault(id(inode), path)
            if first is not path:
                kind, link = Kind.HARDLINK, first
        return Entry(
            path,
            kind,
            inode.mode,
            inode.uid,
            inode.gid,
            inode.mtime_epoch,
            link=link,
            device=(0, 0) if kind is Kind.HARDLINK else inode.device,
            xattrs=tuple(sorted(inode.xattrs.items())) if inode.xattrs and kind is not Kind.HARDLINK else (),
            content=self._contents.get(inode) if kind is Kind.REGULAR else None,
        )
