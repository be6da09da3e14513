"""The target kit for Docker's driver vfs: an overlayfs over the data-root, judged by the real engine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import ImageSpec
from engines import runnable
from engines.dockerd import VOLATILE, Dockerd
from engines.installations import Installation
from engines.targetkit import SHELLS, Firmware, firmware, kit
from images import file
from layertar import build
from requirement import require

DASH, ASH = SHELLS
NONE = ("--network", "none")
OTHER = ImageSpec([runnable.programs_layer(), build([file("new", b"new\n")])], ["app:1"], config=runnable.image("x").config)


@pytest.fixture
def data_root(tmp_path: Path) -> Iterator[Path]:
    """A persistent one; layers hold what only root removes."""
    yield tmp_path / "data"
    shutil.rmtree(tmp_path / "data", ignore_errors=True)


def vfs_firmware(folder: Path, images: list[ImageSpec], data_root: Path | str, persistence: str = "persistent", **keys: object) -> Firmware:
    return firmware(folder, images, data_root, persistence, driver="vfs", **keys)


def device(folder: Path, made: Firmware, data_root: Path, base: Path = Path("/")) -> Dockerd:
    return Dockerd(folder, base=base, data_root=data_root, mounts=made.mounts, options=("--storage-driver=vfs",), start=False)


def names(engine: Dockerd) -> set[str]:
    return {f"{one['Repository']}:{one['Tag']}" for one in engine.images()}


def test_a_volatile_data_root_is_an_overlay_of_the_store_and_keeps_its_volumes_elsewhere(tmp_path: Path) -> None:
    require("docker")
    say = {"name": "say", "image": "app:1", "args": ["/bin/sh", "-c", "echo 1 >> /kept/it; cat /kept/it"], "network": "none", "user": "0"}
    more = {"size": "256M", "volumes-path": str(tmp_path / "volumes")}
    containers = [say | {"volumes": ["kept:/kept"]}]
    made = vfs_firmware(tmp_path / "made", [runnable.image("app:1")], VOLATILE, "volatile", more=more, containers=containers)
    for boot in (1, 2):
        with device(tmp_path / str(boot), made, Path(VOLATILE)) as engine:
            kit(engine, DASH, made, "seed")
            kit(engine, DASH, made, "seed")
            found = engine.run_in_namespace(["findmnt", "-n", "-o", "SOURCE,FSTYPE", VOLATILE]).stdout.split()
            assert found[-2:] == [b"shiplap-vfs", b"overlay"]
            engine.start()
            kit(engine, DASH, made, "start")
            engine.docker("wait", "say")
            assert engine.docker("logs", "say").stdout == b"1\n" * boot
            # The driver copies whole trees for a container and may write into each.
            assert set(engine.docker("run", "--rm", *NONE, "app:1").stdout.decode().splitlines()) >= runnable.expected_lines()
            assert b"shiplap" in kit(engine, DASH, made, "status", check=False).stderr  # `say` has ended
            engine.docker("rm", "-f", "say")


def test_a_life_of_updates_with_vfs(installation: Installation, tmp_path: Path, data_root: Path) -> None:
    """Each store has an upper directory of its own: what an overlay over another lower directory shows is undefined."""
    base = installation.demand("docker")
    old = vfs_firmware(tmp_path / "old", [runnable.image("app:1"), ImageSpec([runnable.programs_layer()], ["alone:1"])], data_root)
    new = vfs_firmware(tmp_path / "new", [OTHER], data_root)
    with device(tmp_path / "1", old, data_root, base) as engine:
        kit(engine, DASH, old, "seed")
        engine.start()
        engine.docker(
            "run",
            "--name",
            "mine",
            *NONE,
            "--user",
            "0",
            "--volume",
            "kept:/kept",
            "app:1",
            "/bin/sh",
            "-c",
            "echo 1 > /kept/it; echo 2 > /mine",
        )
        engine.docker("commit", "mine", "user:commit")
        engine.docker("tag", "app:1", "user:tag")
        engine.docker("tag", "alone:1", "app:1")  # a name of the firmware's
        engine.docker("rmi", "alone:1")
    with device(tmp_path / "2", old, data_root, base) as engine:
        told = kit(engine, DASH, old, "seed").stderr.decode()
        assert "set aside" not in told and "removed" not in told
        engine.start()
        assert names(engine) == {"app:1", "alone:1", "user:commit", "user:tag"}
        assert b"top\n" in engine.docker("run", "--rm", *NONE, "app:1").stdout
        assert engine.docker("run", "--rm", *NONE, "user:commit", "/bin/cat", "/mine").stdout == b"2\n"
        engine.docker("image", "prune", "--all", "--force")
    with device(tmp_path / "3", old, data_root, base) as engine:
        assert kit(engine, DASH, old, "seed").stderr == b""
        engine.start()
        assert {"app:1", "alone:1"} <= names(engine)
    with device(tmp_path / "4", new, data_root, base) as engine:
        told = kit(engine, DASH, new, "seed").stderr.decode()
        assert "wait for its firmware; volumes are kept" in told
        engine.start()
        assert names(engine) == {"app:1"}
        assert engine.docker("run", "--rm", *NONE, "app:1", "/bin/cat", "/new").stdout == b"new\n"
        assert engine.docker("run", "--rm", *NONE, "--volume", "kept:/kept", "app:1", "/bin/cat", "/kept/it").stdout == b"1\n"
    with device(tmp_path / "5", old, data_root, base) as engine:
        kit(engine, DASH, old, "seed")
        engine.start()
        engine.docker("start", "-a", "mine")
        assert engine.docker("run", "--rm", *NONE, "--volume", "kept:/kept", "app:1", "/bin/cat", "/kept/it").stdout == b"1\n"


def test_what_was_written_in_front_of_the_store_is_taken_away(tmp_path: Path, data_root: Path) -> None:
    require("docker")
    made = vfs_firmware(tmp_path / "made", [runnable.image("app:1")], data_root)
    with device(tmp_path / "1", made, data_root) as engine:
        kit(engine, ASH, made, "seed")
        engine.start()
        engine.docker("run", "--rm", *NONE, "--user", "0", "--volume", "kept:/kept", "app:1", "/bin/sh", "-c", "echo 1 > /kept/it")
    upper = next((data_root / ".shiplap").glob("*/upper"))
    with device(tmp_path / "2", made, data_root) as engine:
        top = engine.run_in_namespace(["sh", "-c", "ls /usr/share/shiplap/store/data-root/vfs/dir | head -n 1"]).stdout.decode().strip()
        outside = tmp_path / "outside"
        outside.mkdir()
        (upper / "vfs/dir" / top / "bin").mkdir(parents=True)
        (upper / "vfs/dir" / top / "bin/sh").write_text("evil")
        (upper / "image/vfs/layerdb/sha256" / top).mkdir(parents=True)
        shutil.rmtree(upper / "image/vfs/imagedb/content", ignore_errors=True)
        (upper / "image/vfs/imagedb").mkdir(parents=True, exist_ok=True)
        (upper / "image/vfs/imagedb/content").symlink_to(outside)
        told = kit(engine, ASH, made, "seed").stderr.decode()
        assert told.count("repaired") == 3, told
        engine.start()
        assert b"top\n" in engine.docker("run", "--rm", *NONE, "app:1").stdout
    with device(tmp_path / "3", made, data_root) as engine:
        (upper / "vfs").mkdir(exist_ok=True)
        engine.run_in_namespace(["setfattr", "-n", "trusted.overlay.opaque", "-v", "y", str(upper / "vfs")])
        shutil.rmtree(upper / "vfs/dir", ignore_errors=True)
        told = kit(engine, ASH, made, "seed").stderr.decode()
        assert "is in" in told and "unusable now, without the volumes" in told
        engine.start()
        assert b"top\n" in engine.docker("run", "--rm", *NONE, "app:1").stdout
        assert engine.docker("run", "--rm", *NONE, "--volume", "kept:/kept", "app:1", "/bin/cat", "/kept/it").stdout == b"1\n"


def test_after_a_failure_the_overlay_is_covered(tmp_path: Path, data_root: Path) -> None:
    require("docker")
    made = vfs_firmware(tmp_path / "made", [runnable.image("app:1")], data_root)
    with device(tmp_path / "1", made, data_root) as engine:
        kit(engine, DASH, made, "seed")
        made.change(STORE_ID="0" * 64)
        refused = kit(engine, DASH, made, "seed", check=False)
        assert refused.returncode == 1 and b"the data-root is made unusable" in refused.stderr
        assert engine.run_in_namespace(["findmnt", "-n", "-o", "SOURCE", str(data_root)]).stdout.split()[-1] == b"shiplap-refused"
        with pytest.raises(AssertionError, match="dockerd ended"):
            engine.start()
