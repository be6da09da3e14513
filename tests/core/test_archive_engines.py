"""images.tar against the programs that will read it: docker, podman, skopeo."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archiveimages import APP, EPOCH, NAMELESS, TOOL, fixed_images
from engines.dockerd import Dockerd
from engines.privateroot import PrivateRoot
from requirement import missing, require
from shiplap.core.archive import ARCHIVE_COMPRESSIONS, archive_name, write_images_tar
from shiplap.core.image import Image
from shiplap.core.limits import Limits

NAMES = {
    "docker.io/library/app:1": APP,
    "docker.io/library/app:latest": APP,
    "registry.example.org:5000/team/tool:v2.0": TOOL,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fixed images in every compression."""
    folder = tmp_path_factory.mktemp("archives")
    for compression in ARCHIVE_COMPRESSIONS:
        with (folder / archive_name(compression)).open("wb") as file:
            write_images_tar(fixed_images(), file.write, epoch=EPOCH, limits=Limits(), compression=compression)
    return folder


def need_root(tool: str) -> None:
    if os.geteuid() != 0:
        missing(tool, "only root can make a private root for it")


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    require("docker")
    need_root("docker")
    with Dockerd(tmp_path_factory.mktemp("dockerd"), volatile=True) as engine:
        yield engine


@pytest.fixture
def empty_docker(docker: Dockerd) -> Dockerd:
    listed = sorted({one["ID"] for one in docker.images()})
    if listed:
        docker.docker("rmi", "--force", *listed)
    return docker


Podman = Callable[..., str]


@pytest.fixture
def podman(tmp_path: Path, folder: Path) -> Iterator[Podman]:
    """podman with an empty storage of its own, in memory."""
    require("podman")
    need_root("podman")
    with PrivateRoot(tmp_path / "private", binds=[folder], tmpfs=["/var/lib/containers"]) as root:

        def run(*arguments: str | Path) -> str:
            return root.run(["podman", "--storage-driver", "overlay", "--events-backend", "none", *arguments]).stdout.decode()

        yield run


# 20.10 does not know zstd; 26.1 and 28.5 were tried and do.
@pytest.mark.parametrize("compression", ["none", "gzip", "xz"])
def test_docker_loads_every_image_under_its_own_config_digest(empty_docker: Dockerd, folder: Path, compression: str) -> None:
    docker = empty_docker
    docker.docker("load", "--input", str(folder / archive_name(compression)))
    listed = {(one["Repository"], one["Tag"], one["ID"]) for one in docker.images()}
    assert listed == {
        ("app", "1", APP.config_digest),
        ("app", "latest", APP.config_digest),
        ("registry.example.org:5000/team/tool", "v2.0", TOOL.config_digest),
        ("<none>", "<none>", NAMELESS.config_digest),
    }
    for one in (APP, TOOL, NAMELESS):
        layers = docker.docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", one.config_digest).stdout
        assert tuple(json.loads(layers)) == one.diff_ids


def test_what_docker_saves_again_has_the_same_config_and_layers(empty_docker: Dockerd, folder: Path) -> None:
    empty_docker.docker("load", "--input", str(folder / "images.tar"))
    saved = empty_docker.docker("save", "app:1").stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:

        def content(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        (item,) = json.loads(content("manifest.json"))
        assert content(item["Config"]) == APP.config
        assert [content(name) for name in item["Layers"]] == [b"".join(layer.blob.chunks()) for layer in APP.layers]


def newer_roots() -> list[Path]:
    """Roots of newer distributions (tests/engines/make_roots)."""
    folder = os.environ.get("SHIPLAP_ENGINE_ROOTS")
    return sorted(path.parent.parent.parent for path in Path(folder).glob("*/usr/sbin/dockerd")) if folder else []


@pytest.mark.parametrize("containerd_store", [False, True], ids=["overlay2", "containerd store"])
def test_newer_dockers_load_it_into_either_store(folder: Path, tmp_path: Path, containerd_store: bool) -> None:
    require("docker")
    need_root("engines-newer")
    roots = newer_roots()
    if not roots:
        missing("engines-newer", "SHIPLAP_ENGINE_ROOTS names no folder with roots")
    settings = tmp_path / "daemon.json"
    settings.write_text(json.dumps({"features": {"containerd-snapshotter": containerd_store}}))
    for number, root in enumerate(roots):
        work = tmp_path / str(number)
        with Dockerd(work, base=root, volatile=True, binds=[folder], options=["--config-file", str(settings)]) as docker:
            docker.docker("load", "--input", str(folder / "images.tar.zst"))
            for name, one in NAMES.items():
                layers = docker.docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", name).stdout
                assert tuple(json.loads(layers)) == one.diff_ids, docker.version
            # The containerd store's ID is the digest of a manifest that the engine makes up.
            assert (docker.image_id("app:1") == APP.config_digest) is not containerd_store


# Debian 12's podman 4.3.1 and skopeo 1.9.3 fail on every gzipped docker-archive, also on `docker save | gzip`.
@pytest.mark.parametrize("compression", ["none", "zstd", "xz"])
def test_podman_loads_every_image_under_its_own_config_digest(podman: Podman, folder: Path, compression: str) -> None:
    podman("load", "--quiet", "--input", folder / archive_name(compression))
    listed = podman("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    assert sorted(listed) == sorted(
        [*(f"{name} {one.config_digest}" for name, one in NAMES.items()), f"<none>:<none> {NAMELESS.config_digest}"]
    )
    for one in (APP, TOOL, NAMELESS):
        layers = json.loads(podman("image", "inspect", "--format", "{{json .RootFS.Layers}}", one.config_digest.removeprefix("sha256:")))
        assert tuple(layers) == one.diff_ids


def skopeo(*arguments: str | Path) -> bytes:
    return subprocess.run(["skopeo", *arguments], check=True, capture_output=True).stdout


@pytest.mark.parametrize("compression", ["none", "zstd", "xz"])
@pytest.mark.parametrize(
    ("reference", "image"),
    [*NAMES.items(), ("app:1", APP), ("app", APP), ("@0", min((APP, TOOL, NAMELESS), key=lambda one: one.config_digest))],
    ids=[*NAMES, "app:1", "app", "@0"],
)
def test_skopeo_finds_each_image_by_its_reference(folder: Path, reference: str, image: Image, compression: str) -> None:
    require("skopeo")
    source = f"docker-archive:{folder / archive_name(compression)}:{reference}"
    assert skopeo("inspect", "--raw", "--config", source) == image.config


# To `oci:` it would rewrite the config: another image, as with every conversion between Docker's and OCI's formats.
@pytest.mark.parametrize(("reference", "image"), [("app:1", APP), ("registry.example.org:5000/team/tool:v2.0", TOOL)], ids=["app", "tool"])
def test_skopeo_copies_an_image_out_with_its_layers(folder: Path, tmp_path: Path, reference: str, image: Image) -> None:
    require("skopeo")
    skopeo("--insecure-policy", "copy", "--quiet", f"docker-archive:{folder / 'images.tar'}:{reference}", f"dir:{tmp_path}")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["config"]["digest"] == image.config_digest
    assert [layer["digest"] for layer in manifest["layers"]] == list(image.diff_ids)
    assert (tmp_path / image.config_digest.removeprefix("sha256:")).read_bytes() == image.config
