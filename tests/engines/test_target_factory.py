"""The target kit and what users do to the firmware's images and names: prune, tag, pull; judged by the real engines."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import DOCKER, ImageSpec, oci_files
from engines import runnable
from engines.dockerd import SOCKET, Dockerd
from engines.installations import Installation
from engines.podmankit import PodmanDevice
from engines.targetkit import SHELLS, Firmware, device, firmware, kit
from images import file
from layertar import build
from registryserver import push, running_registry
from requirement import require

DASH, ASH = SHELLS
NONE = ("--network", "none")
LOOP = ["/bin/sh", "-c", "while :; do /bin/sleep 1; done"]
OTHER = ImageSpec([runnable.programs_layer()], ["other:1"], config={"config": {"Env": ["PATH=/bin"]}})


@pytest.fixture
def data_root(tmp_path: Path) -> Iterator[Path]:
    """A persistent one; layers hold what only root removes."""
    yield tmp_path / "data"
    shutil.rmtree(tmp_path / "data", ignore_errors=True)


def container(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "image": "app:1", "args": LOOP, "network": "none", "user": "0"} | keys


def config_of(made: Firmware, name: str) -> str:
    lines = (line.split() for line in (made.root / "etc/shiplap/images").read_text().splitlines())
    return next(config for config, reference in lines if reference == f"docker.io/library/{name}")


def at(engine: Dockerd, name: str, what: str) -> str:
    return engine.docker("inspect", "--format", f"{{{{{what}}}}}", name).stdout.decode().strip()


def test_what_a_prune_of_everything_takes_away_is_there_after_the_next_boot(
    installation: Installation, tmp_path: Path, data_root: Path
) -> None:
    base = installation.demand("docker")
    made = firmware(tmp_path / "made", [runnable.image("app:1"), OTHER], data_root)

    def boot(number: int) -> Dockerd:
        return Dockerd(tmp_path / str(number), base=base, data_root=data_root, mounts=made.mounts, start=False)

    with boot(1) as engine:
        kit(engine, DASH, made, "seed")
        engine.start()
        engine.docker("run", "--rm", *NONE, "--user", "0", "--volume", "kept:/kept", "app:1", "/bin/sh", "-c", "echo 1 > /kept/it")
        engine.docker("system", "prune", "--all", "--force")
        assert engine.images() == []
        assert not list((data_root / "image/overlay2/layerdb/sha256").iterdir())
    with boot(2) as engine:
        kit(engine, DASH, made, "seed")
        engine.start()
        assert {one["Repository"] for one in engine.images()} == {"app", "other"}
        assert set(engine.docker("run", "--rm", *NONE, "app:1").stdout.decode().splitlines()) >= runnable.expected_lines()
        assert engine.docker("run", "--rm", *NONE, "--volume", "kept:/kept", "other:1", "/bin/cat", "/kept/it").stdout == b"1\n"


def test_containers_start_in_order_with_all_they_name_and_of_the_shipped_image(tmp_path: Path, data_root: Path) -> None:
    require("docker")
    (tmp_path / "env").write_text("A=it's mine\n")
    health = {"cmd": "ls /dev/mine", "interval": "1s"}
    first = container("first", devices=["/dev/zero:/dev/mine:r"], **{"env-file": str(tmp_path / "env")}, health=health, restart="always")
    containers = [container("last", after=["first"]), first]
    made = firmware(tmp_path / "made", [runnable.image("app:1"), OTHER], data_root, containers=containers)
    with device(tmp_path / "1", made, data_root) as engine:
        kit(engine, ASH, made, "seed")
        engine.start()
        engine.docker("create", "--name", "last", *NONE, "other:1", "/bin/true")  # a user's, with a name of the firmware's
        engine.docker("create", "--name", "mine", *NONE, "other:1", "/bin/true")
        mine = at(engine, "mine", ".Id")
        environment = {
            "SHIPLAP_CONF": str(made.conf), "SHIPLAP_LIB": str(made.root / "usr/lib/shiplap"), "DOCKER_HOST": "unix:///run/shiplap-docker.sock"
        }  # fmt: skip
        program = f"sleep 2; exec {' '.join(ASH)} {made.root}/usr/sbin/shiplap-target start"
        started = engine.root.spawn(["sh", "-c", program], tmp_path / "start.log", env=environment)
        assert b"does not exist" in kit(engine, ASH, made, "status", check=False).stderr
        assert b"every container runs" in kit(engine, ASH, made, "status", "--wait", "60").stdout  # it waits for that
        assert started.wait() == 0, (tmp_path / "start.log").read_text()
        assert "container last has another definition: made again" in (tmp_path / "start.log").read_text()
        assert at(engine, "mine", ".Id") == mine
        assert at(engine, "first", ".State.StartedAt") < at(engine, "last", ".State.StartedAt")
        assert engine.docker("exec", "first", "/bin/sh", "-c", 'echo "$A"; ls /dev/mine').stdout == b"it's mine\n/dev/mine\n"
        deadline = time.monotonic() + 30
        while at(engine, "first", ".State.Health.Status") != "healthy":
            assert time.monotonic() < deadline, at(engine, "first", "json .State.Health")
            time.sleep(0.5)
        assert at(engine, "first", ".HostConfig.RestartPolicy.Name") == "always"
        engine.docker("rm", "-f", "first", "last")
        engine.docker("tag", "other:1", "app:1")
        kit(engine, ASH, made, "start")
        assert at(engine, "first", ".Image") == at(engine, "last", ".Image") == config_of(made, "app:1")
        assert engine.docker("exec", "first", "/bin/cat", "/srv/top").stdout == b"top\n"
        assert b"has no image docker.io/library/app:1" in kit(engine, ASH, made, "status", check=False).stderr
        engine.docker("rm", "-f", "first", "last")


def test_podman_s_containers_start_of_the_shipped_image_whatever_its_name_means(installation: Installation, tmp_path: Path) -> None:
    images = [runnable.image("app:1"), OTHER]
    made = firmware(tmp_path / "made", images, "/var/lib/containers/storage", "volatile", engine="podman", containers=[container("app")])
    with PodmanDevice(tmp_path / "1", made, base=installation.demand("podman")) as engine:
        engine.kit(DASH, "seed")
        engine.podman("tag", "other:1", "docker.io/library/app:1")
        engine.kit(DASH, "start")
        (found,) = json.loads(engine.podman("inspect", "app").stdout)
        assert f"sha256:{found['Image'].removeprefix('sha256:')}" == config_of(made, "app:1")
        assert engine.podman("exec", "app", "/bin/cat", "/srv/top").stdout == b"top\n"
        engine.podman("rm", "--force", "--time", "0", "app")


def test_after_an_update_that_drops_its_factory_layers_a_pull_brings_a_user_s_image_whole(tmp_path: Path, data_root: Path) -> None:
    """With the layers' records still there the engine would say "Already exists", and run nothing."""
    require("docker", "registry")
    old = firmware(tmp_path / "old", [runnable.image("app:1")], data_root)
    new = firmware(tmp_path / "new", [OTHER], data_root)
    first = runnable.image("app:1")
    with running_registry(tmp_path / "registry") as registry:
        name = f"{registry.address}/user:1"
        files = oci_files([ImageSpec([*first.layers, build([file("update", b"new\n")])], config=first.config)], media=DOCKER)
        index = files["index.json"]
        assert isinstance(index, bytes)
        push(registry.address, "user", files, {"1": json.loads(index)["manifests"][0]["digest"]})
        with device(tmp_path / "1", old, data_root) as engine:
            kit(engine, DASH, old, "seed")
            engine.start()
            factory = {path.name for path in (data_root / "image/overlay2/layerdb/sha256").iterdir()}
            engine.docker("pull", name)
            assert len({path.name for path in (data_root / "image/overlay2/layerdb/sha256").iterdir()} - factory) == 1
            assert engine.docker("run", "--rm", *NONE, name, "/bin/cat", "/update").stdout == b"new\n"
        with device(tmp_path / "2", new, data_root) as engine:
            told = kit(engine, DASH, new, "seed").stderr.decode()
            assert f"image {name} is gone with another firmware's layers" in told
            engine.start()
            assert {one["Repository"] for one in engine.images()} == {"other"}
            assert b"Pull complete" in engine.docker("pull", name).stdout
            assert engine.docker("run", "--rm", *NONE, name, "/bin/cat", "/update").stdout == b"new\n"
            assert set(engine.docker("run", "--rm", *NONE, name).stdout.decode().splitlines()) >= runnable.expected_lines()
        with device(tmp_path / "3", old, data_root) as engine:  # back: its layers are the user's own now
            kit(engine, DASH, old, "seed")
            engine.start()
            assert {one["Repository"] for one in engine.images()} == {"app", f"{registry.address}/user"}
            for image in ("app:1", name):
                assert set(engine.docker("run", "--rm", *NONE, image).stdout.decode().splitlines()) >= runnable.expected_lines()


def test_an_archive_goes_into_containerd_s_store_as_well_and_is_loaded_once(
    installation: Installation, tmp_path: Path, data_root: Path
) -> None:
    """An image's ID is another digest there: which one, is written down when the archive was loaded."""
    base = installation.demand("docker")
    if base == Path("/"):
        pytest.skip("Debian 12's Docker, 20.10, has no such store")
    say = container("say", args=["/bin/cat", "/srv/top"])
    made = firmware(tmp_path / "made", [runnable.image("app:1")], data_root, mode="archive", containers=[say])
    made.change(ARCHIVE=str(made.out / "images.tar"))
    for boot in (1, 2):
        with Dockerd(tmp_path / str(boot), base=base, data_root=data_root, start=False) as engine:
            config = b'{"features": {"containerd-snapshotter": true}}'
            engine.run_in_namespace(["sh", "-c", "mkdir -p /etc/docker; cat >/etc/docker/daemon.json"], input=config)
            kit(engine, ["sh"], made, "seed")
            engine.start()
            assert (b"loaded" in kit(engine, ["sh"], made, "load").stderr) is (boot == 1)
            kit(engine, ["sh"], made, "start")
            engine.docker("wait", "say")
            assert engine.docker("logs", "say").stdout == b"top\n" * boot
            assert at(engine, "say", ".Image") != config_of(made, "app:1")


_SILENT = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(60)"


def test_status_ends_in_time_with_an_engine_that_never_answers(tmp_path: Path, data_root: Path) -> None:
    """An updater's health hook that hung would hold up the way back."""
    require("docker")
    made = firmware(tmp_path / "made", [OTHER], data_root)
    with device(tmp_path / "1", made, data_root) as engine:
        kit(engine, DASH, made, "seed")
        silent = engine.root.spawn(["/usr/bin/env", "python3", "-c", _SILENT, SOCKET], tmp_path / "silent.log")
        while engine.run_in_namespace(["test", "-S", SOCKET], check=False).returncode:
            time.sleep(0.1)
        begun = time.monotonic()
        done = kit(engine, DASH, made, "status", "--wait", "2", check=False)
        assert done.returncode == 1 and b"the engine does not answer" in done.stderr
        assert time.monotonic() - begun < 30
        silent.kill()
