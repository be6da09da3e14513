"""``shiplap verify THING --lock LOCK``: the last link, from the store's images to what was pinned."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive, oci_layout
from images import file
from layertar import build
from locks import digest_of, good, lock_of, refused, run, two_images, write_manifest
from shiplap.core.lock import Lock, LockedImage
from shiplap.core.lock.document import write_lock
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference

APP, DB = two_images()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lock with one manifest's bytes, and builds of it in both modes."""
    folder = tmp_path_factory.mktemp("made")
    oci_layout(folder / "app", [APP])
    oci_layout(folder / "db", [DB])
    write_manifest(folder, {"app:1": "oci:app", "db:1": "oci:db"})
    good(folder, "lock", "--manifest-bytes")
    good(folder, "build", "--locked", "--output", "squashfs,verity,tar")
    good(folder, "build", "--locked", "--mode", "archive", "-o", "archive")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


THINGS = ("shiplap-out", "shiplap-out/store.squashfs", "shiplap-out/store.tar", "archive", "archive/images.tar")


@pytest.mark.parametrize("thing", THINGS)
def test_what_was_built_from_the_lock_holds_against_it(made: Path, thing: str) -> None:
    result = good(made, "verify", thing, "--lock", "shiplap.lock.yaml")
    links = {one["link"]: one["detail"] for one in result["links"]}
    assert links["lock"].startswith("2 images of shiplap.lock.yaml")
    assert ("lock's blobs" in links) == thing.startswith("shiplap-out")
    assert links["lock's manifests"].startswith("2 manifests have the digests that are locked")
    assert result["unchecked"] == []


def test_of_an_archive_s_layers_no_registry_s_digest_is_claimed(tmp_path: Path) -> None:
    docker_archive(tmp_path / "app.tar", [APP])
    oci_layout(tmp_path / "db", [DB])
    for images, said in (
        ({"app:1": "docker-archive:app.tar"}, None),
        ({"app:1": "docker-archive:app.tar", "db:1": "oci:db"}, "2 of 4 layers have the registry's digest that is locked"),
    ):
        write_manifest(tmp_path, images)
        good(tmp_path, "lock")
        good(tmp_path, "build", "--locked")
        result = good(tmp_path, "verify", "shiplap-out", "--lock", "shiplap.lock.yaml")
        assert {one["link"]: one["detail"] for one in result["links"]}.get("lock's blobs") == said


def test_a_manifest_digest_without_bytes_is_said_to_be_unproven(folder: Path) -> None:
    lock = lock_of(folder)
    assert lock.images[0].manifest is not None
    bare = dataclasses.replace(lock.images[0], manifest=dataclasses.replace(lock.images[0].manifest, raw=None))
    (folder / "shiplap.lock.yaml").write_bytes(write_lock(dataclasses.replace(lock, images=(bare, lock.images[1]))))
    result = good(folder, "verify", "shiplap-out", "--lock", "shiplap.lock.yaml")
    (unchecked,) = result["unchecked"]
    assert unchecked["link"] == "manifests" and "docker.io/library/app:1" in unchecked["detail"] and "db:1" not in unchecked["detail"]
    assert any(one["detail"].startswith("1 manifests have") for one in result["links"])


def _app(**changes: object) -> Callable[[Lock], Lock]:
    def change(lock: Lock) -> Lock:
        app: LockedImage = dataclasses.replace(lock.images[0], manifest=None, **changes)  # type: ignore[arg-type]
        return dataclasses.replace(lock, images=(app, lock.images[1]))

    return change


def _other_blob(lock: Lock) -> Lock:
    app = lock.images[0]
    layers = (dataclasses.replace(app.layers[0], blob=digest_of("other")), *app.layers[1:])
    assert app.manifest is not None
    manifest = dataclasses.replace(app.manifest, raw=None)
    return dataclasses.replace(lock, images=(dataclasses.replace(app, layers=layers, manifest=manifest), lock.images[1]))


def _another_manifest(lock: Lock) -> Lock:
    app = lock.images[0]
    assert app.manifest is not None
    manifest = dataclasses.replace(app.manifest, digest=digest_of("another"), raw=None)
    return dataclasses.replace(lock, images=(dataclasses.replace(app, manifest=manifest), lock.images[1]))


STORE_ONLY = THINGS[:3]
BROKEN: dict[str, tuple[Callable[[Lock], Lock], str, tuple[str, ...]]] = {
    "another config": (_app(config=digest_of("x")), f"pins docker.io/library/app:1 as {digest_of('x')}; the image under that name", THINGS),
    "an image that is not there": (
        lambda lock: dataclasses.replace(
            lock,
            images=(
                *lock.images,
                dataclasses.replace(lock.images[0], ref=parse_reference("new:1"), config=digest_of("new"), manifest=None),
            ),
        ),
        "there is no image of that name",
        THINGS,
    ),
    "an image that is not pinned": (lambda lock: dataclasses.replace(lock, images=lock.images[:1]), "docker.io/library/db:1", THINGS),
    "other layers": (lambda lock: _app(layers=lock.images[0].layers[:1])(lock), "lists other layers for docker.io/library/app:1", THINGS),
    "another name": (_app(ref=parse_reference("other:1")), "lacks the reference docker.io/library/other:1", THINGS),
    "another platform": (_app(platform=parse_platform("linux/arm64")), "for linux/arm64, the store is for linux/amd64", THINGS[:4]),
    "another epoch": (lambda lock: dataclasses.replace(lock, epoch=5), "the epoch is 1714564800, shiplap.lock.yaml says 5", THINGS[:4]),
    "another manifest digest": (_another_manifest, f"lacks the reference docker.io/library/app@{digest_of('another')}", THINGS[:4]),
    "an unknown manifest": (_app(), "is not in shiplap.lock.yaml", THINGS[:4]),
    "another blob": (_other_blob, "pins other blobs for the layers of", STORE_ONLY),
}


@pytest.mark.parametrize("what", BROKEN)
def test_whatever_the_lock_says_differently_is_a_broken_link(folder: Path, what: str) -> None:
    change, message, things = BROKEN[what]
    (folder / "shiplap.lock.yaml").write_bytes(write_lock(change(lock_of(folder))))
    for thing in things:
        text = refused(folder, "verify", thing, "--lock", "shiplap.lock.yaml", code=1)
        assert message in text, text


def test_a_store_without_the_lock_s_digests_does_not_hold_against_it(folder: Path) -> None:
    good(folder, "build", "app:1=oci:app", "db:1=oci:db", "-o", "unlocked")
    assert "lacks the reference docker.io/library/app@" in refused(folder, "verify", "unlocked", "--lock", "shiplap.lock.yaml", code=1)


def test_one_image_under_two_names_has_the_blobs_of_one_of_them(tmp_path: Path) -> None:
    oci_layout(tmp_path / "gzip", [APP])
    oci_layout(tmp_path / "zstd", [APP], compression="zstd")
    write_manifest(tmp_path, {"a:1": "oci:gzip", "b:1": "oci:zstd"})
    good(tmp_path, "lock")
    good(tmp_path, "build", "--locked")
    assert good(tmp_path, "verify", "shiplap-out", "--lock", "shiplap.lock.yaml")["holds"]
    good(tmp_path, "fetch")
    write_manifest(tmp_path, {"b:1": "oci:zstd", "a:1": "oci:gzip"})
    good(tmp_path, "build", "--locked")
    assert good(tmp_path, "verify", "shiplap-out", "--lock", "shiplap.lock.yaml")["holds"]


def test_a_store_that_is_broken_is_told_before_the_lock_is_looked_at(folder: Path) -> None:
    path = folder / "shiplap-out/store.squashfs"
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    assert "SHA256SUMS" in refused(folder, "verify", "shiplap-out", "--lock", "shiplap.lock.yaml", code=1)


def test_a_lock_that_is_none_is_refused(folder: Path) -> None:
    (folder / "shiplap.lock.yaml").write_text("version: 1\n")
    assert run(folder, "verify", "shiplap-out", "--lock", "shiplap.lock.yaml")["exit"] == 2
    assert "cannot read the lock nowhere" in refused(folder, "verify", "shiplap-out", "--lock", "nowhere")


def test_a_blob_in_store_json_that_is_no_digest_is_refused(folder: Path) -> None:
    """A store is hostile input too: the digest becomes a path."""
    layer = ImageSpec([build([file("x")])], tags=["x:1"])
    oci_layout(folder / "x", [layer])
    good(folder, "build", "x:1=oci:x", "--output", "tar", "-o", "x-out")
    store_json = folder / "x-out/store.json"
    text = store_json.read_text()
    store_json.write_text(text.replace('{"chainID"', '{"blob":"sha256:../../../etc/passwd","chainID"'))
    assert "is no blob's digest" in refused(folder, "verify", "x-out/store.tar")
