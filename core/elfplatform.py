"""What programs of a platform look like, and whether an ELF file is one of them.

Architectures and variants are GOARCH's and the OCI image specification's. What they imply: Go's ``internal/goarch`` for machine,
class and byte order, Docker's and Debian's images for the float ABI of each ARM variant.
"""

from __future__ import annotations

from dataclasses import dataclass

from shiplap.core.elf import (
    EF_MIPS_ABI2,
    EM_386,
    EM_AARCH64,
    EM_ARM,
    EM_LOONGARCH,
    EM_MIPS,
    EM_PPC64,
    EM_RISCV,
    EM_S390,
    EM_X86_64,
    Elf,
)
from shiplap.core.platform import Platform

# architecture: machine, bits, byte order.
_FORMS = {
    "386": (EM_386, 32, "little"),
    "amd64": (EM_X86_64, 64, "little"),
    "arm": (EM_ARM, 32, "little"),
    "arm64": (EM_AARCH64, 64, "little"),
    "loong64": (EM_LOONGARCH, 64, "little"),
    "mips": (EM_MIPS, 32, "big"),
    "mips64": (EM_MIPS, 64, "big"),
    "mips64le": (EM_MIPS, 64, "little"),
    "mipsle": (EM_MIPS, 32, "little"),
    "ppc64": (EM_PPC64, 64, "big"),
    "ppc64le": (EM_PPC64, 64, "little"),
    "riscv64": (EM_RISCV, 64, "little"),
    "s390x": (EM_S390, 64, "big"),
}
_NAMES = {form: name for name, form in _FORMS.items()}
_OTHER_NAMES = {
    (EM_X86_64, 32, "little"): "amd64 x32",
    (EM_S390, 32, "big"): "s390",
    (EM_RISCV, 32, "little"): "riscv32",
    (EM_AARCH64, 32, "little"): "arm64 ilp32",
    (EM_AARCH64, 64, "big"): "arm64be",
    (EM_ARM, 32, "big"): "armbe",
}
_OTHER_MACHINES = {2: "sparc", 4: "m68k", 15: "parisc", 20: "ppc", 42: "sh", 43: "sparc64", 50: "ia64", 94: "xtensa", 164: "hexagon"}
_OTHER_MACHINES |= {92: "openrisc", 93: "arc", 185: "avr32", 189: "microblaze", 195: "arc", 247: "bpf", 252: "csky", 0x9026: "alpha"}

# What else a device would need to run one after all: (platform's architecture, program's) → a sentence.
_REMARKS = {
    ("amd64", "386"): "it needs a kernel with IA32 emulation",
    ("amd64", "amd64 x32"): "it needs a kernel with the x32 ABI",
    ("arm64", "arm"): "it needs a processor and a kernel that still run 32-bit programs",
    ("mips64", "mips"): "it needs a kernel with the o32 ABI",
    ("mips64le", "mipsle"): "it needs a kernel with the o32 ABI",
    ("s390x", "s390"): "it needs a kernel that still runs 31-bit programs",
}
_LIBRARY_VARIANTS = b"glibc-hwcaps/"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What every program of a platform must be. ``float_abi``: None where any will do; ``isa_level``: of x86-64, else 0."""

    architecture: str
    machine: int
    bits: int
    byte_order: str
    float_abi: str | None = None
    isa_level: int = 0

    def __str__(self) -> str:
        return _text(self.architecture, self.bits, self.byte_order, self.float_abi, self.isa_level)


def expectation(platform: Platform) -> Expectation | None:
    """What programs for ``platform`` must be; None for an architecture that Go does not have on Linux."""
    platform = platform.normalised
    form = _FORMS.get(platform.architecture)
    if form is None:
        return None
    variant, float_abi, isa_level = platform.variant, None, 0
    if platform.architecture == "arm":
        float_abi = "soft" if variant in ("v4", "v5") else "hard"
    elif platform.architecture in ("riscv64", "loong64"):
        float_abi = "double"
    elif platform.architecture.startswith("mips") and variant in ("softfloat", "hardfloat"):  # the words of GOMIPS
        float_abi = variant.removesuffix("float")
    elif platform.architecture == "amd64":
        isa_level = int(variant[1]) if variant in ("v2", "v3", "v4") else 1
    return Expectation(platform.architecture, *form, float_abi, isa_level)


def architecture_of(elf: Elf) -> str:
    """GOARCH of a program, or the machine's usual name."""
    form = (elf.machine, elf.bits, elf.byte_order)
    if elf.machine == EM_MIPS and elf.bits == 32 and elf.flags & EF_MIPS_ABI2:
        return "mips n32"
    return _NAMES.get(form) or _OTHER_NAMES.get(form) or _OTHER_MACHINES.get(elf.machine) or f"machine {elf.machine}"


def description(elf: Elf) -> str:
    """``arm (32-bit little-endian, soft float)``."""
    return _text(architecture_of(elf), elf.bits, elf.byte_order, elf.float_abi if elf.linked else None, elf.isa_level)


def misfit(elf: Elf, expected: Expectation, path: bytes = b"") -> str | None:
    """Why ``elf`` does not run where ``expected`` does, as a short text that may be empty; None when it fits.

    A program that is not linked does not mix with others, so its float ABI is its own affair. Libraries below
    ``glibc-hwcaps`` are taken only by processors that can run them.
    """
    found = architecture_of(elf)
    if found != expected.architecture:
        return _REMARKS.get((expected.architecture, found), "")
    if expected.float_abi is not None and elf.linked and elf.float_abi not in (None, expected.float_abi):
        return "the two cannot be mixed"
    if expected.isa_level and elf.isa_level > expected.isa_level and _LIBRARY_VARIANTS not in path:
        return f"it says that it needs x86-64-v{elf.isa_level}"
    return None


def _text(architecture: str, bits: int, byte_order: str, float_abi: str | None, isa_level: int) -> str:
    facts = [f"{bits}-bit {byte_order}-endian"]
    if float_abi is not None:
        facts.append(f"{float_abi} float")
    if isa_level > 1:
        facts.append(f"x86-64-v{isa_level}")
    return f"{architecture} ({', '.join(facts)})"
