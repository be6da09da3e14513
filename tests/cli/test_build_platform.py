"""A device of one variant takes images of older ones: the store says what the device is, and verifies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from archives import ImageSpec, IndexSpec, docker_archive, oci_layout
from commandline import shiplap_command
from layertar import build, item

OLD = ImageSpec([build([item("old", data=b"1")])], platform="linux/arm/v6")
NEW = ImageSpec([build([item("new", data=b"1")])], platform="linux/arm/v7")
UNSAID = ImageSpec([build([item("unsaid", data=b"1")])], ["unsaid:1"], platform="linux/arm")


@pytest.mark.parametrize("output", ["squashfs,verity", "tar"])
def test_a_store_for_arm_v7_holds_images_for_v6_and_v7_and_verifies(tmp_path: Path, output: str) -> None:
    oci_layout(tmp_path / "layout", [IndexSpec([OLD], ["old:1"]), IndexSpec([NEW], ["new:1"])])
    docker_archive(tmp_path / "unsaid.tar", [UNSAID])
    (tmp_path / "shiplap.yaml").write_text(
        "version: 1\nplatform: linux/arm/v7\nimages:\n"
        "  - {ref: old:1, from: 'oci:layout:old:1'}\n"
        "  - {ref: new:1, from: 'oci:layout:new:1'}\n"
        "  - {ref: unsaid:1, from: 'docker-archive:unsaid.tar'}\n"
    )
    built = shiplap_command("build", "-C", str(tmp_path), "--output", output)
    assert (built.returncode, built.stderr.count("error")) == (0, 0), built.stderr
    assert json.loads((tmp_path / "shiplap-out" / "store.json").read_text())["platform"] == "linux/arm/v7"
    verified = shiplap_command("verify", str(tmp_path / "shiplap-out"))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_an_image_for_a_newer_variant_is_refused_and_names_the_device_when_nothing_else_does(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [IndexSpec([NEW], ["new:1"])])
    refused = shiplap_command("build", "-C", str(tmp_path), "--platform", "linux/arm/v6", "oci:layout")
    assert refused.returncode == 2
    assert "not for linux/arm/v6; it is for linux/arm/v7" in refused.stderr
    undeclared = shiplap_command("build", "-C", str(tmp_path), "oci:layout")
    assert undeclared.returncode == 0, undeclared.stderr
    assert json.loads((tmp_path / "shiplap-out" / "store.json").read_text())["platform"] == "linux/arm/v7"
