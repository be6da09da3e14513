"""Fill the cache with what a lock pins, so that building needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shiplap.core.cache import Cache
from shiplap.core.errors import OutsideFailure
from shiplap.core.image import Image
from shiplap.core.layer.spool import uncompressed_layer
from shiplap.core.limits import Limits
from shiplap.core.lock import Lock, LockedImage
from shiplap.core.lock.opening import cached_digests, missing_blobs, missing_from_mirrors, opened_source
from shiplap.core.sources import Access, SourceSpec


class MirrorsLack(OutsideFailure):
    """The download mirrors have not got everything, and nobody else may be asked."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """``came_from``: ``cache`` (nothing was missing), ``mirror`` or ``source``. ``new``: what was missing, as the lock names it."""

    image: LockedImage
    came_from: str
    new: tuple[str, ...]


def fetch_lock(
    lock: Lock,
    source_of: Callable[[LockedImage], SourceSpec],
    *,
    limits: Limits,
    access: Access,
    mirrors_only: bool = False,
) -> tuple[Fetched, ...]:
    """Bring in every config and layer of ``lock`` that the cache of ``access`` lacks.

    Its download mirrors are asked first; with ``mirrors_only`` nobody else, and MirrorsLack says what they lack. Raises LockMismatch for
    a source that holds something else, and what sources and cache raise; what came in until then stays.
    """
    return tuple(_fetched(image, source_of, limits, access, mirrors_only) for image in lock.images)


def cached_of(image: LockedImage, cache: Cache) -> tuple[str, ...]:
    """The digests of the cache that belong to ``image``: config, layers, and manifest and index where they are there."""
    layers = (next((digest for digest, size in cached_digests(layer) if cache.has(digest, size)), None) for layer in image.layers)
    manifests = (digest for digest in image.manifest_digests if cache.has(digest))
    return tuple(dict.fromkeys(digest for digest in (image.config, *layers, *manifests) if digest is not None))


def _fetched(
    locked: LockedImage, source_of: Callable[[LockedImage], SourceSpec], limits: Limits, access: Access, mirrors_only: bool
) -> Fetched:
    cache = access.cache
    assert cache is not None, "there is something to fill"
    missing = missing_blobs(locked, cache)
    if not missing:
        return Fetched(locked, "cache", ())
    lacking = missing_from_mirrors(locked, cache, access)
    if not lacking:
        return Fetched(locked, "mirror", missing)
    if mirrors_only:
        raise MirrorsLack(
            f"{locked.ref.familiar}: the mirrors have not got {', '.join(lacking)}",
            hint="`shiplap cache export` makes the files of a mirror where the registry may be asked",
        )
    with opened_source(locked, source_of(locked), platform=None, limits=limits, access=access) as image:
        _store(image, locked, limits, access, cache)
    return Fetched(locked, "source", missing)


def _store(image: Image, locked: LockedImage, limits: Limits, access: Access, cache: Cache) -> None:
    """Config and layers, a layer as the blob that is locked, else as its uncompressed tar."""
    cache.add(locked.config, locked.config_size_bytes, (image.config,))
    if image.manifest is not None and locked.manifest is not None and image.manifest_digest == locked.manifest.digest:
        cache.add(locked.manifest.digest, locked.manifest.size_bytes, (image.manifest.raw,))
    for layer, pinned in zip(image.layers, locked.layers, strict=True):
        if any(cache.has(digest, size) for digest, size in cached_digests(pinned)):
            continue
        with access.progress.task(f"fetch layer {layer.index} of {locked.ref.familiar}", layer.blob.size_bytes) as task:
            if pinned.blob is not None and layer.blob.digest == pinned.blob:
                cache.add(pinned.blob, pinned.size_bytes, layer.blob.chunks())
                continue
            with uncompressed_layer(image, layer, limits, task.advance) as tar:
                cache.add(pinned.diff_id, tar.size_bytes, tar.chunks())
