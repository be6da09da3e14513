"""Images from registries: ``docker://NAME[:TAG][@DIGEST]``.

What is fetched lies in the cache under its digest, so an image that was fetched once and is named by digest needs no
network. Of an index only the platform's own manifest is fetched; its descriptor decides. The rules for manifests and
configs are those of OCI layouts: what came in is shown to the same reader as a layout with one entry.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from shiplap.core.blobs import BlobCorrupt, Files, SourceInvalidContent, blob_path, read
from shiplap.core.cache import Cache
from shiplap.core.cache.mirror import fetch_from
from shiplap.core.entries import FileSlice
from shiplap.core.image import Image
from shiplap.core.jsontext import JsonObject, member, parse_object, shown
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform, best_match
from shiplap.core.reference import Reference, parse_reference
from shiplap.core.registry.client import RegistryClient, open_registry
from shiplap.core.registry.download import Wanted, download
from shiplap.core.sources.access import Access, OfflineRefused
from shiplap.core.sources.oci import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_MANIFEST_TYPE,
    Descriptor,
    LayoutReader,
    descriptors,
    is_index,
    parse_descriptor,
)
from shiplap.core.sources.selection import NotInSource, best_of, choose
from shiplap.core.sources.spec import SourceSpec

_OCI_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
# What servers that do not know better call a manifest; its own mediaType decides then.
_UNTYPED = ("", "application/json", "application/octet-stream", "text/plain", "binary/octet-stream")
_MAX_INDEX_DEPTH = 8
# Images of an index whose descriptors leave open for which platform they are: more are not looked into.
_MAX_UNDECLARED = 16
# Of one reference, indexes in indexes together; they are kept until the image is chosen.
_MAX_DOCUMENTS = 100
_MAX_DOCUMENTS_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index as it was served."""

    digest: str
    media_type: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class ResolvedLayer:
    """One layer as the manifest describes it."""

    diff_id: str
    digest: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference means for one platform. ``indexes``: outermost first, () where the tag is a manifest; ``layers``: base first."""

    reference: Reference
    platform: Platform
    indexes: tuple[Document, ...]
    manifest: Document
    config_digest: str
    config: bytes
    layers: tuple[ResolvedLayer, ...]


@contextmanager
def open_image(spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Iterator[tuple[Image, ...]]:
    """Opener of ``docker://``: one image, its layers in the cache. Besides what openers raise: RegistryFailed, OfflineRefused."""
    with ExitStack() as stack:
        if access.cache is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="shiplap-"))
            access = replace(access, cache=Cache(Path(folder)))
        with _Repository(spec, access, limits) as repository:
            pulled, image = _resolve(repository, spec, platform)
            repository.fetch(_layers(image), image.label)
        stack.enter_context(pulled)
        yield (image,)


def resolve(spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Resolved:
    """What ``spec`` means now: fetches index, manifest and config into ``access.cache``, and no layer. Raises as the opener."""
    with _Repository(spec, access, limits) as repository:
        pulled, image = _resolve(repository, spec, platform)
        with pulled:
            assert image.manifest is not None and image.manifest_digest is not None
            return Resolved(
                reference=repository.reference,
                platform=image.platform,
                indexes=pulled.indexes,
                manifest=Document(image.manifest_digest, image.manifest.media_type, image.manifest.raw),
                config_digest=image.config_digest,
                config=image.config,
                layers=tuple(_layers(image)),
            )


def fetch_layers(resolved: Resolved, access: Access) -> None:
    """Bring the layers into ``access.cache``. Raises RegistryFailed, BlobCorrupt, OfflineRefused and what the cache raises."""
    spec = SourceSpec("docker", str(resolved.reference), None, f"docker://{resolved.reference}")
    with _Repository(spec, access, Limits()) as repository:
        repository.fetch(resolved.layers, resolved.reference.familiar)


def fetch_blobs(spec: SourceSpec, wanted: Iterable[tuple[str, int, str]], access: Access) -> None:
    """Bring any blobs (digest, size in bytes, label) of the repository of ``spec`` into ``access.cache``. Raises as fetch_layers."""
    with _Repository(spec, access, Limits()) as repository:
        repository.fetch_wanted([Wanted(*one) for one in wanted])


class _Repository:
    """The cache, and behind it the registry."""

    def __init__(self, spec: SourceSpec, access: Access, limits: Limits) -> None:
        assert access.cache is not None, "registries need a cache"
        self.reference = parse_reference(spec.location)
        self.cache = access.cache
        self.limits = limits
        self._text = spec.text
        self._access = access
        self._stack = ExitStack()
        self._client: RegistryClient | None = None

    def __enter__(self) -> _Repository:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def document(self, wanted: str, size_bytes: int | None = None) -> tuple[bytes, str, str]:
        """Bytes, media type (perhaps empty) and digest of the manifest or index under a tag or a digest."""
        if ":" in wanted:
            raw = self.cached(wanted, size_bytes)
            if raw is None and self._mirrored(wanted, size_bytes):
                raw = self.cached(wanted, size_bytes)
            if raw is not None:
                return raw, "", wanted
        received = self._online().manifest(wanted, limit_bytes=self.limits.metadata_bytes, size_bytes=size_bytes)
        self.cache.add(received.digest, len(received.raw), [received.raw])
        return received.raw, received.media_type, received.digest

    def config(self, digest: str, size_bytes: int) -> None:
        """Bring a config into the cache."""
        if size_bytes > self.limits.metadata_bytes:
            raise SourceInvalidContent(
                f"the config {digest} of {self.reference} has {size_bytes} bytes, more than the "
                f"{self.limits.metadata_bytes} allowed for metadata"
            )
        if self.cached(digest, size_bytes) is None and not self._mirrored(digest, size_bytes):
            self._online().blob(digest, size_bytes)

    def fetch(self, layers: Sequence[ResolvedLayer], label: str) -> None:
        """Bring layers into the cache. Raises SourceInvalidContent for one that is larger than any layer may be."""
        for number, layer in enumerate(layers, 1):
            if layer.size_bytes > self.limits.layer_bytes:
                raise SourceInvalidContent(
                    f"layer {number} of {label} has {layer.size_bytes} bytes, more than the {self.limits.layer_bytes} a layer may have",
                    hint="raise `limits: {layer-bytes: …}` if that is wanted",
                )
        self.fetch_wanted(
            [Wanted(layer.digest, layer.size_bytes, f"layer {number}/{len(layers)} of {label}") for number, layer in enumerate(layers, 1)]
        )

    def fetch_wanted(self, wanted: Sequence[Wanted]) -> None:
        absent = [one for one in wanted if not self.cache.has(one.digest, one.size_bytes)]
        if absent:
            download(self._online(), absent, self._access.progress, lambda one: self._mirrored(one.digest, one.size_bytes))

    def cached(self, digest: str, size_bytes: int | None) -> bytes | None:
        """A small blob of the cache, None without it. A damaged one leaves the cache."""
        if not self.cache.has(digest, size_bytes):
            return None
        with self.cache.files() as files:
            try:
                return read(files, blob_path(digest), limit_bytes=self.limits.metadata_bytes, digest=digest, size_bytes=size_bytes)
            except BlobCorrupt:
                self.cache.discard(digest)
                return None

    def _mirrored(self, digest: str, size_bytes: int | None) -> bool:
        """Whether a download mirror had it; it is in the cache then."""
        mirrors = () if self._access.offline else self._access.download_mirrors
        return bool(mirrors) and fetch_from(
            mirrors, self.cache, digest, size_bytes, progress=self._access.progress, unreachable=self._access.unreachable
        )

    def _online(self) -> RegistryClient:
        if self._access.offline:
            raise OfflineRefused(
                f"--offline: {self._text} is not all in the cache {self.cache.root}"
                + ("" if self.reference.digest else ", and only the registry knows what its tag means"),
                hint="`shiplap lock` pins it and `shiplap fetch` fills the cache; run them where there is a network",
            )
        if self._client is None:
            self._client = self._stack.enter_context(open_registry(self.reference, self._access))
        return self._client


class _Pulled:
    """What came in of one image, as the files of an OCI layout: the index, the manifest and the config that were chosen, and
    the layers, which count as there with the size that the manifest promises."""

    remedy = "`shiplap cache verify --repair` removes what is damaged; then fetch it again"

    def __init__(self, label: str, cache: Cache) -> None:
        self.label = label
        self.indexes: tuple[Document, ...] = ()
        self._cache = cache
        self._stack = ExitStack()
        self._files: Files | None = None
        self._sizes: dict[str, int] = {}
        self._made: dict[str, FileSlice] = {}

    def __enter__(self) -> _Pulled:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
        self._files = None

    def keep(self, digest: str, size_bytes: int) -> None:
        self._sizes.setdefault(blob_path(digest), size_bytes)

    def make(self, path: str, data: bytes) -> None:
        """A file that no registry has."""
        file = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        file.write(data)
        file.flush()
        self._made[path] = FileSlice(file.fileno(), 0, len(data), f"{path} of {self.label}")

    def size_bytes(self, path: str) -> int | None:
        made = self._made.get(path)
        return self._sizes.get(path) if made is None else made.size_bytes

    def slice(self, path: str) -> FileSlice:
        made = self._made.get(path)
        if made is not None:
            return made
        if self._files is None:
            self._files = self._stack.enter_context(self._cache.files())
        return self._files.slice(path)

    def release(self, path: str) -> None:
        if path not in self._made and self._files is not None:
            self._files.release(path)

    def is_ambiguous(self, path: str) -> bool:
        return False


def _resolve(repository: _Repository, spec: SourceSpec, platform: Platform | None) -> tuple[_Pulled, Image]:
    """The image, with its layers still to be fetched."""
    reference = repository.reference
    pulled = _Pulled(spec.location, repository.cache)
    wanted = reference.digest or reference.tag
    assert wanted is not None, "a full reference has a tag or a digest"
    raw, served, digest = repository.document(wanted)
    walk = _Walk(repository, pulled, platform)
    media_type = walk.follow(raw, _known_type(served, spec.location), digest, ())
    top = {"mediaType": media_type, "digest": digest, "size": len(raw)}
    pulled.make("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    pulled.make("index.json", json.dumps({"schemaVersion": 2, "manifests": [top]}).encode())
    (image,) = choose(LayoutReader(pulled, repository.limits).found(), None, platform, spec.location, spec.public_text)
    pulled.indexes = tuple(walk.documents[one] for one in walk.above(image.manifest_digest or ""))
    names = [str(replace(reference, digest=None))] if reference.tag else []
    names += [str(replace(reference, tag=None))] if reference.digest else []
    return pulled, replace(image, references=tuple(names))


class _Walk:
    """From the document that a reference names down to the manifests that may be meant."""

    def __init__(self, repository: _Repository, pulled: _Pulled, platform: Platform | None) -> None:
        self._repository = repository
        self._pulled = pulled
        self._platform = platform
        self.documents: dict[str, Document] = {}
        self._parents: dict[str, tuple[str, ...]] = {}
        self._passed_over: list[Platform | None] = []
        self._images = 0
        self._bytes = 0

    def above(self, digest: str) -> tuple[str, ...]:
        """The indexes that lead to a manifest, outermost first."""
        return self._parents[digest]

    def follow(self, raw: bytes, served: str | None, digest: str, above: tuple[str, ...]) -> str:
        """Fetch what is needed of a document and below it; its media type."""
        what = f"{blob_path(digest)} in {self._pulled.label}"
        document = parse_object(raw, what=what, limit_bytes=self._repository.limits.metadata_bytes)
        has_children = is_index(document, served, what)
        media_type = document.get("mediaType") or served or (_OCI_INDEX_TYPE if has_children else OCI_MANIFEST_TYPE)
        self.documents[digest] = Document(digest, media_type, raw)
        self._bytes += len(raw)
        most_bytes = max(_MAX_DOCUMENTS_BYTES, 4 * self._repository.limits.metadata_bytes)
        if len(self.documents) > _MAX_DOCUMENTS or self._bytes > most_bytes:
            raise SourceInvalidContent(
                f"{self._pulled.label} has more than {_MAX_DOCUMENTS} manifests and indexes that may be meant, "
                f"or of more than {most_bytes} bytes together",
                hint="name the image by its digest",
            )
        self._parents.setdefault(digest, above)
        self._pulled.keep(digest, len(raw))
        if has_children:
            if len(above) >= _MAX_INDEX_DEPTH:
                raise SourceInvalidContent(f"{what}: indexes are nested more than {_MAX_INDEX_DEPTH} deep")
            for child in self._chosen(descriptors(document, "manifests", what)):
                if child.digest not in self.documents:
                    below, _, _ = self._repository.document(child.digest, child.size_bytes)
                    self.follow(below, child.media_type, child.digest, (*above, digest))
        else:
            self._keep_parts(document, what)
            self._images += 1
        if not above and not self._images:
            best_of(self._passed_over, self._platform, self._pulled.label)  # raises, with what there is
        return str(media_type)

    def _keep_parts(self, document: JsonObject, what: str) -> None:
        described = member(document, "config", dict, what=what)
        config = None if described is None else parse_descriptor(described, f"'config' of {what}")
        layers = descriptors(document, "layers", what)
        if config is not None and config.media_type in CONFIG_TYPES:  # else an artifact, which the reader passes over
            self._repository.config(config.digest, config.size_bytes)
            self._pulled.keep(config.digest, config.size_bytes)
        for layer in layers:
            self._pulled.keep(layer.digest, layer.size_bytes)

    def _chosen(self, children: list[Descriptor]) -> list[Descriptor]:
        """Those that may be meant: for the platform by their descriptors; else those whose descriptors leave it open."""
        real = [child for child in children if not child.is_attestation]
        nested = [child for child in real if child.media_type in INDEX_TYPES]
        images = [child for child in real if child.media_type not in INDEX_TYPES]
        declared = [child.platform for child in images]
        label, wanted = self._pulled.label, self._platform
        if wanted is not None:
            position = best_match(wanted, declared)
            if position is not None:
                return [images[position]]
        elif any(declared) and not nested:
            return [images[best_of(declared, None, label)]]
        unclear = [*(child for child in images if _leaves_open(child, wanted)), *nested]
        self._passed_over += declared
        if len(unclear) > _MAX_UNDECLARED:
            raise NotInSource(
                f"{label} has {len(unclear)} images that do not say for which platform they are", hint="name one by its digest"
            )
        return unclear


def _leaves_open(child: Descriptor, wanted: Platform | None) -> bool:
    """Whether only the config can tell: no platform, or one without the variant, which some tools leave out."""
    declared = child.platform
    if declared is None or wanted is None:
        return declared is None
    return not declared.variant and wanted.accepts(replace(declared, variant=wanted.variant))


def _known_type(served: str, label: str) -> str | None:
    """The type that a registry names for a document, None where it names none."""
    if served in _UNTYPED:
        return None
    if served in INDEX_TYPES or served in MANIFEST_TYPES or served.startswith("application/vnd.docker.distribution.manifest.v1+"):
        return served
    raise SourceInvalidContent(f"{label} has the unknown type {shown(served)}", hint="it is no container image")


def _layers(image: Image) -> list[ResolvedLayer]:
    found = []
    for layer in image.layers:
        assert layer.blob.digest is not None
        found.append(ResolvedLayer(layer.diff_id, layer.blob.digest, layer.blob.size_bytes, layer.blob.media_type or ""))
    return found
