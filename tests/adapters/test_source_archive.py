"""The archive of shiplap's own source: what a build system installs from it is the program that wrote it."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import shiplap.adapters.sourcearchive as sourcearchive
from shiplap.adapters.sourcearchive import FOLDERS, host_tool, write_source_archive
from shiplap.core.version import VERSION

ROOT = Path(__file__).parents[2]


def archive() -> bytes:
    made = io.BytesIO()
    write_source_archive(made.write)
    return made.getvalue()


def test_it_is_what_it_says_and_the_same_twice() -> None:
    tool = host_tool()
    assert (tool.sha256, tool.size_bytes) == (hashlib.sha256(archive()).hexdigest(), len(archive()))
    assert tool.file_name == f"shiplap-{VERSION}.tar"


def test_it_has_every_file_of_the_program_and_nothing_else() -> None:
    installed = Path(sourcearchive.__file__).parents[1]
    program = {
        str(path.relative_to(installed))
        for folder in FOLDERS
        for path in sorted((installed / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        found = {member.name.partition("/")[2] for member in tar if member.isfile()}
        assert {(member.uid, member.gid, member.uname, member.mtime) for member in tar} == {(0, 0, "", 315532800)}
    assert found == program | {"pyproject.toml", "LICENSE", "README.md", "PKG-INFO"}


def test_its_packaging_is_the_repositorys() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        text = tar.extractfile(f"shiplap-{VERSION}/pyproject.toml")
        licence = tar.extractfile(f"shiplap-{VERSION}/LICENSE")
        assert text is not None and licence is not None
        packed, packed_licence = tomllib.loads(text.read().decode()), licence.read()
    assert packed_licence == (ROOT / "LICENSE").read_bytes()
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for key, value in packed["project"].items():
        if key == "optional-dependencies":
            assert value["docker"] == ours["project"][key]["docker"]
        else:
            assert value == ours["project"][key], key
    assert packed["build-system"] == ours["build-system"]
    assert packed["tool"]["hatch"]["build"]["targets"]["wheel"] == ours["tool"]["hatch"]["build"]["targets"]["wheel"]


def test_what_is_installed_from_it_runs(tmp_path: Path) -> None:
    (tmp_path / "shiplap.tar").write_bytes(archive())
    subprocess.run(["tar", "-xf", "shiplap.tar"], cwd=tmp_path, check=True)
    target = tmp_path / "site"
    source = tmp_path / f"shiplap-{VERSION}"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", target, source], check=True)
    said = subprocess.run(
        [sys.executable, "-P", "-m", "shiplap.cli", "--version"],
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert VERSION in said.stdout
    assert (target / "shiplap/rootfs/target/files/seed.sh").is_file()
