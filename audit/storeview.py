"""A finished store as entries, whether it lies in a store image or in ``store.tar``."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shiplap.core.entries import Content, Entry, FileSlice, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.rules import PATH_MAX_BYTES, clean
from shiplap.core.store.forms import StoreForm, form_of
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import LayerFacts
from shiplap.core.store.squashfssink import as_squashfs_keeps
from shiplap.core.tar.reader import BLOCK_BYTES, TarHeader, read_headers
from shiplap.core.tar.records import END_OF_ARCHIVE, KINDS
from shiplap.core.tar.window import Window
from shiplap.rootfs.squashfs.content import SquashfsContent
from shiplap.rootfs.squashfs.reader import ENTRY_LIMIT, SquashfsReader

# A layer's longest path below `overlay2/<64 digits>/diff/`, or a graphroot's.
_PATH_MAX_BYTES = PATH_MAX_BYTES + 128
# Blocks that are decompressed ahead take up to 1 MiB each, two and a few for each thread.
_THREADS_MAX = 8
# Decompressing one of their blocks takes longer than handing it, and the interpreter's lock, from thread to thread.
_DEAR_COMPRESSORS = ("gzip", "lzma", "xz")


class StoreUnreadable(Refused):
    """Something that is no store."""


class MetadataView(Protocol):
    """What the identity of a store is read from. ``sealed``: a store image, not a ``store.tar``."""

    name: str
    sealed: bool

    def find(self, path: bytes) -> Entry | None: ...


@dataclass(frozen=True, slots=True)
class ImageLocation:
    """How to open a store image once more, perhaps in another process."""

    path: Path
    entry_limit: int

    def opened(self, threads: int) -> AbstractContextManager[ImageView]:
        """The image, decompressed ahead by that many ``threads``; as ``open_image``."""
        return open_image(self.path, entry_limit=self.entry_limit, threads=threads)


class StoreView(MetadataView, Protocol):
    """The entries of a store. Where it keeps what, its form knows (:mod:`shiplap.core.store.forms`).

    ``location``: None for a view that only the process that has it can read.
    """

    location: ImageLocation | None

    def subtree(self, below: bytes) -> Iterator[Entry]:
        """Every entry at and below ``below`` as a sorted tree walk. Raises Refused when there is none."""
        ...

    def names(self, directory: bytes) -> set[bytes]:
        """The names directly in ``directory``."""
        ...

    def begin(self, content: Content) -> bool:
        """May start to read ``content``, one of its files', before it is asked for; whether there was room for that."""
        ...

    def keeps(self, entry: Entry) -> Entry:
        """``entry`` as this form of store can keep it."""
        ...


def engine_root(view: MetadataView, form: StoreForm) -> str:
    """Where the engine's own root begins, with a final slash, or empty."""
    return form.root if view.sealed else ""


def read_small(view: MetadataView, path: str, limit_bytes: int) -> bytes:
    """Content of a small file of the store; raises StoreUnreadable when it is missing or too large."""
    entry = view.find(path.encode())
    if entry is None or entry.content is None:
        raise StoreUnreadable(f"{view.name} has no file {path}")
    if entry.content.size_bytes > limit_bytes:
        raise StoreUnreadable(f"{view.name}: {path} has {entry.content.size_bytes} bytes, more than the {limit_bytes} it may have")
    return b"".join(entry.content.chunks())


class ImageView:
    """A store image."""

    sealed = True

    def __init__(self, name: str, reader: SquashfsReader, location: ImageLocation | None = None) -> None:
        self.name = name
        self.location = location
        self._reader = reader

    def subtree(self, below: bytes) -> Iterator[Entry]:
        return self._reader.entries(below)

    def names(self, directory: bytes) -> set[bytes]:
        return {entry.path.rpartition(b"/")[2] for entry in self._reader.children(directory)}

    def find(self, path: bytes) -> Entry | None:
        return self._reader.find(path)

    def begin(self, content: Content) -> bool:
        return not isinstance(content, SquashfsContent) or content.begin()

    def keeps(self, entry: Entry) -> Entry:
        return as_squashfs_keeps(entry)


class TarView:
    """A ``store.tar``, indexed once."""

    sealed = False
    location: ImageLocation | None = None

    def __init__(self, name: str, file: FileSlice) -> None:
        self.name = name
        self._entries: dict[tuple[bytes, ...], Entry] = {}
        self._names: defaultdict[tuple[bytes, ...], set[bytes]] = defaultdict(set)
        end = 0
        for header in read_headers(Window(file), what=name):
            entry = _entry(header, file, name)
            key = _key(entry.path)
            if key in self._entries:
                raise StoreUnreadable(f"{name} has '{printable(entry.path)}' twice")
            self._entries[key] = entry
            if key:
                self._names[key[:-1]].add(key[-1])
            end = header.data_offset + header.data_bytes + -header.data_bytes % BLOCK_BYTES
        if file.size_bytes != end + len(END_OF_ARCHIVE):
            raise StoreUnreadable(f"{name} has {file.size_bytes - end} bytes behind its last entry instead of {len(END_OF_ARCHIVE)}")
        self._order = sorted(self._entries)

    def subtree(self, below: bytes) -> Iterator[Entry]:
        start = _key(below)
        if start not in self._entries:
            raise StoreUnreadable(f"{self.name} has no entry '{printable(below)}'")
        for at in range(bisect_left(self._order, start), len(self._order)):
            key = self._order[at]
            if key[: len(start)] != start:
                break
            yield self._entries[key]

    def names(self, directory: bytes) -> set[bytes]:
        return self._names.get(_key(directory), set())

    def find(self, path: bytes) -> Entry | None:
        return self._entries.get(_key(path))

    def begin(self, content: Content) -> bool:
        return True

    def keeps(self, entry: Entry) -> Entry:
        return entry


def expected_metadata(view: StoreView, identity: StoreIdentity, facts: list[tuple[LayerFacts, Content]]) -> dict[bytes, Entry]:
    """Every entry of the store that is not part of a layer's tree, by path. ``facts``: with each layer's tar-split data."""
    expected: dict[bytes, Entry] = {}

    def put(entry: Entry) -> None:
        expected[entry.path] = entry

    form = form_of(identity)
    writer = form.image(identity, put, lambda message: None) if view.sealed else form.tar(identity, put)
    for one, tar_split in facts:
        writer.begin(one.stored)
        writer.metadata(one, tar_split)
    writer.finish()
    return expected


@contextmanager
def open_image(path: Path, *, entry_limit: int = ENTRY_LIMIT, threads: int | None = None) -> Iterator[ImageView]:
    """The store image at ``path``; xz, lzma and gzip are decompressed on all processors. Raises SquashfsError (Refused).

    ``threads``: None for one for each processor.
    """
    threads = min(threads or len(os.sched_getaffinity(0)), _THREADS_MAX)
    with SquashfsReader.open(path, entry_limit=entry_limit) as reader, ThreadPoolExecutor(threads, "blocks") as pool:
        if threads > 1 and reader.superblock.compressor in _DEAR_COMPRESSORS:
            reader.work_ahead(pool, 2 * threads + 2)
        yield ImageView(path.name, reader, ImageLocation(path.absolute(), entry_limit))


@contextmanager
def open_tar_view(path: Path) -> Iterator[TarView]:
    """The ``store.tar`` at ``path``. Raises TarCorrupt and StoreUnreadable (Refused)."""
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        yield TarView(path.name, FileSlice(file.fileno(), 0, size_bytes, path.name))


def _key(path: bytes) -> tuple[bytes, ...]:
    return tuple(path.split(b"/")) if path else ()


def _entry(header: TarHeader, file: FileSlice, name: str) -> Entry:
    kind = KINDS.get(header.typeflag)
    path = clean(header.name)
    if kind is None or path.startswith((b"/", b"../")) or path == b".." or len(path) > _PATH_MAX_BYTES:
        raise StoreUnreadable(f"{name}: '{printable(header.name)}' is no entry of a store")
    device = kind in (Kind.CHARACTER, Kind.BLOCK)
    return Entry(
        b"" if path == b"." else path,
        kind,
        header.mode,
        header.uid,
        header.gid,
        header.mtime_epoch,
        header.mtime_nanoseconds,
        header.linkname if kind in (Kind.SYMLINK, Kind.HARDLINK) else b"",
        (header.devmajor, header.devminor) if device else (0, 0),
        header.xattrs,
        FileSlice(file.descriptor, file.offset + header.data_offset, header.data_bytes, name) if kind is Kind.REGULAR else None,
    )
