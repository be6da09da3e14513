"""``docker-archive:``: every layout that engines and tools have written, and what one may ask of it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import COMPRESSORS, CREATED_EPOCH, Hardlink, ImageSpec, Symlink, Tree, docker_archive, docker_files, dump, sha256, write_tar
from layertar import build, item, layer
from openedsources import layer_tars, opened, refusal
from requirement import require
from shiplap.core.image import Image
from shiplap.core.platform import Platform

BASE = layer([item("bin", type="5"), item("bin/app", data=b"application" * 5000, mode=0o755)])
TOP = layer([item("etc", type="5"), item("etc/app.conf", data=b"verbose")])
EMPTY = layer([])
APP = ImageSpec([BASE, TOP], ["app:1"])
LAYOUTS = ("save", "skopeo", "oci")


def identity(image: Image) -> tuple[bytes, str, tuple[str, ...], list[bytes]]:
    """All that decides the store's bytes."""
    return image.config, image.config_digest, image.diff_ids, layer_tars(image)


def only(images: tuple[Image, ...]) -> Image:
    assert len(images) == 1
    return images[0]


# --- layouts and compression


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("whole", COMPRESSORS)
def test_the_image_is_the_same_from_every_layout_and_compression(tmp_path: Path, layout: str, compression: str, whole: str) -> None:
    path = docker_archive(tmp_path / "app.tar", [APP], layout=layout, compression=compression, whole=whole)
    with opened(f"docker-archive:{path}") as images:
        assert identity(only(images)) == (APP.config_bytes, APP.config_digest, tuple(APP.diff_ids), [BASE, TOP])


def test_an_image_knows_its_names_platform_time_and_source(tmp_path: Path) -> None:
    spec = ImageSpec([BASE], ["app:1", "registry.example:5000/acme/app:1"], platform="linux/arm/v7")
    path = docker_archive(tmp_path / "app.tar", [spec])
    with opened(f"docker-archive:{path}") as images:
        image = only(images)
        assert image.references == ("docker.io/library/app:1", "registry.example:5000/acme/app:1")
        assert image.platform == Platform("linux", "arm", "v7")
        assert image.created_epoch == CREATED_EPOCH
        assert image.source == "docker-archive:app.tar"
        assert (image.manifest_digest, image.index_digest) == (None, None)
        assert str(tmp_path) not in repr(image.layers[0].blob.location)


def test_a_leading_dot_in_the_names_changes_nothing(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "app.tar", [APP], layout="save", prefix="./")
    with opened(f"docker-archive:{path}") as images:
        assert layer_tars(only(images)) == [BASE, TOP]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layer_that_occurs_twice_is_there_twice(tmp_path: Path, layout: str) -> None:
    path = docker_archive(tmp_path / "app.tar", [ImageSpec([BASE, TOP, BASE, EMPTY, EMPTY], ["app:1"])], layout=layout)
    with opened(f"docker-archive:{path}") as images:
        image = only(images)
        assert layer_tars(image) == [BASE, TOP, BASE, EMPTY, EMPTY]
        assert [one.index for one in image.layers] == [0, 1, 2, 3, 4]


def test_an_image_without_layers_and_a_layer_without_bytes_are_accepted_as_by_docker_load(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "app.tar", [ImageSpec([], ["none:1"]), ImageSpec([b""], ["empty:1"])])
    with opened(f"docker-archive:{path}") as images:
        assert [layer_tars(image) for image in images] == [[], [b""]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_images_share_their_layers_and_keep_their_order(tmp_path: Path, layout: str) -> None:
    other = ImageSpec([BASE], ["base:1", "base:2"])
    path = docker_archive(tmp_path / "all.tar", [APP, other], layout=layout)
    with opened(f"docker-archive:{path}") as images:
        assert [image.config_digest for image in images] == [APP.config_digest, other.config_digest]
        assert [layer_tars(image) for image in images] == [[BASE, TOP], [BASE]]


def test_one_image_listed_under_two_names_is_one_image(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "app.tar", [APP, ImageSpec([BASE, TOP], ["app:latest"])])
    with opened(f"docker-archive:{path}") as images:
        assert only(images).references == ("docker.io/library/app:1", "docker.io/library/app:latest")


def test_an_uncompressed_layer_can_be_read_where_it_lies(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "app.tar", [APP])
    with opened(f"docker-archive:{path}") as images:
        for one, tar in zip(only(images).layers, (BASE, TOP), strict=True):
            place = one.blob.slice()
            assert place is not None
            assert b"".join(place.chunks()) == tar
            assert os.path.samestat(os.fstat(place.descriptor), os.stat(path))


def test_an_archive_can_come_through_a_pipe(tmp_path: Path) -> None:
    """`docker save app | shiplap build docker-archive:/dev/stdin`."""
    data = docker_archive(tmp_path / "app.tar", [APP]).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(data))
    writer.start()
    with opened(f"docker-archive:{pipe}") as images:
        assert layer_tars(only(images)) == [BASE, TOP]
    writer.join()


def test_links_between_members_are_followed_inside_the_archive(tmp_path: Path) -> None:
    files = docker_files([APP])
    name, top = (f"{digest[7:]}.tar" for digest in APP.diff_ids)
    files["store/base"] = files[name]
    files["here"] = Symlink("./store")
    files[name] = Symlink("here/../store/./base")
    files["hard"] = Hardlink("store/base")
    files["deep/er/top"] = files[top]
    files[top] = Symlink("deep/er/top")
    files["manifest.json"] = dump([{"Config": APP.config_digest[7:] + ".json", "RepoTags": None, "Layers": ["hard", top]}])
    with opened(f"docker-archive:{write_tar(tmp_path / 'a.tar', files)}") as images:
        assert layer_tars(only(images)) == [BASE, TOP]
    files["manifest.json"] = dump([{"Config": APP.config_digest[7:] + ".json", "RepoTags": None, "Layers": [name, top]}])
    with opened(f"docker-archive:{write_tar(tmp_path / 'b.tar', files)}") as images:
        assert layer_tars(only(images)) == [BASE, TOP]


def test_of_a_layer_stored_twice_the_last_one_counts_as_for_docker_load(tmp_path: Path) -> None:
    files = docker_files([APP])
    name = f"{APP.diff_ids[0][7:]}.tar"
    path = write_tar(tmp_path / "app.tar", files)
    path.write_bytes(build([item(name, data=TOP)], end=False) + path.read_bytes())
    with opened(f"docker-archive:{path}") as images:
        assert layer_tars(only(images)) == [BASE, TOP]


def test_a_config_under_any_name_is_read(tmp_path: Path) -> None:
    for name in ("config.json", f"sha256:{APP.config_digest[7:]}", "some/folder/c"):
        files = docker_files([APP])
        files[name] = files.pop(APP.config_digest[7:] + ".json")
        files["manifest.json"] = dump([{"Config": name, "RepoTags": ["app:1"], "Layers": [d[7:] + ".tar" for d in APP.diff_ids]}])
        with opened(f"docker-archive:{write_tar(tmp_path / 'app.tar', files)}") as images:
            assert only(images).config_digest == APP.config_digest


def test_an_archive_that_is_an_oci_layout_too_gives_its_verified_manifest_digest(tmp_path: Path) -> None:
    files = docker_files([APP], layout="oci")
    manifest = next(
        name for name, data in files.items() if isinstance(data, bytes) and b'"layers":[{' in data and name.startswith("blobs/")
    )
    with opened(f"docker-archive:{write_tar(tmp_path / 'app.tar', files)}") as images:
        assert only(images).manifest_digest == "sha256:" + manifest[-64:]


def test_an_oci_part_that_cannot_be_read_proves_nothing_and_does_no_harm(tmp_path: Path) -> None:
    files = docker_files([APP], layout="oci")
    files["index.json"] = b"{broken"
    with opened(f"docker-archive:{write_tar(tmp_path / 'app.tar', files)}") as images:
        assert only(images).manifest_digest is None
        assert layer_tars(only(images)) == [BASE, TOP]


# --- choosing by reference


@pytest.fixture(name="archive")
def _archive(tmp_path: Path) -> Path:
    return docker_archive(
        tmp_path / "all.tar",
        [APP, ImageSpec([BASE], ["base:1", "registry.example/base:2"]), ImageSpec([TOP])],
        layout="oci",
    )


@pytest.mark.parametrize(
    ("ref", "digest"),
    [
        ("app:1", APP.config_digest),
        ("docker.io/library/app:1", APP.config_digest),
        ("docker.io/app:1", APP.config_digest),
        ("registry.example/base:2", ImageSpec([BASE]).config_digest),
        ("@0", APP.config_digest),
        ("@2", ImageSpec([TOP]).config_digest),
        (f"@{APP.config_digest}", APP.config_digest),
        (f"app@{APP.config_digest}", APP.config_digest),
        (f"app:1@{APP.config_digest}", APP.config_digest),
    ],
)
def test_a_reference_picks_one_image(archive: Path, ref: str, digest: str) -> None:
    with opened(f"docker-archive:{archive}:{ref}") as images:
        assert only(images).config_digest == digest
        assert only(images).source == f"docker-archive:all.tar:{ref}"


def test_without_a_reference_all_images_come(archive: Path) -> None:
    with opened(f"docker-archive:{archive}") as images:
        assert [image.references for image in images] == [
            ("docker.io/library/app:1",),
            ("docker.io/library/base:1", "registry.example/base:2"),
            (),
        ]


def test_the_tag_that_was_asked_for_is_the_only_name_given(archive: Path) -> None:
    with opened(f"docker-archive:{archive}:registry.example/base:2") as images:
        assert only(images).references == ("registry.example/base:2",)
    with opened(f"docker-archive:{archive}:@1") as images:
        assert len(only(images).references) == 2


@pytest.mark.parametrize("ref", ["app", "app:2", "base:2", "@3", f"@{sha256(b'')}", f"app:1@{sha256(b'')}", f"base@{APP.config_digest}"])
def test_a_reference_that_is_not_there_is_refused_with_a_list_of_what_is(archive: Path, ref: str) -> None:
    error = refusal(f"docker-archive:{archive}:{ref}")
    assert ref in error.message
    assert "app:1, base:1, registry.example/base:2, @2 (no name, sha256:" in error.message


def test_two_images_of_one_name_are_refused_unless_one_is_picked(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "app.tar", [APP, ImageSpec([BASE], ["docker.io/library/app:1"])])
    assert "two images in app.tar are called docker.io/library/app:1" in refusal(f"docker-archive:{path}").message
    error = refusal(f"docker-archive:{path}:app:1")
    assert "means 2 images" in error.message
    assert "@0" in str(error.hint)
    with opened(f"docker-archive:{path}:@1") as images:
        assert only(images).diff_ids == (sha256(BASE),)


# --- choosing by platform


def test_the_only_platform_is_taken_unasked_and_another_one_is_refused(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "app.tar", [ImageSpec([BASE], ["app:1"], platform="linux/arm64/v8")])
    for platform in (None, "linux/arm64", "linux/arm64/v8", "linux/aarch64"):
        with opened(f"docker-archive:{path}", platform) as images:
            assert only(images).platform == Platform("linux", "arm64", "v8")
    error = refusal(f"docker-archive:{path}", "linux/amd64")
    assert "app:1 in app.tar is not for linux/amd64; it is for linux/arm64/v8" in error.message


def test_images_of_several_platforms_want_a_choice(tmp_path: Path) -> None:
    images = [ImageSpec([BASE], ["app:1"], platform=platform) for platform in ("linux/amd64", "linux/arm64")]
    path = docker_archive(tmp_path / "app.tar", images)
    error = refusal(f"docker-archive:{path}")
    assert "several platforms: linux/amd64, linux/arm64" in error.message
    assert "--platform" in str(error.hint)
    with opened(f"docker-archive:{path}", "linux/arm64") as found:
        assert only(found).config_digest == images[1].config_digest


def test_an_image_that_is_only_there_for_another_platform_is_not_left_out_silently(tmp_path: Path) -> None:
    images = [ImageSpec([BASE], ["app:1"]), ImageSpec([TOP], ["tool:1"], platform="linux/arm64")]
    path = docker_archive(tmp_path / "all.tar", images)
    assert "tool:1 in all.tar is not for linux/amd64; it is for linux/arm64" in refusal(f"docker-archive:{path}", "linux/amd64").message
    with opened(f"docker-archive:{path}:app:1", "linux/amd64") as found:
        assert only(found).config_digest == images[0].config_digest


def test_only_linux_images_are_taken(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "app.tar", [ImageSpec([BASE], ["app:1"], platform="windows/amd64")])
    assert "no image for linux: windows/amd64" in refusal(f"docker-archive:{path}").message
    assert "only images for linux" in str(refusal(f"docker-archive:{path}", "windows/amd64").hint)


# --- what is no docker-archive


def test_what_is_not_there_or_something_else_is_named_with_the_way_out(tmp_path: Path) -> None:
    oci = docker_files([APP], layout="oci")
    del oci["manifest.json"]
    legacy: Tree = {"repositories": b"{}", "abc/layer.tar": BASE, "abc/json": b"{}"}
    other: Tree = {"etc/passwd": b"root"}
    (tmp_path / "folder").mkdir()
    for name, files in (("oci", oci), ("legacy", legacy), ("other", other)):
        write_tar(tmp_path / f"{name}.tar", files)
    for name, message, hint in (
        ("absent.tar", "does not exist", "first colon"),
        ("folder", "is a folder", "oci:"),
        ("oci.tar", "no manifest.json", "oci-archive:"),
        ("legacy.tar", "older than 1.10", "load it"),
        ("other.tar", "not an archive of docker save", "None"),
    ):
        error = refusal(f"docker-archive:{tmp_path / name}")
        assert message in error.message, name
        assert hint in str(error.hint), name


# --- real programs


@pytest.fixture(name="vfs")
def _vfs() -> Iterator[list[str]]:
    """podman with an empty store of its own, whose run root must have a short path."""
    require("podman")
    with tempfile.TemporaryDirectory(prefix="sl-") as folder:
        places = [f"--{option}={folder}/{option}" for option in ("root", "runroot", "tmpdir")]
        yield ["podman", *places, "--storage-driver=vfs", "--events-backend=none"]


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_skopeo_writes_archives_with_the_same_image(tmp_path: Path) -> None:
    require("skopeo")
    first = docker_archive(tmp_path / "first.tar", [APP, ImageSpec([BASE, BASE, EMPTY], ["twice:1"])])
    for number, name in enumerate(("app:1", "twice:1")):
        run("skopeo", "--insecure-policy", "copy", f"docker-archive:{first}:{name}", f"docker-archive:{tmp_path}/{number}.tar:{name}")
        with opened(f"docker-archive:{first}:{name}") as before, opened(f"docker-archive:{tmp_path}/{number}.tar") as after:
            assert identity(only(before)) == identity(only(after))
            assert only(before).references == only(after).references


def test_podman_save_writes_archives_with_the_same_image(tmp_path: Path, vfs: list[str]) -> None:
    other = ImageSpec([BASE, EMPTY], ["registry.example/acme/other:2"])
    # In full: podman takes a short name in an archive for one of localhost.
    first = docker_archive(tmp_path / "first.tar", [ImageSpec([BASE, TOP], ["docker.io/library/app:1"]), other])
    run(*vfs, "load", "-q", "-i", first)
    names = ("docker.io/library/app:1", "registry.example/acme/other:2")
    run(*vfs, "save", "-q", "--multi-image-archive", "-o", tmp_path / "both.tar", *names)
    with opened(f"docker-archive:{first}") as before, opened(f"docker-archive:{tmp_path}/both.tar") as after:
        assert sorted(map(identity, before)) == sorted(map(identity, after))
        assert {image.references for image in after} == {(name,) for name in names}
    for name in names:
        run(*vfs, "save", "-q", "-o", tmp_path / "one.tar", name)
        with opened(f"docker-archive:{tmp_path}/one.tar") as one, opened(f"docker-archive:{first}:{name}") as before:
            assert identity(only(one)) == identity(only(before))
        (tmp_path / "one.tar").unlink()


def test_podman_and_skopeo_name_the_image_as_we_do(tmp_path: Path, vfs: list[str]) -> None:
    require("skopeo")
    path = docker_archive(tmp_path / "app.tar", [APP])
    with opened(f"docker-archive:{path}") as images:
        assert run("skopeo", "inspect", "--config", "--raw", f"docker-archive:{path}").encode() == only(images).config
        run(*vfs, "load", "-q", "-i", path)
        assert run(*vfs, "image", "inspect", "--format", "{{.Id}}", "localhost/app:1") == only(images).config_digest[7:]
