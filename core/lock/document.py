"""``shiplap.lock.yaml`` ⇄ :class:`Lock`. One lock has one text: fixed keys in a fixed order, no optional spelling."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shiplap.core.errors import Refused
from shiplap.core.jsontext import JsonObject, elements, parse_object, required
from shiplap.core.lock.model import Lock, LockedImage, LockedLayer, LockedManifest
from shiplap.core.manifest.document import Bounds, Listing, Mapping, Node, Scalar, Unreadable, compose, plain, read_bounded
from shiplap.core.manifest.problems import ManifestError, Problem
from shiplap.core.manifest.schema import join, validate
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference
from shiplap.core.store.identity import STORE_FORMAT

Data = dict[str, Any]

LOCK_BOUNDS = Bounds(document_bytes=4 << 20, nodes=150_000, what="a lock", least="`version: 1` and `images:`")
HEADER = "# Written by `shiplap lock`: every digest of every image. Commit it; change the manifest, not this file.\n"
UNKNOWN = "unknown"
_MANIFEST_LIMIT_BYTES = 4 << 20
_BASE64_COLUMNS = 76
_HINT = "`shiplap lock` writes this file: take it from version control, or remove it and lock again"

# Every key that is not a signature's own.
_KEYS = frozenset(
    ("version", "store-format", "epoch", "images", "ref", "from", "platform", "created", "index", "manifest", "digest")
) | frozenset(("size", "media-type", "bytes", "config", "layers", "diff-id", "blob", "signature"))
# What YAML 1.1 and 1.2 both read as this text and nothing else: it begins with a letter and holds a slash or a colon.
_PLAIN = re.compile(r"[A-Za-z](?=.*[/:])[A-Za-z0-9._/@:+-]*[A-Za-z0-9._/@+-]")


class LockUnreadable(Refused):
    """The lock's file is not there or cannot be read."""


class LockInvalid(ManifestError):
    """A lock that cannot be used; ``problems`` in the order of the file."""


class LockTooLarge(Refused):
    """More images than one lock holds."""


def lock_path(manifest: Path) -> Path:
    """Where the lock of a manifest is: beside it, ``x.lock.yaml`` for ``x.yaml``."""
    return manifest.with_name(f"{manifest.stem}.lock.yaml")


def load_lock(path: Path) -> Lock:
    """Read and check the lock at ``path``. Raises LockUnreadable and LockInvalid."""
    try:
        raw = read_bounded(path, LOCK_BOUNDS)
    except OSError as error:
        hint = "`shiplap lock` writes it" if isinstance(error, FileNotFoundError) else None
        raise LockUnreadable(f"cannot read the lock {path}: {error.strerror}", hint=hint) from error
    if raw is None:
        raise LockUnreadable(f"{path} is not a regular file")
    return parse_lock(raw, str(path))


def parse_lock(raw: bytes, name: str) -> Lock:
    """Check the bytes of a lock; ``name`` stands for it in messages. Raises LockInvalid with all problems."""
    problems: list[Problem] = []
    try:
        node = compose(raw, problems, LOCK_BOUNDS)
    except Unreadable:
        raise LockInvalid(name, problems, hint=_HINT) from None
    unclear = {(problem.line, problem.column) for problem in problems}
    found = validate(node, _schema())
    problems += [problem for problem in found if (problem.line, problem.column) not in unclear]
    if not problems:
        assert isinstance(node, Mapping)
        problems += _store_format(node)
        problems += _images(node.entries["images"])
    if problems:
        raise LockInvalid(name, problems, hint=_HINT)
    return _lock(plain(node))


@functools.cache
def _schema() -> Data:
    loaded: Data = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))
    return loaded


# --- what the schema cannot say


def _problem(path: str, node: Node, message: str) -> Problem:
    return Problem(path, node.line, node.column, message)


def _store_format(node: Mapping) -> Iterator[Problem]:
    number = node.entries["store-format"]
    if isinstance(number, Scalar) and number.value != STORE_FORMAT:
        yield _problem("store-format", number, f"the lock is for store format {number.text}, this release writes {STORE_FORMAT}")


def _images(images: Node) -> Iterator[Problem]:
    assert isinstance(images, Listing)
    seen: dict[str, int] = {}
    for index, image in enumerate(images.items):
        assert isinstance(image, Mapping)
        path = join("images", index)
        yield from _texts(image, path)
        ref = plain(image.entries["ref"])
        if ref in seen:
            yield _problem(f"{path}.ref", image.entries["ref"], f"the same reference as that of images[{seen[ref]}]")
        seen.setdefault(ref, index)
        yield from _layers(image, path)
        yield from _manifest_bytes(image, path)


def _texts(image: Mapping, path: str) -> Iterator[Problem]:
    ref, platform = image.entries["ref"], image.entries["platform"]
    try:
        full = str(parse_reference(plain(ref)))
        if full != plain(ref):
            yield _problem(f"{path}.ref", ref, f"not in full form: write {full}")
    except Refused as error:
        yield _problem(f"{path}.ref", ref, error.message)
    try:
        parse_platform(plain(platform))
    except Refused as error:
        yield _problem(f"{path}.platform", platform, error.message)


def _layers(image: Mapping, path: str) -> Iterator[Problem]:
    layers = image.entries["layers"]
    assert isinstance(layers, Listing)
    known = plain(image.entries["manifest"]) != UNKNOWN
    for number, layer in enumerate(layers.items):
        assert isinstance(layer, Mapping)
        there = set(layer.entries) - {"diff-id"}
        if there and there != {"blob", "size", "media-type"}:
            yield _problem(f"{path}.layers[{number}]", layer, "`blob`, `size` and `media-type` belong together")
    if "index" in image.entries and not known:
        yield _problem(f"{path}.index", image.entries["index"], "an index without a manifest")


def _manifest_bytes(image: Mapping, path: str) -> Iterator[Problem]:
    manifest = image.entries["manifest"]
    if not isinstance(manifest, Mapping) or "bytes" not in manifest.entries:
        return
    node, where = manifest.entries["bytes"], f"{path}.manifest.bytes"
    stated = plain(manifest)
    try:
        raw = base64.b64decode("".join(stated["bytes"].split()), validate=True)
    except (binascii.Error, ValueError):
        yield _problem(where, node, "not base64")
        return
    algorithm = stated["digest"].partition(":")[0]
    digest = f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
    if (digest, len(raw)) != (stated["digest"], stated["size"]):
        yield _problem(where, node, f"{len(raw)} bytes with the digest {digest}: not the manifest that is pinned")
        return
    try:
        named = manifest_names(raw, f"{where}")
    except Refused as error:
        yield _problem(where, node, error.message)
        return
    config, layers = plain(image.entries["config"]), plain(image.entries["layers"])
    blobs = tuple(layer.get("blob") for layer in layers)
    same_layers = len(named[1]) == len(blobs) and all(blob in (None, one) for one, blob in zip(named[1], blobs, strict=True))
    if named[0] != config["digest"] or not same_layers:
        yield _problem(where, node, "the manifest names another config or other layers than the lock")


def manifest_names(raw: bytes, what: str) -> tuple[str, tuple[str, ...]]:
    """Digests of the config and of the layers that a manifest's bytes name. Raises JsonInvalid."""
    document = parse_object(raw, what=what, limit_bytes=_MANIFEST_LIMIT_BYTES)
    layers: list[JsonObject] = elements(required(document, "layers", list, what=what), dict, what=f"'layers' of {what}")
    config = required(document, "config", dict, what=what)
    return (
        required(config, "digest", str, what=f"'config' of {what}"),
        tuple(required(layer, "digest", str, what=f"'layers' of {what}") for layer in layers),
    )


# --- values


def _lock(data: Data) -> Lock:
    return Lock(int(data["store-format"]), int(data["epoch"]), tuple(_image(image) for image in data["images"]))


def _image(data: Data) -> LockedImage:
    manifest, signature, created = data["manifest"], data.get("signature"), data.get("created")
    return LockedImage(
        ref=parse_reference(data["ref"]),
        source=data["from"],
        platform=parse_platform(data["platform"]),
        config=data["config"]["digest"],
        config_size_bytes=int(data["config"]["size"]),
        layers=tuple(_layer(layer) for layer in data["layers"]),
        created_epoch=None if created is None else int(created),
        index=data.get("index"),
        manifest=None if manifest == UNKNOWN else _manifest(manifest),
        signature=None if signature is None else tuple(sorted(signature.items())),
    )


def _layer(data: Data) -> LockedLayer:
    size = data.get("size")
    return LockedLayer(data["diff-id"], data.get("blob"), None if size is None else int(size), data.get("media-type"))


def _manifest(data: Data) -> LockedManifest:
    text = data.get("bytes")
    raw = None if text is None else base64.b64decode("".join(text.split()))
    return LockedManifest(data["digest"], int(data["size"]), data["media-type"], raw)


# --- writing


def lock_data(lock: Lock) -> Data:
    """The lock as data in the file's own keys and order; what is not known is left out."""
    return {"version": 1, "store-format": lock.store_format, "epoch": lock.epoch, "images": [image_data(image) for image in lock.images]}


def image_data(image: LockedImage) -> Data:
    """One image of :func:`lock_data`."""
    data: Data = {"ref": str(image.ref), "from": image.source, "platform": str(image.platform)}
    if image.created_epoch is not None:
        data["created"] = image.created_epoch
    if image.index is not None:
        data["index"] = image.index
    data["manifest"] = UNKNOWN if image.manifest is None else _manifest_data(image.manifest)
    data["config"] = {"digest": image.config, "size": image.config_size_bytes}
    data["layers"] = [_layer_data(layer) for layer in image.layers]
    if image.signature is not None:
        data["signature"] = dict(image.signature)
    return data


def _manifest_data(manifest: LockedManifest) -> Data:
    data: Data = {"digest": manifest.digest, "size": manifest.size_bytes, "media-type": manifest.media_type}
    if manifest.raw is not None:
        data["bytes"] = base64.b64encode(manifest.raw).decode()
    return data


def _layer_data(layer: LockedLayer) -> Data:
    if layer.blob is None:
        return {"diff-id": layer.diff_id}
    return {"diff-id": layer.diff_id, "blob": layer.blob, "size": layer.size_bytes, "media-type": layer.media_type}


def write_lock(lock: Lock) -> bytes:
    """The canonical bytes of a lock. Raises LockTooLarge."""
    text = HEADER + "".join(f"{line}\n" for line in _mapping_lines(lock_data(lock)))
    raw = text.encode("ascii")
    if len(raw) > LOCK_BOUNDS.document_bytes:
        raise LockTooLarge(
            f"the lock has {len(raw)} bytes, more than the {LOCK_BOUNDS.document_bytes} a lock may have",
            hint="lock without --manifest-bytes, or split the manifest",
        )
    return raw


def _mapping_lines(data: Data) -> Iterator[str]:
    for key, value in data.items():
        name = key if key in _KEYS else _scalar(key)
        if isinstance(value, dict) and value:
            yield f"{name}:"
            yield from (f"  {line}" for line in _mapping_lines(value))
        elif isinstance(value, list) and value:
            yield f"{name}:"
            yield from (f"  {line}" for item in value for line in _item_lines(item))
        elif key == "bytes":
            yield f"{name}: >-"
            yield from (f"  {value[start : start + _BASE64_COLUMNS]}" for start in range(0, len(value), _BASE64_COLUMNS))
        else:
            yield f"{name}: {_scalar(value)}"


def _item_lines(item: Data) -> Iterator[str]:
    for number, line in enumerate(_mapping_lines(item)):
        yield f"{'  ' if number else '- '}{line}"


def _scalar(value: object) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (dict, list)):
        return "{}" if isinstance(value, dict) else "[]"
    text = str(value)
    return text if text == UNKNOWN or _PLAIN.fullmatch(text) else f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    """Inside double quotes (YAML 1.2.2, section 5.7); everything beyond printable ASCII by its number."""
    if character in ('"', "\\"):
        return "\\" + character
    if " " <= character <= "~":
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
