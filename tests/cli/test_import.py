"""``shiplap import``: a data-root or a list of images becomes a manifest, and its store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from engines.dataroots import APP, BASE, OTHER, TOP, UNTAGGED, LeftBehind, fill
from engines.dockerd import Dockerd
from engines.installations import installations
from shiplap.core.manifest import load_manifest

LIST = b"# our containers\nredis 6-alpine redis_container\n\nregistry.example/acme/app 7.10\n"
OF_THE_LIST = """\
# The images of images.manifest, converted by `shiplap import`.
# Without `from:` an image is pulled under its own name: docker://<ref>. `shiplap lock` pins what that is today.
version: 1
images:
  - ref: docker.io/library/redis:6-alpine
  # redis:6-alpine under the name that the third word, redis_container, of line 2 gives it
  - ref: localhost/redis_container:6-alpine
    from: docker://docker.io/library/redis:6-alpine
  # redis:6-alpine under the name that the third word, redis_container, of line 2 gives it
  - ref: localhost/redis_container:latest
    from: docker://docker.io/library/redis:6-alpine
  - ref: registry.example/acme/app:7.10
"""


@pytest.fixture(name="listed")
def _listed(tmp_path: Path) -> Path:
    (tmp_path / "images.manifest").write_bytes(LIST)
    return tmp_path


def run(folder: Path, *words: str) -> str:
    """Standard error of a run in ``folder`` that goes well."""
    done = shiplap_command("-C", str(folder), "import", *words)
    assert done.returncode == 0, done.stderr
    return done.stderr


def refused(folder: Path, *words: str) -> str:
    done = shiplap_command("-C", str(folder), "import", *words)
    assert done.returncode == 2, done.stderr
    return done.stderr


# --- images.manifest


def test_a_list_becomes_a_manifest(listed: Path) -> None:
    assert run(listed, "images.manifest") == ""
    assert (listed / "shiplap.yaml").read_text() == OF_THE_LIST
    assert [str(one.ref) for one in load_manifest(listed / "shiplap.yaml").images][-1] == "registry.example/acme/app:7.10"
    assert not (listed / "shiplap-out").exists()


def test_an_existing_manifest_is_never_overwritten_unless_forced(listed: Path) -> None:
    for name in ("shiplap.yaml", "link.yaml"):
        (listed / "other.yaml").write_text("mine")
        target = listed / name
        if name == "link.yaml":
            target.symlink_to("absent.yaml")
        else:
            target.write_text("mine")
        said = refused(listed, "images.manifest", "--manifest", name)
        assert f"{name} exists already" in said and "--force" in said
    assert (listed / "shiplap.yaml").read_text() == "mine"
    run(listed, "images.manifest", "--force")
    assert (listed / "shiplap.yaml").read_text() == OF_THE_LIST
    assert (listed / "shiplap.yaml").stat().st_mode & 0o777 == 0o644
    assert sorted(one.name for one in listed.iterdir()) == ["images.manifest", "link.yaml", "other.yaml", "shiplap.yaml"]


def test_wrong_lines_are_all_named_and_nothing_is_written(listed: Path) -> None:
    (listed / "images.manifest").write_bytes(LIST + b"Redis 7\nredis\n")
    said = refused(listed, "images.manifest")
    assert "images.manifest:5:1: 'Redis'" in said and "images.manifest:6:1: `redis` has no version" in said
    assert not (listed / "shiplap.yaml").exists()


def test_a_list_builds_nothing_so_it_has_no_place_for_it(listed: Path) -> None:
    assert "-o and --no-store are for data-roots" in refused(listed, "images.manifest", "-o", "out")
    assert "-o and --no-store are for data-roots" in refused(listed, "images.manifest", "--no-store")


def test_a_platform_is_written_down(listed: Path) -> None:
    run(listed, "images.manifest", "--platform", "linux/arm/v7")
    assert str(load_manifest(listed / "shiplap.yaml").platform) == "linux/arm/v7"


def test_as_json_the_result_is_one_object(listed: Path) -> None:
    done = shiplap_command("-C", str(listed), "import", "images.manifest", "--json")
    result = json.loads(done.stdout)
    assert (result["manifest"], result["build"], result["skipped"]) == ("shiplap.yaml", None, [])
    assert result["images"][1] == {
        "ref": "localhost/redis_container:6-alpine",
        "from": "docker://docker.io/library/redis:6-alpine",
        "digest": None,
        "config-digest": None,
    }


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path, "absent")
    assert "there is no folder absent" in refused(tmp_path, ".", "--manifest", "absent/shiplap.yaml")
    assert "not a data-root of Docker" in refused(tmp_path, ".")


# --- a data-root


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeftBehind]:
    installations()[0].demand("docker")
    work = tmp_path_factory.mktemp("left")
    yield fill(work)
    shutil.rmtree(work)


@pytest.mark.parametrize("out", [None, "OUT"])
def test_the_store_is_the_one_from_the_original_images(left: LeftBehind, tmp_path: Path, out: str | None) -> None:
    said = run(tmp_path, str(left.root), *(["-o", out] if out else []))
    assert f"note: {left.root}: left out: sha256:" in said and "(no tag)" in said
    manifest = (tmp_path / "shiplap.yaml").read_text()
    # The same manifest with the sources that the images came from: archives that the engine saved before it stopped.
    assert f"from: docker-root:{left.root}:built:1" in manifest
    (tmp_path / "originals.yaml").write_text(manifest.replace(f"docker-root:{left.root}", f"docker-archive:{left.saved}"))
    done = shiplap_command("-C", str(tmp_path), "build", "-f", "originals.yaml", "-o", "originals")
    assert done.returncode == 0, done.stderr
    for name in ("store.squashfs", "store.json", "store.roothash"):
        assert (tmp_path / (out or "shiplap-out") / name).read_bytes() == (tmp_path / "originals" / name).read_bytes()
    assert shiplap_command("verify", str(tmp_path / (out or "shiplap-out"))).returncode == 0


def test_the_manifest_has_every_tag_pinned_by_the_image_id(left: LeftBehind, tmp_path: Path) -> None:
    run(tmp_path, str(left.root), "--no-store")
    assert not (tmp_path / "shiplap-out").exists()
    manifest = load_manifest(tmp_path / "shiplap.yaml")
    assert str(manifest.platform) == "linux/amd64"
    assert {str(one.ref): one.config_digest for one in manifest.images} == {
        "docker.io/library/app:1": APP.config_digest,
        "docker.io/library/app:latest": APP.config_digest,
        "docker.io/library/built:1": left.built,
        "docker.io/library/committed:1": left.committed,
        "docker.io/library/other:1": OTHER.config_digest,
        "registry.example:5000/acme/app:7.10": APP.config_digest,
    }


def test_the_manifest_is_the_same_every_time_and_builds_again(left: LeftBehind, tmp_path: Path) -> None:
    run(tmp_path, str(left.root))
    run(tmp_path, f"{left.root}/../{left.root.name}/", "--manifest", "again.yaml", "--no-store")
    assert (tmp_path / "again.yaml").read_bytes() == (tmp_path / "shiplap.yaml").read_bytes()
    before = (tmp_path / "shiplap-out/SHA256SUMS").read_text()
    assert shiplap_command("-C", str(tmp_path), "build").returncode == 0
    assert (tmp_path / "shiplap-out/SHA256SUMS").read_text() == before


def test_the_json_of_a_data_root_has_the_build_in_it(left: LeftBehind, tmp_path: Path) -> None:
    done = shiplap_command("-C", str(tmp_path), "import", str(left.root), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["build"]["out"] == "shiplap-out" and "root-hash" in result["build"]
    assert {"image": UNTAGGED.config_digest, "reason": "no tag"} in result["skipped"]
    assert len(result["images"]) == 6


def test_a_build_that_fails_leaves_no_manifest(left: LeftBehind, tmp_path: Path) -> None:
    root = left.copy(tmp_path)
    for path in sorted(root.glob("overlay2/*/diff/bin/app")):
        path.write_bytes(b"changed")
    said = refused(tmp_path, str(root))
    assert "'bin/app'" in said
    assert sorted(one.name for one in tmp_path.iterdir()) == ["docker"]


def test_nothing_is_built_for_a_manifest_that_may_not_be_written(left: LeftBehind, tmp_path: Path) -> None:
    for name, target in (("there.yaml", None), ("link.yaml", "absent.yaml")):
        if target is None:
            (tmp_path / name).write_text("mine")
        else:
            (tmp_path / name).symlink_to(target)
        assert "exists already" in refused(tmp_path, str(left.root), "--manifest", name)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link.yaml", "there.yaml"]


def test_a_data_root_in_use_is_refused(left: LeftBehind, tmp_path: Path) -> None:
    with Dockerd(tmp_path / "work", data_root=left.root, binds=[left.work]):
        assert "is in use" in refused(tmp_path, str(left.root))


def test_a_data_root_without_tags_has_nothing_to_import(left: LeftBehind, tmp_path: Path) -> None:
    root = left.copy(tmp_path)
    (root / "image/overlay2/repositories.json").write_text('{"Repositories":{}}')
    said = refused(tmp_path, str(root))
    assert f"{root} has no image with a tag" in said and "NAME=docker-root:PATH:@sha256:" in said


def test_images_known_by_digest_only_are_left_out_and_further_digests_noted(left: LeftBehind, tmp_path: Path) -> None:
    root = left.copy(tmp_path)
    digest = "sha256:" + "5" * 64
    names = {"app": {"app:1": APP.config_digest, f"app@{digest}": APP.config_digest}, "x/y": {f"x/y@{digest}": OTHER.config_digest}}
    (root / "image/overlay2/repositories.json").write_text(json.dumps({"Repositories": names}))
    said = run(tmp_path, str(root), "--no-store")
    assert f"left out: x/y@{digest} (known by digest only, which a data-root cannot prove)" in said
    assert f"  # The engine had it as app@{digest}: the registry's digest" in (tmp_path / "shiplap.yaml").read_text()


def test_one_platform_of_several_is_chosen(tmp_path: Path) -> None:
    installations()[0].demand("docker")
    work = tmp_path / "work"
    work.mkdir()
    archive = docker_archive(
        work / "a.tar",
        [ImageSpec([BASE], ["one:1"]), ImageSpec([TOP], ["two:1"], "linux/arm64"), ImageSpec([TOP, TOP], ["three:1"], "linux/arm/v7")],
    )
    with Dockerd(work) as engine:
        engine.docker("load", "-i", archive)
    said = refused(tmp_path, str(work / "data-root"))
    assert "images for several platforms: linux/amd64, linux/arm/v7, linux/arm64" in said and "--platform" in said
    said = run(tmp_path, str(work / "data-root"), "--platform", "linux/arm64/v8")
    assert "left out: one:1 (for linux/amd64)" in said and "left out: three:1 (for linux/arm/v7)" in said
    assert [str(one.ref) for one in load_manifest(tmp_path / "shiplap.yaml").images] == ["docker.io/library/two:1"]
    assert "no image with a tag for linux/386" in refused(tmp_path, str(work / "data-root"), "--platform", "linux/386", "--force")
