"""What does not fit OpenWrt is refused with everything named at once."""

from __future__ import annotations

from typing import Any

import pytest
from openwrt.feedconfigs import config_of, manifest_data
from shiplap.adapters.openwrt import render
from shiplap.adapters.preparing import GenerateRefused

PERSISTENT = {"path": "/opt/docker", "persistence": "persistent"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "dockerd"}, "cannot be a package's name"),
        ({"name": "lab+box"}, "cannot be a package's name"),  # two words to Kconfig
        ({"platform": "linux/s390x"}, "no target for the platform linux/s390x"),
        ({"target": {"init": ["systemd"]}}, "write `target: {init: [procd]}`"),
        ({"placement": "partition"}, "as a file only"),
        ({"squashfs": {"compression": "xz", "whiteouts": "explicit", "block-size": "1M"}}, "above 256K"),
        ({"data-root": PERSISTENT}, "/overlay/opt/docker"),
        ({"data-root": {**PERSISTENT, "path": "/var/lib/docker"}}, "/overlay/opt/docker"),
        ({"engine-config": {"live-restore": True}}, "`engine-config: {live-restore: …}` has no option"),
        ({"engine-config": {"dns": [1]}}, "`engine-config: {dns: …}` has no option"),
        ({"outputs": ["erofs", "verity"], "squashfs": None}, "its kernel mounts SquashFS"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(GenerateRefused) as caught:
        render(config_of(manifest_data(**change)))
    assert words in caught.value.message


def test_everything_is_named_at_once() -> None:
    with pytest.raises(GenerateRefused) as caught:
        render(config_of(manifest_data(name="docker", target={"init": ["sysv"]}, **{"data-root": PERSISTENT})))
    assert caught.value.message.count(";") == 2


@pytest.mark.parametrize("path", ["/overlay/opt/docker", "/mnt/data/docker", "/optional", "/srv"])
def test_a_folder_of_a_real_file_system_may_be_persistent(path: str) -> None:
    render(config_of(manifest_data(**{"data-root": {**PERSISTENT, "path": path}})))


def test_images_that_no_build_system_can_fetch_need_a_prebuilt_store() -> None:
    with pytest.raises(GenerateRefused, match=r"redis:7, example.com/app:1 come from a file") as caught:
        render(config_of(transport="docker-archive:"))
    assert "--prebuilt" in caught.value.message
    assert "PKG_SOURCE" in render(config_of(transport="docker-archive:", prebuilt=True))["utils/gateway/Makefile"]
