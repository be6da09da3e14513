"""``lock --key`` and ``lock --policy``: only what is signed is pinned, and how it was signed is pinned with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, IndexSpec, oci_files, oci_layout
from images import file
from layertar import build
from locks import good, lock_of, refused, write_manifest
from registryserver import Registry, push, running_registry
from requirement import require
from shiplap.core.lock.signature import load_key
from signing import attach, make_key, sign, statement

APP = ImageSpec([build([file("app")])], tags=["app:1"])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_key(folder, "key")
    make_key(folder, "stranger")
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[Registry]:
    """``app`` is signed under a name of elsewhere, ``plain`` is not signed."""
    with running_registry(tmp_path_factory.mktemp("registry")) as one:
        files: dict[str, Any] = oci_files([APP])
        digest = str(json.loads(files["index.json"])["manifests"][0]["digest"])
        for name in ("app", "plain"):
            push(one.address, name, files, {"1": digest})
        payload = statement(digest, "registry.example/acme/app")
        attach(one.address, "app", digest, (payload, sign(keys / "key.key", payload)))
        yield one


def asking(folder: Path, registry: Registry, name: str) -> None:
    write_manifest(folder, {"app:1": f"docker://{registry.address}/{name}:1"}, registries={registry.address: {"tls-verify": False}})


def test_the_answer_is_pinned_and_builds_need_no_key(tmp_path: Path, registry: Registry, keys: Path) -> None:
    asking(tmp_path, registry, "app")
    good(tmp_path, "lock", "--key", str(keys / "key.pub"))
    (image,) = lock_of(tmp_path).images
    assert image.manifest is not None and image.signature is not None
    assert dict(image.signature) == {
        "kind": "sigstore-key",
        "key": load_key(keys / "key.pub").fingerprint,
        "digest": image.manifest.digest,
        "identity": "registry.example/acme/app",
    }
    good(tmp_path, "fetch")
    good(tmp_path, "build", "--locked", "--offline")
    assert good(tmp_path, "lock", "--key", str(keys / "key.pub"))["changed"] is False


@pytest.mark.parametrize(
    ("name", "key", "options", "said"),
    [
        ("plain", "key", (), "is not signed: its repository has no sha256-"),
        ("app", "stranger", (), "was not made with this key"),
        ("app", "key", ("--signed-name",), "calls it registry.example/acme/app, not 127.0.0.1"),
    ],
)
def test_what_is_not_signed_is_not_pinned(
    tmp_path: Path, registry: Registry, keys: Path, name: str, key: str, options: tuple[str, ...], said: str
) -> None:
    asking(tmp_path, registry, name)
    assert said in refused(tmp_path, "lock", "--key", str(keys / f"{key}.pub"), *options)
    assert not (tmp_path / "shiplap.lock.yaml").exists()


def test_a_signed_index_says_nothing_of_a_manifest_that_only_the_lock_puts_beside_it(
    tmp_path: Path, registry: Registry, keys: Path
) -> None:
    arm = ImageSpec([build([file("arm")])], platform="linux/arm64")
    files: dict[str, Any] = oci_files([IndexSpec([APP, arm], ["app:1"])])
    index = str(json.loads(files["index.json"])["manifests"][0]["digest"])
    evil: dict[str, Any] = oci_files([ImageSpec([build([file("evil")])])])
    push(registry.address, "both", files, {"1": index})
    push(registry.address, "both", evil, {"evil": json.loads(evil["index.json"])["manifests"][0]["digest"]})
    payload = statement(index, "registry.example/acme/app")
    attach(registry.address, "both", index, (payload, sign(keys / "key.key", payload)))
    settings = {"registries": {registry.address: {"tls-verify": False}}, "platform": "linux/amd64"}
    at, key = f"docker://{registry.address}/both", ("--key", str(keys / "key.pub"))
    write_manifest(tmp_path, {"app:1": f"{at}:1"}, **settings)
    good(tmp_path, "lock", *key)
    assert dict(lock_of(tmp_path).images[0].signature or ())["digest"] == index
    assert good(tmp_path, "lock", *key)["changed"] is False, "what is pinned is proven again"
    write_manifest(tmp_path, {"app:1": f"{at}:evil"}, **settings)
    lock = tmp_path / "shiplap.lock.yaml"
    lock.unlink()
    good(tmp_path, "lock")
    text = lock.read_text()
    assert "index:" not in text
    lock.write_text(text.replace("    manifest:\n", f"    index: {index}\n    manifest:\n"))
    assert f"the index {index} in the lock leads to" in refused(tmp_path, "lock", *key)


def test_a_manifest_that_is_gone_is_not_signed_for_what_took_its_place(tmp_path: Path, registry: Registry, keys: Path) -> None:
    asking(tmp_path, registry, "app")
    good(tmp_path, "lock", "--key", str(keys / "key.pub"))
    (image,) = lock_of(tmp_path).images
    assert image.manifest is not None
    again: dict[str, Any] = oci_files([APP], compression="zstd")  # the same content in another manifest
    push(registry.address, "moved", again, {"1": json.loads(again["index.json"])["manifests"][0]["digest"]})
    payload = statement(image.manifest.digest, "registry.example/acme/app")
    attach(registry.address, "moved", image.manifest.digest, (payload, sign(keys / "key.key", payload)))
    asking(tmp_path, registry, "moved")
    good(tmp_path, "build", "--locked", "--cache", "new")
    assert "its signature says nothing" in refused(tmp_path, "lock", "--key", str(keys / "key.pub"), "--cache", "newer")


def test_a_policy_is_asked_and_pinned(tmp_path: Path, registry: Registry) -> None:
    require("skopeo")
    asking(tmp_path, registry, "plain")
    (tmp_path / "no.json").write_text(json.dumps({"default": [{"type": "reject"}]}))
    (tmp_path / "yes.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    assert "is not signed as no.json demands" in refused(tmp_path, "lock", "--policy", "no.json")
    assert not (tmp_path / "shiplap.lock.yaml").exists()
    good(tmp_path, "lock", "--policy", "yes.json")
    assert dict(lock_of(tmp_path).images[0].signature or ())["kind"] == "policy"


def test_an_archive_has_no_signature(tmp_path: Path, keys: Path) -> None:
    write_manifest(tmp_path, {"app:1": "oci:layout"})
    oci_layout(tmp_path / "layout", [APP])
    assert "has no signature to check" in refused(tmp_path, "lock", "--key", str(keys / "key.pub"))


def both(folder: Path, registry: Registry, signed: str = "app") -> None:
    oci_layout(folder / "layout", [replace(APP, tags=["local:1"])])
    images = {"app:1": f"docker://{registry.address}/{signed}:1", "local:1": "oci:layout"}
    write_manifest(folder, images, registries={registry.address: {"tls-verify": False}})


def signatures(folder: Path) -> dict[str, bool]:
    return {image.ref.familiar: image.signature is not None for image in lock_of(folder).images}


def test_what_can_have_no_signature_is_pinned_without_one_when_that_is_allowed(tmp_path: Path, registry: Registry, keys: Path) -> None:
    key = ("--key", str(keys / "key.pub"))
    both(tmp_path, registry)
    assert "--allow-unsigned local:1" in refused(tmp_path, "lock", *key)
    good(tmp_path, "lock", *key, "--allow-unsigned", "local:1")
    assert signatures(tmp_path) == {"app:1": True, "local:1": False}
    assert "has no such image" in refused(tmp_path, "lock", *key, "--allow-unsigned", "other:1")
    assert "only with --key or --policy" in refused(tmp_path, "lock", "--allow-unsigned", "local:1")


def test_the_allowance_is_not_for_what_a_registry_has(tmp_path: Path, registry: Registry, keys: Path) -> None:
    both(tmp_path, registry, signed="plain")
    allowed = ("--allow-unsigned", "app:1", "--allow-unsigned", "local:1")
    assert "is not signed" in refused(tmp_path, "lock", "--key", str(keys / "key.pub"), *allowed)


def test_an_update_of_one_image_asks_for_its_signature_only(tmp_path: Path, registry: Registry, keys: Path) -> None:
    both(tmp_path, registry)
    key = ("--key", str(keys / "key.pub"))
    assert "--allow-unsigned local:1" in refused(tmp_path, "lock", *key, "--update", "app:1"), "what is new is checked too"
    good(tmp_path, "lock")
    assert signatures(tmp_path) == {"app:1": False, "local:1": False}
    good(tmp_path, "lock", *key, "--update", "app:1")
    assert signatures(tmp_path) == {"app:1": True, "local:1": False}
    assert "--allow-unsigned local:1" in refused(tmp_path, "lock", *key, "--update")
