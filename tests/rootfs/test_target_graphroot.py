"""The kit's reading of Podman's lists, without an engine: every awk that devices have, against a model; hostile lists; power cuts."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec
from images import file
from layertar import build
from powercuts import make_cuts, tree
from requirement import demanded, require
from seedings import seeded, unpacked_store
from storeimages import APP, BASE, DATA

LAYERS, IMAGES = "overlay-layers/layers.json", "overlay-images/images.json"
AWKS = ("mawk", "busybox", "gawk")
Records = list[dict[str, Any]]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")


class Device:
    """Two firmwares' stores in folders; the kit runs as on a device, except that the store is mounted already."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.graphroot = work / "graphroot"
        make_cuts(work)
        self.old = unpacked_store(work / "old", [ImageSpec([BASE, APP], ["app:1"]), ImageSpec([DATA], ["gone:1"])], "--engine", "podman")
        self.new = unpacked_store(work / "new", [ImageSpec([BASE, build([file("new", b"2")])], ["app:1"])], "--engine", "podman")

    def seed(self, firmware: Path, shell: Sequence[str] = ("dash",), awk: str = "mawk", cut_at: int = 0) -> tuple[int, str]:
        values = {"ENGINE": "podman", "DRIVER": "overlay", "DATA_ROOT": str(self.graphroot)}
        return seeded(self.work, firmware, values, shell, awk, cut_at)

    def write(self, name: str, content: Records | str) -> None:
        path = self.graphroot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, separators=(",", ":")))

    def read(self, name: str) -> Records:
        found: Records = json.loads((self.graphroot / name).read_text())
        return found

    def add_layer(self, one: dict[str, Any]) -> None:
        folder = self.graphroot / "overlay" / one["id"]
        (folder / "diff").mkdir(parents=True)
        link = one["id"][:26].upper()
        (folder / "link").write_text(link)
        (self.graphroot / "overlay/l").mkdir(exist_ok=True)
        (self.graphroot / "overlay/l" / link).symlink_to(f"../{one['id']}/diff")


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    require("mksquashfs", "shells")
    return Device(tmp_path_factory.mktemp("device"))


@pytest.fixture(autouse=True)
def empty_graphroot(device: Device) -> None:
    shutil.rmtree(device.graphroot, ignore_errors=True)
    device.graphroot.mkdir()


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def layer(name: str, parent: str = "", **more: Any) -> dict[str, Any]:
    return {"id": digest(name), **({"parent": parent} if parent else {}), "created": "2024-01-01T00:00:00Z", "uidset": [0, 7], **more}


def image(name: str, top: str, names: list[str] | None, **more: Any) -> dict[str, Any]:
    named = {} if names is None else {"names": names, "names-history": ["x"]}
    metadata = '{"a":"]}[{\\"","b":[1]}\\'
    return {
        "id": digest(name),
        "digest": "sha256:1",
        **named,
        "layer": top,
        "metadata": metadata,
        "big-data-sizes": {"manifest": 5},
        **more,
    }


def factory(firmware: Path) -> tuple[Records, Records]:
    return json.loads((firmware / LAYERS).read_text()), json.loads((firmware / IMAGES).read_text())


def tops(firmware: Path) -> dict[str, str]:
    return {one["names"][0]: one["layer"] for one in factory(firmware)[1]}


@pytest.mark.parametrize("awk", AWKS)
def test_what_stays_and_what_goes_is_what_a_model_says(device: Device, awk: str) -> None:
    """Random lists: layers on the store's, on each other, on nothing; images and containers on them, with all kinds of names."""
    if not Path(f"/usr/bin/{awk}").exists():
        pytest.skip(f"no {awk}")
    for number in range(6):
        chance = random.Random(number)
        shutil.rmtree(device.graphroot)
        device.graphroot.mkdir()
        layers, top = factory(device.new)
        store_layers = [one["id"] for one in layers]
        own: Records = []
        for count in range(chance.randrange(12)):
            possible = ["", *store_layers, digest("vanished"), *(one["id"] for one in own)]
            own.append(
                layer(
                    f"layer {number} {count}", chance.choice(possible), **({"names": [f"c{count}-layer"]} if chance.random() < 0.3 else {})
                )
            )
        own += [one for one in layers if chance.random() < 0.2]
        chance.shuffle(own)
        for one in own:
            device.add_layer(one)
        anywhere = [one["id"] for one in own] + store_layers + [digest("vanished"), ""]
        names = [["docker.io/library/app:1"], ["localhost/u:1"], ["localhost/u:2", "docker.io/library/app:1"], [], None]
        pictures = [image(f"image {number} {count}", chance.choice(anywhere), chance.choice(names)) for count in range(8)]
        pictures += [top[0] | {"names": chance.choice([["localhost/mine:1", *top[0]["names"]], ["localhost/mine:1"], top[0]["names"], []])}]
        containers = [
            {"id": digest(f"c{count}"), "names": [f"c{count}"], "image": digest("x"), "layer": chance.choice(anywhere)}
            for count in range(3)
        ]
        device.write(LAYERS, own)
        device.write(IMAGES, pictures)
        device.write("overlay-containers/containers.json", containers)
        device.seed(device.new, ["busybox", "ash"] if awk == "busybox" else ["dash"], awk)
        assert device.read(LAYERS) == modelled_layers(own, containers, store_layers)
        assert device.read(IMAGES) == modelled_images(pictures, own, top, store_layers)
        assert device.read("overlay-containers/containers.json") == containers
        kept = {one["id"] for one in device.read(LAYERS)}
        assert {path.name for path in (device.graphroot / "overlay").glob("?" * 64)} == kept
        assert len(list((device.graphroot / "overlay/l").glob("*"))) == len(kept)


def stands(one: str, parents: dict[str, str], store_layers: Sequence[str]) -> bool:
    return one == "" or one in store_layers or (one in parents and stands(parents[one], parents, store_layers))


def modelled_layers(own: Records, containers: Records, store_layers: Sequence[str]) -> Records:
    parents = {one["id"]: one.get("parent", "") for one in own if one["id"] not in store_layers}
    used = {one["layer"] for one in containers}
    return [one for one in own if one["id"] in parents and (stands(one["id"], parents, store_layers) or one["id"] in used)]


def modelled_images(pictures: Records, own: Records, top: Records, store_layers: Sequence[str]) -> Records:
    parents = {one["id"]: one.get("parent", "") for one in own if one["id"] not in store_layers}
    owner = {name: one["id"] for one in top for name in one["names"]}
    kept = []
    for one in pictures:
        if not stands(one["layer"], parents, store_layers):
            continue
        names = [name for name in one.get("names", []) if owner.get(name, one["id"]) == one["id"]]
        if one["id"] in owner.values():
            if set(names) <= set(owner):
                continue  # the store's own record says as much
            names += sorted({name for name in owner if owner[name] == one["id"]} - set(names))
        kept.append(one | {"names": names} if "names" in one else one)
    return kept


def test_lists_with_blanks_are_read_and_unchanged_ones_are_left_alone(device: Device) -> None:
    for empty in ("[]", "null", ""):
        device.write(LAYERS, empty)
        device.write(IMAGES, empty)
        assert "ERROR" not in device.seed(device.new)[1]
        assert (device.graphroot / LAYERS).read_text() == empty
    lost = image("lost", digest("vanished"), ["localhost/lost:1"])
    stays = image("stays", tops(device.new)["docker.io/library/app:1"], ["localhost/stays:1"])
    device.write(IMAGES, json.dumps([lost, stays], indent=2))
    assert "image localhost/lost:1 is gone" in device.seed(device.new)[1]
    assert device.read(IMAGES) == [stays]
    before = (device.graphroot / IMAGES).stat()
    device.seed(device.new)
    assert (device.graphroot / IMAGES).stat() == before


@pytest.mark.parametrize("awk", AWKS)
def test_what_reads_differently_for_another_reader_goes(device: Device, awk: str) -> None:
    """Go takes keys in any case and of two the last; an escaped name is a name."""
    top = tops(device.new)["docker.io/library/app:1"]
    records = [
        '{"\\u0069d":"FACTORY","id":"MINE","layer":"TOP"}',
        '{"id":"MINE","ID":"FACTORY","layer":"TOP"}',
        '{"id":"MINE","layer":"TOP","names":["docker.io/library/\\u0061pp:1"]}',
        '{"id":"MINE","layer":"TOP","names":["a:1"],"names":["docker.io/library/app:1"]}',
        '{"id":"MINE","layer":"TOP","names":[["docker.io/library/app:1"]]}',
        '{"id":"../../etc","layer":"TOP"}',
        '{"layer":"TOP"}',
    ]
    words = {"FACTORY": factory(device.new)[1][0]["id"], "MINE": digest("a"), "TOP": top}
    good = json.dumps(image("good", top, ["localhost/good:1"]), separators=(",", ":"))
    for record in records:
        for word, value in words.items():
            record = record.replace(word, value)
        device.write(IMAGES, f"[{record},{good}]")
        assert "repaired: image record that the engine did not write" in device.seed(device.new, awk=awk)[1], record
        assert (device.graphroot / IMAGES).read_text() == f"[{good}]", record
    broken = ["[{]", '{"id":"x"}', '["x"]', '[{"id":"x}]', "[[]]", '[{"id":"x"}', "x", '[{"a\\"}]']
    for text in broken:
        device.write(IMAGES, text)
        assert "is no list that the engine writes" in device.seed(device.new, awk=awk)[1], text
        assert not (device.graphroot / IMAGES).exists()
        assert (device.graphroot / ".shiplap/unreadable/images.json").read_text() == text


def test_links_in_the_graphroot_lead_nowhere(device: Device, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / digest("lost")).mkdir(parents=True)
    (outside / "file").write_text("precious")
    config = factory(device.new)[1][0]["id"]
    device.write(IMAGES, [image("lost", digest("vanished"), ["localhost/lost:1"])])
    device.write(LAYERS, "[]")
    for place in ("overlay-images", "overlay", "overlay-layers"):
        shutil.rmtree(device.graphroot / place, ignore_errors=True)
        (device.graphroot / place).symlink_to(outside)
    device.seed(device.new)
    device.write(LAYERS, "[]")
    (device.graphroot / IMAGES).symlink_to(outside / "file")
    (device.graphroot / "overlay-images" / config).symlink_to(outside)
    assert device.seed(device.new)[1].count("repaired") == 2
    assert sorted(str(path.relative_to(outside)) for path in outside.rglob("*")) == sorted([digest("lost"), "file"])
    assert (outside / "file").read_text() == "precious"


def test_a_factory_image_s_record_in_the_graphroot_has_the_store_s_config(device: Device) -> None:
    top = factory(device.new)[1][0]
    device.write(IMAGES, [top | {"names": ["localhost/mine:1", *top["names"]]}])
    shutil.copytree(device.new / "overlay-images" / top["id"], device.graphroot / "overlay-images" / top["id"])
    assert "repaired" not in device.seed(device.new)[1]
    for path in (device.graphroot / "overlay-images" / top["id"]).iterdir():
        path.write_text("evil")
    assert device.seed(device.new)[1].count("repaired") == 3
    for path in (device.new / "overlay-images" / top["id"]).iterdir():
        assert (device.graphroot / "overlay-images" / top["id"] / path.name).read_bytes() == path.read_bytes()


def test_a_factory_image_s_record_in_the_graphroot_has_all_its_names_or_goes(device: Device) -> None:
    """Podman 5 takes the names of its own record only: without the factory's there it would not find the image by them."""
    top = factory(device.new)[1][0]
    device.write(IMAGES, [top | {"names": ["localhost/mine:1"]}])
    device.seed(device.new)
    assert device.read(IMAGES) == [top | {"names": ["localhost/mine:1", *top["names"]]}]
    device.write(IMAGES, [top | {"names": []}])
    device.seed(device.new)
    assert device.read(IMAGES) == []


def test_names_of_a_former_firmware_go_with_it_and_the_user_s_stay(device: Device) -> None:
    """Podman 5 copies the factory's names when somebody gives one of its images another."""
    device.seed(device.old)
    base = factory(device.new)[0][0]["id"]
    old = {one["names"][0]: one for one in factory(device.old)[1]}
    # Layers that the new firmware has, too: only the names tell.
    kept = old["docker.io/library/app:1"] | {"layer": base, "names": ["localhost/mine:1", "docker.io/library/app:1"]}
    only = old["docker.io/library/gone:1"] | {"layer": base, "names": ["docker.io/library/gone:1"]}
    device.write(IMAGES, [kept, only])
    assert "is the firmware's" not in device.seed(device.new)[1]
    assert device.read(IMAGES) == [kept | {"names": ["localhost/mine:1"]}]


def test_a_power_cut_at_any_step_leaves_what_the_next_boot_completes(device: Device, tmp_path: Path) -> None:
    device.seed(device.old)
    top = tops(device.old)["docker.io/library/app:1"]
    own = [layer("u1", top), layer("u2", digest("u1")), layer("other", factory(device.new)[0][0]["id"]), factory(device.new)[0][1]]
    for one in own:
        device.add_layer(one)
    lower = f"overlay/{digest('other')}/lower"
    device.write(lower, f"l/{own[3]['id'][:26].upper()}")
    device.write(LAYERS, own)
    device.write(
        IMAGES, [image("u", digest("u2"), ["localhost/u:1"]), image("o", digest("other"), ["docker.io/library/app:1", "localhost/o:1"])]
    )
    start = tmp_path / "start"
    shutil.copytree(device.graphroot, start, symlinks=True)
    device.seed(device.new)
    wanted = tree(device.graphroot)
    assert [one["id"] for one in device.read(LAYERS)] == [digest("other")]
    link = (device.new / "overlay" / own[3]["id"] / "link").read_text()
    assert wanted[lower][1] == f"l/{link}"
    stride, cut_at = 1 if demanded("power-cuts") else 5, 0
    while True:
        cut_at += stride
        shutil.rmtree(device.graphroot)
        shutil.copytree(start, device.graphroot, symlinks=True)
        code, _ = device.seed(device.new, cut_at=cut_at)
        device.seed(device.new)
        assert tree(device.graphroot) == wanted, f"cut at step {cut_at}"
        if code == 0:
            break
    assert cut_at > 20
