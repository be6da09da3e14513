"""Random access to a tar in a file, with one read ahead for the many small reads of a header walk."""

from __future__ import annotations

import os

from shiplap.core.entries import FileSlice

WINDOW_BYTES = 64 << 10
_LOOK_BACK_BYTES = 512


class Window:
    """:class:`~shiplap.core.tar.reader.RandomAccess` over a :class:`FileSlice`; not for use by two threads."""

    __slots__ = ("_base", "_cached", "_cached_at", "_descriptor", "size_bytes")

    def __init__(self, file: FileSlice) -> None:
        self._descriptor = file.descriptor
        self._base = file.offset
        self.size_bytes = file.size_bytes
        self._cached = b""
        self._cached_at = 0

    def read(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``; fewer only at the end."""
        at = offset - self._cached_at
        if at >= 0 and at + count <= len(self._cached):
            return self._cached[at : at + count]
        count = max(0, min(count, self.size_bytes - offset))
        if count == 0:
            return b""
        if count > WINDOW_BYTES:
            return self._pread(offset, count)
        # Begin a block early: the padding before a header is asked for after the header.
        start = max(0, offset - _LOOK_BACK_BYTES)
        self._cached = self._pread(start, min(_LOOK_BACK_BYTES + WINDOW_BYTES, self.size_bytes - start))
        self._cached_at = start
        return self._cached[offset - start : offset - start + count]

    def _pread(self, offset: int, count: int) -> bytes:
        pieces = []
        while count:
            piece = os.pread(self._descriptor, count, self._base + offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            count -= len(piece)
        return b"".join(pieces)
