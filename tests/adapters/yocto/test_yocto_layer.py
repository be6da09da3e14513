"""The generated layer, whole file by whole file. ``SHIPLAP_WRITE_GOLDENS=1`` writes the expected ones anew; review them as code."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import shiplap.adapters.yocto
from shiplap.adapters.preparing import GenerateRefused
from shiplap.adapters.yocto import carried, next_steps, render
from yoctoconfigs import CASES, REGISTRY, config, docker_file, locked, podman_partition, prebuilt

GOLDEN = Path(__file__).parent / "golden"
ADAPTERS = Path(shiplap.adapters.yocto.__file__).parents[1]
VERBATIM = {path.read_text() for path in (ADAPTERS / "yocto/templates").iterdir()} | {(ADAPTERS / "packaging/LICENSE").read_text()}


@pytest.mark.parametrize("case", CASES)
def test_every_file_is_a_template_as_it_stands_or_the_golden_one(case: str) -> None:
    made = render(CASES[case]())
    filled = {path: text for path, text in made.items() if text not in VERBATIM}
    folder = GOLDEN / case
    if os.environ.get("SHIPLAP_WRITE_GOLDENS"):
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in filled.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    stored = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert filled == stored
    assert all(text.endswith("\n") and not text.endswith("\n\n") for text in made.values())


def test_the_same_configuration_gives_the_same_text() -> None:
    assert render(docker_file()) == render(docker_file())


def store_recipe(made: dict[str, str]) -> str:
    return next(text for path, text in made.items() if re.search(r"-store_[0-9.]+\.bb$", path))


def test_each_blob_is_fetched_once_and_files_of_the_layer_come_last() -> None:
    lines = re.findall(r"^    (\S+) \\$", store_recipe(render(docker_file())), re.M)
    blobs = [line for line in lines if line.startswith("oci://")]
    assert len(blobs) == len({line.partition(";digest=")[2] for line in blobs}) == 5  # 2 configs, 1 common layer, 2 others
    assert [line.partition(";")[0] for line in blobs] == ["oci://docker.io/library/redis"] * 3 + [
        "oci://registry.example:5000/team/app"
    ] * 2
    assert [line.endswith(";tls-verify=0") for line in blobs] == [False] * 3 + [True] * 2
    assert lines[5:] == ["file://image-licenses.txt", "file://shiplap.yaml", "file://shiplap.lock.yaml"]


def test_an_archive_beside_the_manifest_is_a_file_of_the_recipe() -> None:
    text = store_recipe(render(podman_partition()))
    assert "file://saved.tar;unpack=0" in text
    assert "Copy saved.tar into recipes-containers/edge-box/files/" in next_steps(podman_partition())
    layout = render(config({"app:1": ("oci:layouts/app", "MIT")}))
    assert "    file://layouts/app \\\n" in store_recipe(layout)


@pytest.mark.parametrize(
    "source", ["docker-daemon:app:1", "podman:app:1", "docker-archive:/srv/app.tar", "docker-archive:../app.tar", "docker-root:x"]
)
def test_images_that_no_recipe_can_fetch_are_all_named(source: str) -> None:
    wanted = config({"app:1": (source, "MIT"), "db:1": (source, "MIT"), "redis:7": (REGISTRY, "MIT")})
    with pytest.raises(GenerateRefused) as error:
        render(wanted)
    assert f"app:1 (from {source})" in error.value.message and f"db:1 (from {source})" in error.value.message
    assert "redis" not in error.value.message and "--prebuilt" in (error.value.hint or "")


def test_a_registry_image_whose_blobs_the_lock_does_not_have_is_refused() -> None:
    wanted = docker_file()
    bare = replace(wanted.images[0], locked=locked("redis:7", "docker-archive:x.tar", "linux/arm64"))
    with pytest.raises(GenerateRefused, match=r"which blobs .*redis:7 has"):
        render(replace(wanted, images=(bare,)))


def test_names_of_recipes_have_no_underscore_which_would_begin_the_version() -> None:
    made = render(podman_partition())
    assert "recipes-containers/edge-box/edge-box-store_20240501.bb" in made
    assert not any("edge_box" in path for path in made)


def test_the_layer_carries_what_no_url_is_known_for() -> None:
    assert carried(docker_file()) == {"recipes-devtools/shiplap/files/shiplap-0.1.0.tar": "host-tool"}
    assert carried(podman_partition()) == {}
    assert carried(prebuilt()) == {}
    assert carried(prebuilt(url=None)) == {"recipes-containers/gateway/files/gateway-20240501.tar": "prebuilt"}
    assert "file://gateway-20240501.tar" in store_recipe(render(prebuilt(url=None)))


def test_an_archive_is_unpacked_whatever_its_url_ends_with() -> None:
    url = "https://downloads.example/get?id=5"
    assert f"{url};downloadfilename=gateway-20240501.tar" in store_recipe(render(prebuilt(url)))
    tool = replace(docker_file().host_tool, url=url)
    recipe = render(replace(docker_file(), host_tool=tool))["recipes-devtools/shiplap/shiplap_0.1.0.bb"]
    assert f'SRC_URI = "{url};downloadfilename=shiplap-0.1.0.tar"' in recipe


def test_a_prebuilt_layer_has_no_python_and_no_host_tool() -> None:
    made = render(prebuilt())
    assert not [path for path in made if path.endswith(".py") or "shiplap_0" in path or "shiplap.yaml" in path]
    assert "addpylib" not in made["conf/layer.conf"] and "kirkstone" in made["conf/layer.conf"]
    assert "classes/shiplap_package.bbclass" in made, "kirkstone knows no classes-recipe"


def test_a_tree_needs_shiplap_in_the_build() -> None:
    images = {"app:1": (REGISTRY, "MIT")}
    assert "shiplap_unpack_trees" in render(config(images, placement="tree"))["classes-recipe/shiplap_image.bbclass"]
    with pytest.raises(GenerateRefused, match="placement: tree"):
        render(config(images, placement="tree", prebuilt=prebuilt().prebuilt))


def test_checksums_of_licences_are_those_of_the_files() -> None:
    made = render(docker_file())
    said = re.findall(r"file://(\S+);md5=([0-9a-f]{32})", "".join(text for path, text in made.items() if path.endswith(".bb")))
    files = {"LICENSE": made["COPYING.MIT"], "image-licenses.txt": made["recipes-containers/gateway/files/image-licenses.txt"]}
    assert dict(said) == {name: hashlib.md5(text.encode()).hexdigest() for name, text in files.items()}


def test_all_licences_hold_at_once_each_once() -> None:
    images = {"app:1": (REGISTRY, "mit or apache-2.0"), "b:1": (REGISTRY, "MIT OR Apache-2.0"), "c:1": (REGISTRY, "BSD-3-Clause")}
    text = store_recipe(render(config(images)))
    assert "LICENSE:${PN} = \"${@shiplap_license(d, '(MIT OR Apache-2.0) AND BSD-3-Clause')}\"" in text
    assert "LICENSE = \"${@shiplap_license(d, 'MIT AND (MIT OR Apache-2.0) AND BSD-3-Clause')}\"" in text
    with_exception = store_recipe(render(config({"app:1": (REGISTRY, "(GPL-2.0-only WITH Classpath-exception-2.0) OR MIT")})))
    assert 'NO_GENERIC_LICENSE[GPL-2.0-only-with-Classpath-exception-2.0] = "image-licenses.txt"' in with_exception


def test_a_licence_of_ones_own_has_to_be_accepted() -> None:
    text = store_recipe(render(docker_file()))
    assert 'LICENSE_FLAGS = "LicenseRef-Acme"' in text and 'NO_GENERIC_LICENSE[Acme] = "image-licenses.txt"' in text
    assert "LICENSE_FLAGS" not in store_recipe(render(podman_partition()))
    assert "LICENSE_FLAGS_ACCEPTED" in next_steps(docker_file()) and "LICENSE_FLAGS_ACCEPTED" not in next_steps(podman_partition())


def test_nothing_of_this_machine_is_in_the_files() -> None:
    text = "".join(text for case in CASES.values() for text in render(case()).values())
    assert str(ADAPTERS.parent) not in text and os.uname().nodename not in text.split()


def test_the_fetcher_runs_with_the_oldest_python_of_the_hosts() -> None:
    ast.parse(render(docker_file())["lib/shiplap_bb/ocifetch.py"], feature_version=(3, 8))
