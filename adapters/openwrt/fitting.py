"""Whether a manifest fits OpenWrt: what its kernel reads, where its engine can write, what its init system starts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.openwrt.uci import unknown_keys
from shiplap.adapters.preparing import GenerateRefused

# OCI's architectures in OpenWrt's symbols.
ARCHITECTURES = {
    "386": "i386", "amd64": "x86_64", "arm": "arm", "arm64": "aarch64", "loong64": "loongarch64", "mips": "mips", "mips64": "mips64",
    "mips64le": "mips64el", "mipsle": "mipsel", "ppc64": "powerpc64", "riscv64": "riscv64",
}  # fmt: skip
BLOCK_BYTES_MAX = 256 << 10  # OpenWrt's own default for its root file system
# Kconfig's own words: its lexer passes over a "+".
_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
# Packages that stand in the same menus; a second one of the name would replace them.
_TAKEN = frozenset({"conmon", "containerd", "crun", "docker", "dockerd", "kernel", "podman", "runc", "shiplap"})
# Parts of the root file system, which is an overlay, or of /tmp, which is gone at each start; /var is a link to it.
_NO_PLACE = re.compile(r"/(bin|dev|etc|lib|lib64|opt|proc|rom|root|sbin|sys|tmp|usr|var|www)(/|$)")


def check_fit(config: AdapterConfig) -> None:
    """Raises GenerateRefused, which names everything at once."""
    findings = list(_findings(config))
    if findings:
        raise GenerateRefused("this manifest does not fit OpenWrt: " + "; ".join(findings), hint="docs/openwrt.md shows one that does")


def _findings(config: AdapterConfig) -> Iterator[str]:
    manifest, device = config.manifest, config.manifest.device
    if not _PACKAGE_NAME.fullmatch(config.name) or config.name in _TAKEN:
        yield f"`name: {config.name}` cannot be a package's name there, choose another"
    if config.platform.os != "linux" or config.platform.architecture not in ARCHITECTURES:
        yield f"OpenWrt has no target for the platform {config.platform}"
    if "procd" not in device.init:
        yield "write `target: {init: [procd]}`, its init system"
    if device.placement != "file":
        yield f"`placement: {device.placement}`: a package can carry the store as a file only"
    if manifest.mode == "store":
        yield from _store_findings(config)
    if device.data_root.persistence == "persistent" and _NO_PLACE.match(device.data_root.path):
        yield (
            f"`data-root: {{path: {device.data_root.path}}}` is on the overlay or in memory there: for a persistent one name a folder of a "
            "real file system, /mnt/data/docker or /overlay/opt/docker"
        )
    yield from (f"`engine-config: {{{key}: …}}` has no option in dockerd's UCI configuration" for key in _unknown_engine_keys(config))
    if config.prebuilt is None:
        unfit = [str(image.reference) for image in config.images if not image.is_in_registry]
        if unfit:
            yield f"{', '.join(unfit)} come from a file or an engine, which OpenWrt's build cannot fetch: build here and give --prebuilt"
    elif not config.prebuilt.has(config.artifact) or not config.prebuilt.has("target.tar"):
        yield f"the folder of --prebuilt has no {config.artifact} and target.tar"


def _store_findings(config: AdapterConfig) -> Iterator[str]:
    manifest = config.manifest
    if "squashfs" not in manifest.outputs:
        yield "write `outputs: [squashfs, verity]`: its kernel mounts SquashFS"
    if manifest.squashfs.block_size_bytes > BLOCK_BYTES_MAX:
        yield "`squashfs: {block-size: …}` is above 256K, more than its devices have memory for"


def _unknown_engine_keys(config: AdapterConfig) -> list[str]:
    if config.manifest.engine != "docker":
        return []
    return unknown_keys(json.loads(config.manifest.device.engine_config))
