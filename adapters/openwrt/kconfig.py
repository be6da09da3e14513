"""Config.in: how the store is held against its hash, and the kernel symbols that OpenWrt itself does not have."""

from __future__ import annotations

from dataclasses import dataclass

from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.template import fill, read_template
from shiplap.rootfs.kernelcheck import SQUASHFS_SYMBOLS

# OpenWrt's kernels read xz only; the symbol of any other compression.
_COMPRESSIONS = {name: symbol for name, symbol in SQUASHFS_SYMBOLS.items() if name != "xz"}
XATTR = "KERNEL_SQUASHFS_XATTR"


@dataclass(frozen=True, slots=True)
class KernelNeed:
    """``symbol``: OpenWrt's, selected by the package. ``remedy``: what to write to do without it."""

    symbol: str
    remedy: str


def has_tree(config: AdapterConfig) -> bool:
    """Whether the build makes a hash tree of the store."""
    return config.manifest.mode == "store" and "verity" in config.manifest.outputs


def default_check(config: AdapterConfig) -> str:
    """The choice that the manifest stands for: SHA256, VERITY or NONE."""
    verity = config.manifest.verity
    if verity.check == "sha256":
        return "SHA256"
    if has_tree(config) and verity.seal != "never":
        # `auto` is a wish for the best that costs nothing: there, that needs a kernel of one's own.
        return "VERITY" if verity.seal == "always" or verity.check == "full" else "SHA256"
    return "NONE" if verity.seal == "never" else "SHA256"


def kernel_needs(config: AdapterConfig) -> tuple[KernelNeed, ...]:
    """What the store needs that the kernels of OpenWrt's releases do not have."""
    if config.manifest.mode != "store":
        return ()
    squashfs = config.manifest.squashfs
    needs = []
    if squashfs.compression in _COMPRESSIONS:
        needs.append(KernelNeed(f"KERNEL_SQUASHFS_{_COMPRESSIONS[squashfs.compression]}", "compression: xz"))
    if squashfs.whiteouts != "explicit":
        needs.append(KernelNeed(XATTR, "whiteouts: explicit"))
    return tuple(needs)


def config_in(config: AdapterConfig) -> str:
    """The package's Config.in."""
    compression = _COMPRESSIONS.get(config.manifest.squashfs.compression) if config.manifest.mode == "store" else None
    values = {
        "NAME": config.name,
        "PREFIX": config.symbol,
        "CHECK": _check(config) if config.manifest.mode == "store" else "",
        "COMPRESSION": fill(read_template("openwrt", "Config.compression.in"), {"SYMBOL": compression}) if compression else "",
    }
    return fill(read_template("openwrt", "Config.in"), values).rstrip("\n") + "\n"


def _check(config: AdapterConfig) -> str:
    name = config.symbol
    verity = fill(read_template("openwrt", "Config.verity.in"), {"PREFIX": name}) if has_tree(config) else ""
    default = f"{name}_CHECK_{default_check(config)}"
    # Where the first choice is not to be had, the SDK, the next one counts.
    if default_check(config) == "VERITY":
        default += f" if !IN_SDK\n\tdefault {name}_CHECK_SHA256"
    return fill(read_template("openwrt", "Config.check.in"), {"PREFIX": name, "VERITY": verity, "DEFAULT": default})
