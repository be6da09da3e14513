"""From image requests to the images of a store: open every source, pick, check what was pinned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from shiplap.core.errors import Refused
from shiplap.core.image import Image, RawManifest
from shiplap.core.limits import Limits
from shiplap.core.lock import Lock, LockedImage
from shiplap.core.lock.opening import LockMismatch, open_locked
from shiplap.core.manifest import ImageRequest
from shiplap.core.platform import Platform
from shiplap.core.reference import Reference, parse_reference
from shiplap.core.sources import TRANSPORTS, Access, SourceSpec, open_images, parse_source
from shiplap.core.sources.spec import FILE_TRANSPORTS
from shiplap.core.store.model import StoredImage, merge


class RequestRefused(Refused):
    """An image was asked for in a way that its source cannot serve."""


class PinMismatch(Refused):
    """An image is not the one that a digest pins."""


def parse_argument(text: str) -> ImageRequest:
    """A ``[NAME=]SOURCE`` argument. A transport's colon before the ``=`` means that there is no NAME."""
    name, equals, source = text.partition("=")
    prefix, _, rest = name.partition(":")
    if not equals or prefix in TRANSPORTS or rest.startswith("/"):
        return ImageRequest(ref=None, source=text)
    if not name or not source:
        raise RequestRefused(f"{text!r} is not NAME=SOURCE", hint="for example app:1=docker-archive:app.tar")
    return ImageRequest(ref=parse_reference(name), source=source)


@contextmanager
def collected_images(
    requests: Sequence[ImageRequest],
    platform: Platform | None,
    limits: Limits,
    folder: Path,
    access: Access | None = None,
    lock: Lock | None = None,
) -> Iterator[tuple[StoredImage, ...]]:
    """The images of all requests, in their order, each once; their blobs can be read inside the context.

    ``folder``: where relative paths in a manifest's ``from:`` begin, the manifest's own folder. Paths on
    the command line begin at the working directory. ``lock``: what it pins is taken from the cache or held against it.
    Raises RequestRefused, PinMismatch, LockMismatch, StoreRefused and what the sources raise.
    """
    access = access or Access()
    if not requests:
        raise RequestRefused(
            "no image was asked for",
            hint="list `images:` in shiplap.yaml, or name a source: shiplap build app:1=docker-archive:app.tar",
        )
    with ExitStack() as stack:
        found: list[StoredImage] = []
        for request in requests:
            spec = source_spec(request, folder)
            locked = lock.find(request.ref) if lock and request.ref else None
            if locked is None:
                images = stack.enter_context(open_images(spec, platform=platform, limits=limits, access=access))
                found.extend(_named(request, images, spec.public_text))
                continue
            require_platform(locked, platform)
            require_pins(request, locked)
            image = stack.enter_context(open_locked(locked, spec, platform=platform, limits=limits, access=access))
            found.append(_locked(request, locked, image))
        yield merge(found)


def source_spec(request: ImageRequest, folder: Path) -> SourceSpec:
    """Where the image is: a manifest's relative paths from ``folder`` on, a registry's tag replaced by the digest that pins it."""
    spec = parse_source(request.source)
    if spec.transport == "docker" and request.digest:
        return replace(spec, location=f"{parse_reference(spec.location).name}@{request.digest}")
    if request.line and spec.transport in FILE_TRANSPORTS:
        spec = replace(spec, location=str(folder / spec.location))
    return spec


def require_platform(locked: LockedImage, platform: Platform | None) -> None:
    """Raise LockMismatch when the lock pins the image for another platform than the one wanted."""
    if platform is not None and not platform.matches(locked.platform):
        raise LockMismatch(
            f"the lock pins {locked.ref} for {locked.platform}, wanted is {platform}",
            hint="`shiplap lock` pins it for the manifest's platform; --lock FILE takes another lock",
        )


def require_pins(request: ImageRequest, locked: LockedImage) -> None:
    """Raise PinMismatch when the manifest pins another image than the lock."""
    if request.config_digest not in (None, locked.config):
        raise PinMismatch(
            f"{locked.ref}: `config-digest` asks for {request.config_digest}, the lock pins {locked.config}",
            hint="`shiplap lock` pins anew",
        )
    for wanted in _wanted(request):
        if wanted not in locked.manifest_digests:
            known = " and ".join(locked.manifest_digests) or "no manifest digest"
            raise PinMismatch(f"{locked.ref}: asked for is {wanted}, the lock has {known}", hint="`shiplap lock` pins anew")


def _locked(request: ImageRequest, locked: LockedImage, image: Image) -> StoredImage:
    digests = {*_wanted(request), *locked.manifest_digests}
    blobs = tuple(layer.blob for layer in locked.layers)
    pinned = locked.manifest
    manifest = RawManifest(pinned.raw, pinned.media_type) if pinned is not None and pinned.raw is not None else None
    return StoredImage(
        image, _references(locked.ref, digests), blobs, request.allow_foreign_elf, manifest, request.allow_lost_xattrs, request.license
    )


def _named(request: ImageRequest, images: tuple[Image, ...], source: str) -> Iterator[StoredImage]:
    if request.ref is None:
        for image in images:
            if not image.references:
                raise RequestRefused(
                    f"{source} holds an image without a name ({image.config_digest[:19]}…)",
                    hint=f"give it one: NAME={request.source}, for example app:1={request.source}",
                )
            references = tuple(parse_reference(text) for text in image.references)
            require_found_pins(request, image, source)
            yield _as_asked(request, image, references)
        return
    image = the_one(request, images, source)
    require_found_pins(request, image, source)
    # A message about this image names it as the user does.
    image = replace(image, references=(str(replace(request.ref, digest=None)), *image.references))
    yield _as_asked(request, image, _references(request.ref, _wanted(request)))


def _as_asked(request: ImageRequest, image: Image, references: tuple[Reference, ...]) -> StoredImage:
    return StoredImage(
        image,
        references,
        allow_foreign_elf=request.allow_foreign_elf,
        allow_lost_xattrs=request.allow_lost_xattrs,
        license=request.license,
    )


def the_one(request: ImageRequest, images: Sequence[Image], source: str) -> Image:
    """The only image of ``images``; raises RequestRefused where one name would stand for several."""
    if len(images) != 1:
        names = ", ".join(image.label for image in images)
        raise RequestRefused(
            f"{source} holds {len(images)} images, and {request.ref} can be only one of them: {names}",
            hint=f"say which: {request.source}:REF",
        )
    return images[0]


def _wanted(request: ImageRequest) -> set[str]:
    """The manifest digests that somebody named."""
    return {one for one in (request.digest, request.ref.digest if request.ref else None) if one}


def _references(reference: Reference, digests: Iterable[str]) -> tuple[Reference, ...]:
    """The tag and the digests of a reference are several names on the device, as the engine keeps them."""
    names = []
    if reference.tag:
        names.append(Reference(reference.domain, reference.path, reference.tag))
    return (*names, *(Reference(reference.domain, reference.path, None, one) for one in sorted(digests)))


def require_found_pins(request: ImageRequest, image: Image, source: str) -> None:
    """Raise PinMismatch unless ``image``, as it was found, is what the request's digests pin."""
    if request.config_digest and request.config_digest != image.config_digest:
        raise PinMismatch(
            f"{source}: the image has config digest {image.config_digest}, `config-digest` asks for {request.config_digest}",
            hint="tools that convert between Docker and OCI formats rewrite the config and so make another image",
        )
    for wanted in sorted(_wanted(request)):
        known = [one for one in (image.manifest_digest, image.index_digest) if one]
        if not known:
            raise PinMismatch(
                f"{source}: nothing in it proves the digest {wanted}, a manifest's: the source holds no manifest",
                hint=f"take the image as an OCI layout (oci:), or pin the image itself with `config-digest: {image.config_digest}`",
            )
        if wanted not in known:
            raise PinMismatch(f"{source}: the image has digest {' and '.join(known)}, asked for is {wanted}")
