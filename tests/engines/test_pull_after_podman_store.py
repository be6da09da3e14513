"""A Podman store from a lock with manifest bytes: what `podman pull` itself writes, and what a later pull does not fetch again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from archives import DOCKER, OCI, ImageSpec, oci_files
from engines import runnable
from engines.installations import Installation
from engines.podmanstore import DevicePodman
from images import file
from layertar import build
from locks import good, write_manifest
from registryserver import Registry, push, running_registry
from shiplap.core.store.podman import layer_ids

STORE = "/usr/share/shiplap/store"
APP = runnable.image("app:1")
NEWER = ImageSpec([*APP.layers, build([file("update", b"new")])], config=APP.config)


@dataclass(frozen=True)
class Shipped:
    folder: Path
    registry: Registry
    digests: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.registry.address}/app"


@pytest.fixture(scope="module", params=["Docker's media types", "OCI's media types"])
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    folder = tmp_path_factory.mktemp("shipped")
    with running_registry(folder / "registry") as registry:
        digests = {}
        for tag, image in (("1", APP), ("2", NEWER)):
            files = oci_files([image], media=DOCKER if "Docker" in request.param else OCI)
            index = files["index.json"]
            assert isinstance(index, bytes)
            digests[tag] = json.loads(index)["manifests"][0]["digest"]
            push(registry.address, "app", files, {tag: digests[tag]})
        shipped = Shipped(folder, registry, digests)
        source = {f"{shipped.name}:1": f"docker://{shipped.name}:1"}
        write_manifest(folder, source, registries={registry.address: {"tls-verify": False}})
        good(folder, "lock", "--manifest-bytes")
        good(folder, "build", "--locked", "--engine", "podman", "--output", "squashfs,verity,tar")
        yield shipped


def records(root: Path) -> tuple[Any, Any]:
    layers = json.loads((root / "overlay-layers/layers.json").read_text())
    images = json.loads((root / "overlay-images/images.json").read_text())
    for layer in layers:
        del layer["created"]
    for image in images:
        image["metadata"] = "{}"
        image["names"] = image["names-history"] = sorted(name for name in image["names"] if "@" not in name)
        for key in ("big-data-names", "big-data-sizes", "big-data-digests"):
            kept = [name for name in image[key] if not name.startswith("signature-")]
            image[key] = {name: image[key][name] for name in kept} if isinstance(image[key], dict) else kept
    return sorted(layers, key=lambda one: str(one["id"])), images


def test_the_lists_are_those_of_podman_pull(shipped: Shipped, installation: Installation, tmp_path: Path) -> None:
    base = installation.demand("podman")
    root, ours = tmp_path / "storage", tmp_path / "ours"
    with DevicePodman(tmp_path, base=base, binds=[shipped.folder], graphroot=root) as engine:
        engine.podman("pull", "--quiet", "--tls-verify=false", f"{shipped.name}:1")
        ours.mkdir()
        tar = str(shipped.folder / "shiplap-out/store.tar")
        engine.root.run(["tar", "--numeric-owner", "-xpf", tar, "-C", str(ours), "overlay-layers", "overlay-images"])
    assert records(ours) == records(root)
    (home,) = (root / "overlay-images").glob("*/")
    for name in ("manifest", *(one.name for one in home.glob("=bWFu*"))):
        assert (ours / "overlay-images" / home.name / name).read_bytes() == (home / name).read_bytes()
    shutil.rmtree(root)
    good(shipped.folder, "verify", "shiplap-out")


def test_it_runs_by_the_registry_s_digest_and_a_pull_fetches_the_new_layer_only(
    shipped: Shipped, installation: Installation, tmp_path: Path
) -> None:
    base = installation.demand("podman")
    mounts = [(shipped.folder / "shiplap-out/store.squashfs", STORE)]
    with DevicePodman(tmp_path, base=base, mounts=mounts, stores=[STORE]) as engine:
        name = f"{shipped.name}@{shipped.digests['1']}"
        assert engine.run(name, "/bin/cat", "/data/keep").stdout == b"kept\n"
        shown = json.loads(engine.podman("image", "inspect", name).stdout)[0]
        assert shown["Digest"] == shipped.digests["1"] and name in shown["RepoDigests"]
        before = len(shipped.registry.requests())
        engine.podman("pull", "--quiet", "--tls-verify=false", f"{shipped.name}:2")
        fetched = [one for one in shipped.registry.requests()[before:] if one.startswith("GET") and "/blobs/" in one]
        assert len(fetched) == 2, fetched  # the config and the layer on top
        made = set(engine.root.run(["ls", f"{engine.graphroot}/overlay"]).stdout.decode().split())
        assert layer_ids(NEWER.diff_ids)[-1] in made and not made & set(layer_ids(APP.diff_ids))
        assert engine.run(f"{shipped.name}:2", "/bin/cat", "/update", "/srv/top").stdout == b"newtop\n"
