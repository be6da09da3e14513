"""``provision.iso``: the content of the partitions, what boots, and the installer in the initramfs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from shiplap.core.entries import Bytes, PathContent
from shiplap.core.output import Stage
from shiplap.core.progress import Progress
from shiplap.rootfs.bootsnippets import BootSettings
from shiplap.rootfs.firmware import (
    BOOT_FOLDER,
    PROVISION_IMAGE,
    PROVISION_INITRD,
    PROVISION_PROGRAM,
    PROVISION_WORDS,
    BootFiles,
    write_efi,
)
from shiplap.rootfs.gpt import Partition, Placed, place, tables
from shiplap.rootfs.provision.iso9660 import ALIGNMENT_BYTES, SYSTEM_AREA_BYTES, MediumFile, offsets, write_iso
from shiplap.rootfs.provision.medium import WORDS, joined_initramfs, plan_installation
from shiplap.verity.discoverable import EFI_SYSTEM
from shiplap.verity.identity import content_uuid

_EFI_FILE = "EFI.IMG"


def write_provision_image(
    settings: BootSettings, partitions: Sequence[Partition], boot: BootFiles, epoch: int, stage: Stage, progress: Progress
) -> None:
    """``provision.iso``, ``provision.initrd``, with a stub ``provision.efi``, and the words for the kernel, in the stage.

    Raises DiskRefused, MediumRefused, StubRefused, FatRefused.
    """
    placed = place(partitions)
    content_bytes = sum(one.partition.content.stat().st_size for one in placed if one.partition.content is not None)
    with progress.task("sha256 of the partitions", content_bytes) as task:
        planned = plan_installation(placed, settings.disk_uuid, f"root {settings.root.root_hash[:12]}", epoch, task.advance)
    with stage.writer(PROVISION_INITRD) as write:
        for piece in joined_initramfs(boot.initrd, planned.archive):
            write(piece)
    words = f"{WORDS} {boot.words}".strip()
    stage.write(f"{BOOT_FOLDER}/{PROVISION_WORDS}", words.encode() + b"\n")
    initrd = _whole(stage.path(PROVISION_INITRD))
    # The partitions come first: where they lie must not depend on the initramfs, which knows it.
    files = [
        *planned.files,
        MediumFile("KERNEL", boot.kernel),
        MediumFile("INITRD.IMG", initrd),
        MediumFile("CMDLINE.TXT", Bytes(words.encode() + b"\n")),
    ]
    with tempfile.TemporaryDirectory(dir=stage.folder) as folder:
        system_area, tail, efi_image = b"", b"", None
        if boot.stub is not None:
            esp = Path(folder) / "esp.img"
            write_efi(boot, WORDS, initrd, PROVISION_PROGRAM, esp, epoch, stage, progress)
            files.append(MediumFile(_EFI_FILE, _whole(esp)))
            system_area, tail = _tables(files, planned.volume)
            efi_image = _EFI_FILE
        total = sum(file.content.size_bytes for file in files)
        with progress.task(f"write {PROVISION_IMAGE}", total) as task:
            write_iso(
                stage.path(PROVISION_IMAGE), files, planned.volume, epoch,
                efi_image=efi_image, system_area=system_area, tail=tail, advance=task.advance,
            )  # fmt: skip


def _tables(files: Sequence[MediumFile], volume: str) -> tuple[bytes, bytes]:
    """Partition tables for a medium that is no CD: firmware finds the same file system as a partition."""
    *_, start, end = offsets(files)
    esp = Partition("provision", EFI_SYSTEM, content_uuid(f"medium {volume}"), end - start)
    first, second = tables([Placed(esp, start, end - start)], content_uuid(f"medium's disk {volume}"), end + ALIGNMENT_BYTES)
    assert len(first) <= SYSTEM_AREA_BYTES
    return first, second


def _whole(path: Path) -> PathContent:
    return PathContent(path, path.stat().st_size)
