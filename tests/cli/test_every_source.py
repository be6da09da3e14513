"""One image, locked once and taken from everywhere: the same store wherever the config is the same.

Tools that convert between Docker's and OCI's formats write the config anew, and that is another image: then the build
is refused, and says which digests differ and why. ``-s`` prints the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import images
import pytest
from archives import DOCKER, OCI, ImageSpec, docker_archive, oci_archive, oci_files, oci_layout
from engines.dockerd import Dockerd
from engines.installations import installations
from engines.podman import Podman
from layertar import build
from locks import good, run, store_sums, write_manifest
from registryserver import push, running_registry, skopeo_copy
from requirement import require
from shiplap.core.lock.document import load_lock

# A base, torture layers that every engine takes, and a layer that deletes, with what a real config says.
TORTURE = [case.layer for case in images.SAME if case.saves and not case.newer][:12]
CHANGES = build(
    [images.directory("d", mode=0o1777), images.file("d/.wh.gone"), images.file("etc/app.conf", b"verbose\n", uid=7, mode=0o640)]
)
BASE = build([images.directory("bin"), images.file("bin/app", b"application" * 20_000, mode=0o755), images.file("d/gone")])
APP = ImageSpec(
    [BASE, *TORTURE, CHANGES],
    ["app:1"],
    config={"config": {"Cmd": ["/bin/app"], "Env": ["PATH=/bin"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"maker": "tests"}}},
)

KEPT, REWRITTEN = "same store", "config rewritten"
TABLE = {
    "docker:// Docker's format, gzip": KEPT,
    "docker:// OCI's format, gzip": KEPT,
    "docker:// OCI's format, zstd": KEPT,
    "docker:// OCI's format, uncompressed": KEPT,
    "docker-daemon: pulled, Docker's format": KEPT,
    "docker-daemon: pulled, OCI's format": KEPT,
    "docker-daemon: loaded": KEPT,
    "podman: pulled, Docker's format": KEPT,
    "podman: pulled, OCI's format": KEPT,
    "docker-archive: by docker save": KEPT,
    "docker-archive: by podman save, Docker's format": KEPT,
    "docker-archive: by podman save, OCI's format": KEPT,
    "docker-archive: by skopeo, Docker's format": KEPT,
    "docker-archive: by skopeo, OCI's format": KEPT,
    "docker-archive: gzip layers": KEPT,
    "docker-archive: zstd as a whole": KEPT,
    "oci: gzip": KEPT,
    "oci: zstd": KEPT,
    "oci: uncompressed": KEPT,
    "oci: by skopeo, OCI's format": KEPT,
    "oci: by skopeo, zstd": KEPT,
    "oci: by skopeo, Docker's format": REWRITTEN,
    "oci-archive: zstd": KEPT,
    "oci-archive: by skopeo, OCI's format": KEPT,
    "oci-archive: by podman save, Docker's format": KEPT,
}


@dataclass
class World:
    """Where the image is, by the table's words, and how the engines are reached."""

    folder: Path
    sources: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    registry: str = ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry, a dockerd and a podman service, all with the image, and every file that they and skopeo make of it."""
    require("registry", "skopeo", "docker", "podman")
    root = installations()[0].demand("docker")
    folder = tmp_path_factory.mktemp("world")
    made = World(folder)
    docker_socket, podman_socket = folder / "docker.sock", folder / "podman.sock"
    with (
        running_registry(folder / "registry") as registry,
        Dockerd(folder / "dockerd", base=root, volatile=True, options=["--host", f"unix://{docker_socket}"]) as docker,
        Podman(folder / "podman", base=root) as podman,
        podman.service(podman_socket),
    ):
        made.registry = registry.address
        made.variables = {"DOCKER_HOST": f"unix://{docker_socket}", "CONTAINER_HOST": f"unix://{podman_socket}"}
        _registry(made)
        _docker(made, docker)
        _podman(made, podman)
        _skopeo(made)
        _files(made)
        yield made


def _registry(world: World) -> None:
    for name, compression, media in (("docker", "gzip", DOCKER), ("oci", "gzip", OCI), ("zstd", "zstd", OCI), ("plain", "none", OCI)):
        files = oci_files([APP], compression=compression, media=media)
        index = files["index.json"]
        assert isinstance(index, bytes)
        push(world.registry, f"{name}/app", files, {"1": json.loads(index)["manifests"][0]["digest"]})
    world.sources |= {
        "docker:// Docker's format, gzip": f"docker://{world.registry}/docker/app:1",
        "docker:// OCI's format, gzip": f"docker://{world.registry}/oci/app:1",
        "docker:// OCI's format, zstd": f"docker://{world.registry}/zstd/app:1",
        "docker:// OCI's format, uncompressed": f"docker://{world.registry}/plain/app:1",
    }


def _docker(world: World, engine: Dockerd) -> None:
    for name, words in (("docker", "Docker's"), ("oci", "OCI's")):
        engine.docker("pull", "--quiet", f"{world.registry}/{name}/app:1")
        world.sources[f"docker-daemon: pulled, {words} format"] = f"docker-daemon:{world.registry}/{name}/app:1"
    engine.docker("load", "--input", docker_archive(world.folder / "load.tar", [APP]))
    engine.docker("save", "--output", world.folder / "docker-save.tar", "app:1")
    world.sources |= {
        "docker-daemon: loaded": "docker-daemon:app:1",
        "docker-archive: by docker save": f"docker-archive:{world.folder}/docker-save.tar",
    }


def _podman(world: World, engine: Podman) -> None:
    for name, words in (("docker", "Docker's"), ("oci", "OCI's")):
        image = f"{world.registry}/{name}/app:1"
        engine.podman("pull", "--quiet", "--tls-verify=false", image)
        engine.podman("save", "--quiet", "--format", "docker-archive", "--output", world.folder / f"podman-{name}.tar", image)
        world.sources |= {
            f"podman: pulled, {words} format": f"podman:{image}",
            f"docker-archive: by podman save, {words} format": f"docker-archive:{world.folder}/podman-{name}.tar",
        }
    image = f"{world.registry}/docker/app:1"
    engine.podman("save", "--quiet", "--format", "oci-archive", "--output", world.folder / "podman-oci-archive.tar", image)
    world.sources["oci-archive: by podman save, Docker's format"] = f"oci-archive:{world.folder}/podman-oci-archive.tar"


def _skopeo(world: World) -> None:
    docker, oci = (f"docker://{world.registry}/{name}/app:1" for name in ("docker", "oci"))
    for row, source, target, options in (
        ("docker-archive: by skopeo, Docker's format", docker, "docker-archive:{}/skopeo-docker.tar", ()),
        ("docker-archive: by skopeo, OCI's format", oci, "docker-archive:{}/skopeo-oci.tar", ()),
        ("oci: by skopeo, OCI's format", oci, "oci:{}/skopeo-oci", ()),
        ("oci: by skopeo, zstd", oci, "oci:{}/skopeo-zstd", ("--dest-compress", "--dest-compress-format=zstd")),
        ("oci: by skopeo, Docker's format", docker, "oci:{}/skopeo-docker", ()),
        ("oci-archive: by skopeo, OCI's format", oci, "oci-archive:{}/skopeo-oci-archive.tar", ()),
    ):
        skopeo_copy(source, target.format(world.folder), *options)
        world.sources[row] = target.format(world.folder)


def _files(world: World) -> None:
    folder = world.folder
    docker_archive(folder / "gzip.tar", [APP], compression="gzip")
    docker_archive(folder / "whole.tar.zst", [APP], whole="zstd")
    for how in ("gzip", "zstd", "none"):
        oci_layout(folder / f"oci-{how}", [APP], compression=how)
    oci_archive(folder / "oci.tar", [APP], compression="zstd")
    world.sources |= {
        "docker-archive: gzip layers": f"docker-archive:{folder}/gzip.tar",
        "docker-archive: zstd as a whole": f"docker-archive:{folder}/whole.tar.zst",
        "oci: gzip": f"oci:{folder}/oci-gzip",
        "oci: zstd": f"oci:{folder}/oci-zstd",
        "oci: uncompressed": f"oci:{folder}/oci-none",
        "oci-archive: zstd": f"oci-archive:{folder}/oci.tar",
    }


@pytest.fixture(scope="module")
def locked(world: World) -> dict[str, str]:
    """The lock, made of the registry's image in Docker's format; sums of the store that it gives."""
    _take(world, "docker:// Docker's format, gzip")
    good(world.folder, "lock")
    return store_sums(good(world.folder, "build", "--locked", "--cache", "first", "-o", "first-out"))


def _take(world: World, row: str) -> None:
    write_manifest(world.folder, {"app:1": world.sources[row]}, registries={world.registry: {"tls-verify": False}})


@pytest.mark.parametrize("row", ["docker-daemon: loaded", "podman: pulled, Docker's format"])
def test_of_an_engine_s_image_config_and_diffids_are_pinned_and_the_rest_is_unknown(world: World, row: str) -> None:
    _take(world, row)
    (note,) = good(world.folder, "lock", "--lock", "engine.lock", "--update", env=world.variables)["notes"]
    assert f"{world.sources[row]} keeps no manifest" in note and "the manifest digest is unknown" in note
    (image,) = load_lock(world.folder / "engine.lock").images
    assert (image.manifest, image.index, image.config, list(image.diff_ids)) == (None, None, APP.config_digest, APP.diff_ids)
    good(world.folder, "fetch", "--lock", "engine.lock", "--cache", f"of {row[:6]}", env=world.variables)
    # The engine is gone, and so is the registry: what was fetched is enough, and any other place is as good.
    sealed = store_sums(good(world.folder, "build", "--lock", "engine.lock", "--cache", f"of {row[:6]}", "--offline"))
    _take(world, "oci: zstd")
    assert store_sums(good(world.folder, "build", "--locked", "--lock", "engine.lock", "--cache", "none")) == sealed


def test_the_table_is_whole(world: World) -> None:
    assert set(TABLE) == set(world.sources)


@pytest.mark.parametrize("row", TABLE)
def test_a_source(world: World, locked: dict[str, str], row: str) -> None:
    _take(world, row)
    cache = f"cache of {row}".replace("/", " ")
    result = run(world.folder, "build", "--locked", "--cache", cache, "-o", f"out of {row}".replace("/", " "), env=world.variables)
    outcome = KEPT if result["exit"] == 0 else REWRITTEN
    print(f"\n{row:48} {outcome:17} {locked['store.squashfs'] if result['exit'] == 0 else result['error']['message']}")
    assert outcome == TABLE[row], result
    if outcome == KEPT:
        assert store_sums(result) == locked
        return
    message = result["error"]["message"]
    assert "not the image that is locked for docker.io/library/app:1" in message
    assert f"expected is {APP.config_digest}" in message and f"all {len(APP.layers)} layers are the same (same diffIDs)" in message
    assert "the tool that did it wrote the config anew" in message
    assert "take it from where it was locked" in result["error"]["hint"]
