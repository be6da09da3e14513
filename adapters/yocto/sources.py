"""What the store's recipe fetches: a line of SRC_URI for each blob of a registry, and for each file beside the manifest."""

from __future__ import annotations

from pathlib import PurePosixPath

from shiplap.adapters.config import AdapterConfig, AdapterImage
from shiplap.adapters.preparing import GenerateRefused
from shiplap.core.cache.mirror import flat_name
from shiplap.core.reference import parse_reference
from shiplap.core.sources.spec import SourceSpec, parse_source

_FILES = ("docker-archive", "oci-archive", "oci")
# SRC_URI splits at spaces and semicolons and expands variables.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-/")


def image_sources(config: AdapterConfig) -> tuple[str, ...]:
    """Lines of SRC_URI in the lock's order, each blob once.

    Raises GenerateRefused for images that no recipe can fetch; all of them are named.
    """
    lines: dict[str, str] = {}
    unfit: list[str] = []
    for image in config.images:
        spec = parse_source(image.source)
        if spec.transport == "docker":
            for digest, line in _blobs(config, image, spec).items():
                lines.setdefault(digest, line)
        elif spec.transport in _FILES and _is_beside(spec.location):
            # An archive is read whole; a layout is a folder, which the fetcher copies.
            lines[spec.location] = f"file://{spec.location}" + ("" if spec.transport == "oci" else ";unpack=0")
        else:
            unfit.append(f"{image.reference} (from {image.source})")
    if unfit:
        raise GenerateRefused(
            f"no recipe can fetch {', '.join(unfit)}: engines and files elsewhere are of one machine only",
            hint="build here and embed the result with --prebuilt, or lock from a registry, or from an archive in the manifest's folder",
        )
    return tuple(lines.values())


def image_files(config: AdapterConfig) -> tuple[str, ...]:
    """Files and folders beside the manifest that the user has to bring along."""
    specs = (parse_source(image.source) for image in config.images)
    return tuple(dict.fromkeys(spec.location for spec in specs if spec.transport in _FILES))


def _blobs(config: AdapterConfig, image: AdapterImage, spec: SourceSpec) -> dict[str, str]:
    name = parse_reference(spec.location)
    settings = config.manifest.registries.get(name.domain)
    insecure = ";tls-verify=0" if settings is not None and settings.tls_verify is False else ""
    locked = image.locked
    blobs = {locked.config: locked.config_size_bytes}
    for layer in locked.layers:
        if layer.blob is None or layer.size_bytes is None:
            raise GenerateRefused(f"the lock does not say which blobs {image.reference} has", hint="run `shiplap lock --update`")
        blobs[layer.blob] = layer.size_bytes
    place = f"oci://{name.domain}/{name.path}"
    return {digest: f"{place};digest={flat_name(digest)};size={size_bytes}{insecure}" for digest, size_bytes in blobs.items()}


def _is_beside(location: str) -> bool:
    path = PurePosixPath(location)
    return not path.is_absolute() and ".." not in path.parts and set(location) <= _PLAIN
