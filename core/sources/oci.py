"""OCI image layouts: ``oci:`` folders and ``oci-archive:`` tars of them (image-spec, image-layout.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from shiplap.core.blobs import DIGEST, Files, SourceInvalidContent, StoredBlob, blob_path, read
from shiplap.core.image import Image, Layer, RawManifest
from shiplap.core.jsontext import JsonObject, elements, member, parse_object, required, shown
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform
from shiplap.core.sources.access import Access
from shiplap.core.sources.config import parse_config
from shiplap.core.sources.directory import Directory
from shiplap.core.sources.outertar import missing, open_tar
from shiplap.core.sources.selection import Found, choose, full_references
from shiplap.core.sources.spec import SourceSpec, parse_selector

INDEX_TYPES = frozenset(("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"))
OCI_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST_TYPES = frozenset((OCI_MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json"))
CONFIG_TYPES = frozenset(("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"))
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_LAYER_STEMS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
# The compression that a media type names is not relied on: like the engines, the data itself says it.
LAYER_TYPES = frozenset(stem + how for stem in _LAYER_STEMS for how in ("", "+gzip", "+zstd", ".gzip", ".zstd"))
_ENCRYPTED = "+encrypted"

_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_ATTESTATION = ("vnd.docker.reference.type", "attestation-manifest")

_MAX_INDEX_DEPTH = 8
_MAX_MANIFESTS = 1000


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A content descriptor (descriptor.md)."""

    media_type: str | None
    digest: str
    size_bytes: int
    annotations: dict[str, str]
    platform: Platform | None
    is_attestation: bool


@contextmanager
def open_directory(spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Iterator[tuple[Image, ...]]:
    """Opener of ``oci:DIR[:REF]``."""
    label = spec.base_name
    try:
        os.close(os.open(spec.location, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise missing(spec.location, label, error, "oci-archive") from error
    with Directory(spec.location, label) as files:
        yield _images(files, spec, platform, limits)


@contextmanager
def open_archive(spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Iterator[tuple[Image, ...]]:
    """Opener of ``oci-archive:FILE[:REF]``."""
    with open_tar(spec.location, spec.base_name, limits, sibling="oci") as files:
        yield _images(files, spec, platform, limits)


def _images(files: Files, spec: SourceSpec, platform: Platform | None, limits: Limits) -> tuple[Image, ...]:
    selector = parse_selector(spec.reference, spec.text, transport=spec.transport)
    return choose(LayoutReader(files, limits).found(), selector, platform, files.label, spec.public_text)


class LayoutReader:
    """Reads the images of one layout."""

    def __init__(self, files: Files, limits: Limits) -> None:
        self._files = files
        self._limits = limits
        self._manifests = 0
        self._skipped = 0

    def found(self) -> list[Found]:
        """Every image of the layout: all entries of index.json, and of the indexes below.

        Attestations and artifacts are passed over, and so are images of an index that are not stored
        (a layout need not hold every platform). Raises SourceInvalidContent, BlobCorrupt, JsonInvalid.
        """
        self._require_layout()
        found: list[Found] = []
        index = self._json("index.json")
        for position, descriptor in enumerate(descriptors(index, "manifests", f"index.json in {self._files.label}")):
            names = tuple(dict.fromkeys(name for key in _NAME_ANNOTATIONS if (name := descriptor.annotations.get(key))))
            found.extend(self._walk(descriptor, position, names, (), {}))
        if not found:
            what = "no image, only attestations and artifacts" if self._skipped else "no image"
            raise SourceInvalidContent(f"{self._files.label} holds {what}")
        return found

    def _require_layout(self) -> None:
        files = self._files
        if files.size_bytes("oci-layout") is None:
            docker = files.size_bytes("manifest.json") is not None
            raise SourceInvalidContent(
                f"{files.label} is not an OCI image layout: it has no file oci-layout",
                hint="it has a manifest.json: write docker-archive: instead" if docker else None,
            )
        version = required(self._json("oci-layout"), "imageLayoutVersion", str, what=f"oci-layout in {files.label}")
        if not version.startswith("1."):
            raise SourceInvalidContent(f"{files.label} is an OCI image layout of version {shown(version)}, only 1 is known")

    def _walk(
        self, descriptor: Descriptor, position: int, names: tuple[str, ...], indexes: tuple[str, ...], visited: dict[str, None]
    ) -> Iterator[Found]:
        if descriptor.is_attestation:
            self._skipped += 1
            return
        path = blob_path(descriptor.digest)
        if descriptor.digest in visited or (indexes and self._files.size_bytes(path) is None):
            return
        visited[descriptor.digest] = None
        self._manifests += 1
        if self._manifests > _MAX_MANIFESTS:
            raise SourceInvalidContent(f"{self._files.label} has more than {_MAX_MANIFESTS} manifests")
        what = f"{path} in {self._files.label}"
        raw = self._raw(path, descriptor)
        document = parse_object(raw, what=what, limit_bytes=self._limits.metadata_bytes)
        if not is_index(document, descriptor.media_type, what):
            found = self._image(document, descriptor, position, names, indexes, what)
            if found is None:
                self._skipped += 1
            else:
                media_type = document.get("mediaType") or descriptor.media_type or OCI_MANIFEST_TYPE
                yield replace(found, manifest=RawManifest(raw, media_type))
            return
        if len(indexes) >= _MAX_INDEX_DEPTH:
            raise SourceInvalidContent(f"{what}: indexes are nested more than {_MAX_INDEX_DEPTH} deep")
        for child in descriptors(document, "manifests", what):
            yield from self._walk(child, position, names, (*indexes, descriptor.digest), visited)

    def _image(
        self, document: JsonObject, descriptor: Descriptor, position: int, names: tuple[str, ...], indexes: tuple[str, ...], what: str
    ) -> Found | None:
        config = parse_descriptor(required(document, "config", dict, what=what), f"'config' of {what}")
        layers = descriptors(document, "layers", what)
        if config.media_type not in CONFIG_TYPES or (layers and not any(_is_layer(layer) for layer in layers)):
            return None  # an artifact: a signature, an SBOM, a chart
        config_path = blob_path(config.digest)
        if indexes and self._files.size_bytes(config_path) is None:
            return None
        config_what = f"config {config_path} in {self._files.label}"
        raw = read(self._files, config_path, limit_bytes=self._limits.metadata_bytes, digest=config.digest, size_bytes=config.size_bytes)
        parsed = parse_config(raw, what=config_what, limits=self._limits)
        if len(layers) != len(parsed.diff_ids):
            raise SourceInvalidContent(f"{what} lists {len(layers)} layers, its config {len(parsed.diff_ids)}")
        return Found(
            entry=position,
            names=names,
            references=full_references(names),
            config=parsed,
            layers=lambda: self._layers(layers, parsed.diff_ids, what),
            declared=descriptor.platform,
            manifest_digest=descriptor.digest,
            index_digests=indexes,
        )

    def _layers(self, layers: list[Descriptor], diff_ids: tuple[str, ...], what: str) -> tuple[Layer, ...]:
        return tuple(
            Layer(number, diff_id, self._layer_blob(layer, number, what))
            for number, (layer, diff_id) in enumerate(zip(layers, diff_ids, strict=True))
        )

    def _layer_blob(self, layer: Descriptor, number: int, what: str) -> StoredBlob:
        media_type = layer.media_type or "no media type"
        if media_type.endswith(_ENCRYPTED):
            raise SourceInvalidContent(
                f"{what}: layer {number} ({layer.digest}) is encrypted", hint="decrypt it first: skopeo copy --decryption-key …"
            )
        if not _is_layer(layer):
            raise SourceInvalidContent(f"{what}: layer {number} ({layer.digest}) has the unknown type {shown(media_type)}")
        path = blob_path(layer.digest)
        stored_bytes = self._files.size_bytes(path)
        if stored_bytes is None:
            foreign = ".foreign." in media_type or ".nondistributable." in media_type
            why = "it is a foreign layer, which tools leave out unless asked" if foreign else "the source is incomplete; fetch it again"
            raise SourceInvalidContent(f"{what}: the blob {layer.digest} of layer {number} is not in {self._files.label}", hint=why)
        if stored_bytes != layer.size_bytes:
            raise SourceInvalidContent(
                f"{path} in {self._files.label} (layer {number}) has {stored_bytes} bytes instead of {layer.size_bytes}",
                hint="the source is corrupt; fetch it again",
            )
        return StoredBlob(self._files, path, layer.size_bytes, layer.digest, layer.media_type)

    def _json(self, path: str) -> JsonObject:
        return parse_object(self._raw(path, None), what=f"{path} in {self._files.label}", limit_bytes=self._limits.metadata_bytes)

    def _raw(self, path: str, descriptor: Descriptor | None) -> bytes:
        digest, size_bytes = (descriptor.digest, descriptor.size_bytes) if descriptor else (None, None)
        return read(self._files, path, limit_bytes=self._limits.metadata_bytes, digest=digest, size_bytes=size_bytes)


def is_index(document: JsonObject, described: str | None, what: str) -> bool:
    """Whether it is an index or a manifest; what is both at once, or says another type than it is described as, is refused."""
    own = member(document, "mediaType", str, what=what)
    if any(one is not None and one.startswith(_SCHEMA_1) for one in (own, described)) or document.get("schemaVersion") == 1:
        raise SourceInvalidContent(f"{what} is a Docker schema 1 manifest", hint="engines no longer read those; pull and save it again")
    if own is not None and described is not None and own != described:
        raise SourceInvalidContent(f"{what} says it is {shown(own)}, its descriptor says {shown(described)}")
    media_type = own or described
    has_children, has_layers = (member(document, key, list, what=what) is not None for key in ("manifests", "layers"))
    has_layers = has_layers or member(document, "config", dict, what=what) is not None
    if has_children and has_layers:  # CVE-2021-41190: some tools would see an index, others a manifest
        raise SourceInvalidContent(f"{what} is an index and a manifest at once")
    if media_type is not None and media_type not in (INDEX_TYPES if has_children else MANIFEST_TYPES):
        raise SourceInvalidContent(f"{what} has the unknown type {shown(media_type)}")
    if not has_children and not has_layers:
        raise SourceInvalidContent(f"{what} is neither an index nor a manifest")
    if document.get("schemaVersion") != 2:
        raise SourceInvalidContent(f"{what} has no schemaVersion 2")
    return has_children


def descriptors(holder: JsonObject, key: str, what: str) -> list[Descriptor]:
    """The content descriptors in the list ``holder[key]``; none where the key is absent. Raises JsonInvalid, SourceInvalidContent."""
    where = f"{key!r} of {what}"
    return [parse_descriptor(one, where) for one in elements(member(holder, key, list, what=what) or (), dict, what=where)]


def parse_descriptor(value: JsonObject, what: str) -> Descriptor:
    """One content descriptor; ``what`` names it in messages. Raises JsonInvalid, SourceInvalidContent."""
    digest = required(value, "digest", str, what=what)
    if not DIGEST.fullmatch(digest):
        raise SourceInvalidContent(f"{what}: '{shown(digest)}' is not a digest that shiplap knows", hint="sha256 and sha512 are known")
    annotations = member(value, "annotations", dict, what=what) or {}
    elements(annotations.values(), str, what=f"'annotations' of {what}")
    platform = _platform(value, what)
    return Descriptor(
        media_type=member(value, "mediaType", str, what=what) or None,
        digest=digest,
        size_bytes=required(value, "size", int, what=what),
        annotations=annotations,
        platform=platform,
        is_attestation=annotations.get(_ATTESTATION[0]) == _ATTESTATION[1] or platform == Platform("unknown", "unknown"),
    )


def _is_layer(layer: Descriptor) -> bool:
    return layer.media_type is not None and layer.media_type.removesuffix(_ENCRYPTED) in LAYER_TYPES


def _platform(descriptor: JsonObject, what: str) -> Platform | None:
    platform = member(descriptor, "platform", dict, what=what)
    if platform is None:
        return None
    os_, architecture, variant = (
        member(platform, key, str, what=f"'platform' of {what}") or "" for key in ("os", "architecture", "variant")
    )
    return Platform(os_, architecture, variant) if os_ or architecture else None
