"""What processes are using right now, so that garbage collection leaves it alone.

A process that looks a blob up writes its digest into a file of its own in ``use/`` and keeps that file locked as
long as it lives; the kernel drops the lock of a killed one. Looking up takes the cache's lock shared, removing takes it
alone: nobody can find a blob that is about to go.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.core.blobs import DIGEST
from shiplap.core.cache.folder import FILE_FLAGS, LOCK_NAME, UNMARKABLE, USES, names_in, opened

_NAME = re.compile(r"[0-9a-f]{24}")
_MAX_USE_BYTES = 64 << 20


@contextmanager
def locked(root: Path, *, alone: bool) -> Iterator[bool]:
    """Hold the cache's lock; False when it cannot be had shared (no cache of ours, or one that may not be read).

    Raises OSError for a lock that is needed ``alone`` and cannot be had.
    """
    try:
        with opened(root) as folder:
            descriptor = _open_lock(folder, alone)
    except OSError as error:
        if alone or error.errno not in UNMARKABLE:
            raise
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield True
    finally:
        os.close(descriptor)


def _open_lock(folder: int, alone: bool) -> int:
    if alone:
        try:
            # NFS wants a file that is open for writing.
            return os.open(LOCK_NAME, os.O_RDWR | FILE_FLAGS, dir_fd=folder)
        except PermissionError:
            pass  # another user's
    return os.open(LOCK_NAME, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)


class Use:
    """The digests that this process has looked up, in a locked file; the file goes with the object or the process."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._guard = threading.Lock()
        self._held: set[str] = set()
        self._descriptor = -1

    def holds(self, digest: str) -> bool:
        return digest in self._held

    def hold(self, digest: str) -> None:
        """Note ``digest``; the caller has the cache's lock shared. Where nothing can be written nothing is noted."""
        with self._guard:
            if digest in self._held:
                return
            try:
                if self._descriptor < 0:
                    self._descriptor = self._make()
                os.write(self._descriptor, f"{digest}\n".encode())
            except OSError as error:
                if error.errno not in UNMARKABLE:
                    raise
            self._held.add(digest)

    def _make(self) -> int:
        name = os.urandom(12).hex()
        with opened(self._root, USES, make=True) as folder:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | FILE_FLAGS, 0o666, dir_fd=folder)
            os.fchmod(descriptor, 0o644)  # whoever shares the cache may collect its garbage, whatever our umask
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        weakref.finalize(self, _forget, self._root, name, descriptor, os.getpid())
        return descriptor


def _forget(root: Path, name: str, descriptor: int, owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork has the descriptor too; the file is still its parent's
    try:
        with opened(root, USES) as folder:
            os.unlink(name, dir_fd=folder)
    except OSError:
        pass  # collected later
    os.close(descriptor)


def in_use(root: Path) -> set[str]:
    """The digests that living processes hold; files of dead ones are removed. The caller has the lock alone."""
    held: set[str] = set()
    try:
        with opened(root, USES) as folder:
            for name in filter(_NAME.fullmatch, names_in(folder)):
                try:
                    held.update(_held_in(folder, name))
                except FileNotFoundError:
                    pass  # its process ended just now
    except FileNotFoundError:
        pass
    return held


def _held_in(folder: int, name: str) -> list[str]:
    descriptor = os.open(name, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=folder)
    except BlockingIOError:
        text = os.pread(descriptor, min(os.fstat(descriptor).st_size, _MAX_USE_BYTES), 0).decode("ascii", "replace")
        return [line for line in text.split("\n") if DIGEST.fullmatch(line)]
    finally:
        os.close(descriptor)
    return []
