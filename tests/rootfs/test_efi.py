"""What UEFI boots from: the FAT file system by the words of fsck.fat and mtools, the unified kernel image by objcopy's."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from requirement import require
from shiplap.core.entries import Bytes
from shiplap.core.errors import OutsideFailure
from shiplap.rootfs.efi import fat
from shiplap.rootfs.efi.fat import FatRefused, fat_size_bytes, write_fat
from shiplap.rootfs.efi.unified import StubRefused, check_machine, read_stub, unified_image

EPOCH = 1700000000
MIB = 1 << 20
PROGRAM = b"program" * 100_000
FILES = {"EFI/BOOT/BOOTX64.EFI": Bytes(PROGRAM), "EFI/BOOT/EMPTY": Bytes(b""), "README.TXT": Bytes(b"r\n")}
GOLDEN = "0f41d89309d83d4395c02a159ab80aafc866aaa31336372fdfdff45e86cd2f8b"
SYSTEMD_STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")


def test_fsck_finds_nothing_to_repair(tmp_path: Path) -> None:
    require("efi")
    for name, files in (("some", FILES), ("none", {}), ("large", {"A": Bytes(bytes(200 * MIB)), "B": Bytes(bytes(80 * MIB))})):
        size = fat_size_bytes(sum(content.size_bytes for content in files.values()))
        write_fat(tmp_path / name, files, size, 0x12345678, EPOCH)
        done = subprocess.run(["/usr/sbin/fsck.fat", "-n", "-v", tmp_path / name], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        assert "32 bit entries" in done.stdout
        assert f"{tmp_path / name}: {len({part for path in files for part in parents(path)}) + len(files) + 1} files" in done.stdout


def parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def test_mtools_read_every_file(tmp_path: Path) -> None:
    require("efi")
    write_fat(tmp_path / "esp", FILES, fat_size_bytes(MIB), 0x12345678, EPOCH)
    for path, content in FILES.items():
        read = subprocess.run(["mtype", "-i", tmp_path / "esp", f"::{path}"], capture_output=True, check=True).stdout
        assert read == b"".join(content.chunks())
    said = subprocess.run(
        ["mdir", "-i", tmp_path / "esp", "::EFI/BOOT"], capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin"}
    )
    assert "1234-5678" in said.stdout
    assert "2023-11-14  22:13" in said.stdout


def test_somebody_can_add_a_file(tmp_path: Path) -> None:
    require("efi")
    write_fat(tmp_path / "esp", FILES, fat_size_bytes(MIB), 1, EPOCH)
    (tmp_path / "signed").write_bytes(PROGRAM[::-1])
    subprocess.run(["mcopy", "-o", "-i", tmp_path / "esp", tmp_path / "signed", "::EFI/BOOT/BOOTX64.EFI"], check=True)
    assert subprocess.run(["mtype", "-i", tmp_path / "esp", "::EFI/BOOT/BOOTX64.EFI"], capture_output=True).stdout == PROGRAM[::-1]
    done = subprocess.run(["/usr/sbin/fsck.fat", "-n", tmp_path / "esp"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_bytes_of_the_file_system_are_those_of_the_last_release(tmp_path: Path) -> None:
    for name, files in (("esp", FILES), ("again", dict(reversed(FILES.items())))):
        write_fat(tmp_path / name, files, fat_size_bytes(MIB), 0x12345678, EPOCH)
    assert (tmp_path / "esp").read_bytes() == (tmp_path / "again").read_bytes()
    assert hashlib.sha256((tmp_path / "esp").read_bytes()).hexdigest() == GOLDEN


def test_what_fat_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FatRefused, match=r"BOOTX64.EFI does not fit into a file system of 39845888 bytes"):
        write_fat(tmp_path / "esp", {"BOOTX64.EFI": Bytes(bytes(40 * MIB))}, 38 * MIB, 1, EPOCH)
    monkeypatch.setattr(fat, "_FILE_MAX_BYTES", 1000)
    with pytest.raises(FatRefused, match="700000 bytes; 4 GiB are the most"):
        write_fat(tmp_path / "esp", FILES, 38 * MIB, 1, EPOCH)
    monkeypatch.undo()
    write_fat(tmp_path / "esp", {}, 38 * MIB, 1, EPOCH)
    with pytest.raises(OutsideFailure, match="exists already"):
        write_fat(tmp_path / "esp", {}, 38 * MIB, 1, EPOCH)


def test_times_before_the_format_s_first_year_are_that_year(tmp_path: Path) -> None:
    write_fat(tmp_path / "zero", {"A": Bytes(b"a")}, 38 * MIB, 1, 0)
    write_fat(tmp_path / "first", {"A": Bytes(b"a")}, 38 * MIB, 1, 315532800)
    assert (tmp_path / "zero").read_bytes() == (tmp_path / "first").read_bytes()


def sections(path: Path) -> dict[str, tuple[int, int]]:
    """Name → (address, size in memory), in the order of the table."""
    said = subprocess.run(["objdump", "-h", path], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in said.splitlines()]
    return {row[1]: (int(row[3], 16), int(row[2], 16)) for row in rows if row and row[0].isdigit()}


def test_objcopy_takes_the_sections_out_again(tmp_path: Path) -> None:
    require("efi")
    kernel, initrd = b"kernel" * 9999, b"initrd" * 7777
    pieces = unified_image(read_stub(SYSTEMD_STUB), "roothash=00 ro", Bytes(kernel), Bytes(initrd))
    (tmp_path / "linux.efi").write_bytes(b"".join(pieces))
    for name, content in ((".cmdline", b"roothash=00 ro\0"), (".initrd", initrd), (".linux", kernel)):
        command = ["objcopy", "--dump-section", f"{name}={tmp_path / 'out'}", tmp_path / "linux.efi", tmp_path / "copy"]
        subprocess.run(command, check=True)
        assert (tmp_path / "out").read_bytes() == content
    found = sections(tmp_path / "linux.efi")
    assert list(found)[-3:] == [".cmdline", ".initrd", ".linux"], "the kernel may unpack itself behind its end"
    assert {name: place for name, place in found.items() if name in sections(SYSTEMD_STUB)} == sections(SYSTEMD_STUB)
    ordered = sorted(found.values())
    assert all(address + size <= following for (address, size), (following, _) in pairwise(ordered))


def test_what_is_no_stub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StubRefused, match="cannot read the EFI stub"):
        read_stub(tmp_path / "missing")
    good = stub()
    for name, data in (
        ("empty", b""),
        ("text", b"#!/bin/sh\n" * 100),
        ("no MZ", b"XX" + good[2:]),
        ("no PE", good.replace(b"PE\0\0", b"NE\0\0")),
    ):
        (tmp_path / "stub").write_bytes(data)
        with pytest.raises(StubRefused, match="is no EFI program"):
            read_stub(tmp_path / "stub")
        assert name
    (tmp_path / "stub").write_bytes(good.replace(b"PE\0\0\x64\x86", b"PE\0\0\x34\x12"))
    with pytest.raises(StubRefused, match=r"a machine \(0x1234\)"):
        read_stub(tmp_path / "stub")


def stub(headers_bytes: int = 1024) -> bytes:
    """The least that is a PE program: one section, and room behind its table."""
    optional = struct.pack("<H30xII16xII", 0x20B, 4096, 512, 8192, headers_bytes).ljust(240, b"\0")
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + struct.pack("<HH12xHH", 0x8664, 1, len(optional), 0x22)
    section = struct.pack("<8sIIII16x", b".text", 100, 4096, 512, 1024)
    return (head + optional + section).ljust(1024, b"\0") + b"\xc3".ljust(512, b"\0")


def test_a_header_without_room_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stub").write_bytes(stub(headers_bytes=400))
    with pytest.raises(StubRefused, match="no room for more sections"):
        list(unified_image(read_stub(tmp_path / "stub"), "", Bytes(b"k"), Bytes(b"i")))
    (tmp_path / "stub").write_bytes(stub())
    made = b"".join(unified_image(read_stub(tmp_path / "stub"), "", Bytes(b"k"), Bytes(b"i")))
    assert (len(made) % 512, made[0x46]) == (0, 4)


MACHINES = [
    (0x8664, "amd64", "BOOTX64.EFI"),
    (0xAA64, "arm64", "BOOTAA64.EFI"),
    (0x1C2, "arm", "BOOTARM.EFI"),
    (0x14C, "386", "BOOTIA32.EFI"),
]


@pytest.mark.parametrize(("machine", "architecture", "name"), MACHINES)
def test_every_machine_has_its_boot_file_and_no_other_machine_s(tmp_path: Path, machine: int, architecture: str, name: str) -> None:
    (tmp_path / "stub").write_bytes(stub().replace(b"PE\0\0\x64\x86", b"PE\0\0" + struct.pack("<H", machine)))
    found = read_stub(tmp_path / "stub")
    assert found.boot_name == name
    check_machine(found, architecture)
    with pytest.raises(StubRefused, match=f"a program for {architecture}, and the store is for riscv64"):
        check_machine(found, "riscv64")
