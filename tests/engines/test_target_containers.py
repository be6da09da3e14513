"""The target kit's containers and archives: created, started, made again, loaded, waited for; by the real engine."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, oci_layout
from engines import runnable
from engines.dockerd import SOCKET, Dockerd
from engines.targetkit import SHELLS, Firmware, device, firmware, kit
from images import file
from layertar import build
from requirement import require

LOOP = ["/bin/sh", "-c", "while :; do /bin/sleep 1; done"]
PRINT = ["/bin/sh", "-c", 'echo "$0" "$@" "<$A>" "<$B>"', "it's", "a  b", "$HOME", "*"]


def container(name: str, args: list[str], **keys: Any) -> dict[str, Any]:
    return {"name": name, "image": "app:1", "args": args, "network": "none", "user": "0"} | keys


def changed_image() -> ImageSpec:
    first = runnable.image("app:1")
    return ImageSpec([*first.layers, build([file("new", b"new\n")])], ["app:1"], config=first.config)


def logs(engine: Dockerd, name: str) -> str:
    engine.docker("wait", name)
    return engine.docker("logs", name).stdout.decode()


def labels(engine: Dockerd) -> dict[str, str]:
    """Container → its ID."""
    listed = engine.docker("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}").stdout.decode()
    return dict(line.split() for line in listed.splitlines())


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_containers_start_as_defined_and_are_made_again_only_when_something_changed(shell: list[str], tmp_path: Path) -> None:
    require("docker")
    data_root = tmp_path / "data"
    loop = container("loop", LOOP)
    say = container("say", PRINT, after=["loop"], env={"A": "x 'y' \"z\" $Q `id`", "B": "line\nline"})
    gone = container("gone", ["/bin/cat", "/srv/top"])
    old = firmware(tmp_path / "old", [runnable.image("app:1")], data_root, containers=[say, loop, gone])
    new = firmware(tmp_path / "new", [changed_image()], data_root, containers=[say | {"args": ["/bin/cat", "/new"]}, loop])
    names = [path.name for path in sorted((old.root / "etc/shiplap/containers").iterdir())]
    assert names == ["000-loop", "001-say", "002-gone"]  # in the order of starting

    with device(tmp_path / "1", old, data_root) as engine:
        kit(engine, shell, old, "seed")
        engine.start()
        assert b"does not exist" in kit(engine, shell, old, "status", check=False).stderr
        engine.docker("create", "--name", "users-own", "--network", "none", "app:1")
        kit(engine, shell, old, "start")
        assert logs(engine, "say") == "it's a  b $HOME * <x 'y' \"z\" $Q `id`> <line\nline>\n"
        assert logs(engine, "gone") == "top\n"
        first = labels(engine)
        kit(engine, shell, old, "start")
        assert labels(engine) == first
        waited = kit(engine, shell, old, "status", "--wait", "1", check=False)
        assert waited.returncode == 1 and b"container say: does not run" in waited.stderr

    with device(tmp_path / "2", new, data_root) as engine:
        kit(engine, shell, new, "seed")
        engine.start()
        said = kit(engine, shell, new, "start").stderr.decode()
        assert "container gone is not part of this firmware: removed" in said
        assert said.count("made again") == 2
        assert logs(engine, "say") == "new\n"
        second = labels(engine)
        assert set(second) == {"say", "loop", "users-own"}
        assert second["users-own"] == first["users-own"] and second["loop"] != first["loop"]
        image = engine.docker("inspect", "--format", "{{.Image}}", "loop").stdout.decode().strip()
        assert image == (new.root / "etc/shiplap/images").read_text().split()[0]
        engine.docker("rm", "-f", "loop")


def test_status_is_good_once_everything_runs(tmp_path: Path) -> None:
    require("docker")
    made = firmware(
        tmp_path / "made", [runnable.image("app:1")], tmp_path / "data", containers=[container("loop", LOOP)]
    )  # fmt: skip
    with device(tmp_path / "1", made, tmp_path / "data") as engine:
        assert b"not seeded" in kit(engine, SHELLS[0], made, "status", check=False).stderr
        kit(engine, SHELLS[0], made, "seed")
        assert b"does not answer" in kit(engine, SHELLS[0], made, "status", check=False).stderr
        engine.start()
        kit(engine, SHELLS[0], made, "start")
        assert b"every container runs" in kit(engine, SHELLS[0], made, "status", "--wait", "30").stdout
        assert kit(engine, SHELLS[0], made, "status", "--wait", "soon", check=False).returncode == 2
        engine.docker("rm", "-f", "loop")


def test_waiting_for_an_engine_and_for_a_path_ends_at_the_stated_time(tmp_path: Path) -> None:
    require("docker")
    made = firmware(
        tmp_path / "made", [runnable.image("app:1")], tmp_path / "data",
        containers=[container("say", ["/bin/cat", "/srv/top"], **{"wait-for": ["/run/ready"]})],
    )  # fmt: skip
    made.change(TIMEOUT="2")
    with device(tmp_path / "1", made, tmp_path / "data") as engine:
        kit(engine, SHELLS[0], made, "seed")
        done, seconds = timed(engine, made)
        assert b"did not answer within 2 seconds" in done and 1 <= seconds < 10
        # A socket behind which nobody answers: the client would wait for ever.
        silent = engine.root.spawn(["/usr/bin/env", "python3", "-c", _SILENT, SOCKET], tmp_path / "silent.log")
        while engine.run_in_namespace(["test", "-S", SOCKET], check=False).returncode:
            time.sleep(0.1)
        done, seconds = timed(engine, made)
        assert b"did not answer within 2 seconds" in done and 1 <= seconds < 10
        silent.kill()
        engine.run_in_namespace(["rm", "-f", SOCKET])
        engine.start()
        done, _ = timed(engine, made)
        assert b"waits for /run/ready, which did not appear within 2 seconds" in done
        engine.run_in_namespace(["touch", "/run/ready"])
        kit(engine, SHELLS[0], made, "start")
        assert logs(engine, "say") == "top\n"


_SILENT = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(60)"


def timed(engine: Dockerd, made: Firmware) -> tuple[bytes, float]:
    started = time.monotonic()
    done = kit(engine, SHELLS[0], made, "start", check=False)
    assert done.returncode == 1
    return done.stderr, time.monotonic() - started


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_an_archive_is_loaded_when_something_is_missing_and_only_then(shell: list[str], tmp_path: Path) -> None:
    require("docker")
    data_root = tmp_path / "data"
    made = firmware(
        tmp_path / "made", [runnable.image("app:1")], data_root, mode="archive", verity={"check": "sha256"},
        containers=[container("say", ["/bin/cat", "/srv/top"])],
    )  # fmt: skip
    made.change(ARCHIVE=str(made.out / "images.tar"))
    new = firmware(tmp_path / "new", [changed_image()], data_root, mode="archive", containers=[container("say", ["/bin/cat", "/new"])])
    new.change(ARCHIVE=str(new.out / "images.tar"))
    with device(tmp_path / "1", made, data_root) as engine:
        kit(engine, shell, made, "seed")
        engine.start()
        assert b"loaded" in kit(engine, shell, made, "load").stderr
        assert kit(engine, shell, made, "load").stderr == b""
        kit(engine, shell, made, "start")
        assert logs(engine, "say") == "top\n"
        engine.docker("rmi", "-f", "app:1")
        assert b"loaded" in kit(engine, shell, made, "load").stderr
    with device(tmp_path / "2", new, data_root) as engine:  # the same name, another image
        kit(engine, shell, new, "seed")
        engine.start()
        assert b"loaded" in kit(engine, shell, new, "load").stderr
        kit(engine, shell, new, "start")
        assert logs(engine, "say") == "new\n"
    for path in data_root.iterdir():  # the writable storage was wiped
        shutil.rmtree(path)
    with device(tmp_path / "3", new, data_root) as engine:
        kit(engine, shell, new, "seed")
        engine.start()
        assert b"loaded" in kit(engine, shell, new, "load").stderr
        new.change(SHA256="0" * 64, CHECK="sha256")
        engine.docker("rmi", "-f", "app:1")
        refused = kit(engine, shell, new, "load", check=False)
        assert refused.returncode == 1 and b"instead of 000" in refused.stderr


def test_an_archive_of_locked_images_asks_for_no_digest_references_which_loading_loses(tmp_path: Path) -> None:
    require("docker")
    data_root = tmp_path / "data"
    named, nameless = runnable.image("app:1"), changed_image()
    layout = oci_layout(tmp_path / "oci", [named, replace(nameless, tags=["other:1"])], compression="none")
    digests = {
        one["annotations"]["org.opencontainers.image.ref.name"]: one["digest"]
        for one in json.loads((layout / "index.json").read_text())["manifests"]
    }
    listed = [
        {"ref": "app:1", "from": f"oci:{layout}:app:1", "digest": digests["app:1"]},
        {"ref": f"other@{digests['other:1']}", "from": f"oci:{layout}:other:1"},
    ]
    containers = [
        container("say", ["/bin/cat", "/srv/top"]),
        container("nameless", ["/bin/cat", "/new"]) | {"image": f"other@{digests['other:1']}"},
    ]
    made = firmware(tmp_path / "made", [named], data_root, mode="archive", images=listed, containers=containers)
    made.change(ARCHIVE=str(made.out / "images.tar"))
    with device(tmp_path / "1", made, data_root) as engine:
        kit(engine, SHELLS[0], made, "seed")
        engine.start()
        assert b"loaded" in kit(engine, SHELLS[0], made, "load").stderr
        assert kit(engine, SHELLS[0], made, "load").stderr == b""
        kit(engine, SHELLS[0], made, "start")
        assert logs(engine, "say") == "top\n"
        assert logs(engine, "nameless") == "new\n"
        stopped = kit(engine, SHELLS[0], made, "status", check=False).stderr
        assert b"does not run" in stopped  # and not: no image


def test_a_volatile_data_root_keeps_its_volumes_elsewhere_and_is_seeded_once(tmp_path: Path) -> None:
    require("docker")
    for mode in ("store", "archive"):
        more = {"persistence": "volatile", "size": "64M", "volumes-path": str(tmp_path / f"{mode}-volumes")}
        made = firmware(
            tmp_path / mode, [runnable.image("app:1")], "/var/lib/docker", mode=mode, more=more,
        )  # fmt: skip
        with device(tmp_path / f"{mode}-1", made, Path("/var/lib/docker")) as engine:
            if mode == "archive":
                made.change(ARCHIVE=str(made.out / "images.tar"))
            kit(engine, SHELLS[0], made, "seed")
            kit(engine, SHELLS[0], made, "seed")
            size = engine.run_in_namespace(["findmnt", "-n", "-o", "SOURCE,SIZE", "/var/lib/docker"]).stdout.split()
            assert size[-2:] == [b"shiplap-data", b"64M"]
            engine.start()
            kit(engine, SHELLS[0], made, "load")
            engine.docker(
                "run", "--rm", "--network", "none", "--user", "0", "--volume", "kept:/kept", "app:1", "/bin/sh", "-c", "echo 1 > /kept/it"
            )
        assert (tmp_path / f"{mode}-volumes/kept/_data/it").read_text() == "1\n"
