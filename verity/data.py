"""The file that a hash tree covers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.errors import Refused


class UnfitFile(Refused):
    """A file that is missing, unreadable, unwritable or no regular file."""


class UnprotectedBytes(Refused):
    """Bytes that no data block would cover, and so no digest."""


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A regular file, open for reading."""

    path: Path
    descriptor: int
    size_bytes: int
    identity: tuple[int, int]


@contextmanager
def opened(path: Path) -> Iterator[OpenedFile]:
    """Open a regular file for reading. Raises UnfitFile."""
    try:
        # Not to hang on a FIFO that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UnfitFile(f"cannot read {path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnfitFile(f"{path} is not a regular file", hint="copy a device's content into a file first")
        yield OpenedFile(path, descriptor, status.st_size, (status.st_dev, status.st_ino))
    finally:
        os.close(descriptor)


def count_blocks(data: OpenedFile, block_bytes: int, data_blocks: int | None) -> int:
    """How many blocks of ``data`` to cover: all of them, or the ``data_blocks`` asked for.

    Raises UnprotectedBytes when the file is empty or its last block is not whole, UnfitFile when it is too short.
    """
    if data_blocks is not None:
        if data_blocks < 1 or data_blocks * block_bytes > data.size_bytes:
            raise UnfitFile(f"{data.path} has no {data_blocks} blocks of {block_bytes} bytes; it has {data.size_bytes // block_bytes}")
        return data_blocks
    if data.size_bytes == 0:
        raise UnprotectedBytes(f"{data.path} is empty: there is nothing to protect")
    whole, rest = divmod(data.size_bytes, block_bytes)
    if rest:
        raise UnprotectedBytes(
            f"{data.path} is {data.size_bytes} bytes, no multiple of the data block of {block_bytes}: "
            f"its last {rest} bytes (from byte {whole * block_bytes}) would be unprotected",
            hint="--pad extends the file with zeros first",
        )
    return whole


@contextmanager
def padded(path: Path, block_bytes: int) -> Iterator[int]:
    """pad_file for as long as all goes well: leaving the context by an exception takes the zeros away again."""
    added = pad_file(path, block_bytes)
    try:
        yield added
    except BaseException:
        if added:
            os.truncate(path, path.stat().st_size - added)
        raise


def pad_file(path: Path, block_bytes: int) -> int:
    """Extend a file with zeros to a multiple of ``block_bytes``; returns how many bytes were added.

    An empty file stays empty. Raises UnfitFile; OSError when the disk is full.
    """
    with opened(path) as file:
        missing = -file.size_bytes % block_bytes
        size_bytes = file.size_bytes
    if missing:
        try:
            os.truncate(path, size_bytes + missing)
        except PermissionError as error:
            raise UnfitFile(f"cannot extend {path}: {error.strerror}") from error
    return missing
