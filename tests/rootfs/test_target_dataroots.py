"""Where a data-root may lie, and what systemd does before and around it: the mount, the kit's steps, no time limit."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from archives import ImageSpec
from engines.privateroot import PrivateRoot
from engines.targetkit import Firmware, firmware
from requirement import require
from shiplap.rootfs.target.kit import target_files
from shiplap.rootfs.target.settings import DataRoot, TargetSettings
from storeimages import APP, BASE

DATA_ROOT = "/mnt/data/docker"
VOLUMES = "/mnt/volumes"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    require("mksquashfs", "shells")
    image = ImageSpec([BASE, APP], ["app:1"])
    return firmware(tmp_path_factory.mktemp("firmware") / "one", [image], DATA_ROOT, more={"volumes-path": VOLUMES})


REFUSALS = {
    "a partition that is read-only": ("persistent", "mount -o remount,ro /mnt", "is not writable: is its partition mounted?"),
    # The private root's own / is one.
    "an overlayfs": ("persistent", "umount -l /mnt; mkdir -p /mnt/data/docker", "lies on overlayfs, which cannot carry another"),
    "somebody's mount": ("volatile", f"mount -t tmpfs mine {DATA_ROOT}; echo mine >{DATA_ROOT}/mine", "is a mount of mine already"),
    "volumes that would no longer be seen": (
        "persistent", f"mkdir -p {DATA_ROOT}/volumes/kept/_data", f"holds volumes already: move them to {VOLUMES}",
    ),
}  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
def test_a_place_that_cannot_be_the_data_root_is_named_and_covered(made: Firmware, tmp_path: Path) -> None:
    with PrivateRoot(tmp_path / "work", binds=[made.out.parents[1]]) as root:

        def sh(script: str) -> str:
            return root.run(["sh", "-euc", script]).stdout.decode()

        sh(f"cp -a {made.root}/. /; cp {made.out}/store.squashfs /usr/share/shiplap/; rm -rf /etc/docker")
        for what, (persistence, before, message) in REFUSALS.items():
            sh(f"umount -l /mnt 2>/dev/null || :; mount -t tmpfs data /mnt; mkdir -p {DATA_ROOT}")
            sh(f"sed -i 's/^PERSISTENCE=.*/PERSISTENCE={persistence}/; s/^CANARY=.*/CANARY=no/' /etc/shiplap/store.conf; {before}")
            done = root.run(["/usr/sbin/shiplap-target", "seed"], check=False)
            said = done.stderr.decode()
            assert done.returncode == 1 and message in said, (what, said)
            assert "no container starts" in said, what
            assert sh(f"ls -A {DATA_ROOT}") == "", what
            assert root.run(["touch", f"{DATA_ROOT}/x"], check=False).returncode != 0, what
            sh(f"umount {DATA_ROOT}")


def unit(settings: TargetSettings, name: str) -> dict[str, list[str]]:
    """Key → values, in their order."""
    found: dict[str, list[str]] = {}
    for line in target_files(settings)[f"usr/lib/systemd/system/{name}"][1].decode().splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


SETTINGS = TargetSettings(
    mode="store", engine="docker", driver="overlay2", store_id="1" * 64, store_path="/usr/share/shiplap",
    images=(("sha256:" + "c" * 64, "docker.io/library/app:1"),), image="/usr/share/shiplap/store.squashfs", init=("systemd",),
    data_root=DataRoot("/data/docker", "persistent", volumes_path="/volumes"),
)  # fmt: skip
PODMAN = replace(SETTINGS, engine="podman", driver="overlay", data_root=DataRoot("/data/containers", "persistent"))


def test_systemd_waits_for_the_mounts_of_store_data_root_and_volumes() -> None:
    def mounts(settings: TargetSettings) -> list[str]:
        return unit(settings, "shiplap-store.service")["RequiresMountsFor"][0].split()

    assert mounts(SETTINGS) == ["/usr/share/shiplap", "/data/docker", "/volumes"]
    assert mounts(PODMAN) == ["/usr/share/shiplap", "/data/containers"]
    # The kit mounts a volatile one itself: a mount unit of that name would be somebody else's.
    assert mounts(replace(SETTINGS, data_root=DataRoot("/data/docker"))) == ["/usr/share/shiplap", "/data"]


@pytest.mark.parametrize("settings", [SETTINGS, PODMAN], ids=lambda one: str(one.engine))
def test_systemd_runs_the_kit_s_steps_in_their_order_without_a_time_limit(settings: TargetSettings) -> None:
    store, containers = unit(settings, "shiplap-store.service"), unit(settings, "shiplap-containers.service")
    assert store["ExecStart"] == ["/usr/sbin/shiplap-target seed"]
    # Of several ExecStart= the first that fails ends the unit.
    assert containers["ExecStart"] == ["/usr/sbin/shiplap-target load", "/usr/sbin/shiplap-target start"]
    for one in (store, containers):
        assert (one["Type"], one["RemainAfterExit"]) == (["oneshot"], ["yes"])
    # Loading an archive takes minutes, and waiting for the engine and for paths has limits of its own.
    assert containers["TimeoutStartSec"] == ["infinity"]
    needed = ["shiplap-store.service", *(["docker.service"] if settings.engine == "docker" else [])]
    assert containers["Requires"][0].split() == containers["After"][0].split() == needed
    assert containers["WantedBy"] == ["multi-user.target"]


def test_systemd_takes_every_unit_as_it_is_written(tmp_path: Path) -> None:
    """Every key is known, in its section."""
    require("systemd")
    for settings in (SETTINGS, PODMAN):
        folder = tmp_path / settings.engine
        for path, (_, content) in target_files(settings).items():
            if path.startswith("usr/lib/systemd/system/") and path.endswith(".service"):
                (folder / Path(path).name).parent.mkdir(exist_ok=True)
                (folder / Path(path).name).write_text(content.decode().replace("/usr/sbin/shiplap-target", "/bin/true"))
        (folder / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
        words: list[str | Path] = ["systemd-analyze", "verify", "--man=no"]
        words += sorted(folder.glob("shiplap-*.service"))
        environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:/usr/lib/systemd/system"}
        said = subprocess.run(words, env=environment, capture_output=True, text=True, check=False).stderr
        assert [line for line in said.splitlines() if "shiplap" in line] == []
