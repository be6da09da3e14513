"""What images and layers cost in a store image, and what is said when it is too much."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from images import file
from layertar import build
from requirement import require
from shiplap.core.image import chain_ids
from shiplap.core.limits import Limits
from shiplap.core.output import Stage
from shiplap.core.progress import SILENT
from shiplap.core.store.model import StoredImage
from shiplap.rootfs.budget import OverBudget, over_budget
from shiplap.rootfs.sinks import SquashfsOptions
from shiplap.rootfs.storecosts import StoreCosts, layers_costs, store_costs
from shiplap.rootfs.storeimage import StorePlan, write_store_artifacts
from storeimages import EPOCH, identity, stored_images

_RNG = random.Random(3)
BIG, BIGGER, SMALL = (_RNG.randbytes(size) for size in (300_000, 500_000, 20_000))
BASE = build([file("usr/big", BIG), file("usr/text", b"text\n" * 4000)])
APP = build([file("srv/bigger", BIGGER), file("srv/small", SMALL)])
COPY = build([file("opt/big-again", BIG), file("opt/small\x1b", SMALL[:-1])])
APP_IMAGE, COPY_IMAGE = ImageSpec([BASE, APP], tags=["app:1"]), ImageSpec([BASE, COPY], tags=["copy:1"])


@pytest.fixture
def images(tmp_path: Path) -> Iterator[tuple[StoredImage, ...]]:
    with stored_images(tmp_path, [APP_IMAGE, COPY_IMAGE]) as found:
        yield found


def plan(images: tuple[StoredImage, ...], **changed: Any) -> StorePlan:
    return replace(StorePlan(identity(images), ("squashfs",), SquashfsOptions(level=1, epoch=EPOCH), Limits()), **changed)


def made(images: tuple[StoredImage, ...], folder: Path, **changed: Any) -> StoreCosts:
    folder.mkdir()
    costs = write_store_artifacts(plan(images, **changed), Stage(folder, folder), SILENT).costs
    assert costs is not None
    return costs


def chain(spec: ImageSpec) -> tuple[str, ...]:
    return chain_ids(tuple(spec.diff_ids))


@pytest.mark.parametrize("tool", ["builtin", "tar2sqfs"])
def test_a_layer_costs_what_nothing_before_it_has(images: tuple[StoredImage, ...], tmp_path: Path, tool: str) -> None:
    if tool != "builtin":
        require(tool)
    costs = made(images, tmp_path / "out", form=SquashfsOptions(tool=tool, level=1, epoch=EPOCH))
    base, app, copy = costs.layers[chain(APP_IMAGE)[0]], costs.layers[chain(APP_IMAGE)[1]], costs.layers[chain(COPY_IMAGE)[1]]
    assert 290_000 < base.stored_bytes < 310_000 and 505_000 < app.stored_bytes < 530_000
    # A tail of random bytes among text in one fragment block seems smaller than it is.
    assert 10_000 < copy.stored_bytes < 25_000 and 270_000 <= copy.duplicate_bytes < 301_000
    assert base.content_bytes > 320_000 and base.entries == 5  # the layer, usr, two files, the tar-split data
    sharing = costs.sharing(images)
    app_share, copy_share = sharing.images
    assert app_share.own_bytes == app.stored_bytes and app_share.shared_bytes == copy_share.shared_bytes == base.stored_bytes
    assert sharing.saved_bytes == base.stored_bytes
    data = costs.to_data(images)
    assert data["used_bytes"] == costs.used_bytes == data["layers_bytes"] + data["skeleton_bytes"] + data["other_bytes"]  # type: ignore[operator]
    assert [(one["path"], one["chainID"]) for one in data["largest-files"]][:2] == [  # type: ignore[attr-defined]
        ("/srv/bigger", chain(APP_IMAGE)[1]),
        ("/usr/big", chain(APP_IMAGE)[0]),
    ]
    assert "/opt/big-again" not in json.dumps(data)


def test_the_figures_follow_from_the_image_alone(images: tuple[StoredImage, ...], tmp_path: Path) -> None:
    costs = made(images, tmp_path / "out")
    assert store_costs(tmp_path / "out/store.squashfs", images[::-1]) == costs
    padded = tmp_path / "padded"
    padded.write_bytes((tmp_path / "out/store.squashfs").read_bytes() + bytes(8192))
    assert store_costs(padded, images) == costs


def test_of_equal_contents_the_image_that_store_json_lists_first_owns_them(tmp_path: Path) -> None:
    specs = [ImageSpec([build([file(f"{name}/big", BIG)])], tags=[f"{name}:1"]) for name in ("one", "two", "three", "four")]
    with stored_images(tmp_path, specs) as found:
        costs = made(found, tmp_path / "out")
    owner, *others = sorted(specs, key=lambda spec: spec.config_digest)
    assert costs.layers[chain(owner)[0]].duplicate_bytes == 0
    assert all(costs.layers[chain(other)[0]].duplicate_bytes > 250_000 for other in others)


def test_a_budget_that_is_exceeded_names_images_layers_and_files(images: tuple[StoredImage, ...], tmp_path: Path) -> None:
    with pytest.raises(OverBudget) as caught:
        made(images, tmp_path / "out", budget_bytes=600_000)
    lines = caught.value.message.splitlines()
    size_bytes = (tmp_path / "out/store.squashfs").stat().st_size
    assert lines[0] == f"store.squashfs has {size_bytes} bytes, the budget is 600000: {(size_bytes - 600_000) / 1024:.1f} KiB too much"
    text = caught.value.message
    assert "\n  the largest images:\n    " in text and " KiB  docker.io/library/app:1 (" in text and "of it in no other image)" in text
    assert text.index("library/app:1 (") < text.index("library/copy:1 (")
    layers = text[text.index("the largest layers:") : text.index("the largest files:")]
    assert [line.split("  ")[-1].split(" (")[0] for line in layers.splitlines()[1:-1]] == [
        "docker.io/library/app:1, layer 1",
        "docker.io/library/app:1, layer 0",
        "docker.io/library/copy:1, layer 1",
    ]
    files = text[text.index("the largest files:") :].splitlines()[1:]
    assert files[0].startswith("    488.3 KiB  /srv/bigger in docker.io/library/app:1, layer 1 (sha256:")
    assert not any("big-again" in line for line in files)
    assert caught.value.hint == "raise `budget: {store-image: …}`, or embed less"


def test_an_image_of_small_files_only_names_no_files(tmp_path: Path) -> None:
    specs = [ImageSpec([build([file("srv/small", SMALL)])], tags=["small:1"])]
    with stored_images(tmp_path, specs) as found, pytest.raises(OverBudget) as caught:
        made(found, tmp_path / "out", budget_bytes=4096)
    assert "the largest layers:" in caught.value.message and "files" not in caught.value.message


def test_an_image_that_cannot_be_measured_names_uncompressed_layers(images: tuple[StoredImage, ...]) -> None:
    sizes = {chain(APP_IMAGE)[0]: 100, chain(APP_IMAGE)[1]: 5 << 20, chain(COPY_IMAGE)[1]: 1}
    text = over_budget("store.erofs", 3000, 2000, images, None, sizes).message
    assert text.startswith("store.erofs has 3000 bytes, the budget is 2000: 1.0 KiB too much\n  the largest images, uncompressed:\n")
    assert "the largest layers, uncompressed:\n    5.0 MiB  docker.io/library/app:1, layer 1" in text and "files" not in text


def test_without_an_image_the_layers_sizes_stand_for_it(images: tuple[StoredImage, ...]) -> None:
    by_chain = {chain(APP_IMAGE)[0]: 100, chain(APP_IMAGE)[1]: 10, chain(COPY_IMAGE)[1]: 1}
    data = layers_costs(images, by_chain)
    assert data["of"] == "layers, uncompressed"
    assert (data["layers_bytes"], data["saved-by-sharing_bytes"]) == (111, 100)
    assert data["images"][0] == {  # type: ignore[index]
        "config": APP_IMAGE.config_digest,
        "own_bytes": 10,
        "shared_bytes": 100,
        "total_bytes": 110,
    }
    by_diff_id = {APP_IMAGE.diff_ids[0]: 100, APP_IMAGE.diff_ids[1]: 10, COPY_IMAGE.diff_ids[1]: 1}
    assert layers_costs(images, by_diff_id) == data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docker_archive(tmp_path / "images.tar", [APP_IMAGE, COPY_IMAGE])
    return tmp_path


def built(folder: Path, *words: str) -> tuple[dict[str, Any], str]:
    """record.json and the notes."""
    done = shiplap_command("build", "docker-archive:images.tar", "-o", "out", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out/record.json").read_text()), done.stderr


def test_record_and_inspection_say_the_same(folder: Path) -> None:
    record, _ = built(folder)
    (thing,) = json.loads(shiplap_command("inspect", "--json", str(folder / "out")).stdout)["things"]
    recorded, inspected = record["costs"], thing["costs"]
    # The store knows no order of images.
    assert sorted(recorded.pop("images"), key=str) == sorted(inspected.pop("images"), key=str)
    assert recorded == inspected and recorded["of"] == "store image"
    stored = {layer["chainID"]: layer["stored_bytes"] for layer in record["layers"]}
    assert stored == {layer["chainID"]: layer["stored_bytes"] for image in thing["images"] for layer in image["layers"]}
    assert sum(stored.values()) == recorded["layers_bytes"]
    text = shiplap_command("inspect", str(folder / "out")).stdout
    assert "sizes (store image):\n" in text and "shared layers save " in text and " in the image), in 2 images" in text


@pytest.mark.parametrize("words", [["--output", "tar"], ["--mode", "archive"]])
def test_where_there_is_no_image_record_and_inspection_give_uncompressed_sizes(folder: Path, words: list[str]) -> None:
    record, _ = built(folder, *words)
    assert record["costs"]["of"] == "layers, uncompressed" and len(record["costs"]["images"]) == 2
    assert {layer["stored_bytes"] for layer in record["layers"]} == {None}
    assert record["costs"]["saved-by-sharing_bytes"] == next(
        layer["size_bytes"] for layer in record["layers"] if layer["diffID"] == APP_IMAGE.diff_ids[0]
    )


@pytest.mark.parametrize("words", [["--output", "tar"], ["--mode", "archive"]])
def test_a_budget_without_a_store_image_is_said_not_to_count(folder: Path, words: list[str]) -> None:
    (folder / "shiplap.yaml").write_text(
        '{"version": 1, "images": [{"ref": "app:1", "from": "docker-archive:images.tar:app:1"}], "budget": {"store-image": 1}}'
    )
    done = shiplap_command("build", "-o", "out", *words, cwd=folder)
    assert done.returncode == 0
    assert done.stderr == "note: `budget: {store-image: …}` is not checked: this build writes no store image\n"
    assert shiplap_command("build", "-o", "out", cwd=folder).returncode == 2
