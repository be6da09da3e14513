"""Stores in places and forms that only a kernel can judge, on real machines. By name only: SHIPLAP_REQUIRE=boots."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from boot.cases import requires_boots, said_everything
from boot.firmware import REFUSED, REPORT, SAID_ALL, Bench, Firmware, images
from boot.machine import Kernel, initramfs
from engines import runnable
from requirement import missing

pytestmark = requires_boots

AUTO = {"seal": "auto"}
LEFT_OVER = "echo CANARIES $(grep -c canary /proc/mounts)\n"


def test_a_store_unpacked_in_the_sealed_root_runs_its_container(bench: Bench) -> None:
    """The canary beside it is asked of the root's own SquashFS."""
    firmware = bench.firmware(rootfs=("--placement", "tree"), placement="tree", verity=AUTO)
    console = firmware.boot(REPORT + LEFT_OVER + "ls -d /usr/lib/shiplap/canary/upper | sed 's/^/HAS /'\n")
    assert said_everything(console)
    assert "every container runs" in console.value("STATUS")
    assert not any("/usr/share/shiplap/store" in line for line in console.after("MOUNT"))
    assert (console.value("CANARIES"), console.value("HAS")) == ("0", "/usr/lib/shiplap/canary/upper")
    assert "FAILED" not in console


def test_inside_a_sealed_root_a_store_image_is_mounted_without_dm_verity_of_its_own(bench: Bench) -> None:
    console = bench.firmware(verity=AUTO).boot(REPORT + LEFT_OVER)
    assert said_everything(console)
    mounted = next(line for line in console.after("MOUNT") if "/usr/share/shiplap/store" in line)
    assert mounted.startswith("/dev/loop") and " squashfs ro" in mounted
    assert console.value("CANARIES") == "0"


# --- a kernel whose SquashFS has no extended attributes -------------------------------------------------------------

PlainKernel = tuple[Kernel, Path]


@pytest.fixture(scope="module")
def plain_kernel(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> PlainKernel:
    """Debian's, with the one module built anew; beside the kernel that was fetched."""
    usual = bench.kernel()[0].root
    folder = usual.with_name(f"{usual.name}-plain-squashfs")
    script = Path(__file__).with_name("get_plain_squashfs")
    done = subprocess.run(["sh", script, usual, folder], env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        missing("boots", f"no module: {done.stderr[-2000:]}")
    return Kernel(folder), initramfs(Kernel(folder), tmp_path_factory.mktemp("plain") / "initrd")


def explicit(bench: Bench) -> Firmware:
    listed = [
        {"ref": image.tags[0], "from": f"oci:{bench.layout('one')}:{image.tags[0]}", "allow-lost-xattrs": ["/bin/cap-cat"]}
        for image in images("one")
    ]
    return bench.firmware(verity=AUTO, images=listed, squashfs={"whiteouts": "explicit", "compression": "xz"})


@pytest.mark.parametrize("place", ["file", "tree"])
def test_the_canary_finds_such_a_kernel_and_nothing_starts(bench: Bench, plain_kernel: PlainKernel, place: str) -> None:
    console = bench.firmware(rootfs=("--placement", place), placement=place, verity=AUTO).boot(REFUSED, kernel=plain_kernel)
    assert "this kernel's SquashFS has no extended attributes (CONFIG_SQUASHFS_XATTR)" in console
    assert "FAILED /etc/init.d/S59shiplap-store" in console
    assert "MOUNT shiplap-refused /var/lib/docker tmpfs ro" in console
    assert console.value("ENGINE") == "has ended"
    assert "did not answer" not in console


def test_without_the_canary_a_container_would_see_what_its_image_deleted(bench: Bench, plain_kernel: PlainKernel) -> None:
    before = """\
cp -a /etc/shiplap /run/etc-shiplap
sed -i s/^CANARY=yes/CANARY=no/ /run/etc-shiplap/store.conf
mount -o bind /run/etc-shiplap /etc/shiplap
"""
    said = bench.firmware(verity=AUTO).boot(REPORT, kernel=plain_kernel, before=before).after("SAID")
    assert SAID_ALL in said
    assert set(said) & runnable.hidden_lines() == {"old"}


@pytest.mark.parametrize("plain", [True, False])
def test_a_store_with_explicit_whiteouts_shows_what_its_images_show(bench: Bench, plain_kernel: PlainKernel, plain: bool) -> None:
    console = explicit(bench).boot(REPORT, kernel=plain_kernel if plain else bench.kernel())
    said = set(console.after("SAID"))
    assert runnable.expected_lines() - said == {f"CapEff:\t{runnable.CAPABILITY_BIT:016x}"}
    assert SAID_ALL in said
    assert not runnable.hidden_lines() & said
