"""The forms a store can have: one line an engine and driver. Writing, reading back and verifying all start here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from shiplap.core.entries import Entry
from shiplap.core.store import overlay2, podmanwriter, vfs
from shiplap.core.store.docker import config_path, read_sizes
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import StoredLayer
from shiplap.core.store.podman import config_big_data, read_layers_json
from shiplap.core.store.squashfssink import SquashfsSink
from shiplap.core.store.unpacking import ContainersUnpacking, Overlay2Unpacking, Unpacking, VfsUnpacking
from shiplap.core.store.whiteouts import ImageTrees
from shiplap.core.store.writer import StoreWriter

Put = Callable[[Entry], object]
Note = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class StoreForm:
    """How the stores of one engine and driver are made.

    ``image``: the writer of a store image's entries; ``tar``: of ``store.tar``'s. ``root``: where the engine's own root
    begins in a store image, with a final slash, or empty. ``config``: where below that root a config lies.
    ``layer_root``, ``tar_split``: where a store image (True) or store.tar (False) has a layer's tree and tar-split data.
    ``rest``: what else a store image holds. ``independent_layers``: a layer can be unpacked without those below it.
    ``layer_sizes``: chainID → size that the engine's metadata state, read with a function of a path; None when they do not.
    """

    image: Callable[[StoreIdentity, Put, Note], StoreWriter]
    tar: Callable[[StoreIdentity, Put], StoreWriter]
    unpacking: Callable[[StoreIdentity], Unpacking]
    root: str
    config: Callable[[str], str]
    layer_sizes: Callable[[Callable[[str], bytes], StoreIdentity], dict[str, int] | None]
    layer_root: Callable[[StoredLayer, bool], bytes]
    tar_split: Callable[[StoredLayer, bool], bytes]
    rest: tuple[bytes, ...]
    independent_layers: bool = False


def _podman_image(identity: StoreIdentity, put: Put, note: Note) -> StoreWriter:
    podmanwriter.warn_of_many_layers(identity, note)
    sink, trees = SquashfsSink(put, note), ImageTrees(identity)

    def done() -> None:
        trees.finish(note)
        sink.finish()

    return podmanwriter.PodmanWriter(identity, sink, podmanwriter.READ_ONLY, trees, done)


def _podman_tar(identity: StoreIdentity, put: Put) -> StoreWriter:
    return podmanwriter.PodmanWriter(identity, put, podmanwriter.GRAPHROOT)


def _vfs_image(identity: StoreIdentity, put: Put, note: Note) -> StoreWriter:
    sink = SquashfsSink(put, note)
    return vfs.VfsWriter(identity, sink, vfs.IMAGE_ROOT, sink.finish)


def _vfs_tar(identity: StoreIdentity, put: Put) -> StoreWriter:
    return vfs.VfsWriter(identity, put, "")


FORMS = {
    ("docker", "overlay2"): StoreForm(
        image=overlay2.SealedStoreWriter,
        tar=overlay2.DataRootWriter,
        unpacking=Overlay2Unpacking,
        root="skeleton/",
        config=partial(config_path, "overlay2"),
        layer_sizes=partial(read_sizes, "overlay2"),
        layer_root=overlay2.layer_root,
        tar_split=overlay2.tar_split,
        rest=(b"skeleton", b"store.json"),
        independent_layers=True,
    ),
    ("docker", "vfs"): StoreForm(
        image=_vfs_image,
        tar=_vfs_tar,
        unpacking=VfsUnpacking,
        root=vfs.IMAGE_ROOT,
        config=partial(config_path, "vfs"),
        layer_sizes=partial(read_sizes, "vfs"),
        layer_root=vfs.layer_root,
        tar_split=vfs.tar_split,
        rest=(b"data-root/image", b"store.json"),
    ),
    ("podman", "overlay"): StoreForm(
        image=_podman_image,
        tar=_podman_tar,
        unpacking=ContainersUnpacking,
        root="",
        config=config_big_data,
        layer_sizes=read_layers_json,
        layer_root=podmanwriter.layer_root,
        tar_split=podmanwriter.tar_split,
        rest=(b"overlay/l", b"overlay-layers/layers.json", b"overlay-images", b"store.json"),
    ),
}


def form_of(identity: StoreIdentity) -> StoreForm:
    """The form of a store that this release knows; KeyError for another one."""
    return FORMS[identity.engine, identity.driver]
