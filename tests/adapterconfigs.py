"""Configurations for the adapters' golden tests: everything fixed, also the sha256 of shiplap's own source."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from locks import OCI_LAYER, OCI_MANIFEST, digest_of
from shiplap.adapters.config import AdapterConfig, AdapterImage, HostTool, Prebuilt, PrebuiltFile
from shiplap.adapters.preparing import HEADER
from shiplap.core.lock import Lock, LockedImage, LockedLayer, LockedManifest
from shiplap.core.lock.document import write_lock
from shiplap.core.manifest import parse_manifest
from shiplap.core.manifest.writing import resolved_text
from shiplap.core.platform import parse_platform

EPOCH = 1700000000
MAINTAINER = "Jo Doe <jo@example.com>"
HOST_TOOL = HostTool("0.1.0", "shiplap-0.1.0.tar", digest_of("shiplap").partition(":")[2], 1234567)
_LICENSES = {"app:1": "Apache-2.0", "docker.io/library/redis:7": "BSD-3-Clause AND MIT"}


def adapter_config(
    *, prebuilt: bool = False, url: str | None = None, sources: dict[str, str] | None = None, **manifest: Any
) -> AdapterConfig:
    """Two images of a registry for linux/arm64, as ``prepare`` would make it; ``manifest``: more keys of the manifest.

    ``sources``: ref → where the lock found it, instead of the registry.
    """
    document = {
        "version": 1,
        "name": "gateway",
        "platform": "linux/arm64",
        "images": [{"ref": ref, "license": license} for ref, license in _LICENSES.items()],
        **manifest,
    }
    read = parse_manifest(json.dumps(document).encode(), "shiplap.yaml")
    images = []
    for wanted in read.images:
        assert wanted.ref is not None and wanted.license is not None
        source = (sources or {}).get(str(wanted.ref), f"docker://{wanted.ref}")
        locked = _locked(str(wanted.ref), source)
        images.append(AdapterImage(wanted.ref, source, locked, wanted.license))
    lock = Lock(1, EPOCH, tuple(image.locked for image in images))
    config = AdapterConfig(
        name=read.name,
        version="20231114",
        platform=parse_platform("linux/arm64"),
        manifest=read,
        manifest_text=HEADER + resolved_text(read),
        lock=lock,
        lock_text=write_lock(lock).decode(),
        images=tuple(images),
        maintainer=MAINTAINER,
        host_tool=HOST_TOOL,
    )
    return replace(config, prebuilt=_prebuilt(config, url)) if prebuilt else config


def _locked(ref: str, source: str) -> LockedImage:
    from shiplap.core.reference import parse_reference

    return LockedImage(
        ref=parse_reference(ref),
        source=source,
        platform=parse_platform("linux/arm64"),
        config=digest_of(f"config of {ref}"),
        config_size_bytes=1234,
        layers=tuple(
            LockedLayer(digest_of(f"layer {n} of {ref}"), digest_of(f"blob {n} of {ref}"), 100_000 + n, OCI_LAYER) for n in range(2)
        ),
        created_epoch=EPOCH,
        index=digest_of(f"index of {ref}"),
        manifest=LockedManifest(digest_of(f"manifest of {ref}"), 567, OCI_MANIFEST),
    )


def _prebuilt(config: AdapterConfig, url: str | None) -> Prebuilt:
    seal = ("store.verity", "store.roothash") if config.manifest.mode == "store" else ()
    names = sorted((config.artifact, *seal, "target.tar", "store.json", "record.json", "sbom.spdx.json", "sbom.cdx.json"))
    files = tuple(PrebuiltFile(name, digest_of(name).partition(":")[2], 4096 * (at + 1)) for at, name in enumerate((*names, "SHA256SUMS")))
    root_hash = digest_of("root").partition(":")[2] if seal else None
    return Prebuilt(f"{config.name}-{config.version}.tar", digest_of("bundle").partition(":")[2], 654321, files, root_hash, url)
