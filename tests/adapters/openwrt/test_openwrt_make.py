"""The very Makefile of the feed, run under a stub of OpenWrt's includes: download, hash, install, modes, the choice of the check."""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from commandline import COMMAND, environment
from openwrt.feedbuild import VERSION, made_build, made_feed
from openwrt.feedmake import installed, make, make_tree
from requirement import require
from shiplap.adapters.template import read_template

SHA256 = {"GATEWAY_CHECK_SHA256": "y", "GATEWAY_SBOM": "y", "TARGET_ROOTFS_PARTSIZE": "104"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made_build(tmp_path_factory.mktemp("built"))
    made_feed(folder)
    return folder


def compiled(tmp_path: Path, built: Path, config: Mapping[str, str] = SHA256) -> Path:
    tree = make_tree(tmp_path / "tree", built / "feed", config)
    done = make(tree, "gateway")
    assert done.returncode == 0, done.stdout + done.stderr
    return installed(tree, "gateway", VERSION)


def conf(root: Path) -> dict[str, str]:
    lines = (root / "etc/shiplap/store.conf").read_text().splitlines()[1:]
    return {key: value.strip("'") for key, _, value in (line.partition("=") for line in lines)}


def test_the_package_has_the_store_and_the_kit_with_their_modes(tmp_path: Path, built: Path) -> None:
    root = compiled(tmp_path, built)
    assert (root / "usr/share/shiplap/store.squashfs").read_bytes() == (built / "out/store.squashfs").read_bytes()
    modes = {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_file()}
    libraries = {name: mode for name, mode in modes.items() if name.startswith("usr/lib/shiplap/")}
    assert len(libraries) >= 3 and set(libraries.values()) == {0o644}
    assert {name: mode for name, mode in modes.items() if name not in libraries} == {
        "etc/config/shiplap": 0o600,
        "etc/init.d/shiplap-store": 0o755,
        "etc/init.d/shiplap-xcontainers": 0o755,
        "etc/shiplap/containers/000-web": 0o644,
        "etc/shiplap/images": 0o644,
        "etc/shiplap/store.conf": 0o644,
        "etc/uci-defaults/50-gateway": 0o755,
        "lib/upgrade/keep.d/gateway": 0o644,
        "usr/sbin/shiplap-target": 0o755,
        "usr/share/shiplap/store.squashfs": 0o644,
    }
    assert (root / "usr/share/shiplap/store").is_dir(), "the mount point"
    assert not (root / "etc/rc.d").exists(), "OpenWrt enables init scripts itself"
    assert {path.name for path in (tmp_path / "tree/bin").iterdir()} == {"gateway.spdx.json", "gateway.cdx.json"}


@pytest.mark.parametrize("choice", ["SHA256", "VERITY", "NONE"])
def test_the_choice_decides_how_the_device_holds_the_store(tmp_path: Path, built: Path, choice: str) -> None:
    root = compiled(tmp_path, built, {f"GATEWAY_CHECK_{choice}": "y"})
    root_hash = (built / "out/store.roothash").read_text().strip()
    found = conf(root)
    assert (found["SEALED"], found["ROOT_HASH"], found["VERITY"], found["CHECK"]) == {
        "SHA256": ("no", "", "", "sha256"),
        "VERITY": ("yes", root_hash, "/usr/share/shiplap/store.verity", "lazy"),
        "NONE": ("no", "", "", "lazy"),
    }[choice]
    assert (root / "usr/share/shiplap/store.verity").exists() == (choice == "VERITY")
    assert found["SHA256"] == hashlib.sha256((root / "usr/share/shiplap/store.squashfs").read_bytes()).hexdigest()


def test_an_artifact_with_another_hash_is_refused(tmp_path: Path, built: Path) -> None:
    tree = make_tree(tmp_path / "tree", built / "feed", SHA256)
    (artifact,) = (tree / "feeds/test/utils/gateway/artifacts").iterdir()
    data = bytearray(artifact.read_bytes())
    data[5000] ^= 1
    artifact.write_bytes(data)
    done = make(tree, "gateway")
    assert done.returncode != 0 and "FAILED" in done.stdout
    assert list((tree / "dl").iterdir()) == []


def test_a_store_larger_than_the_partition_fails_with_the_figures(tmp_path: Path, built: Path) -> None:
    tree = make_tree(tmp_path / "tree", built / "feed", {**SHA256, "TARGET_ROOTFS_PARTSIZE": "0"})
    size_bytes = (built / "out/store.squashfs").stat().st_size
    done = make(tree, "gateway")
    assert done.returncode != 0
    assert f"store.squashfs has {size_bytes} bytes, CONFIG_TARGET_ROOTFS_PARTSIZE=0 is 0: {size_bytes} too many" in done.stderr


def test_the_scan_gives_what_menuconfig_shows(tmp_path: Path, built: Path) -> None:
    done = make(make_tree(tmp_path / "tree", built / "feed", {}), "gateway", "DUMP=1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {"Package: gateway", f"Version: {VERSION}-r1", "License: MIT", "LicenseFiles: LICENSES"} <= set(lines)
    assert any(line.startswith("Depends: @x86_64 +dockerd +docker +kmod-loop") for line in lines)


def test_scripts_of_the_package_are_shell_and_say_nothing_in_an_image_build(tmp_path: Path, built: Path) -> None:
    require("shells", "shellcheck")
    tree = make_tree(tmp_path / "tree", built / "feed", {})
    assert make(tree, "gateway", "scripts").returncode == 0
    assert (tree / "scripts/conffiles").read_text() == "/etc/config/shiplap\n"
    for name in ("postinst", "prerm"):
        script = tree / "scripts" / name
        assert script.read_text().startswith("#!/bin/sh\n")
        subprocess.run(["busybox", "ash", "-n", str(script)], check=True)
        subprocess.run(["shellcheck", "-s", "dash", str(script)], check=True)
        done = subprocess.run(
            [str(shutil.which("busybox")), "ash", str(script)],
            env={"IPKG_INSTROOT": "/nowhere", "PATH": ""},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), "files of an image are not this machine's"


def test_the_hosts_shiplap_has_to_be_new_enough(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "shiplap"
    (tmp_path / "check.sh").write_text(read_template("openwrt", "shiplap-version.sh"))
    command.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    env = environment()
    env["PATH"] = f"{folder}:{env['PATH']}"

    def holds(wanted: str) -> bool:
        return subprocess.run(["sh", str(tmp_path / "check.sh"), wanted], env=env, capture_output=True, check=False).returncode == 0

    assert holds("0.0.9") and holds("0.1.0") and not holds("99.0")
    command.unlink()
    env["PATH"] = "/usr/bin:/bin"
    assert not holds("0.0.9")
