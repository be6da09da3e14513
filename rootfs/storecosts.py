"""What each image and layer costs in a finished store image, and what sharing saves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.entries import printable
from shiplap.core.sharing import Sharing, sharing
from shiplap.core.store.forms import FORMS, StoreForm
from shiplap.core.store.model import StoredImage, unique_layers
from shiplap.rootfs.squashfs.costs import Cost, measure_costs
from shiplap.rootfs.squashfs.reader import ENTRY_LIMIT, SquashfsReader


@dataclass(frozen=True, slots=True)
class CostlyContent:
    """A large file: its compressed bytes, the chainID of its layer, its path there, escaped."""

    data_bytes: int
    chain_id: str
    path: str


@dataclass(frozen=True, slots=True)
class StoreCosts:
    """``layers``: by chainID, tree and tar-split data. ``rest``: the skeleton and store.json. ``used_bytes``: of the image.

    Padding behind the image does not count. ``other_bytes``: the superblock, and what belongs to no entry. ``largest``: files of
    layers, largest first.
    """

    layers: Mapping[str, Cost]
    rest: Cost
    used_bytes: int
    other_bytes: int
    largest: tuple[CostlyContent, ...]

    @property
    def layer_bytes(self) -> dict[str, int]:
        """chainID → stored bytes."""
        return {chain_id: cost.stored_bytes for chain_id, cost in self.layers.items()}

    @property
    def duplicate_bytes(self) -> int:
        """What equal contents would take on top if each were stored as often as it occurs."""
        return sum(cost.duplicate_bytes for cost in self.layers.values())

    def sharing(self, images: Iterable[StoredImage]) -> Sharing:
        return sharing([stored.chain_ids for stored in images], self.layer_bytes)

    def to_data(self, images: Sequence[StoredImage]) -> dict[str, object]:
        """For record.json and ``inspect --json``; docs/sizes.md explains the keys."""
        shared = self.sharing(images)
        return {
            "of": "store image",
            "used_bytes": self.used_bytes,
            "layers_bytes": shared.unique_bytes,
            "skeleton_bytes": self.rest.stored_bytes,
            "other_bytes": self.other_bytes,
            "saved-by-sharing_bytes": shared.saved_bytes,
            "saved-by-duplicates_bytes": self.duplicate_bytes,
            "images": images_data(images, shared),
            "largest-files": [{"stored_bytes": one.data_bytes, "chainID": one.chain_id, "path": one.path} for one in self.largest],
        }


def images_data(images: Sequence[StoredImage], shared: Sharing) -> list[dict[str, object]]:
    """The figures of each image, in the order of the images."""
    return [
        {
            "config": stored.image.config_digest,
            "own_bytes": share.own_bytes,
            "shared_bytes": share.shared_bytes,
            "total_bytes": share.total_bytes,
        }
        for stored, share in zip(images, shared.images, strict=True)
    ]


def layers_costs(images: Sequence[StoredImage], layer_sizes: Mapping[str, int]) -> dict[str, object]:
    """The same figures where no SquashFS can be measured: from the layers' uncompressed sizes, by chainID or by diffID."""
    named = [
        [
            chain_id if chain_id in layer_sizes else diff_id
            for chain_id, diff_id in zip(stored.chain_ids, stored.image.diff_ids, strict=True)
        ]
        for stored in images
    ]
    shared = sharing(named, layer_sizes)
    return {
        "of": "layers, uncompressed",
        "layers_bytes": shared.unique_bytes,
        "saved-by-sharing_bytes": shared.saved_bytes,
        "images": images_data(images, shared),
    }


def store_costs(
    image: Path,
    images: Iterable[StoredImage],
    *,
    form: StoreForm = FORMS["docker", "overlay2"],
    entry_limit: int = ENTRY_LIMIT,
) -> StoreCosts:
    """Measure the SquashFS store image ``image``, whichever tool wrote it. Raises SquashfsError.

    Of equal contents the first in the order of store.json (images by config, base layer first) owns the bytes, so the figures
    follow from the image alone.
    """
    layers = unique_layers(sorted(images, key=lambda stored: stored.image.config_digest))
    roots = [form.layer_root(layer, True) for layer in layers]
    groups = [[root, form.tar_split(layer, True)] for root, layer in zip(roots, layers, strict=True)]
    with SquashfsReader.open(image, entry_limit=entry_limit) as reader:
        costs = measure_costs(reader, [*groups, list(form.rest)])
    largest = [
        CostlyContent(one.data_bytes, layers[one.group].chain_id, printable(one.path[len(roots[one.group]) :]))
        for one in costs.largest
        if one.group < len(layers) and one.path.startswith(roots[one.group] + b"/")
    ]
    return StoreCosts(
        {layer.chain_id: cost for layer, cost in zip(layers, costs.groups, strict=False)},
        costs.groups[-1],
        costs.bytes_used,
        costs.bytes_used - sum(cost.stored_bytes for cost in costs.groups),
        tuple(largest),
    )
