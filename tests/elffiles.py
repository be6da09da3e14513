"""ELF files made by code: headers of every machine, with just the parts that say what a program runs on."""

from __future__ import annotations

import struct
from dataclasses import dataclass

EXEC, DYN, REL, CORE = 2, 3, 1, 4
EM = {"386": 3, "mips": 8, "ppc64": 21, "s390x": 22, "arm": 40, "amd64": 62, "arm64": 183, "riscv": 243, "loong64": 258}
# GOARCH: machine, bits, byte order.
FORMS = {
    "386": ("386", 32, "<"),
    "amd64": ("amd64", 64, "<"),
    "arm": ("arm", 32, "<"),
    "arm64": ("arm64", 64, "<"),
    "loong64": ("loong64", 64, "<"),
    "mips": ("mips", 32, ">"),
    "mips64": ("mips", 64, ">"),
    "mips64le": ("mips", 64, "<"),
    "mipsle": ("mips", 32, "<"),
    "ppc64": ("ppc64", 64, ">"),
    "ppc64le": ("ppc64", 64, "<"),
    "riscv64": ("riscv", 64, "<"),
    "s390x": ("s390x", 64, ">"),
}
ARM_HARD, ARM_SOFT, ARM_EABI5 = 0x5000400, 0x5000200, 0x5000000
_USUAL_FLAGS = {"arm": ARM_HARD, "riscv64": 4, "loong64": 0x43}


@dataclass(frozen=True, slots=True)
class Segment:
    type: int
    data: bytes


def program(architecture: str = "amd64", **fields: object) -> bytes:
    """A program of a GOARCH with that platform's usual flags; ``fields`` as those of :func:`elf`."""
    machine, bits, order = FORMS[architecture]
    fields.setdefault("flags", _USUAL_FLAGS.get(architecture, 0))
    return elf(EM[machine], bits, order, **fields)  # type: ignore[arg-type]


def elf(
    machine: int,
    bits: int = 64,
    order: str = "<",
    *,
    type: int = EXEC,
    flags: int = 0,
    interpreter: bytes | None = None,
    needed: bool = False,
    soname: bool = False,
    segments: tuple[Segment, ...] = (),
    attributes: bytes | None = None,
    pad_bytes: int = 0,
) -> bytes:
    """An ELF file. ``needed``, ``soname``: the dynamic section has one. ``attributes``: content of .ARM.attributes."""
    word = "I" if bits == 32 else "Q"
    all_segments = [Segment(1, b"code")]
    if interpreter is not None:
        all_segments.append(Segment(3, interpreter + b"\0"))
    if needed or soname:
        tags = [(1, 5)] * needed + [(14, 9)] * soname + [(0, 0)]
        all_segments.append(Segment(2, b"".join(struct.pack(f"{order}2{word}", *tag) for tag in tags)))
    all_segments += segments
    header_bytes, phent, shent = (52, 32, 40) if bits == 32 else (64, 56, 64)
    at = header_bytes + phent * len(all_segments)
    headers, body = b"", b""
    for one in all_segments:
        offset, size = at + len(body), len(one.data)
        if bits == 32:
            headers += struct.pack(f"{order}8I", one.type, offset, 0, 0, size, size, 4, 4)
        else:
            headers += struct.pack(f"{order}2I6Q", one.type, 4, offset, 0, 0, size, size, 8)
        body += one.data
    body += bytes(pad_bytes)
    shoff = shnum = 0
    if attributes is not None:
        start = at + len(body)
        names = b"\0.shstrtab\0.ARM.attributes\0"
        body += attributes + names
        shoff, shnum = at + len(body), 3
        for name, kind, offset, size in (
            (0, 0, 0, 0),
            (11, 0x70000003, start, len(attributes)),
            (1, 3, start + len(attributes), len(names)),
        ):
            body += struct.pack(f"{order}10I", name, kind, 0, 0, offset, size, 0, 0, 1, 0)
    ident = b"\x7fELF" + bytes((bits // 32, 1 if order == "<" else 2, 1)) + bytes(9)
    header = struct.pack(
        f"{order}HHI3{word}I6H",
        *(type, machine, 1, 0, header_bytes, shoff, flags, header_bytes, phent, len(all_segments), shent, shnum, 2 if shnum else 0),
    )
    return ident + header + headers + body


def x86_isa(level: int, *, segment: int = 0x6474E553) -> Segment:
    """The note by which a program says that it needs x86-64-v``level`` (baseline and everything up to it)."""
    wanted = struct.pack("<2II4x", 0xC0008002, 4, (1 << level) - 1)
    other = struct.pack("<2II4x", 0xC0000002, 4, 3)  # IBT and SHSTK, as nearly every program of today has
    return Segment(segment, struct.pack("<3I", 4, len(other + wanted), 5) + b"GNU\0" + other + wanted)


def mips_abiflags(fp_abi: int, order: str = "<") -> Segment:
    return Segment(0x70000003, struct.pack(f"{order}H6B4I", 0, 32, 2, 1, 1, 0, fp_abi, 0, 0, 0, 0))


def arm_attributes(*tags: tuple[int, int | bytes], order: str = "<", vendor: bytes = b"aeabi") -> bytes:
    """Build attributes of the whole file: small numbers, or texts."""
    body = b"".join(bytes((tag, value)) if isinstance(value, int) else bytes((tag,)) + value + b"\0" for tag, value in tags)
    part = b"\1" + struct.pack(f"{order}I", len(body) + 5) + body
    return b"A" + struct.pack(f"{order}I", len(vendor) + 1 + len(part) + 4) + vendor + b"\0" + part
