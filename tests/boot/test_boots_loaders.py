"""The boot chain as a user pastes it: GRUB's files, genimage's layout, the kernel's words read by systemd in an initramfs. By name only:
`SHIPLAP_REQUIRE=boots`.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from boot.builtkernel import Signer, another_signer
from boot.cases import requires_boots, said_everything
from boot.debianguest import FSTAB, debian_root
from boot.firmware import REPORT, Bench, Firmware
from boot.guest import DOCKER, busybox_root, case_disk
from boot.loaders import BIOS_BOOT, BOOT, EFI_SYSTEM, LINUX, LoaderMachine, Loaders, ext4_partition, fat_partition, unpacked_loaders
from boot.machine import Console, Disk, Kernel, Machine, program
from boot.systemdinitrd import systemd_initramfs
from requirement import require
from shiplap.rootfs.gpt import Partition, write_disk

pytestmark = requires_boots

DISK = ("--placement", "partition", "--disk")
SLOTS = (*DISK, "--slots", "2", "--root-size", "128M", "--store-size", "16M")
NO_BRIDGE = {"bridge": "none", "iptables": False, "ip6tables": False}
SYSTEMD = {"target": {"init": ["systemd"]}, "engine-config": NO_BRIDGE}
# /mnt is GRUB's boot partition. fw_setenv and fw_printenv are what the head of grub-slots.cfg says.
SURROUNDINGS = """\
mkdir -p /dev/disk/by-partlabel /run/bin
for partition in /sys/class/block/vd*/partition; do
    name=${partition%/partition} name=${name##*/}
    ln -s "/dev/$name" "/dev/disk/by-partlabel/$(sed -n 's/^PARTNAME=//p' "/sys/class/block/$name/uevent")"
done
mount -t ext4 /dev/disk/by-partlabel/boot /mnt
printf '#!/bin/sh\\ngrub-editenv /mnt/grub/grubenv set "$1=$2"\\n' >/run/bin/fw_setenv
printf '#!/bin/sh\\ngrub-editenv /mnt/grub/grubenv list | sed -n "s/^$2=//p"\\n' >/run/bin/fw_printenv
chmod +x /run/bin/*
PATH=/run/bin:$PATH
for word in $(cat /proc/cmdline); do case $word in roothash=*) echo "WORD $word" ;; esac; done
echo "SLOT is $(fw_printenv -n bootslot) $(fw_printenv -n upgrade_available) $(fw_printenv -n bootcount)"
"""
INSTALL = """\
mkdir -p /mnt/mender/tmp /run/files && tar -xf "$(disk update)" -C /run/files && ln -sfn /run/files /mnt/mender/files
cp -r /run/files/b /mnt/ && sync
sh /run/files/mender-module ArtifactInstall /mnt/mender 2>/dev/null && echo "UPDATED $(fw_printenv -n bootslot)"
"""
# The firmware in slot b is confirmed; then slot a is to be tried once more, and nobody confirms that.
CONFIRM = """\
mkdir -p /run/files && tar -xf "$(disk update)" -C /run/files mender-module
sh /run/files/mender-module ArtifactVerifyReboot /mnt/mender && sh /run/files/mender-module ArtifactCommit /mnt/mender &&
    echo "CONFIRMED $(fw_printenv -n upgrade_available)"
fw_setenv bootslot a; fw_setenv upgrade_available 1; fw_setenv bootcount 0
"""
IMAGES = "docker images -q | wc -l | sed 's/^/IMAGES /'\n"
# Which root it is, and who opened it.
OPENED = """\
echo "INIT $(cat /proc/1/comm)"
echo "ROOT $(findmnt -n -o SOURCE,FSTYPE,OPTIONS /)"
dmsetup table root | sed 's/^/TABLE /'
ls /dev/disk/by-partuuid | sed 's/^/LINK /'
for word in $(cat /proc/cmdline); do case $word in roothash=*) echo "WORD $word" ;; esac; done
"""


@pytest.fixture(scope="module")
def loaders() -> Loaders:
    require("efi")
    return unpacked_loaders()


# --- GRUB ------------------------------------------------------------------------------------------------------------


def slot_files(firmware: Firmware, letter: str) -> dict[str, bytes | Path]:
    """What the head of grub-slots.cfg asks for."""
    return {
        f"{letter}/grub.cfg": firmware.root / "boot/grub.cfg",
        f"{letter}/vmlinuz": firmware.kernel.image,
        f"{letter}/initrd.img": firmware.initrd,
    }


def payload(firmware: Firmware, path: Path) -> Disk:
    """An update: what mender-module reads, and the folder of slot b on the boot partition."""
    files: dict[str, Path] = {f"rootfs.{end}": firmware.root / f"rootfs.{end}" for end in ("squashfs", "verity", "roothash")}
    files |= {f"store.{end}": firmware.out / f"store.{end}" for end in ("squashfs", "verity", "roothash")}
    files |= {"mender-module": firmware.root / "boot/mender-module"}
    with tarfile.open(path, "w") as tar:
        for name, file in (*files.items(), *slot_files(firmware, "b").items()):
            tar.add(file, name)
    return Disk(path, "update")


def test_grub_of_a_bios_boots_the_slot_that_an_update_set_and_falls_back(bench: Bench, loaders: Loaders, tmp_path: Path) -> None:
    require("gpt")
    base = bench.base("busybox docker sfdisk grub", lambda: busybox_root((*DOCKER, "sfdisk", "grub-editenv")))
    first, second = (bench.firmware(of, base=base, rootfs=SLOTS, placement="partition") for of in ("one", "two"))
    environment = b"# GRUB Environment Block\n".ljust(1024, b"#")
    boot = ext4_partition(
        {"grub/grub.cfg": first.root / "boot/grub-slots.cfg", "grub/grubenv": environment, **slot_files(first, "a")}, tmp_path / "boot.ext4"
    )
    core = loaders.bios_core(tmp_path / "core.img")
    partitions = BIOS_BOOT + BOOT.format(type=LINUX, image="boot.ext4")
    image = loaders.genimage(first, partitions, {"core.img": core, "boot.ext4": boot}, tmp_path / "disk")
    loaders.install_bios(image, core)
    disk, update = Disk(image, "disk", writable=True), payload(second, tmp_path / "update.tar")

    def start(after: str) -> Console:
        case = case_disk(tmp_path / "case.tar", "mkdir -p /mnt\n", f"{SURROUNDINGS}{after}umount /mnt\n")
        return LoaderMachine(first.kernel, first.initrd, [disk, case, update], memory_mib=1024).run()

    words = [f"roothash={firmware.root_hash}" for firmware in (first, second)]
    said = start(INSTALL + REPORT + IMAGES)
    assert said_everything(said)
    assert (said.value("WORD"), said.value("SLOT"), said.value("IMAGES"), said.value("UPDATED")) == (words[0], "is", "2", "b")
    said = start(CONFIRM + REPORT + IMAGES)
    assert said_everything(said)
    assert (said.value("WORD"), said.value("SLOT"), said.value("IMAGES")) == (words[1], "is b 1 1", "1")
    assert said.value("CONFIRMED") == "0"
    said = start("")
    assert (said.value("WORD"), said.value("SLOT")) == (words[0], "is a 1 1")
    said = start("")
    assert (said.value("WORD"), said.value("SLOT")) == (words[1], "is b 0 0")


def test_grub_under_uefi_starts_systemd_in_the_initramfs_and_then_in_the_root(bench: Bench, loaders: Loaders, tmp_path: Path) -> None:
    """The disk is genimage's. The root has AppArmor's parser, because grub.cfg has no word against AppArmor."""
    base = bench.base("systemd docker apparmor", lambda: debian_root(("docker.io", "apparmor")))
    firmware = bench.firmware(base=base, rootfs=DISK, placement="partition", **SYSTEMD)
    files = {
        "EFI/BOOT/BOOTX64.EFI": loaders.efi_program(tmp_path / "grub.efi"),
        "grub/grub.cfg": firmware.root / "boot/grub.cfg",
        "vmlinuz": firmware.kernel.image,
        "initrd.img": systemd_initrd(bench)[1],
    }
    esp = fat_partition(files, tmp_path / "esp.fat")
    image = loaders.genimage(firmware, BOOT.format(type=EFI_SYSTEM, image="esp.fat"), {"esp.fat": esp}, tmp_path / "disk")
    disks = [Disk(image, "disk"), case_disk(tmp_path / "case.tar", ":\n", f"{REPORT}{OPENED}")]
    said = LoaderMachine(firmware.kernel, firmware.initrd, disks, memory_mib=1024, uefi=loaders.uefi).run()
    assert said_everything(said)
    assert opened_by_systemd(said, firmware)


# --- systemd in the initramfs ----------------------------------------------------------------------------------------


def systemd_initrd(bench: Bench) -> tuple[Kernel, Path]:
    kernel, initrd = bench.kernel()
    made = initrd.with_name("systemd-initrd.gz")
    return kernel, made if made.exists() else systemd_initramfs(kernel, made)


def words_of(firmware: Firmware) -> str:
    return (firmware.root / "boot/kernel-cmdline.txt").read_text().strip()


def partitions(firmware: Firmware) -> dict[str, str]:
    """boot/partitions.env."""
    lines = (firmware.root / "boot/partitions.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def opened_by_systemd(said: Console, firmware: Firmware) -> bool:
    """The root is what that root hash opens, systemd runs in it, and udev's links led to the store's partitions."""
    assert said.value("INIT") == "systemd"
    assert said.value("ROOT").startswith("/dev/mapper/root squashfs ro")
    assert said.value("WORD") == f"roothash={firmware.root_hash}"
    assert f" sha256 {firmware.root_hash} " in said.value("TABLE")
    store = next(line for line in said.after("MOUNT") if " /usr/share/shiplap/store " in line)
    assert store.startswith("/dev/mapper/shiplap-store ")
    uuids = partitions(firmware)
    return {uuids["STORE_PARTUUID"], uuids["STORE_VERITY_PARTUUID"]} <= set(said.after("LINK"))


@pytest.fixture(scope="module")
def systemd_firmware(bench: Bench) -> Firmware:
    return bench.firmware(base=bench.base("systemd docker", debian_root), rootfs=DISK, placement="partition", **SYSTEMD)


@pytest.mark.parametrize("alone", [False, True])
def test_systemd_opens_the_root_by_our_words_and_by_the_root_hash_alone(bench: Bench, systemd_firmware: Firmware, alone: bool) -> None:
    """Alone, its generator takes the partitions' UUIDs from the hash, as the Discoverable Partitions Specification says."""
    kernel, initrd = systemd_initrd(bench)
    words = f"roothash={systemd_firmware.root_hash}" if alone else words_of(systemd_firmware)
    case = case_disk(systemd_firmware.work / "case.tar", ":\n", f"{REPORT}{OPENED}")
    said = Machine(kernel, initrd, [*systemd_firmware.disks(), case], append=f"{words} apparmor=0").run()
    assert said_everything(said)
    assert opened_by_systemd(said, systemd_firmware)


def test_systemd_refuses_a_root_that_does_not_hold_against_the_root_hash(bench: Bench, systemd_firmware: Firmware) -> None:
    """The partitions are named, so they are found; what they hold belongs to another hash."""
    kernel, initrd = systemd_initrd(bench)
    good = systemd_firmware.root_hash
    other = good[:-1] + ("0" if good[-1] != "0" else "1")
    words = words_of(systemd_firmware).replace(f"roothash={good}", f"roothash={other}")
    assert words != words_of(systemd_firmware)
    with Machine(kernel, initrd, systemd_firmware.disks(), append=words).on() as machine:
        said = machine.until("You are in emergency mode")
    assert "is corrupted" in said
    assert "Dependency failed for" in said and "sysroot.mount" in said
    assert "Switch" not in said and "UPTIME" not in said


# --- partitions that come late ---------------------------------------------------------------------------------------


LATE_SECONDS = 20


def plug_in(socket_path: Path, disk: Disk) -> None:
    """As somebody who puts in a card: qemu's QMP, one command for the image and one for the device."""
    commands: list[dict[str, Any]] = [
        {"execute": "qmp_capabilities"},
        {
            "execute": "blockdev-add",
            "arguments": {"driver": "file", "filename": str(disk.path), "node-name": disk.serial, "locking": "off"},
        },
        {"execute": "device_add", "arguments": {"driver": "virtio-blk-pci", "drive": disk.serial, "serial": disk.serial}},
    ]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path))
        lines = connection.makefile("rw")
        lines.readline()
        for command in commands:
            lines.write(json.dumps(command) + "\n")
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline())):
                assert "error" not in answer, answer


def partitioned(disk: Disk, uuid: str, out: Path) -> Disk:
    """The same file system in a partition of that UUID."""
    content = Partition("data", LINUX, uuid, disk.path.stat().st_size, disk.path)
    write_disk(out, [content], "00000000-0000-4000-8000-000000000001")
    return Disk(out, disk.serial, writable=True)


def test_systemd_waits_for_a_data_partition_that_comes_late(bench: Bench, systemd_firmware: Firmware, tmp_path: Path) -> None:
    """By PARTUUID in /etc/fstab, the same for each firmware; the root's udev makes the links, also to the store's partitions."""
    uuid = partitions(systemd_firmware)["DATA_PARTUUID"]
    mounts = f"{FSTAB}PARTUUID={uuid} /var/lib/docker ext4 noatime,x-systemd.device-timeout=10min 0 2\n"
    base = bench.base("systemd docker late", lambda: debian_root(files={"etc/fstab": (0o644, mounts.encode())}))
    data_root = {"path": "/var/lib/docker", "persistence": "persistent"}
    firmware = bench.firmware(base=base, rootfs=DISK, placement="partition", **SYSTEMD, **{"data-root": data_root})
    late = partitioned(bench.data_disk(), uuid, tmp_path / "late.img")
    kernel, initrd = systemd_initrd(bench)
    case = case_disk(tmp_path / "case.tar", ":\n", f"{REPORT}{OPENED}")
    with tempfile.TemporaryDirectory(prefix="shiplap-qmp-") as folder:
        extra = ("-qmp", f"unix:{folder}/socket,server=on,wait=off")
        words = f"{words_of(firmware)} apparmor=0 systemd.show_status=1"
        with Machine(kernel, initrd, [*firmware.disks(), case], append=words, extra=extra).on() as machine:
            machine.until("systemd-remount-f")  # the root's systemd, not the initramfs's
            time.sleep(LATE_SECONDS)
            assert "shiplap" not in machine.console()
            plug_in(Path(folder) / "socket", late)
            said = machine.ended()
    assert said_everything(said)
    assert any(" /var/lib/docker ext4 rw" in line for line in said.after("MOUNT"))
    assert opened_by_systemd(said, firmware)
    assert uuid in said.after("LINK")


# --- usrhash= --------------------------------------------------------------------------------------------------------


def split(base: Path, folder: Path) -> tuple[Path, Path]:
    """A tar of what is below /usr, named from there, and one of everything else, in which no engine starts."""
    usr, rest = folder / "usr.tar", folder / "rest.tar"
    with tarfile.open(base) as whole, tarfile.open(usr, "w") as inside, tarfile.open(rest, "w") as outside:
        for member in whole:
            content = whole.extractfile(member) if member.isreg() else None
            if member.name.startswith("usr/"):
                member.name = member.name.removeprefix("usr/")
                if member.islnk():
                    member.linkname = member.linkname.removeprefix("usr/")
                inside.addfile(member, content)
            elif not re.search(r"/(docker|containerd)\.", member.name):
                outside.addfile(member, content)
    return usr, rest


def test_systemd_mounts_an_image_as_usr_of_another_root(bench: Bench, tmp_path: Path) -> None:
    """Only /usr is sealed then. The target kit has no part in it: its place is a whole root."""
    require("tar2sqfs")
    usr, rest = split(bench.base("systemd docker", debian_root), tmp_path)
    with rest.open("rb") as packed:
        subprocess.run([program("tar2sqfs"), "-q", tmp_path / "rest.squashfs"], stdin=packed, check=True)
    firmware = bench.firmware(base=usr, rootfs=DISK, placement="partition", **SYSTEMD)
    kernel, initrd = systemd_initrd(bench)
    words = (firmware.root / "boot/kernel-cmdline-usr.txt").read_text().strip()
    asked = """\
for place in / /usr; do echo "AT $place $(findmnt -n -o SOURCE,FSTYPE,OPTIONS $place)"; done
echo "TABLE $(dmsetup table usr)"
"""
    disks = [*firmware.disks(), Disk(tmp_path / "rest.squashfs", "rest"), case_disk(tmp_path / "case.tar", ":\n", asked)]
    said = Machine(kernel, initrd, disks, append=f"root=/dev/disk/by-id/virtio-rest rootfstype=squashfs ro {words}").run()
    root, mounted = (line.split() for line in said.after("AT"))
    assert (root[1], root[2]) == ("/dev/vdb", "squashfs")
    assert (mounted[1], mounted[2]) == ("/dev/mapper/usr", "squashfs") and mounted[3].startswith("ro")
    assert f" sha256 {firmware.root_hash} " in said.value("TABLE")


# --- a signature -----------------------------------------------------------------------------------------------------


def signed(bench: Bench, firmware: Firmware, signer: Signer, folder: Path) -> Firmware:
    """The same root, built again with a signature of its root hash."""
    (folder / "rootfs.roothash.p7s").write_bytes(signer.sign(firmware.root_hash))
    options = (*DISK, "--signature", str(folder / "rootfs.roothash.p7s"), "--certificate", str(signer.certificate))
    made = bench.firmware(base=bench.base("systemd docker", debian_root), rootfs=options, placement="partition", **SYSTEMD)
    assert made.root_hash == firmware.root_hash
    assert " systemd.verity_root_options=root-hash-signature=base64:" in words_of(made)
    return made


def test_a_kernel_refuses_a_signature_of_somebody_that_it_does_not_trust(bench: Bench, systemd_firmware: Firmware, tmp_path: Path) -> None:
    """Debian's kernel looks at a signature that it is given (CONFIG_DM_VERITY_VERIFY_ROOTHASH_SIG): so the words reach it."""
    firmware = signed(bench, systemd_firmware, another_signer(tmp_path), tmp_path)
    kernel, initrd = systemd_initrd(bench)
    with Machine(kernel, initrd, firmware.disks(), append=words_of(firmware)).on() as machine:
        said = machine.until("You are in emergency mode")
    assert "verity: Root hash verification failed (-ENOKEY)" in said or "verity: Root hash verification failed (-126)" in said
    assert "Dependency failed for" in said and "sysroot.mount" in said
    assert "is corrupted" not in said and "UPTIME" not in said
