"""Two stores, in a store image or a store.tar each: by image and layer, not by the paths that digests are part of.

A rebuilt layer has another chainID, and with it other paths; here it meets its earlier self, and what merely
follows from the other chainID is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shiplap.audit.differences import Change, Finding, Section
from shiplap.audit.diffimages import Known, compare_identities, compare_image_lists
from shiplap.audit.diffjson import compare_documents, parsed
from shiplap.audit.diffsquashfs import Placement, compare_left_out, compare_superblocks, content_comparison, explain_container
from shiplap.audit.difftar import explain_records
from shiplap.audit.difftrees import compare_nodes
from shiplap.audit.trees import SquashfsTree, TarTree, Tree, relative
from shiplap.core.jsontext import shown
from shiplap.core.limits import MAX_LAYERS
from shiplap.core.store.docker import link_name

_STORE_JSON_LIMIT_BYTES = 16 << 20
_CONFIG_LIMIT_BYTES = 4 << 20
_IMAGES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Store:
    """A store as a tree. ``layer_root`` and ``metadata`` say where it keeps layers and ``image/``."""

    tree: Tree
    document: dict[str, Any]
    images: tuple[Known, ...]

    def layer_root(self, layer_hex: str) -> bytes:
        return f"layers/{layer_hex}".encode() if isinstance(self.tree, SquashfsTree) else f"overlay2/{layer_hex}/diff".encode()

    @property
    def layers(self) -> dict[str, str]:
        """chainID in hex → diffID."""
        return {chain: diff_id for image in self.images for chain, diff_id in image.layers}


def open_store(tree: Tree, store_json: bytes | None = None) -> Store | None:
    """The store that ``tree`` is; None when it is none. ``store_json``: from beside a store.tar, which has none inside."""
    raw = _small(tree, b"store.json", _STORE_JSON_LIMIT_BYTES) if store_json is None else store_json
    document = None if raw is None else parsed(raw, "store.json")
    if not isinstance(document, dict):
        return None
    try:
        images = tuple(_image(tree, item) for item in document["images"])
    except (KeyError, TypeError, AttributeError):
        return None
    if len(images) > _IMAGES_MAX or any(len(image.layers) > MAX_LAYERS for image in images):
        return None
    store = Store(tree, document, images)
    # It may be a store.json beside something else.
    return store if all(tree.find(store.layer_root(chain)) is not None for chain in store.layers) else None


def _image(tree: Tree, item: dict[str, Any]) -> Known:
    digest = str(item["config"])
    references = tuple(str(reference) for reference in item["references"])
    layers = tuple((str(layer["chainID"]).partition(":")[2], str(layer["diffID"])) for layer in item["layers"])
    root = "skeleton/" if isinstance(tree, SquashfsTree) else ""
    config = _small(tree, f"{root}image/overlay2/imagedb/content/sha256/{digest.partition(':')[2]}".encode(), _CONFIG_LIMIT_BYTES)
    return Known(shown(references[0] if references else digest), digest, references, layers, config)


def _small(tree: Tree, path: bytes, limit_bytes: int) -> bytes | None:
    entry = tree.find(path)
    if entry is None or entry.content is None or entry.content.size_bytes > limit_bytes:
        return None
    return b"".join(entry.content.chunks())


def compare_stores(a: Store, b: Store, section: Section) -> None:
    """Images, their layers' entries, then everything else in the stores, then the containers."""
    compare_documents(_without_images(a), _without_images(b), section.section("store.json without its images", "JSON"))
    join = _Join(a, b)

    def compare(one: Known, other: Known, below: Section) -> None:
        for left, right in compare_identities(one, other, below):
            if left is not None and right is not None:
                join.layer(one.layers[left], other.layers[right], left, below)
            else:
                side, position, layer = ("A", left, one.layers[left]) if left is not None else ("B", right, other.layers[right or 0])
                below.add(Finding(f"layer {position} {layer[1]}", f"only in {side}", kind="layer"))

    compare_image_lists(a.images, b.images, section, compare)
    join.rest(section)


def _without_images(store: Store) -> dict[str, Any]:
    return {key: value for key, value in store.document.items() if key != "images"}


class _Join:
    def __init__(self, a: Store, b: Store) -> None:
        self._a = a
        self._b = b
        self._placement = Placement()
        self._done: set[tuple[str, str]] = set()
        self._squashfs = (a.tree, b.tree) if isinstance(a.tree, SquashfsTree) and isinstance(b.tree, SquashfsTree) else None
        self._findings = 0

    def layer(self, one: tuple[str, str], other: tuple[str, str], number: int, section: Section) -> None:
        if (one[0], other[0]) in self._done:
            return
        self._done.add((one[0], other[0]))
        below = section.section(f"layer {number}", "layer")
        if one[1] != other[1]:
            below.changed("layer", [Change("diffID", one[1], other[1])])
        self._nodes(self._a.layer_root(one[0]), self._b.layer_root(other[0]), below)

    def rest(self, section: Section) -> None:
        """Everything outside the layers of both: the engine's metadata."""
        left_out = self._followers()
        below = section.section("metadata of the store", "entries")
        layers = {store.layer_root(chain) for store in (self._a, self._b) for chain in store.layers}

        def leave_out(path: bytes) -> bool:
            parts = path.split(b"/")
            if parts[-1] == b"store.json":
                return True
            if any(part.partition(b".")[0] in left_out for part in parts):
                return True
            return any(b"/".join(parts[:depth]) in layers for depth in (2, 3))

        self._nodes(b"", b"", below, leave_out)
        if left_out:
            below.remarks.append("what follows from other layers and configs (names, links, records of them) is left out")
        compare_left_out(self._a.tree.left_out, self._b.tree.left_out, section)
        self._explain(section)

    def _explain(self, section: Section) -> None:
        equal = not self._findings and self._a.document == self._b.document
        if equal:
            section.remarks.append("the stores are equal in every entry and field; only the container differs")
        if self._squashfs is not None:
            container = section.section("the container", "SquashFS container")
            if equal:
                explain_container(*self._squashfs, container, self._placement)
            else:
                compare_superblocks(*self._squashfs, container)
        elif equal and isinstance(self._a.tree, TarTree) and isinstance(self._b.tree, TarTree):
            explain_records(self._a.tree, self._b.tree, section.section("the records", "tar records"))

    def _nodes(self, a: bytes, b: bytes, section: Section, leave_out: Any = lambda path: False) -> None:
        options: dict[str, Any] = {"leave_out": leave_out, "both": self._placement.take}
        if self._squashfs is not None:
            options["same"] = content_comparison(*self._squashfs)
        before = section.total
        compare_nodes(relative(self._a.tree.nodes(a), a), relative(self._b.tree.nodes(b), b), section, **options)
        self._findings += section.total - before

    def _followers(self) -> set[bytes]:
        """Names that are there on one side only because of a layer or a config that only that side has."""
        found: set[str] = set()
        sides = [(store.layers.keys(), {image.config_digest.partition(":")[2] for image in store.images}) for store in (self._a, self._b)]
        chains = sides[0][0] ^ sides[1][0]
        found |= chains | (sides[0][1] ^ sides[1][1]) | {link_name(f"sha256:{chain}") for chain in chains}
        if found or _references(self._a.images) != _references(self._b.images):
            found.add("repositories")
        return {name.encode() for name in found}


def _references(images: Iterable[Known]) -> list[tuple[str, tuple[str, ...]]]:
    return [(image.config_digest, image.references) for image in images]
