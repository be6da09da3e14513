"""What surrounds a whole root file system: how it boots (snippets), and the disk that it lies on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shiplap.core.output import SUMS_NAME, Stage
from shiplap.core.progress import Progress
from shiplap.rootfs.bootsnippets import FILE_NAMES, BootSettings, SealedImage, render
from shiplap.rootfs.bootsnippets.layouts import slices
from shiplap.rootfs.gpt import Partition, Placed, write_disk
from shiplap.rootfs.storefolder import StoreFolder
from shiplap.rootfs.wholeroot import IMAGE, ROOT_HASH, TREE, RootResult
from shiplap.verity.discoverable import READ_ONLY_FLAG
from shiplap.verity.identity import content_uuid
from shiplap.verity.superblock import SUPERBLOCK_BYTES, parse
from shiplap.verity.tree import lay_out

DISK = "disk.img"
BOOT_FOLDER = "boot"
ROOT_ARTIFACTS = (IMAGE, TREE, ROOT_HASH, DISK, "record.json", *(f"{BOOT_FOLDER}/{name}" for name in FILE_NAMES), SUMS_NAME)
"""Every name that ``shiplap rootfs`` may write into its folder, and may therefore remove from it."""


def boot_settings(result: RootResult, stage: Stage, store: StoreFolder, placement: str, data_bytes: int) -> BootSettings:
    """Settings for the finished root in ``stage``. The UUID of the writable partition is the same on every device and in every
    firmware, because its content outlives firmwares.
    """
    image, tree = stage.path(IMAGE), stage.path(TREE)
    root = SealedImage("root", IMAGE, TREE, result.root_hash, result.tree, image.stat().st_size, tree.stat().st_size)
    sealed = _sealed_store(store) if placement == "partition" else None
    identity = f"disk {root.root_hash} {sealed.root_hash if sealed else '-'} {data_bytes}"
    return BootSettings(
        store.platform.architecture, root, sealed, content_uuid(identity), content_uuid("writable data partition"), data_bytes
    )


def _sealed_store(store: StoreFolder) -> SealedImage:
    tree = store.tree
    assert tree is not None and store.root_hash is not None, "check_placement has made sure"
    with tree.open("rb") as file:
        superblock = parse(file.read(SUPERBLOCK_BYTES), str(tree))
    layout = lay_out(superblock.parameters, superblock.data_blocks)
    return SealedImage("store", store.image.name, tree.name, store.root_hash, layout, store.image.stat().st_size, tree.stat().st_size)


def write_snippets(settings: BootSettings, stage: Stage) -> None:
    """``boot/…`` in the stage. Raises NotDiscoverable for an architecture without partition types."""
    for name, text in render(settings).items():
        stage.write(f"{BOOT_FOLDER}/{name}", text.encode())


def write_disk_image(settings: BootSettings, stage: Stage, store: StoreFolder, progress: Progress) -> Sequence[Placed]:
    """``disk.img`` in the stage: what ``boot/genimage.cfg`` describes. Raises NotDiscoverable, DiskRefused."""
    partitions = [
        Partition(
            one.name,
            one.type_uuid,
            one.uuid,
            one.size_bytes,
            _content(one.file, stage, store),
            READ_ONLY_FLAG if one.file else 0,
        )
        for one in slices(settings)
    ]
    total = sum(one.content.stat().st_size for one in partitions if one.content is not None)
    with progress.task(f"write {DISK}", total) as task:
        return write_disk(stage.path(DISK), partitions, settings.disk_uuid, task.advance)


def _content(name: str | None, stage: Stage, store: StoreFolder) -> Path | None:
    if name is None:
        return None
    return stage.path(name) if name in (IMAGE, TREE) else store.image.parent / name
