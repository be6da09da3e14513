"""ELF headers: what a program says of itself, held against readelf; and hostile files, which only ever are no program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from elffiles import (
    ARM_EABI5,
    ARM_HARD,
    ARM_SOFT,
    CORE,
    DYN,
    EM,
    EXEC,
    FORMS,
    REL,
    Segment,
    arm_attributes,
    elf,
    mips_abiflags,
    program,
    x86_isa,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from memorytar import as_file
from requirement import missing
from shiplap.core.elf import Elf, UnreadableElf, read_elf
from shiplap.core.elfplatform import architecture_of, description
from shiplap.core.entries import Bytes, PathContent


def read(data: bytes) -> Elf:
    """The headers of a file that has them, read through a file and in one piece."""
    found = read_elf(Bytes(data))
    with as_file(data, 7) as file:
        assert read_elf(file) == found
    assert isinstance(found, Elf), found
    return found


def unreadable(data: bytes) -> str:
    found = read_elf(Bytes(data))
    with as_file(data) as file:
        assert read_elf(file) == found
    assert isinstance(found, UnreadableElf), found
    return found.reason


@pytest.mark.parametrize("architecture", sorted(FORMS))
def test_machine_class_and_byte_order_of_every_architecture(architecture: str) -> None:
    machine, bits, order = FORMS[architecture]
    found = read(program(architecture))
    assert (found.machine, found.bits, found.byte_order) == (EM[machine], bits, {"<": "little", ">": "big"}[order])
    assert found.is_program and not found.linked and found.interpreter is None
    assert architecture_of(found) == architecture


@pytest.mark.parametrize("architecture", ["386", "amd64", "mips", "s390x"])
def test_the_interpreter_is_read_in_every_class_and_byte_order(architecture: str) -> None:
    found = read(program(architecture, type=DYN, interpreter=b"/lib/ld.so.1"))
    assert found.interpreter == b"/lib/ld.so.1" and found.linked


def test_what_names_a_library_is_linked_and_a_static_program_is_not() -> None:
    assert read(program(needed=True)).linked
    assert read(program(type=DYN, soname=True)).linked
    assert not read(program()).linked
    # A static program that moves itself has a dynamic section as well, without libraries in it.
    assert not read(program(type=DYN, segments=(Segment(2, bytes(16) + b"\1" + bytes(15)),))).linked


@pytest.mark.parametrize(("type_", "is_program"), [(EXEC, True), (DYN, True), (REL, False), (CORE, False), (0, False), (0xFE00, False)])
def test_objects_modules_and_core_dumps_are_no_programs(type_: int, is_program: bool) -> None:
    assert read(program(type=type_)).is_program == is_program


@pytest.mark.parametrize(
    ("flags", "attributes", "interpreter", "expected"),
    [
        (ARM_HARD, None, None, "hard"),
        (ARM_SOFT, None, None, "soft"),
        (ARM_HARD, arm_attributes((28, 0)), b"/lib/ld-linux.so.3", "hard"),  # the flags are the linker's own word
        (ARM_EABI5, arm_attributes((28, 1)), b"/lib/ld-linux.so.3", "hard"),
        (ARM_EABI5, arm_attributes((28, 0)), b"/lib/ld-linux-armhf.so.3", "soft"),
        (ARM_EABI5, arm_attributes((5, b"7-A"), (6, 10), (67, b"2.09"), (28, 1)), None, "hard"),
        (ARM_EABI5, arm_attributes((32, b"\1\x1cgnu"), (28, 1)), None, "hard"),  # Tag_compatibility: 32, number, text
        (ARM_EABI5, arm_attributes((28, 3)), b"/lib/ld-linux-armhf.so.3", "hard"),  # fits both; the interpreter decides
        (ARM_EABI5, arm_attributes((6, 10)), b"/lib/ld-musl-armhf.so.1", "hard"),
        (ARM_EABI5, arm_attributes((28, 1), vendor=b"gnu"), b"/lib/ld-musl-arm.so.1", "soft"),
        (ARM_EABI5, None, b"/lib/ld-linux.so.3", "soft"),
        (ARM_EABI5, None, b"/lib/ld-uClibc.so.0", None),
        (ARM_EABI5 | 0x600, None, None, None),  # both
    ],
)
def test_the_float_abi_of_arm_is_in_flags_else_attributes_else_the_interpreter(
    flags: int, attributes: bytes | None, interpreter: bytes | None, expected: str | None
) -> None:
    found = read(program("arm", flags=flags, attributes=attributes, interpreter=interpreter))
    assert found.float_abi == expected


def test_attributes_far_behind_the_beginning_are_found() -> None:
    data = program("arm", flags=ARM_EABI5, attributes=arm_attributes((28, 1)), pad_bytes=3 << 20)
    assert read(data).float_abi == "hard"


@pytest.mark.parametrize(
    ("architecture", "flags", "expected"),
    [
        ("riscv64", 0, "soft"),
        ("riscv64", 3, "single"),
        ("riscv64", 5, "double"),
        ("riscv64", 6, "quad"),
        ("loong64", 0x41, "soft"),
        ("loong64", 0x42, "single"),
        ("loong64", 0x43, "double"),
        ("loong64", 0, None),
    ],
)
def test_the_float_abi_of_riscv_and_loongarch_is_in_the_flags(architecture: str, flags: int, expected: str | None) -> None:
    assert read(program(architecture, flags=flags)).float_abi == expected


@pytest.mark.parametrize(("fp_abi", "expected"), [(0, None), (1, "hard"), (3, "soft"), (5, "hard")])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_float_abi_of_mips_is_in_its_abiflags(fp_abi: int, expected: str | None, order: str) -> None:
    assert read(elf(8, 32, order, segments=(mips_abiflags(fp_abi, order),))).float_abi == expected


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("segment", [0x6474E553, 4])
def test_the_level_of_x86_64_that_a_program_needs(level: int, segment: int) -> None:
    assert read(program(segments=(x86_isa(level, segment=segment),))).isa_level == level


def test_other_notes_say_no_level() -> None:
    build_id = Segment(4, b"\4\0\0\0\4\0\0\0\3\0\0\0GNU\0\1\2\3\4")
    assert read(program(segments=(build_id,))).isa_level == 0
    assert read(program(segments=(build_id, x86_isa(3, segment=4)))).isa_level == 3
    assert read(program()).isa_level == 0


@pytest.mark.parametrize("data", [b"", b"\x7fEL", b"#!/bin/sh\n" + bytes(100), b"\x7fELg" + bytes(100)])
def test_what_does_not_begin_like_elf_is_none(data: bytes) -> None:
    assert read_elf(Bytes(data)) is None


def test_what_begins_like_elf_and_goes_on_otherwise_is_said_to_be_unreadable() -> None:
    good = program(interpreter=b"/lib/ld.so")
    assert unreadable(good[:10]) == unreadable(good[:40]) == "it is cut short"
    assert unreadable(good[:4] + b"\3" + good[5:]) == "its class is 3, neither 32 nor 64 bits"
    assert unreadable(good[:5] + b"\0" + good[6:]) == "its byte order is 0, neither little nor big"
    assert unreadable(good[:100]) == "its program headers lie outside the file"
    assert unreadable(good[:54] + b"\x20" + good[55:]) == "it has 2 program headers of 32 bytes"
    assert unreadable(good[:56] + b"\xff\xff" + good[58:]) == "it has 65535 program headers of 56 bytes"
    assert unreadable(good.replace(b"ld.so\0", b"ld.so.")) == "the name of its interpreter does not end"
    assert "the name of its interpreter has 5001 bytes" in unreadable(program(interpreter=b"i" * 5000))
    # Nothing of a program header is needed where nothing is loaded by it.
    assert read(program(type=REL)[:64]).type == REL


BASES = [
    program("amd64", interpreter=b"/lib64/ld-linux-x86-64.so.2", needed=True, segments=(x86_isa(3),)),
    program("amd64", segments=(x86_isa(2, segment=4),)),
    program("arm", flags=ARM_EABI5, attributes=arm_attributes((5, b"7-A"), (6, 10), (28, 1)), soname=True),
    program("mips", segments=(mips_abiflags(3, ">"),), interpreter=b"/lib/ld.so.1"),
    program("riscv64", needed=True),
]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(BASES), st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), max_size=6), st.integers(0, 500))
def test_a_mutated_file_raises_nothing(base: bytes, changes: list[tuple[int, bytes]], cut: int) -> None:
    data = bytearray(base)
    for at, new in changes:
        data[at : at + len(new)] = new
    mutated = bytes(data[: len(data) - cut])
    found = read_elf(Bytes(mutated))
    assert found is None or isinstance(found, (Elf, UnreadableElf))
    assert (found is None) == (mutated[:4] != b"\x7fELF")
    if isinstance(found, Elf):
        assert description(found).isprintable()


@pytest.mark.parametrize("base", BASES)
def test_every_cut_and_every_changed_byte_raises_nothing(base: bytes) -> None:
    for at in range(len(base)):
        read_elf(Bytes(base[:at]))
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            read_elf(Bytes(base[:at] + bytes((value,)) + base[at + 1 :]))


@dataclass
class _Counting:
    """A content that can only be read from its beginning, and says how much of it was."""

    data: bytes
    given_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), 1000):
            self.given_bytes += 1000
            yield self.data[start : start + 1000]


def test_a_content_that_is_read_piece_by_piece_gives_the_same_and_no_more_is_read_than_needed() -> None:
    far = program("arm", flags=ARM_EABI5, attributes=arm_attributes((28, 1)), pad_bytes=5000)
    assert read_elf(_Counting(far)) == read(far)
    near = _Counting(program("amd64", interpreter=b"/lib64/ld-linux-x86-64.so.2", pad_bytes=100_000))
    assert isinstance(read_elf(near), Elf)
    assert near.given_bytes == 1000


def _readelf(path: Path) -> dict[str, str]:
    done = subprocess.run(
        ["readelf", "-h", "-l", "-n", path], capture_output=True, text=True, check=True, env={"LC_ALL": "C", "PATH": "/usr/bin"}
    )
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in done.stdout.splitlines())}
    interpreter = re.search(r"Requesting program interpreter: (.*)\]", done.stdout)
    facts["interpreter"] = interpreter[1] if interpreter else ""
    # binutils 2.40 lists the levels; what is needed is the highest.
    levels = re.search(r"x86 ISA needed: (.*)", done.stdout)
    facts["level"] = levels[1].split(", ")[-1] if levels else ""
    return facts


_READELF_MACHINES = {
    "Intel 80386": "386",
    "Advanced Micro Devices X86-64": "amd64",
    "ARM": "arm",
    "AArch64": "arm64",
    "LoongArch": "loong64",
    "MIPS R3000": "mips",
    "PowerPC64": "ppc64",
    "RISC-V": "riscv",
    "IBM S/390": "s390x",
}
_LEVELS = {"": 0, "x86-64-baseline": 1, "x86-64-v2": 2, "x86-64-v3": 3, "x86-64-v4": 4}


def assert_as_readelf(path: Path) -> Elf:
    """What we read of ``path`` is what binutils reads."""
    found = read_elf(PathContent(path, path.stat().st_size))
    assert isinstance(found, Elf)
    facts = _readelf(path)
    assert facts["Class"] == f"ELF{found.bits}"
    assert facts["Data"].endswith(f"{found.byte_order} endian")
    assert EM[_READELF_MACHINES[facts["Machine"]]] == found.machine
    assert facts["Type"].startswith({EXEC: "EXEC", DYN: "DYN"}[found.type])
    assert int(facts["Flags"].partition(",")[0], 16) == found.flags
    if found.machine == EM["arm"] and "-float ABI" in facts["Flags"]:
        assert f"{found.float_abi}-float ABI" in facts["Flags"]
    if found.machine == EM["riscv"]:
        assert f"{found.float_abi}-float ABI" in facts["Flags"]
    assert (found.interpreter or b"").decode() == facts["interpreter"]
    if found.machine == EM["amd64"]:
        assert found.isa_level == _LEVELS[facts["level"]]
    return found


needs_readelf = pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf (binutils) is not installed")


@needs_readelf
@pytest.mark.parametrize("architecture", sorted(FORMS))
def test_made_files_are_what_readelf_says(tmp_path: Path, architecture: str) -> None:
    segments = (x86_isa(3, segment=4), x86_isa(3)) if architecture == "amd64" else ()
    (tmp_path / "f").write_bytes(program(architecture, type=DYN, interpreter=b"/lib/ld.so.1", needed=True, segments=segments))
    assert_as_readelf(tmp_path / "f")


@needs_readelf
def test_programs_of_this_machine_are_what_readelf_says() -> None:
    seen = 0
    for folder in ("/usr/bin", "/usr/sbin", "/usr/lib/x86_64-linux-gnu"):
        paths = sorted(path for path in Path(folder).glob("*") if path.is_file() and not path.is_symlink())
        for path in paths[:: max(1, len(paths) // 12)]:
            with path.open("rb") as file:
                begins = file.read(18)
            if begins[:4] == b"\x7fELF" and begins[16] in (EXEC, DYN):
                assert_as_readelf(path)
                seen += 1
    assert seen


# Debian's libc6-*-cross packages: architecture "all", with real libraries for other machines.
_CROSS = {
    "arm-linux-gnueabihf": ("arm", "hard"),
    "arm-linux-gnueabi": ("arm", "soft"),
    "aarch64-linux-gnu": ("arm64", None),
    "riscv64-linux-gnu": ("riscv64", "double"),
    "s390x-linux-gnu": ("s390x", None),
    "mipsel-linux-gnu": ("mipsle", "hard"),
    "mips64el-linux-gnuabi64": ("mips64le", "hard"),
    "powerpc64le-linux-gnu": ("ppc64le", None),
    "i686-linux-gnu": ("386", None),
}


@needs_readelf
@pytest.mark.parametrize("triplet", sorted(_CROSS))
def test_real_libraries_of_other_machines_are_known(triplet: str) -> None:
    library = Path(os.environ.get("SHIPLAP_CROSS_LIBRARIES", "/usr"), triplet, "lib/libc.so.6")
    if not library.exists():
        missing("cross-libraries", f"{library} is not there; Debian has libc6-*-cross, SHIPLAP_CROSS_LIBRARIES another folder than /usr")
    found = assert_as_readelf(library)
    assert (architecture_of(found), found.float_abi) == _CROSS[triplet]
    assert found.linked and found.interpreter
