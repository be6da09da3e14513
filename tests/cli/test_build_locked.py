"""Builds from a lock: the same store from every place that has the content, and nothing else is accepted."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from archives import CREATED_EPOCH, ImageSpec, IndexSpec, docker_archive, oci_archive, oci_layout
from commandline import COMMAND, environment, nobody_can_run_it
from images import file
from layertar import build
from locks import good, lock_of, refused, run, store_sums, two_images, write_manifest

APP, DB = two_images()
OTHER = ImageSpec([build([file("other")])], tags=["app:1"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest of two images and its lock."""
    oci_layout(tmp_path / "app", [APP])
    oci_layout(tmp_path / "db", [IndexSpec([DB], tags=["db:1"])])
    write_manifest(tmp_path, {"app:1": "oci:app", "db:1": "oci:db"})
    good(tmp_path, "lock")
    return tmp_path


def record(folder: Path, out: str = "shiplap-out") -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / out / "record.json").read_text())
    return found


# --- what the lock adds to a store


def test_a_store_from_a_lock_names_every_locked_digest_and_says_which_layer_is_which_blob(folder: Path) -> None:
    result = good(folder, "build", "--locked", "--output", "tar,squashfs,verity")
    app, db = lock_of(folder).images
    assert [one["references"] for one in result["images"]] == [
        ["docker.io/library/app:1", f"docker.io/library/app@{app.manifest_digests[0]}"],
        ["docker.io/library/db:1", *sorted(f"docker.io/library/db@{digest}" for digest in db.manifest_digests)],
    ]
    assert len(db.manifest_digests) == 2
    identity = json.loads((folder / "shiplap-out/store.json").read_text())
    blobs = {layer["diffID"]: layer["blob"] for image in identity["images"] for layer in image["layers"]}
    assert blobs == {layer.diff_id: layer.blob for image in (app, db) for layer in image.layers}
    with tarfile.open(folder / "shiplap-out/store.tar") as tar:
        home = "image/overlay2/distribution"
        found = {name: one for one in tar if (name := one.name.removeprefix("./")).startswith(home)}
        assert {name: oct(one.mode) for name, one in found.items() if one.isdir()} == {
            home: "0o700", f"{home}/diffid-by-digest": "0o755", f"{home}/diffid-by-digest/sha256": "0o755",
        }  # fmt: skip
        for diff_id, blob in blobs.items():
            one = found[f"{home}/diffid-by-digest/{blob.replace(':', '/')}"]
            content = tar.extractfile(one)
            assert content and (content.read().decode(), oct(one.mode), one.mtime) == (diff_id, "0o644", CREATED_EPOCH)
        assert len([one for one in found.values() if one.isfile()]) == len(blobs)
    assert good(folder, "verify", "shiplap-out", "--lock", "shiplap.lock.yaml")["holds"] is True


def test_without_a_lock_nothing_changes(folder: Path) -> None:
    locked = store_sums(good(folder, "build"))
    (folder / "shiplap.lock.yaml").unlink()
    result = good(folder, "build")
    assert store_sums(result) != locked
    assert "blob" not in (folder / "shiplap-out/store.json").read_text() and "lock" not in record(folder)
    assert [len(one["references"]) for one in result["images"]] == [1, 1]


def test_an_archive_has_no_place_for_blobs(folder: Path) -> None:
    good(folder, "build", "--mode", "archive", "--locked")
    assert "blob" not in (folder / "shiplap-out/store.json").read_text()
    assert good(folder, "verify", "shiplap-out", "--lock", "shiplap.lock.yaml")["holds"] is True


# --- the same from everywhere


def test_every_place_with_the_content_gives_the_same_store(folder: Path) -> None:
    expected = store_sums(good(folder, "build", "--locked"))
    for how in ("none", "zstd"):
        oci_layout(folder / how, [APP], compression=how)
    oci_archive(folder / "app.oci", [APP], compression="xz")
    both = docker_archive(folder / "both.tar", [DB, APP], layout="save")
    for source in ("oci:none", "oci:zstd", "oci-archive:app.oci", f"docker-archive:{both.name}:app:1", f"docker-archive:{both.name}"):
        write_manifest(folder, {"app:1": source, "db:1": "oci:db"})
        result = good(folder, "build", "--locked")
        assert store_sums(result) == expected, source
        noted = any("under another manifest" in note for note in result["notes"])
        assert noted == source.startswith(("oci:", "oci-archive:"))


def test_the_record_is_the_same_from_the_cache_and_from_the_source(folder: Path) -> None:
    direct = good(folder, "build", "--locked")["outputs"]
    good(folder, "fetch")
    for name in ("app", "db"):
        (folder / name).rename(folder / f"{name} is away")
    assert good(folder, "build", "--locked", "--offline")["outputs"] == direct
    sources = record(folder)["sources"]
    assert isinstance(sources, list) and [one["source"] for one in sources] == ["oci:app", "oci:db"]
    assert set(record(folder)["lock"]) == {"sha256"}  # type: ignore[call-overload]


def test_the_lock_s_epoch_stands_between_the_manifest_s_and_the_environment_s(folder: Path) -> None:
    here = {"SOURCE_DATE_EPOCH": "5"}
    assert good(folder, "build", env=here)["epoch"] == CREATED_EPOCH
    assert record(folder)["epoch"] == {"from": "lock", "value": CREATED_EPOCH}
    assert good(folder, "build", "--source-date-epoch", "7", env=here)["epoch"] == 7
    write_manifest(folder, {"app:1": "oci:app", "db:1": "oci:db"}, epoch=9)
    assert good(folder, "build", env=here)["epoch"] == 9
    (folder / "shiplap.lock.yaml").unlink()
    write_manifest(folder, {"app:1": "oci:app", "db:1": "oci:db"})
    assert good(folder, "build", env=here)["epoch"] == 5


# --- what is not what was locked


@pytest.mark.parametrize("words", [(), ("--locked",)])
def test_another_image_is_refused_with_and_without_locked(folder: Path, words: tuple[str, ...]) -> None:
    docker_archive(folder / "other.tar", [OTHER])
    write_manifest(folder, {"app:1": "docker-archive:other.tar", "db:1": "oci:db"})
    text = refused(folder, "build", *words)
    assert "docker-archive:other.tar: not the image that is locked for docker.io/library/app:1" in text
    assert OTHER.config_digest in text and APP.config_digest in text and "it is another image" in text
    assert "(oci:app)" in text and "lock --update app:1" in text
    assert not (folder / "shiplap-out").exists()


def test_a_rewritten_config_is_told_from_another_image(folder: Path) -> None:
    rewritten = ImageSpec(APP.layers, APP.tags, raw_config=json.dumps(json.loads(APP.config_bytes), indent=1).encode())
    docker_archive(folder / "rewritten.tar", [rewritten])
    write_manifest(folder, {"app:1": "docker-archive:rewritten.tar", "db:1": "oci:db"})
    text = refused(folder, "build")
    assert "all 2 layers are the same (same diffIDs)" in text and "wrote the config anew" in text
    assert "only written differently" not in text, "the locked config is not at hand"
    good(folder, "fetch", "--lock", "shiplap.lock.yaml")
    (blob,) = (folder / "cache/blobs/sha256").glob(lock_of(folder).images[0].layers[1].blob[7:])  # type: ignore[index]
    blob.unlink()
    assert "the configs say the same and are only written differently" in refused(folder, "build")


def test_a_platform_other_than_the_locked_one_is_refused(folder: Path) -> None:
    text = refused(folder, "build", "--platform", "linux/arm64")
    assert "the lock pins docker.io/library/app:1 for linux/amd64, wanted is linux/arm64" in text and "--lock FILE" in text


def test_a_pin_of_the_manifest_must_be_the_lock_s(folder: Path) -> None:
    digest = lock_of(folder).images[0].manifest_digests[0]
    docker_archive(folder / "app.tar", [APP])
    entry = {"ref": "app:1", "from": "docker-archive:app.tar"}
    rest = {"ref": "db:1", "from": "oci:db"}
    write_manifest(folder, [{**entry, "digest": digest}, rest])
    assert good(folder, "build", "--locked"), "the archive cannot prove the digest, and the lock does"
    write_manifest(folder, [{**entry, "digest": "sha256:" + "1" * 64}, rest])
    assert f"asked for is sha256:{'1' * 64}, the lock has {digest}" in refused(folder, "build")
    write_manifest(folder, [{**entry, "config-digest": OTHER.config_digest}, rest])
    assert f"the lock pins {APP.config_digest}" in refused(folder, "build")


def test_a_lock_for_another_store_format_is_refused(folder: Path) -> None:
    path = folder / "shiplap.lock.yaml"
    path.write_text(path.read_text().replace("store-format: 1", "store-format: 2"))
    assert "store format 2, this release writes 1" in refused(folder, "build")


def test_a_lock_whose_layers_are_not_its_config_s_is_refused(folder: Path) -> None:
    path = folder / "shiplap.lock.yaml"
    path.write_text(path.read_text().replace(APP.diff_ids[1], "sha256:" + "3" * 64))
    assert "lists other layers for docker.io/library/app:1 than its config" in refused(folder, "build")


# --- --locked


def test_locked_wants_a_lock(folder: Path) -> None:
    (folder / "shiplap.lock.yaml").unlink()
    text = refused(folder, "build", "--locked")
    assert "cannot read the lock shiplap.lock.yaml: No such file" in text and "`shiplap lock` writes it" in text


def test_locked_refuses_what_is_not_pinned_what_is_pinned_for_nothing_and_another_epoch(folder: Path) -> None:
    good(folder, "build", "--locked")
    write_manifest(folder, {"app:1": "oci:app", "new:1": "oci:db"}, epoch=3)
    text = refused(folder, "build", "--locked")
    assert "--locked: shiplap.lock.yaml is not up to date: docker.io/library/new:1 is not in it; " in text
    assert f"docker.io/library/db:1 is in it and not in the manifest; its epoch is {CREATED_EPOCH}, the manifest's 3" in text
    result = good(folder, "build")
    assert len(result["notes"]) == 3 and all("is not up to date" in note for note in result["notes"])
    good(folder, "lock")
    assert good(folder, "build", "--locked")["notes"] == []


def test_a_lock_can_be_named(folder: Path) -> None:
    (folder / "shiplap.lock.yaml").rename(folder / "my.lock")
    expected = store_sums(good(folder, "build", "--locked", "--lock", "my.lock"))
    assert "cannot read the lock nowhere.lock" in refused(folder, "build", "--lock", "nowhere.lock")
    by_words = good(folder, "build", "app:1=oci:app", "db:1=oci:db", "--locked", "--lock", "my.lock")
    assert store_sums(by_words) == expected
    text = refused(folder, "build", "oci:app", "--locked", "--lock", "my.lock")
    assert "oci:app has no name, and the lock knows images by name" in text


def test_images_of_the_command_line_are_not_held_against_the_manifest_s_lock(folder: Path) -> None:
    oci_layout(folder / "other", [OTHER])
    assert good(folder, "build", "app:1=oci:other")["images"][0]["config"] == OTHER.config_digest
    assert "no digest pins docker.io/library/app:1" in refused(folder, "build", "app:1=oci:other", "--locked")


# --- the cache


def blob_of(folder: Path, digest: str) -> Path:
    return folder / "cache/blobs" / digest.replace(":", "/")


@pytest.mark.parametrize("what", ["layer", "config", "diffID"])
def test_a_damaged_blob_of_the_cache_is_told_leaves_it_and_is_fetched_again(folder: Path, what: str) -> None:
    if what == "diffID":
        docker_archive(folder / "app.tar", [APP])
        write_manifest(folder, {"app:1": "docker-archive:app.tar", "db:1": "oci:db"})
    good(folder, "fetch")
    expected = store_sums(good(folder, "build"))
    app = lock_of(folder).images[0]
    digest = {"layer": str(app.layers[1].blob), "config": app.config, "diffID": app.layers[1].diff_id}[what]
    path = blob_of(folder, digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    text = refused(folder, "build")
    assert "the cache" in text and digest in text and "it was removed from the cache: run the command again" in text
    assert not path.exists()
    assert store_sums(good(folder, "build")) == expected
    good(folder, "fetch")
    assert path.exists()


def test_offline_the_way_out_of_a_damaged_cache_is_where_the_network_is(folder: Path) -> None:
    good(folder, "fetch")
    path = blob_of(folder, str(lock_of(folder).images[0].layers[1].blob))
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    write_manifest(folder, {"app:1": "docker://registry.example/app:1", "db:1": "oci:db"})
    assert "it was removed from the cache: `shiplap fetch`, where there is a network" in refused(folder, "build", "--offline")


def test_a_damaged_blob_of_somebody_else_s_cache_is_told_and_stays() -> None:
    if not nobody_can_run_it():
        pytest.skip("another user cannot run this checkout")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        oci_layout(folder / "app", [APP])
        write_manifest(folder, {"app:1": "oci:app"})
        good(folder, "lock")
        good(folder, "fetch")
        blob = str(lock_of(folder).images[0].layers[1].blob)
        path = blob_of(folder, blob)
        path.chmod(0o644)
        path.write_bytes(b"x" * path.stat().st_size)
        (folder / "out").mkdir()
        (folder / "out").chmod(0o777)
        env = environment({"SHIPLAP_CACHE": str(folder / "cache")})
        who: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
        argv = [*COMMAND, "build", "--offline", "-o", "out/here"]
        done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, **who)
        assert done.returncode == 2 and blob in done.stderr, done.stderr
        assert "this user may not remove it: `shiplap cache verify --repair" in done.stderr and path.exists()


def test_a_truncated_blob_of_the_cache_counts_as_missing(folder: Path) -> None:
    good(folder, "fetch")
    path = blob_of(folder, str(lock_of(folder).images[0].layers[1].blob))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    (folder / "app").rename(folder / "app is away")
    assert run(folder, "build")["exit"] == 2
    (folder / "app is away").rename(folder / "app")
    good(folder, "fetch")
    (folder / "app").rename(folder / "app is away")
    good(folder, "build", "--offline")


def test_files_are_read_offline_and_only_files(folder: Path) -> None:
    assert good(folder, "build", "--offline")
    write_manifest(folder, {"app:1": "docker-daemon:app:1", "db:1": "oci:db"})
    text = refused(folder, "build", "--offline")
    app = lock_of(folder).images[0]
    assert f"lacks {app.config}, {app.layers[0].blob}, {app.layers[1].blob} of docker.io/library/app:1" in text
    assert "`shiplap fetch` fills the cache" in text


def test_the_placement_of_the_command_line_changes_the_kit_and_not_the_store(folder: Path) -> None:
    plain = good(folder, "build", "--locked", "-o", "plain")
    placed = good(folder, "build", "--locked", "--placement", "partition", "-o", "placed")
    assert store_sums(plain) == store_sums(placed)
    assert plain["outputs"]["target.tar"]["sha256"] != placed["outputs"]["target.tar"]["sha256"]
