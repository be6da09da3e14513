"""A unified kernel image: systemd's stub with command line, kernel and initramfs as sections of one EFI program.

UAPI group's specification "Unified Kernel Image"; Microsoft's PE format. Signed as a whole, it anchors everything that the command
line names, the root hash first of all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.entries import Bytes, Content
from shiplap.core.errors import Refused

_STUB_MAX_BYTES = 16 << 20
_SECTION = struct.Struct("<8sIIIIIIHHI")
_INITIALIZED_READABLE = 0x40000040
_PE32, _PE32_PLUS = 0x10B, 0x20B
_MACHINES = {
    0x14C: ("386", "BOOTIA32.EFI"),
    0x1C2: ("arm", "BOOTARM.EFI"),
    0x8664: ("amd64", "BOOTX64.EFI"),
    0xAA64: ("arm64", "BOOTAA64.EFI"),
}
"""Machine of the PE header → architecture, and the file that firmware starts by itself (UEFI 2.10, 3.5.1.1)."""


class StubRefused(Refused):
    """Not a stub that sections can be added to."""


@dataclass(frozen=True, slots=True)
class Stub:
    """``architecture``: as platforms name it. ``boot_name``: the file that firmware of that machine looks for in ``EFI/BOOT``."""

    data: bytes
    architecture: str
    boot_name: str
    header_at: int
    sections: int
    table_at: int
    headers_bytes: int
    section_alignment: int
    file_alignment: int
    image_bytes: int


def read_stub(path: Path) -> Stub:
    """Raises StubRefused."""
    try:
        with path.open("rb") as file:
            data = file.read(_STUB_MAX_BYTES + 1)
    except OSError as error:
        raise StubRefused(f"cannot read the EFI stub {path}: {error.strerror}") from error
    hint = "give systemd's, linuxx64.efi.stub or linuxaa64.efi.stub (Debian: systemd-boot-efi)"
    try:
        (at,) = struct.unpack_from("<I", data, 0x3C)
        magic, machine, sections, optional_bytes = struct.unpack_from("<4sHH12xH", data, at)
        (kind,) = struct.unpack_from("<H", data, at + 24)
        section_alignment, file_alignment = struct.unpack_from("<II", data, at + 56)
        image_bytes, headers_bytes = struct.unpack_from("<II", data, at + 80)
    except struct.error:
        raise StubRefused(f"{path} is no EFI program", hint=hint) from None
    if data[:2] != b"MZ" or magic != b"PE\0\0" or kind not in (_PE32, _PE32_PLUS) or len(data) > _STUB_MAX_BYTES:
        raise StubRefused(f"{path} is no EFI program", hint=hint)
    if machine not in _MACHINES:
        raise StubRefused(f"{path} is an EFI program for a machine (0x{machine:x}) that shiplap has no boot file name for")
    if not 0 < section_alignment <= 1 << 20 or not 0 < file_alignment <= 1 << 16:
        raise StubRefused(f"{path} has sections aligned to {section_alignment} and {file_alignment} bytes", hint=hint)
    table_at = at + 24 + optional_bytes
    return Stub(data, *_MACHINES[machine], at, sections, table_at, headers_bytes, section_alignment, file_alignment, image_bytes)


def check_machine(stub: Stub, architecture: str) -> None:
    """Raises StubRefused for a stub of another machine."""
    if stub.architecture != architecture:
        raise StubRefused(f"the EFI stub is a program for {stub.architecture}, and the store is for {architecture}")


def unified_image(stub: Stub, command_line: str, kernel: Content, initrd: Content) -> Iterator[bytes]:
    """The pieces of the program. Raises StubRefused when the stub's header has no room for three more sections."""
    # The kernel is last: it may unpack itself behind its own end.
    sections: Mapping[str, Content] = {".cmdline": Bytes(command_line.encode() + b"\0"), ".initrd": initrd, ".linux": kernel}
    end = stub.table_at + (stub.sections + len(sections)) * _SECTION.size
    if end > min(stub.headers_bytes, len(stub.data)) or stub.data[stub.table_at + stub.sections * _SECTION.size : end].strip(b"\0"):
        raise StubRefused("the EFI stub's header has no room for more sections", hint="give systemd's stub as its package has it")
    head = bytearray(stub.data)
    file_at = _up(len(head), stub.file_alignment)
    address = _up(stub.image_bytes, stub.section_alignment)
    places = []
    for number, (name, content) in enumerate(sections.items(), stub.sections):
        size = _up(content.size_bytes, stub.file_alignment)
        record = (name.encode(), content.size_bytes, address, size, file_at, 0, 0, 0, 0, _INITIALIZED_READABLE)
        _SECTION.pack_into(head, stub.table_at + number * _SECTION.size, *record)
        places.append((content, size - content.size_bytes))
        address, file_at = _up(address + content.size_bytes, stub.section_alignment), file_at + size
    if max(address, file_at) >= 1 << 32:
        raise StubRefused("kernel and initramfs together are larger than an EFI program can be")
    struct.pack_into("<H", head, stub.header_at + 6, stub.sections + len(sections))
    struct.pack_into("<I", head, stub.header_at + 80, address)
    struct.pack_into("<I", head, stub.header_at + 88, 0)  # the checksum: none, as firmware does not look at it
    yield bytes(head).ljust(_up(len(head), stub.file_alignment), b"\0")
    for content, padding in places:
        yield from content.chunks()
        yield bytes(padding)


def _up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
