"""The last link: are the images of a verified thing the ones that a lock pins?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shiplap.audit.links import BrokenLink
from shiplap.core.errors import Refused
from shiplap.core.image import Image
from shiplap.core.jsontext import parse_object
from shiplap.core.lock import Lock, LockedImage
from shiplap.core.lock.document import manifest_names
from shiplap.core.platform import Platform, parse_platform

_STORE_JSON_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image of a thing. ``references`` full; ``blobs``: one for each layer, None where nothing says."""

    config: str
    diff_ids: tuple[str, ...]
    references: frozenset[str]
    blobs: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """What a thing holds, after all of it was verified. ``epoch``, ``platform``: None where the thing does not say.

    ``tags_only``: an archive without its store.json, which knows no digests of manifests and blobs.
    """

    images: tuple[HeldImage, ...]
    epoch: int | None
    platform: Platform | None
    mode: str
    tags_only: bool = False


def held_by_store_json(store_json: bytes) -> Held:
    """From a store.json whose statements were verified. Raises BrokenLink where it lacks a key."""
    document = parse_object(store_json, what="store.json", limit_bytes=_STORE_JSON_LIMIT_BYTES)
    try:
        return Held(
            tuple(_held(item) for item in document["images"]), document["epoch"], parse_platform(document["platform"]), document["mode"]
        )
    except (KeyError, TypeError, AttributeError, Refused) as error:
        raise BrokenLink(f"store.json lacks a key or holds another type: {error}") from error


def _held(item: dict[str, Any]) -> HeldImage:
    layers = item["layers"]
    blobs = tuple(layer.get("blob") for layer in layers)
    return HeldImage(item["config"], tuple(layer["diffID"] for layer in layers), frozenset(item["references"]), blobs)


def held_by_archive(images: Sequence[Image]) -> Held:
    """From an archive alone."""
    held = tuple(HeldImage(image.config_digest, image.diff_ids, frozenset(image.references)) for image in images)
    return Held(held, None, None, "archive", tags_only=True)


def hold_against(held: Held, lock: Lock, name: str) -> list[tuple[str, str]]:
    """The links that hold, as (link, detail). Raises BrokenLink, naming what the thing has and what the lock ``name`` pins."""
    by_config = {image.config: image for image in held.images}
    for locked in lock.images:
        _check_image(locked, by_config, held, name)
    _check_nothing_else(held, lock, name)
    if held.mode == "store":
        _check_blobs(by_config, lock, name)
    if held.epoch is not None and held.epoch != lock.epoch:
        raise BrokenLink(f"the epoch is {held.epoch}, {name} says {lock.epoch}")
    layers = [layer.blob for locked in lock.images for layer in locked.layers]
    blobs = sum(blob is not None for blob in layers)
    which = "every layer has" if blobs == len(layers) else f"{blobs} of {len(layers)} layers have"
    says_blobs = held.mode == "store" and not held.tags_only and blobs > 0
    links = [
        ("lock", f"{len(lock.images)} images of {name}: their configs, diffIDs and references are these, and there is no other"),
        *((("lock's blobs", f"{which} the registry's digest that is locked"),) if says_blobs else ()),
    ]
    known = [locked for locked in lock.images if locked.manifest is not None and locked.manifest.raw is not None]
    for locked in known:
        _check_manifest(locked, name)
    if known:
        links.append(("lock's manifests", f"{len(known)} manifests have the digests that are locked and name these configs and blobs"))
    return links


def unproven_manifests(lock: Lock) -> tuple[str, ...]:
    """References whose manifest digest is pinned without the bytes that would prove it."""
    return tuple(str(locked.ref) for locked in lock.images if locked.manifest is not None and locked.manifest.raw is None)


def _check_image(locked: LockedImage, by_config: dict[str, HeldImage], held: Held, name: str) -> None:
    image = by_config.get(locked.config)
    if image is None:
        tag = str(locked.ref).partition("@")[0]
        instead = next((one.config for one in held.images if tag in one.references), None)
        has = f"the image under that name is {instead}" if instead else "there is no image of that name"
        raise BrokenLink(f"{name} pins {locked.ref} as {locked.config}; {has}")
    if image.diff_ids != locked.diff_ids:
        raise BrokenLink(f"{name} lists other layers for {locked.ref} than its config {locked.config}")
    if held.platform is not None and not held.platform.matches(locked.platform):
        raise BrokenLink(f"{name} pins {locked.ref} for {locked.platform}, the store is for {held.platform}")
    for reference in sorted(_references(locked, held)):
        if reference not in image.references:
            raise BrokenLink(f"{name} pins {locked.ref}; the image lacks the reference {reference}")


def _references(locked: LockedImage, held: Held) -> set[str]:
    ref = locked.ref
    tags = {f"{ref.name}:{ref.tag}"} if ref.tag else set()
    if held.tags_only:
        return tags
    digests = {*locked.manifest_digests, *((ref.digest,) if ref.digest else ())}
    return tags | {f"{ref.name}@{digest}" for digest in digests}


def _check_nothing_else(held: Held, lock: Lock, name: str) -> None:
    pinned: dict[str, set[str]] = {}
    for locked in lock.images:
        pinned.setdefault(locked.config, set()).update(_references(locked, held))
    for image in held.images:
        extra = image.references - pinned.get(image.config, set())
        if image.config not in pinned:
            raise BrokenLink(f"{', '.join(sorted(image.references)) or image.config} is not in {name}")
        if extra:
            raise BrokenLink(f"{min(extra)} is not in {name}")


def _check_blobs(by_config: dict[str, HeldImage], lock: Lock, name: str) -> None:
    """One image under several names has the blobs of one of them: registries may pack the same layers differently."""
    pinned: dict[str, set[tuple[str | None, ...]]] = {}
    for locked in lock.images:
        pinned.setdefault(locked.config, set()).add(tuple(layer.blob for layer in locked.layers))
    for config, several in pinned.items():
        if by_config[config].blobs not in several:
            raise BrokenLink(f"{name} pins other blobs for the layers of {config} than store.json lists")


def _check_manifest(locked: LockedImage, name: str) -> None:
    """Digest and size of the bytes were checked when the lock was read; what they name is checked against what was verified."""
    assert locked.manifest is not None and locked.manifest.raw is not None
    config, _ = manifest_names(locked.manifest.raw, f"the manifest of {locked.ref} in {name}")
    if config != locked.config:
        raise BrokenLink(f"the manifest of {locked.ref} in {name} names the config {config}, not {locked.config}")
