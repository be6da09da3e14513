"""U-Boot's scripts, run by a shell: what they use of U-Boot's language is also sh's. U-Boot itself runs them in test_boots_uboot.py."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from requirement import require
from shiplap.rootfs.bootsnippets import BootSettings, SealedImage, uboot
from shiplap.verity.parameters import VerityParameters
from shiplap.verity.tree import lay_out

LAYOUT = lay_out(VerityParameters(salt=b"\x5a" * 32, uuid="00000000-0000-5000-8000-000000000000"), 1000)
ROOT = SealedImage("root", "rootfs.squashfs", "rootfs.verity", "ab" * 32, LAYOUT, 1000 * 4096, 40_960, "a1" * 32, "a2" * 32)
SETTINGS = BootSettings("arm64", ROOT, None, "dddddddd-0000-5000-8000-000000000000", "eeeeeeee-0000-5000-8000-000000000000")

COMMANDS = """\
setenv() { eval "$1=\\${2-}"; }
saveenv() { echo "saved bootslot=$bootslot upgrade_available=$upgrade_available bootcount=$bootcount"; }
load() { echo "load $1 $2 to $3: $4"; }
source() { echo "source $1"; }
bootm() { echo "bootm $1"; echo "bootargs $bootargs"; }
reset() { echo reset; }
devtype=mmc devnum=0 distro_bootpart=1 ramdisk_addr_r=0x44000000
"""


def said(script: str, **variables: str) -> list[str]:
    require("snippets")
    given = "".join(f"{name}='{value}'\n" for name, value in variables.items())
    done = subprocess.run(["dash", "-c", COMMANDS + given + script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("before", "slot", "saved"),
    [
        ({}, "a", None),
        ({"bootslot": "a"}, "a", None),
        ({"bootslot": "b"}, "b", None),
        ({"bootslot": "b", "upgrade_available": "0", "bootcount": "1"}, "b", None),
        ({"bootslot": "b", "upgrade_available": "1", "bootcount": "0"}, "b", "bootslot=b upgrade_available=1 bootcount=1"),
        ({"bootslot": "a", "upgrade_available": "1"}, "a", "bootslot=a upgrade_available=1 bootcount=1"),
        ({"bootslot": "b", "upgrade_available": "1", "bootcount": "1"}, "a", "bootslot=a upgrade_available=0 bootcount=0"),
        ({"bootslot": "a", "upgrade_available": "1", "bootcount": "1"}, "b", "bootslot=b upgrade_available=0 bootcount=0"),
    ],
)
def test_a_slot_that_was_tried_once_and_not_confirmed_is_left(before: dict[str, str], slot: str, saved: str | None) -> None:
    lines = said(uboot.render(SETTINGS)["boot-slots.cmd"], **before)
    assert [line for line in lines if line.startswith("saved ")] == ([f"saved {saved}"] if saved else [])
    assert f"load mmc 0:1 to 0x44000000: /{slot}/image.itb" in lines
    assert "source 0x44000000:script" in lines
    # What follows is only reached when nothing started.
    trial = saved is not None and "upgrade_available=1" in saved
    assert ("reset" in lines) == trial


def test_the_choice_between_slots_knows_nothing_of_a_firmware() -> None:
    other = replace(SETTINGS, root=replace(ROOT, root_hash="9" * 64), architecture="amd64")
    assert uboot.render(other)["boot-slots.cmd"] == uboot.render(SETTINGS)["boot-slots.cmd"]


@pytest.mark.parametrize("folder", ["", "/b"])
def test_the_script_loads_the_fit_where_nobody_has_and_gives_the_kernel_its_words(folder: str) -> None:
    lines = said(uboot.render(SETTINGS)["boot.cmd"], folder=folder, console="ttyS2,115200", fit_addr_r="0x50000000")
    assert [line for line in lines if line.startswith("load")] == ([] if folder else ["load mmc 0:1 to 0x50000000: /image.itb"])
    assert "bootm 0x50000000#shiplap" in lines
    assert lines[-1].startswith(f"bootargs console=ttyS2,115200 roothash={ROOT.root_hash} ")


def test_without_a_console_variable_the_device_tree_s_own_counts() -> None:
    assert "console=" not in said(uboot.render(SETTINGS)["boot.cmd"])[-1]


@pytest.mark.parametrize(("architecture", "kernel"), [("arm64", "kernel_noload"), ("arm", "kernel_noload"), ("riscv64", "kernel")])
def test_kernels_of_arm_have_no_address_in_the_fit(architecture: str, kernel: str) -> None:
    text = uboot.render(replace(SETTINGS, architecture=architecture))["fit.its"]
    assert f'type = "{kernel}";' in text
    assert ("load = <0>;" in text) == (kernel == "kernel_noload")
