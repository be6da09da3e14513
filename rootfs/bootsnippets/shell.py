"""Pieces of POSIX sh that several updaters' scripts share."""

from __future__ import annotations

from shiplap.rootfs.bootsnippets.settings import BootSettings

# The kernel keeps the old table until the reboot: a disk in use cannot be read anew, and nothing needs it before.
SET_PARTUUID = """\
# set_partuuid DEVICE UUID: the device finds root and store by the halves of their root hashes, so a partition that was
# written anew needs new UUIDs. The slot is told by its name, which only the updater uses.
set_partuuid() {
    node=$(readlink -f "$1") || return 1
    name=${node##*/}
    number=$(cat "/sys/class/block/$name/partition") || return 1
    disk=/dev/$(basename "$(readlink -f "/sys/class/block/$name/..")") || return 1
    sfdisk --quiet --no-reread --no-tell-kernel --part-uuid "$disk" "$number" "$2"
}
"""


def uuid_lines(settings: BootSettings, indent: str, prefix: str) -> str:
    """A line ``set_partuuid`` for each partition; ``prefix``: what stands before the partition's role in its device path."""
    lines = []
    for one in settings.images:
        lines.append(f'{indent}set_partuuid "{prefix}{one.role}-$slot" {one.data_uuid}')
        lines.append(f'{indent}set_partuuid "{prefix}{one.role}-verity-$slot" {one.tree_uuid}')
    return "\n".join(lines)
