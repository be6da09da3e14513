"""The image file while it is written: bytes go to its end, the superblock comes last."""

from __future__ import annotations

from typing import BinaryIO

from shiplap.core.errors import OutsideFailure

PADDING_BYTES = 4096
"""Images end on this boundary, as a loop device and a hash tree want it."""


class ImageOutput:
    """A seekable binary file that is filled from its start. Raises OutsideFailure when the disk does."""

    __slots__ = ("_file", "_name", "position")

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self.position = 0

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failure(error) from error
        self.position += len(data)

    def finish(self, superblock: bytes) -> None:
        """Pad the end and put the superblock over the zeros that were left for it."""
        self.write(bytes(-self.position % PADDING_BYTES))
        try:
            self._file.seek(0)
            self._file.write(superblock)
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutsideFailure:
        return OutsideFailure(f"cannot write {self._name}: {error.strerror}")
