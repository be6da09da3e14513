"""A build from a Compose file is the build from the containers that it describes, wherever it runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from archives import docker_archive
from commandline import shiplap_command
from storeimages import APP_IMAGE

COMPOSE = """
services:
  one: {image: "app:1", command: serve "a b", network_mode: none, depends_on: [two], environment: {A: $$x}}
  two: {image: "app:1", network_mode: bridge, ports: ["8080:80"], labels: [a=b]}
"""
CONTAINERS = [
    {"name": "one", "image": "app:1", "args": ["serve", "a b"], "network": "none", "after": ["two"], "env": {"A": "$x"}},
    {"name": "two", "image": "app:1", "network": "bridge", "ports": ["8080:80"], "labels": {"a": "b"}},
]


def sums(folder: Path, **keys: object) -> str:
    folder.mkdir(parents=True)
    archive = docker_archive(folder / "app.tar", [APP_IMAGE])
    manifest = {"version": 1, "images": [{"ref": "app:1", "from": f"docker-archive:{archive.name}"}], **keys}
    (folder / "docker-compose.yaml").write_text(COMPOSE)
    (folder / "shiplap.yaml").write_text(json.dumps(manifest))
    environment = {"TZ": "Asia/Tokyo", "A": "other", "x": "y", "COMPOSE_FILE": "/none"} if keys.get("compose") else {}
    done = shiplap_command(
        "build",
        "-f",
        f"{folder}/shiplap.yaml",
        "-o",
        f"{folder}/out",
        "--source-date-epoch",
        "1700000000",
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return (folder / "out/SHA256SUMS").read_text()


def test_a_compose_file_and_the_containers_it_describes_give_the_same_bytes(tmp_path: Path) -> None:
    written = sums(tmp_path / "written", containers=CONTAINERS)
    composed = sums(tmp_path / "elsewhere" / "composed", compose="docker-compose.yaml")
    assert composed == written
    assert "target.tar" in composed
    record = json.loads((tmp_path / "written/out/record.json").read_text())
    assert record["options"]["target"]["containers"] == ["two", "one"]
    assert record["options"]["target"]["bridge"] is True
