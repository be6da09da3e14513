"""The chain from a finished store back to its images, link by link.

store.json → configs → chainIDs → each layer's tar, reassembled from tar-split data and files = diffID →
the tree that the layer rules derive from that tar = the stored tree in every field → the engine's
metadata. Whatever is in the store and follows from none of this is a difference too.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from shiplap.audit.layerlink import LayerDone, LayerLink, tar_split_of
from shiplap.audit.links import BrokenLink, equal_content, require_same
from shiplap.audit.storeview import ImageLocation, MetadataView, StoreUnreadable, StoreView, engine_root, expected_metadata, read_small
from shiplap.core.blobs import DIGEST
from shiplap.core.entries import Content, FileSlice, Kind, printable
from shiplap.core.errors import OutsideFailure, ShiplapError
from shiplap.core.image import Image, Layer, RawManifest, chain_ids
from shiplap.core.layer.spool import spool_file
from shiplap.core.limits import Limits
from shiplap.core.platform import parse_platform
from shiplap.core.progress import Progress
from shiplap.core.reference import parse_reference
from shiplap.core.sources.config import parse_config
from shiplap.core.store.forms import FORMS, StoreForm, form_of
from shiplap.core.store.identity import STORE_FORMAT, StoreIdentity
from shiplap.core.store.model import LayerFacts, StoredImage, StoredLayer, merge, takes, unique_layers
from shiplap.core.store.podman import image_home
from shiplap.core.store.unpacking import Unpacking
from shiplap.core.store.whiteouts import ImageTrees, has_explicit_whiteouts

_STORE_JSON_LIMIT_BYTES = 16 << 20
# Each process has a layer's entries in memory and its tar under TMPDIR.
_PROCESSES_MAX = 8
# Smaller images are verified before other processes have begun.
_ALONE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class _AbsentBlob:
    """Stands for the blob of a layer that exists only unpacked."""

    location: str
    digest: str | None = None
    size_bytes: int = 0
    media_type: str | None = None

    def chunks(self) -> Iterator[bytes]:
        raise AssertionError("a layer in a store has no blob")

    def slice(self) -> FileSlice | None:
        return None


def read_identity(view: MetadataView, store_json: bytes, limits: Limits) -> StoreIdentity:
    """The identity in ``store.json``, with the images' configs from the store.

    Raises StoreUnreadable for something that no shiplap wrote, BrokenLink when a config is not what
    its digest says.
    """
    document = _parse(store_json, view.name)
    try:
        form = _form(document, view.name)
        images = [_image(view, item, form, limits) for item in document.pop("images")]
        identity = StoreIdentity(
            mode=document.pop("mode"),
            engine=document.pop("engine"),
            driver=document.pop("driver"),
            platform=parse_platform(document.pop("platform")),
            store_path=document.pop("store-path"),
            epoch=document.pop("epoch"),
            images=merge(images),
            options=tuple((key, value) for key, value in sorted(document.items()) if key != "format"),
        )
        canonical = identity.to_json()
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise StoreUnreadable(f"{view.name}: store.json lacks a key or holds another type: {error}") from error
    if canonical != store_json:
        raise BrokenLink(f"{view.name}: store.json is not in its canonical form")
    for stored in identity.images:
        if not takes(identity.platform, stored.image.platform):
            raise BrokenLink(f"{view.name}: store.json says {identity.platform}, {stored.image.label} is for {stored.image.platform}")
    return identity


def _parse(store_json: bytes, name: str) -> dict[str, Any]:
    if len(store_json) > _STORE_JSON_LIMIT_BYTES:
        raise StoreUnreadable(f"{name}: store.json has {len(store_json)} bytes")
    try:
        document = json.loads(store_json)
    except (ValueError, RecursionError) as error:
        raise StoreUnreadable(f"{name}: store.json is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != STORE_FORMAT:
        written = document.get("format") if isinstance(document, dict) else None
        raise StoreUnreadable(f"{name}: store format {written!r}; this release knows {STORE_FORMAT}")
    if type(document.get("epoch")) is not int:
        raise StoreUnreadable(f"{name}: store.json has no epoch")
    return document


def _form(document: dict[str, Any], name: str) -> StoreForm:
    form = FORMS.get((document["engine"], document["driver"])) if document["mode"] == "store" else None
    if form is None:
        known = ", ".join(" with ".join(one) for one in FORMS)
        raise StoreUnreadable(
            f"{name}: a {document['engine']!r:.40} store with driver {document['driver']!r:.40}; this release verifies {known}"
        )
    return form


def _image(view: MetadataView, item: dict[str, Any], form: StoreForm, limits: Limits) -> StoredImage:
    digest = item["config"]
    algorithm, _, digest_hex = digest.partition(":")
    if algorithm != "sha256" or len(digest_hex) != 64 or set(digest_hex) - set("0123456789abcdef"):
        raise StoreUnreadable(f"{view.name}: {printable(str(digest).encode())} is no config digest")
    path = engine_root(view, form) + form.config(digest)
    if view.find(path.encode()) is None:
        raise BrokenLink(f"{view.name}: the config {digest} is missing")
    raw = read_small(view, path, limits.metadata_bytes)
    found = "sha256:" + hashlib.sha256(raw).hexdigest()
    if found != digest:
        raise BrokenLink(f"{view.name}: the config {digest} has digest {found}")
    config = parse_config(raw, what=f"config {digest[:19]} in {view.name}", limits=limits)
    stated = tuple((layer["chainID"], layer["diffID"]) for layer in item["layers"])
    computed = tuple(zip(chain_ids(config.diff_ids), config.diff_ids, strict=True))
    if stated != computed:
        raise BrokenLink(f"{view.name}: store.json lists other layers for {digest} than its config")
    layers = tuple(Layer(index, diff_id, _AbsentBlob(view.name)) for index, diff_id in enumerate(config.diff_ids))
    references = tuple(parse_reference(text, default_tag=False) for text in item["references"])
    labels = tuple(str(reference) for reference in references)
    image = Image(raw, digest, layers, labels, config.platform, view.name, created_epoch=config.created_epoch)
    return StoredImage(image, references, _blobs(item, view.name), manifest=_manifest(view, item, digest, limits))


def _manifest(view: MetadataView, item: dict[str, Any], config_digest: str, limits: Limits) -> RawManifest | None:
    """The raw manifest that store.json names; whether it is the image's, the store's writer looks."""
    if "manifest" not in item:
        return None
    path = f"{image_home(config_digest)}/manifest"
    manifest = RawManifest(read_small(view, path, limits.metadata_bytes), "")
    if manifest.digest != item["manifest"]:
        raise BrokenLink(f"{view.name}: {path} has digest {manifest.digest}, store.json says {item['manifest']!r:.80}")
    return manifest


def _blobs(item: dict[str, Any], name: str) -> tuple[str | None, ...]:
    blobs = tuple(layer.get("blob") for layer in item["layers"])
    for blob in blobs:
        if blob is not None and not (isinstance(blob, str) and DIGEST.fullmatch(blob)):
            raise StoreUnreadable(f"{name}: {printable(str(blob).encode())} is no blob's digest")
    return blobs if any(blobs) else ()


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What held: images, layers and entries that were compared, layers' uncompressed bytes."""

    images: int
    layers: int
    entries: int
    layer_bytes: int


def verify_store(view: StoreView, store_json: bytes, limits: Limits, progress: Progress) -> ChainReport:
    """Check the whole chain; raises BrokenLink naming the first link that does not hold."""
    identity = read_identity(view, store_json, limits)
    layers = unique_layers(identity.images)
    form = form_of(identity)
    facts: list[tuple[LayerFacts, Content]] = []
    entries = layer_bytes = 0
    with _checks(view, store_json, identity, layers, limits) as check:
        for number, stored in enumerate(layers):
            with progress.task(f"verify layer {number + 1}/{len(layers)} of {stored.image.label}") as task:
                done = check(number, task.advance)
            facts.append((replace(done.facts, stored=stored), tar_split_of(view, stored, form)))
            entries += done.entries
            layer_bytes += done.facts.tar_bytes
    entries += _check_metadata(view, identity, facts, {form.layer_root(stored, view.sealed) for stored in layers})
    return ChainReport(len(identity.images), len(layers), entries, layer_bytes)


_Check = Callable[[int, Callable[[int], object]], LayerDone]


@contextmanager
def _checks(view: StoreView, store_json: bytes, identity: StoreIdentity, layers: Sequence[StoredLayer], limits: Limits) -> Iterator[_Check]:
    """A function that checks one layer; where that pays, later ones are checked at the same time by other processes.

    Not where a layer's tree, as the store has it, needs those of the layers below it.

    Threads would not do: most of the work needs the interpreter's lock. A fault is raised when its layer's turn comes,
    so the first one in the order of the layers is the one that is told.
    """
    jobs = min(len(os.sched_getaffinity(0)), len(layers), _PROCESSES_MAX)
    location = view.location
    form = form_of(identity)
    trees = ImageTrees(identity) if view.sealed and has_explicit_whiteouts(identity) else None
    together = trees is not None or not form.independent_layers
    if location is None or jobs < 2 or together or location.path.stat().st_size < _ALONE_BYTES:
        unpacking = form.unpacking(identity)

        def here(number: int, advance: Callable[[int], object]) -> LayerDone:
            return _check_layer(view, layers[number], form, unpacking, trees, limits, advance)

        yield here
        return
    # Started afresh, not forked: this process has threads.
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    try:
        running = [pool.submit(_check_elsewhere, location, store_json, number, limits) for number in range(len(layers))]

        def there(number: int, advance: Callable[[int], object]) -> LayerDone:
            try:
                done = running[number].result()
            except BrokenExecutor as error:
                raise OutsideFailure("a process that verified a layer was killed", hint="perhaps there was not enough memory") from error
            if isinstance(done, _Fault):
                raise done.kind(done.message, hint=done.hint)
            advance(done.facts.tar_bytes)
            return done

        yield there
    except BaseException:
        # Nobody waits for the other layers any more, and theirs may be long.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Fault:
    """An error on its way between processes."""

    kind: type[ShiplapError]
    message: str
    hint: str | None


def _check_elsewhere(location: ImageLocation, store_json: bytes, number: int, limits: Limits) -> LayerDone | _Fault:
    """In another process: open the image anew and check one layer."""
    try:
        with location.opened(threads=1) as view:
            identity = read_identity(view, store_json, limits)
            stored = unique_layers(identity.images)[number]
            form = form_of(identity)
            return _check_layer(view, stored, form, form.unpacking(identity), None, limits, lambda amount_bytes: None, threads=False)
    except ShiplapError as error:
        return _Fault(type(error), error.message, error.hint)


def _check_layer(
    view: StoreView,
    stored: StoredLayer,
    form: StoreForm,
    unpacking: Unpacking,
    trees: ImageTrees | None,
    limits: Limits,
    advance: Callable[[int], object],
    *,
    threads: bool = True,
) -> LayerDone:
    with spool_file(stored.where) as spool:
        return LayerLink(view, stored, form, unpacking, trees, limits, threads=threads).check(spool, advance)


def _check_metadata(view: StoreView, identity: StoreIdentity, facts: list[tuple[LayerFacts, Content]], inside: set[bytes]) -> int:
    """Everything outside the layers' trees, which begin ``inside``; returns how many entries there are."""
    expected = expected_metadata(view, identity, facts)
    wanted_names: dict[bytes, set[bytes]] = {path: set() for path, entry in expected.items() if entry.kind is Kind.DIRECTORY}
    for path in (*expected, *inside):
        if path:
            wanted_names[path.rpartition(b"/")[0]].add(path.rpartition(b"/")[2])
    for path, wanted in sorted(expected.items()):
        stored = view.find(path)
        require_same(view.keeps(wanted), stored, view.name, lambda one, other, _: equal_content(one, other))
        if wanted.kind is Kind.DIRECTORY:
            extra = view.names(path) - wanted_names[path]
            if extra:
                raise BrokenLink(f"{view.name}: '{printable(path + b'/' + min(extra))}' belongs to no image of the store")
    return len(expected)
