"""A menu entry for GRUB 2."""

from __future__ import annotations

from shiplap.rootfs.bootsnippets.kernel import systemd_cmdline
from shiplap.rootfs.bootsnippets.settings import BootSettings


def render(settings: BootSettings) -> dict[str, str]:
    """``grub.cfg``: to be sourced, or pasted into the board's own; kernel and initramfs lie on GRUB's boot partition."""
    title = f"Firmware {settings.root.root_hash[:12]}"
    text = f"""\
set kernel=/vmlinuz
set initrd=/initrd.img
set console="console=ttyS0,115200"

menuentry "{title}" {{
    search --no-floppy --set=root --file $kernel
    linux $kernel $console {systemd_cmdline(settings)}
    initrd $initrd
}}
"""
    return {"grub.cfg": text}
