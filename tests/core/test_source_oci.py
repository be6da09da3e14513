"""``oci:`` and ``oci-archive:``: layouts with indexes, platforms, attestations, every compression and both families of media types."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import (
    COMPRESSORS,
    DOCKER,
    OCI,
    ImageSpec,
    IndexSpec,
    Symlink,
    Tree,
    attestation,
    blob_path,
    descriptor,
    docker_archive,
    dump,
    manifest,
    oci_archive,
    oci_files,
    oci_layout,
    put,
    sha256,
    write_directory,
    write_tar,
)
from layertar import item, layer
from openedsources import layer_tars, opened, refusal
from requirement import require
from shiplap.core.image import Image
from shiplap.core.platform import Platform

BASE = layer([item("bin", type="5"), item("bin/app", data=b"application" * 5000, mode=0o755)])
TOP = layer([item("etc", type="5"), item("etc/app.conf", data=b"verbose")])
EMPTY = layer([])
APP = ImageSpec([BASE, TOP], ["app:1"])
ARM = ImageSpec([BASE, EMPTY], ["app:1"], platform="linux/arm64/v8")
PLATFORMS = [
    ImageSpec([BASE, layer([item(name)])], platform=name) for name in ("linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/arm/v6")
]


def identity(image: Image) -> tuple[bytes, str, tuple[str, ...], list[bytes]]:
    return image.config, image.config_digest, image.diff_ids, layer_tars(image)


def only(images: tuple[Image, ...]) -> Image:
    assert len(images) == 1
    return images[0]


def write_index(files: Tree, entries: list[dict[str, Any]]) -> Tree:
    files["oci-layout"] = dump({"imageLayoutVersion": "1.0.0"})
    files["index.json"] = dump({"schemaVersion": 2, "manifests": entries})
    return files


def named(entry: Mapping[str, Any], **annotations: str) -> dict[str, Any]:
    keys = {"ref": "org.opencontainers.image.ref.name", "image": "io.containerd.image.name"}
    return {**entry, "annotations": {keys[key]: value for key, value in annotations.items()}}


# --- the same image


@pytest.mark.parametrize("media", [OCI, DOCKER], ids=["oci", "docker"])
@pytest.mark.parametrize("compression", COMPRESSORS)
def test_the_image_is_the_same_from_folder_and_archive_in_every_compression(
    tmp_path: Path, compression: str, media: Mapping[str, str]
) -> None:
    oci_layout(tmp_path / "layout", [APP], compression=compression, media=media)
    oci_archive(tmp_path / "app.tar", [APP], compression=compression, media=media)
    oci_archive(tmp_path / "app.tar.gz", [APP], compression=compression, media=media, whole="gzip", prefix="./")
    for source in ("oci:layout", "oci-archive:app.tar", "oci-archive:app.tar.gz"):
        transport, name = source.split(":")
        with opened(f"{transport}:{tmp_path / name}") as images:
            image = only(images)
            assert identity(image) == (APP.config_bytes, APP.config_digest, tuple(APP.diff_ids), [BASE, TOP])
            assert image.references == ("docker.io/library/app:1",)
            assert image.source == source


def test_the_same_image_comes_from_a_docker_archive(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [APP])
    docker_archive(tmp_path / "app.tar", [APP])
    with opened(f"oci:{tmp_path}/layout") as ours, opened(f"docker-archive:{tmp_path}/app.tar") as theirs:
        assert identity(only(ours)) == identity(only(theirs))
        assert only(ours).references == only(theirs).references
        assert only(ours).platform == only(theirs).platform
        assert only(ours).created_epoch == only(theirs).created_epoch


def test_layers_of_one_image_may_be_compressed_differently_and_occur_twice(tmp_path: Path) -> None:
    spec = ImageSpec([BASE, TOP, BASE, EMPTY], ["app:1"])
    oci_layout(tmp_path / "layout", [spec], compression=["gzip", "zstd", "none", "xz"])
    with opened(f"oci:{tmp_path}/layout") as images:
        assert layer_tars(only(images)) == [BASE, TOP, BASE, EMPTY]
        assert [one.blob.media_type for one in only(images).layers][:2] == [OCI["layer"] + "+gzip", OCI["layer"] + "+zstd"]


def test_the_data_says_how_it_is_compressed_not_its_media_type(tmp_path: Path) -> None:
    files: Tree = {}
    entry = manifest(files, ImageSpec([BASE]), "none", {**OCI, "none": "+gzip"})
    write_directory(tmp_path, write_index(files, [entry]))
    with opened(f"oci:{tmp_path}") as images:
        assert layer_tars(only(images)) == [BASE]


def test_an_image_knows_its_manifest_digest_and_its_blobs_theirs(tmp_path: Path) -> None:
    files = oci_files([APP])
    entry = json.loads(files["index.json"])["manifests"][0]  # type: ignore[arg-type]
    write_directory(tmp_path, files)
    with opened(f"oci:{tmp_path}") as images:
        image = only(images)
        assert (image.manifest_digest, image.index_digest) == (entry["digest"], None)
        for one in image.layers:
            stored = b"".join(one.blob.chunks())
            assert one.blob.digest == sha256(stored)
            assert one.blob.size_bytes == len(stored)
            assert one.blob.location == f"{blob_path(sha256(stored))} in {tmp_path.name}"


def test_a_layer_can_be_read_where_it_lies(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [ImageSpec([BASE])], compression="none")
    with opened(f"oci:{tmp_path}/layout") as images:
        place = only(images).layers[0].blob.slice()
        assert place is not None
        assert b"".join(place.chunks()) == BASE
        descriptor_ = place.descriptor
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor_)


def test_sha512_digests_are_verified_too(tmp_path: Path) -> None:
    files: Tree = {}
    entry = manifest(files, ImageSpec([BASE]), "none")
    document = json.loads(files.pop(blob_path(entry["digest"])))  # type: ignore[arg-type]
    blob = files.pop(blob_path(document["layers"][0]["digest"]))
    assert isinstance(blob, bytes)
    document["layers"][0]["digest"] = "sha512:" + hashlib.sha512(blob).hexdigest()
    files[blob_path(document["layers"][0]["digest"])] = blob
    entry = descriptor(OCI["manifest"], dump(document))
    put(files, dump(document))
    write_directory(tmp_path, write_index(files, [entry]))
    with opened(f"oci:{tmp_path}") as images:
        assert layer_tars(only(images)) == [BASE]
    (tmp_path / blob_path(document["layers"][0]["digest"])).write_bytes(blob[:-1] + b"x")
    assert "sha512:" in refusal(f"oci:{tmp_path}").message


def test_an_image_without_layers_and_documents_without_media_types_are_accepted(tmp_path: Path) -> None:
    files: Tree = {}
    entry = manifest(files, ImageSpec([]))
    document = json.loads(files[blob_path(entry["digest"])])  # type: ignore[arg-type]
    del document["mediaType"], document["layers"]
    put(files, dump(document))
    entry = descriptor(OCI["manifest"], dump(document))
    del entry["mediaType"]
    write_directory(tmp_path, write_index(files, [entry]))
    with opened(f"oci:{tmp_path}") as images:
        assert only(images).layers == ()


# --- platforms


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("attestations", [False, True], ids=["plain", "attested"])
@pytest.mark.parametrize("media", [OCI, DOCKER], ids=["oci", "docker"])
def test_an_index_gives_the_platform_asked_for(tmp_path: Path, nested: bool, attestations: bool, media: Mapping[str, str]) -> None:
    oci_layout(tmp_path / "layout", [IndexSpec(PLATFORMS, ["app:1"], nested=nested, attestations=attestations)], media=media)
    for asked, spec in (
        ("linux/amd64", PLATFORMS[0]),
        ("linux/x86_64", PLATFORMS[0]),
        ("linux/arm64", PLATFORMS[1]),
        ("linux/arm64/v8", PLATFORMS[1]),
        ("linux/arm", PLATFORMS[2]),
        ("linux/arm/v7", PLATFORMS[2]),
        ("linux/arm/v6", PLATFORMS[3]),
    ):
        with opened(f"oci:{tmp_path}/layout", asked) as images:
            image = only(images)
            assert image.config_digest == spec.config_digest
            assert str(image.platform) == spec.platform
            assert image.references == ("docker.io/library/app:1",)
            assert image.index_digest is not None
    error = refusal(f"oci:{tmp_path}/layout", "linux/riscv64")
    assert "not for linux/riscv64; it is for linux/amd64, linux/arm64/v8, linux/arm/v7, linux/arm/v6" in error.message


def test_without_a_platform_several_are_refused_with_a_list(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [IndexSpec(PLATFORMS, ["app:1"])])
    error = refusal(f"oci:{tmp_path}/layout")
    assert "several platforms: linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8" in error.message
    assert "--platform" in str(error.hint)


def test_without_a_platform_the_only_stored_one_is_taken(tmp_path: Path) -> None:
    """An index names all platforms although one was fetched, as Docker 29 saves it."""
    oci_layout(tmp_path / "layout", [IndexSpec(PLATFORMS, ["app:1"], absent=[0, 2, 3], attestations=True)])
    with opened(f"oci:{tmp_path}/layout") as images:
        assert str(only(images).platform) == "linux/arm64/v8"
    assert "it is for linux/arm64/v8" in refusal(f"oci:{tmp_path}/layout", "linux/amd64").message


def test_windows_in_an_index_does_not_make_linux_ambiguous(tmp_path: Path) -> None:
    windows = replace(PLATFORMS[0], platform="windows/amd64")
    oci_layout(tmp_path / "layout", [IndexSpec([windows, PLATFORMS[0]], ["app:1"])])
    with opened(f"oci:{tmp_path}/layout") as images:
        assert str(only(images).platform) == "linux/amd64"


def test_platforms_listed_side_by_side_under_one_name_are_chosen_from_as_well(tmp_path: Path) -> None:
    files: Tree = {}
    entries = [named(manifest(files, spec), ref="app:1") for spec in PLATFORMS[:2]]
    write_directory(tmp_path, write_index(files, entries))
    with opened(f"oci:{tmp_path}", "linux/arm64") as images:
        assert only(images).config_digest == PLATFORMS[1].config_digest


def test_of_two_images_for_one_platform_in_an_index_the_first_counts(tmp_path: Path) -> None:
    twice = [PLATFORMS[0], replace(PLATFORMS[0], layers=[TOP])]
    oci_layout(tmp_path / "layout", [IndexSpec(twice, ["app:1"])])
    with opened(f"oci:{tmp_path}/layout") as images:
        assert only(images).config_digest == twice[0].config_digest


def test_a_config_that_contradicts_the_index_is_refused(tmp_path: Path) -> None:
    lying = IndexSpec([PLATFORMS[0]], ["app:1"], declared=[{"os": "linux", "architecture": "arm64"}])
    oci_layout(tmp_path / "layout", [lying])
    for asked in (None, "linux/arm64"):
        assert "the index says linux/arm64, the image itself linux/amd64" in refusal(f"oci:{tmp_path}/layout", asked).message
    assert "is not for linux/amd64" in refusal(f"oci:{tmp_path}/layout", "linux/amd64").message


def test_a_variant_that_the_config_leaves_out_is_taken_from_the_index(tmp_path: Path) -> None:
    spec = ImageSpec([BASE], platform="linux/arm")
    oci_layout(tmp_path / "layout", [IndexSpec([spec], ["app:1"], declared=[{"os": "linux", "architecture": "arm", "variant": "v6"}])])
    for device in ("linux/arm/v6", "linux/arm/v7"):
        with opened(f"oci:{tmp_path}/layout", device) as images:
            assert only(images).platform == Platform("linux", "arm")
    assert "is not for linux/arm/v5" in refusal(f"oci:{tmp_path}/layout", "linux/arm/v5").message


def test_a_variant_that_the_index_leaves_out_is_taken_from_the_config(tmp_path: Path) -> None:
    spec = ImageSpec([BASE], platform="linux/arm/v6")
    oci_layout(tmp_path / "layout", [IndexSpec([spec], ["app:1"], declared=[{"os": "linux", "architecture": "arm"}])])
    with opened(f"oci:{tmp_path}/layout", "linux/arm/v6") as images:
        assert str(only(images).platform) == "linux/arm/v6"


def test_descriptors_without_a_platform_are_chosen_by_their_configs(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [IndexSpec(PLATFORMS, ["app:1"], declared=[None] * 4)])
    with opened(f"oci:{tmp_path}/layout", "linux/arm/v7") as images:
        assert only(images).config_digest == PLATFORMS[2].config_digest


# --- what is passed over


def test_attestations_and_artifacts_are_passed_over(tmp_path: Path) -> None:
    files: Tree = {}
    good = manifest(files, APP)
    signature = manifest(files, ImageSpec([b"signed"]), "none", {**OCI, "layer": "application/vnd.dev.cosign.simplesigning.v1+json"})
    chart = manifest(files, ImageSpec([b"chart"]), "none", {**OCI, "config": "application/vnd.cncf.helm.config.v1+json"})
    unmarked = {key: value for key, value in attestation(files, good["digest"]).items() if key not in ("annotations", "platform")}
    unknown = {**manifest(files, ImageSpec([EMPTY])), "platform": {"os": "unknown", "architecture": "unknown"}}
    skipped = [attestation(files, good["digest"]), signature, chart, unmarked, unknown]
    write_directory(tmp_path, write_index(files, [*skipped, named(good, ref="app:1")]))
    with opened(f"oci:{tmp_path}") as images:
        assert only(images).config_digest == APP.config_digest
    assert "has no image @0; it has app:1" in refusal(f"oci:{tmp_path}:@0").message
    with opened(f"oci:{tmp_path}:@5") as images:
        assert only(images).config_digest == APP.config_digest


def test_a_layout_of_nothing_else_says_so(tmp_path: Path) -> None:
    files: Tree = {}
    write_directory(tmp_path / "a", write_index(files, [attestation(files, sha256(b""))]))
    write_directory(tmp_path / "b", write_index({}, []))
    assert "only attestations and artifacts" in refusal(f"oci:{tmp_path}/a").message
    assert "holds no image" in refusal(f"oci:{tmp_path}/b").message


# --- names


@pytest.mark.parametrize(
    ("annotations", "references"),
    [
        ({"ref": "app:1"}, ("docker.io/library/app:1",)),
        ({"ref": "registry.example/acme/app"}, ("registry.example/acme/app:latest",)),
        ({"ref": "localhost/app:1"}, ("localhost/app:1",)),
        # What Docker and containerd write.
        ({"image": "docker.io/library/app:1", "ref": "1"}, ("docker.io/library/app:1",)),
        # A bare word is as often a tag as a name.
        ({"ref": "latest"}, ()),
        ({"ref": "v1.0+build"}, ()),
        ({"ref": "Not/A/Reference"}, ()),
        # A digest is a promise, not a name.
        ({"image": f"docker.io/library/app@sha256:{'0' * 64}"}, ()),
        ({}, ()),
    ],
)
def test_annotations_become_references(tmp_path: Path, annotations: dict[str, str], references: tuple[str, ...]) -> None:
    files: Tree = {}
    write_directory(tmp_path, write_index(files, [named(manifest(files, APP), **annotations)]))
    with opened(f"oci:{tmp_path}") as images:
        assert only(images).references == references


def test_tags_of_one_image_are_gathered(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [replace(APP, tags=["app:1", "app:latest", "other:2"])])
    with opened(f"oci:{tmp_path}/layout") as images:
        assert only(images).references == ("docker.io/library/app:1", "docker.io/library/app:latest", "docker.io/library/other:2")


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Path:
    files: Tree = {}
    entries = [
        named(manifest(files, APP), ref="app:1"),
        named(manifest(files, ARM), ref="v1.0+build"),
        named(manifest(files, ImageSpec([BASE])), image="registry.example/base:2", ref="2"),
        manifest(files, ImageSpec([EMPTY])),
    ]
    return write_directory(tmp_path / "layout", write_index(files, entries))


@pytest.mark.parametrize(
    ("ref", "spec"),
    [
        ("app:1", APP),
        ("docker.io/library/app:1", APP),
        ("v1.0+build", ARM),
        ("registry.example/base:2", ImageSpec([BASE])),
        ("2", ImageSpec([BASE])),
        ("@0", APP),
        ("@3", ImageSpec([EMPTY])),
        (f"@{APP.config_digest}", APP),
        (f"app:1@{APP.config_digest}", APP),
        (f"app@{APP.config_digest}", APP),
    ],
)
def test_a_reference_picks_one_image(layout: Path, ref: str, spec: ImageSpec) -> None:
    with opened(f"oci:{layout}:{ref}") as images:
        assert only(images).config_digest == spec.config_digest


def test_manifest_and_index_digests_pick_an_image(tmp_path: Path) -> None:
    files = oci_files([IndexSpec(PLATFORMS, ["app:1"]), APP])
    write_directory(tmp_path, files)
    with opened(f"oci:{tmp_path}:app:1@{APP.config_digest}") as images:
        by_config = only(images)
    with opened(f"oci:{tmp_path}:@{by_config.manifest_digest}") as images:
        assert only(images).config_digest == APP.config_digest
    with opened(f"oci:{tmp_path}:@0", "linux/arm64") as images:
        index, arm64 = only(images).index_digest, only(images).manifest_digest
    with opened(f"oci:{tmp_path}:@{index}", "linux/arm64") as images:
        assert only(images).manifest_digest == arm64
    with opened(f"oci:{tmp_path}:@{arm64}") as images:
        assert str(only(images).platform) == "linux/arm64/v8"


@pytest.mark.parametrize("ref", ["app", "app:2", "base:2", "@9", f"@{sha256(b'x')}", "latest"])
def test_a_reference_that_is_not_there_is_refused_with_a_list_of_what_is(layout: Path, ref: str) -> None:
    error = refusal(f"oci:{layout}:{ref}")
    assert f"has no image {ref}; it has app:1, v1.0+build, registry.example/base:2, 2, @3 (no name, sha256:" in error.message


# --- folders


def test_links_to_blobs_are_followed_inside_the_folder_only(tmp_path: Path) -> None:
    files = oci_files([APP], compression="none")
    path = blob_path(sha256(BASE))
    files["pool/base"] = files.pop(path)
    files[path] = Symlink("../../pool/base")
    write_directory(tmp_path / "layout", files)
    with opened(f"oci:{tmp_path}/layout") as images:
        assert layer_tars(only(images)) == [BASE, TOP]
    shutil.move(tmp_path / "layout/pool/base", tmp_path / "base")
    (tmp_path / "layout" / path).unlink()
    (tmp_path / "layout" / path).symlink_to(tmp_path / "base")
    error = refusal(f"oci:{tmp_path}/layout")
    assert "leaves the folder" in error.message
    assert "cp -rL" in str(error.hint)


def test_the_folder_itself_may_be_reached_through_a_link(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [APP])
    (tmp_path / "link").symlink_to("layout")
    with opened(f"oci:{tmp_path}/link/") as images:
        assert only(images).source == "oci:link"
        assert layer_tars(only(images)) == [BASE, TOP]


def test_no_file_stays_open(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [ImageSpec([BASE], [f"app:{number}"], config={"author": str(number)}) for number in range(50)])
    before = len(os.listdir("/proc/self/fd"))
    with opened(f"oci:{tmp_path}/layout") as images:
        assert len(images) == 50
        assert len(os.listdir("/proc/self/fd")) == before
        for image in images:
            layer_tars(image)
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert len(os.listdir("/proc/self/fd")) == before


# --- what is no layout


def test_what_is_something_else_is_named_with_the_way_out(tmp_path: Path) -> None:
    write_directory(tmp_path / "docker", {"manifest.json": b"[]"})
    write_directory(tmp_path / "empty", {"file": b""})
    write_directory(tmp_path / "future", {"oci-layout": dump({"imageLayoutVersion": "2.0.0"})})
    write_directory(tmp_path / "indexless", {"oci-layout": dump({"imageLayoutVersion": "1.0.0"})})
    write_tar(tmp_path / "docker.tar", {"manifest.json": b"[]"})
    oci_archive(tmp_path / "oci.tar", [APP])
    for source, message, hint in (
        ("oci:absent", "does not exist", "first colon"),
        ("oci:oci.tar", "not a folder", "oci-archive:"),
        ("oci-archive:docker", "is a folder", "oci:"),
        ("oci:docker", "not an OCI image layout", "docker-archive:"),
        ("oci-archive:docker.tar", "not an OCI image layout", "docker-archive:"),
        ("oci:empty", "not an OCI image layout", "None"),
        ("oci:future", "version 2.0.0", "None"),
        ("oci:indexless", "no index.json", "incomplete"),
    ):
        transport, name = source.split(":")
        error = refusal(f"{transport}:{tmp_path / name}")
        assert message in error.message, source
        assert hint in str(error.hint), source


# --- real programs


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def skopeo_copy(source: str, target: str, *options: str) -> str:
    run("skopeo", "--insecure-policy", "copy", *options, source, target)
    return target


def test_skopeo_copies_keep_the_image_in_every_format_and_compression(tmp_path: Path) -> None:
    require("skopeo")
    first = f"docker-archive:{docker_archive(tmp_path / 'first.tar', [ImageSpec([BASE, TOP, BASE, EMPTY], ['app:1'])])}:app:1"
    oci = skopeo_copy(first, f"oci:{tmp_path}/layout:app:1")
    sources = [
        first,
        oci,
        skopeo_copy(first, f"docker-archive:{tmp_path}/second.tar:app:1"),
        skopeo_copy(oci, f"oci-archive:{tmp_path}/app.tar:app:1"),
        skopeo_copy(oci, f"docker-archive:{tmp_path}/third.tar:app:1"),
        *(
            skopeo_copy(oci, f"oci:{tmp_path}/{how}:app:1", "--dest-compress-format", how, "--dest-compress-level", "9")
            for how in ("gzip", "zstd")
        ),
        skopeo_copy(oci, f"oci:{tmp_path}/plain:app:1", "--dest-decompress"),
    ]
    by_digest: dict[str, set[Any]] = {}
    contents = []
    for source in sources:
        with opened(source) as images:
            image = only(images)
            assert image.references == ("docker.io/library/app:1",)
            assert image.config == run("skopeo", "inspect", "--config", "--raw", source).encode()
            by_digest.setdefault(image.config_digest, set()).add((image.config, image.diff_ids))
            contents.append(layer_tars(image))
    assert all(content == [BASE, TOP, BASE, EMPTY] for content in contents)
    assert all(len(configs) == 1 for configs in by_digest.values())
    # skopeo rewrites the config between the two families, and nowhere else.
    assert len(by_digest) <= 3


def test_skopeo_writes_and_reads_a_name_as_we_do(tmp_path: Path) -> None:
    require("skopeo")
    oci_layout(tmp_path / "layout", [APP, ImageSpec([EMPTY], ["other:1"])])
    for number, ref in enumerate(("app:1", "other:1")):
        with opened(f"oci:{tmp_path}/layout:{ref}") as images:
            assert only(images).config == run("skopeo", "inspect", "--config", "--raw", f"oci:{tmp_path}/layout:{ref}").encode()
        skopeo_copy(f"oci:{tmp_path}/layout:{ref}", f"oci-archive:{tmp_path}/{number}.tar:latest")
        with opened(f"oci-archive:{tmp_path}/{number}.tar:latest") as images:
            assert only(images).references == ()


def test_umoci_unpacks_and_tags_the_image_that_we_read(tmp_path: Path) -> None:
    require("umoci")
    oci_layout(tmp_path / "layout", [ImageSpec([BASE, TOP], ["one"])])
    run("umoci", "tag", "--image", f"{tmp_path}/layout:one", "two")
    run("umoci", "config", "--image", f"{tmp_path}/layout:one", "--tag", "three", "--author", "somebody")
    with opened(f"oci:{tmp_path}/layout:one") as one, opened(f"oci:{tmp_path}/layout:two") as two:
        assert identity(only(one)) == identity(only(two))
    with opened(f"oci:{tmp_path}/layout:three") as three:
        assert layer_tars(only(three)) == [BASE, TOP]
        assert json.loads(only(three).config)["author"] == "somebody"
    with opened(f"oci:{tmp_path}/layout") as images:
        assert len(images) == 2


@pytest.fixture(name="vfs")
def _vfs() -> Iterator[list[str]]:
    """podman with an empty store of its own, whose run root must have a short path."""
    require("podman")
    with tempfile.TemporaryDirectory(prefix="sl-") as folder:
        places = [f"--{option}={folder}/{option}" for option in ("root", "runroot", "tmpdir")]
        yield ["podman", *places, "--storage-driver=vfs", "--events-backend=none"]


def test_podman_save_writes_layouts_with_the_same_image(tmp_path: Path, vfs: list[str]) -> None:
    oci_archive(tmp_path / "first.tar", [replace(APP, tags=["docker.io/library/app:1"])])
    run(*vfs, "load", "-q", "-i", tmp_path / "first.tar")
    run(*vfs, "save", "-q", "--format", "oci-archive", "-o", tmp_path / "saved.tar", "docker.io/library/app:1")
    run(*vfs, "save", "-q", "--format", "oci-dir", "-o", tmp_path / "saved", "docker.io/library/app:1")
    for source in (f"oci-archive:{tmp_path}/saved.tar", f"oci:{tmp_path}/saved"):
        with opened(f"oci-archive:{tmp_path}/first.tar") as before, opened(source) as after:
            assert identity(only(before)) == identity(only(after))
    with opened(f"oci-archive:{tmp_path}/saved.tar") as images:
        assert only(images).references == ("docker.io/library/app:1",)
