"""The kit's overlay for Docker's driver vfs, without an engine: power cuts, and what becomes of other stores' directories."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from archives import ImageSpec
from images import file
from layertar import build
from powercuts import make_cuts, tree
from requirement import demanded, require
from seedings import seeded, unpacked_store
from storeimages import APP, BASE, DATA

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
REPOSITORIES = "image/vfs/repositories.json"


class Device:
    def __init__(self, work: Path) -> None:
        self.work = work
        self.data = work / "data"
        make_cuts(work)
        sets = {"one": [ImageSpec([BASE, APP], ["app:1"])], "two": [ImageSpec([BASE, build([file("new", b"2")])], ["app:1"])]}
        sets["three"] = [ImageSpec([DATA], ["app:1"])]
        self.stores = [unpacked_store(work / name, images, "--driver", "vfs") for name, images in sets.items()]

    def seed(self, store: Path, cut_at: int = 0, shell: tuple[str, ...] = ("dash",)) -> tuple[int, str]:
        values = {"ENGINE": "docker", "DRIVER": "vfs", "DATA_ROOT": str(self.data)}
        return seeded(self.work, store, values, shell, "busybox" if shell[0] == "busybox" else "mawk", cut_at)

    def uppers(self) -> dict[str, Path]:
        """Store ID → its upper directory."""
        return {path.parent.name: path for path in (self.data / ".shiplap").glob("*/upper")}


@pytest.fixture
def device(tmp_path: Path) -> Device:
    require("mksquashfs", "shells")
    return Device(tmp_path)


def live(upper: Path) -> None:
    """What an engine leaves in an upper directory, as far as the kit looks."""
    for folder in ("volumes/kept/_data", "containers/c1", "image/vfs/layerdb/mounts/c1"):
        (upper / folder).mkdir(parents=True, exist_ok=True)
    (upper / "volumes/kept/_data/it").write_text("1")


@pytest.mark.parametrize("shell", [("dash",), ("busybox", "ash")], ids=" ".join)
def test_volumes_move_along_one_former_store_waits_and_older_ones_go(device: Device, shell: tuple[str, ...]) -> None:
    one, two, three = device.stores
    device.seed(one, shell=shell)
    (first,) = device.uppers()
    live(device.uppers()[first])
    assert "wait for its firmware; volumes are kept" in device.seed(two, shell=shell)[1]
    second = next(name for name in device.uppers() if name != first)
    assert (device.uppers()[second] / "volumes/kept/_data/it").read_text() == "1"
    assert not (device.uppers()[first] / "volumes").exists() and (device.uppers()[first] / "containers/c1").exists()
    before = tree(device.data)
    assert device.seed(two, shell=shell)[1] == "" and tree(device.data) == before
    device.seed(one, shell=shell)
    assert (device.uppers()[first] / "volumes/kept/_data/it").read_text() == "1" and (device.uppers()[first] / "containers/c1").exists()
    assert "is removed" in device.seed(three, shell=shell)[1]
    assert len(device.uppers()) == 2 and first in device.uppers() and second not in device.uppers()


def test_a_power_cut_at_any_step_keeps_the_volumes_and_the_store_is_seen(device: Device, tmp_path: Path) -> None:
    one, two, _ = device.stores
    device.seed(one)
    upper = next(iter(device.uppers().values()))
    live(upper)
    layer = next((one / "data-root/vfs/dir").iterdir()).name
    (upper / "vfs/dir" / layer / "evil").mkdir(parents=True)
    (upper / "image/vfs").mkdir(parents=True, exist_ok=True)
    digest = "sha256:" + "d" * 64
    (upper / REPOSITORIES).write_text(f'{{"Repositories":{{"app":{{"app:1":"{digest}","app:2":"{digest}"}}}}}}')
    shutil.copytree(device.data, tmp_path / "start", symlinks=True)
    wanted = {}
    for store in (one, two):
        shutil.rmtree(device.data)
        shutil.copytree(tmp_path / "start", device.data, symlinks=True)
        device.seed(store)
        wanted[store] = tree(device.data)
    names = json.loads(wanted[one][str((upper / REPOSITORIES).relative_to(device.data))][1])["Repositories"]["app"]
    assert names["app:2"] == digest and names["app:1"] != digest
    assert not any("evil" in path for path in wanted[one])
    stride, cut_at = 1 if demanded("power-cuts") else 7, 0
    while True:
        cut_at += stride
        codes = []
        for store in (one, two):
            shutil.rmtree(device.data)
            shutil.copytree(tmp_path / "start", device.data, symlinks=True)
            codes.append(device.seed(store, cut_at)[0])
            device.seed(store)
            assert tree(device.data) == wanted[store], f"cut at step {cut_at}"
        if codes == [0, 0]:
            break
    assert cut_at > 10


def test_a_data_root_of_another_kind_is_named_and_a_mount_of_somebody_s_is_refused(device: Device) -> None:
    (device.data / "overlay2").mkdir(parents=True)
    assert f"{device.data}/overlay2 is another data-root's: it stays, and is not seen" in device.seed(device.stores[0])[1]
    subprocess.run(["mount", "-t", "tmpfs", "x", device.data], check=True)
    try:
        assert device.seed(device.stores[0])[0] == 0  # a partition of its own
    finally:
        subprocess.run(["umount", device.data], check=True)
