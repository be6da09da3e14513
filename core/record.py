"""``record.json``: how a build came about. No clock, no host name, no path of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shiplap.core.store.identity import STORE_FORMAT, canonical_json
from shiplap.core.store.model import StoredImage, unique_layers
from shiplap.core.version import VERSION

ENGINE_RANGE = {"docker": {"oldest": "20.10", "newest": "28"}, "podman": {"oldest": "4.3", "newest": "5.8"}}
"""Engines on the device that the store format serves: the oldest and the newest that the tests run (README)."""


def build_record(
    *,
    images: Iterable[StoredImage],
    options: Mapping[str, Any],
    tools: Iterable[Mapping[str, Any]],
    epoch: Mapping[str, Any],
    layer_sizes: Mapping[str, int],
    outputs: Mapping[str, tuple[str, int]],
    seal: Mapping[str, Any] | None,
    lock_sha256: str | None = None,
    stored_bytes: Mapping[str, int] | None = None,
    costs: Mapping[str, Any] | None = None,
    elf_audit: Mapping[str, Any] | None = None,
) -> bytes:
    """The canonical bytes. ``outputs``: name → (sha256 hex, size in bytes); ``layer_sizes`` by chainID or diffID.

    ``stored_bytes``: what each layer costs in the store image, by chainID. ``costs``, ``elf_audit``: docs/sizes.md, docs/elf-audit.md.
    """
    images = tuple(images)
    document: dict[str, Any] = {
        "shiplap": VERSION,
        "format": STORE_FORMAT,
        "engine-range": ENGINE_RANGE,
        "epoch": dict(epoch),
        "sources": [_source(stored) for stored in images],
        "layers": [
            {
                "chainID": layer.chain_id,
                "diffID": layer.layer.diff_id,
                "size_bytes": layer_sizes.get(layer.chain_id, layer_sizes.get(layer.layer.diff_id)),
                "stored_bytes": (stored_bytes or {}).get(layer.chain_id),
            }
            for layer in unique_layers(images)
        ],
        "options": dict(options),
        "tools": [dict(tool) for tool in tools],
        "outputs": {name: {"sha256": digest, "size_bytes": size_bytes} for name, (digest, size_bytes) in outputs.items()},
    }
    if seal is not None:
        document["verity"] = dict(seal)
    if lock_sha256 is not None:
        document["lock"] = {"sha256": lock_sha256}
    if costs is not None:
        document["costs"] = dict(costs)
    if elf_audit is not None:
        document["elf-audit"] = dict(elf_audit)
    return canonical_json(document)


def _source(stored: StoredImage) -> dict[str, Any]:
    image = stored.image
    source: dict[str, Any] = {
        "source": image.source,
        "config": image.config_digest,
        "platform": str(image.platform),
        "references": [str(reference) for reference in stored.references],
    }
    if stored.license:
        source["license"] = stored.license
    if image.manifest_digest:
        source["manifest"] = image.manifest_digest
    if image.index_digest:
        source["index"] = image.index_digest
    return source
