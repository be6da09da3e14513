"""Mender: an update module that writes root and store into the other slot and lets the health check decide.

Names from Mender's update module protocol, version 3: the module is called with a state and the folder of the file API
(whose ``files/`` has the payload), answers ``NeedsArtifactReboot`` and ``SupportsRollback``, and any exit code but 0
rolls back. The module that runs is the old firmware's, so it knows no hash: it reads them from the payload.
"""

from __future__ import annotations

from shiplap.rootfs.bootsnippets.settings import BootSettings
from shiplap.rootfs.bootsnippets.shell import SET_PARTUUID


def render(settings: BootSettings) -> dict[str, str]:
    """``mender-module``: to be installed in the device's ``modules/v3`` folder, for example as ``shiplap-firmware``."""
    payload = " ".join(f"{one.image} {one.tree} {_hash_file(one.image)}" for one in settings.images)
    writes = "\n".join(f'    write {one.role} "$2/files" {one.image} {one.tree} {_hash_file(one.image)}' for one in settings.images)
    text = f"""\
#!/bin/sh
# Mender. Where it goes: /usr/share/mender/modules/v3/shiplap-firmware, in the base of each firmware, executable. Nothing to edit.
# It switches by bootslot, upgrade_available and bootcount, as boot-slots.cmd and grub-slots.cfg read them. Kernel, initramfs and
# command line (FIT, or the slot's folder of GRUB) of the new slot are the board's to write, before ArtifactInstall.
# Payload of the artifact: {payload}
set -eu

{SET_PARTUUID}
# uuid HEX: 32 digits as a UUID
uuid() {{ echo "$1" | sed 's/^\\(.\\{{8\\}}\\)\\(.\\{{4\\}}\\)\\(.\\{{4\\}}\\)\\(.\\{{4\\}}\\)\\(.\\{{12\\}}\\)$/\\1-\\2-\\3-\\4-\\5/'; }}

# is_free PARTITION: nothing has it open, whatever the environment says about slots
is_free() {{
    for holder in "/sys/class/block/$(basename "$(readlink -f "$1")")/holders"/*; do
        [ ! -e "$holder" ] || {{ echo "$1 is in use by ${{holder##*/}}" >&2; exit 1; }}
    done
}}

# write ROLE FOLDER IMAGE TREE ROOTHASH: image and tree into the other slot, which gets the UUIDs of the root hash
write() {{
    slots=/dev/disk/by-partlabel
    is_free "$slots/$1-$slot"
    hash=$(cat "$2/$5")
    dd if="$2/$3" of="$slots/$1-$slot" bs=1M conv=fsync
    dd if="$2/$4" of="$slots/$1-verity-$slot" bs=1M conv=fsync
    set_partuuid "$slots/$1-$slot" "$(uuid "$(echo "$hash" | cut -c1-32)")"
    set_partuuid "$slots/$1-verity-$slot" "$(uuid "$(echo "$hash" | sed 's/.*\\(.\\{{32\\}}\\)$/\\1/')")"
}}

# As boot-slots.cmd and grub-slots.cfg read it: slot a, where nothing was ever set.
booted() {{ if [ "$(fw_printenv -n bootslot 2>/dev/null)" = b ]; then echo b; else echo a; fi; }}

case "$1" in
NeedsArtifactReboot) echo Automatic ;;
SupportsRollback) echo Yes ;;
ArtifactInstall)
    before=$(booted)
    if [ "$before" = a ]; then slot=b; else slot=a; fi
{writes}
    echo "$before" >"$2/tmp/before"
    fw_setenv bootcount 0
    fw_setenv upgrade_available 1
    fw_setenv bootslot "$slot"
    ;;
ArtifactVerifyReboot)
    [ "$(booted)" != "$(cat "$2/tmp/before")" ]
    shiplap-target status --wait {settings.health_seconds}
    ;;
ArtifactCommit)
    shiplap-target status --wait {settings.health_seconds}
    fw_setenv upgrade_available 0
    ;;
ArtifactRollback)
    if [ -e "$2/tmp/before" ]; then fw_setenv bootslot "$(cat "$2/tmp/before")"; fi
    fw_setenv upgrade_available 0
    ;;
esac
"""
    return {"mender-module": text}


def _hash_file(image: str) -> str:
    return image.rpartition(".")[0] + ".roothash"
