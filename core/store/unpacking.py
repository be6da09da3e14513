"""How the layers of a store become trees, one after another: what a layer needs to know of those below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from shiplap.core.entries import FileSlice, Kind
from shiplap.core.layer.dialect import CONTAINERS_STORAGE
from shiplap.core.layer.rules import WHITEOUT_PREFIX, LayerBuilder
from shiplap.core.layer.tree import Inode, LayerTree
from shiplap.core.layer.unpack import TarOutline, unpack_layer, unpack_with
from shiplap.core.layer.vfstree import MergedTree, MergingBuilder
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import LayerFacts, StoredLayer, unique_layers
from shiplap.core.tar.reader import TarHeader


@dataclass(frozen=True, slots=True)
class UnpackedLayer:
    """A layer's tree, the outline of its tar, and what the engine's metadata say of it. ``whole``: with all layers below it."""

    tree: LayerTree
    outline: TarOutline
    facts: LayerFacts
    whole: bool = False


class Unpacking(Protocol):
    """Unpacks the layers of one store. Layers below come first, as :func:`unique_layers` lists them."""

    def layer(self, stored: StoredLayer, tar: FileSlice, *, where: str, entries_max: int, note: Callable[[str], object]) -> UnpackedLayer:
        """Raises LayerRefused and TarCorrupt. ``where`` names image and layer in errors."""
        ...


class Overlay2Unpacking:
    """Docker's overlay2: every layer for itself."""

    def __init__(self, identity: StoreIdentity) -> None:
        self._epoch = identity.epoch

    def layer(self, stored: StoredLayer, tar: FileSlice, *, where: str, entries_max: int, note: Callable[[str], object]) -> UnpackedLayer:
        tree, outline = unpack_layer(tar, where=where, epoch=self._epoch, entries_max=entries_max, note=note)
        return UnpackedLayer(tree, outline, LayerFacts(stored, tree.size_bytes, tar.size_bytes))


class ContainersUnpacking:
    """Podman's overlay: a layer's root directory begins as the one below it, and the owners in the tar are counted."""

    def __init__(self, identity: StoreIdentity) -> None:
        self._epoch = identity.epoch
        self._roots: dict[str, Inode] = {}

    def layer(self, stored: StoredLayer, tar: FileSlice, *, where: str, entries_max: int, note: Callable[[str], object]) -> UnpackedLayer:
        builder = LayerBuilder(
            where=where, epoch=self._epoch, entries_max=entries_max, note=note, dialect=CONTAINERS_STORAGE, root=self._root(stored)
        )
        uids: set[int] = set()
        gids: set[int] = set()

        def count(header: TarHeader) -> None:
            # layers.go, applyDiffWithOptions: names as the tar spells them, ids cut to 32 bits.
            if not header.name.rstrip(b"/").rpartition(b"/")[2].startswith(WHITEOUT_PREFIX):
                uids.add(header.uid & 0xFFFFFFFF)
                gids.add(header.gid & 0xFFFFFFFF)

        tree, outline = unpack_with(builder, tar, where=where, observe=count)
        self._roots[stored.chain_id] = tree.root
        facts = LayerFacts(stored, tar.size_bytes, tar.size_bytes, tuple(sorted(uids)), tuple(sorted(gids)))
        return UnpackedLayer(tree, outline, facts)

    def _root(self, stored: StoredLayer) -> Inode | None:
        """overlay.go, ``create``: mode and owner of the root below; mkdir(2) drops special bits and what the umask 022 forbids."""
        if not stored.ancestors:
            return None
        below = self._roots[stored.ancestors[0]]
        return Inode(Kind.DIRECTORY, below.mode & 0o755, below.uid, below.gid, self._epoch)


class VfsUnpacking:
    """Docker's vfs: every layer is the whole tree. Trees are kept as long as a layer to come builds on them."""

    def __init__(self, identity: StoreIdentity) -> None:
        self._epoch = identity.epoch
        self._trees: dict[str, MergedTree] = {}
        self._uses = Counter(one.ancestors[0] for one in unique_layers(identity.images) if one.ancestors)

    def layer(self, stored: StoredLayer, tar: FileSlice, *, where: str, entries_max: int, note: Callable[[str], object]) -> UnpackedLayer:
        below = None
        if stored.ancestors:
            parent = stored.ancestors[0]
            below = self._trees[parent]
            self._uses[parent] -= 1
            if not self._uses[parent]:
                del self._trees[parent]
        size_bytes = 0

        def count(header: TarHeader) -> None:
            nonlocal size_bytes
            size_bytes += header.size_bytes  # what the header claims (archive/diff.go, UnpackLayer)

        builder = MergingBuilder(below, stored.hex.encode(), where=where, epoch=self._epoch, entries_max=entries_max, note=note)
        tree, outline = unpack_with(builder, tar, where=where, observe=count)
        assert isinstance(tree, MergedTree)
        if self._uses[stored.chain_id]:
            self._trees[stored.chain_id] = tree
        return UnpackedLayer(tree, outline, LayerFacts(stored, size_bytes, tar.size_bytes), whole=True)
