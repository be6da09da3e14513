"""What lies in a vfs store: a whole data-root in both forms, files shared between trees, and the bytes that never change."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shiplap.core.image import chain_ids
from storeimages import APP_IMAGE, DATA_IMAGE, EPOCH, identity, stored_images, streams

GOLDEN = {
    "store.json": "5d8d3939811ea36ed9687503a73144e61303e0dcdee893603d4471f7bc036c1d",
    "store image's stream": "e823f5b9bc66406c2772760cc0b9d602a5d8d8fd568ef761fc6a9569e7dbc25c",
    "store.tar": "da1c06301692daa94503db49827146a876886cd0bab8923d6da68e775244f0d0",
}
APP_CHAIN = [chain.partition(":")[2] for chain in chain_ids(tuple(APP_IMAGE.diff_ids))]
DATA_CHAIN = [chain.partition(":")[2] for chain in chain_ids(tuple(DATA_IMAGE.diff_ids))]
LAYERDB = "image/vfs/layerdb/sha256"
Members = dict[str, tuple[tarfile.TarInfo, bytes]]


def vfs(images: Any) -> Any:
    return identity(images, driver="vfs")


def members(tar: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as opened:
        return {one.name: (one, opened.extractfile(one).read() if one.isreg() else b"") for one in opened}  # type: ignore[union-attr]


@pytest.fixture
def both(tmp_path: Path) -> tuple[Members, Members]:
    with stored_images(tmp_path) as images:
        sealed, data_root = streams(vfs(images))
    return members(sealed), members(data_root)


def test_the_bytes_of_format_1_never_change(tmp_path: Path) -> None:
    with stored_images(tmp_path) as images:
        store = vfs(images)
        sealed, data_root = streams(store)
        made = {"store.json": store.to_json(), "store image's stream": sealed, "store.tar": data_root}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in made.items()} == GOLDEN


def test_the_image_holds_the_data_root_of_store_tar(both: tuple[Members, Members]) -> None:
    sealed, data_root = both
    assert sealed.keys() - {".", "store.json"} == {f"data-root/{name}" if name != "." else "data-root" for name in data_root}
    assert {name.partition("/")[0] for name in data_root} == {".", "image", "vfs"}
    for name, mode in ((".", 0o710), ("vfs", 0o710), ("vfs/dir", 0o710), ("image", 0o700), (LAYERDB, 0o755)):
        assert (name, data_root[name][0].mode, data_root[name][0].mtime) == (name, mode, EPOCH)


def test_a_layer_s_record_has_the_size_that_vfs_counts(both: tuple[Members, Members]) -> None:
    found = both[1]
    base, app = APP_CHAIN
    assert found[f"{LAYERDB}/{app}/cache-id"][1].decode() == app
    assert found[f"{LAYERDB}/{app}/parent"][1].decode() == f"sha256:{base}"
    # All the headers say, a hidden first `srv/x` of a layer among them.
    assert found[f"{LAYERDB}/{app}/size"][1] == str(3 * 70_000 + len("root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:\n")).encode()
    assert found[f"{LAYERDB}/{DATA_CHAIN[2]}/size"][1] == str(len("hidden") + len("shown")).encode()
    assert f"{LAYERDB}/{base}/parent" not in found


def test_every_tree_is_whole_and_every_file_is_there_once(both: tuple[Members, Members]) -> None:
    found = both[1]
    base, app = APP_CHAIN
    at = f"vfs/dir/{app}"
    assert f"{at}/bin/ping" in found and f"{at}/bin/su" not in found and f"{at}/srv/app" in found
    assert found[f"{at}/bin/ping"][0].islnk() and found[f"{at}/bin/ping"][0].linkname == f"vfs/dir/{base}/bin/ping"
    assert found[f"{at}/etc/passwd"][0].isreg() and b"app:" in found[f"{at}/etc/passwd"][1]
    contents = [data for name, (info, data) in found.items() if name.startswith("vfs/dir") and info.isreg() and len(data) > 100]
    assert len(contents) == len(set(contents))


def test_an_image_s_files_are_those_of_its_top_tree(both: tuple[Members, Members]) -> None:
    found = both[1]
    top = f"vfs/dir/{DATA_CHAIN[-1]}/"
    names = {name.removeprefix(top) for name in found if name.startswith(top)}
    assert {"bin/sh", "bin/su", "srv/x", "tmp"} <= names and "srv/app" not in names
    link = found[top + "srv/x"][0]
    assert link.islnk() and found[link.linkname][1] == b"shown"


def test_links_lead_to_what_came_before_in_the_same_form(both: tuple[Members, Members]) -> None:
    for found in both:
        seen: set[str] = set()
        for name, (info, _) in found.items():
            if info.islnk():
                assert info.linkname in seen
            seen.add(name)


def test_store_json_names_the_driver(tmp_path: Path) -> None:
    with stored_images(tmp_path) as images:
        document = json.loads(vfs(images).to_json())
    assert (document["engine"], document["driver"]) == ("docker", "vfs")


def test_pinned_blobs_are_in_the_map_of_this_driver(tmp_path: Path) -> None:
    with stored_images(tmp_path) as (app, data):
        blob = "sha256:" + "1" * 64
        found = members(streams(vfs((replace(app, blobs=(None, blob)), data)))[1])
    assert found[f"image/vfs/distribution/diffid-by-digest/sha256/{blob[7:]}"][1].decode() == APP_IMAGE.diff_ids[1]
