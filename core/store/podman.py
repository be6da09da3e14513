"""Podman's containers/storage, overlay driver: the small files around the layers' trees.

Layout, names and JSON as containers/storage (layers.go, images.go, drivers/overlay) and containers/image (storage
destination) write them. Random and "now" are replaced: link names come from a hash of the layer's id, layers are
created at the epoch.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shiplap.core.errors import Refused
from shiplap.core.image import Image, RawManifest
from shiplap.core.jsontext import parse_array, parse_object
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import LayerFacts, StoredImage, StoredLayer, unique_layers

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_LINK_NAME_LENGTH = 26
# Podman 4.3 hands every lower directory to mount(2) with its whole path, and the kernel takes a page of options.
_MOUNT_OPTIONS_MAX_BYTES = 4095
_MOUNT_OPTIONS_REST_BYTES = 360  # upperdir and workdir in the graphroot, volatile, an SELinux context
_CREATED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")
# archive.Compression of containers/storage, by the end of a layer's media type.
_COMPRESSION = {"gzip": 2, "zstd": 4}


class ManifestRefused(Refused):
    """Raw manifest bytes that do not belong to the image."""


def layer_ids(diff_ids: Sequence[str]) -> list[str]:
    """The ids of an image's layers, base first (containers/image, storage_dest.go: ``commitLayer``)."""
    ids: list[str] = []
    for diff_id in diff_ids:
        hexed = diff_id.partition(":")[2]
        ids.append(hashlib.sha256(f"{ids[-1]}+{hexed}".encode()).hexdigest() if ids else hexed)
    return ids


def stack_ids(stored: StoredLayer) -> list[str]:
    """The ids of a layer's stack: the last is its own."""
    return layer_ids(stored.image.diff_ids[: stored.layer.index + 1])


def link_name(layer_id: str) -> str:
    """The short name below ``overlay/l``: 26 base32 characters as the engine's, made from content."""
    return base64.b32encode(hashlib.sha256(f"link:{layer_id}".encode()).digest()).decode()[:_LINK_NAME_LENGTH]


def layers_mountable(mount_point: str) -> int:
    """How many layers Podman before 5 mounts from an additional store at ``mount_point``."""
    return (_MOUNT_OPTIONS_MAX_BYTES - _MOUNT_OPTIONS_REST_BYTES) // (len(f"{mount_point}/overlay/l/:") + _LINK_NAME_LENGTH)


def canonical_manifest(image: Image, tar_bytes: Sequence[int]) -> bytes:
    """The manifest that ``podman load`` makes of an archive: Docker schema 2 over the uncompressed layers.

    The layers' media type says gzip although they are not compressed: so does containers/image (docker-archive source), and
    the digest shall be the same.
    """
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": _DOCKER_CONFIG, "size": len(image.config), "digest": image.config_digest},
        "layers": [
            {"mediaType": _DOCKER_LAYER, "size": size_bytes, "digest": diff_id}
            for diff_id, size_bytes in zip(image.diff_ids, tar_bytes, strict=True)
        ],
    }
    return _json(document)


def check_manifest(image: Image, manifest: RawManifest) -> list[dict[str, Any]]:
    """The layers of a raw manifest, base first; raises ManifestRefused when it is another image's."""
    what = f"the manifest {manifest.digest[:19]} of {image.label}"
    document = parse_object(manifest.raw, what=what, limit_bytes=len(manifest.raw))
    try:
        config, layers = document["config"]["digest"], [dict(layer) for layer in document["layers"]]
        fields = [(layer["digest"], layer["size"], layer["mediaType"]) for layer in layers]
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestRefused(f"{what} lacks a key or holds another type: {error}") from error
    if config != image.config_digest:
        raise ManifestRefused(f"{what} is for the config {config!r:.80}")
    if len(layers) != len(image.diff_ids):
        raise ManifestRefused(f"{what} lists {len(layers)} layers, the config {len(image.diff_ids)}")
    for digest, size_bytes, media_type in fields:
        if type(size_bytes) is not int or size_bytes < 0 or not (isinstance(digest, str) and isinstance(media_type, str)):
            raise ManifestRefused(f"{what} has a layer of another form than a descriptor's")
    return layers


def layers_json(facts: Iterable[LayerFacts], images: Iterable[StoredImage], epoch: int) -> bytes:
    """``overlay-layers/layers.json``. Empty fields are left out, as Go's ``omitempty`` does."""
    blobs = _pinned_blobs(images)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    records = []
    for one in facts:
        stack = stack_ids(one.stored)
        diff_id = one.stored.layer.diff_id
        digest, size_bytes, compression = blobs.get(stack[-1], (diff_id, one.tar_bytes, 0))
        record: dict[str, Any] = {"id": stack[-1]}
        if len(stack) > 1:
            record["parent"] = stack[-2]
        further = {
            "created": created,
            "compressed-diff-digest": digest,
            "compressed-size": size_bytes,
            "diff-digest": diff_id,
            "diff-size": one.tar_bytes,
            "compression": compression,
            "uidset": list(one.uids),
            "gidset": list(one.gids),
        }
        records.append(record | {key: value for key, value in further.items() if value})
    return _json(records)


def _pinned_blobs(images: Iterable[StoredImage]) -> dict[str, tuple[str, int, int]]:
    """Layer id → digest, size and compression of the blob that a raw manifest pins; the first image's counts."""
    found: dict[str, tuple[str, int, int]] = {}
    for stored in images:
        if stored.manifest is None:
            continue
        layers = check_manifest(stored.image, stored.manifest)
        for layer_id, diff_id, layer in zip(layer_ids(stored.image.diff_ids), stored.image.diff_ids, layers, strict=True):
            kind = layer["mediaType"].rpartition("+")[2].rpartition(".")[2]
            compression = 0 if layer["digest"] == diff_id else _COMPRESSION.get(kind, 0)
            found.setdefault(layer_id, (layer["digest"], layer["size"], compression))
    return found


def images_json(images: Iterable[tuple[StoredImage, bytes]], epoch: int) -> bytes:
    """``overlay-images/images.json``, for images with the manifests that are stored."""
    records = []
    for stored, manifest in images:
        digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
        config_digest = stored.image.config_digest
        # A digest reference is a name like any other: it is found also where its own manifest is not in the store.
        names = [str(reference) for reference in stored.references]
        sizes = {"manifest": len(manifest), f"manifest-{digest}": len(manifest), config_digest: len(stored.image.config)}
        digests = {"manifest": digest, f"manifest-{digest}": digest, config_digest: config_digest}
        top = layer_ids(stored.image.diff_ids)[-1:]
        records.append(
            {
                "id": config_digest.partition(":")[2],
                "digest": digest,
                "names": names,
                "names-history": names,
                **({"layer": top[0]} if top else {}),
                "metadata": "{}",
                "big-data-names": [config_digest, f"manifest-{digest}", "manifest"],
                "big-data-sizes": dict(sorted(sizes.items())),
                "big-data-digests": dict(sorted(digests.items())),
                "created": _created(stored.image, epoch),
            }
        )
    return _json(records)


def image_home(config_digest: str) -> str:
    """The directory of an image's big data."""
    return f"overlay-images/{config_digest.partition(':')[2]}"


def big_data_name(key: str) -> str:
    """The file of a big-data item (containers/storage, images.go: ``makeBigDataBaseName``)."""
    if re.fullmatch(r"[.0-9a-z]*", key):
        return key
    return "=" + base64.b64encode(key.encode()).decode()


def config_big_data(config_digest: str) -> str:
    """Where a config lies."""
    return f"{image_home(config_digest)}/{big_data_name(config_digest)}"


def _created(image: Image, epoch: int) -> str:
    """The config's ``created`` as Go prints it again, or the epoch."""
    config = json.loads(image.config)
    match = _CREATED.fullmatch(str(config.get("created", "")))
    if match is None or match[1] == "0001-01-01T00:00:00":
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    fraction = (match[2] or "")[:9].rstrip("0")
    zone = "Z" if match[3] in ("Z", "+00:00", "-00:00") else match[3]
    return match[1] + (f".{fraction}" if fraction else "") + zone


def _json(value: Any) -> bytes:
    """As Go's ``json.Marshal``: no spaces, no final newline, and <, >, & escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode()


def read_layers_json(read: Callable[[str], bytes], identity: StoreIdentity) -> dict[str, int] | None:
    """chainID → ``diff-size`` of each layer in layers.json; None when one is missing or no number."""
    raw = read("overlay-layers/layers.json")
    try:
        sizes = {record["id"]: record.get("diff-size", 0) for record in parse_array(raw, what="layers.json", limit_bytes=len(raw))}
        found = {stored.chain_id: sizes[stack_ids(stored)[-1]] for stored in unique_layers(identity.images)}
    except (KeyError, TypeError, AttributeError):
        return None
    return found if all(type(size_bytes) is int and size_bytes >= 0 for size_bytes in found.values()) else None
