"""An image as the lock pins it: which platform's manifest, which name, which of several, when the places say it differently."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, IndexSpec, docker_archive, oci_files, oci_layout
from images import file
from layertar import build
from locks import good, lock_of, refused, store_sums, write_manifest
from registryserver import Registry, push, running_registry

# For years configs for arm/v6 named no variant; only the index told.
OLD_ARM = ImageSpec([build([file("v6", b"6" * 3000)])], platform="linux/arm")
NEW_ARM = ImageSpec([build([file("v7", b"7" * 3000)])], platform="linux/arm/v7")
ARMS = IndexSpec(
    [OLD_ARM, NEW_ARM],
    ["app:1"],
    declared=[{"os": "linux", "architecture": "arm", "variant": "v6"}, {"os": "linux", "architecture": "arm", "variant": "v7"}],
)
V6 = {"platform": "linux/arm/v6"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as one:
        for name, compression in (("app", "gzip"), ("again", "zstd")):
            files: dict[str, Any] = oci_files([ARMS], compression=compression)
            push(one.address, name, files, {"1": json.loads(files["index.json"])["manifests"][0]["digest"]})
        yield one


def asking(folder: Path, source: str, registry: Registry) -> None:
    write_manifest(folder, {"app:1": source}, registries={registry.address: {"tls-verify": False}}, **V6)


def test_a_variant_that_only_the_index_tells_survives_every_way(tmp_path: Path, registry: Registry) -> None:
    at = f"docker://{registry.address}"
    asking(tmp_path, f"{at}/app:1", registry)
    good(tmp_path, "lock")
    (locked,) = lock_of(tmp_path).images
    assert (locked.config, str(locked.platform), locked.index is None) == (OLD_ARM.config_digest, "linux/arm/v6", False)
    expected = store_sums(good(tmp_path, "build", "--locked"))
    oci_layout(tmp_path / "index", [ARMS], compression="none")
    oci_layout(tmp_path / "alone", [OLD_ARM])
    docker_archive(tmp_path / "app.tar", [OLD_ARM])
    for source in (f"{at}/app:1", f"{at}/again:1", "oci:index", "oci:alone", "docker-archive:app.tar"):
        asking(tmp_path, source, registry)
        for words in (("build", "--locked", "--cache", "new"), ("fetch", "--cache", "new"), ("build", "--offline", "--cache", "new")):
            result = good(tmp_path, *words)
        assert store_sums(result) == expected, source
        for one in sorted((tmp_path / "new").rglob("*"), reverse=True):
            one.rmdir() if one.is_dir() else one.unlink()


def test_the_pinned_manifest_is_taken_whatever_the_tag_means_now(tmp_path: Path, registry: Registry) -> None:
    files: dict[str, Any] = oci_files([OLD_ARM])
    push(registry.address, "moving", files, {"1": json.loads(files["index.json"])["manifests"][0]["digest"]})
    asking(tmp_path, f"docker://{registry.address}/moving:1", registry)
    good(tmp_path, "lock")
    newer: dict[str, Any] = oci_files([ImageSpec([build([file("newer")])], platform="linux/arm/v6")])
    push(registry.address, "moving", newer, {"1": json.loads(newer["index.json"])["manifests"][0]["digest"]})
    result = good(tmp_path, "build", "--locked", "--cache", "new")
    assert result["images"][0]["config"] == OLD_ARM.config_digest and result["notes"] == []


def test_another_registry_with_other_manifests_is_as_good_and_says_so(tmp_path: Path, registry: Registry) -> None:
    asking(tmp_path, f"docker://{registry.address}/app:1", registry)
    good(tmp_path, "lock")
    asking(tmp_path, f"docker://{registry.address}/again:1", registry)
    notes = good(tmp_path, "build", "--locked", "--cache", "new")["notes"]
    assert len(notes) == 2 and "held against the lock instead" in notes[0] and "under another manifest" in notes[1]
    relocked = good(tmp_path, "lock", "--cache", "newer")
    assert relocked["changed"] is False and relocked["notes"] == notes


def test_of_several_images_the_one_with_the_locked_content_is_meant(tmp_path: Path) -> None:
    one, other = (ImageSpec([build([file(name)])], tags=[f"{name}:1"]) for name in ("one", "other"))
    oci_layout(tmp_path / "one", [one])
    docker_archive(tmp_path / "both.tar", [other, one])
    write_manifest(tmp_path, {"app:1": "docker-archive:both.tar"})
    assert "can be only one of them" in refused(tmp_path, "lock"), "without a lock nothing says which"
    write_manifest(tmp_path, {"app:1": "oci:one"})
    good(tmp_path, "lock")
    write_manifest(tmp_path, {"app:1": "docker-archive:both.tar"})
    assert good(tmp_path, "build", "--locked")["images"][0]["config"] == one.config_digest


def test_a_digest_of_the_manifest_is_asked_for_in_place_of_the_tag(tmp_path: Path, registry: Registry) -> None:
    files: dict[str, Any] = oci_files([OLD_ARM])
    digest = json.loads(files["index.json"])["manifests"][0]["digest"]
    push(registry.address, "pinned", files, {"gone": digest})
    settings = {"registries": {registry.address: {"tls-verify": False}}, **V6}
    write_manifest(tmp_path, [{"ref": "app:1", "from": f"docker://{registry.address}/pinned:no-such-tag", "digest": digest}], **settings)
    result = good(tmp_path, "build")
    assert result["images"][0]["references"] == ["docker.io/library/app:1", f"docker.io/library/app@{digest}"]
    good(tmp_path, "lock")
    assert lock_of(tmp_path).images[0].manifest_digests == (digest,)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("blob", "in the manifest that is locked, the lock says"),
        ("layer size", "bytes, the lock says"),
        ("config size", "bytes, the lock says"),
    ],
)
def test_a_lock_that_says_something_else_of_the_same_image_is_refused(tmp_path: Path, registry: Registry, key: str, said: str) -> None:
    asking(tmp_path, f"docker://{registry.address}/app:1", registry)
    good(tmp_path, "lock")
    (locked,) = lock_of(tmp_path).images
    layer = locked.layers[0]
    old, new = {
        "blob": (f"blob: {layer.blob}", f"blob: sha256:{'0' * 64}"),
        "layer size": (f"size: {layer.size_bytes}\n", f"size: {(layer.size_bytes or 0) + 1}\n"),
        "config size": (f"size: {locked.config_size_bytes}\n", f"size: {locked.config_size_bytes + 1}\n"),
    }[key]
    path = tmp_path / "shiplap.lock.yaml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    for words in (("build",), ("build", "--locked", "--cache", "new"), ("fetch", "--cache", "new")):
        assert said in refused(tmp_path, *words)
