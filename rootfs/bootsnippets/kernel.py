"""The kernel's command line: with systemd in the initramfs, and with the kernel's own device-mapper setup (no initramfs)."""

from __future__ import annotations

from base64 import b64encode

from shiplap.rootfs.bootsnippets.settings import BootSettings
from shiplap.verity.kernel import create_argument


def systemd_cmdline(settings: BootSettings) -> str:
    """What systemd-veritysetup-generator(8) reads. The two partitions follow from the hash; they are named for old versions."""
    root = settings.root
    return (
        f"roothash={root.root_hash} systemd.verity_root_data=PARTUUID={root.data_uuid}"
        f" systemd.verity_root_hash=PARTUUID={root.tree_uuid}{_signature_word(settings, 'root')} rootfstype={root.filesystem} ro"
    )


def _signature_word(settings: BootSettings, what: str) -> str:
    """The signature itself, so that the initramfs needs no file; the kernel checks it by the keys built into it."""
    if settings.signature is None:
        return ""
    return f" systemd.verity_{what}_options=root-hash-signature=base64:{b64encode(settings.signature.der).decode()}"


def early_cmdline(settings: BootSettings) -> str:
    """``dm-mod.create=`` and what belongs to it; ``dm-mod.waitfor=`` waits for the disk.

    No ``rootwait``: the device is there before the root is mounted, or never; then a panic lets a boot counter go on.
    """
    root = settings.root
    created = create_argument(
        root.layout, root.root_hash, name="root", data_device=f"PARTUUID={root.data_uuid}", hash_device=f"PARTUUID={root.tree_uuid}"
    )
    waited = f'dm-mod.waitfor="PARTUUID={root.data_uuid},PARTUUID={root.tree_uuid}"'
    return f"{created} {waited} root=/dev/dm-0 rootfstype={root.filesystem} ro"


def render(settings: BootSettings) -> dict[str, str]:
    """``kernel-cmdline.txt``, ``kernel-cmdline-usr.txt``, ``dm-mod.create.txt``, ``partitions.env``."""
    root = settings.root
    usr = (
        f"usrhash={root.root_hash} systemd.verity_usr_data=PARTUUID={root.data_uuid}"
        f" systemd.verity_usr_hash=PARTUUID={root.tree_uuid}{_signature_word(settings, 'usr')}"
        f" mount.usr=/dev/mapper/usr mount.usrfstype={root.filesystem} mount.usrflags=ro\n"
    )
    return {
        "kernel-cmdline.txt": systemd_cmdline(settings) + "\n",
        "kernel-cmdline-usr.txt": usr,
        "dm-mod.create.txt": early_cmdline(settings) + "\n",
        "partitions.env": _partitions(settings),
    }


def _partitions(settings: BootSettings) -> str:
    types = settings.types
    lines = [
        "# To be sourced by the board's own scripts. Discoverable Partitions Specification; PARTUUIDs are halves of the root hashes.",
        f"ROOT_TYPE={types.root}",
        f"ROOT_VERITY_TYPE={types.root_verity}",
        f"USR_TYPE={types.usr}",
        f"USR_VERITY_TYPE={types.usr_verity}",
    ]
    for one in settings.images:
        key = one.role.upper()
        lines += [f"{key}_HASH={one.root_hash}", f"{key}_PARTUUID={one.data_uuid}", f"{key}_VERITY_PARTUUID={one.tree_uuid}"]
    lines += [f"DATA_PARTUUID={settings.data_uuid}", f"DISK_UUID={settings.disk_uuid}"]
    return "\n".join(lines) + "\n"
