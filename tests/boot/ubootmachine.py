"""Machines that U-Boot starts: its files made of the snippets by its own tools, a boot partition on the disk, its environment in flash."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from boot.firmware import Firmware
from boot.foreign import arm_tools
from boot.machine import Machine, program

FLASH_BYTES = 64 << 20
ENVIRONMENT_BYTES = 256 << 10  # CONFIG_ENV_SIZE of qemu_arm64_defconfig
BOOT_MIB = 128


def tool(*words: object, folder: Path) -> str:
    """A program of U-Boot's or of this system; its output."""
    own = arm_tools() / "usr/bin" / str(words[0])
    command = [str(own if own.exists() else program(str(words[0]))), *map(str, words[1:])]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fit(firmware: Firmware, tree: Path, folder: Path, *options: object) -> Path:
    """image.itb of a firmware's texts as they are; ``tree``: the board's, ``options``: more of mkimage."""
    folder.mkdir()
    for name in ("boot.cmd", "fit.its"):
        shutil.copy(firmware.root / "boot" / name, folder)
    for name, path in (("kernel", firmware.kernel.image), ("initrd.img", firmware.initrd), ("board.dtb", tree)):
        (folder / name).symlink_to(path)
    tool("mkimage", "-f", "fit.its", *options, "image.itb", folder=folder)
    return folder / "image.itb"


def boot_script(text: Path, folder: Path) -> Path:
    tool("mkimage", "-T", "script", "-C", "none", "-n", "shiplap", "-d", text, "boot.scr", folder=folder)
    return folder / "boot.scr"


def uboot() -> Path:
    return arm_tools() / "usr/lib/u-boot/qemu_arm64/u-boot.bin"


def environment(path: Path, **variables: str) -> Path:
    """A flash with U-Boot's environment: the one that is built into it, and these variables in the place of its own."""
    data = uboot().read_bytes()
    start = data.index(b"bootcmd=run distro_bootcmd\0")
    built_in = data[start : data.index(b"\0\0", start)].decode().split("\0")
    lines = [line for line in built_in if line.partition("=")[0] not in variables]
    lines += [f"{name}={value}" for name, value in variables.items()]
    text = path.with_suffix(".txt")
    text.write_text("\n".join(lines) + "\n")
    tool("mkenvimage", "-s", ENVIRONMENT_BYTES, "-o", path, text, folder=path.parent)
    with path.open("r+b") as flash:
        flash.truncate(FLASH_BYTES)
    return path


def partitions(disk: Path) -> dict[str, tuple[int, int]]:
    """Name → (number, first byte)."""
    table = json.loads(tool("sfdisk", "-J", disk, folder=disk.parent))["partitiontable"]["partitions"]
    return {one["name"]: (number, one["start"] * 512) for number, one in enumerate(table, 1)}


def write_into(disk: Path, partition: str, content: Path) -> None:
    with disk.open("r+b") as image, content.open("rb") as source:
        image.seek(partitions(disk)[partition][1])
        shutil.copyfileobj(source, image)


def add_boot_partition(disk: Path, files: Mapping[str, Path]) -> None:
    """As docs/rootfs.md says: one more partition behind the others, marked as bootable; a FAT with those files."""
    image = disk.with_name("boot.fat")
    with image.open("wb") as made:
        made.truncate(BOOT_MIB << 20)
    tool("mkfs.fat", image, folder=disk.parent)
    for folder in sorted({name.rpartition("/")[0] for name in files if "/" in name}):
        tool("mmd", "-i", image, f"::{folder}", folder=disk.parent)
    for name, path in files.items():
        tool("mcopy", "-i", image, path, f"::{name}", folder=disk.parent)
    with disk.open("r+b") as whole:
        whole.truncate(disk.stat().st_size + ((BOOT_MIB + 2) << 20))
    tool("sgdisk", "-e", "-n", f"0:0:+{BOOT_MIB}M", "-c", "0:boot", disk, folder=disk.parent)
    tool("sgdisk", "-A", f"{partitions(disk)['boot'][0]}:set:2", disk, folder=disk.parent)
    write_into(disk, "boot", image)


@dataclass(frozen=True)
class UbootMachine(Machine):
    """``flash``: U-Boot's environment. ``tree``: the device tree in the place of qemu's own."""

    flash: Path = Path()
    tree: Path | None = None

    def command(self) -> list[str]:
        words = [*self.hardware(), "-nographic", "-no-reboot", "-drive", f"if=pflash,unit=1,format=raw,file={self.flash}"]
        if self.tree is not None:
            words += ["-dtb", str(self.tree)]
        for number, disk in enumerate(self.disks):
            words += disk.options(number)
        return words

    def hardware(self) -> list[str]:
        return [str(program(self.board.qemu[0])), *self.board.qemu[1:], "-accel", self.accelerator, "-smp", "2", "-m", str(self.memory_mib),
                "-nic", "none", "-bios", str(uboot())]  # fmt: skip

    def device_tree(self, path: Path) -> Path:
        """That of the board, as qemu makes it; with a firmware the board is another one than without."""
        subprocess.run([*self.hardware(), "-machine", f"dumpdtb={path}"], check=True, capture_output=True)
        return path
