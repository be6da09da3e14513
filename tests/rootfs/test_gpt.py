"""The disk image: what sfdisk, sgdisk and systemd-dissect read from it, and its bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from requirement import SEARCH_PATH, require
from shiplap.core.errors import OutsideFailure
from shiplap.rootfs.gpt import ALIGNMENT_BYTES, DiskRefused, Partition, disk_size_bytes, place, write_disk
from shiplap.verity.discoverable import LINUX_GENERIC, READ_ONLY_FLAG, NotDiscoverable, partition_types, partition_uuids

DISK_UUID = "11111111-2222-5333-8444-555555555555"
UUIDS = tuple(f"aabbccdd-eeff-0011-2233-4455667788{number:02d}" for number in range(10))
MIB = 1 << 20
GOLDEN = "3b725d6cbda884560c2b4c52601712d9853d11b3393049bd2878d0c81d7286fb"


def program(name: str) -> str:
    require("gpt")
    found = shutil.which(name, path=SEARCH_PATH)
    assert found is not None
    return found


@pytest.fixture
def partitions(tmp_path: Path) -> list[Partition]:
    (tmp_path / "one").write_bytes(b"one" * 500_000)
    (tmp_path / "two").write_bytes(bytes(200_000) + b"two")
    return [
        Partition("root-a", partition_types("amd64").root, UUIDS[0], 1_500_000, tmp_path / "one", READ_ONLY_FLAG),
        Partition("root-verity-a", partition_types("amd64").root_verity, UUIDS[1], 200_003, tmp_path / "two", READ_ONLY_FLAG),
        Partition("data", LINUX_GENERIC, UUIDS[2], 5 * MIB),
    ]


def test_every_partition_begins_and_ends_at_a_mebibyte(partitions: list[Partition], tmp_path: Path) -> None:
    placed = write_disk(tmp_path / "disk", partitions, DISK_UUID)
    assert [(one.offset_bytes // MIB, one.size_bytes // MIB) for one in placed] == [(1, 2), (3, 1), (4, 5)]
    data = (tmp_path / "disk").read_bytes()
    assert len(data) == disk_size_bytes(placed) == 10 * MIB
    assert data[MIB : MIB + 1_500_000] == b"one" * 500_000
    assert data[3 * MIB : 3 * MIB + 200_003] == bytes(200_000) + b"two"
    assert not any(data[4 * MIB : 9 * MIB])


def test_sfdisk_reads_what_was_asked_for(partitions: list[Partition], tmp_path: Path) -> None:
    write_disk(tmp_path / "disk", partitions, DISK_UUID)
    said = subprocess.run([program("sfdisk"), "-J", tmp_path / "disk"], capture_output=True, text=True, check=True)
    assert said.stderr == ""
    table = json.loads(said.stdout)["partitiontable"]
    assert (table["label"], table["id"].lower()) == ("gpt", DISK_UUID)
    found = [(one["name"], one["type"].lower(), one["uuid"].lower(), one.get("attrs")) for one in table["partitions"]]
    read_only = "GUID:60"
    flags = [read_only, read_only, None]
    assert found == [(one.name, one.type_uuid, one.uuid, flag) for one, flag in zip(partitions, flags, strict=True)]


def test_sgdisk_finds_no_problem(partitions: list[Partition], tmp_path: Path) -> None:
    write_disk(tmp_path / "disk", partitions, DISK_UUID)
    said = subprocess.run([program("sgdisk"), "-v", tmp_path / "disk"], capture_output=True, text=True, check=True).stdout
    assert "No problems found" in said, said


def test_sgdisk_finds_the_backup_when_the_first_table_is_gone(partitions: list[Partition], tmp_path: Path) -> None:
    write_disk(tmp_path / "disk", partitions, DISK_UUID)
    with (tmp_path / "disk").open("r+b") as file:
        file.seek(512)
        file.write(bytes(33 * 512))
    said = subprocess.run([program("sgdisk"), "-p", tmp_path / "disk"], capture_output=True, text=True, check=False)
    assert "root-verity-a" in said.stdout, said.stdout + said.stderr


def test_both_headers_have_right_checksums_and_point_at_each_other(partitions: list[Partition], tmp_path: Path) -> None:
    write_disk(tmp_path / "disk", partitions, DISK_UUID)
    data = (tmp_path / "disk").read_bytes()
    last = len(data) // 512 - 1
    for own, other in ((1, last), (last, 1)):
        header = bytearray(data[own * 512 : own * 512 + 92])
        claimed = struct.unpack_from("<I", header, 16)[0]
        header[16:20] = bytes(4)
        assert zlib.crc32(header) == claimed
        assert struct.unpack_from("<QQ", header, 24) == (own, other)
        entries_at, count, size, entries_crc = struct.unpack_from("<QIII", header, 72)
        assert zlib.crc32(data[entries_at * 512 : entries_at * 512 + count * size]) == entries_crc
    assert data[510:512] == b"\x55\xaa"
    assert data[450] == 0xEE


def test_the_bytes_are_those_of_the_last_release(partitions: list[Partition], tmp_path: Path) -> None:
    for name in ("disk", "again"):
        write_disk(tmp_path / name, partitions, DISK_UUID)
    assert (tmp_path / "disk").read_bytes() == (tmp_path / "again").read_bytes()
    assert hashlib.sha256((tmp_path / "disk").read_bytes()).hexdigest() == GOLDEN


def test_zeros_take_no_room(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(64 * MIB)
    partitions = [Partition("a", LINUX_GENERIC, UUIDS[0], 64 * MIB, tmp_path / "hole"), Partition("b", LINUX_GENERIC, UUIDS[1], 256 * MIB)]
    write_disk(tmp_path / "disk", partitions, DISK_UUID)
    assert os.stat(tmp_path / "disk").st_blocks * 512 < 2 * MIB


def test_what_a_table_cannot_hold_is_refused(tmp_path: Path) -> None:
    one = Partition("a", LINUX_GENERIC, UUIDS[0], 1)
    with pytest.raises(DiskRefused, match="more than the 128"):
        place([one] * 129)
    with pytest.raises(DiskRefused, match="same UUID"):
        place([one, one])
    with pytest.raises(DiskRefused, match="has no size"):
        place([Partition("a", LINUX_GENERIC, UUIDS[0], 0)])
    with pytest.raises(DiskRefused, match="longer than 36"):
        place([Partition("a" * 37, LINUX_GENERIC, UUIDS[0], 1)])
    (tmp_path / "large").write_bytes(b"x" * (ALIGNMENT_BYTES + 1))
    with pytest.raises(DiskRefused, match="does not fit"):
        write_disk(tmp_path / "disk", [Partition("a", LINUX_GENERIC, UUIDS[0], 1, tmp_path / "large")], DISK_UUID)
    with pytest.raises(OutsideFailure, match="exists already"):
        write_disk(tmp_path / "disk", [one], DISK_UUID)


def test_partition_uuids_are_the_halves_of_the_root_hash() -> None:
    root_hash = "00112233445566778899aabbccddeeff" + "0" * 64 + "ffeeddccbbaa99887766554433221100"
    expected = ("00112233-4455-6677-8899-aabbccddeeff", "ffeeddcc-bbaa-9988-7766-554433221100")
    assert partition_uuids(root_hash) == expected
    with pytest.raises(NotDiscoverable, match="too short"):
        partition_uuids("0" * 40)


def test_an_architecture_without_types_is_named() -> None:
    with pytest.raises(NotDiscoverable, match="architecture m68k"):
        partition_types("m68k")


def test_systemd_knows_the_types_under_the_names_that_we_give_them(tmp_path: Path) -> None:
    """sfdisk's own names for the type UUIDs are those of the specification."""
    names = {"386": "x86", "amd64": "x86-64", "arm": "ARM", "arm64": "ARM-64", "riscv64": "RISC-V-64"}
    for architecture, name in names.items():
        types = partition_types(architecture)
        kinds = {f"Linux root ({name})": types.root, f"Linux root verity ({name})": types.root_verity,
                 f"Linux /usr ({name})": types.usr, f"Linux /usr verity ({name})": types.usr_verity}  # fmt: skip
        disk = tmp_path / architecture
        write_disk(disk, [Partition("x", uuid, UUIDS[at], 1) for at, uuid in enumerate(kinds.values())], DISK_UUID)
        said = subprocess.run([program("sfdisk"), "-l", "-o", "Type", disk], capture_output=True, text=True, check=True).stdout
        assert said.splitlines()[-4:] == list(kinds), said
