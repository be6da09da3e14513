"""The cache as the files of a source (:class:`shiplap.core.blobs.Files`)."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from shiplap.core.blobs import SourceInvalidContent, promised_digest
from shiplap.core.cache.folder import BLOBS, FILE_FLAGS, CacheUnusable, guarded, opened
from shiplap.core.entries import FileSlice
from shiplap.core.jsontext import shown


class CacheFiles:
    """Blobs that are there, at ``blobs/<algorithm>/<hex>``; closed at the context's end. Thread-safe."""

    label = "the cache"
    remedy = "`shiplap cache verify --repair` removes what is damaged; then fetch it again"

    def __init__(self, root: Path, size_bytes: Callable[[str], int | None]) -> None:
        self._root = root
        self._size_bytes = size_bytes
        self._guard = threading.Lock()
        self._open: dict[str, FileSlice] = {}

    def __enter__(self) -> CacheFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._guard:
            for one in self._open.values():
                os.close(one.descriptor)
            self._open.clear()

    def size_bytes(self, path: str) -> int | None:
        digest = promised_digest(path)
        return None if digest is None else self._size_bytes(digest)

    def slice(self, path: str) -> FileSlice:
        with self._guard:
            stored = self._open.get(path)
            if stored is None:
                stored = self._open[path] = self._opened(path)
            return stored

    def release(self, path: str) -> None:
        with self._guard:
            stored = self._open.pop(path, None)
        if stored is not None:
            os.close(stored.descriptor)

    def is_ambiguous(self, path: str) -> bool:
        return False

    def _opened(self, path: str) -> FileSlice:
        digest = promised_digest(path)
        if digest is None or self._size_bytes(digest) is None:
            raise SourceInvalidContent(f"the cache has no {shown(path)}", hint="fetch it again: `shiplap fetch`")
        algorithm, _, name = digest.partition(":")
        with guarded(self._root, "read"), opened(self._root, BLOBS, algorithm) as folder:
            descriptor = os.open(name, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise CacheUnusable(f"{digest} in the cache is no regular file", hint="remove it")
        return FileSlice(descriptor, 0, status.st_size, f"{digest} in the cache")
