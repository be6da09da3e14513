"""What every adapter takes from the configuration for names and rows of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from adapterconfigs import adapter_config
from shiplap.adapters import buildroot, openwrt, yocto
from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.licences import licence_statement

STOCK = {"squashfs": {"compression": "xz", "whiteouts": "explicit"}, "verity": {"check": "sha256"}, "target": {"init": ["procd"]}}
# A file may be called so; a makefile, a shell or a licence report must not care.
ODD = "docker-archive:/home/jo/a,b$(shell id)'`${@d}.tar"


def with_source(source: str) -> AdapterConfig:
    config = adapter_config(prebuilt=True, **STOCK)
    images = tuple(replace(image, source=source) for image in config.images)
    return replace(config, images=images)


@pytest.mark.parametrize("system", [buildroot, openwrt, yocto])
def test_the_name_of_a_saved_image_means_nothing_in_generated_files(system: object) -> None:
    text = "".join(system.render(with_source(ODD)).values())  # type: ignore[attr-defined]
    assert "shell id" not in text and "/home/jo" not in text and "${@d}" not in text


def test_a_source_is_stated_in_plain_characters_without_folders() -> None:
    sources = {
        ODD: "docker-archive:a_b__shell_id_____@d_.tar",
        "docker://registry.example:5000/team/app:1": "docker://registry.example:5000/team/app:1",
    }
    assert {source: with_source(source).images[0].stated_source for source in sources} == sources
    assert [with_source(source).images[0].is_in_registry for source in sources] == [False, True]


def test_a_names_symbol_has_capitals_digits_and_underscores() -> None:
    assert adapter_config(name="edge.box-2+x").symbol == "EDGE_BOX_2_X"


def test_the_licence_statement_has_each_image_once() -> None:
    config = adapter_config()
    entries = licence_statement(config, "head\n").split("\n\n")
    assert entries[0] == "head" and len(entries) == 1 + len(config.images)
    assert entries[1].splitlines() == ["docker.io/library/app:1", f"  {config.images[0].locked.config}", "  Apache-2.0"]
