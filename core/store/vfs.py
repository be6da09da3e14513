"""A Docker vfs store: a whole data-root, which a device uses as the lower directory of an overlayfs."""

from __future__ import annotations

from collections.abc import Callable

from shiplap.core.entries import Content, FileSlice
from shiplap.core.layer.tree import LayerTree
from shiplap.core.store.docker import MetadataTree, put_base, put_images, put_record, record_path
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import LayerFacts, StoredLayer
from shiplap.core.store.squashfssink import Put, require_room_for_xattrs

IMAGE_ROOT = "data-root/"


def layer_root(stored: StoredLayer, sealed: bool) -> bytes:
    """Path of a layer's whole tree in a store image (``sealed``) or in store.tar."""
    return f"{IMAGE_ROOT if sealed else ''}vfs/dir/{stored.hex}".encode()


def tar_split(stored: StoredLayer, sealed: bool) -> bytes:
    """Path of a layer's tar-split data."""
    return f"{IMAGE_ROOT if sealed else ''}{record_path('vfs', stored.hex)}/tar-split.json.gz".encode()


class VfsWriter:
    """``at``: where the data-root lies, ``data-root/`` in a store image, empty in ``store.tar``. ``done`` is called at the end.

    The common directories come first, then layer by layer, in the order of the images, the tree and behind it the
    layer's metadata. A file that several trees have is there once, with hard links.
    """

    def __init__(self, identity: StoreIdentity, put: Put, at: str, done: Callable[[], object] = lambda: None) -> None:
        self._identity = identity
        self._put = put
        self._at = at
        self._done = done
        base = MetadataTree(identity.epoch)
        if at:
            base.directory("", 0o755)
            base.file("store.json", identity.to_json(), 0o644)
        put_base(base, at, "vfs")
        put_images(base, at, identity.images, "vfs")
        for entry in base.entries():
            put(entry)

    def begin(self, stored: StoredLayer) -> None:
        pass

    def tree(self, stored: StoredLayer, tree: LayerTree, tar: FileSlice) -> None:
        root = layer_root(stored, bool(self._at))
        for entry in tree.stream(root, tar):
            if entry.xattrs and self._at:
                require_room_for_xattrs(entry, root, stored)
            self._put(entry)

    def metadata(self, facts: LayerFacts, split: Content) -> None:
        metadata = MetadataTree(self._identity.epoch)
        put_record(metadata, self._at, facts, "vfs")
        metadata.file(tar_split(facts.stored, bool(self._at)).decode(), split, 0o644)
        for entry in metadata.entries():
            self._put(entry)

    def finish(self) -> None:
        self._done()
