"""``docker-archive:``: what ``docker save``, ``podman save`` and skopeo write.

``manifest.json`` says what belongs together, in every layout: one folder with ``layer.tar`` per layer
(Docker up to 24, repeated layers as links), ``<hex>.tar`` (Podman, skopeo), ``blobs/sha256/<hex>``
(Docker from 25 on, an OCI layout at the same time).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from shiplap.core.blobs import Files, SourceInvalidContent, StoredBlob, promised_digest, read
from shiplap.core.errors import Refused
from shiplap.core.image import Image, Layer
from shiplap.core.jsontext import JsonObject, elements, member, parse_array, required, shown
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform
from shiplap.core.reference import ReferenceInvalid, parse_reference
from shiplap.core.sources.access import Access
from shiplap.core.sources.config import parse_config
from shiplap.core.sources.oci import LayoutReader
from shiplap.core.sources.outertar import open_tar
from shiplap.core.sources.selection import Found, choose
from shiplap.core.sources.spec import SourceSpec, parse_selector

# Docker, Podman and skopeo name a config after its digest, go-containerregistry with the algorithm before it.
_CONFIG_NAME = re.compile(r"(?:([a-f0-9]{64})\.json|sha256:([a-f0-9]{64}))")


@contextmanager
def open_archive(spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Iterator[tuple[Image, ...]]:
    """Opener of ``docker-archive:FILE[:REF]``."""
    selector = parse_selector(spec.reference, spec.text, transport=spec.transport)
    with open_tar(spec.location, spec.base_name, limits, sibling="oci") as files:
        yield choose(found(files, limits), selector, platform, files.label, spec.public_text)


def found(files: Files, limits: Limits) -> list[Found]:
    """Every image of an archive; raises SourceInvalidContent, BlobCorrupt and JsonInvalid."""
    if files.size_bytes("manifest.json") is None:
        raise _no_manifest(files)
    what = f"manifest.json in {files.label}"
    raw = read(files, "manifest.json", limit_bytes=limits.metadata_bytes)
    items = elements(parse_array(raw, what=what, limit_bytes=limits.metadata_bytes), dict, what=what)
    if not items:
        raise SourceInvalidContent(f"{files.label} holds no image: its manifest.json is an empty list")
    digests = _registry_digests(files, limits)
    return [_image(files, item, position, f"image @{position} of {what}", limits, digests) for position, item in enumerate(items)]


def _no_manifest(files: Files) -> SourceInvalidContent:
    message = f"{files.label} is not an archive of docker save: it has no manifest.json"
    if files.size_bytes("index.json") is not None:
        return SourceInvalidContent(message, hint="it has an index.json: write oci-archive: instead")
    if files.size_bytes("repositories") is not None:
        return SourceInvalidContent(
            f"{files.label} was saved by a Docker older than 1.10: it has only the file repositories",
            hint="load it into an engine and save it again",
        )
    return SourceInvalidContent(message)


def _image(files: Files, item: JsonObject, position: int, what: str, limits: Limits, known: dict[str, Found]) -> Found:
    path = required(item, "Config", str, what=what)
    raw = read(files, path, limit_bytes=limits.metadata_bytes, digest=_config_digest(path))
    config = parse_config(raw, what=f"config {shown(path)} in {files.label}", limits=limits)
    paths = elements(member(item, "Layers", list, what=what) or (), str, what=f"'Layers' of {what}")
    if len(paths) != len(config.diff_ids):
        raise SourceInvalidContent(f"{what} lists {len(paths)} layers, its config {len(config.diff_ids)}")
    names = tuple(dict.fromkeys(elements(member(item, "RepoTags", list, what=what) or (), str, what=f"'RepoTags' of {what}")))
    registry = known.get(config.digest)
    return Found(
        entry=position,
        names=names,
        references=tuple(dict.fromkeys(_reference(name, what) for name in names)),
        config=config,
        layers=lambda: _layers(files, paths, config.diff_ids, what),
        manifest_digest=registry.manifest_digest if registry else None,
        index_digests=registry.index_digests if registry else (),
        manifest=registry.manifest if registry else None,
    )


def _config_digest(path: str) -> str | None:
    match = _CONFIG_NAME.fullmatch(path)
    return "sha256:" + (match[1] or match[2]) if match else promised_digest(path)


def _reference(name: str, what: str) -> str:
    """The full form of a tag in RepoTags; what ``docker load`` refuses there is refused."""
    try:
        reference = parse_reference(name, default_tag=False)
    except ReferenceInvalid as error:
        raise SourceInvalidContent(f"{what}: {error.message}") from None
    if reference.tag is None or reference.digest is not None:
        raise SourceInvalidContent(f"{what}: '{shown(name)}' in RepoTags is not a name with a tag")
    return str(reference)


def _layers(files: Files, paths: list[str], diff_ids: tuple[str, ...], what: str) -> tuple[Layer, ...]:
    layers = []
    for number, (path, diff_id) in enumerate(zip(paths, diff_ids, strict=True)):
        size_bytes = files.size_bytes(path)
        if size_bytes is None:
            raise SourceInvalidContent(
                f"{what}: layer {number}, {shown(path)}, is not in {files.label}", hint="the archive is incomplete; save it again"
            )
        layers.append(Layer(number, diff_id, StoredBlob(files, path, size_bytes, promised_digest(path), None)))
    return tuple(layers)


def _registry_digests(files: Files, limits: Limits) -> dict[str, Found]:
    """The images with their manifest and index digests, by config digest, where the archive is an OCI layout too.

    With Docker's containerd store they are those of the registry, so that a lock can be proven. What
    cannot be read there proves nothing and is no error: ``docker load`` does not look at it.
    """
    if files.size_bytes("oci-layout") is None or files.size_bytes("index.json") is None:
        return {}
    try:
        images = LayoutReader(files, limits).found()
    except Refused:
        return {}
    return {one.config.digest: one for one in reversed(images) if one.manifest_digest}
