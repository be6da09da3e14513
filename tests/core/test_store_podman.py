"""What lies in a Podman store: containers/storage's files, both forms, and the bytes that never change."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, dump, sha256
from images import directory, file
from layertar import build
from shiplap.core.image import RawManifest
from shiplap.core.reference import parse_reference
from shiplap.core.store.model import StoredImage, merge
from shiplap.core.store.podman import ManifestRefused, big_data_name, layer_ids, layers_mountable, link_name
from shiplap.core.store.podmanwriter import warn_of_many_layers
from storeimages import APP_IMAGE, DATA_IMAGE, DIGEST, EPOCH, IMAGES, identity, stored_images, streams

GOLDEN = {
    "store.json": "26f4c0f5e951e57e8e968518f624c3fe180969e26390315410c2b00ae1db95b2",
    "store image's stream": "e23a0f7bab1c7d40bf99d7d8fea3f99a672a60b03299a300eb07d27325fde24d",
    "store.tar": "a8863287ce8bba6e7b715466fc65646cd1c5d5bdeec6b86c858efd8998112f1e",
}
APP_LAYERS, DATA_LAYERS = layer_ids(APP_IMAGE.diff_ids), layer_ids(DATA_IMAGE.diff_ids)
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def podman(images: Any, **options: Any) -> Any:
    return identity(images, engine="podman", driver="overlay", **options)


def with_digest(images: tuple[StoredImage, ...]) -> tuple[StoredImage, ...]:
    app, data = images
    return replace(app, references=(*app.references, parse_reference(f"app@{DIGEST}"))), data


Members = dict[str, tuple[tarfile.TarInfo, bytes]]


def members(tar: bytes) -> Members:
    found: Members = {}
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as opened:
        for one in opened:
            data = opened.extractfile(one) if one.isreg() else None
            assert one.name not in found
            found[one.name] = (one, data.read() if data else b"")
    return found


@pytest.fixture
def both(tmp_path: Path) -> tuple[Members, Members]:
    """Members of the store image and of store.tar."""
    with stored_images(tmp_path) as images:
        sealed, graphroot = streams(podman(with_digest(images)))
    return members(sealed), members(graphroot)


def test_the_bytes_of_format_1_never_change(tmp_path: Path) -> None:
    with stored_images(tmp_path) as images:
        store = podman(with_digest(images))
        sealed, graphroot = streams(store)
        made = {"store.json": store.to_json(), "store image's stream": sealed, "store.tar": graphroot}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in made.items()} == GOLDEN


def test_layer_ids_are_made_of_the_parent_s_id_and_the_diff_id() -> None:
    first, second = (one.removeprefix("sha256:") for one in APP_IMAGE.diff_ids)
    assert [first, hashlib.sha256(f"{first}+{second}".encode()).hexdigest()] == APP_LAYERS


def test_the_mounted_image_is_itself_the_additional_store(both: tuple[Members, Members]) -> None:
    sealed, graphroot = both
    assert {name.partition("/")[0] for name in sealed} == {".", "overlay", "overlay-images", "overlay-layers", "store.json"}
    assert sealed.keys() - graphroot.keys() == {"store.json"}
    assert graphroot.keys() - sealed.keys() == {"overlay/.has-mount-program"}
    assert graphroot["overlay/.has-mount-program"][1] == b"false"


def test_a_layer_s_directory_is_what_the_driver_expects(both: tuple[Members, Members]) -> None:
    base, empty, data, top = DATA_LAYERS
    for found in both:
        for layer in {*APP_LAYERS, *DATA_LAYERS}:
            home = f"overlay/{layer}"
            assert found[f"{home}/link"][1].decode() == link_name(layer)
            assert found[f"overlay/l/{link_name(layer)}"][0].linkname == f"../{layer}/diff"
            assert {"diff", "merged", "work"} <= {name.split("/")[2] for name in found if name.startswith(home + "/")}
            assert (f"{home}/empty" in found) == (layer == base) == (f"{home}/lower" not in found)
            assert found[f"{home}/diff"][0].mode == 0o555
        lower = found[f"overlay/{top}/lower"][1].decode()
        assert lower == ":".join(f"l/{link_name(layer)}" for layer in (data, empty, base))
        assert len(link_name(base)) == 26


def test_layers_json_lists_parents_first_with_owners_and_sizes(both: tuple[Members, Members]) -> None:
    sealed, graphroot = both
    raw = sealed["overlay-layers/layers.json"][1]
    assert raw == graphroot["overlay-layers/layers.json"][1]
    layers = json.loads(raw)
    assert [one["id"] for one in layers] == [*APP_LAYERS, *DATA_LAYERS[1:]]
    base, app, empty = layers[:3]
    assert base == {
        "id": APP_LAYERS[0],
        "created": "2023-11-14T22:13:20Z",
        "compressed-diff-digest": APP_IMAGE.diff_ids[0],
        "compressed-size": len(APP_IMAGE.layers[0]),
        "diff-digest": APP_IMAGE.diff_ids[0],
        "diff-size": len(APP_IMAGE.layers[0]),
        "uidset": [0, 7, 4_000_000_000],
        "gidset": [0, 8, 100_000],
    }
    assert app["parent"] == APP_LAYERS[0] and app["uidset"] == [0, 1000]
    assert "uidset" not in empty and "gidset" not in empty  # no entries, no owners
    assert raw.startswith(b'[{"id":"') and raw.endswith(b"}]")


def test_a_layer_s_root_begins_as_the_one_below_without_special_bits_and_write_for_others(tmp_path: Path) -> None:
    layers = [build([directory("/", mode=0o7777, uid=5, gid=6)]), build([file("a")]), build([directory("/", mode=0o700)]), build([])]
    spec = ImageSpec(layers, ["x:1"])
    with stored_images(tmp_path, [spec]) as images:
        found = members(streams(podman(images))[1])
    roots = [found[f"overlay/{layer}/diff"][0] for layer in layer_ids(spec.diff_ids)]
    assert [(one.mode, one.uid, one.gid) for one in roots] == [(0o7777, 5, 6), (0o755, 5, 6), (0o700, 0, 0), (0o700, 0, 0)]


def test_whiteouts_are_no_owners(tmp_path: Path) -> None:
    layers = [build([file("a"), directory(".wh.d/", uid=5), file("x/.wh.y", gid=6), file("b", uid=-1)])]
    with stored_images(tmp_path, [ImageSpec(layers, ["x:1"])]) as images:
        (layer,) = json.loads(members(streams(podman(images))[1])["overlay-layers/layers.json"][1])
    assert (layer["uidset"], layer["gidset"]) == ([0, 4294967295], [0])


def test_images_json_names_images_as_they_were_asked_for(both: tuple[Members, Members]) -> None:
    app, data = json.loads(both[0]["overlay-images/images.json"][1])
    assert app["names"] == app["names-history"] == ["docker.io/library/app:1", f"docker.io/library/app@{DIGEST}"]
    assert data["names"] == ["docker.io/library/data:latest", "reg.example:5000/me/data:2"]
    assert (app["id"], app["layer"]) == (APP_IMAGE.config_digest[7:], APP_LAYERS[-1])
    assert app["created"] == "2024-05-01T12:00:00.25Z"


def test_the_manifest_is_docker_s_over_uncompressed_layers(both: tuple[Members, Members]) -> None:
    home = f"overlay-images/{APP_IMAGE.config_digest[7:]}"
    for found in both:
        raw = found[f"{home}/manifest"][1]
        manifest = json.loads(raw)
        assert manifest["config"]["digest"] == APP_IMAGE.config_digest
        assert [(one["digest"], one["size"]) for one in manifest["layers"]] == [(sha256(layer), len(layer)) for layer in APP_IMAGE.layers]
        digest = sha256(raw)
        big_data = {name.removeprefix(home + "/"): data for name, (_, data) in found.items() if name.startswith(home + "/")}
        assert big_data == {
            "manifest": raw,
            encoded(f"manifest-{digest}"): raw,
            encoded(APP_IMAGE.config_digest): APP_IMAGE.config_bytes,
        }
        image = json.loads(found["overlay-images/images.json"][1])[0]
        assert image["digest"] == digest
        assert image["big-data-digests"] == {
            "manifest": digest,
            f"manifest-{digest}": digest,
            APP_IMAGE.config_digest: APP_IMAGE.config_digest,
        }


def encoded(key: str) -> str:
    return "=" + base64.b64encode(key.encode()).decode()


def test_only_plain_keys_are_file_names() -> None:
    assert big_data_name("manifest") == "manifest"
    assert big_data_name("a.0") == "a.0"
    assert all(big_data_name(key) == encoded(key) for key in ("A", "a-b", "a/b", "sha256:0", "a_b"))


def test_modes_are_open_in_the_image_and_the_engine_s_in_store_tar(both: tuple[Members, Members]) -> None:
    home = f"overlay-images/{APP_IMAGE.config_digest[7:]}"
    expected = {
        ".": (0o755, 0o700),
        "overlay": (0o755, 0o700),
        "overlay/l": (0o755, 0o755),
        f"overlay/{APP_LAYERS[0]}": (0o755, 0o700),
        f"overlay/{APP_LAYERS[0]}/link": (0o644, 0o644),
        "overlay-layers/layers.json": (0o644, 0o600),
        "overlay-layers/layers.lock": (0o644, 0o644),
        f"overlay-layers/{APP_LAYERS[0]}.tar-split.gz": (0o644, 0o600),
        home: (0o755, 0o700),
        f"{home}/manifest": (0o644, 0o600),
    }
    for name, modes in expected.items():
        assert (name, *(found[name][0].mode for found in both)) == (name, *modes)
        assert {(found[name][0].uid, found[name][0].gid, found[name][0].mtime) for found in both} == {(0, 0, EPOCH)}


@pytest.mark.parametrize(
    ("created", "printed"),
    [
        ("2024-05-01T12:00:00Z", "2024-05-01T12:00:00Z"),
        ("2024-05-01T12:00:00.1234567891Z", "2024-05-01T12:00:00.123456789Z"),
        ("2024-05-01T12:00:00.500+02:00", "2024-05-01T12:00:00.5+02:00"),
        ("0001-01-01T00:00:00Z", "2023-11-14T22:13:20Z"),
        (None, "2023-11-14T22:13:20Z"),
    ],
)
def test_an_image_s_time_is_printed_as_go_prints_it(tmp_path: Path, created: str | None, printed: str) -> None:
    with stored_images(tmp_path, [ImageSpec([build([])], ["x:1"], config={"created": created, "history": None})]) as images:
        found = members(streams(podman(images))[1])
    assert json.loads(found["overlay-images/images.json"][1])[0]["created"] == printed


# --- raw manifests


def raw_manifest(spec: ImageSpec, **changes: Any) -> RawManifest:
    layers = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:" + f"{number}" * 64, "size": 100 + number}
        for number in range(1, len(spec.layers) + 1)
    ]
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": spec.config_digest, "size": len(spec.config_bytes)}
    return RawManifest(dump({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers} | changes), MANIFEST_TYPE)


def test_a_pinned_manifest_is_stored_byte_for_byte_with_its_blobs(tmp_path: Path) -> None:
    manifest = raw_manifest(APP_IMAGE)
    with stored_images(tmp_path) as (app, data):
        store = podman((replace(app, manifest=manifest), data))
        found = members(streams(store)[0])
    image = json.loads(found["overlay-images/images.json"][1])[0]
    home = f"overlay-images/{APP_IMAGE.config_digest[7:]}"
    assert found[f"{home}/manifest"][1] == found[f"{home}/{encoded('manifest-' + manifest.digest)}"][1] == manifest.raw
    assert image["digest"] == manifest.digest
    base, app_layer, data_layer = json.loads(found["overlay-layers/layers.json"][1])[:3]
    assert (base["compressed-diff-digest"], base["compressed-size"], base["compression"]) == ("sha256:" + "1" * 64, 101, 2)
    assert (app_layer["compressed-diff-digest"], app_layer["diff-size"]) == ("sha256:" + "2" * 64, len(APP_IMAGE.layers[1]))
    assert data_layer["compressed-diff-digest"] == data_layer["diff-digest"] and "compression" not in data_layer
    stated = {one["config"]: one.get("manifest") for one in json.loads(store.to_json())["images"]}
    assert stated == {APP_IMAGE.config_digest: manifest.digest, DATA_IMAGE.config_digest: None}


def test_pinned_blobs_alone_change_nothing(tmp_path: Path) -> None:
    """Their sizes are known to the manifest only; the Docker store's map of blobs has no place here."""
    with stored_images(tmp_path) as (app, data):
        pinned = replace(app, blobs=("sha256:" + "1" * 64, None))
        assert podman((pinned, data)).to_json() == podman((app, data)).to_json()
        assert streams(podman((pinned, data))) == streams(podman((app, data)))


def test_a_docker_store_does_not_speak_of_manifests(tmp_path: Path) -> None:
    with stored_images(tmp_path) as (app, data):
        assert identity((replace(app, manifest=raw_manifest(APP_IMAGE)), data)).to_json() == identity((app, data)).to_json()


def test_a_manifest_survives_an_image_that_is_asked_for_twice(tmp_path: Path) -> None:
    manifest = raw_manifest(APP_IMAGE)
    with stored_images(tmp_path) as (app, _):
        for order in ((app, replace(app, manifest=manifest)), (replace(app, manifest=manifest), app)):
            (merged,) = merge(order)
            assert merged.manifest == manifest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"config": {"digest": "sha256:" + "0" * 64}}, "is for the config"),
        ({"layers": []}, "lists 0 layers, the config 2"),
        ({"layers": [{"digest": 1, "size": 1, "mediaType": ""}] * 2}, "another form"),
        ({"layers": [{"digest": "x", "size": -1, "mediaType": ""}] * 2}, "another form"),
        ({"layers": [{"digest": "x", "size": True, "mediaType": ""}] * 2}, "another form"),
        ({"layers": [{"digest": "x"}] * 2}, "lacks a key"),
        ({"layers": 5}, "another type"),
        ({"config": []}, "another type"),
    ],
)
def test_another_image_s_manifest_is_refused_before_a_layer_is_read(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with stored_images(tmp_path) as (app, data):
        store = podman((replace(app, manifest=raw_manifest(APP_IMAGE, **changes)), data))
        with pytest.raises(ManifestRefused, match=says):
            streams(store)


def test_bytes_that_are_no_manifest_are_refused(tmp_path: Path) -> None:
    from shiplap.core.errors import Refused

    with stored_images(tmp_path) as (app, data):
        for raw in (b"", b"[]", b"{", b"\xff", b"[" * 5000):
            with pytest.raises(Refused):
                streams(podman((replace(app, manifest=RawManifest(raw, "")), data)))


# --- limits


def test_how_many_layers_podman_4_mounts_depends_on_the_mount_point() -> None:
    assert layers_mountable("/usr/share/shiplap/store") == 60
    assert layers_mountable("/s/store") == 81


def test_more_layers_are_warned_of_by_name(tmp_path: Path) -> None:
    deep = ImageSpec([build([file(f"f{number}")]) for number in range(61)], ["deep:1"])
    notes: list[str] = []
    with stored_images(tmp_path, [deep, APP_IMAGE]) as images:
        warn_of_many_layers(podman(images), notes.append)
    assert len(notes) == 1 and notes[0].startswith("docker.io/library/deep:1 has 61 layers; Podman before 5 runs no image of more than 60")


def test_an_image_without_layers_is_in_the_store(tmp_path: Path) -> None:
    with stored_images(tmp_path, [ImageSpec([], ["empty:1"], config={"history": None})]) as images:
        found = members(streams(podman(images))[1])
    (image,) = json.loads(found["overlay-images/images.json"][1])
    assert "layer" not in image and json.loads(found["overlay-layers/layers.json"][1]) == []


def test_all_images_are_the_same_in_any_store_of_theirs(tmp_path: Path) -> None:
    """A layer's bytes do not depend on what else is in the store."""
    with stored_images(tmp_path, IMAGES) as images:
        together = members(streams(podman(images))[0])
    with stored_images(tmp_path, [DATA_IMAGE]) as images:
        alone = members(streams(podman(images))[0])
    for name, (_, data) in alone.items():
        if name not in ("store.json", "overlay-layers/layers.json", "overlay-images/images.json"):
            assert together[name][1] == data
