"""The next lock from the manifest and the last one: what is pinned stays pinned until somebody asks for news."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from shiplap.core.collect import PinMismatch, require_found_pins, require_pins, require_platform, source_spec, the_one
from shiplap.core.errors import Refused
from shiplap.core.image import Image
from shiplap.core.lock.model import Lock, LockedImage
from shiplap.core.lock.opening import LockMismatch, pinned_images, require_same
from shiplap.core.lock.resolving import described_images, locked_image
from shiplap.core.lock.signature import SignatureRefused
from shiplap.core.manifest import ImageRequest, Manifest
from shiplap.core.reference import ReferenceInvalid, parse_reference
from shiplap.core.sources import Access, SourceSpec
from shiplap.core.store.identity import STORE_FORMAT, newest_epoch

Signature = tuple[tuple[str, str], ...]
SignatureCheck = Callable[[LockedImage, Image, SourceSpec], Signature]


class UpdateRefused(Refused):
    """``--update`` or ``--allow-unsigned`` names an image that the manifest does not have."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the lock is to be. ``update``: images to resolve anew, () none, None all.

    ``check``: None asks for no signature. It holds for every image, or with names in ``update`` for what is resolved in this
    run: those, and what was not pinned before. ``allow_unsigned``: images that no registry has, and that are pinned unchecked.
    """

    update: Collection[str] | None = ()
    manifest_bytes: bool = False
    check: SignatureCheck | None = None
    allow_unsigned: Collection[str] = ()


def next_lock(manifest: Manifest, old: Lock | None, folder: Path, access: Access, wishes: Wishes) -> Lock:
    """The lock of ``manifest``. ``folder``: the manifest's own, where its relative paths begin.

    An entry of ``old`` is kept as it is while the manifest asks for the same, also when ``from:`` names another place with
    the same content. Raises UpdateRefused, LockMismatch, PinMismatch and what the sources raise.
    """
    _require_known("--update", wishes.update, manifest.images)
    _require_known("--allow-unsigned", wishes.allow_unsigned, manifest.images)
    locking = _Locking(manifest, folder, access, wishes)
    images = tuple(locking.image(request, old) for request in manifest.images)
    epoch = manifest.epoch if manifest.epoch is not None else newest_epoch(image.created_epoch for image in images)
    return Lock(STORE_FORMAT, epoch, images)


def _require_known(option: str, names: Collection[str] | None, requests: Sequence[ImageRequest]) -> None:
    there = {str(request.ref) for request in requests}
    for name in names or ():
        if _full(name) not in there:
            raise UpdateRefused(f"{option} {name}: the manifest has no such image", hint=f"it has {', '.join(sorted(there))}")


def _full(name: str) -> str:
    try:
        return str(parse_reference(name))
    except ReferenceInvalid:
        return name


@dataclass(frozen=True, slots=True)
class _Locking:
    manifest: Manifest
    folder: Path
    access: Access
    wishes: Wishes

    def image(self, request: ImageRequest, old: Lock | None) -> LockedImage:
        assert request.ref is not None, "every image of a manifest has a ref"
        entry = old.find(request.ref) if old else None
        if entry is None or self._is_wanted_anew(entry) or not self._fits(request, entry):
            return self._resolved(request, entry)
        more = (self.wishes.manifest_bytes and entry.manifest is not None and entry.manifest.raw is None) or self._checks_kept
        if entry.source == request.source and not more:
            return entry
        return self._kept(request, entry)

    @property
    def _checks_kept(self) -> bool:
        """Whether the check is for what stays pinned, too."""
        return self.wishes.check is not None and not self.wishes.update

    def _is_wanted_anew(self, entry: LockedImage) -> bool:
        names = self.wishes.update
        return names is None or str(entry.ref) in map(_full, names)

    def _fits(self, request: ImageRequest, entry: LockedImage) -> bool:
        """Whether the manifest still asks for what the entry pins."""
        try:
            require_platform(entry, self.manifest.platform)
            require_pins(request, entry)
        except (LockMismatch, PinMismatch):
            return False
        return True

    def _resolved(self, request: ImageRequest, entry: LockedImage | None) -> LockedImage:
        assert request.ref is not None
        spec = source_spec(request, self.folder)
        # What was asked for once is not lost by an update.
        manifest_bytes = self.wishes.manifest_bytes or bool(entry and entry.manifest and entry.manifest.raw)
        platform, limits = self.manifest.platform, self.manifest.limits
        with described_images(spec, platform=platform, limits=limits, access=self.access) as images:
            image = the_one(request, images, spec.public_text)
            require_found_pins(request, image, spec.public_text)
            locked = locked_image(request, image, platform, manifest_bytes=manifest_bytes)
            if locked.manifest is None:
                self.access.progress.note(
                    f"{request.ref}: {spec.public_text} keeps no manifest: config and diffIDs are pinned, the manifest digest is unknown"
                )
            if entry is not None and entry.signature is not None and self.wishes.check is None:
                self.access.progress.note(f"{request.ref}: its signature was checked when it was locked before, and is not now")
            return self._signed(locked, image, spec)

    def _kept(self, request: ImageRequest, entry: LockedImage) -> LockedImage:
        """The entry, proven by where the manifest says the image is now; with what the lock is to say besides."""

        def described(pinned: SourceSpec) -> AbstractContextManager[tuple[Image, ...]]:
            return described_images(pinned, platform=entry.platform, limits=self.manifest.limits, access=self.access)

        with pinned_images(entry, source_spec(request, self.folder), described, self.access) as (spec, images):
            image = next((one for one in images if one.config_digest == entry.config), images[0])
            require_same(image, entry, spec.public_text, self.access)
            manifest = entry.manifest
            if manifest and image.manifest and image.manifest_digest == manifest.digest and self.wishes.manifest_bytes:
                entry = replace(entry, manifest=replace(manifest, raw=image.manifest.raw))
            elif manifest and manifest.raw is None and self.wishes.manifest_bytes:
                self.access.progress.note(f"{request.ref}: {spec.public_text} has not the bytes of the manifest that is locked")
            return self._signed(entry, image, spec) if self._checks_kept else entry

    def _signed(self, locked: LockedImage, image: Image, spec: SourceSpec) -> LockedImage:
        check = self.wishes.check
        if check is None:
            return locked
        if spec.transport == "docker":
            return replace(locked, signature=check(locked, image, spec))
        if str(locked.ref) not in map(_full, self.wishes.allow_unsigned):
            raise SignatureRefused(
                f"{locked.ref}: {spec.public_text} has no signature to check: signatures are kept in registries",
                hint=f"if it may be pinned without one: --allow-unsigned {locked.ref.familiar}",
            )
        self.access.progress.note(f"{locked.ref}: pinned without a signature, as {spec.public_text} can have none")
        return replace(locked, signature=None)
