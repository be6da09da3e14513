"""Whole files, for one manifest of each kind. ``SHIPLAP_WRITE_GOLDENS=1`` writes them anew; read the difference before committing it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from openwrt.feedconfigs import config_of, golden_configs, manifest_data
from shiplap.adapters.openwrt import carried, next_steps, render

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(golden_configs()))
def test_the_feed_is_the_golden_one(name: str) -> None:
    folder, texts = GOLDEN / name, render(golden_configs()[name])
    if os.environ.get("SHIPLAP_WRITE_GOLDENS"):
        for path in folder.rglob("*"):
            if path.is_file():
                path.unlink()
        for path_in_feed, text in texts.items():
            (folder / path_in_feed).parent.mkdir(parents=True, exist_ok=True)
            (folder / path_in_feed).write_text(text)
    written = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert written.keys() == texts.keys()
    for path_in_feed, text in texts.items():
        assert text == written[path_in_feed], path_in_feed


def test_an_archive_without_url_is_carried_where_the_makefile_looks_for_it() -> None:
    config = config_of(prebuilt=True)
    assert carried(config) == {"utils/gateway/artifacts/gateway-20240501-eeeeeeeeeeee.tar": "prebuilt"}
    assert carried(config_of(prebuilt=True, url="https://d.example/gateway.tar")) == {}
    assert carried(config_of()) == {"utils/gateway/host/shiplap-1.2.3.tar": "host-tool"}


def test_a_feed_has_a_name_that_the_feeds_script_reads() -> None:
    made = render(config_of(manifest_data(name="lab.box-2")))
    (line,) = (line for line in made["feeds.conf.example"].splitlines() if line.startswith("src-cpy"))
    assert re.fullmatch(r"src-cpy \w+ /path/to/this/folder", line)
    name = line.split()[1]
    assert f"feeds/{name}/diffconfig" in made["README.md"] and f"src-cpy {name} " in next_steps(config_of(manifest_data(name="lab.box-2")))


def test_who_lacks_the_tool_is_told_where_it_is() -> None:
    config = config_of()
    assert "pipx install $(CURDIR)/host/shiplap-1.2.3.tar" in render(config)["utils/gateway/Makefile"]
    url = "https://downloads.example.com/shiplap-1.2.3.tar"
    made = render(replace(config, host_tool=replace(config.host_tool, url=url)))
    assert f"pipx install {url}" in made["utils/gateway/Makefile"] and f"pipx install {url}" in made["README.md"]
    assert "/host/" not in made["utils/gateway/Makefile"] + made["README.md"]


def test_the_steps_say_what_a_stock_kernel_cannot_read() -> None:
    assert "KERNEL_SQUASHFS" not in next_steps(config_of(prebuilt=True))
    steps = next_steps(config_of(manifest_data(squashfs=None)))
    assert "KERNEL_SQUASHFS_ZSTD, KERNEL_SQUASHFS_XATTR" in steps and "compression: xz, whiteouts: explicit" in steps


def test_rendering_twice_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first = render(config_of(prebuilt=True))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert render(config_of(prebuilt=True)) == first
