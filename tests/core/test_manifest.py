"""A manifest becomes frozen values, or all of its problems at once."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import DIGEST, SMALLEST, buildable, whole
from shiplap.core.imageform import EROFS_LEVELS, SQUASHFS_LEVELS, SQUASHFS_TOOLS_OF
from shiplap.core.libarchive import COMPRESSIONS
from shiplap.core.limits import Limits
from shiplap.core.manifest import (
    ImageRequest,
    ManifestError,
    ManifestUnreadable,
    Overrides,
    defaults,
    json_schema,
    load_manifest,
    parse_manifest,
    resolve,
    to_data,
)
from shiplap.core.manifest.checks import (
    _ARCHIVE_HIGHEST,
    IN_THIS_RELEASE,
)
from shiplap.core.manifest.model import ArchiveSettings, SquashfsSettings, VeritySettings
from shiplap.core.platform import Platform
from shiplap.core.reference import parse_reference
from shiplap.core.registry.settings import RegistrySettings
from shiplap.rootfs.sinks import TOOLS
from shiplap.verity.parameters import DIGEST_BYTES


def parsed(data: dict[str, Any]) -> Any:
    return parse_manifest(yaml.safe_dump(data, sort_keys=False).encode(), "test.yaml")


def problems(data: dict[str, Any]) -> list[tuple[str, str]]:
    """(path, message) of every problem, without places."""
    with pytest.raises(ManifestError) as caught:
        parsed(data)
    return [(problem.path, problem.message) for problem in caught.value.problems]


def changed(path: str, value: Any) -> dict[str, Any]:
    """:func:`buildable` with the value at a dotted path replaced."""
    data = buildable()
    *above, last = path.split(".")
    target = data
    for key in above:
        target = target.setdefault(key, {})
    target[last] = value
    return data


def test_the_smallest_manifest_gets_every_default() -> None:
    manifest = parse_manifest(SMALLEST, "shiplap.yaml")
    assert manifest.images == (ImageRequest(parse_reference("app:1"), "docker-archive:app.tar", line=3),)
    assert (manifest.version, manifest.name, manifest.platform, manifest.epoch, manifest.security_version) == (1, "store", None, None, None)
    assert (manifest.mode, manifest.engine, manifest.driver, manifest.outputs) == ("store", "docker", "overlay2", ("squashfs", "verity"))
    assert manifest.store_path == "/usr/share/shiplap"
    assert manifest.squashfs == SquashfsSettings("builtin", "zstd", 15, 128 << 10, "overlay")
    assert manifest.verity == VeritySettings("sha256", 0, "lazy", "eio", "auto")
    assert manifest.archive == ArchiveSettings("none", 0)
    assert manifest.budget_store_image_bytes is None
    assert manifest.limits == Limits()


def test_everything_that_is_written_arrives() -> None:
    data = buildable()
    data["squashfs"] = {"tool": "mksquashfs", "allow-tool": ["4.7.2"], "compression": "gzip", "level": 4, "block-size": "1M"}
    data["limits"] = {"layer-bytes": "1G", "entries": 10, "metadata-bytes": 4096}
    data["verity"] = {"hash": "sha512"}
    manifest = parsed(data)
    assert manifest.platform == Platform("linux", "arm64", "v8")
    assert (manifest.name, manifest.epoch, manifest.security_version) == ("gateway", 1700000000, 1)
    image = manifest.images[0]
    assert (str(image.ref), image.digest, image.config_digest) == ("docker.io/library/redis:7", DIGEST, DIGEST)
    assert (image.license, image.allow_foreign_elf) == ("Apache-2.0", ("/opt/x86-tool",))
    assert manifest.squashfs == SquashfsSettings("mksquashfs", "gzip", 4, 1 << 20, "overlay", ("4.7.2",))
    assert manifest.limits == Limits(layer_bytes=1 << 30, entries=10, metadata_bytes=4096)
    assert manifest.budget_store_image_bytes == 200 << 20
    assert manifest.verity.hash == "sha512"
    settings = RegistrySettings(False, Path("certs"), Path("auth.json"), ("mirror.example.org/hub",))
    assert manifest.registries == {"127.0.0.1:5000": settings}


def test_a_manifest_is_a_value() -> None:
    manifest = parse_manifest(SMALLEST, "a")
    assert manifest == parse_manifest(SMALLEST, "b")
    assert hash(manifest) == hash(parse_manifest(SMALLEST, "b"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.mode = "archive"  # type: ignore[misc]


def test_an_image_without_from_comes_from_its_own_registry() -> None:
    manifest = parse_manifest(b"version: 1\nimages: [{ref: redis:7}]", "x")
    assert manifest.images[0].source == "docker://redis:7"


@pytest.mark.parametrize(("compression", "level"), [("zstd", 15), ("gzip", 9), ("lzo", 8), ("xz", None), ("lz4", None)])
def test_each_compression_has_its_own_default_level(compression: str, level: int | None) -> None:
    data = buildable()
    data["squashfs"] = {"tool": "tar2sqfs", "compression": compression}
    assert parsed(data).squashfs.level == level


def test_written_out_and_read_again_a_manifest_is_the_same() -> None:
    manifest = parsed(buildable())
    again = parsed(to_data(manifest))
    assert dataclasses.replace(again, images=manifest.images) == manifest
    assert to_data(again) == to_data(manifest)


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    text = b"""\
version: 2
name: Gate Way
platfrom: linux/arm64
epoch: 2023-11-14
images:
  - ref: redis:7
    from: docker-archive:redis.tar
    digest: sha256:abc
  - ref: docker.io/library/redis:7
    licence: MIT
  - ref: 1.10
  - from: oci:layout
mode: stor
outputs: [squashfs, erofs, tar, tar]
driver: containerd
squashfs: { compression: xz, level: 15, block-size: 100K }
store-path: /var/lib/docker/x
budget: { store-image: 200MB }
containers:
  - { name: cache, image: redis, restart: no }
name: again
"""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "shiplap.yaml")
    assert caught.value.message.splitlines() == [
        "shiplap.yaml has 19 problems",
        "  shiplap.yaml:1:10: version: must be 1, not `2`: this release reads version 1",
        "  shiplap.yaml:2:7: name: `Gate Way`: write lower case letters, digits, `.`, `_`, `+` or `-`, at most 63",
        "  shiplap.yaml:3:1: platfrom: unknown key `platfrom`; did you mean `platform`?",
        "  shiplap.yaml:4:8: `2023-11-14` is a date in YAML 1.1 and text in YAML 1.2: quote it",
        "  shiplap.yaml:8:13: images[0].digest: `sha256:abc`: write sha256: and 64 lower case hexadecimal digits",
        "  shiplap.yaml:9:10: images[1].ref: `docker.io/library/redis:7` is the same reference as that of images[0]",
        "  shiplap.yaml:10:5: images[1].licence: unknown key `licence`; did you mean `license`?",
        '  shiplap.yaml:11:10: images[2].ref: must be text, not `1.10`: put it in quotes, "1.10"',
        "  shiplap.yaml:12:5: images[3].ref: the key `ref` is missing",
        "  shiplap.yaml:13:7: mode: `stor` is not one of store, archive; did you mean `store`?",
        "  shiplap.yaml:14:10: outputs: `squashfs` and `erofs` are two forms of the same store: choose one",
        "  shiplap.yaml:14:33: outputs[3]: `tar` stands here twice",
        "  shiplap.yaml:15:9: driver: `containerd` is not yet implemented in this release",
        "  shiplap.yaml:16:37: squashfs.level: xz has no level in SquashFS: leave it out",
        "  shiplap.yaml:16:53: squashfs.block-size: `100K` is not a power of two from 4K to 1M",
        "  shiplap.yaml:17:13: store-path: `/var/lib/docker/x` lies in the data-root /var/lib/docker,"
        " where the engine would hide or delete it",
        "  shiplap.yaml:18:24: budget.store-image: `200MB`: write a size such as 128K, 256M, 16G or 131072 (K, M and G are powers of 1024)",
        "  shiplap.yaml:20:43: `no` is true or false in YAML 1.1 and text in YAML 1.2: write true or false, or quote it",
        "  shiplap.yaml:21:1: the key `name` stands here a second time; the first is on line 2",
    ]
    assert caught.value.hint is not None
    assert "shiplap schema" in caught.value.hint


@pytest.mark.parametrize(
    ("path", "value", "where", "message"),
    [
        ("platform", "arm64", "platform", "'arm64' is not a platform"),
        ("platform", "windows/amd64", "platform", "only linux"),
        ("images", [{"ref": "UPPER/case"}], "images[0].ref", "lower case"),
        ("images", [{"ref": "a b"}], "images[0].ref", "is not an image reference"),
        ("images", [{"ref": "a:1", "from": "docker-archive:"}], "images[0].from", "names no file"),
        ("images", [{"ref": "a:1", "from": "docker-archiv:./x.tar"}], "images[0].from", "did you mean docker-archive:?"),
        ("images", [{"ref": "a"}, {"ref": "a:latest"}], "images[1].ref", "the same reference as that of images[0]"),
        ("driver", "overlay", "driver", "is no driver of docker; it has overlay2, vfs, containerd"),
        ("mode", "archive", "outputs[0]", "`squashfs` does not exist in mode archive, which has tar"),
        ("outputs", ["verity"], "outputs", "add `squashfs` or `erofs`"),
        ("outputs", ["tar", "verity"], "outputs", "add `squashfs` or `erofs`"),
        ("squashfs", {"compression": "gzip", "level": 10}, "squashfs.level", "10 is no level of gzip, which has 1 to 9"),
        ("squashfs", {"compression": "lz4", "level": 1}, "squashfs.level", "lz4 has no level"),
        (
            "squashfs",
            {"compression": "lzo"},
            "squashfs.compression",
            "builtin does not write lzo: use `tool: tar2sqfs` or `tool: mksquashfs`",
        ),
        (
            "squashfs",
            {"tool": "tar2sqfs", "compression": "none"},
            "squashfs.compression",
            "tar2sqfs does not write none: use `tool: builtin`",
        ),
        ("squashfs.block-size", "2M", "squashfs.block-size", "not a power of two from 4K to 1M"),
        ("squashfs.block-size", 2048, "squashfs.block-size", "not a power of two from 4K to 1M"),
        ("erofs", {"compression": "lz4hc", "level": 13}, "erofs.level", "13 is no level of lz4hc, which has 1 to 12"),
        ("erofs", {"compression": "lz4", "level": 1}, "erofs.level", "lz4 has no level in EROFS"),
        ("erofs.cluster-size", "2M", "erofs.cluster-size", "not a power of two from 4K to 1M"),
        ("erofs.cluster-size", "5000", "erofs.cluster-size", "not a power of two from 4K to 1M"),
        ("archive", {"level": 3}, "archive.level", "3 is no level of none, which has only 0"),
        ("archive", {"compression": "xz", "level": 10}, "archive.level", "which has 0 to 9"),
        ("budget.store-image", "9999999999T", "budget.store-image", "out of range"),
        ("limits.layer-bytes", "9999999999T", "limits.layer-bytes", "out of range"),
        ("store-path", "/var/lib/docker", "store-path", "lies in the data-root"),
    ],
)
def test_what_a_schema_cannot_say_is_checked_too(path: str, value: Any, where: str, message: str) -> None:
    found = [text for one, text in problems(changed(path, value)) if one == where]
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    "path",
    [
        *("/usr/share/", "/", "", "usr/share", "/usr//share", "/usr/./share", "/usr/../share", "/usr/.hidden"),
        *("/usr/share/a b", "/usr/share\n", "/usr/sh:are", "/usr/$HOME", "/usr/ü", "/" + "a" * 200),
    ],
)
def test_a_store_path_is_absolute_clean_and_plain(path: str) -> None:
    assert [where for where, _ in problems(changed("store-path", path))] == ["store-path"]


@pytest.mark.parametrize(
    "host", ["https://registry.example.org", "host", "host:5000/team", "host:port", "a b", "registry.example.org:5000:1"]
)
def test_a_registry_is_named_by_its_host(host: str) -> None:
    (found,) = problems(changed("registries", {host: {}}))
    assert "is not host[:port] of a registry" in found[1]


@pytest.mark.parametrize("mirror", ["https://mirror.example.org", "mirror", "m.org/Upper", "m.org/a:1", "m.org/a@b"])
def test_a_mirror_is_a_host_with_a_prefix(mirror: str) -> None:
    found = problems(changed("registries", {"127.0.0.1:5000": {"mirrors": ["good.example.org:5000/a/b", mirror]}}))
    assert [(where, "is not host[:port][/prefix] of a mirror" in text) for where, text in found] == [
        ('registries."127.0.0.1:5000".mirrors[1]', True)
    ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("driver", "containerd"),
        ("verity.fec-roots", 2),
    ],
)
def test_keys_of_later_releases_say_so_where_they_would_change_the_outcome(path: str, value: Any) -> None:
    data = changed(path, value)
    found = [text for _, text in problems(data)]
    assert any("not yet implemented in this release" in text for text in found)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("engine-config", {}),
        ("target", {}),
        ("containers", []),
        ("placement", "file"),
        ("verity", {"fec-roots": 0, "check": "lazy", "on-corruption": "eio", "seal": "auto"}),
        ("data-root", {"path": "/var/lib/docker"}),
    ],
)
def test_keys_of_later_releases_may_hold_their_defaults(path: str, value: Any) -> None:
    assert parsed(changed(path, value)) is not None


def test_the_design_s_whole_manifest_is_read_and_written_back() -> None:
    manifest = parsed(whole())
    assert parsed(to_data(manifest)) == manifest


def test_options_are_stronger_than_the_manifest_and_bring_their_own_defaults() -> None:
    manifest = parse_manifest(SMALLEST, "x")
    archive = resolve(manifest, Overrides(mode="archive"))
    assert (archive.mode, archive.outputs) == ("archive", ("tar",))
    assert archive.images == manifest.images
    back = resolve(archive, Overrides(mode="store", outputs=("tar",), store_path="/opt/store", platform="linux/arm/v7", epoch=5))
    assert (back.mode, back.outputs, back.store_path, back.epoch) == ("store", ("tar",), "/opt/store", 5)
    assert back.platform == Platform("linux", "arm", "v7")
    assert resolve(manifest, Overrides()) == manifest


def test_outputs_that_the_manifest_names_stay_and_must_fit_the_option() -> None:
    with pytest.raises(ManifestError) as caught:
        resolve(parsed(buildable()), Overrides(mode="archive"))
    assert "outputs[0]: `squashfs` does not exist in mode archive" in caught.value.message


def test_wrong_options_are_named_as_options_without_a_line() -> None:
    with pytest.raises(ManifestError) as caught:
        resolve(defaults(), Overrides(mode="stor", driver="overlay", outputs=("squashf",), store_path="x", platform="arm"))
    assert {problem.path for problem in caught.value.problems} == {"--mode", "--driver", "--output", "--store-path", "--platform"}
    assert {problem.line for problem in caught.value.problems} == {0}
    assert caught.value.message.startswith("the command line has 5 problems")


def test_without_a_file_images_come_from_the_command_line() -> None:
    request = ImageRequest(None, "docker-archive:app.tar")
    manifest = resolve(defaults(), Overrides(images=(request,)))
    assert manifest.images == (request,)
    assert manifest == dataclasses.replace(defaults(), images=(request,))


def test_the_manifest_and_those_who_do_the_work_agree_on_what_there_is() -> None:
    schema = json_schema()
    squashfs, archive = (schema["$defs"][key]["properties"] for key in ("squashfs", "archive"))
    assert set(squashfs["compression"]["enum"]) == set(SQUASHFS_LEVELS)
    assert set(schema["$defs"]["erofs"]["properties"]["compression"]["enum"]) == set(EROFS_LEVELS)
    assert set(TOOLS) == set(IN_THIS_RELEASE["squashfs.tool"]) == set(squashfs["tool"]["enum"])
    assert {tool for tools in SQUASHFS_TOOLS_OF.values() for tool in tools} <= set(TOOLS)
    assert set(schema["$defs"]["verity"]["properties"]["hash"]["enum"]) <= set(DIGEST_BYTES)
    assert set(archive["compression"]["enum"]) <= set(COMPRESSIONS)
    for name, highest in _ARCHIVE_HIGHEST.items():
        assert highest == max(COMPRESSIONS[name].levels, default=0)


def test_a_file_that_is_not_there_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestUnreadable, match="No such file") as caught:
        load_manifest(tmp_path / "absent.yaml")
    assert caught.value.hint is not None
    with pytest.raises(ManifestUnreadable, match="directory"):
        load_manifest(tmp_path)
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(ManifestUnreadable, match="not a regular file"):
        load_manifest(tmp_path / "null")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ManifestUnreadable, match="not a regular file"):
        load_manifest(tmp_path / "pipe")  # and does not wait for a writer


def test_an_enormous_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ManifestError, match="more than the 262144"):
        load_manifest(path)


def test_what_is_written_travels_as_text_that_json_can_read() -> None:
    assert json.loads(parsed(buildable()).written) == buildable()
