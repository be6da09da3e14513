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
from shiplap.core.store.docker import LayerFacts, MetadataTree, put_base, put_images, put_layer
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.writer import as_squashfs_keeps
from shiplap.core.tar.reader import BLOCK_BYTES, TarHeader, read_headers
from shiplap.core.tar.records import END_OF_ARCHIVE, KINDS
from shiplap.core.tar.window import Window
from shiplap.rootfs.squashfs.content import SquashfsContent
from shiplap.rootfs.squashfs.reader import ENTRY_LIMIT, SquashfsReader

# A layer's longest path below `overlay2/<64 digits>/diff/`.
_PATH_MAX_BYTES = PATH_MAX_BYTES + 128
# Blocks that are decompressed ahead take up to 1 MiB each, two and a few for each thread.
_THREADS_MAX = 8
# Decompressing one of their blocks takes longer than handing it, and the interpreter's lock, from thread to thread.
_DEAR_COMPRESSORS = ("gzip", "lzma", "xz")


class StoreUnreadable(Refused):
    """Something that is no store."""


class MetadataView(Protocol):
    """What the identity of a store is read from.

    ``metadata_root``: the folder of ``image/`` and ``overlay2/``, with a final slash, or empty.
    """

    name: str
    metadata_root: str

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
    """Where a store keeps what, and the entries themselves.

    ``location``: None for a view that only the process that has it can read.
    """

    location: ImageLocation | None

    def subtree(self, below: bytes) -> Iterator[Entry]:
        """Every entry at and below ``below`` as a sorted tree walk. Raises Refused when there is none."""
        ...

    def names(self, directory: bytes) -> set[bytes]:
        """The names directly in ``directory``."""
        ...

    def layer_root(self, layer_hex: str) -> bytes: ...

    def tar_split(self, layer_hex: str) -> bytes: ...

    def expected_top(self, identity: StoreIdentity) -> Iterator[Entry]:
        """Everything outside layers and their metadata that must be there, in any order."""
        ...

    def put_layer_links(self, tree: MetadataTree, facts: LayerFacts, identity: StoreIdentity, tar_split: Entry) -> None: ...

    def begin(self, content: Content) -> bool:
        """May start to read ``content``, one of its files', before it is asked for; whether there was room for that."""
        ...

    def keeps(self, entry: Entry) -> Entry:
        """``entry`` as this form of store can keep it."""
        ...


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

    metadata_root = "skeleton/"

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

    def layer_root(self, layer_hex: str) -> bytes:
        return f"layers/{layer_hex}".encode()

    def tar_split(self, layer_hex: str) -> bytes:
        return f"layers/{layer_hex}.tar-split.json.gz".encode()

    def expected_top(self, identity: StoreIdentity) -> Iterator[Entry]:
        yield Entry(b"", Kind.DIRECTORY, 0o755, mtime_epoch=identity.epoch)
        yield Entry(b"layers", Kind.DIRECTORY, 0o755, mtime_epoch=identity.epoch)
        tree = MetadataTree(identity.epoch)
        tree.file("store.json", identity.to_json(), 0o644)
        put_base(tree, self.metadata_root)
        put_images(tree, self.metadata_root, identity.images)
        yield from tree.entries()

    def put_layer_links(self, tree: MetadataTree, facts: LayerFacts, identity: StoreIdentity, tar_split: Entry) -> None:
        layer_hex, mount_point = facts.stored.hex, identity.mount_point
        tree.symlink(f"skeleton/overlay2/{layer_hex}/diff", f"{mount_point}/layers/{layer_hex}")
        record = f"skeleton/image/overlay2/layerdb/sha256/{layer_hex}/tar-split.json.gz"
        tree.symlink(record, f"{mount_point}/layers/{layer_hex}.tar-split.json.gz")
        assert tar_split.content is not None
        tree.file(f"layers/{layer_hex}.tar-split.json.gz", tar_split.content, 0o644)

    def begin(self, content: Content) -> bool:
        return not isinstance(content, SquashfsContent) or content.begin()

    def keeps(self, entry: Entry) -> Entry:
        return as_squashfs_keeps(entry)


class TarView:
    """A ``store.tar``, indexed once."""

    metadata_root = ""
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

    def layer_root(self, layer_hex: str) -> bytes:
        return f"overlay2/{layer_hex}/diff".encode()

    def tar_split(self, layer_hex: str) -> bytes:
        return f"image/overlay2/layerdb/sha256/{layer_hex}/tar-split.json.gz".encode()

    def expected_top(self, identity: StoreIdentity) -> Iterator[Entry]:
        tree = MetadataTree(identity.epoch)
        put_base(tree, "")
        put_images(tree, "", identity.images)
        return tree.entries()

    def put_layer_links(self, tree: MetadataTree, facts: LayerFacts, identity: StoreIdentity, tar_split: Entry) -> None:
        assert tar_split.content is not None
        tree.file(self.tar_split(facts.stored.hex).decode(), tar_split.content, 0o644)

    def begin(self, content: Content) -> bool:
        return True

    def keeps(self, entry: Entry) -> Entry:
        return entry


def expected_metadata(view: StoreView, identity: StoreIdentity, facts: list[tuple[LayerFacts, Entry]]) -> dict[bytes, Entry]:
    """Every entry of the store that is not part of a layer's tree, by path."""
    expected = {entry.path: entry for entry in view.expected_top(identity)}
    tree = MetadataTree(identity.epoch)
    for one, tar_split in facts:
        put_layer(tree, view.metadata_root, one)
        view.put_layer_links(tree, one, identity, tar_split)
    expected.update((entry.path, entry) for entry in tree.entries())
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
