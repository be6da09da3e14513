"""The headers of ELF files, as far as they say what a program runs on. Reads hostile files: nothing here raises for what they hold.

Sources: the System V ABI (gabi) for the format; the processor supplements for flags and notes (ELF for the Arm Architecture and
its addenda for build attributes, x86-64 psABI for GNU_PROPERTY_X86_ISA_1_NEEDED, RISC-V and LoongArch ELF psABI for float flags,
binutils' elf/mips.h for .MIPS.abiflags); Linux' fs/binfmt_elf.c for what the kernel accepts.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from shiplap.core.entries import Content, FileSlice

EM_386, EM_MIPS, EM_PPC64, EM_S390, EM_ARM, EM_X86_64, EM_AARCH64, EM_RISCV, EM_LOONGARCH = 3, 8, 21, 22, 40, 62, 183, 243, 258
ET_EXEC, ET_DYN = 2, 3
EF_MIPS_ABI2 = 0x20
"""The n32 ABI: 32-bit files for a 64-bit processor."""

MAGIC = b"\x7fELF"
_HEAD_BYTES = 4096  # of most files this is all that is read
_PROGRAM_HEADERS_MAX_BYTES = 65536  # Linux refuses more (load_elf_phdrs)
_SECTION_HEADERS_MAX_BYTES = 1 << 20
_INTERPRETER_MAX_BYTES = 4096
_TABLE_MAX_BYTES = 65536  # of notes, build attributes and dynamic tags

_PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 2, 3, 4
_PT_GNU_PROPERTY = 0x6474E553
_PT_MIPS_ABIFLAGS = 0x70000003
_SHT_ARM_ATTRIBUTES = 0x70000003
_DT_NULL, _DT_NEEDED, _DT_SONAME = 0, 1, 14
_NT_GNU_PROPERTY_TYPE_0 = 5
_X86_ISA_1_NEEDED = 0xC0008002
_EF_ARM_FLOAT = {0x200: "soft", 0x400: "hard"}
_EF_RISCV_FLOAT = {0: "soft", 2: "single", 4: "double", 6: "quad"}
_EF_LOONGARCH_FLOAT = {1: "soft", 2: "single", 3: "double"}
_TAG_ABI_VFP_ARGS = 28
_ARM_TEXT_TAGS = (4, 5, 67)  # and the odd ones above 32
_VFP_ARGS = {0: "soft", 1: "hard"}
# Where neither flags nor attributes say it. ld-linux.so.3 and ld-musl-arm.so.1 are the soft ones.
_ARM_INTERPRETERS = {
    b"ld-linux-armhf.so.3": "hard",
    b"ld-musl-armhf.so.1": "hard",
    b"ld-linux.so.3": "soft",
    b"ld-musl-arm.so.1": "soft",
}


@dataclass(frozen=True, slots=True)
class Elf:
    """What an ELF file says of itself. ``bits``: 32 or 64. ``byte_order``: little or big. ``type``: ET_EXEC, ET_DYN or another.

    ``linked``: it needs an interpreter or libraries, or is a library; what is not linked does not mix with others.
    ``float_abi``: hard or soft (ARM, MIPS), soft, single, double or quad (RISC-V, LoongArch); None where nothing says it.
    ``isa_level``: the x86-64 level that it says it needs, 1 to 4; 0 where nothing says it.
    """

    machine: int
    bits: int
    byte_order: str
    type: int
    flags: int = 0
    interpreter: bytes | None = None
    linked: bool = False
    float_abi: str | None = None
    isa_level: int = 0

    @property
    def is_program(self) -> bool:
        """Whether the kernel or a program loader would load it; objects, kernel modules and core dumps are no programs."""
        return self.type in (ET_EXEC, ET_DYN)


@dataclass(frozen=True, slots=True)
class UnreadableElf:
    """A file that begins like ELF and goes on like nothing that a kernel would load."""

    reason: str


class ContentBytes:
    """Bytes of a content at any place. Cheap at the beginning; elsewhere as cheap as the content allows."""

    __slots__ = ("_content", "_head", "size_bytes")

    def __init__(self, content: Content) -> None:
        self._content = content
        self.size_bytes = content.size_bytes
        if isinstance(content, FileSlice):
            self._head = os.pread(content.descriptor, min(_HEAD_BYTES, content.size_bytes), content.offset)
        else:
            self._head = next(iter(content.chunks()), b"")

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes at ``offset``, or fewer where the content ends."""
        if offset + count <= len(self._head):
            return self._head[offset : offset + count]
        count = max(0, min(count, self.size_bytes - offset))
        if isinstance(self._content, FileSlice):
            return os.pread(self._content.descriptor, count, self._content.offset + offset)
        return self._read_on(offset, count)

    def _read_on(self, offset: int, count: int) -> bytes:
        """From a content that is only read from its beginning."""
        taken = bytearray()
        position = 0
        for piece in self._content.chunks() if count else ():
            taken += piece[max(0, offset - position) : offset + count - position]
            position += len(piece)
            if position >= offset + count:
                break
        return bytes(taken)


class _Malformed(Exception):
    """Ends the reading of one file; never leaves this module."""


def read_elf(content: Content) -> Elf | UnreadableElf | None:
    """The headers of ``content``; None when it is no ELF file. Raises only what reading the bytes raises."""
    file = ContentBytes(content)
    if file.read(0, 4) != MAGIC:
        return None
    try:
        return _Reader(file).elf()
    except (_Malformed, struct.error) as problem:
        # struct.error: something ends before it is complete.
        return UnreadableElf(str(problem) if isinstance(problem, _Malformed) else "it is cut short")


@dataclass(frozen=True, slots=True)
class _Segment:
    type: int
    offset: int
    size_bytes: int


class _Reader:
    def __init__(self, file: ContentBytes) -> None:
        self._file = file
        ident = file.read(0, 16)
        if len(ident) < 16:
            raise _Malformed("it is cut short")
        if ident[4] not in (1, 2):
            raise _Malformed(f"its class is {ident[4]}, neither 32 nor 64 bits")
        if ident[5] not in (1, 2):
            raise _Malformed(f"its byte order is {ident[5]}, neither little nor big")
        self._bits = 32 * ident[4]
        self._order = "<>"[ident[5] - 1]
        self._word = "I" if self._bits == 32 else "Q"

    def elf(self) -> Elf:
        type_, machine, _, _, phoff, shoff, flags, _, phentsize, phnum, shentsize, shnum, _ = self._unpack(f"HHI3{self._word}I6H", 16)
        byte_order = "little" if self._order == "<" else "big"
        if type_ not in (ET_EXEC, ET_DYN):
            return Elf(machine, self._bits, byte_order, type_, flags)
        segments = self._segments(phoff, phentsize, phnum)
        interpreter = self._interpreter(segments)
        float_abi = None
        if machine == EM_ARM:
            float_abi = _EF_ARM_FLOAT.get(flags & 0x600) or self._arm_attribute(shoff, shentsize, shnum)
            if float_abi is None and interpreter is not None:
                float_abi = _ARM_INTERPRETERS.get(interpreter.rpartition(b"/")[2])
        elif machine == EM_RISCV:
            float_abi = _EF_RISCV_FLOAT[flags & 6]
        elif machine == EM_LOONGARCH:
            float_abi = _EF_LOONGARCH_FLOAT.get(flags & 7)
        elif machine == EM_MIPS:
            float_abi = self._mips_float(segments)
        return Elf(
            machine,
            self._bits,
            byte_order,
            type_,
            flags,
            interpreter,
            interpreter is not None or self._has_libraries(segments),
            float_abi,
            self._x86_level(segments) if machine == EM_X86_64 else 0,
        )

    def _unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        layout = self._order + layout
        return struct.unpack(layout, self._file.read(offset, struct.calcsize(layout)))

    def _segments(self, phoff: int, phentsize: int, phnum: int) -> list[_Segment]:
        if not phnum:
            return []
        size_bytes = 32 if self._bits == 32 else 56
        if phentsize != size_bytes or phnum * size_bytes > _PROGRAM_HEADERS_MAX_BYTES:
            raise _Malformed(f"it has {phnum} program headers of {phentsize} bytes")
        raw = self._file.read(phoff, phnum * size_bytes)
        if len(raw) < phnum * size_bytes:
            raise _Malformed("its program headers lie outside the file")
        if self._bits == 32:
            return [_Segment(one[0], one[1], one[4]) for one in struct.iter_unpack(f"{self._order}8I", raw)]
        return [_Segment(one[0], one[2], one[5]) for one in struct.iter_unpack(f"{self._order}2I6Q", raw)]

    def _interpreter(self, segments: list[_Segment]) -> bytes | None:
        for segment in segments:
            if segment.type == _PT_INTERP:
                if not 2 <= segment.size_bytes <= _INTERPRETER_MAX_BYTES:
                    raise _Malformed(f"the name of its interpreter has {segment.size_bytes} bytes")
                name = self._file.read(segment.offset, segment.size_bytes)
                if len(name) < segment.size_bytes or name[-1]:
                    raise _Malformed("the name of its interpreter does not end")
                return name.partition(b"\0")[0]
        return None

    def _has_libraries(self, segments: list[_Segment]) -> bool:
        """Whether the dynamic section names a library: one that is needed, or the file itself."""
        layout = f"{self._order}2{self._word}"
        for raw in self._tables(segments, _PT_DYNAMIC):
            for tag, _ in struct.iter_unpack(layout, raw[: len(raw) - len(raw) % struct.calcsize(layout)]):
                if tag == _DT_NULL:
                    break
                if tag in (_DT_NEEDED, _DT_SONAME):
                    return True
        return False

    def _tables(self, segments: list[_Segment], *types: int) -> Iterator[bytes]:
        for segment in segments:
            if segment.type in types:
                yield self._file.read(segment.offset, min(segment.size_bytes, _TABLE_MAX_BYTES))

    def _mips_float(self, segments: list[_Segment]) -> str | None:
        for raw in self._tables(segments, _PT_MIPS_ABIFLAGS):
            # fp_abi is the eighth byte: 0 any, 3 soft, the others are ways to use the registers.
            if len(raw) > 7 and raw[7]:
                return "soft" if raw[7] == 3 else "hard"
        return None

    def _x86_level(self, segments: list[_Segment]) -> int:
        """The highest bit of GNU_PROPERTY_X86_ISA_1_NEEDED: baseline, v2, v3, v4."""
        level = 0
        # Linkers before 2.31 make the note, but not the segment of its own.
        kinds = (_PT_GNU_PROPERTY,) if any(segment.type == _PT_GNU_PROPERTY for segment in segments) else (_PT_NOTE,)
        for raw in self._tables(segments, *kinds):
            for type_, data in _properties(raw, self._order, 8 if self._bits == 64 else 4):
                if type_ == _X86_ISA_1_NEEDED and len(data) == 4:
                    level = max(level, min(4, struct.unpack(f"{self._order}I", data)[0].bit_length()))
        return level

    def _arm_attribute(self, shoff: int, shentsize: int, shnum: int) -> str | None:
        """Tag_ABI_VFP_args of .ARM.attributes. Sections may be stripped or lie: then nothing is known."""
        if not shoff or shentsize != 40 or shnum * 40 > _SECTION_HEADERS_MAX_BYTES:
            return None
        raw = self._file.read(shoff, shnum * 40)
        for header in struct.iter_unpack(f"{self._order}10I", raw[: len(raw) - len(raw) % 40]):
            if header[1] == _SHT_ARM_ATTRIBUTES:
                found = _arm_attributes(self._file.read(header[4], min(header[5], _TABLE_MAX_BYTES)), self._order)
                return _VFP_ARGS.get(found.get(_TAG_ABI_VFP_ARGS, -1))
        return None


def _properties(raw: bytes, order: str, alignment: int) -> Iterator[tuple[int, bytes]]:
    """(type, data) of every GNU property in notes; ends where the notes stop making sense."""
    position = 0
    while position + 16 <= len(raw):
        name_bytes, desc_bytes, type_ = struct.unpack_from(f"{order}3I", raw, position)
        start = position + 12 + -(-name_bytes // 4) * 4
        end = start + desc_bytes
        if end > len(raw):
            return
        if type_ == _NT_GNU_PROPERTY_TYPE_0 and raw[position + 12 : position + 16] == b"GNU\0":
            at = start
            while at + 8 <= end:
                kind, size_bytes = struct.unpack_from(f"{order}2I", raw, at)
                if at + 8 + size_bytes > end:
                    return
                yield kind, raw[at + 8 : at + 8 + size_bytes]
                at += 8 + -(-size_bytes // alignment) * alignment
        position += -(-(end - position) // alignment) * alignment


def _arm_attributes(raw: bytes, order: str) -> dict[int, int]:
    """The numbers of the whole file in the public ("aeabi") part of build attributes; as far as they can be read."""
    found: dict[int, int] = {}
    if raw[:1] != b"A":
        return found
    position = 1
    while position + 4 <= len(raw):
        (length,) = struct.unpack_from(f"{order}I", raw, position)
        if length < 4:
            break
        part = raw[position + 4 : position + length]
        position += length
        vendor, _, rest = part.partition(b"\0")
        # Only the first part is looked at: Tag_File, and then its length with these five bytes in it.
        if vendor == b"aeabi" and len(rest) >= 5 and rest[0] == 1:
            (file_bytes,) = struct.unpack_from(f"{order}I", rest, 1)
            _take_attributes(rest[5:file_bytes], found)
    return found


def _take_attributes(raw: bytes, found: dict[int, int]) -> None:
    position = 0
    while position < len(raw):
        tag, position = _uleb128(raw, position)
        if tag == 32:  # Tag_compatibility: a number and a text
            _, position = _uleb128(raw, position)
        if tag in _ARM_TEXT_TAGS or tag == 32 or (tag > 32 and tag % 2):
            end = raw.find(b"\0", position)
            if end < 0:
                return
            position = end + 1
        else:
            value, position = _uleb128(raw, position)
            found[tag] = value


def _uleb128(raw: bytes, position: int) -> tuple[int, int]:
    """The number at ``position`` and where it ends; one that is too long is cut."""
    value = shift = 0
    while position < len(raw):
        byte = raw[position]
        position += 1
        if shift < 64:
            value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return value, position
