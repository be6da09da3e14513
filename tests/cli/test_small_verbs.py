"""``config``, ``schema`` and ``doctor``."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from commandline import shiplap_command
from requirement import require
from shiplap.cli import doctor
from shiplap.cli.main import main
from shiplap.core.errors import OutsideFailure, ProgramMissing
from shiplap.core.manifest import load_manifest, parse_manifest
from shiplap.rootfs.sinks import mksquashfs

MANIFEST = """\
version: 1
name: gateway
platform: linux/arm64/v8
epoch: 1700000000
images:
  - ref: redis:7
    from: docker-archive:redis.tar
    license: BSD-3-Clause
squashfs: {compression: xz, block-size: 256K}
budget: {store-image: 200M}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "shiplap.yaml"
    path.write_text(MANIFEST)
    return path


def test_config_prints_a_manifest_that_means_the_same(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "-f", str(manifest)]) == 0
    printed = capsys.readouterr().out
    again, original = parse_manifest(printed.encode(), "printed"), load_manifest(manifest)
    # Line numbers are the one thing that may differ.
    images = tuple(replace(mine, line=theirs.line) for mine, theirs in zip(original.images, again.images, strict=True))
    assert again == replace(original, images=images)
    assert "block-size: 256K" in printed
    assert "store-path: /usr/share/shiplap" in printed
    assert "layer-bytes: 16G" in printed


def test_config_as_json_and_as_yaml_say_the_same(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "-f", str(manifest)])
    as_yaml = yaml.safe_load(capsys.readouterr().out)
    main(["config", "-f", str(manifest), "--json"])
    assert json.loads(capsys.readouterr().out) == as_yaml
    assert as_yaml["images"][0] == {
        "ref": "docker.io/library/redis:7",
        "from": "docker-archive:redis.tar",
        "license": "BSD-3-Clause",
        "allow-foreign-elf": [],
        "allow-lost-xattrs": [],
    }


def test_config_shows_all_problems_and_as_json_each_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("version: 1\nplatfrom: linux/arm64\nimages: []\n")
    assert main(["config", "-f", str(path)]) == 2
    shown = capsys.readouterr().err
    assert f"{path}:2:1: platfrom: unknown key `platfrom`; did you mean `platform`?" in shown
    assert f"{path}:3:9: images: needs at least 1 item" in shown
    main(["config", "-f", str(path), "--json"])
    problems = json.loads(capsys.readouterr().err)["error"]["problems"]
    assert [(one["path"], one["line"], one["column"]) for one in problems] == [("platfrom", 2, 1), ("images", 3, 9)]


def test_config_without_a_manifest_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "-C", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: cannot read the manifest shiplap.yaml: No such file or directory",
        "hint: name it with -f; `shiplap schema` tells what one holds",
    ]


def test_schema_prints_the_same_document_with_and_without_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema"])
    plain = json.loads(capsys.readouterr().out)
    main(["schema", "--json"])
    assert json.loads(capsys.readouterr().out) == plain
    assert plain["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_doctor_finds_what_the_default_build_needs(capsys: pytest.CaptureFixture[str]) -> None:
    require("tar2sqfs")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^tar2sqfs +\d+\.\d+", shown, re.MULTILINE)
    assert re.search(r"^zstd library +\d+\.\d+\.\d+ +needed", shown, re.MULTILINE)
    assert "The default build can run here." in shown


def test_doctor_without_tools_names_the_packages_and_needs_none_of_them(tmp_path: Path) -> None:
    # /usr/sbin is always looked at; tar2sqfs lies in /usr/bin.
    done = shiplap_command("doctor", "--json", env={"PATH": str(tmp_path)})
    assert done.returncode == 0
    found = json.loads(done.stdout)
    tools = {tool["name"]: tool for tool in found["tools"]}
    assert found["ready"] is True
    assert tools["tar2sqfs"]["version"] is None
    assert tools["tar2sqfs"]["package"] == "squashfs-tools-ng"
    assert "squashfs-tools-ng" in found["install"]
    assert tools["Python"]["version"]
    assert "On Debian: apt-get install " in shiplap_command("doctor", env={"PATH": str(tmp_path)}).stdout


def test_doctor_exits_with_3_when_something_needed_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> str:
        raise ProgramMissing("zstd blocks cannot be written", hint="install it")

    monkeypatch.setattr(doctor, "TOOLS", (doctor.Tool("zstd library", "compresses", True, "libzstd1", missing),))
    assert main(["doctor"]) == 3
    shown = capsys.readouterr().out
    assert "zstd blocks cannot be written" in shown
    assert "On Debian: apt-get install libzstd1" in shown
    assert "The default build cannot run here." in shown


def test_a_tool_that_fails_when_asked_is_a_remark_not_an_error(tmp_path: Path) -> None:
    for name, script in (("tar2sqfs", "exit 0"), ("mksquashfs", "echo mksquashfs version 4.7.2; exit 1"), ("skopeo", "kill -9 $$")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    done = shiplap_command("doctor", "--json", env={"PATH": f"{tmp_path}{os.pathsep}/bin"})
    tools = {tool["name"]: tool for tool in json.loads(done.stdout)["tools"]}
    assert tools["tar2sqfs"]["version"] == "unknown version"
    assert tools["mksquashfs"]["version"] == "4.7.2"
    assert "faulty" in tools["mksquashfs"]["remark"]
    assert tools["skopeo"]["version"] is None
    assert "signal 9" in tools["skopeo"]["remark"]


@pytest.mark.parametrize(
    ("version", "remark"), [("4.5.1", "too old"), ("4.6.1", ""), ("4.7", "faulty"), ("4.7.5", "faulty"), ("4.7.6", ""), ("4.8", "")]
)
def test_versions_of_mksquashfs_are_judged(version: str, remark: str) -> None:
    tool = doctor.Tool("mksquashfs", "", False, "", lambda: version)
    found = doctor.look(tool)
    assert (remark in found.remark) if remark else not found.remark


def test_the_doctor_and_the_sink_refuse_the_same_versions_of_mksquashfs() -> None:
    assert (doctor._MKSQUASHFS_OLDEST, doctor._MKSQUASHFS_FAULTY) == (mksquashfs._OLDEST, mksquashfs._FAULTY)


def test_a_library_that_cannot_be_loaded_is_missing_with_the_reason() -> None:
    def fail() -> str:
        raise OutsideFailure("libarchive: cannot load\nsecond line")

    found = doctor.look(doctor.Tool("libarchive", "", True, "libarchive13", fail))
    assert (found.version, found.remark) == (None, "libarchive: cannot load")


@pytest.mark.parametrize(
    ("version", "code"),
    [
        *((text, 0) for text in ("20.10.24", "20.10", "20", "24.0.7", "v26.1.5", "20.10.24+dfsg1", "28.5.2", "Docker 28", "docker:28")),
        *((text, 0) for text in ("podman:5.4", "podman:4.3.1", "podman:5.8.6", "podman 4", "Podman 5")),
        *((text, 1) for text in ("20.09", "19.03.15", "17.06", "29.0.1", "30.0", "podman:4.2", "podman:5.9", "podman:6", "podman:28.0")),
        *((text, 2) for text in ("new", "", "1.2.3.4", "podman:", "lxc:5.4")),
    ],
)
def test_the_devices_engine_is_compared_with_the_tested_range(version: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    require("tar2sqfs")
    assert main(["doctor", "--target", version]) == code
    shown = capsys.readouterr().out
    if code == 1:
        assert "archive mode" in shown
    assert ("is not tested by this release" in shown) == version.startswith("29")
