"""Entries as real files below a new folder, as whoever runs this may make them.

Names come from strangers, so no path is ever resolved by the kernel: every component is made or opened by its
own descriptor, and no symbolic link is followed. The folder appears when it is complete.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from shiplap.core.entries import Entry, Kind, printable
from shiplap.core.errors import OutsideFailure, Refused

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_XATTR = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL)
_NAME_MAX_BYTES = 255


class FolderUnusable(Refused):
    """The folder to extract to is not empty, or cannot be made."""


class NotAFile(Refused):
    """An entry that cannot be made where it says it is."""


def extract_to_folder(entries: Iterable[Entry], folder: Path, note: Callable[[str], object]) -> int:
    """Make ``folder`` (which is not there yet, or empty) of ``entries``; returns how many were made.

    Owners, devices and most attributes take root; without it they are left out, counted and noted, set-id bits too.
    Raises FolderUnusable, NotAFile, OutsideFailure; then nothing is left behind.
    """
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise FolderUnusable(f"{folder} is there and not an empty folder", hint="name a new folder, or write a tar with -o")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".shiplap-", dir=folder.parent))
    except OSError as error:
        raise FolderUnusable(f"cannot make {folder}: {error.strerror}") from error
    try:
        maker = _Maker(os.geteuid() == 0)
        maker.make(stage, entries)
        stage.replace(folder)
    except OSError as error:
        raise OutsideFailure(f"cannot extract to {folder}: {error.strerror}") from error
    finally:
        if stage.exists():
            shutil.rmtree(stage, ignore_errors=True)
    for what, count in sorted(maker.left_out.items()):
        note(f"{count} {what}")
    return maker.made


class _Maker:
    def __init__(self, root: bool) -> None:
        self._root = root
        self._skipped: set[bytes] = set()
        # From the top folder down to the one of the current entry; attributes are set when it is left.
        self._open: list[tuple[bytes, int, Entry | None]] = []
        self.left_out: Counter[str] = Counter()
        self.made = 0

    def make(self, top: Path, entries: Iterable[Entry]) -> None:
        self._open.append((b"", os.open(top, _DIRECTORY_FLAGS), None))
        try:
            for entry in entries:
                self._entry(entry)
            while self._open:
                self._leave()
        finally:
            for _, descriptor, _ in self._open:
                os.close(descriptor)

    def _entry(self, entry: Entry) -> None:
        if not entry.path:
            self._open[0] = (*self._open[0][:2], entry)
            return
        parent_path, _, name = entry.path.rpartition(b"/")
        if any(part in (b"", b".", b"..") or len(part) > _NAME_MAX_BYTES for part in entry.path.split(b"/")):
            raise NotAFile(f"'{printable(entry.path)}' is no path below the folder")
        try:
            parent = self._enter(parent_path)
            self._make(entry, parent, name)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
                raise NotAFile(f"'{printable(entry.path)}' cannot be made there: {error.strerror}") from error
            raise

    def _enter(self, path: bytes) -> int:
        """The descriptor of the directory ``path``, made with 0755 where no entry has made it."""
        while self._open[-1][0] != path and not path.startswith(self._open[-1][0] + b"/" if self._open[-1][0] else b""):
            self._leave()
        at, descriptor, _ = self._open[-1]
        for name in path[len(at) :].strip(b"/").split(b"/") if path != at else ():
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=descriptor)
            descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=descriptor)
            at = at + b"/" + name if at else name
            self._open.append((at, descriptor, None))
        return descriptor

    def _leave(self) -> None:
        _, descriptor, entry = self._open.pop()
        try:
            if entry is not None:
                self._attributes(entry, descriptor)
        finally:
            os.close(descriptor)

    def _make(self, entry: Entry, parent: int, name: bytes) -> None:
        if entry.kind is Kind.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=parent)
            self._open.append((entry.path, os.open(name, _DIRECTORY_FLAGS, dir_fd=parent), entry))
        elif entry.kind is Kind.REGULAR:
            self._file(entry, parent, name)
        elif entry.kind is Kind.HARDLINK:
            if entry.link in self._skipped:
                self.left_out["devices were left out: only root can make them"] += 1
                return
            self._link(entry, parent, name)
        elif entry.kind is Kind.SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
            self._times(entry, name, parent)
        elif entry.kind is Kind.FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent)
            self._times(entry, name, parent)
        elif self._root:
            kind = stat.S_IFCHR if entry.kind is Kind.CHARACTER else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(*entry.device), dir_fd=parent)
            self._times(entry, name, parent)
        else:
            self._skipped.add(entry.path)
            self.left_out["devices were left out: only root can make them"] += 1
            return
        self.made += 1

    def _file(self, entry: Entry, parent: int, name: bytes) -> None:
        assert entry.content is not None
        descriptor = os.open(name, _FILE_FLAGS, 0o600, dir_fd=parent)
        with os.fdopen(descriptor, "wb") as file:
            for piece in entry.content.chunks():
                file.write(piece)
            file.flush()
            self._attributes(entry, descriptor)

    def _link(self, entry: Entry, parent: int, name: bytes) -> None:
        """The target's folder is found by descriptors as well: its path may lead through a link that an entry made."""
        folder, _, base = entry.link.rpartition(b"/")
        descriptor = os.dup(self._open[0][1])
        try:
            for part in folder.split(b"/") if folder else ():
                below = os.open(part, _DIRECTORY_FLAGS, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            os.link(base, name, src_dir_fd=descriptor, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(descriptor)

    def _times(self, entry: Entry, name: bytes, parent: int) -> None:
        """Attributes of what cannot be opened without following or waiting."""
        if self._root:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind is not Kind.SYMLINK:
            os.chmod(name, self._mode(entry), dir_fd=parent)  # just made, in a folder that nobody else can enter
        if entry.xattrs:
            self.left_out["extended attributes of links, fifos and devices were left out"] += len(entry.xattrs)
        os.utime(name, ns=_times_of(entry), dir_fd=parent, follow_symlinks=False)

    def _attributes(self, entry: Entry, descriptor: int) -> None:
        if self._root:
            os.fchown(descriptor, entry.uid, entry.gid)
        for name, value in entry.xattrs:
            try:
                os.setxattr(descriptor, name, value)
            except OSError as error:
                if error.errno not in _NO_XATTR:
                    raise
                self.left_out["extended attributes could not be set"] += 1
        os.fchmod(descriptor, self._mode(entry))
        os.utime(descriptor, ns=_times_of(entry))

    def _mode(self, entry: Entry) -> int:
        if not self._root and entry.mode & 0o6000:
            self.left_out["set-id bits were left out: the files are not their owners'"] += 1
            return entry.mode & 0o1777
        return entry.mode


def _times_of(entry: Entry) -> tuple[int, int]:
    at = entry.mtime_epoch * 1_000_000_000 + entry.mtime_nanoseconds
    return at, at
