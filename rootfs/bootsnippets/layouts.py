"""The disk's layout for build systems: genimage (Buildroot) and wic (Yocto). The same partitions as ``disk.img``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shiplap.rootfs.bootsnippets.settings import BootSettings, mebibytes
from shiplap.verity.discoverable import EFI_SYSTEM, LINUX_GENERIC
from shiplap.verity.identity import content_uuid

ESP = "esp.img"
DATA = "data"
SLOT, OTHER_SLOTS = "a", "b"
"""The slot that a first image fills, and the empty ones. Names tell slots apart for the updater; the device finds by UUID."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One partition. ``file``: what fills it, None for an empty one. ``read_only``: marked so in the table."""

    name: str
    type_uuid: str
    uuid: str
    size_bytes: int
    file: str | None
    read_only: bool = False


def slices(settings: BootSettings) -> Iterator[Slice]:
    """The partitions in their order."""
    if settings.esp_bytes:
        yield Slice("esp", EFI_SYSTEM, settings.esp_uuid, settings.esp_bytes, ESP)
    types = {"root": (settings.types.root, settings.types.root_verity), "store": (LINUX_GENERIC, LINUX_GENERIC)}
    for one in settings.images:
        data_type, tree_type = types[one.role]
        yield Slice(f"{one.role}-{SLOT}", data_type, one.data_uuid, one.data_partition_bytes, one.image, True)
        yield Slice(f"{one.role}-verity-{SLOT}", tree_type, one.tree_uuid, one.tree_partition_bytes, one.tree, True)
        if one.role == "root" and (signature := settings.signature) is not None:
            name, size_bytes = f"root-verity-sig-{SLOT}", signature.partition_bytes
            yield Slice(name, settings.types.root_verity_signature, signature.partition_uuid, size_bytes, signature.file, True)
    for letter in OTHER_SLOTS[: settings.slots - 1]:
        for one in settings.images:
            sizes = (one.data_partition_bytes, one.tree_partition_bytes)
            for name, type_uuid, size_bytes in zip((one.role, f"{one.role}-verity"), types[one.role], sizes, strict=True):
                # Until an update gives it the UUID of what it writes.
                yield Slice(f"{name}-{letter}", type_uuid, content_uuid(f"empty slot {name}-{letter}"), size_bytes, None, True)
    if settings.data_bytes:
        yield Slice(DATA, LINUX_GENERIC, settings.data_uuid, settings.data_bytes, None)


def render(settings: BootSettings) -> dict[str, str]:
    """``genimage.cfg`` and ``disk.wks``."""
    return {"genimage.cfg": _genimage(settings), "disk.wks": _wks(settings)}


def _genimage(settings: BootSettings) -> str:
    lines = [
        "# genimage 16 or newer. Where it goes: what --config names; in Buildroot support/scripts/genimage.sh -c FILE.",
        f"# In --inputpath: {', '.join(one.file for one in slices(settings) if one.file)}.",
        "# To edit: the board's boot loader, where there is one.",
        "image disk.img {",
        "\thdimage {",
        '\t\tpartition-table-type = "gpt"',
        f'\t\tdisk-uuid = "{settings.disk_uuid}"',
        "\t\talign = 1M",
        "\t}",
        "",
        "\t# A boot loader's partitions go here: root and store are found by UUID, whatever their numbers are. An ESP would be",
        f'\t# partition boot {{ partition-type-uuid = "{EFI_SYSTEM}" image = "boot.vfat" }}',
    ]
    for one in slices(settings):
        lines += [
            "",
            f"\tpartition {one.name} {{",
            f'\t\tpartition-type-uuid = "{one.type_uuid}"',
            f'\t\tpartition-uuid = "{one.uuid}"',
            *([f'\t\timage = "{one.file}"'] if one.file else []),
            *(["\t\tread-only = true"] if one.read_only else []),
            f"\t\tsize = {mebibytes(one.size_bytes)}M",
            "\t}",
        ]
    return "\n".join([*lines, "}"]) + "\n"


def _wks(settings: BootSettings) -> str:
    lines = [
        "# short-description: sealed root, and the store where it has partitions of its own",
        "# wic. Where it goes: a folder wic/ of a layer, named by WKS_FILE. Files are looked for in DEPLOY_DIR_IMAGE.",
        "# To edit: a boot loader's partitions, before these; root and store are found by UUID, whatever their numbers are.",
        "bootloader --ptable gpt",
    ]
    for one in slices(settings):
        source = f'--source rawcopy --sourceparams="file={one.file}"' if one.file else "--source empty"
        lines.append(
            f"part {source} --part-name {one.name} --part-type {one.type_uuid} --uuid {one.uuid}"
            f" --align 1024 --fixed-size {mebibytes(one.size_bytes)}M"
        )
    return "\n".join(lines) + "\n"
