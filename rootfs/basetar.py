"""The base root file system's tar as a flat file: as it is where it is plain, else uncompressed under TMPDIR."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.core.compression import DETECT_BYTES, TooLarge, detect, uncompressed
from shiplap.core.entries import CHUNK_BYTES, FileSlice
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.libarchive import decompressed

_ROOM_CHECK_BYTES = 64 << 20
# Compressions that only libarchive reads here: lz4 frames, lzip, lzma of before xz, compress.
_LIBARCHIVE_MAGIC = (b"\x04\x22\x4d\x18", b"LZIP", b"\x5d\x00\x00", b"\x1f\x9d")


class BaseUnreadable(Refused):
    """The base root file system cannot be opened, or is no tar."""


@contextmanager
def open_base_tar(path: Path, limit_bytes: int) -> Iterator[FileSlice]:
    """The uncompressed tar of at most ``limit_bytes``; ``path`` is a file or a pipe, compressed or not.

    Raises BaseUnreadable, TooLarge, StreamCorrupt, LibarchiveError, ProgramMissing, OutsideFailure (no room under TMPDIR).
    """
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        hint = "give the root file system as a tar: tar -C ROOT --numeric-owner --xattrs -cf rootfs.tar ." if path.is_dir() else None
        raise BaseUnreadable(f"cannot open the base root file system {path}: {error.strerror}", hint=hint) from error
    with file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        first = os.pread(file.fileno(), DETECT_BYTES, 0) if regular else b""
        by_libarchive = first.startswith(_LIBARCHIVE_MAGIC)
        if regular and not by_libarchive and detect(first) == "none":
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes == 0:
                raise BaseUnreadable(f"the base root file system {path} is empty")
            yield FileSlice(file.fileno(), 0, size_bytes, path.name)
            return
        if by_libarchive:
            pieces = _limited(decompressed(file.fileno()), path, limit_bytes)
        else:
            pieces = uncompressed(iter(lambda: file.read(CHUNK_BYTES), b""), location=str(path), limit_bytes=limit_bytes)
        with _spooled(pieces, path) as tar:
            yield tar


def _limited(pieces: Iterator[bytes], path: Path, limit_bytes: int) -> Iterator[bytes]:
    passed_bytes = 0
    for piece in pieces:
        passed_bytes += len(piece)
        if passed_bytes > limit_bytes:
            raise TooLarge(f"{path}: it has more than {limit_bytes} bytes uncompressed", hint="give --limit layer-bytes=… if you trust it")
        yield piece


@contextmanager
def _spooled(pieces: Iterator[bytes], path: Path) -> Iterator[FileSlice]:
    size_bytes = checked_bytes = 0
    try:
        spool = tempfile.TemporaryFile(prefix="shiplap-base-", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise _no_room(path, error.strerror) from error
    with spool:
        for piece in pieces:
            if size_bytes >= checked_bytes:
                if shutil.disk_usage(tempfile.gettempdir()).free < _ROOM_CHECK_BYTES:
                    raise _no_room(path, "the disk is nearly full")
                checked_bytes = size_bytes + _ROOM_CHECK_BYTES // 2
            size_bytes += len(piece)
            view = memoryview(piece)
            while view:
                try:
                    view = view[spool.write(view) :]
                except OSError as error:
                    raise _no_room(path, error.strerror) from error
        if size_bytes == 0:
            raise BaseUnreadable(f"the base root file system {path} is empty")
        yield FileSlice(spool.fileno(), 0, size_bytes, path.name)


def _no_room(path: Path, why: str | None) -> OutsideFailure:
    return OutsideFailure(f"cannot uncompress {path} into {tempfile.gettempdir()}: {why}", hint="set TMPDIR to a larger disk")
