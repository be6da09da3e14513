"""From images to a sealed store image: the artifacts of a plan, its seal, its budget, its failures."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from requirement import SEARCH_PATH, require
from shiplap.core.errors import OutsideFailure, ProgramMissing, Refused
from shiplap.core.image import chain_ids
from shiplap.core.limits import Limits
from shiplap.core.output import Stage
from shiplap.core.progress import SILENT
from shiplap.core.tar.records import END_OF_ARCHIVE
from shiplap.rootfs.budget import OverBudget
from shiplap.rootfs.sinks import SquashfsOptions
from shiplap.rootfs.squashfs.reader import SquashfsReader
from shiplap.rootfs.storeimage import StorePlan, StoreResult, write_store_artifacts
from shiplap.verity.identity import store_image_salt, uuid_for_salt
from squashfsimages import facts_of_image
from storeimages import APP_IMAGE, EPOCH, identity, stored_images

ALL = ("squashfs", "verity", "tar")


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[StorePlan]:
    with stored_images(tmp_path, [APP_IMAGE]) as images:
        yield StorePlan(identity(images), ALL, SquashfsOptions(level=1, epoch=EPOCH), Limits())


def write(plan: StorePlan, folder: Path, **changed: Any) -> tuple[Stage, StoreResult]:
    folder.mkdir()
    stage = Stage(folder, folder)
    return stage, write_store_artifacts(replace(plan, **changed), stage, SILENT)


def dump(hash_file: Path) -> dict[str, str]:
    require("veritysetup")
    done = subprocess.run(["veritysetup", "dump", hash_file], capture_output=True, text=True, check=True, env={"PATH": SEARCH_PATH})
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in done.stdout.splitlines()) if value}


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (("tar",), ["store.json", "store.tar"]),
        (("squashfs",), ["store.json", "store.squashfs"]),
        (("squashfs", "tar"), ["store.json", "store.squashfs", "store.tar"]),
        (ALL, ["store.json", "store.roothash", "store.squashfs", "store.tar", "store.verity"]),
    ],
)
def test_a_plan_s_outputs_are_what_is_written(plan: StorePlan, tmp_path: Path, outputs: tuple[str, ...], expected: list[str]) -> None:
    stage, result = write(plan, tmp_path / "out", outputs=outputs)
    assert stage.names() == expected
    assert (result.root_hash is not None) == ("verity" in outputs)
    assert list(result.layer_sizes) == list(chain_ids(tuple(APP_IMAGE.diff_ids)))
    assert stage.path("store.json").read_bytes() == plan.identity.to_json()


def test_outputs_do_not_depend_on_each_other(plan: StorePlan, tmp_path: Path) -> None:
    whole, _ = write(plan, tmp_path / "whole")
    tar, _ = write(plan, tmp_path / "tar", outputs=("tar",))
    image, result = write(plan, tmp_path / "image", outputs=("squashfs",))
    assert whole.path("store.tar").read_bytes() == tar.path("store.tar").read_bytes()
    padded, bare = whole.path("store.squashfs").read_bytes(), image.path("store.squashfs").read_bytes()
    assert padded[: len(bare)] == bare and set(padded[len(bare) :]) <= {0}
    assert result.padding_bytes == 0


def test_the_seal_follows_from_the_identity(plan: StorePlan, tmp_path: Path) -> None:
    stage, result = write(plan, tmp_path / "out")
    assert stage.path("store.roothash").read_text() == f"{result.root_hash}\n"
    salt = store_image_salt(plan.identity.to_json())
    facts = dump(stage.path("store.verity"))
    assert (facts["Salt"], facts["UUID"]) == (salt.hex(), uuid_for_salt(salt))
    assert stage.path("store.squashfs").stat().st_size == int(facts["Data blocks"]) * 4096
    other, changed = write(plan, tmp_path / "other", identity=replace(plan.identity, options=()))
    assert changed.root_hash != result.root_hash
    assert dump(other.path("store.verity"))["UUID"] != facts["UUID"]


def test_salt_uuid_and_hash_can_be_chosen(plan: StorePlan, tmp_path: Path) -> None:
    stage, _ = write(plan, tmp_path / "out", salt=b"\1\2", verity_hash="sha512")
    facts = dump(stage.path("store.verity"))
    assert (facts["Salt"], facts["Hash algorithm"], facts["UUID"]) == ("0102", "sha512", uuid_for_salt(b"\1\2"))
    stage, _ = write(plan, tmp_path / "unsalted", salt=b"")
    assert dump(stage.path("store.verity"))["UUID"] == uuid_for_salt(store_image_salt(plan.identity.to_json()))


def test_the_superblock_s_time_is_the_epoch(plan: StorePlan, tmp_path: Path) -> None:
    stage, _ = write(plan, tmp_path / "out")
    with SquashfsReader.open(stage.path("store.squashfs")) as reader:
        assert reader.superblock.mtime_epoch == EPOCH
        assert reader.read(b"store.json", 1 << 20) == plan.identity.to_json()
        assert [entry.path for entry in reader.children(b"")] == [b"layers", b"skeleton", b"store.json"]


def test_the_budget_is_the_image_s(plan: StorePlan, tmp_path: Path) -> None:
    stage, _ = write(plan, tmp_path / "out", outputs=("squashfs",))
    size_bytes = stage.path("store.squashfs").stat().st_size
    write(plan, tmp_path / "fits", budget_bytes=size_bytes)
    with pytest.raises(OverBudget, match=f"store.squashfs has {size_bytes} bytes, the budget is {size_bytes - 1}") as caught:
        write(plan, tmp_path / "does not", budget_bytes=size_bytes - 1)
    assert "budget: {store-image" in (caught.value.hint or "")


def test_a_layer_that_is_refused_ends_the_tool_too(plan: StorePlan, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="more than 3 entries"):
        write(plan, tmp_path / "out", limits=Limits(entries=3))
    assert not (tmp_path / "out/store.squashfs").exists()
    assert END_OF_ARCHIVE not in (tmp_path / "out/store.tar").read_bytes()[-1024:]


def test_the_tools_agree_in_all_that_the_image_holds(plan: StorePlan, tmp_path: Path) -> None:
    require("tar2sqfs")
    trees = []
    for tool in ("builtin", "tar2sqfs"):
        stage, _ = write(plan, tmp_path / tool, form=replace(plan.form, tool=tool))
        trees.append(facts_of_image(stage.path("store.squashfs")))
    assert trees[0] == trees[1]


def test_a_missing_tool_is_said_before_a_layer_is_read(plan: StorePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ProgramMissing, match="tar2sqfs is not installed"):
        write(plan, tmp_path / "out", form=replace(plan.form, tool="tar2sqfs"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["store.json"]


def test_a_tool_that_fails_without_saying_why_gets_a_hint_about_room(
    plan: StorePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    broken = tmp_path / "bin/tar2sqfs"
    broken.write_text("#!/bin/sh\ncat >/dev/null\necho 'I/O error.' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:/usr/bin:/bin")
    with pytest.raises(OutsideFailure, match="tar2sqfs failed with exit code 1: I/O error") as caught:
        write(plan, tmp_path / "out", form=replace(plan.form, tool="tar2sqfs"))
    assert f"MiB are free in {tmp_path / 'out'}" in (caught.value.hint or "")
