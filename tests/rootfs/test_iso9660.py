"""The medium's file system: what libarchive, xorriso and Linux's own layout rules say of it, and its bytes."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from requirement import SEARCH_PATH, require
from shiplap.core.entries import Bytes
from shiplap.core.errors import OutsideFailure
from shiplap.rootfs.gpt import Partition, Placed, tables
from shiplap.rootfs.provision import iso9660
from shiplap.rootfs.provision.iso9660 import MediumFile, MediumRefused, offsets, write_iso

MIB = 1 << 20
EPOCH = 1700000000
FILES = [MediumFile("PART1.IMG", Bytes(b"one" * 500_000)), MediumFile("EMPTY", Bytes(b"")), MediumFile("A.TXT", Bytes(b"text\n"))]
GOLDEN = "d09f338642d6e7c8e0d67839d1d72a21a54360058c3db8bc688970c02db0c55a"


def test_every_file_begins_at_a_mebibyte_and_is_what_was_given(tmp_path: Path) -> None:
    write_iso(tmp_path / "iso", FILES, "SHIPLAP_TEST", EPOCH)
    assert offsets(FILES) == (MIB, 3 * MIB, 4 * MIB, 5 * MIB)
    data = (tmp_path / "iso").read_bytes()
    assert len(data) == 5 * MIB
    assert data[MIB : MIB + 1_500_000] == b"one" * 500_000
    assert not any(data[MIB + 1_500_000 : 4 * MIB])
    # Where the installer looks for the medium's name.
    assert data[16 * 2048 + 40 :].startswith(b"SHIPLAP_TEST ")


def test_libarchive_reads_every_name_size_and_time(tmp_path: Path) -> None:
    require("libarchive-tools")
    write_iso(tmp_path / "iso", FILES, "SHIPLAP_TEST", EPOCH)
    for file in FILES:
        done = subprocess.run(["bsdtar", "-xOf", tmp_path / "iso", file.name], capture_output=True, check=True)
        assert done.stdout == b"".join(file.content.chunks())
    listed = subprocess.run(
        ["bsdtar", "-tvf", tmp_path / "iso"], capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": SEARCH_PATH}
    )
    assert listed.stdout.count("Nov 14  2023") == len(FILES) + 1


def test_both_byte_orders_say_the_same(tmp_path: Path) -> None:
    write_iso(tmp_path / "iso", FILES, "SHIPLAP_TEST", EPOCH)
    primary = (tmp_path / "iso").read_bytes()[16 * 2048 : 17 * 2048]
    for at in (80, 132, 156 + 2, 156 + 10):  # volume's size, path table's size, root's place and size
        little, big = struct.unpack_from("<I", primary, at)[0], struct.unpack_from(">I", primary, at + 4)[0]
        assert little == big
    assert struct.unpack_from("<I", primary, 80)[0] * 2048 == 5 * MIB


def hybrid(path: Path) -> None:
    files = [*FILES, MediumFile("EFI.IMG", Bytes(b"FAT" * 1000))]
    *_, start, end = offsets(files)
    partition = Partition("provision", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "00000000-1111-2222-3333-444444444444", end - start)
    first, second = tables([Placed(partition, start, end - start)], "11111111-2222-5333-8444-555555555555", end + MIB)
    write_iso(path, files, "SHIPLAP_TEST", EPOCH, efi_image="EFI.IMG", system_area=first, tail=second)


def test_firmware_finds_the_boot_image_by_the_catalog_and_by_the_partition_table(tmp_path: Path) -> None:
    require("gpt")
    hybrid(tmp_path / "iso")
    data = (tmp_path / "iso").read_bytes()
    record = data[17 * 2048 : 18 * 2048]
    assert record[1:39].rstrip(b"\0") == b"CD001\1EL TORITO SPECIFICATION"
    catalog = data[struct.unpack_from("<I", record, 71)[0] * 2048 :][:64]
    assert sum(struct.unpack("<16H", catalog[:32])) & 0xFFFF == 0
    assert (catalog[1], catalog[32]) == (0xEF, 0x88)
    at = struct.unpack_from("<I", catalog, 40)[0] * 2048
    assert data[at : at + 3000] == b"FAT" * 1000
    sgdisk = shutil.which("sgdisk", path=SEARCH_PATH)
    assert sgdisk is not None
    said = subprocess.run([sgdisk, "-v", "-p", tmp_path / "iso"], capture_output=True, text=True, check=True).stdout
    assert "No problems found" in said
    assert f" {at // 512} " in said and " EF00 " in said
    xorriso = shutil.which("xorriso", path=SEARCH_PATH)
    if xorriso is not None:
        words = [xorriso, "-indev", tmp_path / "iso", "-report_el_torito", "plain", "-report_system_area", "plain"]
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert "UEFI  y   none" in told and "/EFI.IMG" in told
        assert "GPT partition path :   1  /EFI.IMG" in told


def test_the_bytes_are_those_of_the_last_release(tmp_path: Path) -> None:
    for name in ("iso", "again"):
        hybrid(tmp_path / name)
    assert (tmp_path / "iso").read_bytes() == (tmp_path / "again").read_bytes()
    assert hashlib.sha256((tmp_path / "iso").read_bytes()).hexdigest() == GOLDEN


def test_zeros_take_no_room(tmp_path: Path) -> None:
    write_iso(tmp_path / "iso", [MediumFile("ZEROS", Bytes(bytes(64 * MIB)))], "SHIPLAP_TEST", EPOCH)
    assert (tmp_path / "iso").stat().st_blocks * 512 < 2 * MIB


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iso9660, "FILE_MAX_BYTES", 1_000_000)
    with pytest.raises(MediumRefused, match=r"PART1.IMG would have 1500000 bytes"):
        write_iso(tmp_path / "iso", FILES, "SHIPLAP_TEST", EPOCH)
    monkeypatch.undo()
    write_iso(tmp_path / "iso", FILES, "SHIPLAP_TEST", EPOCH)
    with pytest.raises(OutsideFailure, match="exists already"):
        write_iso(tmp_path / "iso", FILES, "SHIPLAP_TEST", EPOCH)
