"""From image requests to the images of a store: open every source, pick, check what was pinned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from shiplap.core.errors import Refused
from shiplap.core.image import Image
from shiplap.core.limits import Limits
from shiplap.core.manifest import ImageRequest
from shiplap.core.platform import Platform
from shiplap.core.reference import Reference, parse_reference
from shiplap.core.sources import TRANSPORTS, open_images, parse_source
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
    requests: Sequence[ImageRequest], platform: Platform | None, limits: Limits, folder: Path
) -> Iterator[tuple[StoredImage, ...]]:
    """The images of all requests, in their order, each once; their blobs can be read inside the context.

    ``folder``: where relative paths in a manifest's ``from:`` begin, the manifest's own folder. Paths on
    the command line begin at the working directory.
    Raises RequestRefused, PinMismatch, StoreRefused and what the sources raise.
    """
    if not requests:
        raise RequestRefused(
            "no image was asked for",
            hint="list `images:` in shiplap.yaml, or name a source: shiplap build app:1=docker-archive:app.tar",
        )
    with ExitStack() as stack:
        found: list[StoredImage] = []
        for request in requests:
            spec = parse_source(request.source)
            if request.line and spec.transport in FILE_TRANSPORTS:
                spec = replace(spec, location=str(folder / spec.location))
            images = stack.enter_context(open_images(spec, platform=platform, limits=limits))
            found.extend(_named(request, images, spec.public_text))
        yield merge(found)


def _named(request: ImageRequest, images: tuple[Image, ...], source: str) -> Iterator[StoredImage]:
    if request.ref is None:
        for image in images:
            if not image.references:
                raise RequestRefused(
                    f"{source} holds an image without a name ({image.config_digest[:19]}…)",
                    hint=f"give it one: NAME={request.source}, for example app:1={request.source}",
                )
            references = tuple(parse_reference(text) for text in image.references)
            yield StoredImage(_pinned(request, image, source), references)
        return
    if len(images) != 1:
        names = ", ".join(image.label for image in images)
        raise RequestRefused(
            f"{source} holds {len(images)} images, and {request.ref} can be only one of them: {names}",
            hint=f"say which: {request.source}:REF",
        )
    image = _pinned(request, images[0], source)
    # A message about this image names it as the user does.
    image = replace(image, references=(str(replace(request.ref, digest=None)), *image.references))
    yield StoredImage(image, _references(request.ref, request.digest))


def _references(reference: Reference, digest: str | None) -> tuple[Reference, ...]:
    """The tag and the digest of a reference are two names on the device, as the engine keeps them."""
    names = []
    if reference.tag:
        names.append(Reference(reference.domain, reference.path, reference.tag))
    digests = sorted({one for one in (reference.digest, digest) if one})
    return (*names, *(Reference(reference.domain, reference.path, None, one) for one in digests))


def _pinned(request: ImageRequest, image: Image, source: str) -> Image:
    if request.config_digest and request.config_digest != image.config_digest:
        raise PinMismatch(
            f"{source}: the image has config digest {image.config_digest}, `config-digest` asks for {request.config_digest}",
            hint="tools that convert between Docker and OCI formats rewrite the config and so make another image",
        )
    for wanted in sorted({one for one in (request.digest, request.ref.digest if request.ref else None) if one}):
        known = [one for one in (image.manifest_digest, image.index_digest) if one]
        if not known:
            raise PinMismatch(
                f"{source}: nothing in it proves the digest {wanted}, a manifest's: the source holds no manifest",
                hint=f"take the image as an OCI layout (oci:), or pin the image itself with `config-digest: {image.config_digest}`",
            )
        if wanted not in known:
            raise PinMismatch(f"{source}: the image has digest {' and '.join(known)}, asked for is {wanted}")
    return image
