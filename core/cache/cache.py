"""The cache's folder: ``blobs/sha256/<hex>``, as in an OCI layout, so that any tool can look into it."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from shiplap.core.blobs import DIGEST, Files
from shiplap.core.cache.files import CacheFiles
from shiplap.core.cache.folder import BLOBS, PARTIALS, CacheUnusable, guarded, names_in, opened, prepare
from shiplap.core.cache.partial import Partial, begun, partial_name
from shiplap.core.cache.use import Use, locked

ALGORITHMS = ("sha256", "sha512")
# How exact "last used" is: a blob's modification time is brought forward at most this often.
_USED_STEP_SECONDS = 3600


class Cache:
    """Made on first use. Safe for several processes at once; what is visible under its digest is complete.

    Reading needs no right to write. A blob that this object has found stays until the object or the process ends,
    whatever a garbage collection elsewhere wants (where the cache cannot be written, nobody can be told, though).
    Every method raises CacheUnusable for a folder that is no good, and OutsideFailure for a full or broken disk.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # whatever folder the process changes to later
        self._use = Use(self.root)

    def has(self, digest: str, size_bytes: int | None = None) -> bool:
        """Whether the blob is there (and has that size). Looks at no content."""
        found_bytes = self._find(digest)
        return found_bytes is not None and size_bytes in (None, found_bytes)

    def files(self, *, hold: bool = True) -> AbstractContextManager[Files]:
        """The blobs as the files of a source (``blobs/sha256/<hex>``, see ``blob_path``); unverified slices, so read through StoredBlob.

        ``hold`` False: looking at them is no use of them; they may go, and seem no younger.
        """
        return CacheFiles(self.root, self._find if hold else self._glimpse)

    @contextmanager
    def partial(self, digest: str, size_bytes: int | None) -> Iterator[Partial | None]:
        """Bring a blob in. Waits while another process brings the same one; None when it is there by then.

        Left without ``finish`` the bytes so far stay, for a later try to resume.
        """
        _require_digest(digest)
        if self.has(digest, size_bytes):
            yield None
            return
        prepare(self.root)
        with begun(self.root, digest) as descriptor:
            with guarded(self.root), locked(self.root, alone=False) as is_locked:
                if is_locked:
                    self._use.hold(digest)
            if self.has(digest, size_bytes):
                self._drop_partial(digest)
                yield None
            else:
                yield Partial(self.root, digest, size_bytes, descriptor)

    def add(self, digest: str, size_bytes: int | None, chunks: Iterable[bytes]) -> None:
        """Bring in a blob that is at hand; nothing is done when it is there already. Raises BlobCorrupt."""
        with self.partial(digest, size_bytes) as partial:
            if partial is None:
                return
            partial.restart()
            for chunk in chunks:
                partial.write(chunk)
            partial.finish()

    def discard(self, digest: str) -> bool:
        """Remove a blob that turned out not to be what its name says; False where this user may not, and it stays.

        Whoever found it damaged has that to say, which is more than that the cache is read-only.
        """
        _require_digest(digest)
        algorithm, _, name = digest.partition(":")
        with guarded(self.root, "write to"):
            try:
                with opened(self.root, BLOBS, algorithm) as folder:
                    os.unlink(name, dir_fd=folder)
                    os.fsync(folder)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                return False
        return True

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Every blob: digest and size in bytes, sorted by digest."""
        for digest, status in self.statuses():
            yield digest, status.st_size

    def statuses(self) -> Iterator[tuple[str, os.stat_result]]:
        """Every blob with what the file system says of it, sorted by digest. ``st_mtime``: when it was last used."""
        for algorithm in ALGORITHMS:
            with guarded(self.root, "read"):
                try:
                    with opened(self.root, BLOBS, algorithm) as folder:
                        found = [(f"{algorithm}:{name}", name) for name in names_in(folder)]
                        regular = [(digest, _status(folder, name)) for digest, name in found if DIGEST.fullmatch(digest)]
                except FileNotFoundError:
                    continue
            yield from ((digest, status) for digest, status in regular if status is not None)

    def partials(self) -> Iterator[tuple[str, int]]:
        """Every blob that is on its way in, or was when its process ended: digest and the bytes that are there, sorted."""
        with guarded(self.root, "read"):
            try:
                with opened(self.root, PARTIALS) as folder:
                    found = {name.replace("-", ":", 1): name for name in names_in(folder)}
                    regular = [(digest, _status(folder, name)) for digest, name in found.items() if DIGEST.fullmatch(digest)]
            except FileNotFoundError:
                return
        yield from ((digest, status.st_size) for digest, status in regular if status is not None)

    def _glimpse(self, digest: str) -> int | None:
        with guarded(self.root, "read"):
            try:
                return self._size_bytes(digest, touch=False)
            except FileNotFoundError:
                return None

    def _find(self, digest: str) -> int | None:
        """Size in bytes; what is found is held against garbage collection."""
        _require_digest(digest)
        with guarded(self.root, "read"):
            try:
                if self._use.holds(digest):
                    return self._size_bytes(digest, touch=False)
                with locked(self.root, alone=False) as is_locked:
                    found_bytes = self._size_bytes(digest, touch=True)
                    if found_bytes is not None and is_locked:
                        self._use.hold(digest)
                    return found_bytes
            except FileNotFoundError:
                return None

    def _size_bytes(self, digest: str, *, touch: bool) -> int | None:
        algorithm, _, name = digest.partition(":")
        with opened(self.root, BLOBS, algorithm) as folder:
            status = _status(folder, name)
            if status is not None and touch and time.time() - status.st_mtime > _USED_STEP_SECONDS:
                try:
                    os.utime(name, dir_fd=folder, follow_symlinks=False)
                except OSError:
                    pass  # another user's, or read-only: it looks older than it is
        return None if status is None else status.st_size

    def _drop_partial(self, digest: str) -> None:
        """Ours by its lock, and not needed."""
        with guarded(self.root, "write to"), opened(self.root, PARTIALS) as folder:
            os.unlink(partial_name(digest), dir_fd=folder)


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _require_digest(digest: str) -> None:
    if not DIGEST.fullmatch(digest):
        raise CacheUnusable(f"{digest!r} is no digest that the cache could keep", hint="sha256 and sha512 are known")
