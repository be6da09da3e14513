"""The entry stream: what every writer eats and every reader yields.

An :class:`Entry` is one path of a tree with everything a tar record or an inode knows about it.
Nothing here touches the host's file system.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 1 << 20


class Kind(enum.Enum):
    """Type of an entry. ``HARDLINK`` is a further name of an entry that came earlier in the stream."""

    REGULAR = "regular file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"

    # Members are singletons; the identity hash is the fast one and this is the hottest dictionary key.
    __hash__ = object.__hash__


class Content(Protocol):
    """The bytes of a regular file, readable any number of times."""

    @property
    def size_bytes(self) -> int: ...

    def chunks(self) -> Iterator[bytes]:
        """Yield exactly ``size_bytes`` bytes in pieces of at most ``CHUNK_BYTES``."""
        ...


@dataclass(frozen=True, slots=True)
class Bytes:
    """Content held in memory; for small things that shiplap itself writes."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        view = memoryview(self.data)
        for start in range(0, len(view), CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Content that lies at ``offset`` of an open file (a file descriptor, read with ``pread``)."""

    descriptor: int
    offset: int
    size_bytes: int
    name: str = "file"

    def chunks(self) -> Iterator[bytes]:
        position, end = self.offset, self.offset + self.size_bytes
        while position < end:
            piece = os.pread(self.descriptor, min(CHUNK_BYTES, end - position), position)
            if not piece:
                raise EOFError(f"{self.name} ended at byte {position}, expected {end}")
            position += len(piece)
            yield piece


@dataclass(frozen=True, slots=True)
class PathContent:
    """Content of a whole file on disk, for example a finished artifact."""

    path: Path
    size_bytes: int

    def chunks(self) -> Iterator[bytes]:
        left = self.size_bytes
        with self.path.open("rb") as file:
            while left:
                piece = file.read(min(CHUNK_BYTES, left))
                if not piece:
                    raise EOFError(f"{self.path} is shorter than the {self.size_bytes} bytes it had")
                left -= len(piece)
                yield piece


@dataclass(frozen=True, slots=True)
class Entry:
    """One path.

    ``path``: relative, components joined by one ``/``, no leading or trailing slash, no ``.`` or
    ``..``; ``b""`` is the root of the tree. ``mode``: the 12 permission bits. ``link``: target of a
    symbolic link (verbatim) or path of the earlier entry that a hard link names again. ``device``:
    (major, minor). ``xattrs``: full names, sorted by name. ``content``: regular files only.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_epoch: int = 0
    mtime_nanoseconds: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    content: Content | None = None


def printable(name: bytes) -> str:
    """``name`` for a message: UTF-8 where it is, everything else and control characters escaped."""
    text = name.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
