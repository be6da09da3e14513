"""The written rules of OpenWrt's packages feed (its CONTRIBUTING.md and review rules) as a lint, and its Kconfig by kconfiglib."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from openwrt.feedconfigs import config_of, golden_configs, manifest_data
from requirement import require
from shiplap.adapters.openwrt import render

CONFIGS = sorted(golden_configs())
ORDER = (
    "include $(TOPDIR)/rules.mk", "PKG_NAME:=", "PKG_VERSION:=", "PKG_RELEASE:=", "PKG_SOURCE:=", "PKG_SOURCE_URL:=", "PKG_HASH:=",
    "PKG_MAINTAINER:=", "PKG_LICENSE:=", "PKG_LICENSE_FILES:=", "include $(INCLUDE_DIR)/package.mk", "define Package/",
    "$(eval $(call BuildPackage,",
)  # fmt: skip


def package(name: str) -> tuple[str, dict[str, str]]:
    """A configuration's package: its name and its files."""
    config = golden_configs()[name]
    start = f"utils/{config.name}/"
    return config.name, {path.removeprefix(start): text for path, text in render(config).items() if path.startswith(start)}


def blocks(makefile: str) -> dict[str, list[str]]:
    return {name: body.splitlines() for name, body in re.findall(r"^define (\S+)\n(.*?)^endef$", makefile, re.M | re.S)}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_makefile_keeps_the_order_of_a_package(name: str) -> None:
    makefile = package(name)[1]["Makefile"]
    places = [
        makefile.index("\n" + start) if start != ORDER[0] else makefile.index(start)
        for start in ORDER
        if "\n" + start in makefile or start == ORDER[0]
    ]
    assert places == sorted(places) and len(places) >= 10
    assert makefile.rstrip().endswith(f"$(eval $(call BuildPackage,{package(name)[0]}))")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_makefile_is_indented_as_its_blocks_ask_for(name: str) -> None:
    own, files = package(name)
    for block, lines in blocks(files["Makefile"]).items():
        assert "$(PKG_NAME)" not in block, "names are literal"
        for line in filter(None, lines):
            if block == f"Package/{own}" or block.startswith("Download/"):
                assert re.match(r"  \S", line), (block, line)
            elif block.endswith("/conffiles"):
                assert line.startswith("/"), (block, line)
            elif block.startswith("Build/") or block.endswith("/install"):
                assert line.startswith("\t") or re.match(r"  (ifeq|endif)", line), (block, line)
    for line in files["Makefile"].splitlines():
        if line.startswith(("define", "$(eval")):
            assert "$(PKG_NAME)" not in line
        assert line == line.rstrip(), "no space at a line's end"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_package_obeys_the_review_rules(name: str) -> None:
    own, files = package(name)
    makefile = files["Makefile"]
    for script in ("postinst", "prerm"):
        assert blocks(makefile)[f"Package/{own}/{script}"][:2] == ["#!/bin/sh", '[ -n "$$IPKG_INSTROOT" ] || {']
    assert re.search(r"^PKG_MAINTAINER:=[^<]+ <[^>]+@[^>]+>$", makefile, re.M)
    assert "$(INSTALL_CONF) ./files" in makefile and "$(INSTALL_BIN) ./files" in makefile
    assert files["version.date"] == "1714564800\n"
    assert files[f"files/{own}.defaults"].rstrip().endswith("exit 0"), "else it runs again at each boot"
    for script in ("test.sh", "test-version.sh"):
        assert "grep -q" not in files[script] and files[script].startswith("#!/bin/sh\n")
    assert "/etc/config/shiplap" in files[f"files/{own}.keep"]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_script_is_clean(name: str, tmp_path: Path) -> None:
    require("shells", "shellcheck")
    scripts = {path: text for path, text in package(name)[1].items() if text.startswith("#!")}
    assert len(scripts) >= 4
    for path, text in scripts.items():
        script = tmp_path / path.replace("/", "-")
        # shellcheck learned the word busybox late (0.10).
        script.write_text(text.replace("shell=busybox", "shell=dash"))
        subprocess.run(["busybox", "ash", "-n", str(script)], check=True)
        found = subprocess.run(["shellcheck", "-s", "dash", "-S", "style", str(script)], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout


def kconfig(text: str, tmp_path: Path, symbols: str = ""):  # type: ignore[no-untyped-def]
    """The package's Config.in as OpenWrt's own top level includes it."""
    import kconfiglib  # in the extra `test`

    (tmp_path / "Config.in").write_text(text)
    own = re.findall(r"^if (PACKAGE_\S+)$", text, re.M)[0]
    top = f'config IN_SDK\n\tbool "sdk"\nconfig {own}\n\tbool "package"\n\tdefault y\nsource "Config.in"\n{symbols}'
    (tmp_path / "Top").write_text(top)
    return kconfiglib.Kconfig("Top", warn_to_stderr=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_in_is_kconfig_and_the_choice_is_the_manifests(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = kconfig(package(name)[1]["Config.in"], tmp_path)
    assert [one for one in tree.warnings if "Config.in" in one] == []
    chosen = [symbol for symbol in tree.unique_defined_syms if symbol.choice and symbol.str_value == "y"]
    assert [symbol.name for symbol in chosen] == {
        "prebuilt": ["GATEWAY_CHECK_SHA256"],
        "hostcommand": ["LAB_BOX_CHECK_VERITY"],
        "archive": [],
        "podman": ["GATEWAY_CHECK_SHA256"],
    }[name]
    assert (tree.syms["KERNEL_DM_VERITY"].str_value, tree.syms["KERNEL_MD"].str_value) == (
        ("y", "y") if name == "hostcommand" else ("n", "n")
    )


def test_the_sdk_builds_no_kernel_so_it_offers_no_dm_verity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = kconfig(package("hostcommand")[1]["Config.in"], tmp_path)
    tree.syms["IN_SDK"].set_value(2)
    assert tree.syms["LAB_BOX_CHECK_VERITY"].visibility == 0 and tree.syms["KERNEL_DM_VERITY"].str_value == "n"
    assert tree.syms["LAB_BOX_CHECK_SHA256"].str_value == "y"


def test_kernel_symbols_are_asked_for_only_where_the_store_needs_them() -> None:
    stock = render(config_of(prebuilt=True))["utils/gateway/Makefile"]
    assert "KERNEL_" not in stock and "@!IN_SDK" not in stock
    own = render(config_of(manifest_data(squashfs=None)))["utils/gateway/Makefile"]
    assert "@!IN_SDK" in own and own.count("+@KERNEL_SQUASHFS_") == 2
