"""What decides a store's bytes: store.json, the epoch, which images and layers it holds; and the record beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import CREATED_EPOCH, ImageSpec
from shiplap.core.platform import parse_platform
from shiplap.core.record import build_record
from shiplap.core.reference import parse_reference
from shiplap.core.store.identity import EPOCH_MAX, EpochInvalid, StoreIdentity, choose_epoch
from shiplap.core.store.model import StoredImage, StoreRefused, common_platform, merge
from storeimages import APP_IMAGE, BASE, DATA_IMAGE, EPOCH, IMAGES, identity, stored_images


@pytest.fixture
def images(tmp_path: Path) -> tuple[StoredImage, ...]:
    with stored_images(tmp_path) as found:
        return found


# --- store.json


def test_store_json_is_one_canonical_line(images: tuple[StoredImage, ...]) -> None:
    text = identity(images).to_json()
    document = json.loads(text)
    assert text == json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    configs = sorted((APP_IMAGE.config_digest, DATA_IMAGE.config_digest))
    assert [image["config"] for image in document["images"]] == configs
    assert {key: value for key, value in document.items() if key != "images"} == {
        "format": 1,
        "mode": "store",
        "engine": "docker",
        "driver": "overlay2",
        "platform": "linux/amd64",
        "store-path": "/usr/share/shiplap",
        "epoch": EPOCH,
        "squashfs": {"compression": "zstd", "level": 15},
    }
    data = document["images"][configs.index(DATA_IMAGE.config_digest)]
    assert data["references"] == ["docker.io/library/data:latest", "reg.example:5000/me/data:2"]
    assert [layer["diffID"] for layer in data["layers"]] == DATA_IMAGE.diff_ids
    assert data["layers"][0]["chainID"] == DATA_IMAGE.diff_ids[0]


def test_the_order_of_images_and_names_does_not_show(images: tuple[StoredImage, ...]) -> None:
    turned = tuple(replace(image, references=image.references[::-1]) for image in images[::-1])
    assert identity(turned).to_json() == identity(images).to_json()


@pytest.mark.parametrize(
    "changed", [{"epoch": 5}, {"store_path": "/x"}, {"driver": "vfs"}, {"options": ()}, {"platform": parse_platform("linux/arm64")}]
)
def test_whatever_decides_bytes_shows(images: tuple[StoredImage, ...], changed: Mapping[str, Any]) -> None:
    store = identity(images)
    assert replace(store, **changed).to_json() != store.to_json()


def test_store_json_is_utf_8(images: tuple[StoredImage, ...]) -> None:
    store: StoreIdentity = replace(identity(images), store_path="/données")
    assert '"store-path":"/données"'.encode() in store.to_json()


# --- the epoch


@pytest.mark.parametrize(
    ("asked", "manifest", "variable", "expected"),
    [
        (5, 6, "7", (5, "command line")),
        (0, 6, "7", (0, "command line")),
        (None, 6, "7", (6, "manifest")),
        (None, 0, "7", (0, "manifest")),
        (None, None, "7", (7, "SOURCE_DATE_EPOCH")),
        (None, None, "0", (0, "SOURCE_DATE_EPOCH")),
        (None, None, "", (CREATED_EPOCH, "newest image")),
        (EPOCH_MAX, None, "", (EPOCH_MAX, "command line")),
    ],
)
def test_the_first_that_says_an_epoch_decides(
    images: tuple[StoredImage, ...], asked: int | None, manifest: int | None, variable: str, expected: tuple[int, str]
) -> None:
    assert choose_epoch(asked, manifest, {"SOURCE_DATE_EPOCH": variable}, images) == expected


def test_a_lock_s_epoch_stands_between_the_manifest_s_and_the_environment_s(images: tuple[StoredImage, ...]) -> None:
    environment = {"SOURCE_DATE_EPOCH": "7"}
    assert choose_epoch(None, None, environment, images, lock=8) == (8, "lock")
    assert choose_epoch(None, 6, environment, images, lock=8) == (6, "manifest")
    assert choose_epoch(5, None, environment, images, lock=8) == (5, "command line")
    assert choose_epoch(None, None, environment, images, lock=0) == (0, "lock")
    with pytest.raises(EpochInvalid, match="the lock's epoch is -1"):
        choose_epoch(None, None, {}, images, lock=-1)


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        (["2001-01-01T00:00:00Z", "2002-01-01T00:00:00.999Z"], (1009843200, "newest image")),
        (["1960-01-01T00:00:00Z"], (0, "newest image")),
        (["9999-12-31T23:59:59Z"], (EPOCH_MAX, "newest image")),
        ([None, "2001-01-01T00:00:00Z"], (978307200, "newest image")),
        ([None], (0, "default")),
    ],
)
def test_the_newest_image_decides_last(tmp_path: Path, created: list[str | None], expected: tuple[int, str]) -> None:
    specs = [ImageSpec([BASE], tags=[f"app:{n}"], config={"created": one, "author": str(n)}) for n, one in enumerate(created)]
    with stored_images(tmp_path, specs) as found:
        assert choose_epoch(None, None, {}, found) == expected


@pytest.mark.parametrize("variable", ["-1", "1.5", "soon", " 5", "٥", str(EPOCH_MAX + 1), "1" * 5000])
def test_an_epoch_that_is_none_is_refused(variable: str) -> None:
    with pytest.raises(EpochInvalid, match="SOURCE_DATE_EPOCH"):
        choose_epoch(None, None, {"SOURCE_DATE_EPOCH": variable}, ())


def test_an_epoch_out_of_range_says_who_asked_for_it() -> None:
    with pytest.raises(EpochInvalid, match="--source-date-epoch is -1"):
        choose_epoch(-1, None, {}, ())
    with pytest.raises(EpochInvalid, match="the manifest's epoch is 4294967296"):
        choose_epoch(None, EPOCH_MAX + 1, {}, ())


# --- what a store holds


def test_the_same_image_twice_is_one_with_all_its_names(images: tuple[StoredImage, ...]) -> None:
    app, data = images
    again = replace(app, references=(parse_reference("a:9"), parse_reference("app:1")))
    merged = merge([app, data, again])
    assert [one.image.config_digest for one in merged] == [app.image.config_digest, data.image.config_digest]
    assert [str(name) for name in merged[0].references] == ["docker.io/library/a:9", "docker.io/library/app:1"]


def test_the_same_image_twice_keeps_the_blobs_that_were_pinned_first(images: tuple[StoredImage, ...]) -> None:
    app, _ = images
    count = len(app.image.layers)
    first, second = (replace(app, blobs=(f"sha256:{digit * 64}",) * count) for digit in "12")
    assert merge([app, first, second])[0].blobs == first.blobs
    assert merge([second, app, first])[0].blobs == second.blobs
    assert merge([app, app])[0].blobs == ()


def test_one_name_for_two_images_is_refused(images: tuple[StoredImage, ...]) -> None:
    app, data = images
    with pytest.raises(StoreRefused, match=r"docker.io/library/app:1 is asked for twice") as caught:
        merge([app, replace(data, references=app.references)])
    assert app.image.config_digest in caught.value.message and data.image.config_digest in caught.value.message


def test_platforms_that_are_the_same_go_together_and_others_do_not(tmp_path: Path) -> None:
    def found(*platforms: str, declared: str | None = None) -> str:
        specs = [ImageSpec([BASE], tags=[f"app:{n}"], platform=one, config={"author": str(n)}) for n, one in enumerate(platforms)]
        stored: list[StoredImage] = []
        for number, spec in enumerate(specs):
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}-{number}"
            folder.mkdir()
            with stored_images(folder, [spec]) as some:
                stored += some
        return str(common_platform(stored, parse_platform(declared) if declared else None))

    assert found("linux/arm64/v8", "linux/arm64") == "linux/arm64"
    assert found("linux/arm", "linux/arm/v7") == "linux/arm/v7"
    assert common_platform([]) is None
    # The declared platform is the device's: it may be newer than what the images need.
    assert found("linux/arm/v6", "linux/arm/v7", "linux/arm", declared="linux/arm/v7") == "linux/arm/v7"
    assert found("linux/arm64", declared="linux/arm64/v8") == "linux/arm64/v8"
    with pytest.raises(StoreRefused, match="app:1 is for linux/arm/v7, and the store for linux/arm/v6"):
        found("linux/arm/v6", "linux/arm/v7", declared="linux/arm/v6")
    with pytest.raises(
        StoreRefused, match=r"one platform only: docker.io/library/app:0 is linux/amd64, docker.io/library/app:1 is linux/arm64"
    ):
        found("linux/amd64", "linux/arm64")
    with pytest.raises(StoreRefused):
        found("linux/arm/v6", "linux/arm/v7")


# --- record.json


def test_the_record_says_how_it_came_about_and_nothing_of_this_machine(images: tuple[StoredImage, ...], tmp_path: Path) -> None:
    sizes = {chain: number for number, chain in enumerate(images[0].chain_ids + images[1].chain_ids)}
    record = build_record(
        images=images,
        options={"mode": "store"},
        tools=[{"tool": "tar2sqfs", "version": "1.2.0"}],
        epoch={"value": 5, "from": "manifest"},
        layer_sizes=sizes,
        outputs={"store.tar": ("ab", 7)},
        seal={"root-hash": "cd"},
    )
    document = json.loads(record)
    assert record == json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    assert document["outputs"] == {"store.tar": {"sha256": "ab", "size_bytes": 7}}
    assert document["verity"] == {"root-hash": "cd"} and document["epoch"] == {"value": 5, "from": "manifest"}
    assert document["sources"][0] == {
        "source": "docker-archive:images.tar",
        "config": APP_IMAGE.config_digest,
        "platform": "linux/amd64",
        "references": ["docker.io/library/app:1"],
    }
    assert len(document["layers"]) == 5 and all(isinstance(layer["size_bytes"], int) for layer in document["layers"])
    assert document["engine-range"]["docker"]["oldest"] == "20.10" and document["format"] == 1
    assert str(tmp_path) not in record.decode()
    assert len(IMAGES) == len(document["sources"])
