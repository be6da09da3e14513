"""Stores that shiplap built, used by the real engine: seeded as a device does, run, saved, named by digest."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import socket
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import images
import pytest
from archives import ImageSpec, docker_archive, oci_layout
from commandline import shiplap_command
from engines import runnable
from engines.dockerd import Dockerd
from engines.installations import Installation
from engines.overlay2 import dump_overlay2, layer_metadata
from engines.privateroot import PrivateRoot
from engines.treerecords import Record, differences
from requirement import require

EPOCH = 765432101
SQUASHFS_TIME_MAX = 2**32 - 1
STORE = "/usr/share/shiplap/store"
STAMPS_NOW = 25  # from this version on `docker save` gives its members the time of the saving


@dataclass(frozen=True)
class Built:
    """Outputs of ``shiplap build`` for two images, and the same images as an archive for the engine to load."""

    out: Path
    archive: Path
    digest: str
    """Manifest digest under which the first image has a digest reference."""

    @property
    def mounts(self) -> list[tuple[Path, str]]:
        identity = json.loads((self.out / "store.json").read_text())
        return [(self.out / "store.squashfs", f"{identity['store-path']}/store")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The runnable image, and one that shares its layers and has every torture layer that the engine can save."""
    require("tar2sqfs")
    work = tmp_path_factory.mktemp("built")
    app = runnable.image("app:1")
    torture = ImageSpec(
        [*app.layers, *(case.layer for case in images.SAME if case.saves and not case.newer)],
        ["torture:1"],
        config={"config": {"Cmd": ["/bin/sh"]}},
    )
    layout = oci_layout(work / "layout", [app], compression="none")
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    archive = docker_archive(work / "both.tar", [app, torture], layout="save")
    done = shiplap_command(
        "build", f"app:1@{digest}=oci:{layout}", f"torture:1=docker-archive:{archive}:torture:1",
        "-o", str(work / "out"), "--output", "squashfs,verity,tar", "--source-date-epoch", str(EPOCH),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Built(work / "out", archive, digest)


@dataclass(frozen=True)
class Loaded:
    """What the engine made of the archive itself: trees and metadata by chainID, and what it saves."""

    major: int
    started_epoch: int
    trees: dict[str, list[Record]]
    metadata: dict[str, dict[str, str]]
    saved: dict[str, bytes]
    output: set[str]


@pytest.fixture(scope="module")
def loaded(built: Built, installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    root = installation.demand("docker")
    work = tmp_path_factory.mktemp("loaded")
    started_epoch = int(time.time()) - 1
    with Dockerd(work, base=root, binds=[built.out.parent]) as engine:
        major = int(engine.version.split(".")[0])
        engine.docker("load", "-i", built.archive)
        trees, metadata = dump_overlay2(engine.data_root), layer_metadata(engine.data_root)
        saved = {name: engine.docker("save", name).stdout for name in ("app:1", "torture:1")}
        output = set(engine.docker("run", "--rm", "--network", "none", "app:1").stdout.decode().splitlines())
    yield Loaded(major, started_epoch, trees, metadata, saved, output)
    shutil.rmtree(work)


@pytest.fixture(scope="module")
def sealed(built: Built, installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """The store image mounted, the skeleton copied to a fresh tmpfs, the engine started: a boot of the device."""
    root = installation.demand("docker")
    with Dockerd(tmp_path_factory.mktemp("sealed"), base=root, volatile=True, mounts=built.mounts, start=False) as engine:
        engine.seed(f"{STORE}/skeleton")
        engine.start()
        yield engine


def test_the_store_image_holds_what_the_engine_unpacks(built: Built, loaded: Loaded) -> None:
    """Through the kernel's own SquashFS, every path of every layer."""
    with PrivateRoot(built.out.parent / "look", mounts=built.mounts) as look:
        program = (
            f"import pickle, sys; sys.path[:0] = {sys.path!r}\n"
            "from pathlib import Path; from engines.treerecords import records_of_tree\n"
            f"layers = [one for one in Path({STORE!r}, 'layers').iterdir() if one.is_dir()]\n"
            "sys.stdout.buffer.write(pickle.dumps({f'sha256:{one.name}': records_of_tree(one) for one in layers}))"
        )
        ours: dict[str, list[Record]] = pickle.loads(look.run([sys.executable, "-c", program]).stdout)
    assert ours.keys() == loaded.trees.keys()
    found = {
        chain: wrong
        for chain in sorted(ours)
        if (wrong := differences(ours[chain], map(in_squashfs, loaded.trees[chain]), epoch=EPOCH, started_epoch=loaded.started_epoch))
    }
    assert found == {}


def in_squashfs(record: Record) -> Record:
    """SquashFS keeps whole seconds, 32 bits of them."""
    return replace(record, mtime=(min(record.mtime[0], SQUASHFS_TIME_MAX), 0))


def test_the_layer_database_is_the_engines(built: Built, loaded: Loaded, tmp_path: Path) -> None:
    with PrivateRoot(tmp_path, mounts=built.mounts) as look:
        look.run(["cp", "-a", f"{STORE}/skeleton/.", str(tmp_path / "data-root")])
        # The links into the store image lead nowhere outside; take what they mean.
        look.run(["cp", "-rL", str(tmp_path / "data-root/image"), str(tmp_path / "data-root/read")])
    (tmp_path / "data-root/image").rename(tmp_path / "data-root/links")
    (tmp_path / "data-root/read").rename(tmp_path / "data-root/image")
    ours = layer_metadata(tmp_path / "data-root")
    for facts in (*ours.values(), *loaded.metadata.values()):
        facts.pop("tar-split.json")  # compared by what it gives back: the tests on docker save
    assert ours == loaded.metadata


def test_the_engine_lists_the_images_of_the_store(sealed: Dockerd) -> None:
    listed = {(one["Repository"], one["Tag"]) for one in sealed.images() if one["Tag"] != "<none>"}
    assert listed == {("app", "1"), ("torture", "1")}


def test_a_container_runs_from_the_store(sealed: Dockerd, loaded: Loaded) -> None:
    said = set(sealed.docker("run", "--rm", "--network", "none", "app:1").stdout.decode().splitlines())
    assert runnable.expected_lines() <= said
    assert not runnable.hidden_lines() & said
    volatile = ("Cpus_", "Mems_", "voluntary", "nonvoluntary", "Vm", "Rss", "HugetlbPages", "Pid", "Tgid", "NSp", "NSt", "NSs")
    assert {line for line in said if not line.startswith(volatile)} == {line for line in loaded.output if not line.startswith(volatile)}


def test_a_container_runs_by_digest_offline(built: Built, sealed: Dockerd) -> None:
    done = sealed.docker("run", "--rm", "--network", "none", "--pull", "never", f"app@{built.digest}", "/bin/cat", "/data/keep")
    assert done.stdout == b"kept\n"


def test_a_container_writes_and_its_layer_can_be_committed(sealed: Dockerd) -> None:
    name = "writer"
    sealed.docker(
        "run", "--name", name, "--network", "none", "--user", "0", "app:1", "/bin/sh", "-c", "echo more >> /data/keep; echo x > /new"
    )
    try:
        sealed.docker("commit", name, "committed:1")
        done = sealed.docker("run", "--rm", "--network", "none", "committed:1", "/bin/cat", "/data/keep", "/new")
        assert done.stdout == b"kept\nmore\nx\n"
    finally:
        sealed.docker("rm", "--force", name)
        sealed.docker("rmi", "committed:1")
    assert sealed.docker("run", "--rm", "--network", "none", "app:1", "/bin/cat", "/data/keep").stdout == b"kept\n"


def test_the_store_image_stays_read_only(sealed: Dockerd) -> None:
    assert sealed.run_in_namespace(["touch", f"{STORE}/x"], check=False).returncode != 0


@pytest.mark.parametrize("name", ["app:1", "torture:1"])
def test_docker_save_gives_the_same_bytes_as_after_a_load(name: str, sealed: Dockerd, loaded: Loaded) -> None:
    saved = sealed.docker("save", name).stdout
    assert _differing_members(saved, loaded.saved[name]) == []
    if loaded.major < STAMPS_NOW and name == "app:1":  # in the other image layers repeat, and the engine's own output varies
        assert saved == loaded.saved[name]


def _differing_members(ours: bytes, theirs: bytes) -> list[str]:
    one, two = _members(ours), _members(theirs)
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def _members(saved: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        read = {one.name: archive.extractfile(one) for one in archive if one.isfile()}
        return {name: file.read() for name, file in read.items() if file is not None}


def test_layers_that_an_engine_could_not_save_after_a_load_are_saved_from_a_store(installation: Installation, tmp_path: Path) -> None:
    """The engine looks for content under names that are gone; the store's tar-split data brings it along."""
    root = installation.demand("docker")
    require("tar2sqfs")
    layers = [images.BASE, *(case.layer for case in images.SAME if not case.saves)]
    assert len(layers) > 1
    archive = docker_archive(tmp_path / "odd.tar", [ImageSpec(layers, ["odd:1"])])
    done = shiplap_command("build", f"docker-archive:{archive}", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    store = [(tmp_path / "out/store.squashfs", STORE)]
    with Dockerd(tmp_path, base=root, volatile=True, mounts=store, start=False) as engine:
        engine.seed(f"{STORE}/skeleton")
        engine.start()
        saved = _members(engine.docker("save", "odd:1").stdout)
        names = json.loads(saved["manifest.json"])[0]["Layers"]
        assert [saved[name] for name in names] == layers
        # The same image, loaded: if the engine learns to save it, `saves` in tests/images.py has no meaning any more.
        engine.docker("rmi", "odd:1")
        engine.docker("load", "-i", archive)
        assert engine.docker("save", "odd:1", check=False).returncode != 0


def test_a_newer_image_is_pulled_onto_the_layers_of_the_store(built: Built, sealed: Dockerd, tmp_path: Path) -> None:
    require("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "registry.yml").write_text(
        json.dumps({"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(tmp_path / "blobs")}}, "http": {"addr": address}})
    )
    with PrivateRoot(tmp_path) as root:
        root.spawn(["docker-registry", "serve", str(tmp_path / "registry.yml")], tmp_path / "registry.log")
        newer = docker_archive(tmp_path / "newer.tar", [runnable.image("app:2", extra=images.build([images.file("srv/more", b"more\n")]))])
        copy = [
            "skopeo",
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            f"docker-archive:{newer}",
            f"docker://{address}/app:2",
        ]
        deadline = time.monotonic() + 20
        while root.run(copy, check=False).returncode:
            assert time.monotonic() < deadline, (tmp_path / "registry.log").read_text()
            time.sleep(0.2)
        before = _layers_of_the_engine(sealed)
        sealed.docker("pull", f"{address}/app:2")
        try:
            assert len(_layers_of_the_engine(sealed) - before) == 1
            done = sealed.docker("run", "--rm", "--network", "none", f"{address}/app:2", "/bin/cat", "/srv/top", "/srv/more")
            assert done.stdout == b"top\nmore\n"
        finally:
            sealed.docker("rmi", f"{address}/app:2")


def _layers_of_the_engine(engine: Dockerd) -> set[bytes]:
    return set(engine.run_in_namespace(["ls", f"{engine.data_root}/image/overlay2/layerdb/sha256"]).stdout.split())


def test_a_restarted_engine_finds_everything_again(built: Built, installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("docker")
    with Dockerd(tmp_path, base=root, mounts=built.mounts, start=False) as engine:
        engine.seed(f"{STORE}/skeleton")
        engine.start()
        engine.docker("run", "--name", "kept", "--network", "none", "--user", "0", "app:1", "/bin/sh", "-c", "echo mine > /data/mine")
        engine.stop()
        engine.start()
        engine.docker("commit", "kept", "kept:1")
        assert engine.docker("run", "--rm", "--network", "none", "kept:1", "/bin/cat", "/data/mine", "/data/keep").stdout == b"mine\nkept\n"
    shutil.rmtree(engine.data_root)


def test_an_image_on_shared_layers_can_be_removed_alone(built: Built, installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("docker")
    with Dockerd(tmp_path, base=root, volatile=True, mounts=built.mounts, start=False) as engine:
        engine.seed(f"{STORE}/skeleton")
        engine.start()
        engine.docker("rmi", "torture:1")
        assert engine.docker("run", "--rm", "--network", "none", "app:1", "/bin/cat", "/srv/top").stdout == b"top\n"
        engine.docker("load", "-i", built.archive)  # and back again, upon the factory's layers
        assert engine.docker("run", "--rm", "--network", "none", "torture:1", "/bin/cat", "/srv/top").stdout == b"top\n"


def test_store_tar_unpacked_as_root_is_a_data_root(built: Built, loaded: Loaded, installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("docker")
    work = tmp_path
    with Dockerd(work, base=root, binds=[built.out], start=False) as engine:
        unpack = [
            "tar",
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "-xpf",
            str(built.out / "store.tar"),
            "-C",
            str(engine.data_root),
        ]
        engine.run_in_namespace(unpack)
        ours = dump_overlay2(engine.data_root)
        engine.start()
        said = set(engine.docker("run", "--rm", "--network", "none", "app:1").stdout.decode().splitlines())
        saved = engine.docker("save", "app:1").stdout
    shutil.rmtree(engine.data_root)
    assert runnable.expected_lines() <= said
    assert _differing_members(saved, loaded.saved["app:1"]) == []
    assert ours.keys() == loaded.trees.keys()
    wrong = {
        chain: differences(ours[chain], loaded.trees[chain], epoch=EPOCH, started_epoch=loaded.started_epoch) for chain in sorted(ours)
    }
    assert {chain: found for chain, found in wrong.items() if found} == {}
