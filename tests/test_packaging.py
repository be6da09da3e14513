"""What is released: a wheel and a source distribution, the same bytes wherever they are built."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from requirement import missing
from shiplap.core.version import VERSION

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "rootfs", "verity", "adapters", "audit", "cli")
BUILD = "import sys, hatchling.build as b; print(getattr(b, f'build_{sys.argv[1]}')(sys.argv[2]))"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository without what runs leave behind."""
    if importlib.util.find_spec("hatchling") is None:
        missing("hatchling", "hatchling is not installed; the README's test command installs it")
    if not (ROOT / ".ns").is_dir():
        pytest.skip("not a checkout")
    copy = tmp_path_factory.mktemp("one") / "shiplap"
    unwanted = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", ".hypothesis", ".venv", "dist", "build", "shiplap-out")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=unwanted)
    return copy


def built(kind: str, checkout: Path, to: Path, **variation: str) -> Path:
    """Build a ``wheel`` or ``sdist`` of ``checkout`` into ``to``, in an environment of its own."""
    to.mkdir(parents=True)
    env = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    command = [sys.executable, "-c", BUILD, kind, str(to)]
    umask = int(variation.pop("umask", "022"), 8)
    done = subprocess.run(command, cwd=checkout, env={**env, **variation}, umask=umask, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return to / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", checkout, tmp_path_factory.mktemp("wheel") / "out")


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_another_place_umask_time_zone_and_age_of_the_files_give_the_same_bytes(kind: str, checkout: Path, tmp_path: Path) -> None:
    first = built(kind, checkout, tmp_path / "a", umask="022", TZ="UTC")
    other = tmp_path / "a much longer name" / "elsewhere"
    shutil.copytree(checkout, other, symlinks=True)
    for path in other.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 1))
            path.chmod(path.stat().st_mode & 0o700)  # as a checkout with umask 077 has it
    second = built(kind, other, tmp_path / "b", umask="077", TZ="Asia/Kathmandu", LC_ALL="C", PYTHONHASHSEED="7")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_the_wheel_holds_the_package_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    metadata = f"shiplap-{VERSION}.dist-info/"
    assert {name.split("/")[0] for name in names} == {"shiplap", metadata.rstrip("/")}
    assert {name.split("/")[1] for name in names if name.startswith("shiplap/")} == set(FOLDERS)
    for data in ("core/manifest/schema.json", "core/manifest/compose.json", "core/sbom/identifiers.txt"):
        assert f"shiplap/{data}" in names
    assert {f"shiplap/{folder}/py.typed" for folder in FOLDERS} <= set(names)
    assert any(name.startswith(metadata) and name.endswith("LICENSE") for name in names)
    wanted = {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert {name.removeprefix("shiplap/") for name in names if name.endswith(".py")} == wanted


def test_the_source_distribution_has_tests_and_documents_but_not_the_links_of_a_checkout(checkout: Path, tmp_path: Path) -> None:
    sdist = built("sdist", checkout, tmp_path / "out")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not [name for name in names if name.startswith(".ns")]
    assert {"pyproject.toml", "LICENSE", "tests/test_packaging.py", "core/errors.py", "docs/cli.md"} <= names


def test_the_wheel_of_a_source_distribution_is_the_wheel_of_the_checkout(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    sdist = built("sdist", checkout, tmp_path / "out")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    again = built("wheel", tmp_path / f"shiplap-{VERSION}", tmp_path / "again")
    assert again.read_bytes() == wheel.read_bytes()


def test_the_installed_wheel_runs_from_its_entry_and_as_a_module(wheel: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        missing("pip", "pip is not installed")
    site = tmp_path / "site"
    quietly = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-compile")
    subprocess.run([sys.executable, "-m", "pip", "install", *quietly, "--target", str(site), str(wheel)], check=True)
    env = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "PYTHONPATH": str(site)}
    for command in ([str(site / "bin/shiplap")], [sys.executable, "-P", "-m", "shiplap.cli"]):
        done = subprocess.run([*command, "--version"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"shiplap {VERSION}\n", "")
    done = subprocess.run([*command, "schema"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert '"title": "shiplap.yaml"' in done.stdout


def test_the_version_stands_in_the_project_file_and_in_the_change_log() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION
    assert f"## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_links_of_a_checkout_are_the_folders_of_the_wheel() -> None:
    if not (ROOT / ".ns").is_dir():
        pytest.skip("not a checkout")
    links = {path.name: os.readlink(path) for path in (ROOT / ".ns/shiplap").iterdir()}
    assert links == {folder: f"../../{folder}" for folder in FOLDERS}
    sources = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]["sources"]
    assert sources == {folder: f"shiplap/{folder}" for folder in FOLDERS}
