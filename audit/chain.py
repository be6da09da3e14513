"""The chain from a finished store back to its images, link by link.

store.json → configs → chainIDs → each layer's tar, reassembled from tar-split data and files = diffID →
the tree that the layer rules derive from that tar = the stored tree in every field → the engine's
metadata. Whatever is in the store and follows from none of this is a difference too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from shiplap.audit.storeview import StoreUnreadable, StoreView, expected_metadata, read_small
from shiplap.core.entries import Content, Entry, FileSlice, Kind, printable
from shiplap.core.errors import Difference, Refused
from shiplap.core.image import Image, Layer, chain_ids
from shiplap.core.layer.rules import clean
from shiplap.core.layer.spool import cannot_spool, spool_file
from shiplap.core.layer.tarsplit import SEGMENT_BYTES, FilePart, Segment, StoredGzip, TarSplitWriter, assemble, read_parts
from shiplap.core.layer.unpack import TarOutline, unpack_layer, write_tar_split
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform, parse_platform
from shiplap.core.progress import Progress
from shiplap.core.reference import parse_reference
from shiplap.core.sources.config import parse_config
from shiplap.core.store.docker import LayerFacts
from shiplap.core.store.identity import STORE_FORMAT, StoreIdentity
from shiplap.core.store.model import StoredImage, StoredLayer, merge, unique_layers

_STORE_JSON_LIMIT_BYTES = 16 << 20


class BrokenLink(Difference):
    """A link of the chain does not hold."""


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


def read_identity(view: StoreView, store_json: bytes, limits: Limits) -> StoreIdentity:
    """The identity in ``store.json``, with the images' configs from the store.

    Raises StoreUnreadable for something that no shiplap wrote, BrokenLink when a config is not what
    its digest says.
    """
    document = _parse(store_json, view.name)
    try:
        images = [_image(view, item, limits) for item in document.pop("images")]
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
    if (identity.mode, identity.engine, identity.driver) != ("store", "docker", "overlay2"):
        raise StoreUnreadable(
            f"{view.name}: a {identity.engine!r} store with driver {identity.driver!r}; this release verifies docker with overlay2"
        )
    if canonical != store_json:
        raise BrokenLink(f"{view.name}: store.json is not in its canonical form")
    for stored in identity.images:
        own = stored.image.platform
        # Many configs for linux/arm/v6 name no variant.
        if not Platform(own.os, own.architecture, own.variant or identity.platform.variant).matches(identity.platform):
            raise BrokenLink(f"{view.name}: store.json says {identity.platform}, {stored.image.label} is for {own}")
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


def _image(view: StoreView, item: dict[str, Any], limits: Limits) -> StoredImage:
    digest = item["config"]
    algorithm, _, digest_hex = digest.partition(":")
    if algorithm != "sha256" or len(digest_hex) != 64 or set(digest_hex) - set("0123456789abcdef"):
        raise StoreUnreadable(f"{view.name}: {printable(str(digest).encode())} is no config digest")
    path = f"{view.metadata_root}image/overlay2/imagedb/content/sha256/{digest_hex}"
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
    return StoredImage(image, references)


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
    facts: list[tuple[LayerFacts, Entry]] = []
    entries = layer_bytes = 0
    for number, stored in enumerate(layers, 1):
        with progress.task(f"verify layer {number}/{len(layers)} of {stored.image.label}") as task, spool_file(stored.where) as spool:
            checked = _LayerCheck(view, stored, identity.epoch, limits, progress)
            size_bytes, count, tar_bytes = checked.run(spool, task.advance)
            facts.append((LayerFacts(stored, size_bytes), checked.tar_split))
            entries += count
            layer_bytes += tar_bytes
    entries += _check_metadata(view, identity, facts)
    return ChainReport(len(identity.images), len(layers), entries, layer_bytes)


class _LayerCheck:
    """One layer: its stored entries, its tar put together again, the tree derived from that tar."""

    def __init__(self, view: StoreView, stored: StoredLayer, epoch: int, limits: Limits, progress: Progress) -> None:
        self._view = view
        self._stored = stored
        self._epoch = epoch
        self._limits = limits
        self._progress = progress
        self._root = view.layer_root(stored.hex)
        self._where = f"{view.name}, layer {stored.hex[:12]} ({stored.where})"
        tar_split = view.find(view.tar_split(stored.hex))
        if tar_split is None or tar_split.content is None:
            raise BrokenLink(f"{self._where}: its tar-split data is missing")
        self.tar_split = tar_split
        # By path inside the layer.
        self._entries: dict[bytes, Entry] = {}
        # Offset in the tar → path: contents that were taken from the stored tree and need no second look.
        self._taken: dict[int, bytes] = {}
        # Offset in the tar → checksum of the file there, proven while the tar was put together.
        self._checksums: dict[int, bytes] = {}
        self._tar_split_sha256 = b""
        self._assembled_bytes = 0

    def run(self, spool: IO[bytes], advance: Any) -> tuple[int, int, int]:
        """Returns size in bytes as the engine counts, number of entries, bytes of the tar."""
        if self._view.find(self._root) is None:
            raise BrokenLink(f"{self._where}: its tree is missing")
        cut = len(self._root) + 1
        for entry in self._view.subtree(self._root):
            self._entries[entry.path[cut:]] = entry
        tar_bytes = self._reassemble(spool, advance)
        tar = FileSlice(spool.fileno(), 0, tar_bytes, self._where)
        tree, outline = unpack_layer(tar, where=self._where, epoch=self._epoch, entries_max=self._limits.entries, note=lambda message: None)
        self._check_tar_split(tar, outline)
        count = 0
        for derived in tree.stream(self._root, tar):
            wanted = self._view.keeps(derived)
            stored = self._entries.pop(derived.path[cut:], None)
            _compare(wanted, stored, self._where, self._same_content)
            count += 1
        if self._entries:
            extra = min(self._entries)
            raise BrokenLink(f"{self._where}: {printable(extra)!r} is in the store, but not in the layer")
        return tree.size_bytes, count, tar_bytes

    def _check_tar_split(self, tar: FileSlice, outline: TarOutline) -> None:
        """Other data could give the same tar; only one form of it follows from the tar."""
        hasher = hashlib.sha256()
        gzip = StoredGzip(hasher.update)
        write_tar_split(tar, outline, TarSplitWriter(gzip.write), known=self._checksums)
        gzip.close()
        if hasher.digest() != self._tar_split_sha256:
            raise BrokenLink(f"{self._where}: its tar-split data gives the layer's tar, but is not what shiplap writes for it")

    def _parts(self) -> Iterator[Segment | FilePart]:
        assert self.tar_split.content is not None
        hasher = hashlib.sha256()

        def hashed(chunks: Iterator[bytes]) -> Iterator[bytes]:
            for chunk in chunks:
                hasher.update(chunk)
                yield chunk

        parts_max = 3 * self._limits.entries + self._limits.layer_bytes // SEGMENT_BYTES
        parts = read_parts(hashed(self.tar_split.content.chunks()), what=f"tar-split data of {self._where}")
        for number, part in enumerate(parts):
            if number > parts_max:
                raise BrokenLink(f"{self._where}: its tar-split data has more than {parts_max} parts")
            if isinstance(part, FilePart) and part.size_bytes:
                self._checksums[self._assembled_bytes] = part.checksum
            yield part
        self._tar_split_sha256 = hasher.digest()

    def _reassemble(self, spool: IO[bytes], advance: Any) -> int:
        hasher = hashlib.sha256()

        def content(name: bytes) -> Iterator[bytes]:
            path = clean(name.lstrip(b"/"))
            entry = self._entries.get(path)
            if entry is not None and entry.kind is Kind.HARDLINK:
                entry = self._entries.get(entry.link[len(self._root) + 1 :])
            if entry is None or entry.content is None:
                raise BrokenLink(f"{self._where}: the layer's file {printable(name)!r} is missing")
            self._taken[self._assembled_bytes] = path
            return entry.content.chunks()

        try:
            for piece in assemble(self._parts(), content, what=self._where):
                self._assembled_bytes += len(piece)
                if self._assembled_bytes > self._limits.layer_bytes:
                    raise StoreUnreadable(f"{self._where}: its tar is larger than {self._limits.layer_bytes} bytes")
                hasher.update(piece)
                spool.write(piece)
                advance(len(piece))
            spool.flush()
        except OSError as error:
            raise cannot_spool(self._where, error) from error
        except Refused as error:
            raise BrokenLink(error.message) from error
        digest = "sha256:" + hasher.hexdigest()
        if digest != self._stored.layer.diff_id:
            raise BrokenLink(f"{self._where}: the tar from its files has diffID {digest}, the config says {self._stored.layer.diff_id}")
        return self._assembled_bytes

    def _same_content(self, derived: Content, stored: Content, path: bytes) -> bool:
        assert isinstance(derived, FileSlice)
        if derived.size_bytes != stored.size_bytes:
            return False
        if derived.size_bytes == 0 or self._taken.get(derived.offset) == path[len(self._root) + 1 :]:
            return True
        return _equal_content(derived, stored)


def _check_metadata(view: StoreView, identity: StoreIdentity, facts: list[tuple[LayerFacts, Entry]]) -> int:
    """Everything outside the layers' trees; returns how many entries there are."""
    expected = expected_metadata(view, identity, facts)
    inside = [view.layer_root(one.stored.hex) for one, _ in facts]
    wanted_names: dict[bytes, set[bytes]] = {path: set() for path, entry in expected.items() if entry.kind is Kind.DIRECTORY}
    for path in (*expected, *inside):
        if path:
            wanted_names[path.rpartition(b"/")[0]].add(path.rpartition(b"/")[2])
    for path, wanted in sorted(expected.items()):
        stored = view.find(path)
        _compare(view.keeps(wanted), stored, view.name, lambda one, other, _: _equal_content(one, other))
        if wanted.kind is Kind.DIRECTORY:
            extra = view.names(path) - wanted_names[path]
            if extra:
                raise BrokenLink(f"{view.name}: {printable(path + b'/' + min(extra))!r} belongs to no image of the store")
    return len(expected)


def _compare(wanted: Entry, stored: Entry | None, where: str, same_content: Any) -> None:
    name = printable(wanted.path) or "/"
    if stored is None:
        raise BrokenLink(f"{where}: {name!r} is missing")
    for field in ("kind", "uid", "gid", "mtime_epoch", "mtime_nanoseconds", "link", "device", "mode", "xattrs"):
        if wanted.kind is Kind.HARDLINK and field == "xattrs":
            continue  # they belong to the first name
        one, other = getattr(wanted, field), getattr(stored, field)
        if one != other:
            raise BrokenLink(f"{where}: {name!r} has {field.replace('_', ' ')} {_shown(other)}, it should have {_shown(one)}")
    if wanted.kind is Kind.REGULAR:
        assert wanted.content is not None
        if stored.content is None or not same_content(wanted.content, stored.content, wanted.path):
            raise BrokenLink(f"{where}: {name!r} has another content")


def _shown(value: Any) -> str:
    if isinstance(value, Kind):
        return value.value
    if isinstance(value, bytes):
        return repr(printable(value))
    return str(value)


def _equal_content(one: Content, other: Content) -> bool:
    if one.size_bytes != other.size_bytes:
        return False
    left, right = hashlib.sha256(), hashlib.sha256()
    for piece in one.chunks():
        left.update(piece)
    for piece in other.chunks():
        right.update(piece)
    return left.digest() == right.digest()
