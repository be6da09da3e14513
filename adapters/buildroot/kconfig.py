"""What the manifest means in Buildroot's configuration: symbols, choices, dependencies."""

from __future__ import annotations

from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.preparing import GenerateRefused
from shiplap.core.platform import Platform
from shiplap.rootfs.kernelcheck import SQUASHFS_SYMBOLS

# Symbols of targets that run programs of OCI's architecture (and variant), oldest processor first. 64-bit processors run the
# 32-bit programs of their family when the kernel is asked to.
_ARM = {
    "v5": "BR2_ARM_CPU_ARMV5 || BR2_ARM_CPU_ARMV6 || BR2_ARM_CPU_ARMV7A || BR2_ARM_CPU_ARMV8A",
    "v6": "BR2_ARM_CPU_ARMV6 || BR2_ARM_CPU_ARMV7A || BR2_ARM_CPU_ARMV8A",
    "v7": "BR2_ARM_CPU_ARMV7A || BR2_ARM_CPU_ARMV8A",
    "v8": "BR2_ARM_CPU_ARMV8A",
}
_SYMBOLS = {
    "386": "BR2_i386 || BR2_x86_64",
    "amd64": "BR2_x86_64",
    "arm64": "BR2_aarch64",
    "loong64": "BR2_loongarch64",
    "mips64": "BR2_mips64",
    "mips64le": "BR2_mips64el",
    "ppc64": "BR2_powerpc64",
    "ppc64le": "BR2_powerpc64le",
    "riscv64": "BR2_RISCV_64",
    "s390x": "BR2_s390x",
}
_FORMATS = {"docker": "STORE_DOCKER", "podman": "STORE_PODMAN"}
PLACEMENTS = {"file": "IMAGE_FILE", "partition": "PARTITION", "tree": "ROOTFS_TREE"}
_HASHES = {"sha256": "SHA256", "sha384": "SHA512", "sha512": "SHA512"}


def architectures(platform: Platform) -> str:
    """A Kconfig expression: where the images run. Raises GenerateRefused."""
    if platform.architecture == "arm":
        return _ARM.get(platform.variant or "v7", _ARM["v7"])
    try:
        return _SYMBOLS[platform.architecture]
    except KeyError:
        known = ", ".join(sorted([*_SYMBOLS, "arm"]))
        raise GenerateRefused(f"Buildroot has no target for {platform}", hint=f"architectures: {known}") from None


def format_symbol(config: AdapterConfig) -> str:
    """The choice that is the manifest's."""
    return "ARCHIVE" if config.manifest.mode == "archive" else _FORMATS[config.manifest.engine]


def engines(config: AdapterConfig) -> str:
    """A Kconfig expression: which engine has to be there. A prebuilt archive is for one."""
    if config.prebuilt is None:
        return "BR2_PACKAGE_DOCKER_ENGINE || BR2_PACKAGE_PODMAN"
    return {"docker": "BR2_PACKAGE_DOCKER_ENGINE", "podman": "BR2_PACKAGE_PODMAN"}[config.manifest.engine]


def sealed(config: AdapterConfig) -> bool:
    """Whether the device opens the store through dm-verity, wherever Buildroot's configuration puts it."""
    manifest = config.manifest
    return (
        manifest.mode == "store" and "verity" in manifest.outputs and manifest.verity.seal != "never" and manifest.verity.check != "sha256"
    )


def trees(config: AdapterConfig) -> tuple[str, ...]:
    """The files beside a store image that the device needs."""
    return ("store.verity", "store.roothash") if sealed(config) else ()


def kernel_symbols(config: AdapterConfig) -> tuple[str, ...]:
    """What the kernel needs beyond Buildroot's own fixups for the engine (docs/kernel.md)."""
    manifest = config.manifest
    symbols = ["OVERLAY_FS", "BLK_DEV_LOOP"]
    if manifest.mode == "store" and "erofs" in manifest.outputs:
        symbols += ["EROFS_FS", "EROFS_FS_XATTR", "EROFS_FS_ZIP"]
    elif manifest.mode == "store":
        symbols += ["MISC_FILESYSTEMS", "SQUASHFS", "SQUASHFS_XATTR"]
        symbols += [f"SQUASHFS_{name}" for name in (SQUASHFS_SYMBOLS.get(manifest.squashfs.compression),) if name]
    if sealed(config):
        symbols += ["MD", "BLK_DEV_DM", "DM_VERITY", f"CRYPTO_{_HASHES.get(manifest.verity.hash, 'SHA256')}"]
    return tuple(symbols)
