"""``store.json``: what a store is, in one canonical line. Also the one timestamp, the epoch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shiplap.core.errors import Refused
from shiplap.core.platform import Platform
from shiplap.core.store.model import StoredImage

STORE_FORMAT = 1
# Their stores hold each image's manifest: the canonical one, or raw bytes, which store.json then names.
STORES_WITH_MANIFESTS = ("podman",)
EPOCH_MAX = (1 << 32) - 1  # SquashFS keeps 32 bits


class EpochInvalid(Refused):
    """An epoch that is no whole number of seconds from 0 to 2^32-1."""


def choose_epoch(
    asked: int | None,
    manifest: int | None,
    environment: Mapping[str, str],
    images: Iterable[StoredImage],
    lock: int | None = None,
) -> tuple[int, str]:
    """The epoch in seconds and where it comes from: the first that exists of command line, manifest, lock,
    ``SOURCE_DATE_EPOCH``, the newest image's ``created``, 0. Raises EpochInvalid.
    """
    if asked is not None:
        return _bounded(asked, "--source-date-epoch"), "command line"
    if manifest is not None:
        return _bounded(manifest, "the manifest's epoch"), "manifest"
    if lock is not None:
        return _bounded(lock, "the lock's epoch"), "lock"
    text = environment.get("SOURCE_DATE_EPOCH", "")
    if text:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise EpochInvalid(f"SOURCE_DATE_EPOCH={text!r:.40} is no whole number of seconds")
        return _bounded(int(text), "SOURCE_DATE_EPOCH"), "SOURCE_DATE_EPOCH"
    created = [stored.image.created_epoch for stored in images if stored.image.created_epoch is not None]
    if created:
        return newest_epoch(created), "newest image"
    return 0, "default"


def newest_epoch(created: Iterable[int | None]) -> int:
    """The epoch that the images' own times (seconds, None: not said) give; 0 where none has one."""
    return min(max((0, *(one for one in created if one is not None))), EPOCH_MAX)


def _bounded(value: int, what: str) -> int:
    if not 0 <= value <= EPOCH_MAX:
        raise EpochInvalid(f"{what} is {value}; a SquashFS time is 0 to {EPOCH_MAX}")
    return value


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """Everything that decides a store's (or archive's) bytes, apart from the layers' content behind the digests."""

    mode: str
    engine: str
    driver: str
    platform: Platform
    store_path: str
    epoch: int
    images: tuple[StoredImage, ...]
    options: tuple[tuple[str, Any], ...] = ()
    """Further keys of store.json, for example ``squashfs`` and ``security-version``."""

    @property
    def mount_point(self) -> str:
        """Where the device mounts the store image; the skeleton's links lead there."""
        return f"{self.store_path}/store"

    def to_json(self) -> bytes:
        """The canonical bytes: sorted keys, no spaces, UTF-8, final newline."""
        document: dict[str, Any] = {
            "format": STORE_FORMAT,
            "mode": self.mode,
            "engine": self.engine,
            "driver": self.driver,
            "platform": str(self.platform),
            "store-path": self.store_path,
            "epoch": self.epoch,
            "images": [_image(stored, self.engine) for stored in sorted(self.images, key=lambda stored: stored.image.config_digest)],
            **dict(self.options),
        }
        return canonical_json(document)


def canonical_json(document: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, final newline."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _image(stored: StoredImage, engine: str) -> dict[str, Any]:
    with_manifest = engine in STORES_WITH_MANIFESTS
    # Such a store takes its blobs from the manifest.
    blobs = (() if with_manifest else stored.blobs) or (None,) * len(stored.image.layers)
    image: dict[str, Any] = {
        "config": stored.image.config_digest,
        "layers": [
            {"chainID": chain_id, "diffID": diff_id} | ({"blob": blob} if blob else {})
            for chain_id, diff_id, blob in zip(stored.chain_ids, stored.image.diff_ids, blobs, strict=True)
        ],
        "references": sorted(str(reference) for reference in stored.references),
    }
    if with_manifest and stored.manifest is not None:
        image["manifest"] = stored.manifest.digest
    return image


def process_environment() -> Mapping[str, str]:
    """The process's environment, for :func:`choose_epoch`."""
    return os.environ
