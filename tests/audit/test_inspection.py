"""What ``inspect`` says of sources, stores and folders."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from archives import IndexSpec, docker_archive, oci_layout
from comparison import needs_root
from requirement import require
from shiplap.audit.inspection import Inspection, inspect_thing
from shiplap.core.errors import ShiplapError
from shiplap.core.image import chain_ids
from shiplap.core.limits import Limits
from shiplap.core.platform import parse_platform
from squashfsimages import lay_out, mksquashfs, small_tree
from storeimages import APP_IMAGE, BASE, DATA_IMAGE, EPOCH, IMAGES
from tampering import Form, Made, rewrite


def inspect(thing: object, platform: str | None = None) -> list[Inspection]:
    return inspect_thing(str(thing), parse_platform(platform) if platform else None, Limits())


@pytest.fixture
def out(made: Made, tmp_path: Path) -> Path:
    require("tar2sqfs")
    Form(tmp_path, made.store_json, made.sealed, image=True).write()
    return Form(tmp_path, made.store_json, made.data_root, image=False).write()


def layers(inspection: Inspection) -> list[list[tuple[str, str]]]:
    return [
        [(layer.chain_id, layer.diff_id) for layer in image.layers] for image in sorted(inspection.images, key=lambda image: image.config)
    ]


WANTED = [
    list(zip(chain_ids(tuple(image.diff_ids)), image.diff_ids, strict=True))
    for image in sorted(IMAGES, key=lambda image: image.config_digest)
]


def test_a_folder_is_everything_that_lies_in_it(out: Path) -> None:
    image, tar = inspect(out)
    assert [(one.thing, one.kind) for one in (image, tar)] == [
        (str(out / "store.squashfs"), "store image"),
        (str(out / "store.tar"), "store.tar"),
    ]
    assert layers(image) == layers(tar) == WANTED
    facts = dict(image.facts)
    assert (facts["engine"], facts["driver"], facts["platform"], facts["epoch"]) == ("docker", "overlay2", "linux/amd64", EPOCH)
    assert facts["image_bytes"] == (out / "store.squashfs").stat().st_size
    assert (facts["compressor"], facts["block-size_bytes"]) == ("zstd", 131072)
    assert "compressor" not in dict(tar.facts)


def test_sharing_is_counted(out: Path) -> None:
    image = inspect(out / "store.squashfs")[0]
    base = chain_ids(tuple(APP_IMAGE.diff_ids))[0]
    assert image.uses[base] == 2
    sizes = {layer.chain_id: layer.size_bytes for one in image.images for layer in one.layers}
    assert image.unique_bytes == sum(sizes.values())
    assert image.saved_bytes == sizes[base] > 6_000
    data = image.to_data()
    assert data["unique_bytes"] == image.unique_bytes and data["saved-by-sharing_bytes"] == image.saved_bytes
    first = data["images"][0]["layers"][0]  # type: ignore[index]
    stored_bytes = image.images[0].layers[0].cost.stored_bytes  # type: ignore[union-attr]
    assert first == {
        "chainID": base,
        "diffID": base,
        "size_bytes": sizes[base],
        "media-type": None,
        "images": 2,
        "stored_bytes": stored_bytes,
        "duplicate_bytes": 0,
    }


def test_an_archive_is_a_source_under_any_name(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "any name", IMAGES, layout="save")
    by_path, by_source = inspect(path)[0], inspect(f"docker-archive:{path}:app:1")[0]
    assert (by_path.kind, by_path.thing) == ("source", f"docker-archive:{path}")
    assert layers(by_path) == WANTED
    assert [image.references for image in by_source.images] == [("docker.io/library/app:1",)]
    assert by_path.images[0].layers[0].size_bytes == len(BASE)


def test_a_layout_says_digests_and_media_types(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [IndexSpec([APP_IMAGE], tags=["app:1"])])
    (found,) = inspect(tmp_path / "layout")
    (image,) = found.images
    assert image.manifest and image.index and image.manifest != image.index
    assert image.layers[0].media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
    with pytest.raises(ShiplapError):
        inspect(tmp_path / "layout", "linux/arm64")


def test_an_archive_folder_is_inspected_too(tmp_path: Path) -> None:
    docker_archive(tmp_path / "images.tar", [DATA_IMAGE])
    (found,) = inspect(tmp_path)
    assert found.images[0].config == DATA_IMAGE.config_digest


@pytest.mark.parametrize("name", ["absent", "empty-folder", "text", "store.tar"])
def test_what_is_nothing_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty-folder").mkdir()
    (tmp_path / "text").write_bytes(b"hello" * 300)
    (tmp_path / "store.tar").write_bytes(bytes(1024))
    with pytest.raises(ShiplapError) as caught:
        inspect(tmp_path / name)
    assert name in caught.value.message


def test_a_squashfs_of_somebody_else_is_described_by_what_is_in_it(tmp_path: Path) -> None:
    needs_root()
    require("mksquashfs")
    (tmp_path / "laid").mkdir()
    lay_out(small_tree(), bytes(tmp_path / "laid"))
    image = mksquashfs(tmp_path / "openwrt.img", tmp_path / "laid", "-comp", "xz", "-b", "262144", "-no-exports", "-mkfs-time", "5")
    (found,) = inspect_thing(str(image), None, Limits())
    assert (found.kind, found.images) == ("SquashFS", ())
    facts = dict(found.facts)
    said = subprocess.run(["unsquashfs", "-s", str(image)], capture_output=True, check=True, text=True).stdout
    assert f"Number of inodes {facts['inodes']}\n" in said and f"Number of ids {facts['ids']}\n" in said
    assert f"Number of fragments {facts['fragments']}\n" in said and f"Filesystem size {facts['used_bytes']} bytes" in said
    assert (facts["compressor"], facts["block-size_bytes"], facts["made_epoch"]) == ("xz", 262144, 5)
    assert (facts["regular-files"], facts["directories"], facts["symbolic-links"], facts["fifos"]) == (4, 3, 1, 1)
    assert (facts["character-devices"], facts["block-devices"], facts["hard-links"], facts["inodes-with-xattrs"]) == (1, 1, 1, 3)
    assert facts["content_bytes"] == 5000 + 10000 + 40003 and "export table" not in facts["flags"]
    assert found.to_data()["regular-files"] == 4 and found.to_data()["images"] == []


@pytest.mark.parametrize("text", [b"", b"-1", b"1.5", b"9" * 40, "١".encode(), b"0x10"])
def test_a_size_that_is_none_is_refused(made: Made, tmp_path: Path, text: bytes) -> None:
    form = Form(tmp_path, made.store_json, made.data_root, image=False)
    chain = chain_ids(tuple(APP_IMAGE.diff_ids))[0][7:]
    rewrite(form.entries, f"image/overlay2/layerdb/sha256/{chain}/size", lambda size: text)
    with pytest.raises(ShiplapError, match="size"):
        inspect(form.write() / "store.tar")
