"""Manifest and lock side by side: what `--locked` insists on, and what is worth a note without it."""

from __future__ import annotations

from collections.abc import Iterator

from shiplap.core.lock.model import Lock
from shiplap.core.lock.opening import LockMismatch
from shiplap.core.manifest import Manifest


def require_agreement(manifest: Manifest, lock: Lock, name: str) -> None:
    """Raise LockMismatch when the manifest asks for anything that the lock ``name`` does not pin, or the lock for more.

    What single images pin (platform, digests, content) is held against the lock when they are opened, always.
    """
    found = list(disagreements(manifest, lock))
    if found:
        raise LockMismatch(f"{name} is not up to date: {'; '.join(found)}", hint="`shiplap lock` brings it up to date")


def disagreements(manifest: Manifest, lock: Lock) -> Iterator[str]:
    """What differs, one sentence each: images on one side only, another epoch."""
    asked = [request.ref for request in manifest.images]
    for request in manifest.images:
        if request.ref is None:
            yield f"{request.source} has no name, and the lock knows images by name"
        elif lock.find(request.ref) is None:
            yield f"{request.ref} is not in it"
    for image in lock.images:
        if image.ref not in asked:
            yield f"{image.ref} is in it and not in the manifest"
    if manifest.epoch is not None and manifest.epoch != lock.epoch:
        yield f"its epoch is {lock.epoch}, the manifest's {manifest.epoch}"
