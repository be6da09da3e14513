"""The configuration in a real Kconfig parser (kconfiglib), below a main menu with the symbols of Buildroot that it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from buildroot.treeconfigs import config_of, golden_configs, manifest_data
from requirement import missing
from shiplap.adapters.buildroot import render
from shiplap.adapters.buildroot.package import external
from shiplap.adapters.config import AdapterConfig

PREFIX = "BR2_PACKAGE_SHIPLAP_IMAGES"
VERITY = "BR2_TARGET_ROOTFS_SQUASHFS_VERITY"
# With a prompt, so that a test can switch it on.
STUB = 'config {name}\n\tbool "{name}"\n'


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function: configuration and symbols that are on → the parsed tree."""
    try:
        import kconfiglib  # type: ignore[import-not-found,import-untyped]
    except ImportError:
        missing("buildroot-tools", "kconfiglib is not installed")

    def parsed(config: AdapterConfig, *on: str) -> Any:
        folder = tmp_path / "tree"
        made = render(config)
        for path, text in made.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        monkeypatch.setenv(f"BR2_EXTERNAL_{external(config)}_PATH", str(folder))
        texts = "".join(text for path, text in made.items() if "Config.in" in path)
        ours = set(re.findall(r"^config (BR2_\w+)", texts, re.MULTILINE))
        # Without the expansion $(…) of paths, which make does.
        used = {name for name in re.findall(r"\bBR2_\w+", texts) if name not in ours and not name.startswith("BR2_EXTERNAL")}
        menu = tmp_path / "Main.in"
        stubs = "".join(STUB.format(name=name) for name in sorted(used))
        menu.write_text(f'mainmenu "test"\n{stubs}source "{folder}/Config.in"\n')
        monkeypatch.setenv("CONFIG_", "")
        tree = kconfiglib.Kconfig(str(menu), warn_to_stderr=False)
        for name in on:
            assert tree.syms[name].set_value("y"), name
        return tree

    return parsed


BOARD = ("BR2_aarch64", "BR2_PACKAGE_DOCKER_ENGINE", "BR2_TOOLCHAIN_HAS_SYNC_4")


@pytest.mark.parametrize("name", sorted(golden_configs()))
def test_everything_parses_without_a_warning_and_every_prompt_has_help(parse: Any, name: str) -> None:
    tree = parse(golden_configs()[name])
    assert [one for one in tree.warnings if "undefined symbol" not in one] == []
    ours = [symbol for symbol in tree.unique_defined_syms if "Main.in" not in symbol.nodes[0].filename]
    assert len(ours) > 5
    for symbol in ours:
        for node in symbol.nodes:
            assert node.prompt is None or (node.help and len(node.prompt[0]) < 60), symbol.name


def test_the_package_asks_for_an_architecture_and_an_engine(parse: Any) -> None:
    assert parse(config_of(), PREFIX).syms[PREFIX].str_value == "n"
    assert parse(config_of(), PREFIX, *BOARD[1:]).syms[PREFIX].str_value == "n"
    assert parse(config_of(), PREFIX, BOARD[0], BOARD[2]).syms[PREFIX].str_value == "n"
    assert parse(config_of(), PREFIX, *BOARD, "BR2_STATIC_LIBS").syms[PREFIX].str_value == "n"
    assert parse(config_of(), PREFIX, *BOARD).syms[PREFIX].str_value == "y"


def test_the_manifests_choices_are_the_defaults(parse: Any) -> None:
    tree = parse(config_of(), PREFIX, *BOARD)
    assert tree.syms[f"{PREFIX}_FORMAT_STORE_DOCKER"].str_value == "y"
    assert tree.syms[f"{PREFIX}_PLACEMENT_IMAGE_FILE"].str_value == "y"
    assert tree.syms[f"{PREFIX}_PATH"].str_value == "/usr/share/shiplap"
    assert tree.syms["BR2_PACKAGE_HOST_PYTHON_SHIPLAP"].str_value == "y"
    assert tree.syms["BR2_PACKAGE_CRYPTSETUP"].str_value == "y"
    assert tree.syms["BR2_PACKAGE_DOCKER_CLI"].str_value == "y"
    data = manifest_data(placement="partition", **{"store-path": "/opt/images"})
    tree = parse(config_of(data), PREFIX, *BOARD)
    assert tree.syms[f"{PREFIX}_PLACEMENT_PARTITION"].str_value == "y"
    assert tree.syms[f"{PREFIX}_PATH"].str_value == "/opt/images"


def test_a_store_is_offered_for_the_engine_that_is_there(parse: Any) -> None:
    tree = parse(config_of(), PREFIX, "BR2_aarch64", "BR2_PACKAGE_PODMAN", "BR2_TOOLCHAIN_HAS_SYNC_4")
    assert tree.syms[f"{PREFIX}_FORMAT_STORE_DOCKER"].str_value == "n"
    assert tree.syms[f"{PREFIX}_FORMAT_STORE_PODMAN"].str_value == "y"


def test_a_store_that_is_never_opened_through_dm_verity_needs_no_cryptsetup(parse: Any) -> None:
    tree = parse(config_of(manifest_data(verity={"seal": "never"})), PREFIX, "BR2_aarch64", "BR2_PACKAGE_DOCKER_ENGINE")
    assert tree.syms[PREFIX].str_value == "y" and "BR2_PACKAGE_CRYPTSETUP" not in tree.syms


def test_an_unpacked_store_is_offered_for_a_squashfs_root_only(parse: Any) -> None:
    tree = parse(config_of(), PREFIX, *BOARD, f"{PREFIX}_PLACEMENT_ROOTFS_TREE")
    assert tree.syms[f"{PREFIX}_PLACEMENT_ROOTFS_TREE"].str_value == "n"
    tree = parse(config_of(), PREFIX, *BOARD, "BR2_TARGET_ROOTFS_SQUASHFS", f"{PREFIX}_PLACEMENT_ROOTFS_TREE")
    assert tree.syms[f"{PREFIX}_PLACEMENT_ROOTFS_TREE"].str_value == "y"


def test_an_archive_is_a_file(parse: Any) -> None:
    tree = parse(config_of(), PREFIX, *BOARD, f"{PREFIX}_FORMAT_ARCHIVE", f"{PREFIX}_PLACEMENT_PARTITION")
    assert tree.syms[f"{PREFIX}_FORMAT_ARCHIVE"].str_value == "y"
    assert tree.syms[f"{PREFIX}_PLACEMENT_IMAGE_FILE"].str_value == "y"


def test_the_hash_tree_needs_whole_blocks(parse: Any) -> None:
    assert parse(config_of(), VERITY, "BR2_TARGET_ROOTFS_SQUASHFS").syms[VERITY].str_value == "n"
    tree = parse(config_of(), VERITY, "BR2_TARGET_ROOTFS_SQUASHFS", "BR2_TARGET_ROOTFS_SQUASHFS_PAD")
    assert tree.syms[VERITY].str_value == "y" and tree.syms["BR2_PACKAGE_HOST_PYTHON_SHIPLAP"].str_value == "y"
    assert tree.syms[f"{VERITY}_HASH"].str_value == "sha256"


@pytest.mark.parametrize(
    ("platform", "runs", "not_here"),
    [
        ("linux/amd64", "BR2_x86_64", "BR2_i386"),
        ("linux/386", "BR2_x86_64", "BR2_aarch64"),
        ("linux/arm/v7", "BR2_ARM_CPU_ARMV8A", "BR2_ARM_CPU_ARMV6"),
        ("linux/arm/v6", "BR2_ARM_CPU_ARMV7A", "BR2_ARM_CPU_ARMV5"),
        ("linux/riscv64", "BR2_RISCV_64", "BR2_x86_64"),
    ],
)
def test_images_are_for_targets_that_run_them(parse: Any, platform: str, runs: str, not_here: str) -> None:
    config = config_of(manifest_data(platform=platform))
    assert parse(config, runs).syms[f"{PREFIX}_ARCH_SUPPORTS"].str_value == "y"
    if not_here in parse(config).syms:
        assert parse(config, not_here).syms[f"{PREFIX}_ARCH_SUPPORTS"].str_value == "n"
    else:
        assert not_here not in "".join(render(config).values())
