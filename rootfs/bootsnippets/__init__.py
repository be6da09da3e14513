"""Ready-to-paste pieces for boot loaders, image builders and updaters: pure functions from settings to texts.

Every module has ``render(settings) -> {file name: text}``. They hold root hashes and partition UUIDs and nothing of the
machine that wrote them; what a board decides (kernel, device tree, console) is a named variable at the top of each text.
"""

from __future__ import annotations

from shiplap.rootfs.bootsnippets import grub, kernel, layouts, mender, rauc, swupdate, uboot
from shiplap.rootfs.bootsnippets.settings import BootSettings, SealedImage

__all__ = ["FILE_NAMES", "BootSettings", "SealedImage", "render"]

_MODULES = (kernel, grub, uboot, layouts, rauc, swupdate, mender)

FILE_NAMES = (
    "boot-slots.cmd",
    "boot.cmd",
    "disk.wks",
    "dm-mod.create.txt",
    "fit.its",
    "genimage.cfg",
    "grub-slots.cfg",
    "grub.cfg",
    "kernel-cmdline-usr.txt",
    "kernel-cmdline.txt",
    "mender-module",
    "partitions.env",
    "rauc-hook",
    "rauc-manifest.raucm",
    "rauc-mark-good.conf",
    "rauc-system.conf",
    "sw-description",
    "swupdate-health.service",
    "swupdate-switch",
)
"""Every name that :func:`render` may give."""


def render(settings: BootSettings) -> dict[str, str]:
    """All snippets: file name → text."""
    texts: dict[str, str] = {}
    for module in _MODULES:
        texts |= module.render(settings)
    return texts
