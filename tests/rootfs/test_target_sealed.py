"""The kit's verifying, without an engine and without a device mapper: what is never a fallback, what `verify` reads, and how
a partition is found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import ImageSpec
from engines.privateroot import PrivateRoot
from engines.targetkit import STORE, Firmware, firmware
from requirement import require
from shiplap.verity.discoverable import partition_uuids
from storeimages import APP, BASE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
DATA_ROOT = "/mnt/data/docker"
KIT = "/usr/sbin/shiplap-target"
PLACE = "/usr/share/shiplap"
IMAGE, TREE = f"{PLACE}/store.squashfs", f"{PLACE}/store.verity"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    """Sealed, with a persistent data-root."""
    require("mksquashfs", "shells", "veritysetup")
    return firmware(tmp_path_factory.mktemp("firmware") / "one", [ImageSpec([BASE, APP], ["app:1"])], DATA_ROOT, verity={"seal": "always"})


class Device:
    """A private root with the firmware's files in their places, and no engine."""

    def __init__(self, root: PrivateRoot, made: Firmware) -> None:
        self.root = root
        self.sh("mount -t tmpfs data /mnt && rm -rf /etc/docker")
        self.again(made)

    def again(self, made: Firmware) -> None:
        """As after the installation, with something in the data-root."""
        self.sh(
            f"while umount {DATA_ROOT} 2>/dev/null; do :; done; rm -rf {DATA_ROOT}; cp -a {made.root}/. /; mkdir -p {DATA_ROOT} {PLACE}"
        )
        self.sh(f"cp {made.out}/store.squashfs {made.out}/store.verity {PLACE}/; echo mine >{DATA_ROOT}/mine")
        self.change(CANARY="no")

    def sh(self, script: str, *, check: bool = True) -> str:
        return self.root.run(["sh", "-euc", script], check=check).stdout.decode()

    def change(self, **values: str) -> None:
        for key, value in values.items():
            self.sh(f"grep -q '^{key}=' /etc/shiplap/store.conf && sed -i 's,^{key}=.*,{key}={value},' /etc/shiplap/store.conf")

    def kit(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return self.root.run(["env", "DEVICE_SECONDS=0", KIT, *words], check=check)

    def flip(self, path: str, offset: int) -> None:
        """One byte of ``path`` is another one."""
        self.root.run(["python3", "-c", _FLIP, path, str(offset)])

    def mounted(self, place: str) -> str:
        """The source of what is mounted there last, or nothing."""
        lines = [line.split() for line in self.sh("cat /proc/self/mounts").splitlines()]
        return next((line[0] for line in reversed(lines) if line[1] == place), "")


_FLIP = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]))
    byte = file.read(1)[0]
    file.seek(int(sys.argv[2]))
    file.write(bytes([byte ^ 0x40]))
"""


@pytest.fixture
def device(made: Firmware, tmp_path: Path) -> Iterator[Device]:
    with PrivateRoot(tmp_path / "work", binds=[made.out.parents[1]]) as root:
        yield Device(root, made)


def refused(device: Device, message: str) -> None:
    """`seed` fails for that reason, nothing of the store is mounted, and the engine would find an empty folder that takes nothing."""
    done = device.kit("seed", check=False)
    said = done.stderr.decode()
    assert done.returncode == 1 and message in said, said
    assert "no container starts" in said
    assert device.mounted(STORE) == ""
    assert device.mounted(DATA_ROOT) == "shiplap-refused"
    assert device.root.run(["ls", "-A", DATA_ROOT]).stdout == b""


# --- sealed means sealed ---------------------------------------------------------------------------------------------

NO_FALLBACK: dict[str, tuple[Callable[[Device], object], str]] = {
    "no tree": (lambda one: one.sh(f"rm {TREE}"), f"its hash tree {TREE} is not there"),
    "no tree in the configuration": (lambda one: one.change(VERITY="''"), "its hash tree  is not there"),
    "no image": (lambda one: one.sh(f"rm {IMAGE}"), f"the store image {IMAGE} is not there"),
    "no hash": (lambda one: one.change(ROOT_HASH="''"), "has no root hash"),
    "a hash that is cut off": (lambda one: one.change(ROOT_HASH="ab" * 15), "has no root hash"),
    "a hash in capitals": (lambda one: one.change(ROOT_HASH="AB" * 32), "has no root hash"),
    "a device that cannot be opened": (lambda one: one.sh(f"echo x >{TREE}"), "dm-verity refuses"),
    "the plain image is mounted there": (lambda one: one.sh(f"mount -o ro,loop {IMAGE} {STORE}"), "is not the sealed store, but /dev/loop"),
    "no veritysetup": (lambda one: one.sh("rm $(command -v veritysetup)"), "this device has no veritysetup"),  # it does not come again
}  # fmt: skip


def test_a_sealed_store_is_opened_through_dm_verity_or_not_at_all(device: Device, made: Firmware) -> None:
    for change, message in NO_FALLBACK.values():
        change(device)
        refused(device, message)
        device.again(made)


def test_an_unpacked_store_does_not_stand_in_for_a_sealed_one(device: Device, made: Firmware) -> None:
    device.sh(f"mount -t tmpfs root {PLACE}; unsquashfs -q -n -d {STORE} {made.out}/store.squashfs")
    device.change(IMAGE="''")
    refused(device, "store.conf: sealed, and no IMAGE")


def test_an_open_device_of_our_name_with_another_root_hash_is_not_the_store(device: Device) -> None:
    """Somebody opened it before, or an earlier firmware did."""
    device.sh(
        "mount -t tmpfs t /dev; mknod /dev/null c 1 3; mkdir /dev/mapper; cp /usr/share/shiplap/store.squashfs /dev/mapper/shiplap-store"
    )
    refused(device, "/dev/mapper/shiplap-store is not open with root hash")


WORDS = {"eio": "", "restart": " --restart-on-corruption", "panic": " --panic-on-corruption"}


def test_what_a_bad_block_does_is_told_to_dm_verity(device: Device, made: Firmware) -> None:
    device.sh("printf '#!/bin/sh\\necho $* >>/mnt/asked; exit 1\\n' >$(command -v veritysetup)")
    root_hash = (made.out / "store.roothash").read_text().strip()
    for setting, words in WORDS.items():
        device.change(ON_CORRUPTION=setting)
        refused(device, f"dm-verity refuses {IMAGE} with root hash {root_hash}")
        assert device.sh("head -n 1 /mnt/asked; rm /mnt/asked") == f"open {IMAGE} shiplap-store {TREE} {root_hash}{words}\n"
        device.again(made)


def test_a_refusal_leaves_the_data_root_as_it_was_below(device: Device) -> None:
    device.sh(f"rm {TREE}")
    refused(device, "is not there")
    device.sh(f"umount {DATA_ROOT}")
    assert device.sh(f"cat {DATA_ROOT}/mine") == "mine\n"


# --- verify ----------------------------------------------------------------------------------------------------------


def quiet(device: Device) -> bool:
    """`verify` only reads."""
    return device.mounted(STORE) == device.mounted(DATA_ROOT) == "" and device.sh(f"ls -A {DATA_ROOT}") == "mine\n"


BYTES = {"layer data": (IMAGE, 4096), "the superblock": (IMAGE, 10), "the tree": (TREE, 4096 + 8), "the salt": (TREE, 70)}


def test_verify_finds_any_changed_byte_and_changes_nothing_itself(device: Device, made: Firmware) -> None:
    assert b"the store holds" in device.kit("verify").stderr
    for what, (path, offset) in BYTES.items():
        device.flip(path, offset)
        done = device.kit("verify", check=False)
        assert done.returncode == 1 and b"does not hold against its root hash" in done.stderr, what
        device.flip(path, offset)
    device.change(ROOT_HASH=(made.out / "store.roothash").read_text().strip()[::-1])
    done = device.kit("verify", check=False)
    assert done.returncode == 1 and b"does not hold against its root hash" in done.stderr
    assert quiet(device)


def test_a_full_check_reads_everything_before_the_store_is_opened(device: Device) -> None:
    device.change(CHECK="full")
    device.flip(IMAGE, 4096)
    refused(device, "does not hold against its root hash")


# --- sha256, partitions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unsealed", [{}, {"CHECK": "sha256"}], ids=["verify", "check: sha256"])
def test_without_dm_verity_the_whole_file_is_held_against_its_sum(device: Device, unsealed: dict[str, str]) -> None:
    device.change(SEALED="no", ROOT_HASH="''", VERITY="''", **unsealed)
    verb = "seed" if unsealed else "verify"
    device.flip(IMAGE, 4096)
    done = device.kit(verb, check=False)
    assert done.returncode == 1 and b"has sha256 '" in done.stderr
    assert device.mounted(STORE) == ""
    if verb == "verify":
        assert quiet(device)
        return
    device.sh(f"umount {DATA_ROOT}")
    device.flip(IMAGE, 4096)
    device.kit(verb)
    assert device.mounted(STORE).startswith("/dev/loop")


LINK = "mkdir -p /dev/disk/by-partuuid; ln -s ../../store /dev/disk/by-partuuid/{uuid}"
# What Linux 6.13 and newer say of a partition.
UEVENT = """\
mount -t tmpfs t /sys/class/block
told() {{
    mkdir /sys/class/block/$1
    printf 'MAJOR=7\\nMINOR=0\\nDEVNAME=%s\\nDEVTYPE=partition\\nPARTN=1\\nPARTUUID=%s\\n' $1 $2 >/sys/class/block/$1/uevent
}}
told other 00000000-0000-0000-0000-000000000000
told store {uuid}
ln -sf /usr/bin/busybox $(command -v blkid)
"""


@pytest.mark.parametrize("way", [LINK, UEVENT], ids=["udev's link", "the kernel's word"])
def test_a_partition_is_found_by_the_uuid_of_the_root_hash_and_may_be_longer_than_the_image(
    device: Device, made: Firmware, tmp_path: Path, way: str
) -> None:
    uuid, _ = partition_uuids((made.out / "store.roothash").read_text().strip())
    partition = tmp_path / "partition"
    shutil.copy(made.out / "store.squashfs", partition)
    size = partition.stat().st_size
    with partition.open("ab") as file:
        file.write(b"\xff" * (1 << 20))
    loop = device.sh(f"losetup --find --show {partition}").strip()
    try:
        number = int(device.sh(f"stat -c %r {loop}"))
        device.sh(f"mount -t tmpfs t /dev; mknod /dev/null c 1 3; mknod /dev/store b {number >> 8} {number & 255}")
        device.change(SEALED="no", CHECK="sha256", IMAGE=f"PARTUUID={uuid}")
        refused(device, f"the store image PARTUUID={uuid} is not there")
        device.sh(f"umount {DATA_ROOT}")
        device.sh(way.format(uuid=uuid))
        device.kit("seed")
        assert device.mounted(STORE) in ("/dev/store", f"/dev/disk/by-partuuid/{uuid}")
        device.sh(f"umount {STORE}")
        device.flip("/dev/store", 4096)
        refused(device, "has sha256 '")
        device.sh(f"umount {DATA_ROOT}")
        device.change(IMAGE_BYTES=str(size - 1))
        refused(device, "IMAGE_BYTES is")
    finally:
        # The private root's end leaves a loop device alone that losetup made.
        device.sh(f"umount {STORE} 2>/dev/null || :; umount /dev || :; losetup --detach {loop}")


# --- what the engine reads -------------------------------------------------------------------------------------------


def test_the_engine_s_configuration_is_never_written_on_the_device(device: Device) -> None:
    """On a read-only root /etc/docker gets a writable cover, with the same file in it."""
    device.change(SEALED="no", ROOT_HASH="''")
    text = device.sh("cat /etc/docker/daemon.json")
    assert '"storage-driver": "overlay2"' in text
    device.sh("sed -i 's/{/{ /' /etc/docker/daemon.json")  # as an integrator has merged it
    before = device.sh("cat /etc/docker/daemon.json; stat -c '%i %Y %Z' /etc/docker/daemon.json")
    device.kit("seed")
    assert device.sh("cat /etc/docker/daemon.json; stat -c '%i %Y %Z' /etc/docker/daemon.json") == before
    device.kit("unmount")
    device.sh("mount --bind /etc/docker /etc/docker; mount -o remount,ro,bind /etc/docker")
    device.kit("seed")
    assert device.sh("cat /etc/docker/daemon.json; touch /etc/docker/key.json") == before.rpartition("\n")[0].rpartition("\n")[0] + "\n"
    device.sh("umount /etc/docker")
    assert device.sh("ls /etc/docker") == "daemon.json\n"
