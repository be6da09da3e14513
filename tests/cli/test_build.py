"""``shiplap build``: what it writes, what it says, what it refuses and how it ends."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, docker_archive, docker_files, oci_layout, write_tar
from commandline import shiplap_command
from images import file
from layertar import build
from requirement import require
from shiplap.core.output import SUMS_NAME
from shiplap.rootfs.squashfs.reader import SquashfsReader
from storeimages import APP_IMAGE, DATA_IMAGE, IMAGES

pytestmark = pytest.mark.usefixtures("_tools")


@pytest.fixture(scope="module")
def _tools() -> None:
    require("tar2sqfs")


@pytest.fixture
def source(tmp_path: Path) -> str:
    return f"docker-archive:{docker_archive(tmp_path / 'images.tar', IMAGES)}"


def built(out: Path, *words: str, **options: Any) -> dict[str, Any]:
    done = shiplap_command("build", "--json", "-o", str(out), *words, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return dict(json.loads(done.stdout))


def refused(*words: str, code: int = 2, **options: Any) -> dict[str, Any]:
    """The error of a build that ends with ``code``."""
    done = shiplap_command("build", "--json", *words, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["exit"] == code
    return dict(error)


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


def test_a_build_says_what_it_made_and_it_is_there(tmp_path: Path, source: str) -> None:
    out = tmp_path / "out"
    result = built(out, source, "--output", "squashfs,verity", "--output", "tar", "--source-date-epoch", "5")
    assert names(out) == [
        SUMS_NAME,
        "record.json",
        "sbom.cdx.json",
        "sbom.spdx.json",
        "store.json",
        "store.roothash",
        "store.squashfs",
        "store.tar",
        "store.verity",
        "target.tar",
    ]
    assert result["epoch"] == 5 and result["out"] == str(out)
    assert [image["config"] for image in result["images"]] == [APP_IMAGE.config_digest, DATA_IMAGE.config_digest]
    assert result["images"][1]["references"] == ["docker.io/library/data:latest", "reg.example:5000/me/data:2"]
    assert (out / "store.roothash").read_text() == result["root-hash"] + "\n"
    assert (out / "store.squashfs").stat().st_size % 4096 == 0
    sums = dict(reversed(line.split("  ")) for line in (out / SUMS_NAME).read_text().splitlines())
    for name, output in result["outputs"].items():
        data = (out / name).read_bytes()
        assert output == {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        assert sums.pop(name) == output["sha256"]
    assert sums == {}
    record = json.loads((out / "record.json").read_text())
    assert record["outputs"] == {name: output for name, output in result["outputs"].items() if name != "record.json"}
    assert record["epoch"] == {"value": 5, "from": "command line"}
    assert record["verity"]["root-hash"] == result["root-hash"]
    assert str(tmp_path) not in (out / "record.json").read_text()
    assert json.loads((out / "store.json").read_text())["epoch"] == 5
    with SquashfsReader.open(out / "store.squashfs") as reader:
        assert reader.superblock.mtime_epoch == 5


def test_people_get_names_sizes_and_the_root_hash(tmp_path: Path, source: str) -> None:
    done = shiplap_command("build", source, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"app:1  {APP_IMAGE.config_digest}  2 layers, linux/amd64"
    assert lines[-1] == "root hash  " + (tmp_path / "out/store.roothash").read_text().strip()
    assert any(line.startswith("out/store.squashfs  ") for line in lines)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ("tar", ["store.json", "store.tar"]),
        ("squashfs", ["store.json", "store.squashfs", "target.tar"]),
        ("squashfs, verity", ["store.json", "store.roothash", "store.squashfs", "store.verity", "target.tar"]),
    ],
)
def test_only_what_was_asked_for_is_written(tmp_path: Path, source: str, outputs: str, expected: list[str]) -> None:
    built(tmp_path / "out", source, "--output", outputs)
    assert names(tmp_path / "out") == sorted([SUMS_NAME, "record.json", "sbom.cdx.json", "sbom.spdx.json", *expected])


def test_a_tar_alone_needs_no_squashfs_tool(tmp_path: Path, source: str) -> None:
    built(tmp_path / "out", source, "--output", "tar", env={"PATH": "/nowhere"})
    with tarfile.open(tmp_path / "out/store.tar") as tar:
        assert "./image/overlay2/repositories.json" in tar.getnames() or "image/overlay2/repositories.json" in tar.getnames()


def test_a_missing_tool_names_its_package(tmp_path: Path, source: str) -> None:
    manifest = tmp_path / "shiplap.yaml"
    manifest.write_text(f"version: 1\nimages: [{{ref: 'app:1', from: '{source}'}}]\nsquashfs: {{tool: tar2sqfs}}\n")
    error = refused(source, "-f", str(manifest), "-o", str(tmp_path / "out"), code=3, env={"PATH": "/nowhere"})
    assert error["message"] == "tar2sqfs is not installed"
    assert error["hint"] == "on Debian: apt-get install squashfs-tools-ng"
    assert not (tmp_path / "out").exists()


def test_an_archive_is_written_in_archive_mode(tmp_path: Path, source: str) -> None:
    result = built(tmp_path / "out", source, "--mode", "archive")
    assert names(tmp_path / "out") == [
        SUMS_NAME,
        "images.tar",
        "record.json",
        "sbom.cdx.json",
        "sbom.spdx.json",
        "store.json",
        "target.tar",
    ]
    assert "root-hash" not in result
    assert json.loads((tmp_path / "out/store.json").read_text())["mode"] == "archive"


def test_a_manifest_says_the_same_as_arguments(tmp_path: Path, source: str) -> None:
    (tmp_path / "shiplap.yaml").write_text(
        "version: 1\nepoch: 7\nimages:\n  - ref: app:1\n    from: docker-archive:images.tar:app:1\noutputs: [tar]\nlimits: {entries: 100}\n"
    )
    by_manifest = built(tmp_path / "one", "-f", str(tmp_path / "shiplap.yaml"))
    by_default = built(Path("two"), cwd=tmp_path)
    by_words = built(tmp_path / "three", f"app:1={source}:app:1", "--output", "tar", "--source-date-epoch", "7")
    assert by_manifest["outputs"]["store.tar"] == by_default["outputs"]["store.tar"] == by_words["outputs"]["store.tar"]
    assert by_manifest["images"] == by_words["images"]


def test_a_digest_that_is_named_is_a_name_on_the_device(tmp_path: Path) -> None:
    layout = f"oci:{oci_layout(tmp_path / 'layout', [APP_IMAGE])}"
    wrong = refused(f"app:1@sha256:{'0' * 64}={layout}", "-o", str(tmp_path / "out"))
    digest = wrong["message"].partition("has digest ")[2].partition(",")[0]
    result = built(tmp_path / "out", f"app:1@{digest}={layout}", "--output", "tar", "--locked")
    assert result["images"][0]["references"] == ["docker.io/library/app:1", f"docker.io/library/app@{digest}"]


def test_locked_refuses_what_nothing_pins(tmp_path: Path, source: str) -> None:
    error = refused(f"app:1={source}:app:1", "--locked", "-o", str(tmp_path / "out"))
    assert "no digest pins docker.io/library/app:1" in error["message"] and "config-digest" in error["hint"]


def test_locked_is_content_with_a_digest_in_the_source(tmp_path: Path, source: str) -> None:
    pinned = f"app:1={source}:@{APP_IMAGE.config_digest}"
    assert built(tmp_path / "out", pinned, "--output", "tar", "--locked")["images"][0]["config"] == APP_IMAGE.config_digest


def test_the_budget_holds(tmp_path: Path, source: str) -> None:
    (tmp_path / "shiplap.yaml").write_text(
        "version: 1\nimages:\n  - {ref: app:1, from: 'docker-archive:images.tar:app:1'}\nbudget: {store-image: 4K}\n"
    )
    error = refused("-f", str(tmp_path / "shiplap.yaml"), "-o", str(tmp_path / "out"))
    assert "bytes, the budget is 4096" in error["message"] and error["hint"]
    assert not (tmp_path / "out").exists()


def test_125_layers_are_built_and_126_are_refused(tmp_path: Path) -> None:
    layers = [build([file(f"f{number}", b"%d" % number)]) for number in range(126)]
    deep = docker_archive(tmp_path / "deep.tar", [ImageSpec(layers[:125], tags=["deep:1"])])
    built(tmp_path / "out", f"docker-archive:{deep}", "--output", "tar")
    with tarfile.open(tmp_path / "out/store.tar") as tar:
        lowers = [tar.extractfile(one) for one in tar if one.name.endswith("/lower")]
        assert max(lower.read().count(b":") for lower in lowers if lower) == 123
    deeper = docker_archive(tmp_path / "deeper.tar", [ImageSpec(layers, tags=["deep:1"])])
    error = refused(f"docker-archive:{deeper}", "-o", str(tmp_path / "none"))
    assert "126 layers" in error["message"] and "125" in error["message"] and "max depth exceeded" in error["message"]


def test_an_image_without_layers_is_built_and_holds(tmp_path: Path) -> None:
    empty = docker_archive(tmp_path / "empty.tar", [ImageSpec([], tags=["empty:1"])])
    built(tmp_path / "out", f"docker-archive:{empty}", "--output", "squashfs,verity,tar")
    assert shiplap_command("verify", str(tmp_path / "out")).returncode == 0


def test_two_images_of_one_name_and_two_platforms_are_refused(tmp_path: Path, source: str) -> None:
    error = refused(f"x:1={source}:app:1", f"x:1={source}:data:latest", "-o", str(tmp_path / "out"))
    assert "docker.io/library/x:1 is asked for twice" in error["message"]
    other = docker_archive(tmp_path / "arm.tar", [ImageSpec([build([file("f")])], tags=["arm:1"], platform="linux/arm64")])
    error = refused(f"{source}:app:1", f"docker-archive:{other}", "-o", str(tmp_path / "out"))
    assert error["message"].endswith("one platform only: docker.io/library/app:1 is linux/amd64, docker.io/library/arm:1 is linux/arm64")
    assert not (tmp_path / "out").exists()


def test_a_refused_layer_is_named_with_image_and_entry_and_leaves_nothing(tmp_path: Path) -> None:
    hostile = ImageSpec([build([file("ok")]), build([file("fine"), file("../../etc/cron.d/x", b"evil")])], tags=["evil:1"])
    path = docker_archive(tmp_path / "evil.tar", [hostile])
    error = refused(f"docker-archive:{path}", "-o", str(tmp_path / "out"), "--output", "squashfs,verity,tar")
    assert error["message"].startswith("docker.io/library/evil:1, layer 1 (sha256:")
    assert "entry '../../etc/cron.d/x': '../../etc/cron.d/x' leaves the root of the layer" in error["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tar"]


def test_a_layer_that_is_not_what_the_config_says_is_refused(tmp_path: Path) -> None:
    files = docker_files([APP_IMAGE])
    name = f"{APP_IMAGE.diff_ids[1][7:]}.tar"
    files[name] = build([file("other")])
    error = refused(f"docker-archive:{write_tar(tmp_path / 'bad.tar', files)}", "-o", str(tmp_path / "out"))
    assert "layer 1" in error["message"] and APP_IMAGE.diff_ids[1] in error["message"] and error["hint"]
    assert not (tmp_path / "out").exists()


def test_late_times_are_noted_once(tmp_path: Path) -> None:
    late = docker_archive(tmp_path / "late.tar", [ImageSpec([build([file("f", mtime=1 << 32)])], tags=["late:1"])])
    done = shiplap_command("build", f"docker-archive:{late}", "-o", str(tmp_path / "out"), "--progress", "quiet")
    assert done.returncode == 0
    assert done.stderr == "note: 1 times beyond 2106 do not fit SquashFS's 32 bits and became 2106-02-07\n"


@pytest.mark.parametrize(
    "words",
    ["--source-date-epoch -1", "--source-date-epoch 4294967296", "--jobs 0", "--driver aufs", "--output cake", "--store-path relative"],
)
def test_an_option_that_cannot_be_is_refused(tmp_path: Path, source: str, words: str) -> None:
    done = shiplap_command("build", source, "-o", str(tmp_path / "out"), *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "out").exists()


def test_a_broken_source_date_epoch_is_refused(tmp_path: Path, source: str) -> None:
    error = refused(source, "-o", str(tmp_path / "out"), env={"SOURCE_DATE_EPOCH": "yesterday"})
    assert error["message"] == "SOURCE_DATE_EPOCH='yesterday' is no whole number of seconds"
