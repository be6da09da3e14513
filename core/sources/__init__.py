"""Where images come from. A new source is one module and one line in ``OPENERS``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from shiplap.core.image import Image
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform
from shiplap.core.registry.settings import RegistrySettings
from shiplap.core.sources import dockerarchive, dockerroot, engine, oci, registry
from shiplap.core.sources.access import Access, OfflineRefused
from shiplap.core.sources.spec import TRANSPORTS, SourceInvalid, SourceSpec, parse_source

__all__ = [
    "OPENERS",
    "TRANSPORTS",
    "Access",
    "Limits",
    "OfflineRefused",
    "RegistrySettings",
    "SourceInvalid",
    "SourceSpec",
    "open_images",
    "parse_source",
]


class Opener(Protocol):
    """Opens the source ``spec`` names; everything that the images refer to is closed at the context's end."""

    def __call__(
        self, spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access
    ) -> AbstractContextManager[tuple[Image, ...]]: ...


OPENERS: dict[str, Opener] = {
    "docker": registry.open_image,
    "docker-archive": dockerarchive.open_archive,
    "docker-daemon": engine.open_docker,
    "docker-root": dockerroot.open_root,
    "oci": oci.open_directory,
    "oci-archive": oci.open_archive,
    "podman": engine.open_podman,
}


@contextmanager
def open_images(
    spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access | None = None
) -> Iterator[tuple[Image, ...]]:
    """The images that ``spec`` names, in the source's order; valid inside the context.

    Without a REF all of them; with one, that image. ``platform`` None takes the only platform that
    there is. ``access``: None for one without cache, which files do not need.
    Metadata is verified here, layer blobs as they are read. Raises Refused (a subclass of it)
    for a source that is malformed, corrupt or hostile, or has not what is asked for, and OutsideFailure
    where reading or spooling fails.
    """
    with OPENERS[spec.transport](spec, platform=platform, limits=limits, access=access or Access()) as images:
        yield images
