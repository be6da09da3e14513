"""A medium of ``shiplap rootfs --provision`` in a machine: it installs an empty disk, and that disk boots; also by UEFI alone.

By name only: `SHIPLAP_REQUIRE=boots`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from boot.cases import requires_boots, said_everything
from boot.firmware import REPORT, Bench, Firmware
from boot.guest import case_disk
from boot.machine import Console, Disk, Kernel, Machine, cpio_newc, libraries, program
from requirement import missing

pytestmark = requires_boots

STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
UEFI = Path("/usr/share/OVMF")
DISK_MIB = 400
# No /dev/disk without udev: the partition is found by its UUID all the same.
MOUNT_DATA = (
    'mount -t ext4 "$(blkid -t PARTUUID={uuid} -o device)" /var/lib/docker && echo && echo "DATA $(ls /var/lib/docker | tr "\\n" " ")"\n'
)


class UefiMachine(Machine):
    """A machine whose firmware finds itself what to boot: nothing is given but disks."""

    def command(self) -> list[str]:
        words = super().command()
        for option in ("-kernel", "-initrd", "-append"):
            at = words.index(option)
            del words[at : at + 2]
        code, variables = UEFI / "OVMF_CODE_4M.fd", UEFI / "OVMF_VARS_4M.fd"
        return [*words, "-machine", "q35", "-drive", f"if=pflash,format=raw,readonly=on,file={code}",
                "-drive", f"if=pflash,format=raw,snapshot=on,file={variables}"]  # fmt: skip


@dataclass
class Factory:
    """Firmwares with their media, made once."""

    bench: Bench
    work: Path
    made: dict[str, Firmware]

    def initrd(self) -> tuple[Kernel, Path]:
        """The bench's initramfs, with what the installer asks of one beside: a shell, modules under their usual names, mkfs.ext4."""
        kernel, initrd = self.bench.kernel()
        path = self.work / "initrd"
        if not path.exists():
            data = initrd.read_bytes()
            path.write_bytes(data + bytes(-len(data) % 4) + cpio_newc(_more(kernel)))
        return kernel, path

    def firmware(self, of: str) -> Firmware:
        kernel, initrd = self.initrd()
        stub = ("--efi-stub", str(STUB)) if STUB.exists() else ()
        options = ("--placement", "partition", "--disk", "--data-size", "16M", "--provision", "--kernel", str(kernel.image),
                   "--initrd", str(initrd), "--append", "console=ttyS0 panic=-1 quiet shiplap.format=ext4", *stub)  # fmt: skip
        if of not in self.made:
            data_root = {"path": "/var/lib/docker", "persistence": "persistent"}
            self.made[of] = self.bench.firmware(of, rootfs=options, placement="partition", **{"data-root": data_root})
        return self.made[of]

    def empty_disk(self, name: str, mebibytes: int = DISK_MIB) -> Disk:
        path = self.work / name
        with path.open("wb") as file:
            file.truncate(mebibytes << 20)
        return Disk(path, "disk", writable=True)

    def install(self, firmware: Firmware, disks: Sequence[Disk], words: str = "") -> Console:
        """Boot the medium with ``disks`` beside it. Only /dev/vda, the medium, is read-only."""
        line = (firmware.root / "boot/provision-cmdline.txt").read_text().strip()
        medium = Disk(firmware.root / "provision.iso", "medium")
        return Machine(firmware.kernel, firmware.root / "provision.initrd", [medium, *disks], append=f"{line} {words}").run()

    def case(self, firmware: Firmware, after: str) -> Disk:
        partitions = (firmware.root / "boot/partitions.env").read_text()
        uuid = next(line.partition("=")[2] for line in partitions.splitlines() if line.startswith("DATA_PARTUUID="))
        return case_disk(self.work / "case.tar", MOUNT_DATA.format(uuid=uuid), after)

    def boot(self, firmware: Firmware, disk: Disk, after: str = REPORT) -> Console:
        """Boot an installed disk by the words of boot/kernel-cmdline.txt."""
        words = (firmware.root / "boot/kernel-cmdline.txt").read_text().strip()
        return Machine(firmware.kernel, firmware.initrd, [disk, self.case(firmware, after)], append=words).run()


def _more(kernel: Kernel) -> Iterator[tuple[str, int, bytes]]:
    folder = kernel.root / "lib/modules" / kernel.version
    mkfs = program("mkfs.ext4")
    files: dict[str, tuple[int, bytes]] = {"bin/sh": (0o120777, b"busybox"), "sbin/mkfs.ext4": (0o100755, mkfs.resolve().read_bytes())}
    for library in libraries(mkfs):
        files[str(library).lstrip("/")] = (0o100755, library.resolve().read_bytes())
    for path in (*kernel.modules(("virtio_blk", "virtio_pci", "virtio_scsi", "sr_mod")), folder / "modules.dep", folder / "modules.alias"):
        files[f"lib/modules/{kernel.version}/{path.relative_to(folder)}"] = (0o100644, path.read_bytes())
    folders = {str(parent): None for name in files for parent in Path(name).parents if str(parent) != "."}
    for name in sorted(folders):
        yield name, 0o40755, b""
    for name, (mode, data) in files.items():
        yield name, mode, data


@pytest.fixture(scope="module")
def factory(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(bench, tmp_path_factory.mktemp("factory"), {})


def test_a_medium_installs_an_empty_disk_that_boots_and_a_later_medium_keeps_its_data(factory: Factory) -> None:
    first, disk = factory.firmware("one"), factory.empty_disk("disk.img")
    said = factory.install(first, [disk])
    assert "the medium is /dev/vda" in said
    for name in ("root-a", "root-verity-a", "store-a", "store-verity-a"):
        assert f"writing {name}," in said
    assert "the data partition has an empty ext4" in said
    assert "INSTALLED root" in said, said.text[-4000:]

    said = factory.boot(first, disk, f"{REPORT}\necho precious >/var/lib/docker/mine\n")
    assert said_everything(said)
    assert said.value("DATA") == "lost+found"

    second = factory.firmware("two")
    said = factory.install(second, [disk], "shiplap.data=keep")
    assert "the data partition stays where it is" in said, said.text[-4000:]
    said = factory.boot(second, disk, f'{REPORT}\necho "MINE $(cat /var/lib/docker/mine)"\n')
    assert said_everything(said)
    assert said.value("MINE") == "precious"


def test_uefi_boots_the_medium_from_a_cd_drive_and_then_the_disk(factory: Factory) -> None:
    if not STUB.exists() or not UEFI.exists():
        missing("boots", "systemd-boot-efi and ovmf are not installed")
    firmware, disk = factory.firmware("one"), factory.empty_disk("uefi.img")
    drive = f"file={firmware.root / 'provision.iso'},format=raw,if=none,id=cd,media=cdrom,readonly=on"
    cd = ("-device", "virtio-scsi-pci", "-drive", drive, "-device", "scsi-cd,drive=cd,bootindex=0")
    said = UefiMachine(firmware.kernel, firmware.initrd, [disk], extra=cd).run()
    assert "the medium is /dev/sr0" in said
    assert "INSTALLED root" in said, said.text[-4000:]

    said = UefiMachine(firmware.kernel, firmware.initrd, [disk, factory.case(firmware, REPORT)]).run()
    assert "ROOT REFUSED" not in said
    assert said_everything(said)


def test_uefi_boots_the_medium_from_a_stick(factory: Factory) -> None:
    if not STUB.exists() or not UEFI.exists():
        missing("boots", "systemd-boot-efi and ovmf are not installed")
    firmware, disk = factory.firmware("one"), factory.empty_disk("stick.img")
    medium = Disk(firmware.root / "provision.iso", "medium")
    said = UefiMachine(firmware.kernel, firmware.initrd, [medium, disk]).run()
    assert "the medium is /dev/vda" in said
    assert "INSTALLED root" in said, said.text[-4000:]


REFUSALS = [
    ("shiplap.disk=/dev/vda", 1, DISK_MIB, "/dev/vda is the medium itself"),
    ("", 2, DISK_MIB, "there are several disks: /dev/vdb /dev/vdc; name one with shiplap.disk="),
    ("", 1, 64, "/dev/vdb is too small: it has 64 MiB"),
]


@pytest.mark.parametrize(("words", "number", "mebibytes", "reason"), REFUSALS)
def test_a_wrong_disk_is_refused_on_the_console_and_not_touched(
    factory: Factory, words: str, number: int, mebibytes: int, reason: str
) -> None:
    disks = [factory.empty_disk(f"wrong{at}.img", mebibytes) for at in range(number)]
    said = factory.install(factory.firmware("one"), [Disk(disk.path, f"disk{at}", True) for at, disk in enumerate(disks)], words)
    assert f"ERROR: {reason}" in said, said.text[-4000:]
    assert "NOT INSTALLED" in said
    for disk in disks:
        assert disk.path.stat().st_blocks == 0


def test_a_disk_image_with_an_erofs_root_boots_by_its_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from erofsimages import use_new_erofs_utils

    use_new_erofs_utils(monkeypatch)
    firmware = bench.firmware("one", rootfs=("--filesystem", "erofs", "--disk", "--placement", "partition"), placement="partition")
    assert "rootfstype=erofs" in (firmware.root / "boot/kernel-cmdline.txt").read_text()
    said = firmware.boot(REPORT)
    assert said_everything(said)
