"""vfs stores that shiplap built against dockerd itself: what `docker load` writes with this driver, and what it does with ours."""

from __future__ import annotations

import io
import json
import pickle
import shutil
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
from engines.dockerd import VOLATILE, Dockerd
from engines.installations import Installation
from engines.privateroot import PrivateRoot
from engines.treerecords import Record, differences, records_of_tree
from shiplap.core.entries import Kind
from shiplap.core.image import chain_ids

EPOCH = 765432101
SQUASHFS_TIME_MAX = 2**32 - 1
STORE = "/usr/share/shiplap/store"
OPTIONS = ("--storage-driver=vfs",)
LEFT_OUT = {
    "AUFS's own names are whiteouts like any other",  # a hard link into them is refused for vfs
    "a hard link to a whiteout",  # refused: nothing is there
    "an xattr that the file system does not know",  # Docker 26 refuses it
    "a symlink's time before 1970 becomes 0, as engines came to do",  # not with vfs, up to 26 at least
}
# Copied by the driver from layer to layer, as Docker's DirCopy does with nothing else.
COPIED = b"security.capability"


@dataclass(frozen=True)
class Built:
    """``shiplap build --driver vfs`` of the runnable image and of an image for each torture layer, and the same as an archive."""

    out: Path
    archive: Path
    digest: str
    chains: frozenset[str]

    @property
    def mounts(self) -> list[tuple[Path, str]]:
        return [(self.out / "store.squashfs", STORE)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    work = tmp_path_factory.mktemp("built")
    app = runnable.image("app:1")
    torture = [
        ImageSpec([images.BASE, case.layer], [f"torture:{number}"])
        for number, case in enumerate(images.SAME)
        if case.name not in LEFT_OUT and case.verdict(28, "accepted") == "accepted"
    ]
    layout = oci_layout(work / "layout", [app], compression="none")
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    archive = docker_archive(work / "images.tar", [app, *torture], layout="save")
    others = docker_archive(work / "torture.tar", torture, layout="save")
    done = shiplap_command(
        "build", "--driver", "vfs", f"app:1@{digest}=oci:{layout}", f"docker-archive:{others}",
        "-o", str(work / "out"), "--output", "squashfs,verity,tar", "--source-date-epoch", str(EPOCH),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    chains = frozenset(chain.partition(":")[2] for spec in (app, *torture) for chain in chain_ids(tuple(spec.diff_ids)))
    return Built(work / "out", archive, digest, chains)


@dataclass(frozen=True)
class Loaded:
    """What the engine made of the archive itself, by chainID."""

    major: int
    started_epoch: int
    trees: dict[str, list[Record]]
    metadata: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def loaded(built: Built, installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    base = installation.demand("docker")
    work = tmp_path_factory.mktemp("loaded")
    started_epoch = int(time.time()) - 1
    with Dockerd(work, base=base, binds=[built.out.parent], options=OPTIONS) as engine:
        major = int(engine.version.split(".")[0])
        engine.docker("load", "-i", built.archive, timeout=300)
        root = engine.data_root
        records = {one.name: one for one in (root / "image/vfs/layerdb/sha256").iterdir()}
        trees = {chain: records_of_tree(root / "vfs/dir" / (one / "cache-id").read_text()) for chain, one in records.items()}
        yield Loaded(major, started_epoch, trees, metadata(root))
    shutil.rmtree(work)


def metadata(root: Path) -> dict[str, dict[str, str]]:
    """chainID → the files of its record, but for what is random or compressed."""
    return {
        one.name: {file.name: file.read_text() for file in one.iterdir() if file.name not in ("cache-id", "tar-split.json.gz")}
        for one in (root / "image/vfs/layerdb/sha256").iterdir()
    }


@pytest.fixture(scope="module")
def device(built: Built, installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """The store's data-root as lower directory of an overlayfs: the device that somebody wants to boot this way."""
    base = installation.demand("docker")
    work = tmp_path_factory.mktemp("device")
    with Dockerd(work, base=base, volatile=True, mounts=built.mounts, start=False, options=OPTIONS) as engine:
        mount = f"lowerdir={STORE}/data-root,upperdir={VOLATILE}/upper,workdir={VOLATILE}/work"
        engine.run_in_namespace(
            [
                "sh",
                "-ec",
                f"mkdir {VOLATILE}/upper {VOLATILE}/work; chmod 710 {VOLATILE}/upper; mount -t overlay overlay -o {mount} {VOLATILE}",
            ]
        )
        engine.start()
        yield engine


def test_the_store_image_holds_what_the_engine_unpacks(built: Built, loaded: Loaded) -> None:
    """Through the kernel's own SquashFS, every path of every whole tree."""
    with PrivateRoot(built.out.parent / "look", mounts=built.mounts) as look:
        program = (
            f"import pickle, sys; sys.path[:0] = {sys.path!r}\n"
            "from pathlib import Path; from engines.treerecords import records_of_tree\n"
            f"layers = Path({STORE!r}, 'data-root/vfs/dir').iterdir()\n"
            "sys.stdout.buffer.write(pickle.dumps({one.name: records_of_tree(one) for one in layers}))"
        )
        ours: dict[str, list[Record]] = pickle.loads(look.run([sys.executable, "-c", program]).stdout)
    assert ours.keys() == loaded.trees.keys() == built.chains
    found = {}
    for layer in sorted(ours):
        mine, theirs = [compared(one) for one in ours[layer]], [compared(one) for one in loaded.trees[layer]]
        theirs = [as_later(one, mine, loaded) for one in theirs]
        wrong = differences(mine, theirs, epoch=EPOCH, started_epoch=loaded.started_epoch)
        if wrong:
            found[layer] = wrong
    assert found == {}, json.dumps(found, indent=1)


def compared(record: Record) -> Record:
    """What both keep: SquashFS whole seconds, 32 bits of them; the engine's copies no xattrs but capabilities."""
    kept = tuple(one for one in record.xattrs if one[0] == COPIED)
    return replace(record, mtime=(min(record.mtime[0], SQUASHFS_TIME_MAX), 0), xattrs=kept)


def as_later(record: Record, ours: list[Record], loaded: Loaded) -> Record:
    """Docker before 28 lets a layer change the root directory; 20.10 makes implied directories 0600, in their setgid parent's group."""
    same = next((one for one in ours if one.path == record.path), None)
    if same is None or record.kind is not Kind.DIRECTORY:
        return record
    if record.path == b"" and loaded.major < 28:
        return replace(record, mode=same.mode, uid=same.uid, gid=same.gid, mtime=same.mtime)
    implied = loaded.major == 20 and record.mtime[0] >= loaded.started_epoch and record.mode & 0o777 == 0o600
    return replace(record, mode=same.mode, gid=same.gid) if implied else record


def test_the_layer_database_is_the_engines(built: Built, loaded: Loaded, tmp_path: Path) -> None:
    with PrivateRoot(tmp_path, mounts=built.mounts) as look:
        look.run(["sh", "-ec", f"mkdir {tmp_path}/seen; cp -a {STORE}/data-root/image {tmp_path}/seen/"])
    assert metadata(tmp_path / "seen") == loaded.metadata


def test_a_container_runs_by_tag_and_by_digest(built: Built, device: Dockerd) -> None:
    said = set(device.docker("run", "--rm", "--network", "none", "app:1").stdout.decode().splitlines())
    assert runnable.expected_lines() <= said
    assert not runnable.hidden_lines() & said
    done = device.docker("run", "--rm", "--network", "none", "--pull", "never", f"app@{built.digest}", "/bin/cat", "/data/keep")
    assert done.stdout == b"kept\n"


def test_docker_save_gives_the_layers_back(device: Dockerd, built: Built, tmp_path: Path) -> None:
    for name in ("app:1", "torture:0"):
        with tarfile.open(fileobj=io.BytesIO(device.docker("save", name).stdout)) as archive:
            members = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}  # type: ignore[union-attr]
        layers = [members[one] for one in json.loads(members["manifest.json"])[0]["Layers"]]
        assert layers == (list(runnable.image().layers) if name == "app:1" else [images.BASE, images.SAME[0].layer])


def test_a_container_writes_and_the_store_stays(device: Dockerd) -> None:
    device.docker("run", "--name", "writer", "--network", "none", "--user", "0", "app:1", "/bin/sh", "-c", "echo more >> /data/keep")
    device.docker("commit", "writer", "more:1")
    assert device.docker("run", "--rm", "--network", "none", "more:1", "/bin/cat", "/data/keep").stdout == b"kept\nmore\n"
    device.docker("rm", "writer")
    device.docker("rmi", "more:1")
    assert device.docker("run", "--rm", "--network", "none", "app:1", "/bin/cat", "/data/keep").stdout == b"kept\n"


def test_store_tar_unpacked_as_root_is_a_data_root(built: Built, installation: Installation, tmp_path: Path) -> None:
    base = installation.demand("docker")
    with Dockerd(tmp_path, base=base, binds=[built.out], start=False, options=OPTIONS) as engine:
        tar = [
            "tar",
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "-xpf",
            str(built.out / "store.tar"),
            "-C",
            str(engine.data_root),
        ]
        engine.run_in_namespace(tar)
        engine.start()
        said = set(engine.docker("run", "--rm", "--network", "none", "app:1").stdout.decode().splitlines())
        assert runnable.expected_lines() <= said
    shutil.rmtree(engine.data_root)


def test_a_file_of_many_trees_is_in_the_store_once(built: Built) -> None:
    """Three trees hold the programs; the image is hardly larger than one of them packed, and the tar holds them once."""
    assert (built.out / "store.tar").stat().st_size < 8 << 20
