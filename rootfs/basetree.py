"""A base root file system from a tar, and things put into it: a tree of inodes, nothing on disk.

A root file system's tar is no layer: there are no whiteouts, and of two entries with one name the later counts, as when
it is unpacked. Links of the base are followed inside the base only; no path of the machine that builds is ever touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from shiplap.core.entries import Content, Entry, FileSlice, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.rules import NAME_MAX_BYTES, PATH_MAX_BYTES, clean
from shiplap.core.layer.tree import Inode
from shiplap.core.tar.reader import TarHeader, read_headers
from shiplap.core.tar.records import KINDS
from shiplap.core.tar.window import Window

_LINKS_MAX = 40  # the kernel's own limit for one path
_STEPS_MAX = 50_000_000  # of links' targets over the whole tree: a base of two million entries needs fewer
_MODE_OF_IMPLIED = 0o755
_ID_MAX = (1 << 32) - 2
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_NAMESPACES = (b"user.", b"trusted.", b"security.")  # those that SquashFS has
_SOCKET = b"s"  # not in any standard; some archivers write it


class RootRefused(Refused):
    """A base root file system that cannot be used, or that something does not fit into."""


class BaseTree:
    """A root file system in the making.

    ``what`` names the tar in messages. Paths are bytes without leading slash. Contents stay where they are.
    """

    def __init__(self, what: str, epoch: int, entries_max: int) -> None:
        self._what = what
        self._epoch = epoch
        self._entries_max = entries_max
        self._inodes = 0
        self._steps = 0
        self.root = self._inode(Kind.DIRECTORY, _MODE_OF_IMPLIED)
        self._contents: dict[Inode, Content] = {}
        self.replaced: list[bytes] = []
        """Files of the base that :meth:`put` replaced."""
        self.sockets: list[bytes] = []
        """Sockets that :meth:`read` left out: who listens makes them anew."""
        self.xattrs_left_out: list[bytes] = []
        """Paths with attributes of namespaces that SquashFS does not have; those attributes are left out."""

    def read(self, tar: FileSlice) -> None:
        """Take every entry of an uncompressed tar. Raises RootRefused and TarCorrupt."""
        for count, header in enumerate(read_headers(Window(tar), what=self._what)):
            if count >= self._entries_max:
                raise self._too_many()
            if header.typeflag != b"g":
                self._add(header, tar)

    def _too_many(self) -> RootRefused:
        return RootRefused(f"{self._what} has more than {self._entries_max} entries", hint="give --limit entries=… if you trust it")

    def _inode(self, kind: Kind, mode: int) -> Inode:
        self._inodes += 1
        if self._inodes > self._entries_max + 1:
            raise self._too_many()
        return Inode(kind, mode, 0, 0, self._epoch)

    def _add(self, header: TarHeader, tar: FileSlice) -> None:
        path = clean(header.name).lstrip(b"/")
        where = f"{self._what}, entry {printable(header.name)}"
        if path == b".." or path.startswith(b"../"):
            raise RootRefused(f"{where}: it leaves the root file system")
        if b"\0" in header.name or b"\0" in header.linkname:
            raise RootRefused(f"{where}: a name with a NUL byte")
        if header.typeflag == _SOCKET:
            self.sockets.append(path)
            return
        if header.sparse:
            raise RootRefused(f"{where}: a sparse file of GNU tar", hint="make the tar without --sparse")
        kind = KINDS.get(b"0" if header.typeflag == b"7" else header.typeflag)
        if kind is None:
            raise RootRefused(f"{where}: its type {printable(header.typeflag)} is unknown")
        if path in (b"", b"."):
            if kind is not Kind.DIRECTORY:
                raise RootRefused(f"{where}: the root of the file system is a {kind.value}")
            self._describe(self.root, header, where)
            return
        folder, name = self._parent(path, where)
        assert folder.children is not None
        if kind is Kind.HARDLINK:
            self._replace(folder, name, self._linked(header.linkname, where), where)
            return
        old = folder.children.get(name)
        if old is not None and old.kind is Kind.DIRECTORY and kind is Kind.DIRECTORY:
            self._describe(old, header, where)
            return
        inode = self._inode(kind, 0)
        self._describe(inode, header, where)
        if kind is Kind.REGULAR:
            inode.size_bytes = header.data_bytes
            self._contents[inode] = FileSlice(tar.descriptor, tar.offset + header.data_offset, header.data_bytes, tar.name)
        elif kind is Kind.SYMLINK:
            if not 0 < len(header.linkname) <= PATH_MAX_BYTES:
                raise RootRefused(f"{where}: a link target of {len(header.linkname)} bytes; the limit is {PATH_MAX_BYTES}")
            inode.link = header.linkname
        elif kind in (Kind.CHARACTER, Kind.BLOCK):
            # Linux has 12 bits for the major and 20 for the minor number.
            if not (0 <= header.devmajor < 1 << 12 and 0 <= header.devminor < 1 << 20):
                raise RootRefused(f"{where}: there is no device {header.devmajor}:{header.devminor}")
            inode.device = (header.devmajor, header.devminor)
        self._replace(folder, name, inode, where)

    def _linked(self, target_name: bytes, where: str) -> Inode:
        target = self._locate(clean(target_name).lstrip(b"/"), where)
        if target is None or target.kind is Kind.DIRECTORY:
            raise RootRefused(f"{where}: a hard link to {printable(target_name)}, which is no earlier file")
        target.names += 1  # a link to itself loses that one again when it replaces the name
        return target

    def _describe(self, inode: Inode, header: TarHeader, where: str) -> None:
        if not (0 <= header.uid <= _ID_MAX and 0 <= header.gid <= _ID_MAX):
            raise RootRefused(f"{where}: its owner {header.uid}:{header.gid} does not exist", hint=f"ids go from 0 to {_ID_MAX}")
        inode.mode = 0o777 if inode.kind is Kind.SYMLINK else header.mode & 0o7777
        inode.uid, inode.gid = header.uid, header.gid
        inode.mtime_epoch, inode.mtime_nanoseconds = max(0, header.mtime_epoch), 0
        inode.xattrs = None
        for key, value in header.xattrs:
            if key in _ACLS:
                raise RootRefused(
                    f"{where}: it has a POSIX ACL, which SquashFS cannot hold",
                    hint="remove it with `setfacl -b`, or leave it out of the tar: tar --xattrs-exclude=system.posix_acl_*",
                )
            if key.startswith(_NAMESPACES):
                inode.set_xattr(key, value)
            elif not self.xattrs_left_out or self.xattrs_left_out[-1] != header.name:
                self.xattrs_left_out.append(header.name)

    def _replace(self, folder: Inode, name: bytes, inode: Inode, where: str) -> None:
        assert folder.children is not None
        old = folder.children.get(name)
        if old is not None:
            if old.children:
                raise RootRefused(f"{where}: a {inode.kind.value} cannot replace a directory with entries")
            old.names -= 1
        folder.children[name] = inode

    def _parent(self, path: bytes, where: str) -> tuple[Inode, bytes]:
        """The directory of ``path``, made where it is missing, through the symbolic links on the way."""
        folder_path, _, name = path.rpartition(b"/")
        folder = self._walk(folder_path, where, make=True)
        assert folder is not None
        if folder.kind is not Kind.DIRECTORY:
            raise RootRefused(f"{where}: {printable(folder_path)} on the way to it is a {folder.kind.value}")
        if len(name) > NAME_MAX_BYTES:
            raise RootRefused(f"{where}: a name of {len(name)} bytes; the limit is {NAME_MAX_BYTES}")
        return folder, name

    def _locate(self, path: bytes, where: str) -> Inode | None:
        """The inode at ``path``, links on the way followed, the last name not; None where there is none."""
        folder_path, _, name = path.rpartition(b"/")
        folder = self._walk(folder_path, where, make=False)
        return folder.children.get(name) if folder is not None and folder.children is not None else None

    def _walk(self, path: bytes, where: str, *, make: bool) -> Inode | None:
        """Follow ``path`` from the root, links too; ``..`` at the root stays there, as in the kernel."""
        if len(path) > PATH_MAX_BYTES:
            raise RootRefused(f"{where}: a path of {len(path)} bytes; the limit is {PATH_MAX_BYTES}")
        pending = [part for part in path.split(b"/") if part][::-1]
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
            if children is None:
                if not make:
                    return None
                raise RootRefused(f"{where}: something on the way to it is a {trail[-1].kind.value}")
            inode = children.get(part)
            if inode is None:
                if not make:
                    return None
                if len(part) > NAME_MAX_BYTES:
                    raise RootRefused(f"{where}: a name of {len(part)} bytes; the limit is {NAME_MAX_BYTES}")
                inode = children[part] = self._inode(Kind.DIRECTORY, _MODE_OF_IMPLIED)
            if inode.kind is Kind.SYMLINK:
                links += 1
                steps = [step for step in inode.link.split(b"/") if step][::-1]
                self._steps += len(steps)
                if links > _LINKS_MAX or self._steps > _STEPS_MAX:
                    raise RootRefused(f"{where}: the way to it goes through too many symbolic links")
                if inode.link.startswith(b"/"):
                    trail = [self.root]
                pending += steps
                continue
            trail.append(inode)
        return trail[-1]

    def find(self, path: bytes) -> Inode | None:
        """The inode at ``path``, symbolic links on the way followed, one at its end not; None where there is none."""
        return self._locate(path, f"{self._what}, {printable(path)}")

    def put(self, entry: Entry) -> None:
        """Add one entry of ours: a directory is left as the base has it, a file replaces the base's and is listed in ``replaced``.

        Raises RootRefused where the base has a directory and we a file, or the other way round.
        """
        where = f"{self._what}, {printable(entry.path)}"
        folder, name = self._parent(entry.path, where)
        assert folder.children is not None
        old = folder.children.get(name)
        if entry.kind is Kind.DIRECTORY and old is not None:
            resolved = self._walk(entry.path, where, make=True) if old.kind is Kind.SYMLINK else old
            if resolved is not None and resolved.kind is Kind.DIRECTORY:
                return
        if old is not None:
            if old.kind is Kind.DIRECTORY:
                raise RootRefused(f"{where}: the base has a directory there, ours is a {entry.kind.value}")
            self.replaced.append(entry.path)
        if entry.kind is Kind.HARDLINK:
            self._replace(folder, name, self._linked(entry.link, where), where)
            return
        inode = self._inode(entry.kind, entry.mode)
        inode.uid, inode.gid, inode.mtime_epoch = entry.uid, entry.gid, entry.mtime_epoch
        inode.link, inode.device = entry.link, entry.device
        inode.xattrs = dict(entry.xattrs) or None
        if entry.content is not None:
            inode.size_bytes = entry.content.size_bytes
            self._contents[inode] = entry.content
        self._replace(folder, name, inode, where)

    def remove(self, path: bytes) -> None:
        """Take a name of a file away, where there is one: something of ours that contains it comes in its place."""
        folder, name = self._parent(path, f"{self._what}, {printable(path)}")
        assert folder.children is not None
        old = folder.children.get(name)
        if old is not None and old.kind is not Kind.DIRECTORY:
            old.names -= 1
            del folder.children[name]

    def graft(self, folder: bytes, entries: Iterator[Entry]) -> None:
        """Put a whole tree (its root first) below the directory ``folder``, which must be missing or empty. Raises RootRefused."""
        where = f"{self._what}, {printable(folder)}"
        place = self._walk(folder, where, make=True)
        if place is None or place.children is None or place.children:
            raise RootRefused(f"{where}: the store's tree belongs there, and the base has something there already")
        for entry in entries:
            if not entry.path:
                place.mode, place.uid, place.gid, place.mtime_epoch = entry.mode, entry.uid, entry.gid, entry.mtime_epoch
                place.xattrs = dict(entry.xattrs) or None
                continue
            link = folder + b"/" + entry.link if entry.kind is Kind.HARDLINK else entry.link
            self.put(replace(entry, path=folder + b"/" + entry.path, link=link))

    def content(self, path: bytes) -> Content | None:
        """The content of the regular file at ``path``, symbolic links followed to their end; None where there is none."""
        inode = self._walk(path, f"{self._what}, {printable(path)}", make=False)
        return None if inode is None else self._contents.get(inode)

    def content_of(self, path: bytes, limit_bytes: int) -> bytes | None:
        """A small file's bytes; None where there is no regular file. Raises RootRefused for a larger one."""
        inode = self.find(path)
        if inode is None or inode.kind is not Kind.REGULAR:
            return None
        if inode.size_bytes > limit_bytes:
            raise RootRefused(f"{self._what}: {printable(path)} has {inode.size_bytes} bytes, more than the {limit_bytes} allowed")
        return b"".join(self._contents[inode].chunks())

    def entries(self) -> Iterator[Entry]:
        """The whole tree: parents first, children in byte order of their names; of an inode's names the first is the file."""
        first_names: dict[int, bytes] = {}
        stack = [(b"", self.root)]
        while stack:
            path, inode = stack.pop()
            if len(path) > PATH_MAX_BYTES:
                raise RootRefused(f"{self._what}: a path of {len(path)} bytes; the limit is {PATH_MAX_BYTES}: {printable(path[:60])}…")
            yield self._entry(path, inode, first_names)
            if inode.children:
                below = path + b"/" if path else b""
                stack.extend((below + name, inode.children[name]) for name in sorted(inode.children, reverse=True))

    def _entry(self, path: bytes, inode: Inode, first_names: dict[int, bytes]) -> Entry:
        kind, link = inode.kind, inode.link
        if inode.names > 1:
            first = first_names.setdefault(id(inode), path)
            if first != path:
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
