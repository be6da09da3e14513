"""What a Compose file says is what real engines make of it: created by Docker and by Podman from the kit's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from archives import docker_archive
from engines import runnable
from engines.dockerd import Dockerd
from engines.podman import Podman
from requirement import require
from shiplap.core.manifest import load_manifest
from shiplap.rootfs.target.containers import containers_of
from shiplap.rootfs.target.settings import Container

COMPOSE = """
services:
  web:
    image: app:1
    entrypoint: [/bin/sh, -c]
    command: ['echo "$$0" "$$1" "<$$A>"', "it's", "a  b"]
    environment: {A: "x $$y"}
    labels: {org.example.part: web}
    user: "0:0"
    network_mode: bridge
    ports: ["127.0.0.1:8080:80/tcp", {target: 53, published: 5353, protocol: udp}]
    volumes:
      - data:/data:ro
      - {type: bind, source: /etc, target: /outside, read_only: true}
      - {type: tmpfs, target: /cache, tmpfs: {size: 1m}}
    tmpfs: /run
    restart: unless-stopped
    read_only: true
    cap_drop: [ALL]
    cap_add: [CHOWN]
    security_opt: ["no-new-privileges:true"]
    mem_limit: 64m
    cpus: "0.5"
    pids_limit: 20
    healthcheck: {test: ["CMD", "ls", "a b"], interval: 30s, timeout: 5s, retries: 2, start_period: 1m}
  plain:
    image: app:1
    command: echo 'one two' three
    network_mode: none
    healthcheck: {test: ["NONE"]}
volumes:
  data: {name: appdata}
"""


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, tuple[Container, ...]]:
    """An archive of the image, and the file's containers."""
    archive = docker_archive(tmp_path / "app.tar", [runnable.image("app:1")])
    manifest = {"version": 1, "images": [{"ref": "app:1"}], "data-root": {"persistence": "volatile"}, "compose": "compose.yaml"}
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "shiplap.yaml").write_text(json.dumps(manifest))
    described = load_manifest(tmp_path / "shiplap.yaml").device.containers
    return archive, containers_of(described, [("app:1", "docker.io/library/app:1")])


def words(container: Container) -> list[str]:
    return ["--name", container.name, *container.options, container.image, *container.args]


def ports(inspected: Any) -> dict[str, Any]:
    return {key: [(one["HostIp"].replace("0.0.0.0", ""), one["HostPort"]) for one in bound] for key, bound in inspected.items()}


def test_docker_makes_the_containers_that_the_file_describes(made: tuple[Path, tuple[Container, ...]], tmp_path: Path) -> None:
    require("docker")
    archive, containers = made
    with Dockerd(tmp_path / "engine", binds=[archive.parent]) as engine:
        engine.docker("load", "-i", archive)
        for container in containers:
            engine.docker("create", *words(container))
        web, plain = json.loads(engine.docker("inspect", "web", "plain").stdout)
        config, host = web["Config"], web["HostConfig"]
        assert config["Entrypoint"] == ["/bin/sh"]
        assert config["Cmd"] == ["-c", 'echo "$0" "$1" "<$A>"', "it's", "a  b"]
        assert "A=x $y" in config["Env"] and config["Labels"]["org.example.part"] == "web" and config["User"] == "0:0"
        assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "ls 'a b'"]
        assert (config["Healthcheck"]["Interval"], config["Healthcheck"]["StartPeriod"]) == (30 * 10**9, 60 * 10**9)
        assert ports(host["PortBindings"]) == {"80/tcp": [("127.0.0.1", "8080")], "53/udp": [("", "5353")]}
        assert sorted(host["Binds"]) == ["/etc:/outside:ro", "appdata:/data:ro"]
        assert host["Tmpfs"] == {"/run": "", "/cache": "size=1048576"}
        assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 5 * 10**8, 20)
        assert host["RestartPolicy"]["Name"] == "unless-stopped" and host["ReadonlyRootfs"]
        assert host["NetworkMode"] in ("bridge", "default") and plain["HostConfig"]["NetworkMode"] == "none"
        # The image's own command does not count beside an entrypoint, and its entrypoint does without one.
        assert plain["Config"]["Entrypoint"] is None and plain["Config"]["Cmd"] == ["echo", "one two", "three"]
        assert plain["Config"]["Healthcheck"]["Test"] == ["NONE"]


def test_podman_takes_the_same_words(made: tuple[Path, tuple[Container, ...]], tmp_path: Path) -> None:
    require("podman")
    archive, containers = made
    with Podman(tmp_path / "engine", binds=[archive.parent]) as engine:
        engine.podman("load", "-i", archive)
        for container in containers:
            engine.podman("create", *words(container))
        web, plain = json.loads(engine.podman("inspect", "web", "plain").stdout)
        config, host = web["Config"], web["HostConfig"]
        assert config["Entrypoint"] in ("/bin/sh", ["/bin/sh"])  # a text before Podman 5
        assert config["Cmd"] == ["-c", 'echo "$0" "$1" "<$A>"', "it's", "a  b"]
        assert "A=x $y" in config["Env"] and config["Labels"]["org.example.part"] == "web"
        assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "ls 'a b'"]
        assert ports(host["PortBindings"]) == {"80/tcp": [("127.0.0.1", "8080")], "53/udp": [("", "5353")]}
        assert {mount["Destination"] for mount in web["Mounts"]} == {"/data", "/outside"}
        assert set(host["Tmpfs"]) >= {"/run", "/cache"} and host["Memory"] == 64 << 20
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert plain["HostConfig"]["NetworkMode"] == "none" and plain["Config"]["Cmd"] == ["echo", "one two", "three"]
