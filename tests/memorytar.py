"""Tars in memory and in unlinked files, for the readers and rules under test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shiplap.core.entries import Entry, FileSlice
from shiplap.core.layer.tree import LayerTree
from shiplap.core.layer.unpack import TarOutline, unpack_layer
from shiplap.core.tar.reader import TarHeader, read_headers

EPOCH = 765432101  # stands for the engine's "now"; no case uses it


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes with the reader's interface."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]


def headers(tar: bytes) -> list[TarHeader]:
    return list(read_headers(Memory(tar)))


@contextmanager
def as_file(data: bytes, offset: int = 0) -> Iterator[FileSlice]:
    """``data`` as a slice of a file, behind ``offset`` bytes of something else."""
    with tempfile.TemporaryFile() as file:
        file.write(b"\xa5" * offset + data)
        file.flush()
        yield FileSlice(file.fileno(), offset, len(data), "layer")


def unpacked(
    tar: FileSlice, *, entries_max: int = 100_000, notes: list[str] | None = None, where: str = "app:1, layer 0"
) -> tuple[LayerTree, TarOutline]:
    return unpack_layer(tar, where=where, epoch=EPOCH, entries_max=entries_max, note=[].append if notes is None else notes.append)


def tree_of(tar: bytes, *, entries_max: int = 100_000, notes: list[str] | None = None) -> list[Entry]:
    """The layer's entries, root first; contents can no longer be read."""
    with as_file(tar) as file:
        return list(unpacked(file, entries_max=entries_max, notes=notes)[0].stream(b"", file))
