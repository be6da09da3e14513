"""A signature of the store's root hash on its way to the kernel: what veritysetup is called with, and what is refused before.

Kernels that check it: tests/boot/test_boots_kernels.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import ImageSpec
from engines.privateroot import PrivateRoot
from engines.targetkit import Firmware, firmware
from requirement import require
from storeimages import APP, BASE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
DATA_ROOT = "/mnt/data/docker"
KIT = "/usr/sbin/shiplap-target"
PLACE = "/usr/share/shiplap"
SIGNATURE = f"{PLACE}/store.roothash.p7s"
# Tells what it was called with, and is the real one.
_TELLING = """\
#!/bin/sh
if [ "$1" = open ]; then printf '%s\\n' "$@" >/mnt/told; fi
exec /usr/sbin/veritysetup "$@"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    require("mksquashfs", "shells", "veritysetup")
    images = [ImageSpec([BASE, APP], ["app:1"])]
    return firmware(
        tmp_path_factory.mktemp("firmware") / "one", images, DATA_ROOT, "volatile", verity={"on-corruption": "restart", "seal": "always"}
    )


class Device:
    """A private root with the firmware's files in their places, and no engine."""

    def __init__(self, root: PrivateRoot, made: Firmware, work: Path) -> None:
        self.root, self.work = root, work
        (work / "veritysetup").write_text(_TELLING)
        self.sh(
            f"mount -t tmpfs data /mnt; cp {work}/veritysetup /usr/local/sbin/; chmod +x /usr/local/sbin/veritysetup; rm -rf /etc/docker"
        )
        self.sh(f"cp -a {made.root}/. /; mkdir -p {DATA_ROOT} {PLACE}; cp {made.out}/store.squashfs {made.out}/store.verity {PLACE}/")
        self.sh("sed -i s/^CANARY=.*/CANARY=no/ /etc/shiplap/store.conf")

    def sh(self, script: str) -> str:
        return self.root.run(["sh", "-euc", script]).stdout.decode()

    def sign(self, content: bytes, place: str = SIGNATURE) -> None:
        (self.work / "signature").write_bytes(content)
        self.sh(f"cp {self.work}/signature {place}")

    def seed(self) -> tuple[str, list[str]]:
        """What it said, and what veritysetup was called with; here no kernel opens anything."""
        done: subprocess.CompletedProcess[bytes] = self.root.run(
            ["sh", "-c", f"rm -f /mnt/told; {KIT} unmount; exec {KIT} seed"], check=False
        )
        assert done.returncode == 1 and b"no container starts" in done.stderr
        assert "shiplap-refused" in self.sh(f"grep ' {DATA_ROOT} ' /proc/self/mounts")
        return done.stderr.decode(), self.sh("cat /mnt/told 2>/dev/null || :").splitlines()


@pytest.fixture
def device(made: Firmware, tmp_path: Path) -> Iterator[Device]:
    with PrivateRoot(tmp_path / "work", binds=[made.out.parents[1]]) as root:
        yield Device(root, made, tmp_path)


def test_the_signature_beside_the_store_is_handed_to_the_kernel(device: Device, made: Firmware) -> None:
    root_hash = (made.out / "store.roothash").read_text().strip()
    plain = ["open", f"{PLACE}/store.squashfs", "shiplap-store", f"{PLACE}/store.verity", root_hash, "--restart-on-corruption"]
    said, told = device.seed()
    assert told == plain and "and its signature" not in said
    device.sign(bytes(32767))
    said, told = device.seed()
    assert told == [*plain, f"--root-hash-signature={SIGNATURE}"]
    assert f"with root hash {root_hash} and its signature" in said
    assert "unknown option" not in said  # veritysetup's own words


def test_image_and_tree_in_partitions_have_it_in_the_root(device: Device) -> None:
    device.sign(b"signature")
    device.sh("sed -i 's,^IMAGE=.*,IMAGE=/dev/loop-control,; s,^VERITY=.*,VERITY=/dev/null,' /etc/shiplap/store.conf")
    _, told = device.seed()
    assert told[1] == "/dev/loop-control" and told[-1] == f"--root-hash-signature={SIGNATURE}"


def test_below_rom_the_one_that_the_firmware_shipped_counts(device: Device) -> None:
    kit = "/etc/shiplap /usr/lib/shiplap /usr/sbin/shiplap-target /usr/share/shiplap"
    device.sign(b"signature")
    device.sh(f"mkdir /rom; mount -t tmpfs rom /rom; cp -a --parents {kit} /rom/; mount -o remount,ro /rom; rm {SIGNATURE}")
    assert device.seed()[1][-1] == f"--root-hash-signature=/rom{SIGNATURE}"


NONE = {
    "an empty file": ": >{0}",
    "more than a key of the kernel's ring": "dd if=/dev/zero of={0} bs=32768 count=1 2>/dev/null",
    "a folder": "mkdir {0}",
    "a link that leads nowhere": "ln -s nowhere {0}",
    "a fifo": "mkfifo {0}",
}


@pytest.mark.parametrize("what", NONE)
def test_what_is_no_signature_is_no_store_without_one(device: Device, what: str) -> None:
    device.sh(NONE[what].format(SIGNATURE))
    said, told = device.seed()
    assert f"{SIGNATURE} is no signature" in said and told == []
