"""An image as the lock pins it: from the cache when all of it is there, else from its source and held against the lock."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from shiplap.core.blobs import BlobCorrupt, Files, StoredBlob, blob_path, read
from shiplap.core.cache import Cache
from shiplap.core.cache.mirror import fetch_from
from shiplap.core.entries import FileSlice
from shiplap.core.errors import Refused
from shiplap.core.image import Image, Layer
from shiplap.core.limits import Limits
from shiplap.core.lock.document import manifest_names
from shiplap.core.lock.model import LockedImage, LockedLayer
from shiplap.core.platform import Platform
from shiplap.core.reference import parse_reference
from shiplap.core.registry.failures import NotInRegistry
from shiplap.core.sources import Access, OfflineRefused, open_images
from shiplap.core.sources.config import parse_config
from shiplap.core.sources.rewritten import explain
from shiplap.core.sources.spec import FILE_TRANSPORTS, SourceSpec

_WEB = re.compile(r"https?://", re.IGNORECASE)


class LockMismatch(Refused):
    """Something is not what the lock says."""


class CacheCorrupt(BlobCorrupt):
    """A blob of the cache is another than its name says."""

    def __init__(self, digest: str, message: str) -> None:
        super().__init__(message, hint="it was removed from the cache: run the command again to fetch it anew")
        self.digest = digest


@dataclass(frozen=True, slots=True)
class CachedBlob:
    """A blob of the cache; :func:`open_locked` removes it when it turns out to be another than its name says."""

    stored: StoredBlob

    @property
    def location(self) -> str:
        return self.stored.location

    @property
    def digest(self) -> str | None:
        return self.stored.digest

    @property
    def size_bytes(self) -> int:
        return self.stored.size_bytes

    @property
    def media_type(self) -> str | None:
        return self.stored.media_type

    def chunks(self) -> Iterator[bytes]:
        """As of StoredBlob; raises CacheCorrupt when the blob is damaged."""
        with self._damage_told():
            yield from self.stored.chunks()

    def slice(self) -> FileSlice | None:
        """As of StoredBlob; raises CacheCorrupt when the blob has another size by now."""
        with self._damage_told():
            return self.stored.slice()

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except BlobCorrupt as error:
            assert self.digest is not None, "what the cache has it has by digest"
            raise CacheCorrupt(self.digest, error.message) from error


def cached_digests(layer: LockedLayer) -> tuple[tuple[str, int | None], ...]:
    """Under which digests the cache may hold a layer, with the size where it is known: the blob first, as it is smaller."""
    blob = () if layer.blob is None else ((layer.blob, layer.size_bytes),)
    return (*blob, (layer.diff_id, None))


def missing_blobs(locked: LockedImage, cache: Cache) -> tuple[str, ...]:
    """The digests that are not in the cache, as the lock names them, config first; empty when the image can be built from it."""
    config = () if cache.has(locked.config, locked.config_size_bytes) else (locked.config,)
    layers = (layer for layer in locked.layers if not any(cache.has(digest, size) for digest, size in cached_digests(layer)))
    return tuple(dict.fromkeys((*config, *(layer.blob or layer.diff_id for layer in layers))))


def missing_from_mirrors(locked: LockedImage, cache: Cache, access: Access) -> tuple[str, ...]:
    """What is still missing when the download mirrors were asked: with ``offline`` only those that are folders."""
    mirrors = [one for one in access.download_mirrors if not (access.offline and _WEB.match(one))]
    missing = missing_blobs(locked, cache)
    if not mirrors or not missing:
        return missing
    sizes = {locked.config: locked.config_size_bytes, **{layer.blob: layer.size_bytes for layer in locked.layers if layer.blob}}
    others = {layer.blob: layer.diff_id for layer in locked.layers if layer.blob}
    asked = partial(fetch_from, mirrors, cache, progress=access.progress, unreachable=access.unreachable)
    for digest in missing:
        if not asked(digest, sizes.get(digest)) and digest in others:
            asked(others[digest], None)
    return missing_blobs(locked, cache)


@contextmanager
def open_locked(locked: LockedImage, spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Iterator[Image]:
    """The image ``locked``, proven to be it; of several images in the source that ``spec`` names the one that is meant.

    What comes out is the same wherever it came from: the lock's digests, the source as it is written. Raises
    LockMismatch when the content is another, OfflineRefused, and what the source raises.
    """
    with ExitStack() as stack:
        cache = access.cache
        if cache is not None and not missing_from_mirrors(locked, cache, access):
            files = stack.enter_context(cache.files())
            try:
                yield _as_locked(_cached(locked, cache, files, limits), locked, spec)
            except CacheCorrupt as error:  # here or where the blob was read: the next try finds it missing
                if cache.discard(error.digest):
                    if not access.offline or spec.transport in FILE_TRANSPORTS:
                        raise
                    hint = "it was removed from the cache: `shiplap fetch`, where there is a network, brings it again"
                    raise BlobCorrupt(error.message, hint=hint) from error
                hint = f"this user may not remove it: `shiplap cache verify --repair --cache {cache.root}` as the cache's owner"
                raise BlobCorrupt(error.message, hint=hint) from error
            return
        if access.offline and spec.transport not in FILE_TRANSPORTS:
            raise _offline(locked, cache)
        image = stack.enter_context(opened_source(locked, spec, platform=platform, limits=limits, access=access))
        yield _as_locked(image, locked, spec)


def _offline(locked: LockedImage, cache: Cache | None) -> OfflineRefused:
    if cache is None:
        return OfflineRefused(f"--offline: {locked.ref} is not at hand, and there is no cache")
    missing = missing_blobs(locked, cache)
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return OfflineRefused(
        f"--offline: the cache {cache.root} lacks {', '.join(missing[:3])}{more} of {locked.ref}",
        hint="`shiplap fetch` fills the cache from the lock; run it where there is a network",
    )


@contextmanager
def opened_source(locked: LockedImage, spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Iterator[Image]:
    """The image from its source, never from the cache alone: of a registry the manifest that is pinned. Raises LockMismatch."""

    def opened(pinned: SourceSpec) -> AbstractContextManager[tuple[Image, ...]]:
        return open_images(pinned, platform=platform or locked.platform, limits=limits, access=access)

    with pinned_images(locked, spec, opened, access) as (_, images):
        image = next((one for one in images if one.config_digest == locked.config), images[0])
        require_same(image, locked, spec.public_text, access)
        yield image


@contextmanager
def pinned_images(
    locked: LockedImage, spec: SourceSpec, opened: Callable[[SourceSpec], AbstractContextManager[tuple[Image, ...]]], access: Access
) -> Iterator[tuple[SourceSpec, tuple[Image, ...]]]:
    """What ``opened`` makes of the source, and of which one: a registry is asked for the manifest that is pinned, for a tag moves.

    A registry that has it not may pack the same content otherwise; its tag is taken then, and has to be held against the lock.
    """
    with ExitStack() as stack:
        pinned = spec
        if spec.transport == "docker" and locked.manifest is not None:
            pinned = replace(spec, location=f"{parse_reference(spec.location).name}@{locked.manifest.digest}")
        try:
            images = stack.enter_context(opened(pinned))
        except NotInRegistry as error:
            if pinned == spec:
                raise
            access.progress.note(f"{error.message}; what {spec.public_text} means now is held against the lock instead")
            pinned, images = spec, stack.enter_context(opened(spec))
        yield pinned, images


def require_same(image: Image, locked: LockedImage, source: str, access: Access) -> None:
    """Raise LockMismatch unless ``image`` has the content that is pinned. Another manifest around the same content is only noted."""
    if image.config_digest != locked.config:
        raise mismatch(image, locked, source, access.cache)
    if image.diff_ids != locked.diff_ids:
        raise LockMismatch(f"{source}: the lock lists other layers for {locked.ref} than its config {locked.config}", hint=_RELOCK)
    _require_coherent(image, locked, source)
    pinned = locked.manifest_digests
    known = tuple(one for one in (image.manifest_digest, image.index_digest) if one)
    if pinned and known and not set(pinned) & set(known):
        access.progress.note(
            f"{locked.ref}: {source} holds the content that is locked under another manifest, {known[0]} instead of {pinned[-1]}"
        )


def _require_coherent(image: Image, locked: LockedImage, source: str) -> None:
    """Raise LockMismatch where the lock says of this very image what is not so: which blobs it has ends up in the store."""
    if len(image.config) != locked.config_size_bytes:
        raise LockMismatch(
            f"{source}: the config {locked.config} has {len(image.config)} bytes, the lock says {locked.config_size_bytes}", hint=_RELOCK
        )
    for layer, pinned in zip(image.layers, locked.layers, strict=True):
        if pinned.blob is not None and layer.blob.digest == pinned.blob and layer.blob.size_bytes != pinned.size_bytes:
            raise LockMismatch(
                f"{source}: {pinned.blob} has {layer.blob.size_bytes} bytes, the lock says {pinned.size_bytes} for {locked.ref}",
                hint=_RELOCK,
            )
    if image.manifest is None or locked.manifest is None or image.manifest_digest != locked.manifest.digest:
        return
    _, blobs = manifest_names(image.manifest.raw, f"the manifest {locked.manifest.digest} of {source}")
    for index, (blob, pinned) in enumerate(zip(blobs, locked.layers, strict=False)):
        if pinned.blob not in (None, blob):
            raise LockMismatch(
                f"{source}: layer {index} of {locked.ref} is the blob {blob} in the manifest that is locked, the lock says {pinned.blob}",
                hint=_RELOCK,
            )


_RELOCK = "`shiplap lock --update` pins what is there now"


def mismatch(image: Image, locked: LockedImage, source: str, cache: Cache | None) -> LockMismatch:
    """The error for a source that has another image than the lock, with what differs and why."""
    why = explain(locked.config, image, expected_diff_ids=locked.diff_ids, expected_config=_config_at_hand(locked, cache))
    return LockMismatch(
        f"{source}: not the image that is locked for {locked.ref}: {why}",
        hint=f"take it from where it was locked ({locked.source}), or pin this one: shiplap lock --update {locked.ref.familiar}",
    )


def _config_at_hand(locked: LockedImage, cache: Cache | None) -> bytes | None:
    """The locked config's bytes, for a better message; None where the cache has it not, or not whole."""
    if cache is None or not cache.has(locked.config, locked.config_size_bytes):
        return None
    with cache.files() as files:
        try:
            return read(files, blob_path(locked.config), limit_bytes=Limits().metadata_bytes, digest=locked.config)
        except Refused:
            return None


def _cached(locked: LockedImage, cache: Cache, files: Files, limits: Limits) -> Image:
    path = blob_path(locked.config)
    try:
        raw = read(files, path, limit_bytes=limits.metadata_bytes, digest=locked.config, size_bytes=locked.config_size_bytes)
    except BlobCorrupt as error:
        raise CacheCorrupt(locked.config, error.message) from error
    config = parse_config(raw, what=f"config {locked.config[:19]}… of {locked.ref}", limits=limits)
    if config.diff_ids != locked.diff_ids:
        raise LockMismatch(f"the lock lists other layers for {locked.ref} than its config {locked.config}", hint=_RELOCK)
    layers = tuple(Layer(index, layer.diff_id, _cached_layer(layer, cache, files)) for index, layer in enumerate(locked.layers))
    return Image(raw, config.digest, layers, (), config.platform, "", created_epoch=config.created_epoch)


def _cached_layer(layer: LockedLayer, cache: Cache, files: Files) -> CachedBlob:
    for digest, size_bytes in cached_digests(layer):
        if cache.has(digest, size_bytes):
            found = files.size_bytes(blob_path(digest)) if size_bytes is None else size_bytes
            if found is not None:
                media_type = layer.media_type if digest == layer.blob else None
                return CachedBlob(StoredBlob(files, blob_path(digest), found, digest, media_type))
    raise BlobCorrupt(f"the cache lost {layer.blob or layer.diff_id} while it was used", hint="run the command again")


def _as_locked(image: Image, locked: LockedImage, spec: SourceSpec) -> Image:
    """A record says what was asked for and what the lock knows, never what this run's source happened to know besides."""
    manifest = locked.manifest.digest if locked.manifest else None
    return replace(
        image, references=(str(locked.ref),), source=spec.public_text, manifest_digest=manifest, index_digest=locked.index, manifest=None
    )
