"""SIGKILL at any point of a seeding, as of the kernel on a device without memory: an engine that an init system starts all the same finds
the cover, or a data-root that is wholly prepared. No engine is needed to see that.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import ImageSpec
from images import file
from layertar import build
from powercuts import SYSTEM_PATH, tree
from requirement import demanded, require
from seedings import KIT, unpacked_store
from storeimages import APP, BASE, DATA

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
PROGRAMS = ("awk", "cat", "chmod", "cmp", "cp", "grep", "ln", "mkdir", "mount", "mv", "readlink", "rm", "rmdir", "sed", "sha256sum", "sort",
            "stat", "sync", "tr", "umount")  # fmt: skip
OPTIONS = {"overlay2": (), "vfs": ("--driver", "vfs"), "overlay": ("--engine", "podman")}
CASES = [(driver, persistence) for driver in (*OPTIONS, "archive") for persistence in ("persistent", "volatile")]

# Counts, tells, and at the set number kills itself, or everything: before its work or after it.
_KILLED = """\
#!/bin/dash
count=0
read -r count <"$KILL_FOLDER/count"
count=$((count + 1))
echo $count >"$KILL_FOLDER/count"
echo "$count {program} $*" >>"$KILL_FOLDER/told"
[ "$count" -eq "$KILL_AT" ] || exec {path} "$@"
case $KILLED in
itself) kill -9 $$ ;;
after) {path} "$@" ;;
esac
kill -9 0
"""
# Process 1 of an init system that goes on whatever happened, and what the engine would find.
_BOOT = """\
mount --make-r{propagation} /
mount --bind {store} {store}
{kit} seed 2>{work}/said
code=$?
{then}
held=$(awk '$2 == "{data}" {{ last = $1 }} END {{ print last }}' /proc/self/mounts)
if [ "$held" != shiplap-refused ]; then cp -a {data}/. {work}/seen; fi
echo "$code $held"
"""


@dataclass(frozen=True)
class End:
    """``code``: of the seeding, 137 when it was killed. ``held``: what is mounted on the data-root last. ``seen``: what an engine finds."""

    code: int
    held: str
    seen: dict[str, tuple[str, str]] | None
    said: str

    @property
    def is_covered(self) -> bool:
        return self.held == "shiplap-refused"


class Device:
    """Two firmwares of a driver, and a data-root as the first one left it."""

    def __init__(self, work: Path, driver: str, persistence: str, stores: Sequence[Path]) -> None:
        self.work, self.driver, self.persistence, self.stores = work, driver, persistence, stores
        work.mkdir()
        # Reached over a symbolic link.
        self.data, self.named = work / "data", work / "link"
        self.data.mkdir()
        self.named.symlink_to("data")
        for program in PROGRAMS:
            path = work / "programs" / program
            path.parent.mkdir(exist_ok=True)
            path.write_text(_KILLED.replace("{program}", program).replace("{path}", f"/usr/bin/{program}"))
            path.chmod(0o755)
        self.boot(0)
        if persistence == "persistent":
            self._live()
            shutil.copytree(self.data, work / "start", symlinks=True)

    def _live(self) -> None:
        """Something of the user's, for the kit to read."""
        if self.driver == "overlay":
            store = json.loads((self.stores[0] / "overlay-images/images.json").read_text())
            mine = [one | {"id": hashlib.sha256(one["id"].encode()).hexdigest(), "names": [f"localhost/{one['layer']}"]} for one in store]
            (self.data / "overlay-images").mkdir(exist_ok=True)
            (self.data / "overlay-images/images.json").write_text(json.dumps(mine))
        elif self.driver != "archive":
            names = next(self.data.rglob("image/*/repositories.json"), None)
            digest = "sha256:" + "d" * 64
            path = names or next((self.data / ".shiplap").glob("*/upper")) / "image/vfs/repositories.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'{{"Repositories":{{"app":{{"app:1":"{digest}","app:2":"{digest}"}}}}}}')

    def start(self) -> None:
        """As it was before the update."""
        shutil.rmtree(self.data)
        if self.persistence == "persistent":
            shutil.copytree(self.work / "start", self.data, symlinks=True)
        else:
            self.data.mkdir()

    def boot(
        self,
        number: int = 1,
        kill_at: int = 0,
        killed: str = "",
        then: str = "",
        propagation: str = "shared",
        shell: Sequence[str] = ("dash",),
    ) -> End:
        """A start of the device with a firmware. ``then``: what the init system runs after the seeding."""
        store = self.stores[number]
        values = {
            "FORMAT": "1", "MODE": "store", "SEALED": "no", "IMAGE": "/nowhere", "STORE_PATH": str(store.parent),
            "PERSISTENCE": self.persistence, "ENGINE": "podman" if self.driver == "overlay" else "docker", "DRIVER": self.driver,
            "STORE_ID": hashlib.sha256((store / "store.json").read_bytes()).hexdigest(), "DATA_ROOT": str(self.named),
        }  # fmt: skip
        if self.driver == "archive":
            values |= {"MODE": "archive", "DRIVER": "overlay2"}
        (self.work / "store.conf").write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items()))
        (self.work / "count").write_text("0\n")
        (self.work / "told").unlink(missing_ok=True)
        shutil.rmtree(self.work / "seen", ignore_errors=True)
        shutil.rmtree(self.work / "run", ignore_errors=True)
        (self.work / "seen").mkdir()
        kit = f"{KIT}/shiplap-target"
        path = f"{self.work / 'programs'}:{SYSTEM_PATH}" if kill_at else SYSTEM_PATH
        script = _BOOT.format(
            store=store, kit=f"PATH={path} setsid --wait {shlex.join(shell)} {kit}", work=self.work, data=self.data,
            propagation=propagation, then=then.format(kit=f"dash {kit}"),
        )  # fmt: skip
        environment = {
            "PATH": SYSTEM_PATH, "KILL_FOLDER": str(self.work), "KILL_AT": str(kill_at), "KILLED": killed,
            "SHIPLAP_CONF": str(self.work / "store.conf"), "SHIPLAP_LIB": str(KIT), "SHIPLAP_RUN": str(self.work / "run"),
        }  # fmt: skip
        done = subprocess.run(["unshare", "--mount", "dash", "-c", script], env=environment, capture_output=True, text=True, check=True)
        code, _, held = done.stdout.strip().partition(" ")
        seen = tree(self.work / "seen")
        said = (self.work / "said").read_text()
        return End(int(code), held, None if held == "shiplap-refused" else seen, said)

    def told(self) -> dict[int, str]:
        """The programs of the last seeding by their number; those of a pipe may have one together."""
        lines = (self.work / "told").read_text().splitlines()
        return {int(number): call for number, _, call in (line.partition(" ") for line in lines) if number.isdigit()}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Two firmwares' stores of each driver."""
    require("mksquashfs", "shells")
    folder = tmp_path_factory.mktemp("stores")
    sets = [ImageSpec([BASE, APP], ["app:1"]), ImageSpec([DATA], ["gone:1"])], [ImageSpec([BASE, build([file("new", b"2")])], ["app:1"])]
    made = {
        driver: [unpacked_store(folder / f"{driver}{number}", images, *options) for number, images in enumerate(sets)]
        for driver, options in OPTIONS.items()
    }
    return made | {"archive": made["overlay2"]}


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def device(request: pytest.FixtureRequest, stores: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Device:
    driver, persistence = request.param
    return Device(tmp_path_factory.mktemp(driver) / persistence, driver, persistence, stores[driver])


def cover_call(told: dict[int, str]) -> int:
    """The number of the call that covers the data-root; 0 where there is none."""
    return next((number for number, call in told.items() if call.startswith("mount ") and "shiplap-refused" in call), 0)


def points(told: dict[int, str]) -> list[int]:
    """Calls of programs at which a seeding ends. At every one it takes minutes: by name only, `SHIPLAP_REQUIRE=power-cuts`."""
    covered_at, last = cover_call(told), max(told)
    return sorted(told if demanded("power-cuts") else {covered_at, (covered_at + last) // 2, last - 1, last})


def test_a_killed_seeding_leaves_the_cover_or_a_data_root_that_is_wholly_prepared(device: Device) -> None:
    device.start()
    whole = device.boot(kill_at=-1)
    assert (whole.code, whole.is_covered) == (0, False), whole.said
    told = device.told()
    covered_at = cover_call(told)
    covered = set()
    for kill_at in points(told):
        for killed in ("before", "after"):
            device.start()
            before = tree(device.data)
            end = device.boot(kill_at=kill_at, killed=killed)
            what = f"{killed} call {kill_at}: {told[kill_at]}"
            covered.add(end.is_covered)
            if kill_at < covered_at or (kill_at == covered_at and killed == "before"):
                assert tree(device.data) == before, what  # as if nobody had come
            else:
                assert end.is_covered or end.seen == whole.seen, what
    assert covered == {True, False}
    assert 0 < covered_at < 10


def test_a_killed_program_ends_in_the_cover_or_is_made_up_for(device: Device) -> None:
    """The kernel may choose awk or sort instead of the shell: nothing that these had not read may pass for empty."""
    device.start()
    whole = device.boot(kill_at=-1)
    told = device.told()
    for kill_at in points(told):
        device.start()
        end = device.boot(kill_at=kill_at, killed="itself")
        what = f"call {kill_at}: {told[kill_at]}: {end.said}"
        assert end.is_covered if end.code else end.seen == whole.seen, what


def test_after_a_kill_seeding_is_refused_until_somebody_unmounts_or_the_device_starts_again(device: Device) -> None:
    device.start()
    whole = device.boot(kill_at=-1)
    kill_at = max(device.told()) - 1
    device.start()
    again = f"{{kit}} seed 2>>{device.work}/said"
    end = device.boot(kill_at=kill_at, killed="before", then=again)
    assert end.code == 137 and end.is_covered and "was made unusable by an earlier failure" in end.said
    assert device.boot().seen == whole.seen
    device.start()
    # Which takes the store away as well.
    unmount = f"{{kit}} unmount && mount --bind {device.stores[1]} {device.stores[1]} && {{kit}} seed"
    assert device.boot(kill_at=kill_at, killed="before", then=unmount).seen == whole.seen


@pytest.mark.parametrize(("propagation", "shell"), [("shared", ("busybox", "ash")), ("private", ("dash",))], ids=["shared", "private"])
def test_nothing_is_left_mounted_whether_mounts_are_shared_or_not(device: Device, propagation: str, shell: Sequence[str]) -> None:
    """systemd makes / shared: what is mounted on one of two views of a folder is seen on the other then."""
    device.start()
    count = f"grep -c ' {device.work}/run/' /proc/self/mounts >{device.work}/left; {{kit}} seed"
    for number in (0, 1):
        end = device.boot(number, propagation=propagation, shell=shell, then=count)
        assert end.code == 0, end.said
        # With vfs the file system below the overlay.
        assert (device.work / "left").read_text() == ("1\n" if device.driver == "vfs" else "0\n")
        below = {"vfs": "shiplap-vfs", "persistent": ""}
        assert end.held == below.get(device.driver, below.get(device.persistence, "shiplap-data"))
        if device.driver != "archive" and device.persistence == "persistent":
            store_id = hashlib.sha256((device.stores[number] / "store.json").read_bytes()).hexdigest()
            assert (device.data / ".shiplap/stamp").read_text() == f"{store_id}\n"
