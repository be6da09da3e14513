"""A real machine: Debian's kernel, a root file system sealed by our own code, the target kit, a real engine; read on the serial console."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import docker_archive
from boot.guest import base_tar
from boot.machine import Kernel, Machine, initramfs
from commandline import shiplap_command
from engines import runnable
from requirement import missing, require
from shiplap.rootfs.kernelcheck import StoreNeeds, Weight, check_kernel, read_config

EPOCH = 1700000000
LAST_WORDS = b"""\
#!/bin/sh
echo "STATUS $(shiplap-target status --wait 20 2>&1)"
echo "IMAGES $(timeout 30 docker images -q 2>&1 | tail -n 1)"
docker wait check >/dev/null 2>&1
docker logs check 2>/dev/null | sed 's/^/SAID /'
grep -E ' /usr/share/shiplap/store | /var/lib/docker ' /proc/mounts | sed 's/^/MOUNT /'
"""
# What someone does who can change the configuration, or an accident: another root hash.
FLIP = b"""\
#!/bin/sh
grep -q flipped-root-hash /proc/cmdline || exit 0
cp -a /etc/shiplap /run/etc-shiplap
sed -i '/^ROOT_HASH=/y/0123456789abcdef/123456789abcdef0/' /run/etc-shiplap/store.conf
mount -o bind /run/etc-shiplap /etc/shiplap
"""


@dataclass(frozen=True)
class Firmware:
    kernel: Kernel
    initrd: Path
    root: Path
    tree: Path
    root_hash: str

    def boot(self, words: str = "") -> str:
        machine = Machine(self.kernel, self.initrd, [(self.root, False), (self.tree, False)], append=f"roothash={self.root_hash} {words}")
        return machine.run()


def kernel() -> Kernel:
    """SHIPLAP_BOOT_KERNEL names a folder that ``get_kernel`` has made, or will."""
    folder = Path(os.environ.get("SHIPLAP_BOOT_KERNEL") or Path(tempfile.gettempdir()) / "shiplap-boot-kernel")
    done = subprocess.run(["sh", Path(__file__).with_name("get_kernel"), folder], capture_output=True, text=True, check=False)
    if done.returncode:
        missing("qemu", f"no kernel: {done.stderr.strip()}")
    return Kernel(folder)


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    require("qemu", "docker", "veritysetup", "shells")
    work = tmp_path_factory.mktemp("firmware")
    booted = kernel()
    archive = docker_archive(work / "images.tar", [runnable.image("app:1")])
    manifest = {
        "version": 1, "epoch": EPOCH, "images": [{"ref": "app:1", "from": f"docker-archive:{archive}"}], "target": {"init": ["sysv"]},
        "containers": [{"name": "check", "image": "app:1", "network": "none"}],
    }  # fmt: skip
    (work / "shiplap.yaml").write_text(json.dumps(manifest))
    done = shiplap_command("build", "-f", str(work / "shiplap.yaml"), "-o", str(work / "out"))
    assert done.returncode == 0, done.stderr
    (work / "base.tar").write_bytes(base_tar(LAST_WORDS.decode(), {"etc/init.d/S50flip": (0o755, FLIP)}))
    done = shiplap_command(
        "rootfs", "--base", str(work / "base.tar"), "--store", str(work / "out"), "-o", str(work / "root"), "--level", "1",
        "--source-date-epoch", str(EPOCH),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    root_hash = (work / "root/rootfs.roothash").read_text().strip()
    return Firmware(booted, initramfs(booted, work / "initrd"), work / "root/rootfs.squashfs", work / "root/rootfs.verity", root_hash)


def test_nothing_is_missing_in_the_kernel_that_boots(firmware: Firmware) -> None:
    path = firmware.kernel.root / f"boot/config-{firmware.kernel.version}"
    found = check_kernel(read_config(path.read_bytes(), str(path)), StoreNeeds())
    assert [one for one in found if one.weight is not Weight.LOOK] == []


def test_a_machine_with_a_sealed_root_and_a_sealed_store_runs_its_container(firmware: Firmware) -> None:
    said = firmware.boot()
    assert "is mounted on /usr/share/shiplap/store" in said, said[-4000:]
    lines = {line.strip() for line in said.splitlines()}
    assert {f"SAID {line}" for line in runnable.expected_lines()} <= lines, said[-4000:]
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in said
    assert "MOUNT shiplap-data /var/lib/docker tmpfs" in said
    assert "FAILED" not in said


def test_a_wrong_root_hash_is_refused_on_the_console_and_nothing_starts(firmware: Firmware) -> None:
    said = firmware.boot("flipped-root-hash")
    assert (
        "shiplap: ERROR: cannot mount /usr/share/shiplap/store.squashfs on /usr/share/shiplap/store: it does not hold against root hash"
        in said
    ), said[-4000:]
    assert "the data-root is made unusable, no container starts" in said
    assert "FAILED /etc/init.d/S59shiplap-store" in said
    assert "SAID" not in said
    assert "MOUNT shiplap-refused /var/lib/docker tmpfs ro" in said
    assert "STATUS shiplap: the store is not mounted" in said
