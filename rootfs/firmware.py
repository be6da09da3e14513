"""What surrounds a whole root file system: how it boots (snippets), and the disk that it lies on."""

from __future__ import annotations

import os
import uuid as uuids
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shiplap.core.entries import Content, PathContent
from shiplap.core.errors import Refused
from shiplap.core.output import SUMS_NAME, Stage, sha256_file
from shiplap.core.progress import Progress
from shiplap.rootfs.basetree import BaseTree
from shiplap.rootfs.bootsnippets import FILE_NAMES, BootSettings, SealedImage, render
from shiplap.rootfs.bootsnippets.kernel import systemd_cmdline
from shiplap.rootfs.bootsnippets.layouts import ESP, slices
from shiplap.rootfs.efi.fat import fat_size_bytes, write_fat
from shiplap.rootfs.efi.unified import Stub, unified_image
from shiplap.rootfs.gpt import DiskRefused, Partition, Placed, write_disk
from shiplap.rootfs.signature import checked_signature, root_signature
from shiplap.rootfs.storefolder import StoreFolder
from shiplap.rootfs.wholeroot import IMAGES, ROOT_HASH, TREE, RootResult
from shiplap.verity.discoverable import READ_ONLY_FLAG
from shiplap.verity.identity import content_uuid
from shiplap.verity.superblock import SUPERBLOCK_BYTES, parse
from shiplap.verity.tree import Tree, lay_out

DISK, BOOT_PROGRAM = "disk.img", "linux.efi"
PROVISION_IMAGE, PROVISION_INITRD, PROVISION_PROGRAM = "provision.iso", "provision.initrd", "provision.efi"
SIGNATURE, SIGNATURE_PARTITION = "rootfs.roothash.p7s", "rootfs.verity-sig"
PROVISION_WORDS = "provision-cmdline.txt"
BOOT_FOLDER = "boot"
BASE_PREFIX = "base:"
ROOT_ARTIFACTS = (
    *IMAGES.values(),
    TREE,
    ROOT_HASH,
    SIGNATURE,
    SIGNATURE_PARTITION,
    DISK,
    ESP,
    BOOT_PROGRAM,
    PROVISION_IMAGE,
    PROVISION_INITRD,
    PROVISION_PROGRAM,
    "record.json",
    *(f"{BOOT_FOLDER}/{name}" for name in (*FILE_NAMES, PROVISION_WORDS)),
    SUMS_NAME,
)
"""Every name that ``shiplap rootfs`` may write into its folder, and may therefore remove from it."""


class IngredientRefused(Refused):
    """A kernel or an initramfs that cannot be used."""


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What a board boots by. ``words``: of the kernel's command line, beside shiplap's own. ``stub``: None without UEFI."""

    kernel: Content
    initrd: Content
    words: str = ""
    stub: Stub | None = None


def ingredient(named: str, what: str, base: BaseTree) -> Content:
    """A file of the user's, or of the base: ``base:/boot/vmlinuz``. Raises IngredientRefused when it is none, or empty."""
    content: Content | None
    if named.startswith(BASE_PREFIX):
        content = base.content(os.fsencode(named.removeprefix(BASE_PREFIX)))
        if content is None:
            raise IngredientRefused(f"the base has no file {named.removeprefix(BASE_PREFIX)} for the {what}")
    else:
        path = Path(named)
        try:
            with path.open("rb"):
                content = PathContent(path, path.stat().st_size)
        except OSError as error:
            raise IngredientRefused(f"cannot read the {what} {named}: {error.strerror}") from error
    if content.size_bytes == 0:
        raise IngredientRefused(f"the {what} {named} is empty")
    return content


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """What a disk has beside a firmware's images. Bytes; 0 for none, or for no more room than an image needs. ``slots``: 1 or 2."""

    data_bytes: int = 0
    slots: int = 1
    root_bytes: int = 0
    store_bytes: int = 0


def boot_settings(result: RootResult, stage: Stage, store: StoreFolder, placement: str, disk: DiskPlan) -> BootSettings:
    """Settings for the finished root in ``stage``. The UUID of the writable partition is the same on every device and in every
    firmware, because its content outlives firmwares. Raises DiskRefused for an image that its partition has no room for.
    """
    image, tree = stage.path(result.image), stage.path(TREE)
    root = _with_room(_sealed("root", image, tree, result.root_hash, result.tree), disk.root_bytes)
    sealed = _with_room(_sealed_store(store), disk.store_bytes) if placement == "partition" else None
    identity = f"disk {root.root_hash} {sealed.root_hash if sealed else '-'} {disk.data_bytes}"
    if disk != DiskPlan(disk.data_bytes):
        identity += f" {disk.slots} {disk.root_bytes} {disk.store_bytes}"
    data_uuid = content_uuid("writable data partition")
    return BootSettings(store.platform.architecture, root, sealed, content_uuid(identity), data_uuid, disk.data_bytes, slots=disk.slots)


def _with_room(image: SealedImage, room_bytes: int) -> SealedImage:
    if room_bytes and image.image_bytes > room_bytes:
        raise DiskRefused(
            f"{image.image} has {image.image_bytes} bytes and its partition {room_bytes}", hint=f"give a larger --{image.role}-size"
        )
    return replace(image, room_bytes=room_bytes)


def _sealed_store(store: StoreFolder) -> SealedImage:
    tree = store.tree
    assert tree is not None and store.root_hash is not None, "check_placement has made sure"
    with tree.open("rb") as file:
        superblock = parse(file.read(SUPERBLOCK_BYTES), str(tree))
    layout = lay_out(superblock.parameters, superblock.data_blocks)
    return _sealed("store", store.image, tree, store.root_hash, layout)


def _sealed(role: str, image: Path, tree: Path, root_hash: str, layout: Tree) -> SealedImage:
    (image_sum, image_bytes), (tree_sum, tree_bytes) = sha256_file(image), sha256_file(tree)
    return SealedImage(role, image.name, tree.name, root_hash, layout, image_bytes, tree_bytes, image_sum, tree_sum)


def with_signature(settings: BootSettings, signature: Path, certificate: Path, stage: Stage) -> BootSettings:
    """The root's signature and the content of its partition as artifacts; the settings with both. Raises SignatureRefused."""
    der, partition = checked_signature(signature, certificate, settings.root.root_hash)
    stage.write(SIGNATURE, der)
    stage.write(SIGNATURE_PARTITION, partition)
    return replace(settings, signature=root_signature(der, partition, SIGNATURE_PARTITION, settings.root.root_hash))


def write_snippets(settings: BootSettings, stage: Stage) -> None:
    """``boot/…`` in the stage. Raises NotDiscoverable for an architecture without partition types."""
    for name, text in render(settings).items():
        stage.write(f"{BOOT_FOLDER}/{name}", text.encode())


def write_boot_partition(settings: BootSettings, boot: BootFiles, epoch: int, stage: Stage, progress: Progress) -> BootSettings:
    """``linux.efi``, and ``esp.img`` with it; the settings with that partition. Raises StubRefused, FatRefused."""
    write_efi(boot, systemd_cmdline(settings), boot.initrd, BOOT_PROGRAM, stage.path(ESP), epoch, stage, progress)
    return replace(settings, esp_bytes=stage.path(ESP).stat().st_size, esp_uuid=content_uuid(f"boot {settings.disk_uuid}"))


def write_efi(boot: BootFiles, words: str, initrd: Content, program: str, esp: Path, epoch: int, stage: Stage, progress: Progress) -> None:
    """A unified kernel image as the artifact ``program``, and a file system ``esp`` that firmware boots it from."""
    assert boot.stub is not None
    with progress.task(f"write {program}", boot.kernel.size_bytes + initrd.size_bytes) as task, stage.writer(program) as write:
        for piece in unified_image(boot.stub, f"{words} {boot.words}".strip(), boot.kernel, initrd):
            write(piece)
            task.advance(len(piece))
    content = PathContent(stage.path(program), stage.path(program).stat().st_size)
    serial = uuids.UUID(content_uuid(f"{program} {words}")).fields[0]
    write_fat(esp, {f"EFI/BOOT/{boot.stub.boot_name}": content}, fat_size_bytes(content.size_bytes), serial, epoch)


def disk_partitions(settings: BootSettings, stage: Stage, store: StoreFolder) -> tuple[Partition, ...]:
    """The disk's partitions in their order. Raises NotDiscoverable."""
    return tuple(
        Partition(
            one.name,
            one.type_uuid,
            one.uuid,
            one.size_bytes,
            _content(one.file, stage, store),
            READ_ONLY_FLAG if one.read_only else 0,
        )
        for one in slices(settings)
    )


def write_disk_image(settings: BootSettings, stage: Stage, store: StoreFolder, progress: Progress) -> Sequence[Placed]:
    """``disk.img`` in the stage: what ``boot/genimage.cfg`` describes. Raises NotDiscoverable, DiskRefused."""
    partitions = disk_partitions(settings, stage, store)
    total = sum(one.content.stat().st_size for one in partitions if one.content is not None)
    with progress.task(f"write {DISK}", total) as task:
        return write_disk(stage.path(DISK), partitions, settings.disk_uuid, task.advance)


def _content(name: str | None, stage: Stage, store: StoreFolder) -> Path | None:
    if name is None:
        return None
    return stage.path(name) if name in ROOT_ARTIFACTS else store.image.parent / name
