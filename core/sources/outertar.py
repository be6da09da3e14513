"""An archive file as the files of a source: a tar that is indexed once and then read at random.

Names and links inside are the archive's own and lead nowhere else: nothing is ever unpacked.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from shiplap.core.blobs import FETCH_AGAIN, SourceInvalidContent
from shiplap.core.compression import DETECT_BYTES, detect, uncompressed
from shiplap.core.entries import CHUNK_BYTES, FileSlice
from shiplap.core.errors import OutsideFailure
from shiplap.core.jsontext import shown
from shiplap.core.limits import Limits
from shiplap.core.tar.reader import TarHeader, read_headers
from shiplap.core.tar.window import Window

_MAX_LINKS = 40  # the kernel's own limit for one path
_MAX_PATH = 4096  # likewise
_ROOM_CHECK_BYTES = 64 << 20
_REGULAR = (b"0", b"7")  # "7", a contiguous file, is a regular one to everybody


class SourceMissing(SourceInvalidContent):
    """The file or folder that the source names cannot be opened."""


class OuterTar:
    """The members of a tar by name. Of several with one name the last counts, as when it is unpacked."""

    remedy = FETCH_AGAIN

    def __init__(self, tar: FileSlice, label: str, *, members_max: int) -> None:
        self.label = label
        self._tar = tar
        self._members: dict[str, tuple[int, int]] = {}
        self._symlinks: dict[str, str] = {}
        self._hardlinks: dict[str, str] = {}
        self._others: set[str] = set()
        self._repeated: set[str] = set()
        self._outside: set[str] = set()
        for count, header in enumerate(read_headers(Window(tar), what=label)):
            if count >= members_max:
                raise SourceInvalidContent(f"{label} has more than {members_max} members", hint="it is not an archive of images")
            if header.typeflag != b"g":
                self._add(header)

    def _add(self, header: TarHeader) -> None:
        name = _text(header.name)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts:
            self._outside.add("/".join(part for part in parts if part != ".."))
            return
        key = "/".join(parts)
        if header.typeflag == b"5" or not key:
            return
        for kind in (self._members, self._symlinks, self._hardlinks, self._others):
            if key in kind:
                self._repeated.add(key)
                if isinstance(kind, set):
                    kind.discard(key)
                else:
                    del kind[key]
        if header.typeflag in _REGULAR and not header.sparse:
            self._members[key] = (header.data_offset, header.data_bytes)
        elif header.typeflag == b"2":
            self._symlinks[key] = _text(header.linkname)
        elif header.typeflag == b"1":
            self._hardlinks[key] = _text(header.linkname)
        else:
            self._others.add(key)

    def is_ambiguous(self, path: str) -> bool:
        return self._resolve(path) in self._repeated

    def release(self, path: str) -> None:
        pass

    def size_bytes(self, path: str) -> int | None:
        found = self._find(path)
        return None if found is None else found[1]

    def slice(self, path: str) -> FileSlice:
        found = self._find(path)
        if found is None:
            raise SourceInvalidContent(f"{self.label} has no {shown(path)}")
        offset, size_bytes = found
        return FileSlice(self._tar.descriptor, self._tar.offset + offset, size_bytes, f"{shown(path)} in {self.label}")

    def _find(self, path: str) -> tuple[int, int] | None:
        key = self._resolve(path)
        if key in self._others:
            raise SourceInvalidContent(f"{shown(path)} in {self.label} is not a regular file")
        found = self._members.get(key)
        if found is None and key in self._outside:
            raise SourceInvalidContent(f"{shown(path)} lies outside of {self.label}: its name there is absolute or has '..'")
        return found

    def _resolve(self, path: str) -> str:
        """The member that ``path`` leads to through the archive's links; raises when it leaves the archive."""
        pending = path.split("/")[::-1]
        done: list[str] = []
        links = 0
        if path.startswith("/"):
            raise self._escapes(path)
        self._require_short(path)
        while pending:
            part = pending.pop()
            if part == "..":
                if not done:
                    raise self._escapes(path)
                done.pop()
            elif part not in ("", "."):
                done.append(part)
                key = "/".join(done)
                target = self._symlinks.get(key)
                if target is None and key in self._hardlinks:
                    target, done = self._hardlinks[key], [""]  # relative to the root of the archive
                if target is None:
                    continue
                links += 1
                if links > _MAX_LINKS:
                    raise SourceInvalidContent(f"{shown(path)} in {self.label} is a link that never ends")
                if target.startswith("/"):
                    raise self._escapes(path)
                self._require_short(target)
                done.pop()
                pending.extend(target.split("/")[::-1])
        return "/".join(done)

    def _require_short(self, path: str) -> None:
        if len(path) > _MAX_PATH:
            raise SourceInvalidContent(f"{self.label}: a path of {len(path)} characters inside it is too long: {shown(path[:60])}…")

    def _escapes(self, path: str) -> SourceInvalidContent:
        return SourceInvalidContent(f"{shown(path)} leads out of {self.label}", hint="absolute names and '..' are refused inside archives")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


@contextmanager
def open_tar(path: str, label: str, limits: Limits, *, sibling: str) -> Iterator[OuterTar]:
    """Open the archive at ``path``, which may be compressed as a whole or come through a pipe.

    ``sibling``: the transport to suggest when it is a folder. What is compressed is spooled,
    uncompressed, to an unlinked file under TMPDIR.
    """
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise missing(path, label, error, sibling) from error
    with file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        first = os.pread(file.fileno(), DETECT_BYTES, 0) if regular else b""
        if regular and detect(first) == "none":
            whole = FileSlice(file.fileno(), 0, os.fstat(file.fileno()).st_size, label)
            yield OuterTar(whole, label, members_max=limits.members)
            return
        with spooled_tar(_chunks(file, label), label, limits, limit_bytes=limits.layer_bytes) as tar:
            yield tar


@contextmanager
def spooled_tar(chunks: Iterable[bytes], label: str, limits: Limits, *, limit_bytes: int) -> Iterator[OuterTar]:
    """The archive that ``chunks`` are, of at most ``limit_bytes`` uncompressed, in an unlinked file under TMPDIR."""
    with _spool(chunks, label, limit_bytes) as whole:
        yield OuterTar(whole, label, members_max=limits.members)


def missing(path: str, label: str, error: OSError, sibling: str) -> SourceMissing | OutsideFailure:
    """The error for a source that cannot be opened."""
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        what = "a folder" if isinstance(error, IsADirectoryError) else "not a folder"
        return SourceMissing(f"{label} is {what}", hint=f"write {sibling}:{path}")
    if isinstance(error, FileNotFoundError):
        return SourceMissing(f"{path} does not exist", hint="a path ends at its first colon, and what follows is taken for a reference")
    if isinstance(error, PermissionError):
        return SourceMissing(f"{path} may not be read: {error.strerror}")
    return OutsideFailure(f"cannot open {path}: {error.strerror}")


@contextmanager
def _spool(chunks: Iterable[bytes], label: str, limit_bytes: int) -> Iterator[FileSlice]:
    size_bytes = 0
    checked_bytes = 0
    try:
        spool = tempfile.TemporaryFile(prefix="shiplap-archive-", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise _no_room(label, error.strerror) from error
    with spool:
        for piece in uncompressed(chunks, location=label, limit_bytes=limit_bytes):
            if size_bytes >= checked_bytes:
                _require_room(spool.fileno(), label)
                checked_bytes = size_bytes + _ROOM_CHECK_BYTES
            size_bytes += len(piece)
            view = memoryview(piece)
            while view:
                try:
                    view = view[spool.write(view) :]
                except OSError as error:
                    raise _no_room(label, error.strerror) from error
        yield FileSlice(spool.fileno(), 0, size_bytes, label)


def _chunks(file: IO[bytes], label: str) -> Iterator[bytes]:
    try:
        while piece := file.read(CHUNK_BYTES):
            yield piece
    except OSError as error:
        raise OutsideFailure(f"cannot read {label}: {error.strerror}") from error


def _require_room(descriptor: int, label: str) -> None:
    status = os.fstatvfs(descriptor)
    free_bytes = status.f_bavail * status.f_frsize
    if free_bytes < 2 * _ROOM_CHECK_BYTES:
        raise _no_room(label, f"{free_bytes >> 20} MiB are free")


def _no_room(label: str, why: str | None) -> OutsideFailure:
    return OutsideFailure(f"{label}: no room to unpack it in {tempfile.gettempdir()}: {why}", hint="set TMPDIR to a folder with more room")
