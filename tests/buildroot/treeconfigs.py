"""Configurations of the Buildroot adapter: made up, so that nothing has to be built to render them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from archives import sha256
from shiplap.adapters.config import AdapterConfig, HostTool, Prebuilt, PrebuiltFile
from shiplap.adapters.preparing import Wishes, prepare
from shiplap.core.lock import Lock, LockedImage, LockedLayer, LockedManifest
from shiplap.core.manifest import parse_manifest
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference

EPOCH = 1714564800
TOOL = HostTool("0.1.0", "shiplap-0.1.0.tar", sha256(b"tool").partition(":")[2], 2000000)
_MEDIA = "application/vnd.oci.image"


def manifest_data(**more: Any) -> dict[str, Any]:
    """A manifest of two images. Keys with None are left out."""
    data: dict[str, Any] = {
        "version": 1,
        "name": "gateway",
        "platform": "linux/arm64",
        "images": [{"ref": "redis:7", "license": "BSD-3-Clause"}, {"ref": "registry.example/team/app:2.1", "license": "LicenseRef-Acme"}],
        "containers": [{"name": "cache", "image": "redis:7", "restart": "always", "network": "none"}],
        **more,
    }
    return {key: value for key, value in data.items() if value is not None}


def lock_of(data: dict[str, Any]) -> Lock:
    """A lock for the manifest's images, one layer each."""

    def digest(text: str) -> str:
        return sha256(text.encode())

    images = tuple(
        LockedImage(
            ref=parse_reference(one["ref"]),
            source=one.get("from", f"docker://{one['ref']}"),
            platform=parse_platform(data["platform"]),
            config=digest(f"config {one['ref']}"),
            config_size_bytes=4000,
            layers=(LockedLayer(digest(f"layer {one['ref']}"), digest(f"blob {one['ref']}"), 1 << 20, f"{_MEDIA}.layer.v1.tar+gzip"),),
            created_epoch=EPOCH,
            manifest=LockedManifest(digest(f"manifest {one['ref']}"), 1000, f"{_MEDIA}.manifest.v1+json"),
        )
        for one in data["images"]
    )
    return Lock(1, EPOCH, images)


def config_of(data: dict[str, Any] | None = None, *, prebuilt: bool = False, url: str | None = None) -> AdapterConfig:
    """The configuration for a manifest; the host tool is a made-up one, so that goldens do not change with it."""
    data = data or manifest_data()
    manifest = parse_manifest(json.dumps(data).encode(), "shiplap.yaml")
    config = replace(prepare(manifest, lock_of(data), Wishes(maintainer="Jo Doe <jo@example.com>")), host_tool=TOOL)
    if not prebuilt:
        return config
    names = [config.artifact, "record.json", "store.json", "store.roothash", "store.verity", "target.tar"]
    files = tuple(PrebuiltFile(name, sha256(name.encode()).partition(":")[2], 1 << 20) for name in names)
    archive = Prebuilt(f"{config.name}-{config.version}.tar", sha256(b"bundle").partition(":")[2], 8 << 20, files, "f" * 64, url)
    return replace(config, prebuilt=archive)


def golden_configs() -> dict[str, AdapterConfig]:
    """One for each thing that changes whole files."""
    partition = manifest_data(name="lab-box", platform="linux/arm/v7", placement="partition", target={"init": ["systemd"]})
    archive = manifest_data(
        platform="linux/amd64", mode="archive", archive={"compression": "zstd"}, engine="podman", driver="overlay", containers=None
    )
    return {
        "store": config_of(),
        "prebuilt": config_of(partition, prebuilt=True, url="https://downloads.example.com/lab/lab-box-20240501.tar"),
        "archive": config_of(archive),
    }
