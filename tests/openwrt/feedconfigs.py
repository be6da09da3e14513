"""Configurations of the OpenWrt adapter: made up, so that nothing has to be built to render them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from archives import sha256
from shiplap.adapters.config import AdapterConfig, HostTool, Prebuilt, PrebuiltFile
from shiplap.adapters.preparing import HEADER, Wishes, prepare
from shiplap.core.lock import Lock, LockedImage, LockedLayer, LockedManifest
from shiplap.core.manifest import parse_manifest
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference

EPOCH = 1714564800
OCI = "application/vnd.oci.image"
STOCK = {"compression": "xz", "whiteouts": "explicit"}
TOOL = HostTool("1.2.3", "shiplap-1.2.3.tar", "5" * 64, 2048000)


def digest_of(text: str) -> str:
    return sha256(text.encode())


def manifest_data(**more: Any) -> dict[str, Any]:
    """A manifest that fits OpenWrt's own kernels."""
    data: dict[str, Any] = {
        "version": 1,
        "name": "gateway",
        "platform": "linux/arm64",
        "images": [
            {"ref": "redis:7", "license": "BSD-3-Clause AND (MIT OR Apache-2.0)"},
            {"ref": "example.com/app:1", "license": "LicenseRef-Acme"},
        ],
        "squashfs": STOCK,
        "verity": {"check": "sha256"},
        "target": {"init": ["procd"]},
        "containers": [
            {"name": "cache", "image": "redis:7", "restart": "always", "network": "none", "volumes": ["/etc/gateway/redis.conf:/r.conf:ro"]}
        ],
    }
    data.update(more)
    return {key: value for key, value in data.items() if value is not None}


def lock_of(data: dict[str, Any], transport: str = "docker://") -> Lock:
    """A lock for the manifest's images: two layers each, the lower one shared."""
    images = []
    for one in data["images"]:
        name = one["ref"]
        layers = tuple(
            LockedLayer(
                digest_of(f"layer {text}"),
                digest_of(f"blob {text}") if transport == "docker://" else None,
                20 << 20,
                f"{OCI}.layer.v1.tar+gzip",
            )
            for text in ("base", name)
        )
        images.append(
            LockedImage(
                ref=parse_reference(name),
                source=f"{transport}{name}",
                platform=parse_platform(data.get("platform", "linux/arm64")),
                config=digest_of(f"config {name}"),
                config_size_bytes=4000,
                layers=layers,
                created_epoch=EPOCH,
                manifest=LockedManifest(digest_of(f"manifest {name}"), 1000, f"{OCI}.manifest.v1+json"),
            )
        )
    return Lock(1, EPOCH, tuple(images))


def config_of(
    data: dict[str, Any] | None = None, *, transport: str = "docker://", prebuilt: bool = False, url: str | None = None
) -> AdapterConfig:
    """The configuration for a manifest; the host tool is a made-up one, so that goldens do not change with the version."""
    data = data or manifest_data()
    manifest = parse_manifest(json.dumps(data).encode(), "shiplap.yaml")
    config = replace(prepare(manifest, lock_of(data, transport), Wishes(maintainer="Jo Doe <jo@example.com>")), host_tool=TOOL)
    assert config.manifest_text.startswith(HEADER)
    if not prebuilt:
        return config
    names = [
        config.artifact,
        "target.tar",
        "store.json",
        "record.json",
        *(["store.verity", "store.roothash"] if manifest.mode == "store" else []),
    ]
    files = tuple(PrebuiltFile(name, sha256(name.encode()).partition(":")[2], 70 << 20) for name in sorted(names))
    return replace(config, prebuilt=Prebuilt(f"{config.name}-{config.version}.tar", "e" * 64, 71 << 20, files, "f" * 64, url))


def golden_configs() -> dict[str, AdapterConfig]:
    """One for each thing that changes whole files."""
    own_kernel = manifest_data(
        name="lab-box",
        platform="linux/amd64",
        squashfs=None,
        verity={"seal": "always", "check": "full"},
        **{
            "data-root": {"path": "/mnt/data/docker", "persistence": "persistent"},
            "engine-config": {"log-driver": "local", "dns": ["192.0.2.1"], "ip6tables": True},
        },
    )
    archive = manifest_data(mode="archive", archive={"compression": "zstd"}, squashfs=None, containers=None)
    podman = manifest_data(engine="podman")
    return {
        "podman": config_of(podman, prebuilt=True),
        "prebuilt": config_of(prebuilt=True),
        "hostcommand": config_of(own_kernel),
        "archive": config_of(archive, prebuilt=True, url="https://downloads.example.com/gateway/r12.tar"),
    }
