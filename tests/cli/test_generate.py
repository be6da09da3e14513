"""``shiplap generate``: for every build system the same rules of options, edits and what the tree carries."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, oci_layout
from commandline import shiplap_command
from images import file
from layertar import build
from locks import write_manifest
from shiplap.adapters.generated import NEW_SUFFIX, STAMP_NAME
from shiplap.adapters.sourcearchive import host_tool
from shiplap.cli.generate import PUBLISH, SYSTEMS

APP = ImageSpec([build([file("hello")])], tags=["app:1"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest, lock and a finished build that every system takes: xz, no xattrs needed."""
    folder = tmp_path_factory.mktemp("made")
    oci_layout(folder / "app", [APP])
    write_manifest(
        folder,
        [{"ref": "app:1", "from": "oci:app", "license": "MIT"}],
        name="gateway",
        squashfs={"compression": "xz", "whiteouts": "explicit"},
        verity={"check": "sha256"},
        target={"init": ["procd"]},
        **{"data-root": {"path": "/mnt/data/docker", "persistence": "persistent"}},
    )
    for words in (["lock"], ["build", "-o", "out"]):
        done = shiplap_command("-C", str(folder), *words)
        assert done.returncode == 0, done.stderr
    return folder


def generate(folder: Path, system: str, *options: str) -> subprocess.CompletedProcess[str]:
    return shiplap_command("-C", str(folder), "--json", "generate", system, *options)


def good(folder: Path, system: str, *options: str) -> dict[str, Any]:
    done = generate(folder, system, *options)
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def states_the_sha256(files: dict[str, bytes], name: str) -> bool:
    digest = hashlib.sha256(files[name]).hexdigest().encode()
    return any(digest in data for path, data in files.items() if path != STAMP_NAME)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_prebuilt_tree_carries_the_bundle_and_is_the_same_twice(made: Path, tmp_path: Path, system: str) -> None:
    result = good(made, system, "--prebuilt", "out", "-o", str(tmp_path / "a"))
    assert (result["name"], result["version"], result["prebuilt"], result["kept"]) == ("gateway", "20240501", True, [])
    first = everything(tmp_path / "a")
    # Some download folders keep archives by name alone: there the name has a part of the sha256, too.
    bundles = [path for path in first if Path(path).name.startswith("gateway-20240501") and path.endswith(".tar")]
    assert len(bundles) == 1
    # BitBake has no checksums for files of a layer: their bytes are part of the task's signature.
    assert states_the_sha256(first, bundles[0]) or system == "yocto"
    good(made, system, "--prebuilt", "out", "-o", str(tmp_path / "b"))
    assert everything(tmp_path / "b") == first
    again = good(made, system, "--prebuilt", "out", "-o", str(tmp_path / "a"))
    assert (again["written"], again["unchanged"]) == ([], result["written"])


@pytest.mark.parametrize("system", SYSTEMS)
def test_with_a_url_the_bundle_is_for_publishing_and_the_recipe_fetches_it(made: Path, tmp_path: Path, system: str) -> None:
    url = "https://downloads.example.com/store/gateway-20240501.tar"
    good(made, system, "--prebuilt", "out", "--prebuilt-url", url, "-o", str(tmp_path / "a"))
    files = everything(tmp_path / "a")
    assert [path for path in files if path.endswith("gateway-20240501.tar")] == [f"{PUBLISH}/gateway-20240501.tar"]
    assert any(b"https://downloads.example.com/store" in data for data in files.values())
    assert states_the_sha256(files, f"{PUBLISH}/gateway-20240501.tar")


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_generated_text_names_this_machine_or_a_clock(made: Path, tmp_path: Path, system: str) -> None:
    good(made, system, "--prebuilt", "out", "-o", str(tmp_path / "a"))
    for path, data in everything(tmp_path / "a").items():
        assert str(tmp_path).encode() not in data, path
        assert str(made).encode() not in data, path


@pytest.mark.parametrize("system", SYSTEMS)
def test_edits_stay_and_are_named(made: Path, tmp_path: Path, system: str) -> None:
    out = tmp_path / "a"
    good(made, system, "--prebuilt", "out", "-o", str(out))
    name = next(path for path in everything(out) if path.endswith(("README.md", "Makefile", "external.desc")))
    edited = (out / name).read_text() + "\n# mine\n"
    (out / name).write_text(edited)
    done = generate(made, system, "--prebuilt", "out", "--maintainer", "A B <a@b.example>", "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == [name]
    assert f"{name} was edited and stays; what would be written now is in {name}{NEW_SUFFIX}" in done.stderr
    assert (out / name).read_text() == edited
    assert name in good(made, system, "--prebuilt", "out", "--force", "-o", str(out))["written"]


def test_a_file_source_that_a_build_system_cannot_fetch_is_refused_with_what_helps(tmp_path: Path) -> None:
    oci_layout(tmp_path / "elsewhere", [APP])
    (tmp_path / "here").mkdir()
    write_manifest(tmp_path / "here", [{"ref": "app:1", "from": "oci:../elsewhere", "license": "MIT"}], name="gateway")
    assert shiplap_command("-C", str(tmp_path / "here"), "lock").returncode == 0
    for system in SYSTEMS:
        done = generate(tmp_path / "here", system, "-o", str(tmp_path / system))
        assert (done.returncode, "docker.io/library/app:1" in done.stderr, "--prebuilt" in done.stderr) == (2, True, True), done.stderr
        assert not (tmp_path / system).exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["-f", "missing.yaml", "-o", "x"], 2, "missing.yaml"),
        (["--lock", "missing.lock.yaml", "-o", "x"], 2, "`shiplap lock` writes it"),
        (["--prebuilt", "nowhere", "-o", "x"], 2, "no finished build"),
        (["--prebuilt", "out", "--prebuilt-url", "ftp://x", "-o", "x"], 2, "not an https, http or file URL"),
        ([], 2, "-o"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(made: Path, options: list[str], code: int, said: str) -> None:
    done = generate(made, "yocto", *options)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert not (made / "x").exists()


def test_a_lock_that_is_not_of_the_manifest_is_refused(made: Path, tmp_path: Path) -> None:
    for name, more in (("epoch", {"epoch": 7}), ("fewer", {"images": [{"ref": "other:1", "license": "MIT"}]})):
        changed = tmp_path / f"{name}.yaml"
        changed.write_text(json.dumps(json.loads((made / "shiplap.yaml").read_text()) | more))
        done = generate(
            made, "yocto", "-f", str(changed), "--lock", str(made / "shiplap.lock.yaml"), "--prebuilt", "out", "-o", str(tmp_path / "x")
        )
        assert (done.returncode, "is not up to date" in done.stderr) == (2, True), done.stderr
        assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        done = generate(made, "yocto", "--prebuilt", "out", "-o", str(out))
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_the_tree_carries_the_source_of_the_shiplap_that_wrote_it() -> None:
    assert host_tool("https://example.com/shiplap.tar").sha256 == host_tool().sha256
