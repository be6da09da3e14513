"""GRUB 2: a menu entry for one firmware, and a choice between the entries of two slots.

The names in GRUB's environment block are those that the snippets for Mender and SWUpdate set in U-Boot's: ``bootslot``,
``upgrade_available``, ``bootcount``.
"""

from __future__ import annotations

from shiplap.rootfs.bootsnippets.kernel import systemd_cmdline
from shiplap.rootfs.bootsnippets.settings import BootSettings


def render(settings: BootSettings) -> dict[str, str]:
    """``grub.cfg`` and ``grub-slots.cfg``: each is a whole configuration, or is sourced by the board's own."""
    return {"grub.cfg": _entry(settings), "grub-slots.cfg": _SLOTS}


def _entry(settings: BootSettings) -> str:
    """Without ``timeout`` GRUB would wait for a key. The partition it was read from is asked first: a stick must not get in between."""
    return f"""\
# GRUB 2, this firmware. Where it goes: on GRUB's boot partition, as the grub.cfg that GRUB reads or sourced by that one; kernel and
# initramfs on the same partition, as /vmlinuz and /initrd.img. The initramfs has systemd (dracut, mkosi) or reads roothash= itself.
# With two slots: as /a/grub.cfg or /b/grub.cfg beside the slot's kernel, see grub-slots.cfg. To edit: console.
# Modules: part_gpt, fat or ext2, normal, test, search, linux.
set console="console=ttyS0,115200"
if [ -z "$timeout" ]; then set timeout=0; fi

menuentry "Firmware {settings.root.root_hash[:12]}" {{
    if [ ! -f $folder/vmlinuz ]; then search --no-floppy --set=root --file $folder/vmlinuz; fi
    linux $folder/vmlinuz $console {systemd_cmdline(settings)}
    initrd $folder/initrd.img
}}
"""


_SLOTS = """\
# GRUB 2, two slots (`--slots 2`). Where it goes: on GRUB's boot partition, as the grub.cfg that GRUB reads. Nothing to edit. Beside it:
#   /a/grub.cfg, /a/vmlinuz, /a/initrd.img   of the firmware in slot a, with the grub.cfg that was written with it
#   /b/grub.cfg, /b/vmlinuz, /b/initrd.img   of slot b: the update brings them, and calls sync before it sets bootslot, because
#                                            GRUB reads no journal (FAT and ext4 are good for it, XFS is not)
#   grubenv in GRUB's own folder             made by `grub-editenv grubenv create`
# An update sets bootslot to the new slot, upgrade_available=1 and bootcount=0 (mender-module, sw-description); who confirms it sets
# upgrade_available=0. What they call: fw_setenv NAME VALUE is `grub-editenv GRUBENV set NAME=VALUE`, and fw_printenv -n NAME is
# `grub-editenv GRUBENV list | sed -n s/^NAME=//p`.
# Modules: those of grub.cfg, configfile, loadenv.
load_env bootslot upgrade_available bootcount
if [ "$bootslot" != b ]; then set bootslot=a; fi
if [ "$bootslot" = a ]; then set other=b; else set other=a; fi
if [ "$upgrade_available" = 1 ]; then
    if [ "$bootcount" = 1 ]; then
        # It was tried once and not confirmed.
        set bootslot=$other
        set upgrade_available=0
        set bootcount=0
    else
        set bootcount=1
    fi
    save_env bootslot upgrade_available bootcount
fi
if [ ! -f /$bootslot/grub.cfg ]; then set bootslot=$other; fi
set folder=/$bootslot
source $folder/grub.cfg
"""
