"""A build becomes a bundle only when it is whole and of this manifest and lock."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from archives import oci_layout
from commandline import shiplap_command
from locks import two_images, write_manifest
from shiplap.adapters.bundle import BundleRefused, read_build, write_bundle
from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.preparing import GenerateRefused, Wishes, prepare
from shiplap.core.errors import Refused
from shiplap.core.lock.document import load_lock
from shiplap.core.manifest import load_manifest, parse_manifest

APP, DB = two_images()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest, its lock, and its build in ``out``."""
    folder = tmp_path_factory.mktemp("made")
    oci_layout(folder / "app", [APP])
    write_manifest(folder, [{"ref": "app:1", "from": "oci:app", "license": "MIT"}], name="gateway")
    for words in (["lock"], ["build", "-o", "out"]):
        done = shiplap_command("-C", str(folder), *words)
        assert done.returncode == 0, done.stderr
    return folder


def config_of(folder: Path, wishes: Wishes) -> AdapterConfig:
    return prepare(load_manifest(folder / "shiplap.yaml"), load_lock(folder / "shiplap.lock.yaml"), wishes)


def test_the_bundle_has_every_artifact_and_its_sha256(made: Path) -> None:
    config = config_of(made, Wishes(prebuilt=made / "out"))
    assert config.prebuilt is not None
    pieces = io.BytesIO()
    write_bundle(made / "out", config.prebuilt.files, f"{config.name}-{config.version}", config.epoch, pieces.write)
    data = pieces.getvalue()
    assert (config.prebuilt.sha256, config.prebuilt.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert config.prebuilt.root_hash == (made / "out/store.roothash").read_text().strip()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        assert {(one.uid, one.gid, one.mtime) for one in members} == {(0, 0, config.epoch)}
        for one in members[1:]:
            file = tar.extractfile(one)
            assert file is not None and file.read() == (made / "out" / one.name.partition("/")[2]).read_bytes()
    assert [one.name for one in members[1:]] == [
        f"gateway-20240501/{name}" for name in sorted(path.name for path in (made / "out").iterdir())
    ]


def test_the_resolved_manifest_is_a_manifest_of_the_same_meaning(made: Path) -> None:
    config = config_of(made, Wishes())
    again = parse_manifest(config.manifest_text.encode(), "shiplap.yaml")
    assert (again.name, again.outputs, again.store_path, again.images[0].license) == (
        "gateway",
        ("squashfs", "verity"),
        "/usr/share/shiplap",
        "MIT",
    )
    assert config.lock_text == (made / "shiplap.lock.yaml").read_text()


def damaged(made: Path, tmp_path: Path, name: str, data: bytes | None) -> Path:
    copy = tmp_path / "out"
    shutil.copytree(made / "out", copy)
    if data is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(data)
    return copy


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("SHA256SUMS", None, "no finished build"),
        ("store.squashfs", b"other", "is not what SHA256SUMS says"),
        ("store.squashfs", None, "is missing"),
        ("SHA256SUMS", b"0  ../../etc/passwd\n", "a line that no build writes"),
        ("SHA256SUMS", b"0" * 64 + b"  ../../etc/passwd\n", "a line that no build writes"),
        ("SHA256SUMS", b"0" * 64 + b"  a\0b\n", "a line that no build writes"),
        ("SHA256SUMS", b"0" * 64 + b"  $(id)\n", "a line that no build writes"),
        ("SHA256SUMS", b"0" * 64 + b"  SHA256SUMS\n", "a line that no build writes"),
        ("SHA256SUMS", b"", "a line that no build writes"),
        ("SHA256SUMS", b"0" * 64 + b"  absent\n", "is missing"),
    ],
)
def test_a_build_that_is_not_whole_is_refused(made: Path, tmp_path: Path, name: str, data: bytes | None, said: str) -> None:
    with pytest.raises(BundleRefused, match=said):
        read_build(damaged(made, tmp_path, name, data))


def test_a_build_of_other_images_or_options_is_refused(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    oci_layout(folder / "db", [DB])
    write_manifest(folder, [{"ref": "db:1", "from": "oci:db", "license": "MIT"}], name="gateway")
    assert shiplap_command("-C", str(folder), "lock").returncode == 0
    with pytest.raises(BundleRefused, match="other images than the lock pins"):
        config_of(folder, Wishes(prebuilt=made / "out"))
    manifest = json.loads((made / "shiplap.yaml").read_text()) | {"store-path": "/opt/store"}
    with pytest.raises(BundleRefused, match="store-path '/usr/share/shiplap', the manifest and its lock say '/opt/store'"):
        prepare(parse_manifest(json.dumps(manifest).encode(), "x"), load_lock(made / "shiplap.lock.yaml"), Wishes(prebuilt=made / "out"))


def resealed(out: Path) -> Path:
    """``out`` with a SHA256SUMS of what is there."""
    names = sorted(path.name for path in out.iterdir() if path.name != "SHA256SUMS")
    (out / "SHA256SUMS").write_text("".join(f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in names))
    return out


def test_a_file_is_named_once_and_no_pipe_is_waited_for(made: Path, tmp_path: Path) -> None:
    line = (made / "out/SHA256SUMS").read_bytes().splitlines(keepends=True)[0]
    with pytest.raises(BundleRefused, match="a line that no build writes"):
        read_build(damaged(made, tmp_path / "a", "SHA256SUMS", line + line))
    out = damaged(made, tmp_path / "b", "store.squashfs", None)
    os.mkfifo(out / "store.squashfs")
    with pytest.raises(BundleRefused, match="no regular file"):
        read_build(out)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("store.roothash", b'"; rm -rf /\n', "which is no root hash"),
        ("store.json", b"[" * 5000, "no readable store.json"),
        ("store.json", b"{}", "no readable store.json"),
        ("store.json", b'{"images": [1]}', "no readable store.json"),
        ("target.tar", None, r"has no target\.tar"),
        ("store.squashfs", None, r"has no store\.squashfs"),
    ],
)
def test_a_build_that_no_device_can_use_is_refused(made: Path, tmp_path: Path, name: str, data: bytes | None, said: str) -> None:
    out = resealed(damaged(made, tmp_path, name, data))
    with pytest.raises(BundleRefused, match=said):
        config_of(made, Wishes(prebuilt=out))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("driver", "vfs", "driver 'vfs', the manifest and its lock say 'overlay2'"),
        ("platform", "linux/s390x", "platform 'linux/s390x'"),
        ("security-version", 3, "security-version 3"),
        ("epoch", 7, "epoch 7"),
        ("images", [], "other images"),
    ],
)
def test_every_word_of_the_build_that_differs_is_named(made: Path, tmp_path: Path, key: str, value: object, said: str) -> None:
    identity = json.loads((made / "out/store.json").read_bytes()) | {key: value}
    out = resealed(damaged(made, tmp_path, "store.json", json.dumps(identity).encode()))
    with pytest.raises(BundleRefused, match=said):
        config_of(made, Wishes(prebuilt=out))


def test_an_image_under_another_name_is_another_image(made: Path, tmp_path: Path) -> None:
    identity = json.loads((made / "out/store.json").read_bytes())
    identity["images"][0]["references"] = ["docker.io/library/app:2"]
    out = resealed(damaged(made, tmp_path, "store.json", json.dumps(identity).encode()))
    with pytest.raises(BundleRefused, match="other images"):
        config_of(made, Wishes(prebuilt=out))


def test_without_a_store_image_there_is_nothing_for_the_device(made: Path) -> None:
    manifest = json.loads((made / "shiplap.yaml").read_text()) | {"outputs": ["tar"]}
    with pytest.raises(GenerateRefused, match="`outputs` has none"):
        prepare(parse_manifest(json.dumps(manifest).encode(), "x"), load_lock(made / "shiplap.lock.yaml"), Wishes())


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes(version="v1"), "numbers and dots"),
        (Wishes(maintainer="me"), "Name <address>"),
        (Wishes(maintainer='a" <a@b>'), "Name <address>"),
        (Wishes(maintainer="$(id) <a@b>"), "Name <address>"),
        (Wishes(maintainer="a\rb <a@b>"), "Name <address>"),
        (Wishes(version="1" * 300), "numbers and dots"),
        (Wishes(tool_url="https://example.com/$(id).tar"), "--tool-url"),
        (Wishes(tool_url="https://example.com/a;b=c"), "--tool-url"),
        (Wishes(tool_url="https://example.com/a,b.tar"), "--tool-url"),
        (Wishes(tool_url="https://example.com/"), "--tool-url"),
        (Wishes(tool_url="https://example.com"), "--tool-url"),
        (Wishes(tool_url="file:///srv/*.tar"), "--tool-url"),
        (Wishes(prebuilt_url="https://example.com/a b.tar"), "--prebuilt-url"),
        (Wishes(prebuilt_url="https://example.com/x.tar"), "without --prebuilt"),
    ],
)
def test_options_that_no_build_system_takes_are_refused(made: Path, wishes: Wishes, said: str) -> None:
    with pytest.raises(GenerateRefused, match=said):
        config_of(made, wishes)


@pytest.mark.parametrize("url", ["https://me@example.com:8443/a//b/x.tar?token=1&to=2", "http://[2001:db8::1]/x.tar", "file:///srv/x.tar"])
def test_urls_of_files_are_taken_as_they_are(made: Path, url: str) -> None:
    assert config_of(made, Wishes(tool_url=url)).host_tool.url == url


def test_every_image_without_a_license_is_named_at_once(made: Path) -> None:
    manifest = json.loads((made / "shiplap.yaml").read_text())
    del manifest["images"][0]["license"]
    with pytest.raises(GenerateRefused, match=r"no license is stated for docker\.io/library/app:1"):
        prepare(parse_manifest(json.dumps(manifest).encode(), "x"), load_lock(made / "shiplap.lock.yaml"), Wishes())
    manifest["images"][0]["ref"] = "other:1"
    with pytest.raises(Refused, match=r"the lock has no image docker\.io/library/other:1"):
        prepare(parse_manifest(json.dumps(manifest).encode(), "x"), load_lock(made / "shiplap.lock.yaml"), Wishes())
