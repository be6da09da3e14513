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
    of what is compared. ``index``: digest of the index, None where there was none. ``manifest`` None: unknown.
    ``signature``: what a signature check said, as sorted text pairs; None: none was asked for.
    """

    ref: Reference
    source: str
    platform: Platform
    config: str
    config_size_bytes: int
    layers: tuple[LockedLayer, ...]
    index: str | None = None
    manifest: LockedManifest | None = None
    signature: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True, slots=True)
class Lock:
    """``epoch``: seconds; ``images``: in the manifest's order."""

    store_format: int
    epoch: int
    images: tuple[LockedImage, ...]
