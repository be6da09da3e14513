"""Writes a Podman store: as the tree of a store image, which is an additional image store where it is mounted, or as a graphroot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shiplap.core.entries import Content, Entry, FileSlice, Kind
from shiplap.core.image import RawManifest
from shiplap.core.layer.tree import LayerTree
from shiplap.core.store.docker import MetadataTree
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import LayerFacts, StoredImage, StoredLayer, unique_layers
from shiplap.core.store.podman import (
    big_data_name,
    canonical_manifest,
    check_manifest,
    image_home,
    images_json,
    layer_ids,
    layers_json,
    layers_mountable,
    link_name,
    stack_ids,
)
from shiplap.core.store.squashfssink import Put, require_room_for_xattrs
from shiplap.core.store.whiteouts import ImageTrees


@dataclass(frozen=True, slots=True)
class Modes:
    """Permission bits of what is not a layer's own: ``private`` for directories, ``secret`` for files that the engine keeps to itself."""

    private: int
    secret: int
    overlay: int


READ_ONLY = Modes(private=0o755, secret=0o644, overlay=0o755)
"""Readable to all: additional stores are shared with users' own Podmans, which list them."""
GRAPHROOT = Modes(private=0o700, secret=0o600, overlay=0o700)
"""As the engine makes them."""


def layer_root(stored: StoredLayer, sealed: bool) -> bytes:
    """Path of a layer's tree, in a store image and in store.tar alike."""
    return f"overlay/{stack_ids(stored)[-1]}/diff".encode()


def tar_split(stored: StoredLayer, sealed: bool) -> bytes:
    """Path of a layer's tar-split data."""
    return f"overlay-layers/{stack_ids(stored)[-1]}.tar-split.gz".encode()


class PodmanWriter:
    """Rooted at the graphroot. Directories, then layer by layer the tree and its tar-split data, then the JSON.

    ``trees``: the layers' trees as a store image has them; None for a graphroot, which has them as they are.
    ``done`` is called at the end.
    """

    def __init__(
        self, identity: StoreIdentity, put: Put, modes: Modes, trees: ImageTrees | None = None, done: Callable[[], object] = lambda: None
    ) -> None:
        self._identity = identity
        self._put = put
        self._modes = modes
        self._trees = trees
        self._done = done
        self._facts: list[LayerFacts] = []
        # Raises before any layer is read.
        for stored in identity.images:
            if stored.manifest is not None:
                check_manifest(stored.image, stored.manifest)
        base = self._tree()
        base.directory("", modes.private)
        base.directory("overlay", modes.overlay)
        base.directory("overlay-layers", modes.private)
        for entry in base.entries():
            put(entry)

    def begin(self, stored: StoredLayer) -> None:
        home = layer_root(stored, self._modes is READ_ONLY).rpartition(b"/")[0]
        self._put(Entry(home, Kind.DIRECTORY, self._modes.private, mtime_epoch=self._identity.epoch))

    def tree(self, stored: StoredLayer, tree: LayerTree, tar: FileSlice) -> None:
        root = layer_root(stored, self._modes is READ_ONLY)
        for entry in tree.stream(root, tar) if self._trees is None else self._trees.stream(stored, tree, root, tar):
            if entry.xattrs and self._modes is READ_ONLY:
                require_room_for_xattrs(entry, root, stored)
            self._put(entry)

    def metadata(self, facts: LayerFacts, split: Content) -> None:
        self._facts.append(facts)
        modes, tree = self._modes, self._tree()
        *below, own = stack_ids(facts.stored)
        home = f"overlay/{own}"
        tree.file(f"{home}/link", link_name(own).encode(), 0o644)
        if below:
            tree.file(f"{home}/lower", ":".join(f"l/{link_name(one)}" for one in reversed(below)).encode(), 0o644)
        else:
            tree.directory(f"{home}/empty", modes.private)  # a lower directory for a layer that has none
        tree.directory(f"{home}/merged", modes.private)
        tree.directory(f"{home}/work", modes.private)
        tree.file(tar_split(facts.stored, modes is READ_ONLY).decode(), split, modes.secret)
        for entry in tree.entries():
            self._put(entry)

    def finish(self) -> None:
        modes, tree, identity = self._modes, self._tree(), self._identity
        # Lists are in an order that store.json knows, whatever order the images were asked for in.
        images = sorted(identity.images, key=lambda stored: stored.image.config_digest)
        by_layer = {facts.stored.chain_id: facts for facts in self._facts}
        facts_in_order = [by_layer[stored.chain_id] for stored in unique_layers(images)]
        tree.directory("overlay/l", 0o755)
        for facts in self._facts:
            own = stack_ids(facts.stored)[-1]
            tree.symlink(f"overlay/l/{link_name(own)}", f"../{own}/diff")
        # Empty lock files: the engine asks them for the last writer, and opens those of a read-only store for reading only.
        tree.file("overlay-layers/layers.lock", b"", 0o644)
        tree.file("overlay-layers/layers.json", layers_json(facts_in_order, images, identity.epoch), modes.secret)
        tree.directory("overlay-images", modes.private)
        tree.file("overlay-images/images.lock", b"", 0o644)
        sizes = {stack_ids(facts.stored)[-1]: facts.tar_bytes for facts in self._facts}
        manifests = [(stored, _manifest(stored, sizes)) for stored in images]
        tree.file("overlay-images/images.json", images_json(manifests, identity.epoch), modes.secret)
        for stored, manifest in manifests:
            self._image(tree, stored, manifest)
        if modes is READ_ONLY:
            tree.file("store.json", identity.to_json(), 0o644)
        else:
            # Else the engine looks through every layer for what a FUSE file system leaves behind (names with .wh. among it).
            tree.file("overlay/.has-mount-program", b"false", modes.secret)
        for entry in tree.entries():
            self._put(entry)
        self._done()

    def _image(self, tree: MetadataTree, stored: StoredImage, manifest: bytes) -> None:
        digest = RawManifest(manifest, "").digest
        home = image_home(stored.image.config_digest)
        tree.directory(home, self._modes.private)
        for key, data in (("manifest", manifest), (f"manifest-{digest}", manifest), (stored.image.config_digest, stored.image.config)):
            tree.file(f"{home}/{big_data_name(key)}", data, self._modes.secret)

    def _tree(self) -> MetadataTree:
        return MetadataTree(self._identity.epoch)


def _manifest(stored: StoredImage, sizes: Mapping[str, int]) -> bytes:
    """What is stored: the pinned bytes, or the canonical manifest. ``sizes``: of the layers' tars in bytes, by layer id."""
    if stored.manifest is not None:
        return stored.manifest.raw
    return canonical_manifest(stored.image, [sizes[layer_id] for layer_id in layer_ids(stored.image.diff_ids)])


def warn_of_many_layers(identity: StoreIdentity, note: Callable[[str], object]) -> None:
    """Podman 4 passes the paths of all layers to the kernel in one page."""
    most = layers_mountable(identity.mount_point)
    for stored in identity.images:
        if len(stored.image.layers) > most:
            note(
                f"{stored.image.label} has {len(stored.image.layers)} layers; Podman before 5 runs no image of more than {most} layers"
                f" from a store at {identity.mount_point}"
            )
