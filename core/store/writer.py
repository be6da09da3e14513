"""Writes stores: the store image's tree as entries, and the self-contained data-root as a canonical tar stream.

Both take the same layers in the same order, so that one pass over the images feeds both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, Protocol

from shiplap.core.elfaudit import ElfAudit
from shiplap.core.entries import Entry, FileSlice, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.spool import cannot_spool, spool_file, uncompressed_layer
from shiplap.core.layer.tarsplit import StoredGzip, TarSplitWriter
from shiplap.core.layer.tree import LayerTree
from shiplap.core.layer.unpack import TarOutline, unpack_layer, write_tar_split
from shiplap.core.limits import Limits
from shiplap.core.progress import Meter, Progress
from shiplap.core.store.docker import LayerFacts, MetadataTree, put_base, put_images, put_layer
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import StoredLayer, unique_layers
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry

SQUASHFS_TIME_MAX = (1 << 32) - 1
# The superblock counts ids with 16 bits: tools write an image with 65,536, and nobody can read it.
SQUASHFS_IDS_MAX = 65535


# tar2sqfs rejects longer extended headers. Engines on ext4 take a sixteenth of it.
PAX_HEADER_MAX_BYTES = 65536
_PAX_RECORD_BYTES = 32  # at most, beside name and value


class TooManyOwners(Refused):
    """More distinct ids than a SquashFS id table holds."""


class TooManyXattrs(Refused):
    """More extended attributes on one file than a SquashFS tool takes."""


def as_squashfs_keeps(entry: Entry) -> Entry:
    """``entry`` with its time in whole seconds and 32 bits; tools would wrap what is larger without a word."""
    if entry.mtime_nanoseconds or entry.mtime_epoch > SQUASHFS_TIME_MAX:
        return replace(entry, mtime_epoch=min(entry.mtime_epoch, SQUASHFS_TIME_MAX), mtime_nanoseconds=0)
    return entry


class StoreWriter(Protocol):
    """Takes layers one after another, then finishes."""

    def tree(self, stored: StoredLayer, tree: LayerTree, tar: FileSlice) -> None:
        """Write a layer's tree."""
        ...

    def metadata(self, facts: LayerFacts, tar_split: FileSlice) -> None:
        """Write what belongs to the layer whose tree was just written."""
        ...

    def finish(self) -> None: ...


class SealedStoreWriter:
    """The tree of a store image: ``layers/``, ``skeleton/``, ``store.json`` (formats of the store, docs/store.md)."""

    def __init__(self, identity: StoreIdentity, put: Callable[[Entry], object], note: Callable[[str], object]) -> None:
        self._identity = identity
        self._put = put
        self._note = note
        self._ids: set[int] = set()
        self._clamped = 0
        self._metadata = MetadataTree(identity.epoch)
        self._metadata.file("store.json", identity.to_json(), 0o644)
        put_base(self._metadata, "skeleton/")
        put_images(self._metadata, "skeleton/", identity.images)
        self._add(Entry(b"", Kind.DIRECTORY, 0o755, mtime_epoch=identity.epoch))
        self._add(Entry(b"layers", Kind.DIRECTORY, 0o755, mtime_epoch=identity.epoch))

    def tree(self, stored: StoredLayer, tree: LayerTree, tar: FileSlice) -> None:
        for entry in tree.stream(f"layers/{stored.hex}".encode(), tar):
            if entry.xattrs:
                _require_room_for_xattrs(entry, stored)
            self._add(entry)

    def metadata(self, facts: LayerFacts, tar_split: FileSlice) -> None:
        stored = facts.stored
        split_path = f"layers/{stored.hex}.tar-split.json.gz"
        self._add(Entry(split_path.encode(), Kind.REGULAR, 0o644, mtime_epoch=self._identity.epoch, content=tar_split))
        put_layer(self._metadata, "skeleton/", facts)
        mount_point = self._identity.mount_point
        self._metadata.symlink(f"skeleton/overlay2/{stored.hex}/diff", f"{mount_point}/layers/{stored.hex}")
        self._metadata.symlink(f"skeleton/image/overlay2/layerdb/sha256/{stored.hex}/tar-split.json.gz", f"{mount_point}/{split_path}")

    def finish(self) -> None:
        for entry in self._metadata.entries():
            self._add(entry)
        if self._clamped:
            self._note(f"{self._clamped} times beyond 2106 do not fit SquashFS's 32 bits and became 2106-02-07")

    def _add(self, entry: Entry) -> None:
        self._clamped += entry.mtime_epoch > SQUASHFS_TIME_MAX
        entry = as_squashfs_keeps(entry)
        ids = self._ids
        if entry.uid not in ids or entry.gid not in ids:
            ids.update((entry.uid, entry.gid))
            if len(ids) > SQUASHFS_IDS_MAX:
                raise TooManyOwners(f"the images have more than {SQUASHFS_IDS_MAX} different owners, which no SquashFS can hold")
        self._put(entry)


def _require_room_for_xattrs(entry: Entry, stored: StoredLayer) -> None:
    size_bytes = sum(len(name) + len(value) + _PAX_RECORD_BYTES for name, value in entry.xattrs)
    if size_bytes + len(entry.path) + 4 * _PAX_RECORD_BYTES > PAX_HEADER_MAX_BYTES:
        path = entry.path.split(b"/", 2)[-1]
        raise TooManyXattrs(f"{stored.where}, entry '{printable(path)}': {size_bytes} bytes of xattrs are more than SquashFS tools take")


class DataRootWriter:
    """A self-contained data-root with real ``diff`` directories, for ``store.tar``.

    Rooted at ``./``. The common directories come first, then layer by layer, in the order of the images, the
    tree and behind it the layer's metadata.
    """

    def __init__(self, identity: StoreIdentity, write: Callable[[bytes], object]) -> None:
        self._identity = identity
        self._write = write
        base = MetadataTree(identity.epoch)
        put_base(base, "")
        put_images(base, "", identity.images)
        for entry in base.entries():
            write_entry(entry, write)

    def tree(self, stored: StoredLayer, tree: LayerTree, tar: FileSlice) -> None:
        home = f"overlay2/{stored.hex}".encode()
        write_entry(Entry(home, Kind.DIRECTORY, 0o710, mtime_epoch=self._identity.epoch), self._write)
        for entry in tree.stream(home + b"/diff", tar):
            write_entry(entry, self._write)

    def metadata(self, facts: LayerFacts, tar_split: FileSlice) -> None:
        stored = facts.stored
        metadata = MetadataTree(self._identity.epoch)
        put_layer(metadata, "", facts)
        metadata.file(f"image/overlay2/layerdb/sha256/{stored.hex}/tar-split.json.gz", tar_split, 0o644)
        home = f"overlay2/{stored.hex}".encode()
        for entry in metadata.entries():
            if entry.path != home:  # written before the tree
                write_entry(entry, self._write)

    def finish(self) -> None:
        self._write(END_OF_ARCHIVE)


def write_store(
    identity: StoreIdentity,
    writers: Sequence[StoreWriter],
    limits: Limits,
    progress: Progress,
    meter: Meter,
    audit: ElfAudit | None = None,
) -> dict[str, int]:
    """Feed every layer of the identity's images to every writer, each layer read once.

    ``meter`` counts what the writers write. ``audit`` looks at every layer on the way.

    Returns the layers' sizes in bytes as the engine counts them, by chainID. Raises what sources,
    compression, tar reading and layer rules raise (all Refused), and OutsideFailure for a full disk.
    """
    layers = unique_layers(identity.images)
    sizes: dict[str, int] = {}
    for number, stored in enumerate(layers, 1):
        pass_ = _LayerPass(stored, f"layer {number}/{len(layers)} of {stored.image.label}")
        sizes[stored.chain_id] = pass_.run(identity.epoch, writers, limits, progress, meter, audit)
    for writer in writers:
        writer.finish()
    return sizes


@dataclass(frozen=True, slots=True)
class _LayerPass:
    """One layer's way: verify and spool, read, pack, with the tar-split data made beside the packing."""

    stored: StoredLayer
    label: str

    def run(
        self,
        epoch: int,
        writers: Sequence[StoreWriter],
        limits: Limits,
        progress: Progress,
        meter: Meter,
        audit: ElfAudit | None,
    ) -> int:
        """Returns the layer's size in bytes as the engine counts."""
        stored, label = self.stored, self.label
        with ExitStack() as stack:
            with progress.task(f"verify {label}") as task:
                tar = stack.enter_context(uncompressed_layer(stored.image, stored.layer, limits, task.advance))
            with progress.task(f"read {label}"):
                tree, outline = unpack_layer(tar, where=stored.where, epoch=epoch, entries_max=limits.entries, note=progress.note)
                if audit is not None:
                    audit.tree(stored.layer.diff_id, tree, tar)
            spool = stack.enter_context(spool_file(stored.where))
            making = stack.enter_context(_Background(partial(_tar_split, stored, tar, outline, spool)))
            with meter.task(f"pack {label}", len(writers) * tar.size_bytes):
                for writer in writers:
                    writer.tree(stored, tree, tar)
                tar_split = making.result()
                facts = LayerFacts(stored, tree.size_bytes)
                for writer in writers:
                    writer.metadata(facts, tar_split)
        return tree.size_bytes


class _Background:
    """One call in a thread of its own; leaving the context ends it, whatever happened outside."""

    def __init__(self, call: Callable[[Callable[[], bool]], FileSlice]) -> None:
        self._cancelled = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tar-split")
        self._future = self._pool.submit(call, self._cancelled.is_set)

    def __enter__(self) -> _Background:
        return self

    def __exit__(self, *_: object) -> None:
        self._cancelled.set()
        self._pool.shutdown()

    def result(self) -> FileSlice:
        return self._future.result()


def _tar_split(stored: StoredLayer, tar: FileSlice, outline: TarOutline, spool: IO[bytes], cancelled: Callable[[], bool]) -> FileSlice:
    try:
        gzip = StoredGzip(spool.write)
        write_tar_split(tar, outline, TarSplitWriter(gzip.write), cancelled)
        gzip.close()
        spool.flush()
    except OSError as error:
        raise cannot_spool(stored.where, error) from error
    return FileSlice(spool.fileno(), 0, gzip.written_bytes, "tar-split data")
