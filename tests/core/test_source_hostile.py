"""Hostile and broken sources: one clear error, nothing followed out of the source, bounded work."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import (
    OCI,
    Hardlink,
    ImageSpec,
    IndexSpec,
    Symlink,
    Tree,
    blob_path,
    descriptor,
    docker_archive,
    docker_files,
    dump,
    manifest,
    oci_archive,
    oci_files,
    oci_layout,
    put,
    sha256,
    tar_items,
    write_directory,
    write_tar,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from layertar import TarItem, build, item, layer
from openedsources import layer_tars, opened, refusal
from shiplap.core.errors import OutsideFailure, ShiplapError
from shiplap.core.limits import Limits
from shiplap.core.sources import outertar

BASE = layer([item("bin/app", data=b"application" * 50, mode=0o755)])
TOP = layer([item("etc/app.conf", data=b"verbose")])
APP = ImageSpec([BASE, TOP], ["app:1"])
CONFIG = APP.config_digest[7:] + ".json"
LAYERS = [digest[7:] + ".tar" for digest in APP.diff_ids]


def docker_refusal(tmp_path: Path, files: Tree, limits: Limits | None = None) -> str:
    return refusal(f"docker-archive:{write_tar(tmp_path / 'bad.tar', files)}", limits=limits).message


def docker_manifest(**changes: Any) -> bytes:
    return dump([{"Config": CONFIG, "RepoTags": ["app:1"], "Layers": LAYERS, **changes}])


def raw_archive(tmp_path: Path, items: list[TarItem]) -> str:
    (tmp_path / "bad.tar").write_bytes(build(items))
    return f"docker-archive:{tmp_path}/bad.tar"


# --- docker-archive: names and links


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../secret", "a/../../secret", "x" * 5000, "absent.tar", "", ".", "..", "\udcff/x", "a\nb"],
    ids=lambda path: ascii(path[:20]),
)
def test_a_layer_or_config_path_that_leads_nowhere_or_out_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_bytes(BASE)
    for changes in ({"Layers": [LAYERS[0], path]}, {"Config": path}):
        files = docker_files([APP])
        files["manifest.json"] = docker_manifest(**changes)
        message = docker_refusal(tmp_path, files)
        assert "bad.tar" in message
        assert message.isprintable()
        if len(path) > 4096:
            assert "too long" in message


@pytest.mark.parametrize(
    "target",
    ["/etc/passwd", "../../etc/passwd", "../../../proc/self/mem", LAYERS[0], "absent", "", "t" * 5000],
    ids=lambda target: target[:20],
)
def test_a_layer_that_is_a_link_out_of_the_archive_or_to_itself_is_refused(tmp_path: Path, target: str) -> None:
    for link in (Symlink(target), Hardlink(target)):
        files = docker_files([APP])
        files[LAYERS[0]] = link
        message = docker_refusal(tmp_path, files)
        assert "bad.tar" in message


def test_an_absolute_link_is_refused_even_to_what_the_archive_has(tmp_path: Path) -> None:
    files = docker_files([ImageSpec([BASE, BASE])])
    files["copy"] = files[LAYERS[0]]
    files[LAYERS[0]] = Symlink("/copy")
    assert "leads out" in docker_refusal(tmp_path, files)


def test_links_that_lead_to_each_other_are_refused(tmp_path: Path) -> None:
    for first, second in ((Symlink("b"), Symlink("a")), (Hardlink("b"), Hardlink("a")), (Symlink("b/x"), Symlink("a"))):
        files = docker_files([APP])
        files.update({"a": first, "b": second, LAYERS[0]: Symlink("a")})
        assert "never ends" in docker_refusal(tmp_path, files)


def test_a_chain_of_folder_links_costs_no_exponential_time(tmp_path: Path) -> None:
    files = docker_files([APP])
    files["d0"] = Symlink(".")
    for depth in range(1, 40):
        files[f"d{depth}"] = Symlink(f"d{depth - 1}/d{depth - 1}")
    files[LAYERS[0]] = Symlink(f"d39/{LAYERS[1]}")
    begin = time.perf_counter()
    assert "never ends" in docker_refusal(tmp_path, files)
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize("name", [f"/{LAYERS[0]}", f"../{LAYERS[0]}", f"x/../../{LAYERS[0]}"])
def test_a_member_whose_name_leaves_the_archive_is_refused_when_it_is_needed(tmp_path: Path, name: str) -> None:
    files = docker_files([APP])
    del files[LAYERS[0]]
    source = raw_archive(tmp_path, [item(name, data=BASE), *tar_items(files)])
    assert LAYERS[0] in refusal(source).message
    files = docker_files([APP])
    with opened(raw_archive(tmp_path, [item(name, data=b"unused"), *tar_items(files)])) as images:
        assert layer_tars(images[0]) == [BASE, TOP]


@pytest.mark.parametrize("typeflag", ["3", "4", "6", "S", "V", "\xff"])
def test_a_layer_that_is_no_regular_file_is_refused(tmp_path: Path, typeflag: str) -> None:
    files = docker_files([APP])
    del files[LAYERS[0]]
    source = raw_archive(tmp_path, [item(LAYERS[0], type=typeflag.encode("latin-1")), *tar_items(files)])
    assert refusal(source).message.isprintable()


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    files = docker_files([APP])
    del files[LAYERS[0]]
    sparse = item(LAYERS[0], data=BASE, pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": LAYERS[0]})
    assert "not a regular file" in refusal(raw_archive(tmp_path, [sparse, *tar_items(files)])).message


@pytest.mark.parametrize("name", ["manifest.json", CONFIG])
def test_metadata_that_is_there_twice_is_refused(tmp_path: Path, name: str) -> None:
    """docker load takes the last, skopeo the first: the archive would be two images."""
    files = docker_files([APP])
    content = files[name]
    assert isinstance(content, bytes)
    source = raw_archive(tmp_path, [item(f"./{name}", data=content), *tar_items(files)])
    assert "there twice" in refusal(source).message


def test_an_archive_with_too_many_members_is_refused(tmp_path: Path) -> None:
    files = docker_files([APP])
    files.update({f"filler/{number}": b"" for number in range(50)})
    assert "more than 40 members" in docker_refusal(tmp_path, files, Limits(members=40))


# --- docker-archive: content


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"{}",
        b"[]",
        b"[1]",
        b"[null]",
        b"[[]]",
        b"[{}]",
        b"[" * 100_000,
        b'[{"Config":1}]',
        docker_manifest() + b"junk",
        docker_manifest(Layers=None),
        docker_manifest(Layers="x"),
        docker_manifest(Layers=[1, 2]),
        docker_manifest(Layers=LAYERS[:1]),
        docker_manifest(Layers=[*LAYERS, LAYERS[0]]),
        docker_manifest(RepoTags="app:1"),
        docker_manifest(RepoTags=[1]),
        docker_manifest(RepoTags=["app"]),
        docker_manifest(RepoTags=["App:1"]),
        docker_manifest(RepoTags=[""]),
        docker_manifest(RepoTags=["\udcff:1"]),
        docker_manifest(RepoTags=[f"app@{APP.config_digest}"]),
        docker_manifest(RepoTags=[f"app:1@{APP.config_digest}"]),
        docker_manifest(layers=[]),
        docker_manifest(Config=None),
        docker_manifest(Config="manifest.json"),
        docker_manifest(Config=LAYERS[0]),
    ],
    ids=range(28),
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, raw: bytes) -> None:
    files = docker_files([APP])
    files["manifest.json"] = raw
    message = docker_refusal(tmp_path, files)
    assert "bad.tar" in message
    assert message.isprintable()


def test_a_config_that_is_not_what_its_name_promises_is_refused(tmp_path: Path) -> None:
    for layout, name in (("skopeo", CONFIG), ("oci", blob_path(APP.config_digest))):
        files = docker_files([APP], layout=layout)
        files[name] = APP.config_bytes + b" "
        assert "instead of" in docker_refusal(tmp_path, files)


def test_a_blob_that_is_not_what_its_path_promises_is_refused(tmp_path: Path) -> None:
    files = docker_files([APP], layout="oci")
    files[blob_path(APP.diff_ids[1])] = BASE
    message = docker_refusal(tmp_path, files)
    assert APP.diff_ids[1] in message
    assert "has the digest" in message


def test_metadata_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    files = docker_files([APP])
    files["manifest.json"] = docker_manifest() + b" " * (4 << 20)
    assert "allowed for metadata" in docker_refusal(tmp_path, files)
    files = docker_files([ImageSpec([BASE], config={"author": "x" * (4 << 20)})])
    assert "allowed for metadata" in docker_refusal(tmp_path, files)


def test_more_layers_than_an_engine_takes_are_refused_from_every_source(tmp_path: Path) -> None:
    deep = ImageSpec([TOP] * 126, ["app:1"])
    docker_archive(tmp_path / "a.tar", [deep])
    oci_layout(tmp_path / "layout", [deep])
    for source in ("docker-archive:a.tar", "oci:layout"):
        transport, name = source.split(":")
        assert "max depth exceeded" in refusal(f"{transport}:{tmp_path / name}").message


def test_an_archive_cut_off_anywhere_is_refused_or_lacks_nothing(tmp_path: Path) -> None:
    files = docker_files([APP])
    whole = build(tar_items(files))
    needed = whole.index(docker_manifest()) + len(docker_manifest())
    for length in range(0, len(whole), 128):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        if length < needed:
            assert "cut.tar" in refusal(f"docker-archive:{tmp_path}/cut.tar").message
            continue
        try:
            with opened(f"docker-archive:{tmp_path}/cut.tar") as images:
                assert layer_tars(images[0]) == [BASE, TOP]
        except ShiplapError as error:
            assert "cut.tar" in error.message


@pytest.mark.parametrize("whole", ["gzip", "bzip2", "xz", "zstd"])
def test_a_compressed_archive_that_is_damaged_is_refused(tmp_path: Path, whole: str) -> None:
    path = docker_archive(tmp_path / "app.tar", [APP], whole=whole)
    good = path.read_bytes()
    for bad in (good[:-1], good[: len(good) // 2], good + b"trailing"):
        path.write_bytes(bad)
        message = refusal(f"docker-archive:{path}").message
        assert "app.tar" in message
        assert whole in message


@pytest.mark.parametrize("content", [b"", b"\0" * 1024, b"not a tar" * 100, b"\x1f\x8b\x08", b"PK\x03\x04" + bytes(600)])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    for transport in ("docker-archive", "oci-archive"):
        assert "x.tar" in refusal(f"{transport}:{tmp_path}/x.tar").message


# --- bombs and full disks


def test_a_bomb_as_archive_is_stopped_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar"
    path.write_bytes(gzip.compress(bytes(32 << 20)))
    error = refusal(f"docker-archive:{path}", limits=Limits(layer_bytes=8 << 20))
    assert "bomb.tar" in error.message
    assert str(8 << 20) in error.message
    assert "layer-bytes" in str(error.hint)


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "none"])
def test_a_bomb_as_layer_is_stopped_at_the_limit(tmp_path: Path, compression: str) -> None:
    bomb = ImageSpec([layer([item("zeros", data=bytes(9 << 20))])], ["app:1"])
    docker_archive(tmp_path / "a.tar", [bomb], compression=compression)
    oci_layout(tmp_path / "layout", [bomb], compression=compression)
    for source in ("docker-archive:a.tar", "oci:layout"):
        transport, name = source.split(":")
        error = refusal(f"{transport}:{tmp_path / name}", limits=Limits(layer_bytes=8 << 20))
        assert str(8 << 20) in error.message
        assert "layer-bytes" in str(error.hint)


def test_an_archive_compressed_twice_is_no_archive(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a.tar", [APP], whole="gzip")
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert "a.tar" in refusal(f"docker-archive:{path}").message


def failure(source: str) -> OutsideFailure:
    with pytest.raises(OutsideFailure) as caught, opened(source):
        pass
    return caught.value


def test_a_disk_that_fills_up_while_unpacking_is_an_outside_failure(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a.tar", [ImageSpec([layer([item("x", data=os.urandom(1 << 20))])])], whole="gzip")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, hard))
    try:
        error = failure(f"docker-archive:{path}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "a.tar: no room" in error.message
    assert "TMPDIR" in str(error.hint)


def test_too_little_room_is_seen_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = docker_archive(tmp_path / "a.tar", [APP], whole="gzip")
    monkeypatch.setattr(outertar, "_ROOM_CHECK_BYTES", 1 << 60)
    assert "MiB are free" in failure(f"docker-archive:{path}").message


def test_a_folder_for_temporary_files_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = docker_archive(tmp_path / "a.tar", [APP], whole="gzip")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    assert "absent" in failure(f"docker-archive:{path}").message


def test_nothing_is_left_behind_when_a_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    descriptors = os.listdir("/proc/self/fd")
    path = tmp_path / "bad.tar"
    path.write_bytes(gzip.compress(build(tar_items({"other": b"x" * 100_000}))))
    refusal(f"docker-archive:{path}")
    path.write_bytes(gzip.compress(os.urandom(100_000))[:-9])
    refusal(f"docker-archive:{path}")
    assert os.listdir(tmp_path / "tmp") == []
    assert os.listdir("/proc/self/fd") == descriptors


# --- OCI layouts


Change = Callable[[dict[str, Any]], object]


def oci_refusal(tmp_path: Path, files: Tree, limits: Limits | None = None) -> str:
    """The message with which the layout is refused, the same as folder and as archive."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        write_directory(Path(folder, "bad"), files)
        write_tar(Path(folder, "bad.tar"), files)
        first = refusal(f"oci:{folder}/bad", limits=limits).message
        second = refusal(f"oci-archive:{folder}/bad.tar", limits=limits).message
    assert first == second.replace("bad.tar", "bad")
    assert first.isprintable()
    return first


def changed_index(change: Change) -> Tree:
    files = oci_files([APP])
    index = json.loads(files["index.json"])  # type: ignore[arg-type]
    change(index)
    files["index.json"] = dump(index)
    return files


def changed_manifest(change: Change, *, media: dict[str, str] = OCI) -> Tree:
    """A layout whose manifest was changed before its digest was taken."""
    files: Tree = {"oci-layout": dump({"imageLayoutVersion": "1.0.0"})}
    entry = manifest(files, APP, "none", media)
    document = json.loads(files.pop(blob_path(entry["digest"])))  # type: ignore[arg-type]
    change(document)
    put(files, dump(document))
    entry = descriptor(entry["mediaType"], dump(document))
    files["index.json"] = dump({"schemaVersion": 2, "manifests": [entry]})
    return files


def first_of(index: dict[str, Any]) -> dict[str, Any]:
    entry = index["manifests"][0]
    assert isinstance(entry, dict)
    return entry


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "sha256:../../../../etc/passwd",
        "sha256:" + "0" * 63,
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 64 + "\n",
        "sha256:" + "０" * 64,
        "md5:" + "0" * 32,
        "../../etc:passwd",
        "sha256:" + "0" * 64,
        "x" * 100_000,
        7,
        None,
    ],
    ids=lambda digest: ascii(digest)[:20],
)
def test_a_digest_that_is_none_or_leads_nowhere_is_refused(tmp_path: Path, digest: object) -> None:
    oci_refusal(tmp_path, changed_index(lambda index: first_of(index).update(digest=digest)))
    oci_refusal(tmp_path, changed_manifest(lambda document: document["config"].update(digest=digest)))
    message = oci_refusal(tmp_path, changed_manifest(lambda document: document["layers"][1].update(digest=digest)))
    assert len(message) < 500


@pytest.mark.parametrize("size", [0, 1, -1, 1 << 62, 1 << 70, "5", None, 1.5, True])
def test_a_size_that_is_wrong_is_refused(tmp_path: Path, size: object) -> None:
    oci_refusal(tmp_path, changed_index(lambda index: first_of(index).update(size=size)))
    oci_refusal(tmp_path, changed_manifest(lambda document: document["config"].update(size=size)))
    oci_refusal(tmp_path, changed_manifest(lambda document: document["layers"][0].update(size=size)))


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_a_blob_that_is_missing_cut_off_longer_or_altered_is_refused_and_named(tmp_path: Path, which: str) -> None:
    files = oci_files([APP], compression="none")
    entry = first_of(json.loads(files["index.json"]))  # type: ignore[arg-type]
    path = blob_path({"manifest": entry["digest"], "config": APP.config_digest, "layer": APP.diff_ids[1]}[which])
    good = files[path]
    assert isinstance(good, bytes)
    for bad in (None, good[:-1], good + b"\0", good[:-1] + b"~", b""):
        broken = dict(files)
        if bad is None:
            del broken[path]
        else:
            broken[path] = bad
        assert path[-64:] in oci_refusal(tmp_path, broken)


def test_a_wrong_digest_is_said_before_wrong_compression(tmp_path: Path) -> None:
    files = oci_files([APP], compression="gzip")
    path = next(name for name, data in files.items() if isinstance(data, bytes) and data.startswith(b"\x1f\x8b"))
    data = files[path]
    assert isinstance(data, bytes)
    files[path] = data[:20] + bytes([data[20] ^ 0xFF]) + data[21:]
    assert "has the digest" in oci_refusal(tmp_path, files)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("schema 1", lambda document: document.update(schemaVersion=1)),
        ("schema 1", lambda document: document.update(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws")),
        ("schemaVersion", lambda document: document.update(schemaVersion=3)),
        ("schemaVersion", lambda document: document.pop("schemaVersion")),
        ("its descriptor says", lambda document: document.update(mediaType=OCI["index"])),
        ("index and a manifest", lambda document: document.update(manifests=[])),
        ("neither", lambda document: [document.pop("config"), document.pop("layers")]),
        ("no 'config'", lambda document: document.pop("config")),
        ("1 layers, its config 2", lambda document: document["layers"].pop()),
        ("3 layers, its config 2", lambda document: document["layers"].append(document["layers"][0])),
        ("encrypted", lambda document: document["layers"][0].update(mediaType=OCI["layer"] + "+gzip+encrypted")),
        ("unknown type", lambda document: document["layers"][0].update(mediaType="application/x-disk")),
        ("unknown type", lambda document: document["layers"][0].pop("mediaType")),
        ("engines read", lambda document: document.update(Layers=[])),
        ("'layers'", lambda document: document.update(layers={})),
        ("'layers'", lambda document: document.update(layers=[None])),
        ("'config'", lambda document: document.update(config=[])),
    ],
)
def test_a_manifest_that_engines_cannot_use_or_read_in_two_ways_is_refused(tmp_path: Path, message: str, change: Change) -> None:
    assert message in oci_refusal(tmp_path, changed_manifest(change))


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("its descriptor says text/plain", lambda index: first_of(index).update(mediaType="text/plain")),
        ("its descriptor says", lambda index: first_of(index).update(mediaType=OCI["index"])),
        ("schema 1", lambda index: first_of(index).update(mediaType="application/vnd.docker.distribution.manifest.v1+json")),
        ("'platform'", lambda index: first_of(index).update(platform="linux")),
        ("'os'", lambda index: first_of(index).update(platform={"os": 1})),
        ("'annotations'", lambda index: first_of(index).update(annotations=[])),
        ("'annotations'", lambda index: first_of(index).update(annotations={"a": 1})),
        ("'manifests'", lambda index: index.update(manifests={})),
        ("'manifests'", lambda index: index.update(manifests=[1])),
        ("no image", lambda index: index.update(manifests=None)),
    ],
)
def test_a_malformed_index_is_refused(tmp_path: Path, message: str, change: Change) -> None:
    assert message in oci_refusal(tmp_path, changed_index(change))


def test_a_foreign_layer_that_is_left_out_is_explained_and_one_that_is_there_is_used(tmp_path: Path) -> None:
    foreign = {**OCI, "layer": "application/vnd.oci.image.layer.nondistributable.v1.tar"}
    files = oci_files([APP], media=foreign, compression="none")
    write_directory(tmp_path / "good", files)
    with opened(f"oci:{tmp_path}/good") as images:
        assert layer_tars(images[0]) == [BASE, TOP]
    del files[blob_path(APP.diff_ids[0])]
    assert APP.diff_ids[0] in oci_refusal(tmp_path, files)
    write_directory(tmp_path / "bad", files)
    assert "foreign layer" in str(refusal(f"oci:{tmp_path}/bad").hint)


def nested(depth: int) -> Tree:
    files: Tree = {"oci-layout": dump({"imageLayoutVersion": "1.0.0"})}
    entry = manifest(files, APP)
    for _ in range(depth):
        document = dump({"schemaVersion": 2, "manifests": [entry]})
        put(files, document)
        entry = descriptor(OCI["index"], document)
    files["index.json"] = dump({"schemaVersion": 2, "manifests": [entry]})
    return files


def test_indexes_may_be_nested_but_not_without_end(tmp_path: Path) -> None:
    write_directory(tmp_path / "deep", nested(8))
    with opened(f"oci:{tmp_path}/deep") as images:
        assert layer_tars(images[0]) == [BASE, TOP]
    assert "nested more than 8 deep" in oci_refusal(tmp_path, nested(9))


def test_an_index_that_multiplies_itself_is_walked_once(tmp_path: Path) -> None:
    files: Tree = {"oci-layout": dump({"imageLayoutVersion": "1.0.0"})}
    entry = manifest(files, APP)
    for _ in range(8):
        document = dump({"schemaVersion": 2, "manifests": [entry] * 1000})
        put(files, document)
        entry = descriptor(OCI["index"], document)
    files["index.json"] = dump({"schemaVersion": 2, "manifests": [entry]})
    write_directory(tmp_path / "wide", files)
    begin = time.perf_counter()
    with opened(f"oci:{tmp_path}/wide") as images:
        assert len(images) == 1
    assert time.perf_counter() - begin < 5


def test_more_manifests_than_any_layout_has_are_refused(tmp_path: Path) -> None:
    files: Tree = {"oci-layout": dump({"imageLayoutVersion": "1.0.0"})}
    entries = [manifest(files, ImageSpec([], config={"author": str(number)})) for number in range(1001)]
    files["index.json"] = dump({"schemaVersion": 2, "manifests": entries})
    assert "more than 1000 manifests" in oci_refusal(tmp_path, files)


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"{", b"\xff", b"{}" + b" " * (4 << 20), b'{"a":' * 10_000])
def test_the_layouts_own_files_are_checked(tmp_path: Path, name: str, raw: bytes) -> None:
    files = oci_files([APP])
    files[name] = raw
    assert name in oci_refusal(tmp_path, files)


@pytest.mark.parametrize("what", ["folder", "fifo", "device", "link out", "link to a device", "dangling link", "endless link"])
def test_a_blob_or_index_that_is_no_file_of_the_folder_is_refused_and_never_opened(tmp_path: Path, what: str) -> None:
    for number, name in enumerate(("index.json", blob_path(APP.diff_ids[0]), blob_path(APP.config_digest))):
        layout = oci_layout(tmp_path / str(number), [APP], compression="none")
        path = layout / name
        path.unlink()
        if what == "folder":
            path.mkdir()
        elif what == "fifo":
            os.mkfifo(path)  # opening it for reading would wait for ever
        elif what == "device":
            if os.geteuid() != 0:
                pytest.skip("making a device needs root")
            os.mknod(path, 0o020600, os.makedev(1, 5))
        else:
            path.symlink_to(
                {"link out": "/etc/passwd", "link to a device": "/dev/zero", "dangling link": "absent", "endless link": path}[what]
            )
        assert path.name in refusal(f"oci:{layout}").message


def test_a_blob_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    big = ImageSpec([layer([item("x", data=bytes(3 << 20))])])
    oci_layout(tmp_path / "layout", [big], compression="none")
    path = tmp_path / "layout" / blob_path(big.diff_ids[0])
    with opened(f"oci:{tmp_path}/layout") as images, pytest.raises(ShiplapError, match="shorter"):
        for _ in images[0].layers[0].blob.chunks():
            os.truncate(path, 1 << 20)


def test_a_blob_that_changes_size_after_opening_is_refused(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [APP], compression="none")
    with opened(f"oci:{tmp_path}/layout") as images:
        os.truncate(tmp_path / "layout" / blob_path(APP.diff_ids[0]), 5)
        with pytest.raises(ShiplapError, match="has 5 bytes instead of"):
            images[0].layers[0].blob.slice()


# --- fuzz: nothing but a clear error ever comes out


def survives(source: str, limits: Limits) -> None:
    """Open and read ``source`` to the end: it works, or one printable ShiplapError comes."""
    try:
        with opened(source, None, limits) as images:
            for image in images:
                assert hashlib.sha256(image.config).hexdigest() == image.config_digest[7:]
                layer_tars(image, limits)
    except ShiplapError as error:
        assert error.message.isprintable(), error.message
        assert len(error.message) < 3000


SMALL = Limits(layer_bytes=1 << 20, metadata_bytes=1 << 16, members=1000)
SEEDS: dict[str, tuple[str, bytes]] = {
    "docker save": ("docker-archive", build(tar_items(docker_files([APP], layout="save", compression="gzip"), prefix="./"))),
    "docker 25": ("docker-archive", build(tar_items(docker_files([APP, ImageSpec([TOP])], layout="oci")))),
    "oci": ("oci-archive", build(tar_items(oci_files([IndexSpec([APP], ["app:1"], attestations=True)], compression=["gzip", "zstd"])))),
    "gzip": ("docker-archive", gzip.compress(build(tar_items(docker_files([APP]))), mtime=0)),
}


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_an_archive_with_random_bytes_changed_is_read_or_refused(
    seed: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    transport, good = SEEDS[seed]
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + 1] = data.draw(st.binary(max_size=3))
    if data.draw(st.booleans()):
        # A header whose checksum holds in spite of the change is read further.
        for start in range(0, len(raw) - 511, 512):
            if raw[start + 257 : start + 262] == b"ustar":
                block = raw[start : start + 512]
                total = sum(block) - sum(block[148:156]) + 256
                raw[start + 148 : start + 156] = b"%06o\0 " % (total % 0o777777)
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(raw)
        file.flush()
        survives(f"{transport}:{file.name}", SMALL)


STRANGE: list[Any] = [
    None,
    True,
    -1,
    1 << 70,
    1.5,
    "",
    "x",
    "\udc80",
    "/",
    "../x",
    "sha256:" + "0" * 64,
    [],
    {},
    [[]],
    [None],
    {"a": {}},
    "a\0b",
    "x" * 9000,
]


def mutated(value: Any, chance: random.Random) -> Any:
    """``value`` with one member somewhere replaced, removed or doubled."""
    value = copy.deepcopy(value)
    holder = value
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return value
        key = chance.choice(keys)
        inner = holder[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.8:
            holder = inner
            continue
        action = chance.random()
        if action < 0.7:
            holder[key] = chance.choice(STRANGE)
        elif action < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.append(inner)
        else:
            holder[key.swapcase()] = inner
        return value


@pytest.mark.parametrize("seed", range(4))
def test_documents_with_random_members_changed_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(150):
        if seed % 2:
            good = docker_files([APP], layout="skopeo")
            document = json.loads(good["manifest.json"])  # type: ignore[arg-type]
            config = json.loads(APP.config_bytes)
            if chance.random() < 0.5:
                raw = dump(mutated(config, chance))
                good["c.json"] = raw
                document[0]["Config"] = "c.json"
            else:
                document = mutated(document, chance)
            good["manifest.json"] = json.dumps(document).encode()
            survives(f"docker-archive:{write_tar(tmp_path / f'{number}.tar', good)}", SMALL)
        else:
            good = {"oci-layout": dump({"imageLayoutVersion": "1.0.0"})}
            raw_config = dump(mutated(json.loads(APP.config_bytes), chance)) if chance.random() < 0.4 else None
            entry = manifest(good, ImageSpec([BASE, TOP], raw_config=raw_config))
            if chance.random() < 0.5:
                path = blob_path(entry["digest"])
                changed = json.dumps(mutated(json.loads(good[path]), chance)).encode()  # type: ignore[arg-type]
                put(good, changed)
                entry = descriptor(OCI["manifest"], changed)
            index: Any = {
                "schemaVersion": 2,
                "manifests": [{**entry, "platform": {"os": "linux", "architecture": "amd64"}, "annotations": {"a": "b"}}],
            }
            good["index.json"] = json.dumps(mutated(index, chance) if chance.random() < 0.5 else index).encode()
            survives(f"oci:{write_directory(tmp_path / str(number), good)}", SMALL)


def test_the_seeds_of_the_fuzz_tests_are_good(tmp_path: Path) -> None:
    for transport, raw in SEEDS.values():
        (tmp_path / "a.tar").write_bytes(raw)
        with opened(f"{transport}:{tmp_path}/a.tar", None, SMALL) as images:
            assert layer_tars(images[0]) == [BASE, TOP]
    oci_archive(tmp_path / "b.tar", [APP])
    assert sha256(APP.config_bytes) == APP.config_digest
