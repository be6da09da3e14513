"""The image file while it is written: bytes go to its end, the superblock comes last."""

from __future__ import annotations

import os
from io import FileIO

from shiplap.core.errors import OutsideFailure

PADDING_BYTES = 4096
"""Images end on this boundary, as a loop device and a hash tree want it."""


class ImageOutput:
    """A file that is filled from its start, and can be read back. Raises OutsideFailure when the disk fails.

    Without a buffer, so that a full disk is met here and never again when the file is closed; blocks are large enough.
    """

    __slots__ = ("_file", "_name", "position")

    def __init__(self, file: FileIO, name: str) -> None:
        self._file = file
        self._name = name
        self.position = 0

    def write(self, data: bytes) -> None:
        self._write(data)
        self.position += len(data)

    def read(self, position: int, size_bytes: int) -> bytes:
        """Bytes that have been written before."""
        data = b""
        try:
            while len(data) < size_bytes:
                piece = os.pread(self._file.fileno(), size_bytes - len(data), position + len(data))
                if not piece:
                    raise OutsideFailure(f"{self._name} has lost what was written at byte {position}")
                data += piece
        except OSError as error:
            raise OutsideFailure(f"builtin cannot read {self._name}: {error.strerror}") from error
        return data

    def finish(self, superblock: bytes) -> None:
        """Pad the end and put the superblock over the zeros that were left for it."""
        self.write(bytes(-self.position % PADDING_BYTES))
        self._file.seek(0)
        self._write(superblock)

    def _write(self, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):
                done += self._file.write(data[done:] if done else data)
        except OSError as error:
            raise OutsideFailure(f"builtin cannot write {self._name}: {error.strerror}") from error
