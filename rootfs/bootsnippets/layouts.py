"""The disk's layout for build systems: genimage (Buildroot) and wic (Yocto). The same partitions as ``disk.img``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shiplap.rootfs.bootsnippets.settings import BootSettings, mebibytes
from shiplap.verity.discoverable import LINUX_GENERIC

SLOT = "a"
"""The slot that a first image fills. Names tell slots apart for the updater; the device finds by UUID."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One partition. ``file``: what fills it, None for an empty one."""

    name: str
    type_uuid: str
    uuid: str
    size_bytes: int
    file: str | None


def slices(settings: BootSettings) -> Iterator[Slice]:
    """The partitions in their order."""
    types = {"root": (settings.types.root, settings.types.root_verity), "store": (LINUX_GENERIC, LINUX_GENERIC)}
    for one in settings.images:
        data_type, tree_type = types[one.role]
        yield Slice(f"{one.role}-{SLOT}", data_type, one.data_uuid, one.image_bytes, one.image)
        yield Slice(f"{one.role}-verity-{SLOT}", tree_type, one.tree_uuid, one.tree_bytes, one.tree)
    if settings.data_bytes:
        yield Slice("data", LINUX_GENERIC, settings.data_uuid, settings.data_bytes, None)


def render(settings: BootSettings) -> dict[str, str]:
    """``genimage.cfg`` and ``disk.wks``."""
    return {"genimage.cfg": _genimage(settings), "disk.wks": _wks(settings)}


def _genimage(settings: BootSettings) -> str:
    lines = [
        "image disk.img {",
        "\thdimage {",
        '\t\tpartition-table-type = "gpt"',
        f'\t\tdisk-uuid = "{settings.disk_uuid}"',
        "\t\talign = 1M",
        "\t}",
    ]
    for one in slices(settings):
        lines += [
            "",
            f"\tpartition {one.name} {{",
            f'\t\tpartition-type-uuid = "{one.type_uuid}"',
            f'\t\tpartition-uuid = "{one.uuid}"',
            *([f'\t\timage = "{one.file}"'] if one.file else []),
            f"\t\tsize = {mebibytes(one.size_bytes)}M",
            "\t}",
        ]
    return "\n".join([*lines, "}"]) + "\n"


def _wks(settings: BootSettings) -> str:
    lines = [
        "# short-description: sealed root, and the store where it has partitions of its own",
        "# Files are looked for in DEPLOY_DIR_IMAGE.",
        "bootloader --ptable gpt",
    ]
    for one in slices(settings):
        source = f'--source rawcopy --sourceparams="file={one.file}"' if one.file else "--source empty"
        lines.append(
            f"part {source} --part-name {one.name} --part-type {one.type_uuid} --uuid {one.uuid}"
            f" --align 1024 --fixed-size {mebibytes(one.size_bytes)}M"
        )
    return "\n".join(lines) + "\n"
