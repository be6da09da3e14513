"""A persistent data-root that somebody wrote: names that the engine reads otherwise, links out of it, and what blocks a reader."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from archives import ImageSpec
from powercuts import make_cuts
from requirement import require
from seedings import KIT, seeded, unpacked_store
from storeimages import APP, BASE, DATA

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
EVIL = "sha256:" + "f" * 64
DRIVERS = {"overlay2": ("docker", ()), "vfs": ("docker", ("--driver", "vfs")), "overlay": ("podman", ("--engine", "podman"))}
REPOSITORIES = {"overlay2": "image/overlay2/repositories.json", "vfs": "image/vfs/repositories.json"}


class Device:
    def __init__(self, work: Path, driver: str, *images: ImageSpec) -> None:
        require("mksquashfs", "shells")
        make_cuts(work)
        self.engine, words = DRIVERS[driver]
        self.work, self.driver, self.data = work, driver, work / "data"
        specs = images or (ImageSpec([BASE, APP], ["app:1"]),)
        self.stores = [unpacked_store(work / f"s{number}", [one], *words) for number, one in enumerate(specs)]

    def seed(self, number: int = 0, shell: tuple[str, ...] = ("dash",)) -> str:
        values = {"ENGINE": self.engine, "DRIVER": self.driver, "DATA_ROOT": str(self.data)}
        return seeded(self.work, self.stores[number], values, shell, "busybox" if shell[0] == "busybox" else "mawk")[1]

    @property
    def written(self) -> Path:
        return next((self.data / ".shiplap").glob("*/upper")) if self.driver == "vfs" else self.data

    def names(self) -> dict[str, str]:
        """As Go's decoder reads them: escapes are meant, and of two equal keys the later one counts."""
        found = json.loads((self.written / REPOSITORIES[self.driver]).read_text())["Repositories"]
        return {reference: digest for one in found.values() for reference, digest in one.items()}

    def write_names(self, text: str) -> None:
        path = self.written / REPOSITORIES[self.driver]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("driver", REPOSITORIES)
def test_an_escaped_name_does_not_take_a_factory_name(tmp_path: Path, driver: str) -> None:
    device = Device(tmp_path, driver)
    device.seed()
    device.write_names(f'{{"Repositories":{{"app":{{"app\\u003a1":"{EVIL}","mine:1":"{EVIL}"}},"\\u0061pp":{{"app:1":"{EVIL}"}}}}}}')
    device.seed()
    names = device.names()
    assert names["app:1"] not in (EVIL, None) and names["mine:1"] == EVIL
    assert set(names) == {"app:1", "mine:1"}


def test_what_echo_would_make_of_a_name_adds_no_line_at_an_update(tmp_path: Path) -> None:
    """dash's echo reads escapes: a name with \\n and \\0040 became a line of its own, with the firmware's name and another image."""
    device = Device(tmp_path, "overlay2", ImageSpec([BASE, APP], ["app:1"]), ImageSpec([DATA], ["app:1"]))
    device.seed()
    (device.data / "image/overlay2/imagedb/content/sha256" / EVIL[7:]).write_text("{}")
    line = f"x:1\\0040{EVIL}\\napp\\0040app:1\\0040{EVIL}\\n"
    device.write_names(f'{{"Repositories":{{"x":{{"{line}":"{EVIL}"}}}}}}')
    device.seed(1)
    assert device.names()["app:1"] != EVIL


@pytest.mark.parametrize("awk", ["mawk", "gawk", "busybox awk"])
def test_only_what_can_be_a_reference_is_one(awk: str) -> None:
    if subprocess.run(["sh", "-c", f"command -v {awk.split()[0]}"], capture_output=True, check=False).returncode:
        pytest.skip(f"no {awk}")
    good = ["r.example:5000/a_b/c-d:V1.0_x", "[2001:db8::1]:5000/a:1", "a@sha256:" + "e" * 64]
    bad = ["a\\:1", "a$:1", "a;:1", "a\x1b[2J:1", "a`:1"]
    pairs = ",".join(f'"{name}":"{EVIL}"' for name in (*good, *bad)) + f',"a:2":"sha256:{"g" * 64}"'
    script = f'awk() {{ {awk} "$@"; }}; . {KIT}/references.sh; references'
    text = f'{{"Repositories":{{"n":{{{pairs}}},"n\\\\":{{"a:3":"{EVIL}"}}}}}}'
    done = subprocess.run(["dash", "-c", script], input=text.encode(), capture_output=True, check=True)
    assert [line.split()[1] for line in done.stdout.decode().splitlines()] == good


@pytest.mark.parametrize("driver", DRIVERS)
def test_links_in_the_kit_s_own_folder_change_nothing_outside(tmp_path: Path, driver: str) -> None:
    device = Device(tmp_path, driver)
    device.seed()
    outside = tmp_path / "outside"
    (outside / "unreadable").mkdir(parents=True)
    state = device.data / ".shiplap"
    for name in ("factory", "names", "stamp", "loaded", "file"):
        (outside / name).write_text("precious")
    for name in ("factory", "names", "stamp", "loaded"):
        (state / name).unlink(missing_ok=True)
        (state / name).symlink_to(outside / name)
    (state / "new").symlink_to(outside)
    (state / "unreadable").symlink_to(outside / "unreadable")
    if driver == "overlay":
        (device.data / "overlay-layers").mkdir(exist_ok=True)
        (device.data / "overlay-layers/layers.json").write_text("no list")
    else:
        device.write_names(f'{{"Repositories":{{"mine":{{"mine:1":"{EVIL}"}}}}}}')
    device.seed()
    assert {path.name: path.read_text() for path in outside.iterdir() if path.is_file()} == dict.fromkeys(
        ("factory", "names", "stamp", "loaded", "file"), "precious"
    )
    assert not any((outside / "unreadable").iterdir())


def test_another_store_s_directory_that_leads_outside_loses_no_volumes_there(tmp_path: Path) -> None:
    device = Device(tmp_path, "vfs")
    device.seed()
    (tmp_path / "home/upper/volumes").mkdir(parents=True)
    other = device.data / ".shiplap" / ("a" * 64)
    other.mkdir()
    (other / "upper").symlink_to(tmp_path / "home/upper")
    (device.data / ".shiplap" / ("b" * 64)).symlink_to(tmp_path / "home")
    assert device.seed().count("led elsewhere") == 2
    assert (tmp_path / "home/upper/volumes").is_dir()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_fifo_in_a_file_s_place_does_not_hold_up_the_boot(tmp_path: Path, driver: str) -> None:
    device = Device(tmp_path, driver)
    device.seed()
    for name in ("factory", "names", "stamp"):
        path = device.data / ".shiplap" / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    if driver == "overlay":
        (device.data / "overlay-layers").mkdir(exist_ok=True)
        os.mkfifo(device.data / "overlay-layers/layers.json")
    device.seed()
    assert (device.data / ".shiplap/stamp").is_file()


def test_a_store_whose_list_of_images_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    """An I/O error of dm-verity: nothing would be known of the firmware's names then."""
    device = Device(tmp_path, "overlay")
    images = device.stores[0] / "overlay-images/images.json"
    images.unlink()
    images.mkdir()  # reading it is an error
    with pytest.raises(AssertionError, match="cannot read the images in the store"):
        device.seed()
