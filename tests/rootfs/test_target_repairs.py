"""A persistent data-root at each boot: everything that the skeleton has is put right, and in an order that a power cut cannot spoil."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import ImageSpec
from images import file
from layertar import build
from powercuts import CHANGING, make_cuts, tree
from requirement import demanded, require
from seedings import seeded, unpacked_store
from storeimages import APP, BASE, DATA

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
NEWER = ImageSpec([BASE, build([file("new", b"2")])], ["app:1"])


class Device:
    def __init__(self, work: Path) -> None:
        self.work, self.data = work, work / "data"
        make_cuts(work)
        first = [ImageSpec([BASE, APP], ["app:1"]), ImageSpec([DATA], ["gone:1"])]
        self.stores = [unpacked_store(work / "one", first), unpacked_store(work / "two", [NEWER])]

    def seed(self, number: int = 0, cut_at: int = 0) -> str:
        return self.run("seed", number, cut_at)[1]

    def run(self, verb: str, number: int = 0, cut_at: int = 0) -> tuple[int, str]:
        values = {"ENGINE": "docker", "DRIVER": "overlay2", "DATA_ROOT": str(self.data)}
        return seeded(self.work, self.stores[number], values, cut_at=cut_at, verb=verb)

    def skeleton(self) -> list[Path]:
        """What the data-root has of the first store's files and links."""
        top = self.stores[0] / "skeleton"
        return [self.data / path.relative_to(top) for path in sorted(top.rglob("*")) if path.is_symlink() or not path.is_dir()]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    require("mksquashfs", "shells")
    yield Device(tmp_path_factory.mktemp("device"))


@pytest.fixture(autouse=True)
def empty_data_root(device: Device) -> None:
    shutil.rmtree(device.data, ignore_errors=True)


def changed(path: Path) -> None:
    if path.is_symlink():
        lead(path)
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"!")


def lead(path: Path) -> None:
    """To something else of the same kind."""
    path.unlink()
    path.symlink_to("/etc" if path.name == "diff" or path.parent.name == "l" else "/etc/hostname")


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARM: dict[str, Callable[[Path], object]] = {
    "another content": changed,
    "removed": lambda path: path.unlink(),
    "a link to elsewhere": lead,
    "a folder": become_folder,
}


@pytest.mark.parametrize("harm", HARM)
def test_each_file_and_link_of_the_skeleton_is_compared_and_repaired(device: Device, harm: str) -> None:
    """`link`, `lower`, `cache-id`, `diff`, `parent` and everything else; by contents, and not by what is there."""
    device.seed()
    whole = tree(device.data)
    found = device.skeleton()
    assert {path.name for path in found} >= {
        "link", "lower", "diff", "committed", "cache-id", "parent", "size", "tar-split.json.gz", "repositories.json"
    }  # fmt: skip
    for path in found:
        # Names are the user's, too: other names in there are not harm (test_target_hostile.py).
        if path.name == "repositories.json" and harm == "another content":
            continue
        # An empty file has no other content.
        if harm == "another content" and not path.is_symlink() and path.stat().st_size == 0:
            continue
        HARM[harm](path)
    assert tree(device.data) != whole
    device.seed()
    assert tree(device.data) == whole
    assert device.seed() == ""


def test_a_factory_name_goes_back_to_the_firmware_and_is_told(device: Device) -> None:
    device.seed()
    names = device.data / "image/overlay2/repositories.json"
    mine = "sha256:" + "d" * 64
    config = device.data / "image/overlay2/imagedb/content/sha256" / mine[7:]
    config.write_text("{}")
    whole = json.loads(names.read_text())
    names.write_text(json.dumps({"Repositories": {"app": {"app:1": mine}, "mine": {"mine:1": mine}}}))
    said = device.seed()
    assert "the name app:1 is the firmware's: it was another image's, which stays without it" in said and "mine" not in said
    whole["Repositories"]["mine"] = {"mine:1": mine}
    assert json.loads(names.read_text()) == whole
    assert config.read_text() == "{}"


_TOLD = """\
#!/bin/sh
echo {program} "$@" >>"$CUT_FOLDER/told"
exec /usr/bin/{program} "$@"
"""


def told(device: Device, number: int) -> list[list[str]]:
    """The programs that change files, in the order in which a seeding runs them."""
    cuts, aside = device.work / "cuts", device.work / "aside"
    shutil.move(cuts, aside)
    try:
        cuts.mkdir()
        for program in CHANGING:
            (cuts / program).write_text(_TOLD.replace("{program}", program))
            (cuts / program).chmod(0o755)
        (device.work / "told").unlink(missing_ok=True)
        device.seed(number, cut_at=-1)
    finally:
        shutil.rmtree(cuts)
        shutil.move(aside, cuts)
    # The data-root's own place, or where the kit sees it below a cover.
    place = re.compile("|".join(re.escape(f"{one}/") for one in (device.work / "run/data-root", device.data)))
    return [[place.sub("", word, count=1) for word in line.split()] for line in (device.work / "told").read_text().splitlines()]


def test_what_is_renamed_is_on_the_disk_and_the_stamp_comes_last(device: Device) -> None:
    """Beside the cuts at each step, which lose nothing that was written: here it is what a disk may lose."""
    for number in (0, 1):
        steps = told(device, number)
        renamed = [at for at, words in enumerate(steps) if words[0] == "mv"]
        assert len(renamed) > 5
        for at in renamed:
            source = steps[at][-2]
            assert source.startswith(".shiplap/new/"), "nothing is written in its place"
            if source == ".shiplap/new/link":
                continue
            before = [words for words in steps[:at] if words[0] != "rm"][-1]
            folder = source.rpartition("/")[0]
            assert before in (["sync", "-d", source], ["sync", "-f", folder], ["sync"]), (steps[at], before)
        *earlier, last = renamed
        assert steps[last][-1] == ".shiplap/stamp"
        assert ["sync"] in steps[earlier[-1] : last], "everything else is on the disk before"
        assert ["sync"] in steps[last:]
        # Copies go aside only, never onto what is there.
        assert all(words[-1].startswith((".shiplap/new/", str(device.work / "run"))) for words in steps if words[0] == "cp")


def test_a_power_cut_at_any_step_of_a_reset_leaves_what_a_reset_or_a_seeding_completes(device: Device, tmp_path: Path) -> None:
    device.seed()
    mine = "sha256:" + "d" * 64
    (device.data / "image/overlay2/imagedb/content/sha256" / mine[7:]).write_text("{}")
    names = device.data / "image/overlay2/repositories.json"
    names.write_text(names.read_text().replace('{"Repositories":{', f'{{"Repositories":{{"mine":{{"mine:1":"{mine}"}},'))
    (device.data / "volumes/kept/_data").mkdir(parents=True)
    (device.data / "volumes/kept/_data/it").write_text("1")
    device.seed()
    start = tmp_path / "start"
    shutil.copytree(device.data, start, symlinks=True)
    whole = tree(device.data)
    device.run("reset")
    emptied = tree(device.data)
    assert json.loads(names.read_text()) == {"Repositories": {"mine": {"mine:1": mine}}}
    assert "volumes/kept/_data/it" in emptied and not any(path.startswith(("overlay2/l/", ".shiplap")) for path in emptied)
    device.seed()
    assert tree(device.data) == whole
    stride, cut_at = 1 if demanded("power-cuts") else 11, 0
    while True:
        cut_at += stride
        codes = []
        for verb, wanted in (("reset", emptied), ("seed", whole)):
            shutil.rmtree(device.data)
            shutil.copytree(start, device.data, symlinks=True)
            codes.append(device.run("reset", cut_at=cut_at)[0])
            device.run(verb)
            assert tree(device.data) == wanted, f"cut at step {cut_at}, then {verb}"
        if codes == [0, 0]:
            break
    assert cut_at > 20
