"""``lock --key`` and ``lock --policy``: only what is signed is pinned, and how it was signed is pinned with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, oci_files, oci_layout
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
