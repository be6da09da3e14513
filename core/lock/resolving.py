"""What the lock says of an image: every digest, resolved once from its source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from shiplap.core.cache import Cache, cache_folder
from shiplap.core.entries import FileSlice
from shiplap.core.image import Image, Layer, RawManifest
from shiplap.core.limits import Limits
from shiplap.core.lock.model import LockedImage, LockedLayer, LockedManifest
from shiplap.core.manifest import ImageRequest
from shiplap.core.platform import Platform
from shiplap.core.sources import Access, SourceSpec, open_images, parse_source
from shiplap.core.sources.config import parse_config
from shiplap.core.sources.registry import resolve

MANIFEST_TRANSPORTS = ("docker", "oci", "oci-archive")
"""Sources that keep the manifests that registries serve."""


@dataclass(frozen=True, slots=True)
class DescribedBlob:
    """A blob that a manifest names and nobody has fetched."""

    location: str
    digest: str | None
    size_bytes: int
    media_type: str | None

    def chunks(self) -> Iterator[bytes]:
        raise AssertionError("locking reads no layer")

    def slice(self) -> FileSlice | None:
        return None


@contextmanager
def described_images(spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Iterator[tuple[Image, ...]]:
    """The images that ``spec`` names; of a registry's only what its metadata says, so that no layer is fetched."""
    if spec.transport != "docker":
        with open_images(spec, platform=platform, limits=limits, access=access) as images:
            yield images
        return
    if access.cache is None:  # metadata has to lie somewhere; the folder's own error says why there is none
        access = replace(access, cache=Cache(cache_folder(access.environment)))
    resolved = resolve(spec, platform=platform, limits=limits, access=access)
    source = spec.public_text
    config = parse_config(resolved.config, what=f"config {resolved.config_digest[:19]}… of {source}", limits=limits)
    layers = tuple(
        Layer(index, layer.diff_id, DescribedBlob(source, layer.digest, layer.size_bytes, layer.media_type))
        for index, layer in enumerate(resolved.layers)
    )
    image = Image(
        config=resolved.config,
        config_digest=config.digest,
        layers=layers,
        references=(),
        platform=config.platform,
        source=source,
        manifest_digest=resolved.manifest.digest,
        index_digest=resolved.indexes[0].digest if resolved.indexes else None,
        created_epoch=config.created_epoch,
        manifest=RawManifest(resolved.manifest.raw, resolved.manifest.media_type),
    )
    yield (image,)


def locked_image(request: ImageRequest, image: Image, platform: Platform | None, *, manifest_bytes: bool) -> LockedImage:
    """``image`` as the lock says it; ``platform``: the one that was asked for.

    Archives of ``docker save`` and engines have their config and diffIDs pinned, no more: a manifest that is in them may be
    one that the engine made up. Where the request names its digest it is somebody's word, and is pinned too.
    """
    assert request.ref is not None, "a lock knows images by name"
    manifest = None
    keeps_manifests = parse_source(request.source).transport in MANIFEST_TRANSPORTS
    if image.manifest and image.manifest_digest and (keeps_manifests or request.digest or request.ref.digest):
        raw = image.manifest.raw
        manifest = LockedManifest(image.manifest_digest, len(raw), image.manifest.media_type, raw if manifest_bytes else None)
    return LockedImage(
        ref=request.ref,
        source=request.source,
        platform=platform or image.platform,
        config=image.config_digest,
        config_size_bytes=len(image.config),
        layers=tuple(_layer(layer) if manifest and keeps_manifests else LockedLayer(layer.diff_id) for layer in image.layers),
        created_epoch=image.created_epoch,
        index=image.index_digest if manifest else None,
        manifest=manifest,
    )


def _layer(layer: Layer) -> LockedLayer:
    return LockedLayer(layer.diff_id, layer.blob.digest, layer.blob.size_bytes, layer.blob.media_type)
