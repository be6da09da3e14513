"""U-Boot starts an arm64 machine by the snippets of `shiplap rootfs`, as they are written. By name only: SHIPLAP_REQUIRE=boots."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from boot.cases import requires_boots, said_everything
from boot.firmware import REPORT, Firmware
from boot.foreign import ARM64, PATIENT, ForeignBench, foreign_bench
from boot.guest import case_disk
from boot.machine import Disk
from boot.ubootmachine import UbootMachine, add_boot_partition, boot_script, environment, fit, partitions, tool, write_into
from requirement import require

pytestmark = requires_boots

OPTIONS = ("--placement", "partition", "--disk", "--slots", "2", "--root-size", "128M", "--store-size", "16M")
PROMPT = "\n=> "
SECOND = "docker run --rm --network none app:1 /bin/cat /srv/second 2>&1 | sed 's/^/SECOND /'\n"


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> ForeignBench:
    require("qemu", "efi", "gpt", "snippets")
    return foreign_bench(tmp_path_factory.mktemp("uboot"), ARM64)


@pytest.fixture(scope="module")
def firmware(arm64: ForeignBench) -> Firmware:
    return arm64.firmware(rootfs=OPTIONS, placement="partition")


def machine(firmware: Firmware, disk: Path, flash: Path, after: str = REPORT, tree: Path | None = None) -> UbootMachine:
    disks = [Disk(disk, "disk", writable=True), case_disk(disk.with_name("case.tar"), PATIENT, after)]
    return UbootMachine(firmware.kernel, firmware.initrd, disks, board=firmware.board, flash=flash, tree=tree)


def device_tree(firmware: Firmware, path: Path) -> Path:
    return machine(firmware, path, path).device_tree(path)


def damaged(image: Path, part: Path) -> bytes:
    """``image`` with a bit flipped in a file that it holds."""
    data = bytearray(image.read_bytes())
    data[data.index(part.read_bytes()[:4096]) + 5000] ^= 1
    return bytes(data)


def fill_slot_b(disk: Path, firmware: Firmware) -> None:
    """What an updater's hook does on the device."""
    lines = (firmware.root / "boot/partitions.env").read_text().splitlines()
    uuids = dict(line.split("=") for line in lines if not line.startswith("#"))
    for role, folder, image in (("root", firmware.root, "rootfs"), ("store", firmware.out, "store")):
        for kind, key, file in (("", "PARTUUID", f"{image}.squashfs"), ("-verity", "VERITY_PARTUUID", f"{image}.verity")):
            name = f"{role}{kind}-b"
            write_into(disk, name, folder / file)
            tool("sfdisk", "--part-uuid", disk, partitions(disk)[name][0], uuids[f"{role.upper()}_{key}"], folder=disk.parent)


def test_the_slot_script_boots_the_new_slot_and_falls_back_when_nobody_confirms(
    arm64: ForeignBench, firmware: Firmware, tmp_path: Path
) -> None:
    newer = arm64.firmware("two", rootfs=OPTIONS, placement="partition")
    disk = tmp_path / "disk.img"
    shutil.copy(firmware.root / "disk.img", disk)
    fill_slot_b(disk, newer)
    tree = device_tree(firmware, tmp_path / "board.dtb")
    files = {"a/image.itb": fit(firmware, tree, tmp_path / "a"), "b/image.itb": fit(newer, tree, tmp_path / "b"),
             "boot.scr": boot_script(firmware.root / "boot/boot-slots.cmd", tmp_path)}  # fmt: skip
    add_boot_partition(disk, files)
    updated = environment(tmp_path / "updated", bootslot="b", upgrade_available="1", bootcount="0")
    # U-Boot's writing to its flash fails in qemu 7.2: this is what it would have written.
    unconfirmed = environment(tmp_path / "unconfirmed", bootslot="b", upgrade_available="1", bootcount="1")

    tried = machine(newer, disk, updated, REPORT + SECOND).run()
    assert said_everything(tried)
    assert tried.value("SECOND") == "2"
    assert f"roothash={newer.root_hash}" in tried
    back = machine(firmware, disk, unconfirmed, REPORT + SECOND).run()
    assert said_everything(back)
    assert "No such file" in back.value("SECOND")
    assert f"roothash={firmware.root_hash}" in back


def test_a_new_slot_whose_fit_is_damaged_is_left_at_once(firmware: Firmware, tmp_path: Path) -> None:
    """U-Boot starts anew, and then has the state of the case above."""
    good = fit(firmware, device_tree(firmware, tmp_path / "board.dtb"), tmp_path / "b")
    (tmp_path / "image.itb").write_bytes(damaged(good, firmware.initrd))
    shutil.copy(firmware.root / "disk.img", tmp_path / "disk.img")
    files = {"b/image.itb": tmp_path / "image.itb", "boot.scr": boot_script(firmware.root / "boot/boot-slots.cmd", tmp_path)}
    add_boot_partition(tmp_path / "disk.img", files)
    flash = environment(tmp_path / "flash", bootslot="b", upgrade_available="1", bootcount="0")
    console = machine(firmware, tmp_path / "disk.img", flash).run()
    assert "Bad Data Hash" in console
    assert "resetting ..." in console
    assert "Starting kernel" not in console


def test_the_script_alone_starts_the_fit_beside_it(firmware: Firmware, tmp_path: Path) -> None:
    files = {"image.itb": fit(firmware, device_tree(firmware, tmp_path / "board.dtb"), tmp_path / "fit"),
             "boot.scr": boot_script(firmware.root / "boot/boot.cmd", tmp_path)}  # fmt: skip
    shutil.copy(firmware.root / "disk.img", tmp_path / "disk.img")
    add_boot_partition(tmp_path / "disk.img", files)
    words = (firmware.root / "boot/kernel-cmdline.txt").read_text().strip()
    flash = environment(tmp_path / "flash", console="ttyAMA0,115200")
    with machine(firmware, tmp_path / "disk.img", flash).on() as running:
        console = running.until("shiplap: container check is started")
    assert f"console=ttyAMA0,115200 {words}" in console
    assert "shiplap: container check is started" in console


# --- a signed FIT -----------------------------------------------------------------------------------------------------

START = "setenv bootargs; virtio scan; load virtio 0:9 0x44000000 /image.itb && bootm 0x44000000#shiplap"


@pytest.fixture(scope="module")
def signed(firmware: Firmware, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the device tree that has the command line, a key, and U-Boot's own tree, which asks for its signatures."""
    folder = tmp_path_factory.mktemp("signed")
    device_tree(firmware, folder / "board.dtb")
    shutil.copy(folder / "board.dtb", folder / "u-boot.dtb")
    words = (firmware.root / "boot/kernel-cmdline.txt").read_text().strip()
    tool("fdtput", "-t", "s", "board.dtb", "/chosen", "bootargs", f"console=ttyAMA0 {words}", folder=folder)
    tool("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=board", "-days", "2", "-keyout", "shiplap.key",
         "-out", "shiplap.crt", folder=folder)  # fmt: skip
    fit(firmware, folder / "board.dtb", folder / "fit", "-k", folder, "-K", folder / "u-boot.dtb", "-r")
    return folder


def signed_machine(firmware: Firmware, signed: Path, image: Path, work: Path) -> UbootMachine:
    shutil.copy(firmware.root / "disk.img", work / "disk.img")
    add_boot_partition(work / "disk.img", {"image.itb": image})
    return machine(firmware, work / "disk.img", environment(work / "flash", bootcmd=START), tree=signed / "u-boot.dtb")


def test_a_signed_fit_whose_device_tree_has_the_command_line_boots_to_the_container(
    firmware: Firmware, signed: Path, tmp_path: Path
) -> None:
    console = signed_machine(firmware, signed, signed / "fit/image.itb", tmp_path).run()
    assert "Verifying Hash Integrity ... sha256,rsa2048:shiplap+ OK" in console
    assert said_everything(console)


def test_another_root_hash_in_a_signed_fit_is_refused_also_with_the_right_sums(firmware: Firmware, signed: Path, tmp_path: Path) -> None:
    other = tmp_path / "board.dtb"
    other.write_bytes((signed / "board.dtb").read_bytes().replace(firmware.root_hash.encode(), b"0" * 64))
    assert other.read_bytes() != (signed / "board.dtb").read_bytes()
    # All that somebody without the key can make.
    with signed_machine(firmware, signed, fit(firmware, other, tmp_path / "fit"), tmp_path).on() as running:
        console = running.until(PROMPT)
    assert "Failed to verify required signature 'key-shiplap'" in console
    assert "Starting kernel" not in console


def test_a_flipped_byte_of_the_initramfs_in_the_fit_is_refused(firmware: Firmware, signed: Path, tmp_path: Path) -> None:
    (tmp_path / "image.itb").write_bytes(damaged(signed / "fit/image.itb", firmware.initrd))
    with signed_machine(firmware, signed, tmp_path / "image.itb", tmp_path).on() as running:
        console = running.until(PROMPT)
    assert "Bad Data Hash" in console
    assert "Starting kernel" not in console
