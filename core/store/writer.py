"""Writes stores: every layer read once, and what a writer is.

Store image and ``store.tar`` take the same layers in the same order, so that one pass over the images feeds both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import IO, Protocol

from shiplap.core.entries import Content, FileSlice
from shiplap.core.layer.sight import LayerAudit
from shiplap.core.layer.spool import cannot_spool, spool_file, uncompressed_layer
from shiplap.core.layer.tarsplit import StoredGzip, TarSplitWriter
from shiplap.core.layer.tree import LayerTree
from shiplap.core.layer.unpack import TarOutline, write_tar_split
from shiplap.core.limits import Limits
from shiplap.core.progress import Meter, Progress
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import LayerFacts, StoredLayer, unique_layers
from shiplap.core.store.unpacking import Unpacking


class StoreWriter(Protocol):
    """Takes layers one after another, then finishes; hands out the store's entries, parents first.

    For each layer ``begin``, ``tree``, ``metadata``. Who leaves ``tree`` out gets every entry outside the layers' trees.
    """

    def begin(self, stored: StoredLayer) -> None:
        """Write the directory above the layer's tree."""
        ...

    def tree(self, stored: StoredLayer, tree: LayerTree, tar: FileSlice) -> None:
        """Write a layer's tree."""
        ...

    def metadata(self, facts: LayerFacts, split: Content) -> None:
        """Write what belongs to the layer whose tree was just written. ``split``: its tar-split data."""
        ...

    def finish(self) -> None: ...


def write_store(
    identity: StoreIdentity,
    writers: Sequence[StoreWriter],
    unpacking: Unpacking,
    limits: Limits,
    progress: Progress,
    meter: Meter,
    audits: Sequence[LayerAudit] = (),
) -> dict[str, int]:
    """Feed every layer of the identity's images to every writer, each layer read once.

    ``unpacking``: of the store's engine and driver (:mod:`shiplap.core.store.forms`). ``meter`` counts what the writers write.
    ``audits`` look at every layer on the way.

    Returns the layers' sizes in bytes as the engine counts them, by chainID. Raises what sources,
    compression, tar reading and layer rules raise (all Refused), and OutsideFailure for a full disk.
    """
    layers = unique_layers(identity.images)
    sizes: dict[str, int] = {}
    for number, stored in enumerate(layers, 1):
        pass_ = _LayerPass(stored, f"layer {number}/{len(layers)}")
        sizes[stored.chain_id] = pass_.run(unpacking, writers, limits, progress, meter, audits)
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
        unpacking: Unpacking,
        writers: Sequence[StoreWriter],
        limits: Limits,
        progress: Progress,
        meter: Meter,
        audits: Sequence[LayerAudit],
    ) -> int:
        """Returns the layer's size in bytes as the engine counts."""
        stored, label = self.stored, self.label
        with ExitStack() as stack:
            with progress.task(f"verify {label}") as task:
                tar = stack.enter_context(uncompressed_layer(stored.image, stored.layer, limits, task.advance))
            with progress.task(f"read {label}"):
                unpacked = unpacking.layer(stored, tar, where=stored.where, entries_max=limits.entries, note=progress.note)
                for audit in audits:
                    if unpacked.whole:
                        audit.tar(stored.layer.diff_id, tar, stored.where, limits.entries)
                    else:
                        audit.tree(stored.layer.diff_id, unpacked.tree, tar)
            spool = stack.enter_context(spool_file(stored.where))
            making = stack.enter_context(_Background(partial(_tar_split, stored, tar, unpacked.outline, spool)))
            with meter.task(f"pack {label}", len(writers) * tar.size_bytes):
                for writer in writers:
                    writer.begin(stored)
                    writer.tree(stored, unpacked.tree, tar)
                tar_split = making.result()
                for writer in writers:
                    writer.metadata(unpacked.facts, tar_split)
        return unpacked.facts.size_bytes


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
