"""``docker-root:``: what a real Docker left in its data-root, read without it; and data-roots that somebody spoilt."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from archives import ImageSpec, dump, sha256
from commandline import COMMAND, environment, folder_for_everybody, nobody_can_run_it, shiplap_command
from engines.dataroots import APP, BASE, OTHER, TOP, UNTAGGED, LeftBehind, fill
from engines.dockerd import Dockerd
from engines.installations import Installation, installations
from openedsources import layer_tars, opened, refusal
from shiplap.core.image import Image, chain_ids
from shiplap.core.limits import Limits
from shiplap.core.sources.assembled import LayerChanged
from shiplap.core.sources.dataroot import DataRootUnusable, EngineRunning

EPOCH = "1700000000"
# Every fourth of them: the engine needs a tenth of a second for a layer.
TORTURE = ImageSpec([BASE, *[case.layer for case in images.SAME if case.saves and not case.newer][::4]], ["torture:1"])


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeftBehind]:
    installations()[0].demand("docker")
    work = tmp_path_factory.mktemp("left")
    yield fill(work, more=[TORTURE])
    shutil.rmtree(work)


@pytest.fixture(scope="module")
def plain() -> Iterator[LeftBehind]:
    """One with few layers, for copies to spoil."""
    installations()[0].demand("docker")
    with folder_for_everybody() as work:
        yield fill(work, small=True)


def only(images: tuple[Image, ...]) -> Image:
    (one,) = images
    return one


def store_digest(source: str, out: Path) -> str:
    done = shiplap_command("build", source, "--output", "tar", "-o", str(out), "--source-date-epoch", EPOCH, "--json")
    assert done.returncode == 0, done.stderr
    digest: str = json.loads(done.stdout)["outputs"]["store.tar"]["sha256"]
    return digest


# --- what comes


def test_an_image_is_byte_for_byte_the_one_that_was_loaded(left: LeftBehind) -> None:
    with opened(f"docker-root:{left.root}:app:1") as found:
        image = only(found)
        assert (image.config, image.config_digest) == (APP.config_bytes, APP.config_digest)
        assert layer_tars(image) == [BASE, TOP, TOP]
        assert image.references == ("docker.io/library/app:1",)
        assert image.source == "docker-root:data-root:app:1"
        assert [layer.blob.size_bytes for layer in image.layers] == [len(BASE), len(TOP), len(TOP)]
        assert all(str(left.work) not in layer.blob.location for layer in image.layers)


def test_whatever_a_layer_holds_comes_back(left: LeftBehind) -> None:
    with opened(f"docker-root:{left.root}:torture:1") as found:
        image = only(found)
        for layer, tar, read in zip(image.layers, TORTURE.layers, layer_tars(image), strict=True):
            assert read == tar, f"layer {layer.index}"


@pytest.mark.parametrize("name", ["app:1", "torture:1", "built:1", "committed:1"])
def test_the_store_is_the_one_from_what_docker_saves(left: LeftBehind, tmp_path: Path, name: str) -> None:
    wanted = store_digest(f"docker-archive:{left.saved}:{name}", tmp_path / "saved")
    assert store_digest(f"docker-root:{left.root}:{name}", tmp_path / "root") == wanted


def test_built_and_committed_images_have_the_ids_that_the_engine_gave_them(left: LeftBehind) -> None:
    for name, digest in (("built:1", left.built), ("committed:1", left.committed)):
        with opened(f"docker-root:{left.root}:{name}") as found:
            assert only(found).config_digest == digest


def test_without_a_name_all_images_with_a_tag_come_sorted(left: LeftBehind) -> None:
    with opened(f"docker-root:{left.root}") as found:
        assert [one.references[0] for one in found] == [
            f"docker.io/library/{name}" for name in ("app:1", "built:1", "committed:1", "other:1", "torture:1")
        ]
        assert found[0].references == (
            "docker.io/library/app:1",
            "docker.io/library/app:latest",
            "registry.example:5000/acme/app:7.10",
        )


def test_an_image_without_a_tag_comes_by_its_id_alone(left: LeftBehind) -> None:
    with opened(f"docker-root:{left.root}:@{UNTAGGED.config_digest}") as found:
        assert layer_tars(only(found)) == [BASE, BASE]
        assert only(found).references == ()


def test_the_error_for_a_missing_name_lists_what_is_there(plain: LeftBehind) -> None:
    error = refusal(f"docker-root:{plain.root}:nope")
    assert "data-root has no image nope; it has app:1, app:latest, registry.example:5000/acme/app:7.10, other:1" in error.message


def test_the_vfs_driver_is_read_as_well(tmp_path: Path) -> None:
    installations()[0].demand("docker")
    made = fill(tmp_path, options=["--storage-driver", "vfs"], small=True)
    assert (made.root / "vfs/dir").is_dir()
    with opened(f"docker-root:{made.root}:app:1") as found:
        assert layer_tars(only(found)) == [BASE, TOP, TOP]


@pytest.mark.parametrize("installation", installations()[1:], ids=lambda one: one.name)
def test_data_roots_of_newer_engines_are_read(installation: Installation, tmp_path: Path) -> None:
    # Newer ones start a fresh data-root with the containerd store unless they are told otherwise.
    settings = tmp_path / "daemon.json"
    settings.write_text(json.dumps({"features": {"containerd-snapshotter": False}}))
    root = installation.demand("docker")
    made = fill(tmp_path / "work", base=root, options=["--config-file", str(settings)], small=True)
    with opened(f"docker-root:{made.root}:app:1") as found:
        assert layer_tars(only(found)) == [BASE, TOP, TOP]


# --- engines at work, other stores


def test_a_data_root_in_use_is_refused_until_the_engine_stops(plain: LeftBehind) -> None:
    with Dockerd(plain.work / "again", data_root=plain.root, binds=[plain.work]):
        error = refusal(f"docker-root:{plain.root}:app:1")
        assert isinstance(error, EngineRunning)
        assert "systemctl stop docker.socket docker" in str(error.hint)
    with opened(f"docker-root:{plain.root}:app:1") as found:
        assert layer_tars(only(found)) == [BASE, TOP, TOP]


def make(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (folder / path).mkdir()
        else:
            (folder / path).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["some/file"], "not a data-root of Docker"),
        (["image/overlay2/imagedb/content/sha256/"], "not a data-root of Docker with images"),
        (["containerd/daemon/io.containerd.metadata.v1.bolt/meta.db", "image/overlayfs/"], "in containerd's store"),
        (["io.containerd.content.v1.content/blobs/"], "in containerd's store"),
        (["overlay-images/images.json"], "Podman's storage"),
        (["100000.100000/image/overlay2/"], "userns-remap"),
        (["image/btrfs/imagedb/content/sha256/" + "0" * 64], "storage driver btrfs; shiplap reads overlay2 and vfs"),
        ([f"image/{driver}/imagedb/content/sha256/{'0' * 64}" for driver in ("overlay2", "vfs")], "several storage drivers: overlay2, vfs"),
    ],
)
def test_other_folders_are_told_apart(tmp_path: Path, paths: list[str], said: str) -> None:
    error = refusal(f"docker-root:{make(tmp_path / 'docker', *paths)}")
    assert isinstance(error, DataRootUnusable)
    assert said in error.message


def test_what_is_not_there_or_no_folder_is_said_so(tmp_path: Path) -> None:
    assert "does not exist" in refusal(f"docker-root:{tmp_path}/absent").message
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refusal(f"docker-root:{tmp_path}/file").message


def test_an_ordinary_user_is_told_to_be_root(plain: LeftBehind) -> None:
    if not nobody_can_run_it():
        pytest.skip("nobody cannot run the command line here")
    done = subprocess.run(
        [*COMMAND, "build", f"docker-root:{plain.root}:app:1", "-o", "/tmp/never"],
        env=environment(), user=65534, group=65534, extra_groups=[], cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "may not be read" in done.stderr and "sudo" in done.stderr


# --- spoilt data-roots


@pytest.fixture
def spoilt(plain: LeftBehind, tmp_path: Path) -> Path:
    return plain.copy(tmp_path)


def record(root: Path, number: int, spec: ImageSpec = APP) -> Path:
    """The layer database's folder of a layer."""
    return root / "image/overlay2/layerdb/sha256" / chain_ids(tuple(spec.diff_ids))[number][7:]


def tree(root: Path, number: int) -> Path:
    return root / "overlay2" / (record(root, number) / "cache-id").read_text() / "diff"


def test_a_copy_is_as_good(spoilt: Path) -> None:
    with opened(f"docker-root:{spoilt}:app:1") as found:
        assert layer_tars(only(found)) == [BASE, TOP, TOP]


def test_a_changed_file_is_named_with_its_layer(spoilt: Path) -> None:
    (tree(spoilt, 1) / "etc/app.conf").write_bytes(b"changed")
    error = refusal(f"docker-root:{spoilt}:app:1")
    assert isinstance(error, LayerChanged)
    assert "'./etc/../etc/app.conf'" in error.message and record(spoilt, 1).joinpath("cache-id").read_text() in error.message
    assert "pull or load the image again" in str(error.hint)


def test_a_longer_and_a_shorter_file_are_found(spoilt: Path) -> None:
    path = tree(spoilt, 0) / "bin/app"
    whole = path.read_bytes()
    for wrong in (whole + b"x", whole[:-1]):
        path.write_bytes(wrong)
        assert isinstance(refusal(f"docker-root:{spoilt}:other:1"), LayerChanged)


@pytest.mark.parametrize("kind", ["absent", "folder", "fifo", "link out", "link in a circle", "parent is a file"])
def test_a_file_that_is_no_file_any_more_is_found(spoilt: Path, kind: str) -> None:
    path = tree(spoilt, 0) / "bin/app"
    whole = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link out":
        (spoilt.parent / "outside").write_bytes(whole)
        path.symlink_to("../" * 40 + str(spoilt.parent / "outside"))
    elif kind == "link in a circle":
        path.symlink_to("app")
    elif kind == "parent is a file":
        path.parent.rmdir()
        path.parent.write_bytes(whole)
    error = refusal(f"docker-root:{spoilt}:other:1")
    assert isinstance(error, LayerChanged)
    assert "'bin/app'" in error.message


def test_links_inside_a_layer_are_resolved_inside_it(spoilt: Path) -> None:
    """An absolute link means the layer's own root, as in the container."""
    path = tree(spoilt, 0)
    (path / "bin/app").rename(path / "moved")
    (path / "bin/app").symlink_to("/etc/../../../moved")
    with opened(f"docker-root:{spoilt}:other:1") as found:
        assert layer_tars(only(found)) == [BASE]


@pytest.mark.parametrize("what", ["diff", "layer", "record", "config"])
def test_links_out_of_the_data_root_are_refused(spoilt: Path, what: str) -> None:
    place = {
        "diff": tree(spoilt, 0),
        "layer": tree(spoilt, 0).parent,
        "record": record(spoilt, 0) / "tar-split.json.gz",
        "config": spoilt / "image/overlay2/imagedb/content/sha256" / OTHER.config_digest[7:],
    }[what]
    outside = spoilt.parent / "outside"
    place.rename(outside)
    place.symlink_to(outside)
    error = refusal(f"docker-root:{spoilt}:other:1")
    assert "link" in error.message


def test_a_cache_id_leads_nowhere_else(spoilt: Path) -> None:
    for wrong in ("../../../etc", "/etc", "a/b", "..", "", "x" * 5000, "\0"):
        (record(spoilt, 0) / "cache-id").write_text(wrong)
        assert refusal(f"docker-root:{spoilt}:other:1").message


def test_parents_are_not_asked_so_a_circle_of_them_does_not_matter(spoilt: Path) -> None:
    chain = chain_ids(tuple(APP.diff_ids))
    (record(spoilt, 0) / "parent").write_text(chain[2])
    (record(spoilt, 1) / "parent").write_text(chain[1])
    with opened(f"docker-root:{spoilt}:app:1") as found:
        assert layer_tars(only(found)) == [BASE, TOP, TOP]


def test_a_layer_without_tar_split_cannot_come_back(spoilt: Path) -> None:
    (record(spoilt, 1) / "tar-split.json.gz").unlink()
    error = refusal(f"docker-root:{spoilt}:app:1")
    assert "docker.io/library/app:1 in docker, layer 1: it has no tar-split data" in error.message
    with opened(f"docker-root:{spoilt}:other:1") as found:
        assert layer_tars(only(found)) == [BASE]


def test_a_layer_that_the_database_lost_is_named(spoilt: Path) -> None:
    shutil.rmtree(record(spoilt, 2))
    assert "layer 2 is not in the layer database" in refusal(f"docker-root:{spoilt}:app:1").message
    shutil.rmtree(tree(spoilt, 1).parent)
    (record(spoilt, 1) / "diff").write_text(sha256(b""))
    assert "layer 1: the layer database of docker says another diffID" in refusal(f"docker-root:{spoilt}:app:1").message


def test_another_tar_from_the_same_files_is_found_by_its_diff_id(spoilt: Path) -> None:
    """Headers are in the tar-split data, and nothing else vouches for them."""
    path = record(spoilt, 0) / "tar-split.json.gz"
    first, *rest = gzip.decompress(path.read_bytes()).splitlines()
    segment = json.loads(first)
    raw = bytearray(base64.b64decode(segment["payload"]))
    raw[265:269] = b"user"
    segment["payload"] = base64.b64encode(raw).decode()
    path.write_bytes(gzip.compress(b"\n".join([dump(segment), *rest]) + b"\n"))
    done = shiplap_command("build", f"docker-root:{spoilt}:other:1", "-o", str(spoilt.parent / "out"))
    assert done.returncode == 2
    assert "layer 0" in done.stderr and "the config says" in done.stderr and "diffID" in done.stderr


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        gzip.compress(b"{}\n", mtime=0),
        gzip.compress(b'{"type":1,"name":"x","size":-5,"payload":null,"position":0}\n', mtime=0),
    ],
)
def test_broken_tar_split_data_is_one_clear_error(spoilt: Path, data: bytes) -> None:
    (record(spoilt, 0) / "tar-split.json.gz").write_bytes(data)
    assert "tar-split data of overlay2/" in refusal(f"docker-root:{spoilt}:other:1").message


def test_huge_values_are_refused_before_anything_is_read(spoilt: Path) -> None:
    huge = b'{"type":1,"name":"bin/app","size":99999999999999,"payload":"AAAAAAAAAAA=","position":0}\n'
    (record(spoilt, 0) / "tar-split.json.gz").write_bytes(gzip.compress(huge))
    assert "more than" in refusal(f"docker-root:{spoilt}:other:1").message
    bomb = gzip.compress(b'{"type":2,"payload":"' + b"A" * (40 << 20) + b'","position":0}\n')
    (record(spoilt, 0) / "tar-split.json.gz").write_bytes(bomb)
    assert "a line is longer than" in refusal(f"docker-root:{spoilt}:other:1").message


def test_a_config_that_was_changed_is_not_its_digest(spoilt: Path) -> None:
    path = spoilt / "image/overlay2/imagedb/content/sha256" / OTHER.config_digest[7:]
    path.write_bytes(path.read_bytes().replace(b"amd64", b"arm64"))
    assert f"instead of {OTHER.config_digest}" in refusal(f"docker-root:{spoilt}").message


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"{", "not JSON"),
        (dump({"Repositories": {"app": 5}}), "where an object is expected"),
        (dump({"Repositories": {"app": {"app:1": "sha256:12"}}}), "is no image ID"),
        (dump({"Repositories": {"app": {"App:1": APP.config_digest}}}), "lower case"),
        (b" " * 200, "more than the 100 allowed"),
    ],
)
def test_names_that_no_engine_writes_are_refused(spoilt: Path, document: bytes, said: str) -> None:
    (spoilt / "image/overlay2/repositories.json").write_bytes(document)
    limits = Limits(metadata_bytes=100) if said.startswith("more") else None
    error = refusal(f"docker-root:{spoilt}:other:1", limits=limits)
    assert said in error.message or (limits is not None and "allowed" in error.message)


def test_images_beside_it_in_containerds_store_are_not_passed_over_in_silence(spoilt: Path) -> None:
    def notes() -> str:
        done = shiplap_command("-C", str(spoilt.parent), "import", str(spoilt), "--no-store", "--force")
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "containerd" not in notes()
    make(spoilt, f"containerd/daemon/io.containerd.content.v1.content/blobs/sha256/{'0' * 64}")
    assert "docker: images that the engine keeps in containerd's store are not read, only those of overlay2" in notes()


def test_without_any_tag_the_hint_names_an_id(spoilt: Path) -> None:
    (spoilt / "image/overlay2/repositories.json").unlink()
    error = refusal(f"docker-root:{spoilt}")
    assert "no image with a tag" in error.message and "@sha256:" in str(error.hint)
