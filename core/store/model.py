"""What goes into a store: images with the references asked for, and the layers they share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from shiplap.core.errors import Refused
from shiplap.core.image import Image, Layer, RawManifest, chain_ids
from shiplap.core.platform import Platform
from shiplap.core.reference import Reference


class StoreRefused(Refused):
    """Images that cannot be in one store together."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image and the references under which the device knows it, sorted; digest references included.

    ``blobs``: for each layer the digest under which a registry has it, as the lock pins it, or None; empty: nothing pinned.
    ``allow_foreign_elf``: paths and folders that may hold programs for another platform; no part of the identity.
    ``allow_lost_xattrs``: paths and folders that may lose their extended attributes in a store image with explicit whiteouts;
    no part of the identity either.
    ``license``: SPDX expression, as the manifest says; for record.json and the bills of materials.
    ``manifest``: the raw bytes that the lock pins, for stores that hold a manifest (Podman); None for the canonical one.
    """

    image: Image
    references: tuple[Reference, ...]
    blobs: tuple[str | None, ...] = ()
    allow_foreign_elf: tuple[str, ...] = ()
    manifest: RawManifest | None = None
    allow_lost_xattrs: tuple[str, ...] = ()
    license: str | None = None

    @property
    def chain_ids(self) -> tuple[str, ...]:
        return chain_ids(self.image.diff_ids)


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer at its place in a stack: the chainID is its identity in the store.

    ``ancestors``: chainIDs of the layers below it, nearest first.
    """

    chain_id: str
    ancestors: tuple[str, ...]
    image: Image
    layer: Layer

    @property
    def hex(self) -> str:
        return self.chain_id.partition(":")[2]

    @property
    def where(self) -> str:
        return f"{self.image.label}, layer {self.layer.index} ({self.layer.diff_id[:19]})"


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What the metadata of a layer needs to know once its tar has been read.

    ``size_bytes`` as the engine counts, ``tar_bytes`` of the uncompressed tar. ``uids``, ``gids``: every owner that the
    tar's headers name, sorted, where the engine's metadata list them.
    """

    stored: StoredLayer
    size_bytes: int
    tar_bytes: int = 0
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()


def merge(images: Iterable[StoredImage]) -> tuple[StoredImage, ...]:
    """The same image (the same config digest) asked for twice is one image with all references.

    Order is that of first mention. Raises StoreRefused when two images claim one reference, or when
    they are for different platforms.
    """
    by_config: dict[str, StoredImage] = {}
    owners: dict[Reference, str] = {}
    for stored in images:
        digest = stored.image.config_digest
        for reference in stored.references:
            owner = owners.setdefault(reference, digest)
            if owner != digest:
                raise StoreRefused(
                    f"{reference} is asked for twice, for {owner} and for {digest}", hint="give one of the two images another name"
                )
        known = by_config.get(digest)
        references = (*known.references, *stored.references) if known else stored.references
        blobs = (known.blobs if known else ()) or stored.blobs
        allowed = tuple(dict.fromkeys((*(known.allow_foreign_elf if known else ()), *stored.allow_foreign_elf)))
        lost = tuple(dict.fromkeys((*(known.allow_lost_xattrs if known else ()), *stored.allow_lost_xattrs)))
        manifest = (known.manifest if known else None) or stored.manifest
        image = known.image if known else stored.image
        licences = sorted({one.license for one in (known, stored) if one is not None and one.license})
        if len(licences) > 1:
            raise StoreRefused(f"{image.label} is asked for twice, with the licences {' and '.join(licences)}", hint="write one licence")
        by_config[digest] = StoredImage(
            image, tuple(sorted(set(references), key=str)), blobs, allowed, manifest, lost, licences[0] if licences else None
        )
    return tuple(by_config.values())


def common_platform(images: Iterable[StoredImage], declared: Platform | None = None) -> Platform | None:
    """The platform of a store: the ``declared`` one, which takes all images, else the one of all images.

    Raises StoreRefused when an image is for a platform that the declared one does not take (:attr:`Platform.accepted`),
    or when none is declared and there are several.
    """
    if declared is not None:
        for stored in images:
            if not takes(declared, stored.image.platform):
                raise StoreRefused(f"{stored.image.label} is for {stored.image.platform}, and the store for {declared}")
        return declared
    found: dict[str, str] = {}
    platform: Platform | None = None
    for stored in images:
        platform = stored.image.platform
        found.setdefault(str(platform.normalised), stored.image.label)
    if len(found) > 1:
        listed = ", ".join(f"{label} is {name}" for name, label in sorted(found.items()))
        raise StoreRefused(f"a store holds one platform only: {listed}", hint="name the device's platform with `platform:`")
    return platform


def unique_layers(images: Iterable[StoredImage]) -> tuple[StoredLayer, ...]:
    """Every layer once, in the images' order, base first: a change on top moves little."""
    layers: dict[str, StoredLayer] = {}
    for stored in images:
        chain = stored.chain_ids
        for index, layer in enumerate(stored.image.layers):
            if chain[index] not in layers:
                layers[chain[index]] = StoredLayer(chain[index], chain[:index][::-1], stored.image, layer)
    return tuple(layers.values())


def takes(device: Platform, image: Platform) -> bool:
    """Whether ``device`` takes an image whose config says ``image``; many configs for linux/arm/v6 name no variant."""
    return device.accepts(image if image.variant else replace(image, variant=device.variant))
