"""Where the hash area is written: always onto zeros, and never left half written.

A file of its own is written under a temporary name and renamed. An area behind other content (``--hash-offset``, or
in the data file itself) extends the file, and a failure gives it its old length back. Bytes that lie where the
area would go are never overwritten: veritysetup does, and leaves stale bytes between its own.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.core.errors import OutsideFailure
from shiplap.verity.data import OpenedFile, UnfitFile


class UnwritableFile(UnfitFile):
    """The hash file cannot be created or extended."""


class OccupiedArea(UnwritableFile):
    """Something lies where the hash area would go."""


_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Around system calls that write ``path``: an OSError says so."""
    try:
        yield
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise (UnwritableFile(message) if error.errno in _REFUSED else OutsideFailure(message)) from error


@contextmanager
def writable_area(path: Path, data: OpenedFile | None, offset_bytes: int, end_bytes: int) -> Iterator[int]:
    """Yield a descriptor of a file whose bytes from ``offset_bytes`` to ``end_bytes``, its length, read as zeros.

    ``data``: the file that may be the same one, and is then extended, never replaced.
    When the context is left well, the content is on the disk under ``path``; when by an exception, everything is
    as before. Raises OccupiedArea, UnwritableFile, OutsideFailure (disk full).
    """
    with _writing(path):
        target = Path(os.path.realpath(path))
        status = target.stat() if target.exists() else None
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise UnwritableFile(f"{path} is not a regular file", hint="format into a file, then copy it to the device")
    own = status is None or data is None or (status.st_dev, status.st_ino) != data.identity
    if status is None or (own and offset_bytes == 0):
        mode = None if status is None else stat.S_IMODE(status.st_mode)
        with _fresh(target, path, end_bytes, mode) as descriptor:
            yield descriptor
    else:
        with _extended(target, path, offset_bytes, end_bytes) as descriptor:
            yield descriptor


def write_at(descriptor: int, data: bytes, offset_bytes: int, path: Path) -> None:
    """Write all of ``data``; raises OutsideFailure naming ``path``."""
    with _writing(path):
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], offset_bytes + written)


@contextmanager
def fresh_file(path: Path) -> Iterator[int]:
    """Yield a descriptor of an empty file that replaces ``path`` when the context is left well. Raises as writable_area."""
    with writable_area(path, None, 0, 0) as descriptor:
        yield descriptor


@contextmanager
def _fresh(target: Path, path: Path, end_bytes: int, mode: int | None) -> Iterator[int]:
    with _writing(path):
        descriptor, staged = _create_beside(target)
    try:
        try:
            with _writing(path):
                os.ftruncate(descriptor, end_bytes)
            yield descriptor
            with _writing(path):
                if mode is not None:
                    os.fchmod(descriptor, mode)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with _writing(path):
            staged.replace(target)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def _create_beside(target: Path) -> tuple[int, Path]:
    # Not tempfile: it would give the file mode 0600, and the umask can only be read by changing it.
    for number in itertools.count():
        staged = target.with_name(f".shiplap-{os.getpid()}-{number}")
        try:
            return os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), staged
        except FileExistsError:
            continue
    raise AssertionError("count() has no end")


@contextmanager
def _extended(target: Path, path: Path, offset_bytes: int, end_bytes: int) -> Iterator[int]:
    with _writing(path):
        descriptor = os.open(target, os.O_RDWR | os.O_CLOEXEC)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes > offset_bytes:
            raise OccupiedArea(
                f"{path} has {size_bytes - offset_bytes} bytes from byte {offset_bytes} on, where the hash area would go",
                hint=f"an old hash area there is removed by: truncate -s {offset_bytes} FILE"
                if offset_bytes
                else f"an area behind the data: --hash-offset {size_bytes}",
            )
        try:
            with _writing(path):
                os.ftruncate(descriptor, max(size_bytes, end_bytes))
            yield descriptor
            with _writing(path):
                os.fsync(descriptor)
        except BaseException:
            os.ftruncate(descriptor, size_bytes)
            raise
    finally:
        os.close(descriptor)
