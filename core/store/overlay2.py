"""The two forms of a Docker overlay2 store: the store image with its skeleton, and the self-contained data-root."""

from __future__ import annotations

from collections.abc import Callable

from shiplap.core.entries import Content, Entry, FileSlice, Kind
from shiplap.core.layer.tree import LayerTree
from shiplap.core.store.docker import MetadataTree, put_base, put_images, put_layer, record_path
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import LayerFacts, StoredLayer
from shiplap.core.store.squashfssink import Put, SquashfsSink, require_room_for_xattrs
from shiplap.core.store.whiteouts import ImageTrees


def layer_root(stored: StoredLayer, sealed: bool) -> bytes:
    """Path of a layer's tree in a store image (``sealed``) or in store.tar."""
    return (f"layers/{stored.hex}" if sealed else f"overlay2/{stored.hex}/diff").encode()


def tar_split(stored: StoredLayer, sealed: bool) -> bytes:
    """Path of a layer's tar-split data."""
    return (f"layers/{stored.hex}" if sealed else f"{record_path('overlay2', stored.hex)}/").encode() + (
        b".tar-split.json.gz" if sealed else b"tar-split.json.gz"
    )


class SealedStoreWriter:
    """The tree of a store image: ``layers/``, ``skeleton/``, ``store.json`` (formats of the store, docs/store.md)."""

    def __init__(self, identity: StoreIdentity, put: Put, note: Callable[[str], object]) -> None:
        self._identity = identity
        self._sink = SquashfsSink(put, note)
        self._note = note
        self._trees = ImageTrees(identity)
        self._metadata = MetadataTree(identity.epoch)
        self._metadata.file("store.json", identity.to_json(), 0o644)
        put_base(self._metadata, "skeleton/")
        put_images(self._metadata, "skeleton/", identity.images)
        self._sink(Entry(b"", Kind.DIRECTORY, 0o755, mtime_epoch=identity.epoch))
        self._sink(Entry(b"layers", Kind.DIRECTORY, 0o755, mtime_epoch=identity.epoch))

    def begin(self, stored: StoredLayer) -> None:
        pass

    def tree(self, stored: StoredLayer, tree: LayerTree, tar: FileSlice) -> None:
        root = layer_root(stored, True)
        for entry in self._trees.stream(stored, tree, root, tar):
            if entry.xattrs:
                require_room_for_xattrs(entry, root, stored)
            self._sink(entry)

    def metadata(self, facts: LayerFacts, split: Content) -> None:
        stored = facts.stored
        split_path = tar_split(stored, True)
        self._sink(Entry(split_path, Kind.REGULAR, 0o644, mtime_epoch=self._identity.epoch, content=split))
        put_layer(self._metadata, "skeleton/", facts)
        mount_point = self._identity.mount_point
        self._metadata.symlink(f"skeleton/overlay2/{stored.hex}/diff", f"{mount_point}/{layer_root(stored, True).decode()}")
        record = record_path("overlay2", stored.hex)
        self._metadata.symlink(f"skeleton/{record}/tar-split.json.gz", f"{mount_point}/{split_path.decode()}")

    def finish(self) -> None:
        self._trees.finish(self._note)
        for entry in self._metadata.entries():
            self._sink(entry)
        self._sink.finish()


class DataRootWriter:
    """A self-contained data-root with real ``diff`` directories, for ``store.tar``.

    Rooted at ``./``. The common directories come first, then layer by layer, in the order of the images, the
    tree and behind it the layer's metadata.
    """

    def __init__(self, identity: StoreIdentity, put: Put) -> None:
        self._identity = identity
        self._put = put
        base = MetadataTree(identity.epoch)
        put_base(base, "")
        put_images(base, "", identity.images)
        for entry in base.entries():
            put(entry)

    def begin(self, stored: StoredLayer) -> None:
        self._put(Entry(f"overlay2/{stored.hex}".encode(), Kind.DIRECTORY, 0o710, mtime_epoch=self._identity.epoch))

    def tree(self, stored: StoredLayer, tree: LayerTree, tar: FileSlice) -> None:
        for entry in tree.stream(layer_root(stored, False), tar):
            self._put(entry)

    def metadata(self, facts: LayerFacts, split: Content) -> None:
        stored = facts.stored
        metadata = MetadataTree(self._identity.epoch)
        put_layer(metadata, "", facts)
        metadata.file(tar_split(stored, False).decode(), split, 0o644)
        home = f"overlay2/{stored.hex}".encode()
        for entry in metadata.entries():
            if entry.path != home:  # written before the tree
                self._put(entry)

    def finish(self) -> None:
        pass
