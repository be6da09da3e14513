"""A disk that boots by itself: genimage makes it from the snippet, GRUB is put on it as its own tools put it there.

The one edit of ``genimage.cfg`` is the boot loader's partitions, in the place that the snippet names.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from boot.firmware import Firmware, kernel_folder
from boot.machine import Machine, program
from requirement import missing

# The line of genimage.cfg after which a board's own partitions stand.
PLACE_OF_OTHERS = "# A boot loader's partitions go here"
BIOS_BOOT = """\
	partition grub {
		partition-type-uuid = "21686148-6449-6e6f-744e-656564454649"
		image = "core.img"
		size = 1M
	}

"""
BOOT = """\
	partition boot {{
		partition-type-uuid = "{type}"
		image = "{image}"
	}}

"""
LINUX, EFI_SYSTEM = "0fc63daf-8483-4772-8e79-3d69d8477de4", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BOOT_BYTES = 96 << 20
# What the heads of grub.cfg and grub-slots.cfg ask for.
MODULES = ("part_gpt", "fat", "ext2", "normal", "test", "search", "search_fs_file", "linux", "configfile", "loadenv")
# grub-core/boot/i386/pc: GRUB_BOOT_MACHINE_KERNEL_SECTOR in boot.img, the last entry of diskboot.img's list of blocks.
_KERNEL_SECTOR_AT, _BLOCKS_AT = 0x5C, 0x1F4
_TABLE_AT = 440  # of boot.img: what follows is the disk's own


@dataclass(frozen=True)
class LoaderMachine(Machine):
    """Nothing is given but disks. ``uefi``: a folder with qemu's UEFI; without it the machine has a BIOS."""

    uefi: Path | None = None

    def command(self) -> list[str]:
        words = super().command()
        for option in ("-kernel", "-initrd", "-append"):
            at = words.index(option)
            del words[at : at + 2]
        if self.uefi is None:
            return words
        code, variables = self.uefi / "OVMF_CODE_4M.fd", self.uefi / "OVMF_VARS_4M.fd"
        return [*words, "-machine", "q35", "-drive", f"if=pflash,format=raw,readonly=on,file={code}",
                "-drive", f"if=pflash,format=raw,snapshot=on,file={variables}"]  # fmt: skip


@dataclass(frozen=True)
class Loaders:
    """What ``get_loaders`` has unpacked."""

    root: Path

    @property
    def uefi(self) -> Path:
        return self.root / "usr/share/OVMF"

    def bios_core(self, out: Path) -> Path:
        """core.img for a BIOS boot partition; its configuration is ``/grub/grub.cfg`` of the disk's second partition."""
        self._make_image("i386-pc", "(hd0,gpt2)/grub", (*MODULES, "biosdisk"), out)
        return out

    def install_bios(self, disk: Path, core: Path) -> None:
        """What grub-install does, without a block device: boot.img finds core.img's first sector, that the following ones."""
        first = 2048  # the BIOS boot partition is the first
        boot = bytearray((self.root / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:_TABLE_AT])
        struct.pack_into("<Q", boot, _KERNEL_SECTOR_AT, first)
        head = bytearray(core.read_bytes()[:512])
        struct.pack_into("<QH", head, _BLOCKS_AT, first + 1, -(-core.stat().st_size // 512) - 1)
        with disk.open("r+b") as file:
            file.write(boot)
            file.seek(first * 512)
            file.write(head)

    def efi_program(self, out: Path) -> Path:
        """BOOTX64.EFI; its configuration is ``/grub/grub.cfg`` of the partition that it lies on."""
        self._make_image("x86_64-efi", "/grub", MODULES, out)
        return out

    def _make_image(self, platform: str, prefix: str, modules: Sequence[str], out: Path) -> None:
        words = [program("grub-mkimage"), "-O", platform, "-d", self.root / "usr/lib/grub" / platform, "-p", prefix, "-o", out, *modules]
        subprocess.run(words, check=True)

    def genimage(self, firmware: Firmware, partitions: str, files: Mapping[str, Path], work: Path) -> Path:
        """The disk of the firmware's own genimage.cfg with those partitions before its own."""
        inputs = work / "inputs"
        inputs.mkdir(parents=True)
        (work / "root").mkdir()
        every = {path.name: path for path in (*firmware.root.glob("rootfs.*"), *firmware.out.glob("store.*"))} | dict(files)
        for name, path in every.items():
            (inputs / name).symlink_to(path)
        lines = (firmware.root / "boot/genimage.cfg").read_text().splitlines(keepends=True)
        at = next(number for number, line in enumerate(lines) if PLACE_OF_OTHERS in line)
        (work / "genimage.cfg").write_text("".join([*lines[: at + 1], partitions, *lines[at + 1 :]]))
        words = [self.root / "usr/bin/genimage", "--config", work / "genimage.cfg", "--inputpath", inputs, "--outputpath", work / "out",
                 "--rootpath", work / "root", "--tmppath", work / "tmp"]  # fmt: skip
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.root / "usr/lib/x86_64-linux-gnu")}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.rmtree(work / "tmp", ignore_errors=True)
        return work / "out/disk.img"


def unpacked_loaders() -> Loaders:
    """Beside the kernels of the test machines, kept between runs."""
    folder = kernel_folder("-loaders")
    done = subprocess.run(["sh", Path(__file__).with_name("get_loaders"), folder], capture_output=True, text=True, check=False)
    if done.returncode:
        missing("boots", f"no boot loaders: {done.stderr.strip()}")
    return Loaders(folder)


def ext4_partition(files: Mapping[str, bytes | Path], out: Path) -> Path:
    """A boot partition that Linux writes and GRUB 2.06 reads."""
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        _lay(files, Path(folder))
        with out.open("wb") as image:
            image.truncate(BOOT_BYTES)
        # GRUB 2.06 does not know what e2fsprogs 1.47 sets by default elsewhere.
        subprocess.run([program("mkfs.ext4"), "-q", "-O", "^metadata_csum_seed,^orphan_file", "-d", folder, out], check=True)
    return out


def fat_partition(files: Mapping[str, bytes | Path], out: Path) -> Path:
    """An EFI system partition."""
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        _lay(files, Path(folder))
        with out.open("wb") as image:
            image.truncate(BOOT_BYTES)
        subprocess.run([program("mkfs.fat"), "-F", "32", "-i", "5411A900", out], check=True, capture_output=True)
        subprocess.run([program("mcopy"), "-s", "-i", out, *sorted(Path(folder).iterdir()), "::/"], check=True)
    return out


def _lay(files: Mapping[str, bytes | Path], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
