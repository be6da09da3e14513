"""Image archives and OCI layouts from Python values, deterministic to the byte.

``docker_archive(path, [ImageSpec([layer], tags=["app:1"])])`` is a good archive. For a bad one take the
files as a dict first, change what shall be wrong, and write that::

    files = docker_files([image]); del files["manifest.json"]; write_tar(path, files)
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import layertar

CREATED = "2024-05-01T12:00:00.25Z"
CREATED_EPOCH = 1714564800

OCI = {
    "index": "application/vnd.oci.image.index.v1+json",
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "+gzip",
    "zstd": "+zstd",
}
DOCKER = {
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar",
    "gzip": ".gzip",
    "zstd": ".zstd",
}


@dataclass(frozen=True, slots=True)
class Symlink:
    target: str


@dataclass(frozen=True, slots=True)
class Hardlink:
    target: str


Tree = dict[str, "bytes | Symlink | Hardlink"]


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def zstd_stored(data: bytes) -> bytes:
    """A zstd frame of raw blocks (RFC 8878, 3.1.1): any decoder reads it, no encoder is needed."""
    frame = b"\x28\xb5\x2f\xfd" + b"\x80\x38" + len(data).to_bytes(4, "little")  # 4-byte content size, 128 KiB window
    blocks = [data[start : start + 65536] for start in range(0, len(data), 65536)] or [b""]
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        frame += (len(block) << 3 | last).to_bytes(3, "little") + block
    return frame


COMPRESSORS = {
    "none": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd_stored,
}


def compress(data: bytes, how: str) -> bytes:
    return COMPRESSORS[how](data)


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One image for one platform.

    ``layers``: uncompressed tars, base first. ``config``: members that replace those of the config
    (a value of ``None`` removes one); ``raw_config`` replaces its bytes altogether.
    """

    layers: Sequence[bytes] = ()
    tags: Sequence[str] = ()
    platform: str = "linux/amd64"
    config: Mapping[str, Any] = field(default_factory=dict)
    raw_config: bytes | None = None

    @property
    def diff_ids(self) -> list[str]:
        return [sha256(layer) for layer in self.layers]

    @property
    def config_bytes(self) -> bytes:
        if self.raw_config is not None:
            return self.raw_config
        os_, architecture, *variant = self.platform.split("/")
        config: dict[str, Any] = {
            "architecture": architecture,
            "os": os_,
            "config": {"Cmd": ["/bin/app"], "Env": ["PATH=/bin"]},
            "created": CREATED,
            "history": [{"created": CREATED, "created_by": f"layer {number}"} for number in range(len(self.layers))]
            + [{"created": CREATED, "created_by": "CMD", "empty_layer": True}],
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        }
        if variant:
            config["variant"] = variant[0]
        config.update(self.config)
        return dump({key: value for key, value in config.items() if value is not None})

    @property
    def config_digest(self) -> str:
        return sha256(self.config_bytes)


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """Several platforms under one name.

    ``attestations``: one attestation manifest for each, as BuildKit adds. ``absent``: positions of images
    whose blobs are not stored. ``nested``: every image in an index of its own below.
    """

    images: Sequence[ImageSpec]
    tags: Sequence[str] = ()
    attestations: bool = False
    absent: Sequence[int] = ()
    nested: bool = False
    declared: Sequence[Mapping[str, str] | None] | None = None


# --- docker-archive


def docker_files(images: Sequence[ImageSpec], *, layout: str = "skopeo", compression: str = "none") -> Tree:
    """The members of a docker-archive by name.

    ``layout``: ``save`` (Docker up to 24: a folder per layer, repeated layers linked), ``skopeo`` (also
    Podman: ``<hex>.tar``), ``oci`` (Docker from 25 on: an OCI layout with a manifest.json).
    """
    files: Tree = {}
    items = []
    for image in images:
        config_name = blob_path(image.config_digest) if layout == "oci" else image.config_digest[7:] + ".json"
        layers = _LAYOUTS[layout](files, image, compression)
        files[config_name] = image.config_bytes
        items.append({"Config": config_name, "RepoTags": list(image.tags) or None, "Layers": layers})
    if layout == "oci":
        files.update(oci_files(images, compression=compression))
    files["manifest.json"] = dump(items)
    if layout != "oci":
        files["repositories"] = b"{}"
    return files


def _skopeo_layers(files: Tree, image: ImageSpec, compression: str) -> list[str]:
    names = [f"{sha256(layer)[7:]}.tar" for layer in image.layers]
    files.update({name: compress(layer, compression) for name, layer in zip(names, image.layers, strict=True)})
    return names


def _save_layers(files: Tree, image: ImageSpec, compression: str) -> list[str]:
    names: list[str] = []
    first: dict[bytes, str] = {}
    parent = ""
    for layer in image.layers:
        parent = sha256(parent.encode() + layer)[7:]
        name = f"{parent}/layer.tar"
        files[f"{parent}/VERSION"] = b"1.0"
        files[f"{parent}/json"] = dump({"id": parent})
        files.setdefault(name, Symlink(f"../{first[layer]}") if layer in first else compress(layer, compression))
        first.setdefault(layer, name)
        names.append(name)
    return names


def _blob_layers(files: Tree, image: ImageSpec, compression: str) -> list[str]:
    blobs = [compress(layer, compression) for layer in image.layers]
    return [blob_path(sha256(blob)) for blob in blobs]


_LAYOUTS = {"skopeo": _skopeo_layers, "save": _save_layers, "oci": _blob_layers}


def docker_archive(
    path: Path, images: Sequence[ImageSpec], *, layout: str = "skopeo", compression: str = "none", whole: str = "none", prefix: str = ""
) -> Path:
    """Write a docker-archive; ``compression`` of each layer, ``whole`` of the file."""
    return write_tar(path, docker_files(images, layout=layout, compression=compression), whole=whole, prefix=prefix)


# --- OCI layouts


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def oci_files(
    images: Sequence[ImageSpec | IndexSpec], *, compression: str | Sequence[str] = "gzip", media: Mapping[str, str] = OCI
) -> Tree:
    """The files of an OCI layout by name. ``compression``: of every layer, or one for each layer of an image."""
    files: Tree = {"oci-layout": dump({"imageLayoutVersion": "1.0.0"})}
    entries = []
    for image in images:
        entry = (_index if isinstance(image, IndexSpec) else manifest)(files, image, compression, media)
        for tag in image.tags or [None]:
            annotations = {"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {}
            entries.append({**entry, **annotations})
    files["index.json"] = dump({"schemaVersion": 2, "mediaType": media["index"], "manifests": entries})
    return files


def put(files: Tree, data: bytes) -> str:
    """Store a blob; its digest."""
    files[blob_path(sha256(data))] = data
    return sha256(data)


def manifest(
    files: Tree, image: ImageSpec, compression: str | Sequence[str] = "gzip", media: Mapping[str, str] = OCI, **more: Any
) -> dict[str, Any]:
    """Store an image's blobs and manifest; its descriptor. ``more`` goes into the manifest."""
    layers = []
    for number, layer in enumerate(image.layers):
        how = compression if isinstance(compression, str) else compression[number]
        blob = compress(layer, how)
        put(files, blob)
        layers.append(descriptor(media["layer"] + media.get(how, ""), blob))
    put(files, image.config_bytes)
    document = {
        "schemaVersion": 2,
        "mediaType": media["manifest"],
        "config": descriptor(media["config"], image.config_bytes),
        "layers": layers,
        **more,
    }
    put(files, dump(document))
    return descriptor(media["manifest"], dump(document))


def platform_of(image: ImageSpec) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), image.platform.split("/"), strict=False))


def _index(files: Tree, index: IndexSpec, compression: str | Sequence[str], media: Mapping[str, str]) -> dict[str, Any]:
    children = []
    for number, image in enumerate(index.images):
        own: Tree = {}
        child = manifest(own, image, compression, media)
        declared = platform_of(image) if index.declared is None else index.declared[number]
        if declared is not None:
            child["platform"] = dict(declared)
        if index.nested:
            document = dump({"schemaVersion": 2, "mediaType": media["index"], "manifests": [child]})
            put(own, document)
            child = descriptor(media["index"], document)
        if number not in index.absent:
            files.update(own)
        children.append(child)
        if index.attestations:
            children.append(attestation(files, child["digest"]))
    document = dump({"schemaVersion": 2, "mediaType": media["index"], "manifests": children})
    put(files, document)
    return descriptor(media["index"], document)


def attestation(files: Tree, subject: str) -> dict[str, Any]:
    """Store what BuildKit adds for each platform; its descriptor."""
    config = put(files, dump({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}))
    statement = put(files, dump({"predicateType": "https://slsa.dev/provenance/v0.2", "subject": subject}))
    document = dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI["manifest"],
            "config": {"mediaType": OCI["config"], "digest": config, "size": len(files[blob_path(config)])},
            "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": statement, "size": len(files[blob_path(statement)])}],
        }
    )
    put(files, document)
    return descriptor(
        OCI["manifest"],
        document,
        annotations={"vnd.docker.reference.digest": subject, "vnd.docker.reference.type": "attestation-manifest"},
        platform={"architecture": "unknown", "os": "unknown"},
    )


def oci_layout(
    path: Path, images: Sequence[ImageSpec | IndexSpec], *, compression: str | Sequence[str] = "gzip", media: Mapping[str, str] = OCI
) -> Path:
    return write_directory(path, oci_files(images, compression=compression, media=media))


def oci_archive(
    path: Path,
    images: Sequence[ImageSpec | IndexSpec],
    *,
    compression: str | Sequence[str] = "gzip",
    media: Mapping[str, str] = OCI,
    whole: str = "none",
    prefix: str = "",
) -> Path:
    return write_tar(path, oci_files(images, compression=compression, media=media), whole=whole, prefix=prefix)


# --- writing


def tar_items(files: Tree, *, prefix: str = "") -> list[layertar.TarItem]:
    """Members in the order of ``files``, with the folders that they need before them."""
    items: list[layertar.TarItem] = []
    folders: set[str] = set()
    for name, content in files.items():
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in folders and folder not in ("", ".", ".."):
                folders.add(folder)
                items.append(layertar.item(f"{prefix}{folder}/", type="5"))
        if isinstance(content, Symlink):
            items.append(layertar.item(prefix + name, type="2", linkname=content.target))
        elif isinstance(content, Hardlink):
            items.append(layertar.item(prefix + name, type="1", linkname=prefix + content.target))
        else:
            items.append(layertar.item(prefix + name, data=content))
    return items


def write_tar(path: Path, files: Tree, *, whole: str = "none", prefix: str = "") -> Path:
    path.write_bytes(compress(layertar.build(tar_items(files, prefix=prefix)), whole))
    return path


def write_directory(path: Path, files: Tree) -> Path:
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Symlink):
            target.symlink_to(content.target)
        elif isinstance(content, Hardlink):
            os.link(path / content.target, target)
        else:
            target.write_bytes(content)
    return path
