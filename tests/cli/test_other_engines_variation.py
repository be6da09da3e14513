"""Podman and vfs stores: the same images give the same bytes, whatever the surroundings and the way the images came."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import docker_archive, oci_layout
from commandline import COMMAND, environment, shiplap_command
from storeimages import IMAGES

ARTIFACTS = (
    "store.squashfs",
    "store.verity",
    "store.roothash",
    "store.tar",
    "store.json",
    "record.json",
    "sbom.cdx.json",
    "sbom.spdx.json",
)
ENGINES = {"podman": ("--engine", "podman"), "vfs": ("--driver", "vfs")}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return docker_archive(tmp_path_factory.mktemp("images") / "images.tar", IMAGES)


def build(out: Path, engine: str, source: str, *words: str, **options: Any) -> dict[str, bytes]:
    argv = [*COMMAND, "build", "--output", "squashfs,verity,tar", "--progress", "quiet", *ENGINES[engine], source, "-o", str(out), *words]
    done = subprocess.run(argv, env=environment(options.pop("env", None)), capture_output=True, text=True, timeout=60, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return {name: (out / name).read_bytes() for name in ARTIFACTS}


@pytest.fixture(scope="module", params=ENGINES)
def reference(request: pytest.FixtureRequest, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    return request.param, build(tmp_path_factory.mktemp("reference") / "out", request.param, f"docker-archive:{archive}")


def _umask() -> None:
    os.umask(0o077)


VARIATIONS: dict[str, dict[str, Any]] = {
    "umask and time zone": {"preexec_fn": _umask, "env": {"TZ": "Pacific/Kiritimati"}},
    "locale and hash seed": {"env": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONHASHSEED": "4294967295"}},
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_the_surroundings_do_not_show(reference: tuple[str, dict[str, bytes]], archive: Path, tmp_path: Path, variation: str) -> None:
    engine, wanted = reference
    assert build(tmp_path / "out", engine, f"docker-archive:{archive}", "--jobs", "3", **VARIATIONS[variation]) == wanted


WAYS: dict[str, Callable[[Path], str]] = {
    "an OCI layout with gzip": lambda folder: f"oci:{oci_layout(folder / 'layout', IMAGES)}",
    "docker save with zstd": lambda folder: f"docker-archive:{docker_archive(folder / 'images.tar', IMAGES, compression='zstd')}",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_way_the_images_came_shows_in_the_record_only(reference: tuple[str, dict[str, bytes]], tmp_path: Path, way: str) -> None:
    """Also where the source has a manifest of its own, which a Podman store then does not take."""
    engine, wanted = reference
    found = build(tmp_path / "out", engine, WAYS[way](tmp_path))
    assert {name: data for name, data in found.items() if name != "record.json"} == {
        name: data for name, data in wanted.items() if name != "record.json"
    }


def test_the_record_names_engine_and_range(reference: tuple[str, dict[str, bytes]]) -> None:
    engine, wanted = reference
    record = json.loads(wanted["record.json"])
    assert (record["options"]["engine"], record["options"]["driver"]) == {"podman": ("podman", "overlay"), "vfs": ("docker", "vfs")}[engine]
    assert set(record["engine-range"]) == {"docker", "podman"}


def test_an_archive_for_podman_is_the_one_for_docker(archive: Path, tmp_path: Path) -> None:
    for engine in ("docker", "podman"):
        done = shiplap_command(
            "build", "--mode", "archive", "--engine", engine, f"docker-archive:{archive}", "-o", str(tmp_path / engine)
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "docker/images.tar").read_bytes() == (tmp_path / "podman/images.tar").read_bytes()


def test_a_driver_of_the_other_engine_is_refused(archive: Path, tmp_path: Path) -> None:
    for words in (("--engine", "podman", "--driver", "vfs"), ("--driver", "overlay")):
        done = shiplap_command("build", *words, f"docker-archive:{archive}", "-o", str(tmp_path / "out"))
        assert done.returncode == 2 and "is no driver of" in done.stderr
