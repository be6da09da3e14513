"""The budget of a store image: when it is exceeded, by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shiplap.core.errors import Refused
from shiplap.core.sharing import sharing
from shiplap.core.store.model import StoredImage, unique_layers
from shiplap.rootfs.storecosts import StoreCosts

_SHOWN = 5


class OverBudget(Refused):
    """The store image is larger than the manifest allows."""


def over_budget(
    name: str,
    size_bytes: int,
    budget_bytes: int,
    images: Sequence[StoredImage],
    costs: StoreCosts | None,
    layer_sizes: Mapping[str, int],
) -> OverBudget:
    """The error that names the largest images, layers and files.

    ``costs``: None where the image cannot be measured; then the layers' uncompressed ``layer_sizes`` (by chainID) have to do.
    """
    layer_bytes = layer_sizes if costs is None else costs.layer_bytes
    measure = ", uncompressed" if costs is None else ""
    places = {layer.chain_id: layer.where for layer in unique_layers(images)}
    lines = [f"{name} has {size_bytes} bytes, the budget is {budget_bytes}: {_mebibytes(size_bytes - budget_bytes)} too much"]
    shares = sharing([stored.chain_ids for stored in images], layer_bytes).images
    ranked = sorted(zip(images, shares, strict=True), key=lambda pair: (-pair[1].total_bytes, pair[0].image.config_digest))
    lines.append(f"the largest images{measure}:")
    lines += [
        f"  {_mebibytes(share.total_bytes)}  {stored.image.label}"
        + (f" ({_mebibytes(share.own_bytes)} of it in no other image)" if share.shared_bytes else "")
        for stored, share in ranked[:_SHOWN]
    ]
    lines.append(f"the largest layers{measure}:")
    by_size = sorted(layer_bytes.items(), key=lambda item: (-item[1], item[0]))
    lines += [f"  {_mebibytes(size)}  {places[chain_id]}" for chain_id, size in by_size[:_SHOWN]]
    if costs is not None and costs.largest:  # only files that own whole blocks are measured one by one
        lines.append("the largest files:")
        lines += [f"  {_mebibytes(one.data_bytes)}  {one.path} in {places[one.chain_id]}" for one in costs.largest[:_SHOWN]]
    return OverBudget("\n  ".join(lines), hint="raise `budget: {store-image: …}`, or embed less")


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB" if size_bytes >= 1 << 20 else f"{size_bytes / 1024:.1f} KiB"
