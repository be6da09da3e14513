"""Disks that are full or cannot write, below the target kit: a failure that is seen, the cover, and a next try that completes it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from archives import ImageSpec
from engines.privateroot import PrivateRoot
from engines.targetkit import Firmware, firmware
from images import file
from layertar import build
from requirement import require
from storeimages import APP, BASE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
DATA_ROOT = "/mnt/data"
KIT = "/usr/sbin/shiplap-target"
DRIVERS = {"overlay2": {"driver": "overlay2"}, "vfs": {"driver": "vfs"}, "overlay": {"engine": "podman"}}
# BusyBox' awk, grep, sed and sort end with 0 when they could not write.
APPLETS = ("awk", "cat", "cp", "dd", "grep", "ln", "mkdir", "mv", "rm", "sed", "sort", "sync")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Firmware]]:
    require("mksquashfs", "shells")
    folder = tmp_path_factory.mktemp("firmware")
    sets = (
        [ImageSpec([BASE, APP], ["app:1"])],
        [ImageSpec([BASE, build([file("new", b"2")])], ["app:1", *(f"app:{n}" for n in range(2, 9))])],
    )
    return {
        name: [
            firmware(folder / f"{name}{number}", images, DATA_ROOT, squashfs={"level": 1}, target={"init": ["sysv"]}, **keys)
            for number, images in enumerate(sets)
        ]
        for name, keys in DRIVERS.items()
    }


class Device:
    """A private root with a small data partition, BusyBox' programs, and no engine."""

    def __init__(self, root: PrivateRoot, made: Sequence[Firmware]) -> None:
        self.root, self.made = root, made
        links = "; ".join(f"ln -sf /usr/bin/busybox /usr/local/sbin/{name}" for name in APPLETS)
        self.sh(f"{links}; mkdir -p {DATA_ROOT}; mount -t tmpfs -o size=2m,nr_inodes=2000 data {DATA_ROOT}; rm -rf /etc/docker")
        self.install(0)
        self.kit("seed")

    def sh(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return self.root.run(["busybox", "ash", "-euc", script], check=check)

    def install(self, number: int) -> None:
        made = self.made[number]
        self.sh(f"{KIT} unmount || :; rm -rf /etc/shiplap; cp -a {made.root}/. /; cp {made.out}/store.squashfs /usr/share/shiplap/")

    def kit(self, verb: str, *, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return self.root.run(["busybox", "ash", KIT, verb], check=check)

    def covered(self) -> bool:
        table = self.sh("cat /proc/self/mounts").stdout.decode().splitlines()
        return [line.split()[0] for line in table if line.split()[1] == DATA_ROOT][-1] == "shiplap-refused"

    def stamp(self) -> str:
        """Of the data partition itself, whatever covers it."""
        self.sh(f"{KIT} unmount")
        return self.sh(f"cat {DATA_ROOT}/.shiplap/stamp").stdout.decode().strip()


@pytest.fixture(params=DRIVERS)
def device(request: pytest.FixtureRequest, made: dict[str, list[Firmware]], tmp_path: Path) -> Iterator[Device]:
    both = made[request.param]
    with PrivateRoot(tmp_path / "work", binds=[one.out.parent for one in both]) as root:
        yield Device(root, both)


def heals(device: Device) -> None:
    """The next start of the device, or of the service."""
    device.kit("unmount")
    device.kit("seed")
    assert not device.covered()
    wanted = next(line for line in device.made[1].conf.read_text().splitlines() if line.startswith("STORE_ID="))
    assert device.stamp() == shlex.split(wanted)[0].removeprefix("STORE_ID=")


@pytest.mark.parametrize(
    "fill", ["dd if=/dev/zero of={0}/ballast bs=4096 2>/dev/null || :", "n=0; while : >{0}/ballast$n; do n=$((n+1)); done"]
)
def test_a_full_data_partition_covers_it_and_room_heals_it(device: Device, fill: str) -> None:
    """Bytes, or inodes."""
    device.install(1)
    device.sh(f"({fill.format(DATA_ROOT)}) 2>/dev/null || :")
    done = device.kit("seed", check=False)
    assert done.returncode != 0 and device.covered(), done.stderr
    device.kit("unmount")
    device.sh(f"rm {DATA_ROOT}/ballast*")
    heals(device)


def test_without_room_for_its_lists_it_does_not_seed_by_shorter_ones(device: Device) -> None:
    device.install(1)
    device.sh(
        "mkdir -p /run/shiplap; mount -t tmpfs -o size=64k run /run/shiplap; dd if=/dev/zero of=/run/shiplap/x bs=1k count=56 2>/dev/null"
    )
    done = device.kit("seed", check=False)
    assert b"/run/shiplap is full" in done.stderr and done.returncode == 1 and device.covered(), done.stderr
    device.kit("unmount")
    device.sh("umount /run/shiplap")
    heals(device)


_FAILING_SYNC = """\
#!/bin/sh
case $* in -*/.shiplap/new*) echo "sync: Input/output error" >&2; exit 1 ;; esac
exec /usr/bin/busybox sync "$@"
"""


def test_what_the_disk_did_not_take_does_not_pass_for_written(device: Device, tmp_path: Path) -> None:
    """A sync that fails is no sync that lacks an option."""
    device.install(1)
    (tmp_path / "sync").write_text(_FAILING_SYNC)
    device.sh(f"rm /usr/local/sbin/sync; cp {tmp_path}/sync /usr/local/sbin/; chmod +x /usr/local/sbin/sync")
    done = device.kit("seed", check=False)
    assert b"Input/output error" in done.stderr and done.returncode != 0 and device.covered(), done.stderr
    device.sh("ln -sf /usr/bin/busybox /usr/local/sbin/sync")
    heals(device)
