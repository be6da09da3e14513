"""ARM, where most devices are: machines of qemu's with Debian's kernel and programs for it. By name only: SHIPLAP_REQUIRE=boots."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from boot.cases import requires_boots, said_everything
from boot.firmware import EPOCH, MOUNT_DATA, REPORT, oci_digest
from boot.foreign import ARM64, ARMHF, PATIENT, ForeignBench, foreign_bench
from boot.machine import Console
from boot.podmanguest import podman_root
from commandline import COMMAND, environment
from requirement import require

pytestmark = requires_boots


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> ForeignBench:
    require("qemu", "efi")  # qemu's libraries, and readelf
    return foreign_bench(tmp_path_factory.mktemp("arm64"), ARM64)


def by_every_name(bench: ForeignBench) -> str:
    image = bench.images("one")[0]
    return f"""\
echo "MACHINE $(uname -m)"
run() {{ docker run --rm --network none "$2" /bin/sh -c 'cat /data/keep' 2>&1 | sed "s/^/$1 /"; }}
run TAG app:1
run DIGEST app@{oci_digest(image)}
run ID {image.config_digest}
"""


def ran_by_every_name(console: Console) -> bool:
    return [console.value(key) for key in ("TAG", "DIGEST", "ID")] == ["kept"] * 3


def test_an_arm64_machine_runs_a_volatile_store_by_tag_digest_and_id_with_no_network(arm64: ForeignBench) -> None:
    console = arm64.firmware().boot(REPORT + by_every_name(arm64), before=PATIENT)
    assert said_everything(console)
    assert ran_by_every_name(console)
    assert console.value("MACHINE") == "aarch64"
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console
    assert "MOUNT shiplap-data /var/lib/docker tmpfs" in console
    assert "FAILED" not in console


def test_on_arm64_an_unchanged_second_boot_on_ext4_writes_nothing_of_the_kits(arm64: ForeignBench) -> None:
    firmware = arm64.firmware(**{"data-root": {"path": "/var/lib/docker", "persistence": "persistent"}})
    disk = arm64.data_disk()
    first, second = (firmware.boot(REPORT, before=PATIENT + MOUNT_DATA, disks=[disk]) for _ in range(2))
    assert said_everything(first)
    assert int(first.value("SECTORS S59shiplap-store")) > 0  # the counter counts
    assert said_everything(second)
    assert second.value("SECTORS S59shiplap-store") == "0"
    assert "repaired" not in second and "belongs to store" not in second


def test_on_arm64_podman_runs_its_container_from_the_mounted_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    require("qemu", "efi")
    bench = foreign_bench(tmp_path_factory.mktemp("podman"), ARM64, "podman")
    base = bench.base("busybox podman", lambda: podman_root(bench.system))
    console = bench.firmware(base=base, engine="podman").boot(REPORT, before=PATIENT)
    assert said_everything(console)
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console


def test_the_firmware_has_the_same_bytes_whatever_machine_builds_it(arm64: ForeignBench, tmp_path: Path) -> None:
    """Built again where the machine calls itself i686, with other settings."""
    firmware = arm64.firmware()
    surroundings = {"TZ": "Asia/Kolkata", "LC_ALL": "C", "TMPDIR": str(tmp_path)}

    def again(*words: object) -> None:
        command = ["setarch", "i686", *COMMAND, *map(str, words)]
        subprocess.run(command, env=environment(surroundings), umask=0o077, check=True, capture_output=True)

    again("build", "-f", firmware.out.parent / "shiplap.yaml", "-o", tmp_path / "out")
    again(
        "rootfs",
        "--base",
        arm64.docker(),
        "--store",
        tmp_path / "out",
        "-o",
        tmp_path / "root",
        "--level",
        "1",
        "--source-date-epoch",
        EPOCH,
    )
    assert (tmp_path / "out/SHA256SUMS").read_text() == (firmware.out / "SHA256SUMS").read_text()
    assert (tmp_path / "root/SHA256SUMS").read_text() == (firmware.root / "SHA256SUMS").read_text()


# --- 32 bits ---------------------------------------------------------------------------------------------------------


def test_a_32_bit_arm_machine_runs_a_volatile_store_by_tag_digest_and_id(tmp_path_factory: pytest.TempPathFactory) -> None:
    require("qemu", "efi")
    armhf = foreign_bench(tmp_path_factory.mktemp("armhf"), ARMHF)
    console = armhf.firmware().boot(REPORT + by_every_name(armhf), before=PATIENT)
    assert said_everything(console)
    assert ran_by_every_name(console)
    assert console.value("MACHINE") == "armv7l"
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console
    assert "FAILED" not in console
