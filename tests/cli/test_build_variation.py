"""The same images give the same bytes: whatever the machine, the user, the Python and the way the images came."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from archives import docker_archive, oci_archive, oci_layout
from commandline import COMMAND, IMPORT_ROOT, environment, nobody_can_run_it
from requirement import require
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
BUILD = ("build", "--output", "squashfs,verity,tar", "--progress", "quiet")


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    require("tar2sqfs")
    with tempfile.TemporaryDirectory(prefix="shiplap-variation-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        docker_archive(folder / "images.tar", IMAGES)
        (folder / "images.tar").chmod(0o644)
        yield folder


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict[str, bytes]:
    build_into(shared / "reference", shared / "images.tar")
    return artifacts(shared / "reference")


def build_into(out: Path, archive: Path | str, *words: str, command: Sequence[str] = COMMAND, **options: Any) -> None:
    source = archive if isinstance(archive, str) else f"docker-archive:{archive}"
    argv = [*command, *BUILD, source, "-o", str(out), *words]
    done = subprocess.run(argv, env=environment(options.pop("env", None)), capture_output=True, text=True, timeout=60, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def artifacts(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ARTIFACTS}


def test_a_second_build_gives_the_same_bytes(shared: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    build_into(tmp_path / "out", shared / "images.tar")
    assert artifacts(tmp_path / "out") == reference


def _umask(mask: int) -> Callable[[], object]:
    return lambda: os.umask(mask)


def _one_processor() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


VARIATIONS: dict[str, dict[str, Any]] = {
    "umask 000": {"preexec_fn": _umask(0)},
    "umask 077": {"preexec_fn": _umask(0o077)},
    "another time zone": {"env": {"TZ": "Pacific/Kiritimati"}},
    "the C locale": {"env": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}},
    "another hash seed": {"env": {"PYTHONHASHSEED": "1"}},
    "a third hash seed": {"env": {"PYTHONHASHSEED": "4294967295"}},
    "one processor": {"preexec_fn": _one_processor},
    "optimised Python": {"env": {"PYTHONOPTIMIZE": "2"}},
    "variables that tools listen to": {
        "env": {"ZSTD_CLEVEL": "1", "GZIP": "-9", "POSIXLY_CORRECT": "1", "TAR_OPTIONS": "-v", "USER": "x", "HOSTNAME": "y"}
    },
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_the_surroundings_do_not_show(shared: Path, reference: dict[str, bytes], tmp_path: Path, variation: str) -> None:
    build_into(tmp_path / "out", shared / "images.tar", **VARIATIONS[variation])
    assert artifacts(tmp_path / "out") == reference


def test_number_of_jobs_folder_and_path_do_not_show(shared: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    shutil.copy(shared / "images.tar", tmp_path / "a b/images.tar")
    build_into(Path("out"), "docker-archive:images.tar", "--jobs", "3", cwd=tmp_path / "a b")
    assert artifacts(tmp_path / "a b/out") == reference


@pytest.mark.parametrize("folder", ["/dev/shm", "/var/tmp"])
def test_where_layers_are_spooled_does_not_show(shared: Path, reference: dict[str, bytes], tmp_path: Path, folder: str) -> None:
    if not os.access(folder, os.W_OK):
        pytest.skip(f"no {folder} here")
    compressed = docker_archive(tmp_path / "images.tar", IMAGES, compression="gzip")
    build_into(tmp_path / "out", compressed, env={"TMPDIR": folder})
    assert artifacts(tmp_path / "out") == reference


def test_the_user_does_not_show(shared: Path, reference: dict[str, bytes]) -> None:
    if not nobody_can_run_it():
        pytest.skip("only root can become somebody else, who must be able to reach this checkout and its Python")
    (shared / "nobody").mkdir(mode=0o700)
    os.chown(shared / "nobody", 65534, 65534)
    build_into(shared / "nobody/out", shared / "images.tar", user=65534, group=65534, extra_groups=[], cwd="/", env={"HOME": "/"})
    assert artifacts(shared / "nobody/out") == reference


# --- the way the images came

SOURCES: dict[str, Callable[[Path], str]] = {
    "docker save": lambda folder: f"docker-archive:{docker_archive(folder / 'images.tar', IMAGES, layout='save')}",
    "docker save of version 25 on": lambda folder: f"docker-archive:{docker_archive(folder / 'images.tar', IMAGES, layout='oci')}",
    "layers with gzip": lambda folder: f"docker-archive:{docker_archive(folder / 'images.tar', IMAGES, compression='gzip')}",
    "layers with zstd": lambda folder: f"docker-archive:{docker_archive(folder / 'images.tar', IMAGES, compression='zstd')}",
    "an archive with xz": lambda folder: f"docker-archive:{docker_archive(folder / 'images.tar.xz', IMAGES, whole='xz')}",
    "an OCI layout": lambda folder: f"oci:{oci_layout(folder / 'layout', IMAGES)}",
    "an OCI layout without compression": lambda folder: f"oci:{oci_layout(folder / 'layout', IMAGES, compression='none')}",
    "an OCI archive with zstd layers": lambda folder: f"oci-archive:{oci_archive(folder / 'layout.tar', IMAGES, compression='zstd')}",
}


@pytest.mark.parametrize("way", SOURCES)
def test_the_way_the_images_came_shows_in_the_record_only(reference: dict[str, bytes], tmp_path: Path, way: str) -> None:
    build_into(tmp_path / "out", SOURCES[way](tmp_path))
    found, wanted = artifacts(tmp_path / "out"), dict(reference)
    records = [json.loads(one.pop("record.json")) for one in (found, wanted)]
    assert found == wanted
    for record in records:
        for source in record.pop("sources"):
            assert source["source"].partition(":")[0] in ("docker-archive", "oci", "oci-archive")
            assert str(tmp_path) not in source["source"]
    assert records[0] == records[1]


# --- other Pythons


def pythons() -> list[Path]:
    """Interpreters of other versions: on the path, or installed by pyenv."""
    found = {}
    for minor in range(11, 16):
        if minor == sys.version_info.minor:
            continue
        on_path = shutil.which(f"python3.{minor}")
        installed = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3"))
        for path in (*([Path(on_path)] if on_path else []), *installed):
            works = subprocess.run([path, "-c", f"import sys; assert sys.version_info[1] == {minor}"], capture_output=True).returncode == 0
            if works:
                found[minor] = path
                break
    return list(found.values())


def test_the_version_of_python_does_not_show(shared: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    others = pythons()
    if not others:
        pytest.skip("no other version of Python is installed")
    libraries = tmp_path / "libraries"  # both run as plain Python where their compiled parts do not fit
    libraries.mkdir()
    for name in ("yaml", "libarchive"):
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        (libraries / name).symlink_to(Path(spec.origin).parent)
    for number, python in enumerate(others):
        command = (str(python), "-P", "-m", "shiplap.cli")
        build_into(tmp_path / f"out{number}", shared / "images.tar", command=command, env={"PYTHONPATH": f"{IMPORT_ROOT}:{libraries}"})
        assert artifacts(tmp_path / f"out{number}") == reference, python
