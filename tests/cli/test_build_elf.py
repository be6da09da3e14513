"""``shiplap build`` and ``inspect`` with programs for another platform in the images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from elffiles import program
from images import file
from layertar import build

BASE = build([file("bin/app", program("arm64", interpreter=b"/lib/ld.so"), mode=0o755), file("opt/old", program("386"), mode=0o755)])
TOP = build([file("opt/.wh.old"), file("opt/x86-tool", program("amd64"), mode=0o755)])
FOREIGN = ImageSpec([BASE, TOP], tags=["gateway:1"], platform="linux/arm64/v8")
MODES = pytest.mark.parametrize("mode", ["store", "archive"])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    docker_archive(tmp_path / "images.tar", [FOREIGN])
    return write(tmp_path)


def write(folder: Path, **image: Any) -> Path:
    path = folder / "shiplap.yaml"
    path.write_text(json.dumps({"version": 1, "images": [{"ref": "gateway:1", "from": "docker-archive:images.tar", **image}]}))
    return path


def built(manifest: Path, out: Path, *words: str) -> tuple[dict[str, Any], str]:
    """record.json and the notes of a build that succeeds."""
    done = shiplap_command("build", "-f", str(manifest), "-o", str(out), *words)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "record.json").read_text()), done.stderr


@MODES
def test_a_foreign_program_is_refused_by_name_with_the_lines_that_allow_it(manifest: Path, tmp_path: Path, mode: str) -> None:
    done = shiplap_command("build", "-f", str(manifest), "-o", str(tmp_path / "out"), "--mode", mode)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: 1 program does not run on linux/arm64/v8\n  docker.io/library/gateway:1, layer 1 (sha256:" in done.stderr
    assert "/opt/x86-tool is amd64 (64-bit little-endian), expected is arm64 (64-bit little-endian)" in done.stderr
    assert "allow-foreign-elf:\n      - /opt/x86-tool\nor build with --allow-foreign-elf /opt/x86-tool" in done.stderr
    assert not (tmp_path / "out").exists()


@MODES
def test_what_the_error_says_to_write_is_what_helps(manifest: Path, tmp_path: Path, mode: str) -> None:
    by_option, notes = built(manifest, tmp_path / "option", "--mode", mode, "--allow-foreign-elf", "/opt/x86-tool")
    assert notes == ""
    write(tmp_path, **{"allow-foreign-elf": ["/opt/x86-tool"]})
    by_manifest, notes = built(manifest, tmp_path / "manifest", "--mode", mode)
    assert notes == "" and by_manifest == by_option
    (found,) = by_option["elf-audit"]["images"]
    assert found["programs"] == {"amd64": 1, "arm64": 1} and found["config"] == FOREIGN.config_digest
    assert [(one["path"], one["layer"], one["allowed"]) for one in found["foreign-programs"]] == [("/opt/x86-tool", 1, True)]


def test_an_allowance_is_no_part_of_the_identity_and_a_superfluous_one_is_noted(manifest: Path, tmp_path: Path) -> None:
    built(manifest, tmp_path / "one", "--allow-foreign-elf", "/opt")
    _, notes = built(manifest, tmp_path / "two", "--allow-foreign-elf", "/", "--allow-foreign-elf", "/srv")
    assert notes == "note: --allow-foreign-elf /srv matches no foreign program\n"
    for name in ("store.json", "store.squashfs", "store.roothash"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_declared_platform_decides_where_there_is_one(tmp_path: Path) -> None:
    soft, hard = (program("arm", flags=flags, needed=True) for flags in (0x5000200, 0x5000400))
    for variant, content in (("v5", soft), ("v7", hard)):
        folder = tmp_path / variant
        folder.mkdir()
        docker_archive(
            folder / "images.tar",
            [ImageSpec([build([file("a", content, mode=0o755)])], tags=["gateway:1"], platform=f"linux/arm/{variant}")],
        )
        built(write(folder), folder / "out")
    folder = tmp_path / "unnamed"
    folder.mkdir()
    docker_archive(folder / "images.tar", [ImageSpec([build([file("a", soft, mode=0o755)])], tags=["gateway:1"], platform="linux/arm")])
    manifest = write(folder)
    done = shiplap_command("build", "-f", str(manifest), "-o", str(folder / "out"))
    assert done.returncode == 2 and "is one for linux/arm/v5: where the device is that, say so with `platform:`" in done.stderr
    built(manifest, folder / "out", "--platform", "linux/arm/v5")
    folder = tmp_path / "wrong"
    folder.mkdir()
    docker_archive(folder / "images.tar", [ImageSpec([build([file("a", soft, mode=0o755)])], tags=["gateway:1"], platform="linux/arm/v7")])
    done = shiplap_command("build", "-f", str(write(folder)), "-o", str(folder / "out"))
    assert done.returncode == 2
    assert "/a is arm (32-bit little-endian, soft float), expected is arm (32-bit little-endian, hard float)" in done.stderr


def test_inspection_tells_of_programs_in_stores_and_when_asked_in_sources(manifest: Path, tmp_path: Path) -> None:
    built(manifest, tmp_path / "out", "--output", "squashfs,tar", "--allow-foreign-elf", "/opt")
    record = json.loads((tmp_path / "out/record.json").read_text())["elf-audit"]
    source = f"docker-archive:{tmp_path / 'images.tar'}"
    things = json.loads(shiplap_command("inspect", "--json", str(tmp_path / "out")).stdout)["things"]
    things += json.loads(shiplap_command("inspect", "--json", "--elf", source).stdout)["things"]
    assert [thing["kind"] for thing in things] == ["store image", "store.tar", "source"]
    for thing in things:
        (report,) = thing["elf-audit"]
        assert report["platform"] == "linux/arm64/v8"
        (found,) = report["images"]
        (one,) = found["foreign-programs"]
        # What the build allowed is not in a store.
        assert {**found, "foreign-programs": [{**one, "allowed": True}]} == record["images"][0]
    assert json.loads(shiplap_command("inspect", "--json", source).stdout)["things"][0]["elf-audit"] == []
    text = shiplap_command("inspect", str(tmp_path / "out")).stdout
    assert (
        "programs of docker.io/library/gateway:1: 1 amd64, 1 arm64\n  not for linux/arm64/v8: 1\n    layer 1: /opt/x86-tool is amd64"
        in text
    )
