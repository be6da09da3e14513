"""A blob on its way in."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.core.blobs import BlobCorrupt
from shiplap.core.cache.folder import BLOBS, FILE_FLAGS, PARTIALS, guarded, opened
from shiplap.core.entries import CHUNK_BYTES


class Partial:
    """A blob on its way in, held by this process alone.

    What an earlier, broken transfer left may be damaged itself (a power cut): when :meth:`finish` refuses a blob that
    was resumed, it is worth one more try from the start.
    """

    def __init__(self, root: Path, digest: str, size_bytes: int | None, descriptor: int) -> None:
        self._root = root
        self._digest = digest
        self._size_bytes = size_bytes
        self._descriptor = descriptor
        self._hasher = hashlib.new(digest.partition(":")[0])
        self._hashed_bytes = 0
        with guarded(root, "read"):
            self._offset_bytes = os.fstat(descriptor).st_size
        if size_bytes is not None and self._offset_bytes > size_bytes:
            self.restart()

    @property
    def offset_bytes(self) -> int:
        """What is there: the bytes an earlier, broken transfer left, and those written since."""
        return self._offset_bytes

    def restart(self) -> None:
        """Throw away what is there."""
        with guarded(self._root, "write to"):
            os.ftruncate(self._descriptor, 0)
        self._offset_bytes = self._hashed_bytes = 0
        self._hasher = hashlib.new(self._hasher.name)

    def write(self, data: bytes) -> None:
        """Append ``data``. Raises BlobCorrupt as soon as it is too much, and keeps nothing then."""
        self._catch_up()
        if self._size_bytes is not None and self._offset_bytes + len(data) > self._size_bytes:
            raise self._dropped(f"{self._digest} has more than the {self._size_bytes} bytes it should have")
        view = memoryview(data)
        with guarded(self._root, "write to"):
            while view:
                written = os.pwrite(self._descriptor, view, self._offset_bytes)
                self._hasher.update(view[:written])
                self._offset_bytes += written
                self._hashed_bytes += written
                view = view[written:]

    def finish(self) -> None:
        """Verify size and digest and make the blob visible; raises BlobCorrupt and keeps nothing."""
        self._catch_up()
        if self._size_bytes not in (None, self._offset_bytes):
            raise self._dropped(f"{self._digest} has {self._offset_bytes} bytes instead of {self._size_bytes}")
        actual = f"{self._hasher.name}:{self._hasher.hexdigest()}"
        if actual != self._digest:
            raise self._dropped(f"a blob with the digest {actual} came instead of {self._digest}")
        algorithm, _, name = self._digest.partition(":")
        with guarded(self._root, "write to"):
            os.fsync(self._descriptor)
            with opened(self._root, PARTIALS) as source, opened(self._root, BLOBS, algorithm, make=True) as target:
                os.replace(partial_name(self._digest), name, src_dir_fd=source, dst_dir_fd=target)
                os.fsync(target)

    def _catch_up(self) -> None:
        """Hash what an earlier transfer left, once it is clear that it is used."""
        while self._hashed_bytes < self._offset_bytes:
            with guarded(self._root, "read"):
                piece = os.pread(self._descriptor, min(CHUNK_BYTES, self._offset_bytes - self._hashed_bytes), self._hashed_bytes)
            if not piece:
                raise self._dropped(f"the beginning of {self._digest} in the cache became shorter while it was read")
            self._hasher.update(piece)
            self._hashed_bytes += len(piece)

    def _dropped(self, why: str) -> BlobCorrupt:
        """The error that says ``why``; nothing is kept."""
        self.restart()
        with guarded(self._root, "write to"), opened(self._root, PARTIALS) as folder:
            os.unlink(partial_name(self._digest), dir_fd=folder)
        return BlobCorrupt(why, hint=_WRONG)


def partial_name(digest: str) -> str:
    """The name of a partial: as in a flat export, the colon is a dash."""
    return digest.replace(":", "-")


@contextmanager
def begun(root: Path, digest: str) -> Iterator[int]:
    """The partial's descriptor, locked; waits while another process has it. Raises CacheUnusable, OutsideFailure.

    What the waiting ended with may be a finished blob: the caller looks first.
    """
    with guarded(root, "write to"), opened(root, PARTIALS, make=True) as folder:
        descriptor = _lock(folder, partial_name(digest))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(folder: int, name: str) -> int:
    while True:
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | FILE_FLAGS, 0o666, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO):
                raise
            try:
                _take_over(folder, name, error)
            except FileNotFoundError:
                pass  # finished meanwhile
            continue
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still(folder, name, descriptor):
                if _is_ours(os.fstat(descriptor)):
                    return descriptor
                os.unlink(name, dir_fd=folder)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # finished or thrown away while we waited; look again


def _is_ours(status: os.stat_result) -> bool:
    """Whether it may be written to: no fifo, no other name of somebody's file, nothing that another user goes on writing to.

    An empty file may be the one just made, whatever owner a network file system gives it.
    """
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and (not status.st_size or status.st_uid == os.geteuid())


def _is_still(folder: int, name: str, descriptor: int) -> bool:
    """Whether the locked file is the one that the name means now."""
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _take_over(folder: int, name: str, error: OSError) -> None:
    """Remove a link, a fifo, or a partial of another user that nobody works on; raises OSError where we may not."""
    if error.errno in (errno.EACCES, errno.EPERM):
        if not os.access(".", os.W_OK, dir_fd=folder, effective_ids=True):
            raise error
        descriptor = os.open(name, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)  # a lock needs no right to write
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still(folder, name, descriptor):
                os.unlink(name, dir_fd=folder)
        finally:
            os.close(descriptor)
        return
    os.unlink(name, dir_fd=folder)


_WRONG = "what was fetched is not what was asked for; fetch it again, and distrust the source when it stays so"
