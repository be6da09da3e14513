"""The target kit's seeding, cut off after every single program that it runs: the next boot always ends in the same data-root."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from images import file
from layertar import build
from powercuts import cut_environment, make_cuts, tree
from requirement import demanded
from storeimages import APP, BASE, DATA

KIT = Path(__file__).resolve().parents[2] / "rootfs/target/files"
PERSISTENT = {
    "FORMAT": "1",
    "DRIVER": "overlay2",
    "MODE": "store",
    "ENGINE": "docker",
    "STORE_PATH": "/s",
    "SEALED": "no",
    "PERSISTENCE": "persistent",
}


class Device:
    """Two firmwares' skeletons in folders; the kit runs as on a device, except that the store is mounted already."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.data = work / "data"
        make_cuts(work)
        self.stores = [self._store("one", [ImageSpec([BASE, APP], ["app:1"]), ImageSpec([DATA], ["gone:1"])]),
                       self._store("two", [ImageSpec([BASE, build([file("new", b"2")])], ["app:1"])])]  # fmt: skip

    def _store(self, name: str, images: list[ImageSpec]) -> Path:
        folder = self.work / name
        folder.mkdir()
        archive = docker_archive(folder / "images.tar", images)
        done = shiplap_command(
            "build", f"docker-archive:{archive}", "-o", str(folder / "out"), "--store-path", "/s", "--source-date-epoch", "1"
        )
        assert done.returncode == 0, done.stderr
        subprocess.run(["unsquashfs", "-q", "-n", "-d", folder / "store", folder / "out/store.squashfs"], check=True, capture_output=True)
        return folder / "store"

    def seed(self, store: Path, shell: list[str], cut_at: int = 0) -> int:
        conf = self.work / "store.conf"
        values = PERSISTENT | {
            "STORE_ID": hashlib.sha256((store / "store.json").read_bytes()).hexdigest(),
            "IMAGE": "/nowhere", "DATA_ROOT": str(self.data), "STORE_PATH": str(store.parent),
        }  # fmt: skip
        conf.write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items()))
        environment = cut_environment(self.work, cut_at) | {
            "SHIPLAP_CONF": str(conf), "SHIPLAP_LIB": str(KIT), "SHIPLAP_RUN": str(self.work / "run"),
        }  # fmt: skip
        # A mount namespace of its own, where the store's folder is mounted onto itself.
        inside = f"mount --bind {store} {store} && exec {shlex.join(shell)} {KIT}/shiplap-target seed"
        done = subprocess.run(["unshare", "--mount", "sh", "-c", inside], env=environment, capture_output=True, check=False)
        if not cut_at:
            assert done.returncode == 0, done.stderr.decode()
        return done.returncode


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
def test_a_power_cut_at_any_step_leaves_what_the_next_boot_repairs(tmp_path: Path) -> None:
    device = Device(tmp_path)
    shell = ["dash"]
    first, second = device.stores
    device.seed(first, shell)
    first_tree = tree(device.data)
    shutil.copytree(device.data, tmp_path / "seeded", symlinks=True)
    device.seed(second, shell)
    second_tree = tree(device.data)
    assert first_tree != second_tree

    # Every step takes minutes: by name only, `SHIPLAP_REQUIRE=power-cuts`. The stride is prime, so that it falls on all kinds of steps.
    stride = 1 if demanded("power-cuts") else 7
    cut_at = 0
    while True:  # from nothing
        cut_at += stride
        shutil.rmtree(device.data)
        if device.seed(first, shell, cut_at) == 0:
            break
        device.seed(first, shell)
        assert tree(device.data) == first_tree, f"cut at step {cut_at}"
    steps = cut_at
    cut_at = 0
    while True:  # an update, cut, then either of the two firmwares boots
        cut_at += stride
        for boots, wanted in ((second, second_tree), (first, first_tree)):
            shutil.rmtree(device.data)
            shutil.copytree(tmp_path / "seeded", device.data, symlinks=True)
            code = device.seed(second, shell, cut_at)
            device.seed(boots, shell)
            assert tree(device.data) == wanted, f"update cut at step {cut_at}, then {boots.parent.name} booted"
        if code == 0:
            break
    print(steps, cut_at)
    assert steps > 20 and cut_at > 20
