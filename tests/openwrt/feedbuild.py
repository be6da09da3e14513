"""A real small build and the feed that `shiplap generate openwrt` makes around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archives import oci_layout
from commandline import shiplap_command
from locks import two_images, write_manifest

VERSION = "20240501"


def made_build(folder: Path, **more: Any) -> Path:
    """``shiplap.yaml``, its lock and its build in ``out``: for a kernel of OpenWrt's releases."""
    oci_layout(folder / "app", [two_images()[0]])
    data: dict[str, Any] = {
        "name": "gateway",
        "squashfs": {"compression": "xz", "whiteouts": "explicit"},
        "verity": {"check": "sha256"},
        "target": {"init": ["procd"]},
        "containers": [{"name": "web", "image": "app:1", "restart": "always"}],
    }
    write_manifest(folder, [{"ref": "app:1", "from": "oci:app", "license": "MIT"}], **{**data, **more})
    for words in (["lock"], ["build", "--locked", "-o", "out"]):
        done = shiplap_command("-C", str(folder), *words, env={"SHIPLAP_CACHE": str(folder / "cache")})
        assert done.returncode == 0, done.stderr
    return folder


def made_feed(folder: Path) -> Path:
    """The feed around ``folder``'s build, in ``feed``."""
    done = shiplap_command("-C", str(folder), "generate", "openwrt", "--prebuilt", "out", "-o", "feed")
    assert done.returncode == 0, done.stderr
    return folder / "feed"
