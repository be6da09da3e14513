"""``images.tar`` as a device uses it: loaded at boot, then run, by docker and by podman."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import docker_archive
from commandline import shiplap_command
from engines import runnable
from engines.dockerd import Dockerd
from engines.installations import Installation
from engines.podman import Podman


@pytest.fixture(scope="module")
def images_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("archive")
    source = docker_archive(work / "app.tar", [runnable.image("app:1")], layout="save")
    done = shiplap_command("build", "--mode", "archive", f"app:1=docker-archive:{source}", "-o", str(work / "out"))
    assert done.returncode == 0, done.stderr
    return work / "out/images.tar"


def check(output: bytes) -> None:
    said = set(output.decode().splitlines())
    assert runnable.expected_lines() <= said
    assert not runnable.hidden_lines() & said


def test_docker_loads_and_runs_it(images_tar: Path, installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("docker")
    with Dockerd(tmp_path, base=root, binds=[images_tar.parent], volatile=True) as engine:
        engine.docker("load", "--input", images_tar)
        check(engine.docker("run", "--rm", "--network", "none", "app:1").stdout)


def test_podman_loads_and_runs_it(images_tar: Path, installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("podman")
    with Podman(tmp_path, base=root, binds=[images_tar.parent]) as engine:
        engine.podman("load", "--quiet", "--input", images_tar)
        check(engine.run("docker.io/library/app:1").stdout)
