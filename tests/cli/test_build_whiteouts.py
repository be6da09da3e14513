"""``squashfs: {whiteouts: explicit}`` on the command line: refused or told what is lost, the same bytes anywhere, verified."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from archives import docker_archive
from commandline import shiplap_command
from requirement import require
from shiplap.rootfs.squashfs.reader import SquashfsReader
from storeimages import DATA_IMAGE

ALLOWED = ["/bin/ping"]


def build(folder: Path, allow: list[str], *words: str, lock: bool = False, **keys: Any) -> subprocess.CompletedProcess[str]:
    """An image with a capability and an opaque directory, into ``folder/out``."""
    folder.mkdir(exist_ok=True)
    archive = docker_archive(folder / "images.tar", [DATA_IMAGE])
    images = [{"ref": "data:1", "from": f"docker-archive:{archive}:data:latest", "allow-lost-xattrs": allow}]
    squashfs = {"level": 1, "whiteouts": "explicit"} | keys.pop("squashfs", {})
    (folder / "shiplap.yaml").write_text(json.dumps({"version": 1, "images": images, "squashfs": squashfs, **keys}))
    if lock:
        assert shiplap_command("lock", "-f", str(folder / "shiplap.yaml")).returncode == 0
    return shiplap_command("build", "-f", str(folder / "shiplap.yaml"), "-o", str(folder / "out"), *words)


def test_a_capability_that_would_be_lost_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    done = build(tmp_path, [])
    assert done.returncode == 2
    assert "docker.io/library/data:1, layer 0 (sha256:" in done.stderr
    assert "/bin/ping would lose its file capability, user.note" in done.stderr
    assert "allow-lost-xattrs" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*")) == []


@pytest.mark.parametrize("lock", [False, True])
def test_what_may_be_lost_is_told_and_the_rest_is_as_ever(tmp_path: Path, lock: bool) -> None:
    done = build(tmp_path, ALLOWED, *(["--locked"] if lock else []), lock=lock)
    assert done.returncode == 0, done.stderr
    assert "/bin/ping loses its file capability, user.note, as `allow-lost-xattrs` says" in done.stderr
    out = tmp_path / "out"
    assert json.loads((out / "store.json").read_text())["squashfs"]["whiteouts"] == "explicit"
    assert json.loads((out / "record.json").read_text())["options"]["squashfs"]["whiteouts"] == "explicit"
    verified = shiplap_command("verify", str(out))
    assert verified.returncode == 0, verified.stderr


def test_the_bytes_are_the_same_whatever_is_allowed_and_on_how_many_processors(tmp_path: Path) -> None:
    images = []
    for name, allow, words in (("a", ALLOWED, ["--jobs", "1"]), ("b", ["/bin", "/srv"], ["--jobs", "2"])):
        assert build(tmp_path / name, allow, *words).returncode == 0
        images.append([(tmp_path / name / "out" / file).read_bytes() for file in ("store.squashfs", "store.json", "store.roothash")])
    assert images[0] == images[1]


@pytest.mark.parametrize("tool", ["builtin", "tar2sqfs"])
def test_no_tool_writes_a_table_of_attributes(tmp_path: Path, tool: str) -> None:
    if tool != "builtin":
        require(tool)
    assert build(tmp_path, ALLOWED, squashfs={"tool": tool}).returncode == 0
    with SquashfsReader.open(tmp_path / "out/store.squashfs") as reader:
        assert reader.superblock.xattr_table is None
        assert not any(entry.xattrs for entry in reader.entries())


def test_a_podman_store_is_refused_and_allowed_alike(tmp_path: Path) -> None:
    assert "would lose its file capability" in build(tmp_path / "refused", [], engine="podman").stderr
    done = build(tmp_path / "allowed", ALLOWED, engine="podman")
    assert done.returncode == 0, done.stderr
    assert shiplap_command("verify", str(tmp_path / "allowed/out")).returncode == 0


def test_an_archive_loses_nothing(tmp_path: Path) -> None:
    assert build(tmp_path, [], mode="archive").returncode == 0
