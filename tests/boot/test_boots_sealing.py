"""A store in partitions of a GPT disk, and what a changed byte does, on real machines. By name only: SHIPLAP_REQUIRE=boots."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from boot.cases import requires_boots, said_everything
from boot.firmware import REFUSED, REPORT, SAID_ALL, Bench, Firmware
from boot.machine import program

pytestmark = requires_boots

NEWER_KERNEL = "linux-image-6.12-cloud-amd64"
# BusyBox's blkid knows no PARTUUID.
NO_BLKID = "mount -o bind /usr/bin/busybox /usr/bin/blkid\n"
# Not in the file system's tables, which lie at the end: in the programs that the container runs.
LAYER_DATA = 200_000
READ_ALL = """\
echo "STATUS $(shiplap-target status --wait 5 2>&1)"
docker run --rm --network none app:1 2>&1 | sed 's/^/RUN /'
docker logs check 2>/dev/null | sed 's/^/SAID /'
"""


def on_partitions(bench: Bench, **verity: str) -> Firmware:
    return bench.firmware(rootfs=("--placement", "partition", "--disk"), placement="partition", verity={"seal": "always", **verity})


def partition_start(disk: Path, name: str) -> int:
    """In bytes; ``name`` is the partition's, without the slot."""
    table = json.loads(subprocess.run([program("sfdisk"), "--json", disk], capture_output=True, check=True).stdout)["partitiontable"]
    start = next(one["start"] for one in table["partitions"] if one.get("name", "").rpartition("-")[0] == name)
    return int(start) * int(table.get("sectorsize", 512))


@contextmanager
def flipped(firmware: Firmware, partition: str, offset: int) -> Iterator[None]:
    """One byte of the disk is another one for a while."""
    disk = firmware.root / "disk.img"
    place = partition_start(disk, partition) + offset

    def flip() -> None:
        with disk.open("r+b") as image:
            image.seek(place)
            byte = image.read(1)[0]
            image.seek(place)
            image.write(bytes([byte ^ 0xFF]))

    flip()
    try:
        yield
    finally:
        flip()


def test_partitions_are_found_by_their_uuid(bench: Bench) -> None:
    console = on_partitions(bench).boot(REPORT)
    assert said_everything(console)
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console


def test_without_udev_and_blkid_a_kernel_that_names_no_partition_uuids_is_a_refusal(bench: Bench) -> None:
    """Linux 6.13 and newer say PARTUUID in sysfs; Debian 12 has none of these, its 6.12 does not."""
    console = on_partitions(bench).boot(REFUSED, before=NO_BLKID, kernel=bench.kernel(NEWER_KERNEL))
    assert "shiplap: ERROR: the store image PARTUUID=" in console
    assert "MOUNT shiplap-refused /var/lib/docker tmpfs ro" in console
    assert console.value("ENGINE") == "has ended"


@pytest.mark.parametrize(
    ("partition", "offset"),
    [("store", 10), ("store-verity", 70), ("store-verity", 4096 + 8)],
    ids=["superblock", "salt", "top of the tree"],
)
def test_a_flipped_byte_is_refused_and_nothing_starts(bench: Bench, partition: str, offset: int) -> None:
    firmware = on_partitions(bench)
    with flipped(firmware, partition, offset):
        console = firmware.boot(REFUSED)
    assert "shiplap: ERROR: " in console
    assert "the data-root is made unusable, no container starts" in console
    assert "FAILED /etc/init.d/S59shiplap-store" in console
    assert "MOUNT shiplap-refused /var/lib/docker tmpfs ro" in console
    assert console.value("ENGINE") == "has ended"


def test_a_flipped_byte_in_layer_data_is_an_input_output_error(bench: Bench) -> None:
    firmware = on_partitions(bench)
    with flipped(firmware, "store", LAYER_DATA):
        console = firmware.boot(READ_ALL)
    assert "is mounted on /usr/share/shiplap/store" in console
    assert "is corrupted" in console  # dm-verity's own words
    assert SAID_ALL not in console.after("SAID")
    assert "every container runs" not in console


def test_a_flipped_byte_in_layer_data_is_refused_by_a_full_check(bench: Bench) -> None:
    firmware = on_partitions(bench, check="full")
    with flipped(firmware, "store", LAYER_DATA):
        console = firmware.boot(REFUSED)
    assert "does not hold against its root hash" in console
    assert "MOUNT shiplap-refused /var/lib/docker tmpfs ro" in console
    assert console.value("ENGINE") == "has ended"


def test_a_bad_block_restarts_the_device_where_that_is_wanted(bench: Bench) -> None:
    firmware = on_partitions(bench, **{"on-corruption": "restart"})
    with flipped(firmware, "store", LAYER_DATA):
        console = firmware.boot(READ_ALL)
    assert "dm-verity device corrupted" in console or "Restarting system" in console
    assert "CASE ENDS" not in console
