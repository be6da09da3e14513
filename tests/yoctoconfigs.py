"""Configurations of the Yocto adapter, made of values alone, so that no digest in them changes with shiplap's own source."""

from __future__ import annotations

import json
from typing import Any

from locks import OCI_LAYER, digest_of
from shiplap.adapters.config import AdapterConfig, AdapterImage, HostTool, Prebuilt, PrebuiltFile
from shiplap.core.lock.model import Lock, LockedImage, LockedLayer, LockedManifest
from shiplap.core.manifest import parse_manifest
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference

TOOL = HostTool("0.1.0", "shiplap-0.1.0.tar", "1" * 64, 1000)
PREBUILT = Prebuilt(
    "gateway-20240501.tar",
    "2" * 64,
    4096,
    tuple(PrebuiltFile(name, "3" * 64, 100) for name in ("store.squashfs", "store.verity", "store.roothash", "SHA256SUMS")),
    "4" * 64,
)
REGISTRY = "docker://registry.example:5000/team/app:1"
ARCHIVE = "docker-archive:saved.tar"


def locked(ref: str, source: str, platform: str, layers: tuple[str, ...] = ("base", "top")) -> LockedImage:
    """An image of two layers; from a registry with its blobs, else with the diffIDs alone."""
    has_blobs = source.startswith("docker://")
    return LockedImage(
        ref=parse_reference(ref),
        source=source,
        platform=parse_platform(platform),
        config=digest_of(f"config of {ref}"),
        config_size_bytes=1234,
        layers=tuple(
            LockedLayer(digest_of(one), digest_of(f"blob {one}"), 100 + len(one), OCI_LAYER) if has_blobs else LockedLayer(digest_of(one))
            for one in layers
        ),
        manifest=LockedManifest(digest_of(f"manifest of {ref}"), 500, "application/vnd.oci.image.manifest.v1+json") if has_blobs else None,
    )


def config(
    images: dict[str, tuple[str, str]],
    *,
    platform: str = "linux/arm64",
    tool: HostTool = TOOL,
    prebuilt: Prebuilt | None = None,
    maintainer: str = "Jo Doe <jo@example.com>",
    **manifest: Any,
) -> AdapterConfig:
    """``images``: reference → source and licence. ``manifest``: further keys of it."""
    entries = [{"ref": ref, "from": source, "license": text} for ref, (source, text) in images.items()]
    written = json.dumps({"version": 1, "name": "gateway", "platform": platform, "images": entries, **manifest}, indent=1)
    parsed = parse_manifest(written.encode(), "shiplap.yaml")
    found = {ref: locked(ref, source, platform, ("base", ref.partition(":")[0])) for ref, (source, _) in images.items()}
    return AdapterConfig(
        name=parsed.name,
        version="20240501",
        platform=parse_platform(platform),
        manifest=parsed,
        manifest_text=written + "\n",
        lock=Lock(1, 1714564800, tuple(found.values())),
        lock_text="# the lock, byte for byte\n",
        images=tuple(
            AdapterImage(one.ref, source, one, wanted.license or "")
            for one, (source, _), wanted in zip(found.values(), images.values(), parsed.images, strict=True)
        ),
        maintainer=maintainer,
        host_tool=tool,
        prebuilt=prebuilt,
    )


def docker_file() -> AdapterConfig:
    """Two images of registries with a layer in common, one of them without TLS and under a licence of its own."""
    return config(
        {
            "redis:7": ("docker://redis:7", "BSD-3-Clause AND (MIT OR GPL-2.0-only WITH Classpath-exception-2.0)"),
            "acme/app:1": (REGISTRY, "LicenseRef-Acme"),
        },
        registries={"registry.example:5000": {"tls-verify": False}},
    )


def podman_partition() -> AdapterConfig:
    """An archive beside the manifest, for Podman, in partitions; shiplap comes from a URL."""
    tool = HostTool(TOOL.version, TOOL.file_name, TOOL.sha256, TOOL.size_bytes, "https://downloads.example/shiplap-0.1.0.tar")
    return config(
        {"me/saved:2": (ARCHIVE, "Apache-2.0")}, platform="linux/amd64", tool=tool, engine="podman", placement="partition", name="edge_box"
    )


def prebuilt(url: str | None = "https://downloads.example/gateway-20240501.tar") -> AdapterConfig:
    """A finished build, fetched as one archive; its image came from an engine, which no build system could ask."""
    bundle = Prebuilt(PREBUILT.file_name, PREBUILT.sha256, PREBUILT.size_bytes, PREBUILT.files, PREBUILT.root_hash, url)
    return config({"app:1": ("docker-daemon:app:1", "MIT")}, prebuilt=bundle)


CASES = {"docker-file": docker_file, "podman-partition": podman_partition, "prebuilt": prebuilt}
