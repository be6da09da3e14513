"""``inspect``: what an image source, an archive, a store or an output folder holds, and what sharing saves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiplap.audit.chain import read_identity
from shiplap.audit.storeview import StoreUnreadable, StoreView, open_image, open_tar_view, read_small
from shiplap.core.errors import Refused
from shiplap.core.image import chain_ids
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform
from shiplap.core.sources import TRANSPORTS, open_images, parse_source
from shiplap.core.store.identity import StoreIdentity
from shiplap.rootfs.squashfs.reader import SquashfsReader

_STORE_JSON_LIMIT_BYTES = 16 << 20
_SIZE_FILE_LIMIT_BYTES = 32


class NotInspectable(Refused):
    """Something of no known kind."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """``size_bytes``: of the unpacked files in a store, of the stored blob in a source."""

    chain_id: str
    diff_id: str
    size_bytes: int
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class ImageInfo:
    config: str
    references: tuple[str, ...]
    platform: str
    created_epoch: int | None
    layers: tuple[LayerInfo, ...]
    manifest: str | None = None
    index: str | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """``kind``: source, store image, store.tar. ``facts``: what else is known, by name."""

    thing: str
    kind: str
    images: tuple[ImageInfo, ...]
    facts: tuple[tuple[str, Any], ...] = ()

    @property
    def unique_bytes(self) -> int:
        """All layers, each once."""
        return sum({layer.chain_id: layer.size_bytes for image in self.images for layer in image.layers}.values())

    @property
    def saved_bytes(self) -> int:
        """What would be needed on top if images shared no layer."""
        return sum(layer.size_bytes for image in self.images for layer in image.layers) - self.unique_bytes

    @property
    def uses(self) -> Counter[str]:
        """chainID → number of images that have the layer."""
        return Counter(chain_id for image in self.images for chain_id in {layer.chain_id for layer in image.layers})

    def to_data(self) -> dict[str, object]:
        """The JSON object of ``shiplap inspect --json``."""
        uses = self.uses
        return {
            "thing": self.thing,
            "kind": self.kind,
            **dict(self.facts),
            "unique_bytes": self.unique_bytes,
            "saved-by-sharing_bytes": self.saved_bytes,
            "images": [
                {
                    "config": image.config,
                    "references": list(image.references),
                    "platform": image.platform,
                    "created_epoch": image.created_epoch,
                    "manifest": image.manifest,
                    "index": image.index,
                    "layers": [
                        {
                            "chainID": layer.chain_id,
                            "diffID": layer.diff_id,
                            "size_bytes": layer.size_bytes,
                            "media-type": layer.media_type,
                            "images": uses[layer.chain_id],
                        }
                        for layer in image.layers
                    ],
                }
                for image in self.images
            ],
        }


def inspect_thing(thing: str, platform: Platform | None, limits: Limits) -> list[Inspection]:
    """Inspect a path or a source; an output folder may hold several things. Raises Refused."""
    path = Path(thing)
    if thing.partition(":")[0] in TRANSPORTS and not path.exists():
        return [_source(thing, platform, limits)]
    if path.is_dir():
        if (path / "oci-layout").exists() or (path / "index.json").exists():
            return [_source(f"oci:{thing}", platform, limits)]
        found = [
            one
            for name in ("store.squashfs", "store.tar", "images.tar", "images.tar.gz", "images.tar.xz", "images.tar.zst")
            if (path / name).exists()
            for one in inspect_thing(str(path / name), platform, limits)
        ]
        if not found:
            raise NotInspectable(f"{thing} is neither an output folder nor an OCI layout")
        return found
    if not path.exists():
        raise NotInspectable(f"{thing} does not exist, and is no source", hint="a path, or a source such as docker-archive:FILE")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"hsqs":
        return [_store_image(path, limits)]
    if path.name == "store.tar":
        with open_tar_view(path) as view:
            beside = path.with_name("store.json")
            if not beside.exists():
                raise NotInspectable(f"{thing} needs its store.json beside it")
            return [_store(thing, "store.tar", view, beside.read_bytes()[: _STORE_JSON_LIMIT_BYTES + 1], limits, ())]
    return [_source(f"docker-archive:{thing}", platform, limits)]


def _store_image(path: Path, limits: Limits) -> Inspection:
    with SquashfsReader.open(path) as reader:
        superblock = reader.superblock
    facts: tuple[tuple[str, Any], ...] = (
        ("image_bytes", path.stat().st_size),
        ("compressor", str(superblock.compressor)),
        ("block-size_bytes", superblock.block_size_bytes),
        ("inodes", superblock.inode_count),
    )
    with open_image(path) as view:
        if view.find(b"store.json") is None:
            raise NotInspectable(f"{path} is a SquashFS, but no store image of shiplap: it has no store.json")
        return _store(str(path), "store image", view, read_small(view, "store.json", _STORE_JSON_LIMIT_BYTES), limits, facts)


def _store(thing: str, kind: str, view: StoreView, store_json: bytes, limits: Limits, facts: Sequence[tuple[str, Any]]) -> Inspection:
    identity = read_identity(view, store_json, limits)
    images = tuple(
        ImageInfo(
            stored.image.config_digest,
            tuple(str(reference) for reference in stored.references),
            str(stored.image.platform),
            stored.image.created_epoch,
            tuple(
                LayerInfo(chain_id, diff_id, _size(view, chain_id))
                for chain_id, diff_id in zip(stored.chain_ids, stored.image.diff_ids, strict=True)
            ),
        )
        for stored in identity.images
    )
    return Inspection(thing, kind, images, (*_identity_facts(identity), *facts))


def _identity_facts(identity: StoreIdentity) -> tuple[tuple[str, Any], ...]:
    return (
        ("engine", identity.engine),
        ("driver", identity.driver),
        ("platform", str(identity.platform)),
        ("store-path", identity.store_path),
        ("epoch", identity.epoch),
    )


def _size(view: StoreView, chain_id: str) -> int:
    layer_hex = chain_id.partition(":")[2]
    path = f"{view.metadata_root}image/overlay2/layerdb/sha256/{layer_hex}/size"
    text = read_small(view, path, _SIZE_FILE_LIMIT_BYTES)
    if not text.isdigit():
        raise StoreUnreadable(f"{view.name}: {path} holds no size")
    return int(text)


def _source(text: str, platform: Platform | None, limits: Limits) -> Inspection:
    spec = parse_source(text)
    with open_images(spec, platform=platform, limits=limits) as found:
        images = tuple(
            ImageInfo(
                image.config_digest,
                image.references,
                str(image.platform),
                image.created_epoch,
                tuple(
                    LayerInfo(chain_id, layer.diff_id, layer.blob.size_bytes, layer.blob.media_type)
                    for chain_id, layer in zip(chain_ids(image.diff_ids), image.layers, strict=True)
                ),
                image.manifest_digest,
                image.index_digest,
            )
            for image in found
        )
    return Inspection(text, "source", images, (("transport", spec.transport),))
