"""The feed in a real OpenWrt tree, which SHIPLAP_OPENWRT names (24.10, 25.12, main). SHIPLAP_APK: apk-tools 3, for trees that make .apk.

The checkout is copied; nothing is written to it, and no toolchain or tool of OpenWrt is built.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from openwrt.feedbuild import VERSION, made_build, made_feed
from requirement import demanded, missing

PACKAGE = "package/feeds/shiplap/gateway"
CONFIG = """\
CONFIG_TARGET_x86=y
CONFIG_TARGET_x86_64=y
CONFIG_TARGET_x86_64_DEVICE_generic=y
# CONFIG_SIGN_EACH_PACKAGE is not set
"""  # main signs each package, and a signature is another one each time


def checkout() -> Path:
    named = os.environ.get("SHIPLAP_OPENWRT")
    if not demanded("openwrt"):
        pytest.skip("openwrt: by name only, SHIPLAP_REQUIRE=openwrt")
    if not named or not (Path(named) / "rules.mk").exists():
        missing("openwrt", "SHIPLAP_OPENWRT does not name a checkout")
    assert named is not None
    return Path(named)


def run(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "FORCE": "1"}
    return subprocess.run(words, cwd=tree, env=env, capture_output=True, text=True, errors="replace", check=False, timeout=900)


def good(tree: Path, *words: str) -> str:
    done = run(tree, *words)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def prepared(source: Path, tree: Path, feed: Path) -> Path:
    """A copy of the checkout with the feed, a configuration, and the few tools that making a package needs."""
    made = {".git", "bin", "build_dir", "dl", "feeds", "feeds.conf", "staging_dir", "tmp", "logs", ".config", ".config.old"}
    shutil.copytree(source, tree, symlinks=True, ignore=lambda folder, names: made & set(names) if Path(folder) == source else set())
    shutil.rmtree(tree / "package/feeds", ignore_errors=True)
    (tree / "feeds.conf").write_text(f"src-cpy shiplap {feed}\n")
    good(tree, "./scripts/feeds", "update", "-a")
    good(tree, "./scripts/feeds", "install", "-a", "-f")
    (tree / ".config").write_text(CONFIG + (feed / "diffconfig").read_text())
    good(tree, "make", "defconfig")
    tools = tree / "staging_dir/host/bin"
    tools.mkdir(parents=True, exist_ok=True)
    programs = {name: shutil.which(name) for name in ("fakeroot", "tar", "gzip", "sed", "find", "xargs", "bash", "flock")}
    programs["apk"] = os.environ.get("SHIPLAP_APK")
    for name, program in programs.items():
        if program is not None and not (tools / name).exists():
            (tools / name).symlink_to(program)
    if not (tools / "mkhash").exists():
        good(tree, "cc", "-O2", "-o", str(tools / "mkhash"), "scripts/mkhash.c")
    return tree


def compiled(tree: Path) -> Path:
    good(tree, "make", f"{PACKAGE}/compile", "NO_DEPS=1", "V=s")
    (package,) = (path for path in (tree / "bin/packages").rglob("gateway*") if path.suffix in (".ipk", ".apk"))
    return package


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The build, and two trees of different paths."""
    source = checkout()
    if "USE_APK" in (source / "include/package-pack.mk").read_text() and not os.environ.get("SHIPLAP_APK"):
        config = (source / "config/Config-build.in").read_text()
        if "config USE_APK" in config and "default y" in config.partition("config USE_APK")[2][:200]:
            missing("openwrt", "this tree makes .apk, and SHIPLAP_APK names no apk-tools 3")
    folder = made_build(tmp_path_factory.mktemp("openwrt"))
    feed = made_feed(folder)
    return folder, prepared(source, folder / "one", feed), prepared(source, folder / "a-second-one", feed)


def test_the_scan_and_the_configuration_know_the_package(trees: tuple[Path, Path, Path]) -> None:
    _, tree, _ = trees
    scanned = (tree / "tmp/.packageinfo").read_text()
    assert f"Package: gateway\nMenu: 1\nVersion: {VERSION}-r1\n" in scanned
    config = (tree / ".config").read_text().splitlines()
    assert {"CONFIG_PACKAGE_gateway=y", "CONFIG_GATEWAY_CHECK_SHA256=y", "CONFIG_PACKAGE_kmod-loop=y"} <= set(config)


def test_two_trees_make_the_same_package_with_the_very_store_in_it(trees: tuple[Path, Path, Path]) -> None:
    folder, one, other = trees
    first, second = compiled(one), compiled(other)
    assert first.read_bytes() == second.read_bytes()
    store = (folder / "out/store.squashfs").read_bytes()
    if first.suffix == ".apk":
        # The container format is apk-tools' own: what went into it is what is compared.
        (root,) = one.glob("build_dir/target-*/gateway-*/ipkg-*/gateway")
        assert (root / "usr/share/shiplap/store.squashfs").read_bytes() == store
        return
    with tarfile.open(first) as package:
        data = package.extractfile("./data.tar.gz")
        assert data is not None
        with tarfile.open(fileobj=io.BytesIO(data.read())) as files:
            members = {member.name: member for member in files.getmembers()}
            carried = files.extractfile("./usr/share/shiplap/store.squashfs")
            assert carried is not None and hashlib.sha256(carried.read()).digest() == hashlib.sha256(store).digest()
    assert (members["./etc/config/shiplap"].mode, members["./etc/init.d/shiplap-store"].mode) == (0o600, 0o755)


def test_a_wrong_hash_fails_the_build(trees: tuple[Path, Path, Path]) -> None:
    _, tree, _ = trees
    makefile = tree / "feeds/shiplap/utils/gateway/Makefile"
    text = makefile.read_text()
    stated = text.partition("PKG_HASH:=")[2][:64]
    for path in (tree / "dl").iterdir():
        path.unlink()
    try:
        makefile.write_text(text.replace(f"PKG_HASH:={stated}", f"PKG_HASH:={'0' * 64}"))
        done = run(tree, "make", f"{PACKAGE}/compile", "NO_DEPS=1", "V=s")
        assert done.returncode != 0 and "does not match" in done.stdout + done.stderr
    finally:
        makefile.write_text(text)
