"""``inspect``: what an image source, an archive, a store or an output folder holds, and what sharing saves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shiplap.audit.chain import read_identity
from shiplap.audit.erofsview import erofs_view
from shiplap.audit.foreignsquashfs import squashfs_facts
from shiplap.audit.programs import source_programs, store_programs
from shiplap.audit.storeview import ImageView, MetadataView, StoreUnreadable, StoreView, engine_root, open_tar_view, read_small
from shiplap.audit.thingkinds import is_source
from shiplap.core.elfreport import ElfReport
from shiplap.core.errors import Refused
from shiplap.core.image import chain_ids
from shiplap.core.limits import Limits
from shiplap.core.lock.resolving import described_images
from shiplap.core.platform import Platform
from shiplap.core.reference import parse_reference
from shiplap.core.sources import Access, SourceSpec, open_images, parse_source
from shiplap.core.store.forms import form_of
from shiplap.core.store.identity import StoreIdentity
from shiplap.rootfs.erofs.superblock import is_erofs, read_superblock
from shiplap.rootfs.squashfs.costs import Cost
from shiplap.rootfs.squashfs.reader import SquashfsReader
from shiplap.rootfs.storecosts import layers_costs, store_costs

_STORE_JSON_LIMIT_BYTES = 16 << 20


class NotInspectable(Refused):
    """Something of no known kind."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """``size_bytes``: of the unpacked files in a store, of the stored blob in a source."""

    chain_id: str
    diff_id: str
    size_bytes: int
    media_type: str | None = None
    cost: Cost | None = None
    """What it takes in the store image, where that can be measured."""


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
    """``kind``: source, store image, store.tar. ``facts``: what else is known, by name.

    ``costs``: as in record.json. ``elf``: what programs the images hold; one report for each platform.
    """

    thing: str
    kind: str
    images: tuple[ImageInfo, ...]
    facts: tuple[tuple[str, Any], ...] = ()
    costs: Mapping[str, Any] | None = None
    elf: tuple[ElfReport, ...] = ()

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
            "costs": self.costs,
            "elf-audit": [report.to_data() for report in self.elf],
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
                            "stored_bytes": layer.cost.stored_bytes if layer.cost else None,
                            "duplicate_bytes": layer.cost.duplicate_bytes if layer.cost else None,
                        }
                        for layer in image.layers
                    ],
                }
                for image in self.images
            ],
        }


def inspect_thing(
    thing: str, platform: Platform | None, limits: Limits, *, elf: bool = False, access: Access | None = None
) -> list[Inspection]:
    """Inspect a path or a source; an output folder may hold several things. Raises Refused.

    ``elf``: look for programs in the layers of a source, too, all of which are read for it. ``access``: how a
    source may be reached; None for one without cache, which files do not need.
    """
    path = Path(thing)
    if is_source(thing):
        return [_source(thing, platform, limits, access, elf=elf)]
    if path.is_dir():
        if (path / "oci-layout").exists() or (path / "index.json").exists():
            return [_source(f"oci:{thing}", platform, limits, access, elf=elf)]
        found = [
            one
            for name in ("store.squashfs", "store.erofs", "store.tar", "images.tar", "images.tar.gz", "images.tar.xz", "images.tar.zst")
            if (path / name).exists()
            for one in inspect_thing(str(path / name), platform, limits, elf=elf)
        ]
        if not found:
            raise NotInspectable(f"{thing} is neither an output folder nor an OCI layout")
        return found
    if not path.exists():
        raise NotInspectable(
            f"{thing} does not exist, and is no source", hint="a path, or a source such as docker-archive:FILE or docker://NAME"
        )
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"hsqs":
        return [_store_image(path, limits)]
    if is_erofs(path):
        return [_store_erofs(path, limits)]
    if path.name == "store.tar":
        with open_tar_view(path) as view:
            beside = path.with_name("store.json")
            if not beside.exists():
                raise NotInspectable(f"{thing} needs its store.json beside it")
            store_json = beside.read_bytes()[: _STORE_JSON_LIMIT_BYTES + 1]
            return [_store(thing, "store.tar", view, store_json, limits, (), trees=view)]
    return [_source(f"docker-archive:{thing}", platform, limits, access, elf=elf)]


def _store_image(path: Path, limits: Limits) -> Inspection:
    with SquashfsReader.open(path, entry_limit=limits.image_entries) as reader:
        superblock = reader.superblock
    facts: tuple[tuple[str, Any], ...] = (
        ("image_bytes", path.stat().st_size),
        ("compressor", str(superblock.compressor)),
        ("block-size_bytes", superblock.block_size_bytes),
        ("inodes", superblock.inode_count),
    )
    # Without decompressing ahead: of most files only the beginning is read.
    with SquashfsReader.open(path, entry_limit=limits.image_entries) as reader:
        view = ImageView(path.name, reader)
        if view.find(b"store.json") is None:
            return Inspection(str(path), "SquashFS", (), squashfs_facts(path, entry_limit=limits.image_entries))
        store_json = read_small(view, "store.json", _STORE_JSON_LIMIT_BYTES)
        return _store(str(path), "store image", view, store_json, limits, facts, trees=view, squashfs=path)


def _store_erofs(path: Path, limits: Limits) -> Inspection:
    superblock = read_superblock(path)
    facts: tuple[tuple[str, Any], ...] = (
        ("image_bytes", path.stat().st_size),
        ("filesystem", "erofs"),
        ("block-size_bytes", superblock.block_size_bytes),
        ("inodes", superblock.inode_count),
    )
    view = erofs_view(path)
    if view.find(b"store.json") is None:
        raise NotInspectable(f"{path} is an EROFS, but no store image of shiplap: it has no store.json")
    return _store(str(path), "store image", view, read_small(view, "store.json", _STORE_JSON_LIMIT_BYTES), limits, facts)


def _store(
    thing: str,
    kind: str,
    view: MetadataView,
    store_json: bytes,
    limits: Limits,
    facts: Sequence[tuple[str, Any]],
    *,
    trees: StoreView | None = None,
    squashfs: Path | None = None,
) -> Inspection:
    """``trees``: the store, where its layers can be read. ``squashfs``: the store image, where it can be measured."""
    identity = read_identity(view, store_json, limits)
    sizes = _sizes(view, identity, limits)
    costs = (
        store_costs(squashfs, identity.images, form=form_of(identity), entry_limit=limits.image_entries) if squashfs is not None else None
    )
    by_layer: Mapping[str, Cost] = costs.layers if costs is not None else {}
    images = tuple(
        ImageInfo(
            stored.image.config_digest,
            tuple(str(reference) for reference in stored.references),
            str(stored.image.platform),
            stored.image.created_epoch,
            tuple(
                LayerInfo(chain_id, diff_id, sizes[chain_id], cost=by_layer.get(chain_id))
                for chain_id, diff_id in zip(stored.chain_ids, stored.image.diff_ids, strict=True)
            ),
        )
        for stored in identity.images
    )
    if costs is not None:
        measured = costs.to_data(identity.images)
    else:
        measured = layers_costs(identity.images, {layer.chain_id: layer.size_bytes for image in images for layer in image.layers})
    elf = () if trees is None else (store_programs(trees, identity),)
    return Inspection(thing, kind, images, (*_identity_facts(identity), *facts), measured, elf)


def _identity_facts(identity: StoreIdentity) -> tuple[tuple[str, Any], ...]:
    return (
        ("engine", identity.engine),
        ("driver", identity.driver),
        ("platform", str(identity.platform)),
        ("store-path", identity.store_path),
        ("epoch", identity.epoch),
    )


def _sizes(view: MetadataView, identity: StoreIdentity, limits: Limits) -> dict[str, int]:
    """chainID → size as the engine's own metadata say."""
    form = form_of(identity)
    root = engine_root(view, form)
    found = form.layer_sizes(lambda path: read_small(view, root + path, limits.metadata_bytes), identity)
    if found is None:
        raise StoreUnreadable(f"{view.name}: its layers' sizes cannot be read")
    return found


def _source(text: str, platform: Platform | None, limits: Limits, access: Access | None, *, elf: bool) -> Inspection:
    spec = parse_source(text)
    # A registry's metadata say everything but what is in the layers.
    opened = open_images if elf or spec.transport != "docker" else described_images
    with opened(spec, platform=platform, limits=limits, access=access or Access()) as found:
        images = tuple(
            ImageInfo(
                image.config_digest,
                image.references or _asked(spec),
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
        reports = source_programs(found, platform, limits) if elf else ()
    return Inspection(text, "source", images, (("transport", spec.transport),), None, reports)


def _asked(spec: SourceSpec) -> tuple[str, ...]:
    """The names under which a registry was asked; in other sources a name is a part of what they hold."""
    if spec.transport != "docker":
        return ()
    reference = parse_reference(spec.location)
    tagged = (str(replace(reference, digest=None)),) if reference.tag else ()
    return (*tagged, str(replace(reference, tag=None))) if reference.digest else tagged
