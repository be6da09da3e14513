"""The lock as values. Reading and writing it is :mod:`shiplap.core.lock.document`."""

from __future__ import annotations

from dataclasses import dataclass

from shiplap.core.platform import Platform
from shiplap.core.reference import Reference

DEFAULT_LOCK_NAME = "shiplap.lock.yaml"


@dataclass(frozen=True, slots=True)
class LockedManifest:
    """The platform's manifest, where the source had one. ``raw``: its bytes, when they were asked for (``--manifest-bytes``)."""

    digest: str
    size_bytes: int
    media_type: str
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class LockedLayer:
    """One layer, base first. ``blob`` and what follows: as the source stores it, None where it said nothing (archives, engines)."""

    diff_id: str
    blob: str | None = None
    size_bytes: int | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class LockedImage:
    """One image of the lock.

    ``ref``: the name on the device (the manifest's ``ref:``). ``source``: where it was found when it was locked; no part
    of what is compared. ``platform``: what the manifest asked for, else the image's own. ``created_epoch``: the config's
    ``created`` in whole seconds. ``index``: digest of the index, None where there was none. ``manifest`` None: unknown.
    ``signature``: what a signature check said, as sorted text pairs; None: none was asked for.
    """

    ref: Reference
    source: str
    platform: Platform
    config: str
    config_size_bytes: int
    layers: tuple[LockedLayer, ...]
    created_epoch: int | None = None
    index: str | None = None
    manifest: LockedManifest | None = None
    signature: tuple[tuple[str, str], ...] | None = None

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def manifest_digests(self) -> tuple[str, ...]:
        """The index and the platform's manifest, as far as they are known: what a digest reference may name."""
        return tuple(one for one in (self.index, self.manifest.digest if self.manifest else None) if one)


@dataclass(frozen=True, slots=True)
class Lock:
    """``epoch``: seconds; ``images``: in the manifest's order."""

    store_format: int
    epoch: int
    images: tuple[LockedImage, ...]

    def find(self, ref: Reference) -> LockedImage | None:
        return next((one for one in self.images if one.ref == ref), None)
