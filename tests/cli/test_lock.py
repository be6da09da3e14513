"""``shiplap lock``: what is pinned stays pinned until somebody asks, and what changes is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from archives import CREATED_EPOCH, ImageSpec, IndexSpec, docker_archive, oci_archive, oci_layout
from commandline import shiplap_command
from images import file
from layertar import build
from locks import good, lock_of, refused, run, two_images, write_manifest

APP, DB = two_images()
NEWER = ImageSpec([build([file("newer")])], tags=["app:1"], config={"created": "2025-01-01T00:00:00Z"})
NEWER_EPOCH = 1735689600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest of two images: one of an OCI layout, one of an index."""
    oci_layout(tmp_path / "app", [APP])
    oci_layout(tmp_path / "db", [IndexSpec([DB], tags=["db:1"])])
    write_manifest(tmp_path, {"app:1": "oci:app", "db:1": "oci:db"})
    return tmp_path


def test_everything_that_a_source_says_is_pinned(folder: Path) -> None:
    result = good(folder, "lock")
    assert (result["changed"], result["written"], result["epoch"]) == (True, True, CREATED_EPOCH)
    assert result["images"] == ["docker.io/library/app:1", "docker.io/library/db:1"]
    app, db = lock_of(folder).images
    index = json.loads((folder / "app/index.json").read_text())["manifests"][0]
    assert app.manifest and (app.manifest.digest, app.manifest.size_bytes, app.manifest.raw) == (index["digest"], index["size"], None)
    manifest = json.loads((folder / "app/blobs" / index["digest"].replace(":", "/")).read_text())
    assert [(layer.blob, layer.size_bytes, layer.media_type) for layer in app.layers] == [
        (one["digest"], one["size"], one["mediaType"]) for one in manifest["layers"]
    ]
    assert (app.config, app.config_size_bytes, list(app.diff_ids)) == (APP.config_digest, len(APP.config_bytes), APP.diff_ids)
    assert (app.source, str(app.platform), app.index, app.created_epoch) == ("oci:app", "linux/amd64", None, CREATED_EPOCH)
    assert db.index == json.loads((folder / "db/index.json").read_text())["manifests"][0]["digest"]


def test_an_unchanged_manifest_changes_nothing_and_opens_nothing(folder: Path) -> None:
    good(folder, "lock")
    before = (folder / "shiplap.lock.yaml").read_bytes(), (folder / "shiplap.lock.yaml").stat().st_mtime_ns
    (folder / "app/index.json").unlink()
    result = good(folder, "lock")
    assert (result["changed"], result["written"]) == (False, False)
    assert before == ((folder / "shiplap.lock.yaml").read_bytes(), (folder / "shiplap.lock.yaml").stat().st_mtime_ns)
    assert good(folder, "lock", "--check")["changed"] is False


def test_the_lock_is_the_same_bytes_wherever_and_whenever(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    good(folder, "lock")
    other = tmp_path_factory.mktemp("other")
    for name in ("app", "db", "shiplap.yaml"):
        (other / name).symlink_to(folder / name)
    good(other, "lock", env={"SOURCE_DATE_EPOCH": "5", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"})
    assert (other / "shiplap.lock.yaml").read_bytes() == (folder / "shiplap.lock.yaml").read_bytes()


def test_a_tag_that_moved_stays_pinned_until_it_is_updated(folder: Path) -> None:
    good(folder, "lock")
    before = lock_of(folder)
    for stale in sorted((folder / "app").rglob("*"), reverse=True):
        stale.rmdir() if stale.is_dir() else stale.unlink()
    oci_layout(folder / "app", [NEWER])
    assert good(folder, "lock")["changed"] is False
    assert good(folder, "lock", "--update", "db:1")["changed"] is False, "only what is named is looked at"
    assert lock_of(folder) == before
    would = run(folder, "lock", "--update", "--check")
    assert (would["exit"], would["changed"], would["written"]) == (1, True, False)
    assert lock_of(folder) == before
    result = good(folder, "lock", "--update", "app:1")
    (change,) = result["difference"]["images"]
    assert (change["kind"], change["ref"], change["new"]["config"]["digest"]) == ("moved", "docker.io/library/app:1", NEWER.config_digest)
    assert {one["kind"] for one in change["layers"]} == {"added", "removed"}
    assert result["difference"]["fields"] == [{"name": "epoch", "old": CREATED_EPOCH, "new": NEWER_EPOCH}]
    assert lock_of(folder).images[1] == before.images[1]


def test_people_are_shown_what_changed(folder: Path) -> None:
    done = shiplap_command("lock", cwd=folder)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[0].startswith("+ docker.io/library/app:1  linux/amd64, 2 layers")
    assert done.stdout.splitlines()[-1] == f"shiplap.lock.yaml written: 2 images, epoch {CREATED_EPOCH}"
    assert shiplap_command("lock", cwd=folder).stdout == f"shiplap.lock.yaml is up to date: 2 images, epoch {CREATED_EPOCH}\n"


def test_images_are_added_dropped_and_ordered_as_in_the_manifest(folder: Path) -> None:
    write_manifest(folder, {"app:1": "oci:app"})
    good(folder, "lock")
    pinned = lock_of(folder).images[0]
    write_manifest(folder, {"db:1": "oci:db", "app:1": "oci:app"})
    assert [one["kind"] for one in good(folder, "lock")["difference"]["images"]] == ["added"]
    assert lock_of(folder).images[1] == pinned
    write_manifest(folder, {"db:1": "oci:db"})
    assert [one["kind"] for one in good(folder, "lock")["difference"]["images"]] == ["removed"]
    assert [str(one.ref) for one in lock_of(folder).images] == ["docker.io/library/db:1"]


def test_an_update_of_an_image_that_is_not_there_is_refused(folder: Path) -> None:
    text = refused(folder, "lock", "--update", "dbb:1")
    assert "--update dbb:1: the manifest has no such image" in text and "docker.io/library/db:1" in text
    assert not (folder / "shiplap.lock.yaml").exists()


# --- from:


def test_another_place_with_the_same_content_keeps_the_entry(folder: Path) -> None:
    good(folder, "lock")
    before = (folder / "shiplap.lock.yaml").read_bytes()
    docker_archive(folder / "app.tar", [APP])
    oci_layout(folder / "zstd", [APP], compression="zstd")
    for source in ("docker-archive:app.tar", "oci:zstd"):
        write_manifest(folder, {"app:1": source, "db:1": "oci:db"})
        assert good(folder, "lock")["changed"] is False
        assert (folder / "shiplap.lock.yaml").read_bytes() == before


def test_another_place_with_another_image_is_refused_with_the_reason(folder: Path) -> None:
    good(folder, "lock")
    docker_archive(folder / "app.tar", [NEWER])
    write_manifest(folder, {"app:1": "docker-archive:app.tar", "db:1": "oci:db"})
    text = refused(folder, "lock")
    assert "docker-archive:app.tar: not the image that is locked for docker.io/library/app:1" in text
    assert NEWER.config_digest in text and APP.config_digest in text and "--update app:1" in text
    good(folder, "lock", "--update", "app:1")
    assert lock_of(folder).images[0].config == NEWER.config_digest


@pytest.mark.parametrize("layout", ["save", "skopeo", "oci"])
def test_of_an_archive_config_and_diffids_are_pinned_and_the_rest_is_unknown(tmp_path: Path, layout: str) -> None:
    docker_archive(tmp_path / "app.tar", [APP], layout=layout)
    write_manifest(tmp_path, {"app:1": "docker-archive:app.tar"})
    (note,) = good(tmp_path, "lock")["notes"]
    assert "app.tar keeps no manifest" in note and "manifest digest is unknown" in note
    (app,) = lock_of(tmp_path).images
    assert (app.manifest, app.index, app.config, list(app.diff_ids)) == (None, None, APP.config_digest, APP.diff_ids)
    assert all(layer.blob is None for layer in app.layers)
    assert "\n    manifest: unknown\n" in (tmp_path / "shiplap.lock.yaml").read_text()


def test_an_oci_archive_keeps_its_manifest(tmp_path: Path) -> None:
    oci_archive(tmp_path / "app.tar", [APP])
    write_manifest(tmp_path, {"app:1": "oci-archive:app.tar"})
    assert good(tmp_path, "lock")["notes"] == []
    assert lock_of(tmp_path).images[0].manifest is not None


# --- pins of the manifest


def test_the_manifest_s_own_pins_must_hold_and_a_changed_pin_pins_anew(folder: Path) -> None:
    good(folder, "lock")
    digest = lock_of(folder).images[0].manifest_digests[0]
    entry = {"ref": "app:1", "from": "oci:app"}
    for pins in ({"digest": digest}, {"config-digest": APP.config_digest}, {"digest": digest, "config-digest": APP.config_digest}):
        write_manifest(folder, [{**entry, **pins}])
        good(folder, "lock")
        assert lock_of(folder).images[0].config == APP.config_digest
    for pins in ({"digest": "sha256:" + "1" * 64}, {"config-digest": DB.config_digest}):
        write_manifest(folder, [{**entry, **pins}])
        assert next(iter(pins.values())) in refused(folder, "lock")
    oci_layout(folder / "newer", [NEWER])
    write_manifest(folder, [{"ref": "app:1", "from": "oci:newer", "config-digest": NEWER.config_digest}])
    assert good(folder, "lock")["difference"]["images"][0]["kind"] == "moved", "the manifest itself asks for the new one"


def test_a_digest_that_an_archive_proves_is_pinned(tmp_path: Path) -> None:
    """A Docker with containerd's store saves the registry's own manifest; it counts where somebody named its digest."""
    docker_archive(tmp_path / "app.tar", [APP], layout="oci", compression="gzip")
    oci_layout(tmp_path / "app", [APP])
    digest = json.loads((tmp_path / "app/index.json").read_text())["manifests"][0]["digest"]
    write_manifest(tmp_path, [{"ref": "app:1", "from": "docker-archive:app.tar", "digest": digest}])
    good(tmp_path, "lock")
    assert lock_of(tmp_path).images[0].manifest_digests == (digest,)
    assert good(tmp_path, "build", "--locked")["images"][0]["references"][1] == f"docker.io/library/app@{digest}"


# --- platform, epoch, bytes


def test_the_platform_is_the_manifest_s_or_the_only_one(tmp_path: Path) -> None:
    arm = ImageSpec(APP.layers, platform="linux/arm64")
    oci_layout(tmp_path / "both", [IndexSpec([APP, arm], tags=["app:1"])])
    write_manifest(tmp_path, {"app:1": "oci:both"})
    assert "linux/amd64, linux/arm64" in refused(tmp_path, "lock")
    good(tmp_path, "lock", "--platform", "linux/amd64")
    assert lock_of(tmp_path).images[0].config == APP.config_digest
    write_manifest(tmp_path, {"app:1": "oci:both"}, platform="linux/arm64/v8")
    result = good(tmp_path, "lock")
    assert {"name": "platform", "old": "linux/amd64", "new": "linux/arm64/v8"} in result["difference"]["images"][0]["fields"]
    assert lock_of(tmp_path).images[0].config == arm.config_digest


def test_the_epoch_is_the_manifest_s_or_the_newest_image_s_and_never_the_environment_s(folder: Path) -> None:
    good(folder, "lock", env={"SOURCE_DATE_EPOCH": "5"})
    assert lock_of(folder).epoch == CREATED_EPOCH
    write_manifest(folder, {"app:1": "oci:app"}, epoch=77)
    assert good(folder, "lock")["difference"]["fields"] == [{"name": "epoch", "old": CREATED_EPOCH, "new": 77}]
    oci_layout(folder / "old", [ImageSpec(APP.layers, config={"created": "1960-01-01T00:00:00Z"})])
    write_manifest(folder, {"old:1": "oci:old"})
    good(folder, "lock")
    assert lock_of(folder).epoch == 0
    write_manifest(folder, {"old:1": "oci:old", "app:1": "oci:app"})
    good(folder, "lock")
    assert lock_of(folder).epoch == CREATED_EPOCH, "also of images that are kept and not looked at"


def test_manifest_bytes_are_kept_on_request_and_by_later_updates(folder: Path) -> None:
    good(folder, "lock")
    before = lock_of(folder)
    good(folder, "lock", "--manifest-bytes")
    app = lock_of(folder).images[0]
    assert app.manifest and app.manifest.raw == (folder / "app/blobs" / app.manifest.digest.replace(":", "/")).read_bytes()
    assert [image.manifest_digests for image in lock_of(folder).images] == [image.manifest_digests for image in before.images]
    good(folder, "lock", "--update")
    assert lock_of(folder).images[0] == app


def test_manifest_bytes_of_a_source_that_has_another_manifest_are_not_kept(folder: Path) -> None:
    good(folder, "lock")
    docker_archive(folder / "app.tar", [APP])
    write_manifest(folder, {"app:1": "docker-archive:app.tar", "db:1": "oci:db"})
    result = good(folder, "lock", "--manifest-bytes")
    assert any("app.tar has not the bytes of the manifest that is locked" in note for note in result["notes"])
    assert [bool(image.manifest and image.manifest.raw) for image in lock_of(folder).images] == [False, True]


# --- the file


def test_other_files_by_name(folder: Path) -> None:
    (folder / "shiplap.yaml").rename(folder / "gateway.yaml")
    good(folder, "lock", "-f", "gateway.yaml")
    assert (folder / "gateway.lock.yaml").exists()
    assert good(folder, "lock", "-f", "gateway.yaml", "--lock", "else.yaml")["lock"] == "else.yaml"
    assert (folder / "else.yaml").read_bytes() == (folder / "gateway.lock.yaml").read_bytes()


def test_a_link_stays_a_link_and_the_file_is_for_everybody(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "shiplap.lock.yaml").symlink_to("real/lock.yaml")
    (folder / "real/lock.yaml").write_bytes(b"")
    refused(folder, "lock")
    (folder / "real/lock.yaml").unlink()
    previous = os.umask(0o077)
    try:
        good(folder, "lock")
    finally:
        os.umask(previous)
    assert (folder / "shiplap.lock.yaml").is_symlink()
    assert (folder / "real/lock.yaml").stat().st_mode & 0o777 == 0o644
    assert [one.name for one in (folder / "real").iterdir()] == ["lock.yaml"]


def test_a_broken_lock_is_never_overwritten(folder: Path) -> None:
    good(folder, "lock")
    path = folder / "shiplap.lock.yaml"
    path.write_text(path.read_text().replace("epoch:", "epoc:"))
    text = refused(folder, "lock", "--update")
    assert "shiplap.lock.yaml:4:1: epoc: unknown key `epoc`; did you mean `epoch`?" in text
    assert "epoc:" in path.read_text()
