"""From a layer's tar to the tree that an engine's overlay driver unpacks from it.

The engine runs its archive code (``Unpack``) over the tar inside the layer's own directory, entry by
entry, through the kernel; these rules give the same tree without running either. What they follow:
moby's archive.go (``Unpack``, ``createTarFile``), archive_linux.go (whiteouts to overlayfs form),
time.go (times outside 1970 to 2262 become 0), tar-split's packer.go (duplicate paths) and the kernel's
path walk, where they are visible in the result. Every rule is tried against a real ``docker load``; where
Podman's containers/storage does otherwise, :mod:`shiplap.core.layer.dialect` says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from shiplap.core.entries import Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.dialect import MOBY, Dialect
from shiplap.core.layer.tree import OPAQUE, Inode, LayerTree
from shiplap.core.limits import PastLimit
from shiplap.core.tar.reader import TarHeader
from shiplap.core.tar.records import KINDS

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
NAME_MAX_BYTES = 255
PATH_MAX_BYTES = 4095
SYMLINKS_MAX = 40
# Components of link targets that one layer may make us follow: forty long links before every entry would take days.
LINK_STEPS_MAX = 20_000_000
XATTR_NAME_MAX_BYTES = 255
XATTR_VALUE_MAX_BYTES = 65536
_TIME_MAX = (9223372036, 854775807)  # Go's time.Unix(0, 1<<63-1): later times become 0 in the engine
_ID_UNCHANGED = 0xFFFFFFFF
_RAISE_ENTRIES = "raise `limits: {entries: …}` in the manifest, or give --limit entries=…, if you trust the image"
_CAPABILITY = b"security.capability"
_NEEDS_CLEANING = re.compile(rb"(?:^|/)\.{0,2}(?:/|$)")
_NAMESPACES = (b"user", b"trusted", b"security")
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")


class LayerRefused(Refused):
    """A layer that the engine cannot unpack, or that leaves its root."""


class LayerTooLarge(LayerRefused, PastLimit):
    """More entries than the limit."""


class LayerBuilder:
    """Applies entries one after another; ``finish`` gives the tree.

    ``where`` names image and layer in errors; ``epoch`` is the time of what the engine stamps "now";
    ``note`` receives warnings; ``entries_max`` bounds the number of entries and implied directories.
    ``root``: the directory to unpack into, an empty one of the dialect when it is not given.
    """

    def __init__(
        self,
        *,
        where: str,
        epoch: int,
        entries_max: int,
        note: Callable[[str], object],
        dialect: Dialect = MOBY,
        root: Inode | None = None,
    ) -> None:
        self._where = where
        self._epoch = epoch
        self._entries_max = entries_max
        self._note = note
        self._dialect = dialect
        self._root = root or Inode(Kind.DIRECTORY, dialect.root_mode, 0, 0, epoch)
        self._seen: set[bytes] = set()
        self._inodes = 0
        self._left_out: tuple[int, str] = (0, "")
        self._link_steps = 0
        # (path, time) of every directory entry, and whether any of these paths may lead elsewhere by now.
        self._directories: list[tuple[bytes, int, int]] = []
        self._paths_changed = False
        # The last parent directory, since neighbours in a tar mostly share it, and whether a symbolic
        # link was on the way to it.
        self._cached_parent: tuple[bytes, Inode] = (b"", self._root)
        self._through_link = self._cached_through_link = False
        self.displaced: set[int] = set()
        """Offsets of file contents that later entries took from their names."""

    def add(self, header: TarHeader) -> bool:
        """Apply one entry; says whether it made a regular file that lies at the entry's own name.

        No for everything else, also for a file that was reached through a symbolic link: the engine
        opens names from outside the layer, where an absolute link leads elsewhere.
        Raises LayerRefused naming image, layer and entry.
        """
        try:
            return self._add(header)
        except Unacceptable as problem:
            kind = LayerTooLarge if isinstance(problem, _TooMany) else LayerRefused
            raise kind(f"{self._where}, entry '{printable(header.name)}': {problem}", hint=problem.hint) from None

    def finish(self) -> LayerTree:
        """The tree, when every entry has been added. Raises LayerRefused."""
        if self._paths_changed:
            self._stamp_directories()
        left_out, first = self._left_out
        if left_out:
            self._note(f"{self._where}: xattrs in no namespace of Linux are left out, {left_out} in all, the first is {first}")
        tree = LayerTree(self._root)
        too_long = tree.measure(PATH_MAX_BYTES)
        if too_long is not None:
            raise LayerRefused(
                f"{self._where}: through symbolic links it makes a path of {len(too_long)} bytes, the limit is {PATH_MAX_BYTES}:"
                f" {printable(too_long[:80])}…"
            )
        return tree

    def _stamp_directories(self) -> None:
        """The engine sets the directories' times at the end, by path, to whatever lies there then (archive.go, ``Unpack``)."""
        for path, seconds, nanoseconds in self._directories:
            try:
                inode = self._walk(path, make=False)
                if inode is None:
                    raise Unacceptable("a later entry took the directory away, and the engine cannot set its time any more")
            except Unacceptable as problem:
                raise LayerRefused(f"{self._where}, entry '{printable(path)}': {problem}", hint=problem.hint) from None
            inode.mtime_epoch, inode.mtime_nanoseconds = seconds, nanoseconds

    def _add(self, header: TarHeader) -> bool:
        name = header.name
        self._count(clean(name))
        if header.typeflag == b"g":
            return False
        path = inside_root(name)
        if not path:
            if name.startswith(b"/") and header.typeflag != b"5":
                raise Unacceptable("it would replace the root directory of the layer")
            self._root_entry(header)
            return False
        if header.sparse:
            raise Unacceptable("it is a GNU sparse file, which no engine can give back", "rebuild the layer with `tar` without --sparse")
        kind = KINDS.get(header.typeflag)
        parent_path, _, base = path.rpartition(b"/")
        parent = self._parent(parent_path)
        assert parent.children is not None
        if base.startswith(WHITEOUT_PREFIX):
            self._remove(parent_path, parent, base, kind)
            self._whiteout(parent, base, header)
            return False
        if kind is None:
            raise Unacceptable(f"its type '{printable(header.typeflag)}' is none that the engine unpacks")
        if len(base) > NAME_MAX_BYTES:
            raise Unacceptable(f"a name of {len(base)} bytes; the limit is {NAME_MAX_BYTES}")
        self._remove(parent_path, parent, base, kind)
        inode = parent.children.get(base)
        if kind is Kind.HARDLINK:
            self._hard_link(parent, base, header)
            return False
        if inode is None:
            inode = self._new(kind, header)
            parent.children[base] = inode
        self._apply(inode, kind, header)
        if kind is Kind.DIRECTORY:
            self._directories.append((path, inode.mtime_epoch, inode.mtime_nanoseconds))
        return kind is Kind.REGULAR and not self._through_link

    def _count(self, cleaned: bytes) -> None:
        # tar-split refuses what it cannot name twice; a leading slash makes another name there.
        if cleaned in self._seen:
            raise Unacceptable("the path is in the layer twice, which the engine refuses")
        self._seen.add(cleaned)
        if len(self._seen) > self._entries_max:
            raise _TooMany(f"the layer has more than {self._entries_max} entries", _RAISE_ENTRIES)

    def _root_entry(self, header: TarHeader) -> None:
        """The engine makes the root directory itself; not every one lets a layer change it."""
        if header.name.startswith(b"/") and self._dialect.applies_root_entry:
            self._apply(self._root, Kind.DIRECTORY, header)
            self._directories.append((b"", self._root.mtime_epoch, self._root.mtime_nanoseconds))

    def _apply(self, inode: Inode, kind: Kind, header: TarHeader) -> None:
        inode.mtime_epoch, inode.mtime_nanoseconds = bounded_time(header.mtime_epoch, header.mtime_nanoseconds)
        _change_owner(inode, header)
        if header.xattrs:
            self._set_xattrs(inode, header)
        if kind is not Kind.SYMLINK:
            inode.mode = header.mode & 0o7777

    def _new(self, kind: Kind, header: TarHeader) -> Inode:
        inode = self._inode(kind, 0o777 if kind is Kind.SYMLINK else 0)
        if kind is Kind.REGULAR:
            inode.offset, inode.size_bytes = header.data_offset, header.data_bytes
        elif kind is Kind.SYMLINK:
            if not header.linkname:
                raise Unacceptable("a symbolic link without a target")
            if len(header.linkname) > PATH_MAX_BYTES:
                raise Unacceptable(f"a link target of {len(header.linkname)} bytes; the limit is {PATH_MAX_BYTES}")
            inode.link, inode.size_bytes = header.linkname, len(header.linkname)
        elif kind is Kind.CHARACTER or kind is Kind.BLOCK:
            # mknod(2) takes 12 bits major and 20 bits minor and cuts the rest (include/linux/kdev_t.h).
            inode.device = (header.devmajor & 0xFFF, header.devminor & 0xFFFFF)
        return inode

    def _inode(self, kind: Kind, mode: int) -> Inode:
        self._inodes += 1
        if self._inodes > 2 * self._entries_max:
            raise _TooMany(f"the layer implies more than {2 * self._entries_max} directories and files", _RAISE_ENTRIES)
        return Inode(kind, mode, 0, 0, self._epoch)

    def _remove(self, parent_path: bytes, parent: Inode, base: bytes, kind: Kind | None) -> None:
        """What is there goes, unless a directory meets a directory (archive.go: "merge them")."""
        assert parent.children is not None
        old = parent.children.get(base)
        if old is None or (old.kind is Kind.DIRECTORY and kind is Kind.DIRECTORY):
            return
        self._detach(parent, base)
        if self._through_link and self._walk(parent_path, make=False) is not parent:
            raise Unacceptable("it takes away what its own path goes through")

    def _detach(self, parent: Inode, base: bytes) -> None:
        """Take ``base`` away with all that lies below it."""
        assert parent.children is not None
        old = parent.children.pop(base)
        if old.kind is Kind.DIRECTORY or old.kind is Kind.SYMLINK:
            self._paths_changed = True
        self._cached_parent = (b"", self._root)
        self._cached_through_link = False
        removed = [old]
        while removed:
            inode = removed.pop()
            self._forget(inode)
            if inode.children:
                removed.extend(inode.children.values())

    def _forget(self, inode: Inode) -> None:
        """One name of ``inode`` is gone."""
        inode.names -= 1
        if inode.kind is Kind.REGULAR and inode.size_bytes:
            self.displaced.add(inode.offset)

    def _whited_out(self, base: bytes) -> bytes:
        """The name that a whiteout takes away."""
        original = base[len(WHITEOUT_PREFIX) :]
        if original in (b"", b".", b".."):
            raise Unacceptable("a whiteout of nothing that could be named")
        if len(original) > NAME_MAX_BYTES:
            raise Unacceptable(f"a whiteout of a name of {len(original)} bytes; the limit is {NAME_MAX_BYTES}")
        return original

    def _whiteout(self, parent: Inode, base: bytes, header: TarHeader) -> None:
        assert parent.children is not None
        if base == OPAQUE_MARKER:
            parent.set_xattr(*OPAQUE)
            return
        original = self._whited_out(base)
        if original in parent.children:
            raise Unacceptable("a whiteout of a path that the same layer made before, which the engine refuses")
        whiteout = self._inode(Kind.CHARACTER, 0)
        _change_owner(whiteout, header)
        parent.children[original] = whiteout

    def _hard_link(self, parent: Inode, base: bytes, header: TarHeader) -> None:
        assert parent.children is not None
        target = self._find(inside_root(header.linkname))
        if target is None:
            raise Unacceptable(
                f"a hard link to '{printable(header.linkname)}', which the layer has not made before it",
                "a hard link cannot reach a lower layer's file or a later entry; the engine refuses it too",
            )
        if target.kind is Kind.DIRECTORY:
            raise Unacceptable(f"a hard link to the directory '{printable(header.linkname)}'")
        parent.children[base] = target
        target.names += 1
        # The kernel drops file capabilities on every chown, also one that changes nothing.
        vain = self._dialect.leaves_owner and (header.uid & 0xFFFFFFFF, header.gid & 0xFFFFFFFF) == (target.uid, target.gid)
        if target.xattrs is not None and not vain:
            target.xattrs.pop(_CAPABILITY, None)
        _change_owner(target, header)
        if header.xattrs:
            self._set_xattrs(target, header)
        if target.kind is not Kind.SYMLINK:
            target.mode = header.mode & 0o7777
            target.mtime_epoch, target.mtime_nanoseconds = bounded_time(header.mtime_epoch, header.mtime_nanoseconds)

    def _set_xattrs(self, inode: Inode, header: TarHeader) -> None:
        for key, value in header.xattrs:
            namespace, _, rest = key.partition(b".")
            if key.startswith((b"trusted.overlay.", b"user.overlay.")):
                raise Unacceptable(f"it brings the overlayfs mark {printable(key)}, which only an engine may set")
            if key in _ACLS and inode.kind is not Kind.SYMLINK:
                raise Unacceptable("it has a POSIX ACL, which SquashFS cannot hold", "remove it in the image (`setfacl -b`)")
            if len(key) > XATTR_NAME_MAX_BYTES or len(value) > XATTR_VALUE_MAX_BYTES:
                raise Unacceptable(f"xattr '{printable(key[:40])}' is longer than Linux allows")
            if key and namespace not in _NAMESPACES:
                count, first = self._left_out
                self._left_out = (count + 1, first or f"'{printable(key)}' of '{printable(header.name)}'")
                continue
            if key in self._dialect.ignored_xattrs:
                continue
            if namespace == b"user" and inode.kind not in (Kind.REGULAR, Kind.DIRECTORY):
                if self._dialect.refuses_user_xattrs:
                    raise Unacceptable(f"it has '{printable(key)}', which Linux has on files and directories only, and the engine refuses")
                continue  # the kernel says EPERM, the engine goes on
            if not rest or (key == _CAPABILITY and not _capability_is_valid(value)):
                raise Unacceptable(f"xattr '{printable(key)}' is one that the kernel refuses")
            inode.set_xattr(key, value)

    def _parent(self, path: bytes) -> Inode:
        """The directory ``path``, made with 0755 0:0 where nothing is there yet."""
        if path == self._cached_parent[0]:
            self._through_link = self._cached_through_link
            return self._cached_parent[1]
        directory = self._walk(path, make=True)
        if directory is None or directory.kind is not Kind.DIRECTORY:
            raise Unacceptable(f"its parent '{printable(path)}' is no directory")
        self._cached_parent = (path, directory)
        self._cached_through_link = self._through_link
        return directory

    def _find(self, path: bytes) -> Inode | None:
        """The object at ``path``; its last component is not followed, as link(2) does not."""
        parent_path, _, base = path.rpartition(b"/")
        parent = self._walk(parent_path, make=False)
        if parent is None or parent.children is None:
            return None
        return parent.children.get(base) if base else None

    def _walk(self, path: bytes, *, make: bool) -> Inode | None:
        """Follow ``path`` from the root, through symbolic links, inside the root."""
        trail = [self._root]
        self._through_link = False
        pending = path.split(b"/")[::-1] if path else []
        links = 0
        followed = 0  # components of pending that come from a link's target: those are never made
        while pending:
            component = pending.pop()
            from_link = followed > 0
            followed = max(0, followed - 1)
            directory = trail[-1]
            if directory.children is None:
                raise Unacceptable(f"its path goes through '{printable(path)}', which is no directory")
            if component in (b"", b"."):
                continue
            if component == b"..":
                if len(trail) == 1:
                    raise Unacceptable("its path climbs above the root of the layer through a symbolic link")
                trail.pop()
                continue
            inode = directory.children.get(component)
            if inode is None:
                if from_link:
                    raise Unacceptable("its path goes through a symbolic link whose target is not in the layer")
                if not make:
                    return None
                if len(component) > NAME_MAX_BYTES:
                    raise Unacceptable(f"a name of {len(component)} bytes; the limit is {NAME_MAX_BYTES}")
                # mkdir(2) hands the setgid bit of the directory above down.
                inode = directory.children[component] = self._inode(Kind.DIRECTORY, 0o755 | directory.mode & 0o2000)
            elif inode.kind is Kind.SYMLINK:
                links += 1
                self._through_link = True
                if links > SYMLINKS_MAX:
                    raise Unacceptable(f"its path goes through more than {SYMLINKS_MAX} symbolic links")
                target = inode.link.split(b"/")
                self._link_steps += len(target)
                if self._link_steps > LINK_STEPS_MAX:
                    raise Unacceptable("the layer's paths go through symbolic links for ever")
                if inode.link.startswith(b"/"):
                    trail = [self._root]
                pending.extend(reversed(target))
                followed += len(target)
                continue
            trail.append(inode)
        return trail[-1]


class Unacceptable(Exception):
    """What is wrong with one entry; :meth:`LayerBuilder.add` says where."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class _TooMany(Unacceptable):
    """The first entry past a limit."""


def clean(name: bytes) -> bytes:
    """Go's ``filepath.Clean``: the name under which tar-split and the engine know an entry."""
    if not _NEEDS_CLEANING.search(name):
        return name
    if name.startswith(b"./"):  # every name of many tars; the rest is mostly clean
        rest = name[2:]
        if rest and not rest.startswith(b"/") and not _NEEDS_CLEANING.search(rest):
            return rest
    rooted = name.startswith(b"/")
    kept: list[bytes] = []
    for component in name.split(b"/"):
        if component in (b"", b"."):
            continue
        if component == b"..":
            if kept and kept[-1] != b"..":
                kept.pop()
                continue
            if rooted:
                continue
        kept.append(component)
    return (b"/" if rooted else b"") + b"/".join(kept) or b"."


def inside_root(name: bytes) -> bytes:
    """``name`` as a path relative to the root, lexically cleaned; ``b""`` is the root itself.

    Stricter than Docker on purpose: it puts what climbs above the root back inside, we refuse it.
    """
    path = clean(name.lstrip(b"/"))
    if path == b".":
        return b""
    if path == b".." or path.startswith(b"../"):
        raise Unacceptable(f"'{printable(name)}' leaves the root of the layer", "Docker would put it inside the root; shiplap refuses")
    if len(path) > PATH_MAX_BYTES:
        raise Unacceptable(f"a path of {len(path)} bytes; the limit is {PATH_MAX_BYTES}")
    return path


def bounded_time(seconds: int, nanoseconds: int) -> tuple[int, int]:
    """The time that reaches the disk: before 1970 or after 2262 the engine writes 0."""
    return (seconds, nanoseconds) if (0, 0) <= (seconds, nanoseconds) <= _TIME_MAX else (0, 0)


def _change_owner(inode: Inode, header: TarHeader) -> None:
    """chown(2): ids are cut to 32 bits, and -1 leaves what is there."""
    uid, gid = header.uid & 0xFFFFFFFF, header.gid & 0xFFFFFFFF
    if uid != _ID_UNCHANGED:
        inode.uid = uid
    if gid != _ID_UNCHANGED:
        inode.gid = gid


def _capability_is_valid(value: bytes) -> bool:
    """What the kernel lets anyone store as file capability (security/commoncap.c, ``validheader``)."""
    revision = int.from_bytes(value[:4], "little") & ~1  # bit 0: effective
    if len(value) == 24:
        return revision == 0x03000000 and value[20:] != b"\xff\xff\xff\xff"  # -1 is no root user id
    return len(value) == 20 and revision == 0x02000000
