"""Whole trees, as a reviewer of Buildroot would read them: golden/. ``SHIPLAP_WRITE_GOLDENS=1`` writes them anew."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from buildroot.treeconfigs import config_of, golden_configs, manifest_data
from shiplap.adapters.buildroot import carried, next_steps, render
from shiplap.adapters.preparing import GenerateRefused
from shiplap.core.errors import Refused

GOLDEN = Path(__file__).with_name("golden")


@pytest.mark.parametrize("name", sorted(golden_configs()))
def test_a_whole_tree_is_what_was_reviewed(name: str) -> None:
    made, folder = render(golden_configs()[name]), GOLDEN / name
    if os.environ.get("SHIPLAP_WRITE_GOLDENS"):
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in made.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    reviewed = {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}
    assert made == reviewed


@pytest.mark.parametrize("name", sorted(golden_configs()))
def test_what_is_rendered_is_tidy(name: str) -> None:
    for path, text in render(golden_configs()[name]).items():
        assert text.endswith("\n") and not text.endswith("\n\n"), path
        assert path.endswith(".py") or "\n\n\n" not in text, path
        assert not any(line != line.rstrip() for line in text.splitlines()), path


def test_the_tree_carries_what_no_url_is_known_for() -> None:
    config = config_of()
    assert carried(config) == {"package/python-shiplap/shiplap-0.1.0.tar": "host-tool"}
    fetched = replace(config, host_tool=replace(config.host_tool, url="https://dl.example.com/x/shiplap-0.1.0.tar"))
    assert carried(fetched) == {}
    assert "PYTHON_SHIPLAP_SITE = https://dl.example.com/x\n" in render(fetched)["package/python-shiplap/python-shiplap.mk"]
    assert carried(config_of(prebuilt=True)) == {"package/shiplap-images/gateway-20240501.tar": "prebuilt"}
    assert carried(golden_configs()["prebuilt"]) == {}


def test_a_url_with_another_file_name_is_refused_because_buildroot_fetches_by_name() -> None:
    with pytest.raises(GenerateRefused, match=r"ends in 'r12\.tar': Buildroot fetches gateway-20240501\.tar"):
        render(config_of(prebuilt=True, url="https://dl.example.com/r12.tar"))


def test_images_that_no_buildroot_can_fetch_are_all_named() -> None:
    images = [
        {"ref": "a:1", "from": "docker-archive:a.tar", "license": "MIT"},
        {"ref": "b:1", "from": "docker-daemon:b:1", "license": "MIT"},
        {"ref": "c:1", "license": "MIT"},
    ]
    data = manifest_data(images=images, containers=None)
    with pytest.raises(Refused, match=r"docker\.io/library/a:1 \(from docker-archive:a\.tar\), docker\.io/library/b:1") as refusal:
        render(config_of(data))
    assert "c:1" not in refusal.value.message and "--prebuilt" in (refusal.value.hint or "")
    assert "package/shiplap-images/shiplap-images.mk" in render(config_of(data, prebuilt=True))


def test_a_platform_without_a_buildroot_target_is_refused() -> None:
    with pytest.raises(GenerateRefused, match="no target for linux/wasm"):
        render(config_of(manifest_data(platform="linux/wasm")))


def test_help_texts_are_as_narrow_as_check_package_wants_them() -> None:
    long = f"registry.example.com/{'team/' * 12}app:1"
    text = render(config_of(manifest_data(images=[{"ref": long, "license": "MIT"}], containers=None)))["package/shiplap-images/Config.in"]
    assert max(len(line.strip()) for line in text.splitlines() if line.startswith("\t  ")) <= 62
    assert long in "".join(text.split())


def test_an_unpacked_store_is_no_prebuilt_one() -> None:
    with pytest.raises(GenerateRefused, match="placement: tree"):
        render(config_of(manifest_data(placement="tree"), prebuilt=True))


@pytest.mark.parametrize("name", sorted(golden_configs()))
def test_the_next_steps_name_symbols_that_the_tree_has_or_buildroot_has(name: str) -> None:
    config = golden_configs()[name]
    texts = "\n".join(text for path, text in render(config).items() if path.endswith("Config.in"))
    for word in next_steps(config).split():
        symbol = word.rstrip(".,:").partition("=")[0]
        if symbol.startswith("BR2_") and symbol != "BR2_EXTERNAL":
            assert symbol in texts, symbol
