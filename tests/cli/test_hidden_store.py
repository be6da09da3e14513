"""Options of daemon.json with which Docker starts and sees nothing of the kit's data-root: refused by `build` and by `rootfs`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from archives import docker_archive
from commandline import shiplap_command
from engines import runnable
from engines.dockerd import VOLATILE, Dockerd
from engines.installations import Installation, installations
from engines.targetkit import STORE, firmware
from firmwares import BASE_ITEMS
from images import file
from layertar import build as tar
from storeimages import APP_IMAGE

HIDING: dict[str, dict[str, Any]] = {
    "userns-remap": {"userns-remap": "default"},
    "features.containerd-snapshotter": {"features": {"containerd-snapshotter": True}},
}
ELSEWHERE = ("data-root", "graph")  # the second is what Docker 20.10 also reads
HARMLESS = {"userns-remap": "", "features": {"containerd-snapshotter": False, "buildkit": True}}


def built(folder: Path, **keys: Any) -> subprocess.CompletedProcess[str]:
    archive = docker_archive(folder / "images.tar", [APP_IMAGE])
    manifest = {"version": 1, "images": [{"ref": "app:1", "from": f"docker-archive:{archive}:{APP_IMAGE.tags[0]}"}]} | keys
    (folder / "shiplap.yaml").write_text(json.dumps(manifest))
    return shiplap_command("build", "-f", str(folder / "shiplap.yaml"), "-o", str(folder / "out"))


def test_a_build_names_the_option_and_the_way_out(tmp_path: Path) -> None:
    for option, config in HIDING.items():
        done = built(tmp_path, **{"engine-config": config})
        assert done.returncode == 2
        assert f"engine-config.{option}" in done.stderr and "use `mode: archive`" in done.stderr
        assert not (tmp_path / "out").exists()
    for key in ELSEWHERE:
        done = built(tmp_path, **{"engine-config": {key: "/elsewhere"}})
        assert done.returncode == 2 and f"engine-config.{key}" in done.stderr and "at odds with `data-root.path`" in done.stderr
    assert built(tmp_path, **{"engine-config": HARMLESS | {"data-root": "/var/lib/docker"}}).returncode == 0


def test_an_archive_is_loaded_into_whatever_the_engine_uses(tmp_path: Path) -> None:
    config = {key: value for one in HIDING.values() for key, value in one.items()}
    assert built(tmp_path, mode="archive", **{"engine-config": config}).returncode == 0
    assert rootfs(tmp_path, json.dumps(config)).returncode == 0


def test_a_base_s_own_file_is_looked_at_as_well(tmp_path: Path) -> None:
    assert built(tmp_path).returncode == 0
    for option, config in HIDING.items():
        done = rootfs(tmp_path, json.dumps(config))
        assert done.returncode == 2
        assert f"daemon.json: the base root file system sets {option}; the engine uses" in done.stderr
    for key in ELSEWHERE:  # the kit prepares /var/lib/docker, and its own daemon.json does not say so
        done = rootfs(tmp_path, json.dumps({key: "/elsewhere"}))
        assert done.returncode == 2
        assert f'the base root file system sets {key} to "/elsewhere", the target kit needs "/var/lib/docker"' in done.stderr
    assert rootfs(tmp_path, json.dumps(HARMLESS | {"data-root": "/var/lib/docker"})).returncode == 0


def rootfs(folder: Path, daemon_json: str) -> subprocess.CompletedProcess[str]:
    (folder / "base.tar").write_bytes(tar([*BASE_ITEMS, file("etc/docker/daemon.json", daemon_json.encode())]))
    words = ("--base", str(folder / "base.tar"), "--store", str(folder / "out"), "-o", str(folder / "fw"), "--compression", "none")
    return shiplap_command("rootfs", *words)


REMAPPED = """\
echo dockremap:x:990:990::/:/bin/false >>/etc/passwd; echo dockremap:x:990: >>/etc/group
for file in subuid subgid; do echo dockremap:100000:65536 >>/etc/$file; done
"""


@pytest.mark.parametrize("option", HIDING)
@pytest.mark.parametrize("installation", installations(), ids=lambda one: one.name)
def test_such_an_engine_lists_no_image_indeed(installation: Installation, option: str, tmp_path: Path) -> None:
    """The truth behind the refusals."""
    base = installation.demand("docker")
    if base == Path("/") and option != "userns-remap":
        pytest.skip("Debian 12's Docker, 20.10, does not know it yet")
    made = firmware(tmp_path / "made", [runnable.image("app:1")], VOLATILE, "volatile")
    with Dockerd(tmp_path / "engine", base=base, volatile=True, mounts=made.mounts, start=False) as engine:
        engine.run_in_namespace(["sh", "-c", REMAPPED])
        text = json.dumps({"storage-driver": "overlay2"} | HIDING[option]).encode()
        engine.run_in_namespace(["sh", "-c", "mkdir -p /etc/docker; cat >/etc/docker/daemon.json"], input=text)
        engine.seed(f"{STORE}/skeleton")
        engine.start()
        assert engine.images() == []
