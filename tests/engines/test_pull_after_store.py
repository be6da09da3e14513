"""Delta updates: what the store has from the lock, a pull on the device does not fetch again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import DOCKER, ImageSpec, oci_files
from engines import runnable
from engines.dockerd import Dockerd
from engines.installations import Installation
from images import file
from layertar import build
from locks import good, lock_of, write_manifest
from registryserver import Registry, push, running_registry

STORE = "/usr/share/shiplap/store"
DISTRIBUTION = "image/overlay2/distribution"


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A store from a lock, and the registry that it was locked from. The registry's ``:2`` is a layer more than ``:1``."""

    folder: Path
    registry: Registry

    @property
    def name(self) -> str:
        return f"{self.registry.address}/app"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    folder = tmp_path_factory.mktemp("shipped")
    with running_registry(folder / "registry") as registry:
        app = runnable.image("app:1")
        newer = ImageSpec([*app.layers, build([file("update", b"new")])], config=app.config)
        for tag, image in (("1", app), ("2", newer)):
            files = oci_files([image], media=DOCKER)
            index = files["index.json"]
            assert isinstance(index, bytes)
            push(registry.address, "app", files, {tag: json.loads(index)["manifests"][0]["digest"]})
        shipped = Shipped(folder, registry)
        source = {f"{shipped.name}:1": f"docker://{shipped.name}:1"}
        write_manifest(folder, source, registries={registry.address: {"tls-verify": False}})
        good(folder, "lock")
        good(folder, "build", "--locked")
        yield shipped


@pytest.fixture(scope="module")
def device(shipped: Shipped, installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    mounts = [(shipped.folder / "shiplap-out/store.squashfs", STORE)]
    root = installation.demand("docker")
    with Dockerd(tmp_path_factory.mktemp("device"), base=root, volatile=True, mounts=mounts, start=False) as engine:
        engine.seed(f"{STORE}/skeleton")
        engine.start()
        yield engine


def distribution(engine: Dockerd) -> dict[str, tuple[str, str]]:
    """Mode and content of everything that the map consists of."""
    program = f"cd {engine.data_root}/{DISTRIBUTION} && find . -path ./v2metadata-by-diffid -prune -o -printf '%P %m %U:%G %y\\n'"
    found: dict[str, tuple[str, str]] = {}
    for line in engine.run_in_namespace(["sh", "-c", program]).stdout.decode().splitlines():
        path, what = line.split(" ", 1)
        content = engine.run_in_namespace(["cat", f"{engine.data_root}/{DISTRIBUTION}/{path}"]).stdout if what.endswith("f") else b""
        found[path] = (what, content.decode())
    return found


def test_the_map_is_the_one_that_the_engine_writes(shipped: Shipped, device: Dockerd, installation: Installation, tmp_path: Path) -> None:
    """Compared before anything is pulled on the device: an engine that pulled the same image by itself."""
    ours = distribution(device)
    with Dockerd(tmp_path / "other", base=installation.demand("docker"), volatile=True) as engine:
        engine.docker("pull", "--quiet", f"{shipped.name}:1")
        theirs = distribution(engine)
    assert len([one for one in ours.values() if one[1]]) == len(set(lock_of(shipped.folder).images[0].layers))
    assert ours == theirs


def test_the_same_image_is_there_already(shipped: Shipped, device: Dockerd) -> None:
    (locked,) = lock_of(shipped.folder).images
    asked = len(shipped.registry.requests())
    said = device.docker("pull", f"{shipped.name}:1").stdout.decode()
    assert "Image is up to date" in said
    assert not [one for one in shipped.registry.requests()[asked:] if "/blobs/" in one], "not even the config was fetched"
    assert device.image_id(f"{shipped.name}@{locked.manifest_digests[0]}") == locked.config


def test_of_an_update_only_the_new_layer_is_fetched(shipped: Shipped, device: Dockerd) -> None:
    (locked,) = lock_of(shipped.folder).images
    asked = len(shipped.registry.requests())
    said = device.docker("pull", f"{shipped.name}:2").stdout.decode()
    assert said.count("Already exists") == len(locked.layers) and said.count("Pull complete") == 1
    blobs = [one for one in shipped.registry.requests()[asked:] if "/blobs/" in one and one.startswith("GET")]
    assert len(blobs) == 2, "a config and a layer"
    assert not [one for one in blobs if any(str(layer.blob) in one for layer in locked.layers)]
    assert device.docker("run", "--rm", "--network", "none", f"{shipped.name}:2", "/bin/cat", "/update").stdout == b"new"
