"""The image as a file: bounded reads, and the one error for everything that can be wrong with an image."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.errors import OutsideFailure, Refused


class SquashfsError(Refused):
    """A file that is no SquashFS 4.0 image, is damaged, or contradicts itself. Names the file and the place."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An open image. Offsets are relative to ``start_bytes``; nothing behind ``size_bytes`` is ever read."""

    descriptor: int
    name: str
    start_bytes: int
    size_bytes: int

    def error(self, what: str, *, hint: str | None = None) -> SquashfsError:
        return SquashfsError(f"{self.name}: {what}", hint=hint)

    def read(self, offset: int, size_bytes: int, what: str) -> bytes:
        """Exactly ``size_bytes`` bytes at ``offset``; ``what`` names them in the error.

        Raises SquashfsError for a range outside the image and OutsideFailure when the disk fails.
        """
        if offset < 0 or offset + size_bytes > self.size_bytes:
            raise self.error(f"{what} at byte {offset} ({size_bytes} bytes) lies outside the image of {self.size_bytes} bytes")
        try:
            data = os.pread(self.descriptor, size_bytes, self.start_bytes + offset)
            while len(data) < size_bytes:
                piece = os.pread(self.descriptor, size_bytes - len(data), self.start_bytes + offset + len(data))
                if not piece:
                    raise self.error(f"the file ended while {what} at byte {offset} was read")
                data += piece
        except OSError as error:
            raise OutsideFailure(f"cannot read {self.name} at byte {offset}: {error.strerror}") from error
        return data


@contextmanager
def open_image_file(path: Path, *, offset_bytes: int = 0) -> Iterator[ImageFile]:
    """Open ``path`` (a file or a block device), the image beginning at ``offset_bytes``; raises SquashfsError."""
    try:
        # A fifo would block here for ever without O_NONBLOCK; regular files and block devices do not care.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        hint = "is the path right?" if error.errno in (errno.ENOENT, errno.ENOTDIR) else None
        raise SquashfsError(f"cannot open {path}: {error.strerror}", hint=hint) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise SquashfsError(f"{path} is neither a file nor a block device")
        size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
        yield ImageFile(descriptor, str(path), offset_bytes, max(0, size_bytes - offset_bytes))
    finally:
        os.close(descriptor)
