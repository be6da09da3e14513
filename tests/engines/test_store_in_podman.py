"""Podman stores that shiplap built against Podman itself: what `podman load` writes, and what it does with ours."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import re
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import images
import pytest
from archives import ImageSpec, docker_archive, oci_layout
from commandline import shiplap_command
from engines import runnable
from engines.installations import Installation
from engines.podman import RUN_OPTIONS
from engines.podmanstore import DevicePodman
from engines.privateroot import PrivateRoot
from engines.treerecords import Record, differences, records_of_tree
from shiplap.core.store.podman import layer_ids, layers_mountable

EPOCH = 765432101
SQUASHFS_TIME_MAX = 2**32 - 1
STORE = "/usr/share/shiplap/store"
LAYERS_OF_AN_IMAGE = 55
# Refused by containers/storage, and so by shiplap (test_podman_layer_rules.py).
REFUSED = {"user xattrs where the kernel takes none", "xattrs on a symlink"}
# Kept to what Docker and every SquashFS can say: Podman keeps negative times of symlinks, Podman 5 writes empty xattrs.
OURS = {"a symlink's time before 1970 becomes 0, as engines came to do", "an xattr with an empty value"}


# Every directory has an entry: nothing for `podman system check` to stumble over.
PLAIN = ImageSpec(
    [
        images.build([images.directory("etc"), images.file("etc/a", b"a" * 5000, uid=7), images.directory("tmp", mode=0o1777)]),
        images.build([images.directory("etc"), images.file("etc/.wh.a"), images.symlink("etc/b", "c"), images.hardlink("etc/d", "etc/b")]),
    ],
    ["localhost/plain:1"],
)


@dataclass(frozen=True)
class Built:
    """``shiplap build --engine podman`` of the runnable image and of torture layers, and the same images as an archive."""

    out: Path
    archive: Path
    digest: str
    """A digest under which the runnable image is asked for, of a manifest that is not in the store."""
    specs: dict[str, ImageSpec]

    @property
    def mounts(self) -> list[tuple[Path, str]]:
        return [(self.out / "store.squashfs", STORE)]

    @property
    def layers(self) -> dict[str, bytes]:
        """Layer id → tar."""
        return {one: layer for spec in self.specs.values() for one, layer in zip(layer_ids(spec.diff_ids), spec.layers, strict=True)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    work = tmp_path_factory.mktemp("built")
    app = runnable.image("localhost/app:1")
    specs = {"localhost/app:1": app, "localhost/plain:1": PLAIN}
    cases = [case for case in images.SAME if case.name not in REFUSED | OURS]
    for start in range(0, len(cases), LAYERS_OF_AN_IMAGE):
        some = [case.layer for case in cases[start : start + LAYERS_OF_AN_IMAGE]]
        name = f"localhost/torture:{start}"
        specs[name] = ImageSpec([*app.layers, images.BASE, *some], [name], config={"config": {"Cmd": ["/bin/sh"]}})
    layout = oci_layout(work / "layout", [replace(app, tags=["app"])], compression="none")
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    archive = docker_archive(work / "images.tar", list(specs.values()), layout="save")
    done = shiplap_command(
        "build", "--engine", "podman", f"localhost/app:1@{digest}=oci:{layout}",
        *(f"{name}=docker-archive:{archive}:{name}" for name in specs if name != "localhost/app:1"),
        "-o", str(work / "out"), "--output", "squashfs,verity,tar", "--source-date-epoch", str(EPOCH),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Built(work / "out", archive, digest, specs)


@dataclass(frozen=True)
class Loaded:
    """What the engine made of the archive itself."""

    major: int
    started_epoch: int
    trees: dict[str, list[Record]]
    layers: list[dict[str, Any]]
    images: list[dict[str, Any]]
    big_data: dict[str, bytes]
    tar_splits: dict[str, bytes]
    complaints: set[str]
    modes: dict[str, int]


@pytest.fixture(scope="module")
def loaded(built: Built, installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    base = installation.demand("podman")
    work = tmp_path_factory.mktemp("loaded")
    started_epoch = int(time.time()) - 1
    root = work / "storage"
    with DevicePodman(work, base=base, binds=[built.archive.parent], graphroot=root) as engine:
        engine.podman("load", "--quiet", "--input", built.archive, timeout=300)
        version = engine.version
        yield Loaded(
            int(version.split(".")[0]),
            started_epoch,
            {one: records_of_tree(root / "overlay" / one / "diff") for one in built.layers},
            json.loads((root / "overlay-layers/layers.json").read_text()),
            json.loads((root / "overlay-images/images.json").read_text()),
            {str(path.relative_to(root)): path.read_bytes() for path in sorted((root / "overlay-images").glob("*/*"))},
            {path.name: path.read_bytes() for path in sorted((root / "overlay-layers").glob("*.gz"))},
            complaints(engine),
            {str(path.relative_to(root)): path.lstat().st_mode for path in outside_layers(root)},
        )
    shutil.rmtree(root)


def complaints(engine: DevicePodman) -> set[str]:
    """What `podman system check` says; its check knows no implied directories and calls each one modified. Podman 4 has no such verb."""
    if engine.version.startswith("4."):
        return set()
    said = engine.podman("system", "check", check=False, timeout=300)
    lines = (said.stdout + said.stderr).decode(errors="replace").splitlines()
    return {re.sub(r",?mtime:[^,)]*", "", line).strip() for line in lines if line.strip()}


def outside_layers(root: Path) -> Iterator[Path]:
    yield root
    for pattern in ("overlay*", "overlay/*", "overlay/*/*", "overlay-layers/*", "overlay-images/*", "overlay-images/*/*"):
        yield from sorted(root.glob(pattern))


@pytest.fixture(scope="module")
def device(built: Built, installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevicePodman]:
    """The store image mounted and named in storage.conf: a boot of the device."""
    base = installation.demand("podman")
    work = tmp_path_factory.mktemp("device")
    with DevicePodman(work, base=base, binds=[built.archive.parent], mounts=built.mounts, stores=[STORE]) as engine:
        yield engine


def metadata_of_ours(built: Built) -> dict[str, bytes]:
    with tarfile.open(built.out / "store.tar") as archive:
        return {
            one.name.removeprefix("./"): archive.extractfile(one).read()  # type: ignore[union-attr]
            for one in archive
            if one.isfile() and "/diff/" not in one.name
        }


def test_the_store_image_holds_what_the_engine_unpacks(built: Built, loaded: Loaded) -> None:
    """Through the kernel's own SquashFS, every path of every layer, roots included."""
    with PrivateRoot(built.out.parent / "look", mounts=built.mounts) as look:
        program = (
            f"import pickle, sys; sys.path[:0] = {sys.path!r}\n"
            "from pathlib import Path; from engines.treerecords import records_of_tree\n"
            f"layers = [one for one in Path({STORE!r}, 'overlay').iterdir() if one.name != 'l']\n"
            "sys.stdout.buffer.write(pickle.dumps({one.name: records_of_tree(one / 'diff') for one in layers}))"
        )
        ours: dict[str, list[Record]] = pickle.loads(look.run([sys.executable, "-c", program]).stdout)
    assert ours.keys() == loaded.trees.keys()
    if loaded.major == 4:  # it does not hand the root directory's owner up; Podman 5 does
        ours = {layer: [replace(one, uid=0, gid=0) if one.path == b"" else one for one in tree] for layer, tree in ours.items()}
        loaded.trees.update(
            {layer: [replace(one, uid=0, gid=0) if one.path == b"" else one for one in tree] for layer, tree in loaded.trees.items()}
        )
    found = {
        layer: wrong
        for layer in sorted(ours)
        if (wrong := differences(ours[layer], map(in_squashfs, loaded.trees[layer]), epoch=EPOCH, started_epoch=loaded.started_epoch))
    }
    assert found == {}


def in_squashfs(record: Record) -> Record:
    """SquashFS keeps whole seconds, 32 bits of them."""
    return replace(record, mtime=(min(record.mtime[0], SQUASHFS_TIME_MAX), 0))


def test_layers_json_is_the_engines_but_for_the_time(built: Built, loaded: Loaded) -> None:
    ours = json.loads(metadata_of_ours(built)["overlay-layers/layers.json"])
    assert {one.pop("created") for one in ours} == {"1994-04-04T04:01:41Z"}
    theirs = [{key: value for key, value in one.items() if key != "created"} for one in loaded.layers]
    assert sorted(ours, key=by_id) == sorted(theirs, key=by_id)
    # A layer comes after its parent, and the keys have the engine's order.
    seen: set[str] = set()
    for one in ours:
        assert one.get("parent") is None or one["parent"] in seen
        seen.add(one["id"])
    assert [list(one) for one in sorted(ours, key=by_id)] == [list(one) for one in sorted(theirs, key=by_id)]


def by_id(record: dict[str, Any]) -> str:
    return str(record["id"])


def test_images_json_and_the_manifests_are_the_engines(built: Built, loaded: Loaded) -> None:
    """Podman 4 also notes that there are no signatures."""
    metadata = metadata_of_ours(built)
    ours, theirs = json.loads(metadata["overlay-images/images.json"]), loaded.images
    for one in theirs:
        one["metadata"] = "{}"
        for key in ("big-data-names", "big-data-sizes", "big-data-digests"):
            kept = [name for name in one[key] if not name.startswith("signature-")]
            one[key] = {name: one[key][name] for name in kept} if isinstance(one[key], dict) else kept
    named = {name for one in ours for name in one["names"]}
    assert named == {*built.specs, f"localhost/app@{built.digest}"}
    for one in (*ours, *theirs):
        one["names"] = one["names-history"] = sorted(name for name in one["names"] if "@" not in name)
    assert sorted(ours, key=by_id) == sorted(theirs, key=by_id)
    signatures = "=c2lnbmF0dXJl"  # base64 of "signature"
    theirs_data = {name: data for name, data in loaded.big_data.items() if signatures not in name}
    assert {name: data for name, data in metadata.items() if name.count("/") == 2 and name.startswith("overlay-images/")} == theirs_data


def test_tar_split_data_names_what_the_engine_names(built: Built, loaded: Loaded) -> None:
    """Chunks depend on the engine's reads, so not the lines are compared: the bytes outside files, and the files.

    Content that lies nowhere under its own name travels inside ours.
    """
    ours = metadata_of_ours(built)
    for layer, tar in built.layers.items():
        mine, theirs = lines(ours[f"overlay-layers/{layer}.tar-split.gz"]), lines(loaded.tar_splits[f"{layer}.tar-split.gz"])
        assert raw_bytes(mine) + sum(files(mine).values()) == len(tar)
        assert files(mine).items() <= files(theirs).items()


def lines(tar_split: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(tar_split).splitlines()]


def raw_bytes(parts: list[dict[str, Any]]) -> int:
    return sum(len(base64.b64decode(one["payload"])) for one in parts if one["type"] == 2)


def files(parts: list[dict[str, Any]]) -> dict[str, int]:
    return {one.get("name", one.get("name_raw", "")): one.get("size", 0) for one in parts if one["type"] == 1}


def test_store_tar_has_the_files_and_modes_of_a_graphroot(built: Built, loaded: Loaded) -> None:
    with tarfile.open(built.out / "store.tar") as archive:
        ours = {one.name.removeprefix("./").rstrip("/"): one for one in archive if "/diff/" not in one.name}
    theirs = {name: mode for name, mode in loaded.modes.items() if "=c2lnbmF0dXJl" not in name}
    # What the engine makes by itself when it is missing.
    own = {"overlay/tempdirs", "overlay-layers/tmp", "overlay/l", "overlay-containers", "."}
    own |= {name for name in theirs if name.startswith(("overlay-containers", "overlay/l/")) or name.endswith("/lower-layers")}
    expected = {name: mode & 0o7777 for name, mode in theirs.items() if name not in own}
    if loaded.major == 5 and expected["overlay"] == 0o755:
        expected["overlay"] = 0o700  # since 5.8
    found = {name: one.mode for name, one in ours.items() if name not in {"", ".", "overlay/l"} and not name.startswith("overlay/l/")}
    assert found == expected
    assert {(one.uid, one.gid) for name, one in ours.items() if not name.endswith("/diff")} == {(0, 0)}


def test_the_engine_lists_and_checks_the_store(device: DevicePodman, built: Built) -> None:
    listed = json.loads(device.podman("images", "--format", "json").stdout)
    assert {name for one in listed for name in one["Names"] or ()} >= set(built.specs)
    assert {one["ReadOnly"] for one in listed} == {True}
    assert complaints(device) == set()


def test_a_container_runs_from_the_store(device: DevicePodman) -> None:
    said = set(device.run("app:1").stdout.decode().splitlines())
    assert runnable.expected_lines() <= said
    assert not runnable.hidden_lines() & said
    assert device.root.run(["ls", f"{device.graphroot}/overlay"]).stdout == b"l\n" or device.version.startswith("5.8")


def test_a_container_runs_by_digest(device: DevicePodman, built: Built) -> None:
    """By that of the manifest in the store, and by the one asked for, whose manifest is elsewhere."""
    stored = json.loads(device.podman("image", "inspect", "app:1").stdout)[0]
    canonical = stored["Digest"]
    assert canonical != built.digest
    for digest in (canonical, built.digest):
        done = device.podman("run", "--pull=never", *RUN_OPTIONS, f"localhost/app@{digest}", "/bin/cat", "/data/keep")
        assert done.stdout == b"kept\n"


def test_podman_save_gives_the_layers_back(device: DevicePodman, built: Built) -> None:
    target = device.root.workdir / "saved.tar"
    device.podman("save", "--quiet", "--output", target, "localhost/app:1")
    with tarfile.open(target) as archive:
        members = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}  # type: ignore[union-attr]
    target.unlink()
    manifest = json.loads(members["manifest.json"])[0]
    app = built.specs["localhost/app:1"]
    assert [members[name] for name in manifest["Layers"]] == list(app.layers)
    assert members[manifest["Config"]] == app.config_bytes


def test_a_factory_image_cannot_be_removed(device: DevicePodman) -> None:
    for options in ((), ("--force",)):
        done = device.podman("rmi", *options, "app:1", check=False)
        assert done.returncode != 0
        assert b"cannot remove read-only image" in done.stderr
    device.podman("system", "prune", "--all", "--force")
    assert device.run("app:1", "/bin/cat", "/data/keep").stdout == b"kept\n"


def test_a_container_writes_and_can_be_committed_upon_the_store(device: DevicePodman) -> None:
    options = [one for one in RUN_OPTIONS if one != "--rm"]
    device.podman("run", "--name", "writer", *options, "--user", "0", "app:1", "/bin/sh", "-c", "echo more >> /data/keep")
    device.podman("commit", "writer", "localhost/more:1")
    device.podman("rm", "writer")
    assert device.run("localhost/more:1", "/bin/cat", "/data/keep").stdout == b"kept\nmore\n"
    assert device.run("app:1", "/bin/cat", "/data/keep").stdout == b"kept\n"
    device.podman("rmi", "localhost/more:1")


def test_a_newer_image_is_loaded_upon_the_layers_of_the_store(device: DevicePodman, built: Built) -> None:
    newer = runnable.image("localhost/app:2", extra=images.build([images.file("srv/more", b"more\n")]))
    archive = docker_archive(device.root.workdir / "newer.tar", [newer])
    before = set(device.root.run(["ls", f"{device.graphroot}/overlay"]).stdout.split())
    device.podman("load", "--quiet", "--input", archive)
    after = set(device.root.run(["ls", f"{device.graphroot}/overlay"]).stdout.split())
    assert {one.decode() for one in after - before} - {"tempdirs"} == {layer_ids(newer.diff_ids)[-1]}
    assert device.run("localhost/app:2", "/bin/cat", "/srv/top", "/srv/more").stdout == b"top\nmore\n"
    device.podman("rmi", "localhost/app:2")


def test_store_tar_unpacked_as_root_is_a_graphroot(built: Built, loaded: Loaded, installation: Installation, tmp_path: Path) -> None:
    base = installation.demand("podman")
    root = tmp_path / "storage"
    with DevicePodman(tmp_path, base=base, binds=[built.out], graphroot=root) as engine:
        root.mkdir()
        unpack = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", str(built.out / "store.tar"), "-C", str(root)]
        engine.root.run(unpack)
        assert runnable.expected_lines() <= set(engine.run("app:1").stdout.decode().splitlines())
        assert engine.run(f"localhost/app@{built.digest}", "/bin/cat", "/data/keep").stdout == b"kept\n"
        for said in (complaints(engine), loaded.complaints):
            assert not [line for line in said for one in (*layer_ids(PLAIN.diff_ids), PLAIN.config_digest[7:]) if one in line]
        engine.podman("rmi", "--all", "--force")
        assert json.loads((root / "overlay-images/images.json").read_text()) == []
    shutil.rmtree(root)


def test_an_image_of_as_many_layers_as_promised_runs_and_more_are_warned_of(installation: Installation, tmp_path: Path) -> None:
    base = installation.demand("podman")
    most = layers_mountable(STORE)
    programs = runnable.programs_layer()
    specs = [
        ImageSpec([programs, *images.depth(count - 1)], [f"localhost/deep:{count}"], config={"config": {"Env": ["PATH=/bin"]}})
        for count in (most, most + 1)
    ]
    archive = docker_archive(tmp_path / "deep.tar", specs)
    done = shiplap_command("build", "--engine", "podman", f"docker-archive:{archive}", "-o", str(tmp_path / "out"))
    assert done.returncode == 0
    assert f"localhost/deep:{most + 1} has {most + 1} layers; Podman before 5 runs no image of more than {most} layers" in done.stderr
    assert f"localhost/deep:{most} " not in done.stderr
    with DevicePodman(tmp_path, base=base, mounts=[(tmp_path / "out/store.squashfs", STORE)], stores=[STORE]) as engine:
        assert engine.run(f"localhost/deep:{most}", "/bin/cat", "/data/keep").stdout == b"kept\n"
