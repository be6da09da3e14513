"""RAUC: root and store are slots of one group, written by one bundle and switched together.

Names from RAUC's reference: ``parent=`` groups slots, the bundle's hook script is called with ``slot-post-install``,
``rauc-mark-good.service`` confirms the booted slot.
"""

from __future__ import annotations

from shiplap.rootfs.bootsnippets.settings import BootSettings
from shiplap.rootfs.bootsnippets.shell import SET_PARTUUID

_MARK_GOOD = "# Where it goes: /etc/systemd/system/rauc-mark-good.service.d/shiplap.conf. Nothing to edit.\n"


def render(settings: BootSettings) -> dict[str, str]:
    """``rauc-system.conf``, ``rauc-manifest.raucm``, ``rauc-hook`` and ``rauc-mark-good.conf`` (a drop-in of the service)."""
    return {
        "rauc-system.conf": _system(settings),
        "rauc-manifest.raucm": _manifest(settings),
        "rauc-hook": _hook(settings),
        "rauc-mark-good.conf": f"{_MARK_GOOD}[Service]\nExecStartPre=/usr/sbin/shiplap-target status --wait {settings.health_seconds}\n",
    }


def _slots(settings: BootSettings) -> list[tuple[str, str]]:
    """(class, partition name without the slot's letter); the first is the one that boots."""
    classes = []
    for one in settings.images:
        classes += [("rootfs" if one.role == "root" else one.role, one.role), (f"{one.role}verity", f"{one.role}-verity")]
    return classes


def _system(settings: BootSettings) -> str:
    lines = [
        "# RAUC. Where it goes: /etc/rauc/system.conf, in the base of each firmware. To edit: compatible, bootloader, path.",
        "# RAUC sees by rauc.slot=A or rauc.slot=B on the kernel's command line which slot runs: the board's boot loader adds it.",
        "# It switches by variables of its own (BOOT_ORDER, BOOT_A_LEFT, …), which boot-slots.cmd and grub-slots.cfg do not read.",
        "[system]",
        "compatible=BOARD",
        "bootloader=uboot",
        "bundle-formats=verity",
        "",
        "[keyring]",
        "path=/etc/rauc/keyring.pem",
    ]
    for number, letter in enumerate("ab"):
        for name, partition in _slots(settings):
            lines += ["", f"[slot.{name}.{number}]", f"device=/dev/disk/by-partlabel/{partition}-{letter}", "type=raw"]
            lines.append(f"bootname={letter.upper()}" if name == "rootfs" else f"parent=rootfs.{number}")
    return "\n".join(lines) + "\n"


def _manifest(settings: BootSettings) -> str:
    lines = [
        "# RAUC. Where it goes: as manifest.raucm into the folder that `rauc bundle` packs, beside rauc-hook and the files that",
        "# its head names. To edit: compatible.",
        "[update]",
        "compatible=BOARD",
        f"version={settings.root.root_hash[:12]}",
        "",
        "[bundle]",
        "format=verity",
        "",
        "[hooks]",
        "filename=rauc-hook",
    ]
    for name, partition in _slots(settings):
        # RAUC chooses what to do by the name's end; ".img" is written as it is.
        lines += ["", f"[image.{name}]", f"filename={partition}.img", "hooks=post-install"]
    return "\n".join(lines) + "\n"


def _hook(settings: BootSettings) -> str:
    cases = []
    for one in settings.images:
        name = "rootfs" if one.role == "root" else one.role
        cases.append(f'    {name}) set_partuuid "$RAUC_SLOT_DEVICE" {one.data_uuid} ;;')
        cases.append(f'    {one.role}verity) set_partuuid "$RAUC_SLOT_DEVICE" {one.tree_uuid} ;;')
    listed = "\n".join(cases)
    copies = ", ".join(f"{one.image} as {one.role}.img, {one.tree} as {one.role}-verity.img" for one in settings.images)
    return f"""\
#!/bin/sh
# RAUC's hook. Where it goes: into the folder that `rauc bundle` packs, executable; nothing to edit. That folder also has
# {copies}.
set -eu

{SET_PARTUUID}
case "$1" in
slot-post-install)
    case "$RAUC_SLOT_CLASS" in
{listed}
    esac
    ;;
esac
"""
