"""An ISO 9660 image with a flat list of files, each beginning at a whole MiB; the same bytes from the same files.

ECMA-119 (4th edition), interchange level 1: names of eight and three capital letters, no Joliet, no Rock Ridge. Its first 32 KiB
belong to nobody and may hold a partition table; the El Torito specification (1.0) and UEFI 2.10, 13.3.2 say how firmware finds a
boot image in it.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.entries import Content
from shiplap.core.errors import OutsideFailure, Refused

BLOCK_BYTES = 2048
ALIGNMENT_BYTES = 1 << 20
SYSTEM_AREA_BYTES = 16 * BLOCK_BYTES
FILE_MAX_BYTES = (1 << 32) - BLOCK_BYTES
"""One extent of a file: its size has 32 bits."""

_NAME = re.compile(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?")
_VOLUME = re.compile(r"[A-Z0-9_]{1,32}")
_EFI_PLATFORM = 0xEF
_PRIMARY, _PATHS_LITTLE, _PATHS_BIG, _ROOT, _CATALOG = 16, 19, 20, 21, 22


class MediumRefused(Refused):
    """Files that the medium cannot hold."""


@dataclass(frozen=True, slots=True)
class MediumFile:
    """``name``: as ISO 9660 has it, ``ROOT.IMG``."""

    name: str
    content: Content


def offsets(files: Sequence[MediumFile]) -> tuple[int, ...]:
    """Where each file will begin, in bytes; and, last, where the image ends. Raises MediumRefused."""
    found, position = [], ALIGNMENT_BYTES
    for file in files:
        if not _NAME.fullmatch(file.name):
            raise AssertionError(f"{file.name} is no name for ISO 9660")
        if file.content.size_bytes > FILE_MAX_BYTES:
            raise MediumRefused(f"{file.name} would have {file.content.size_bytes} bytes on the medium; 4 GiB are the most for one file")
        found.append(position)
        position += -(-max(1, file.content.size_bytes) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return (*found, position)


def write_iso(
    path: Path,
    files: Sequence[MediumFile],
    volume: str,
    epoch: int,
    *,
    efi_image: str | None = None,
    system_area: bytes = b"",
    tail: bytes = b"",
    advance: Callable[[int], object] = lambda amount_bytes: None,
) -> None:
    """Write the image ``path``, which must not exist yet, sparse where it is zero.

    ``volume``: its name, capital letters, digits and underscores. ``efi_image``: the name of the file that is a FAT file system for
    UEFI to boot from. ``system_area``, ``tail``: what the image begins with, and what ends one more MiB behind the files: the two
    copies of a partition table. ``advance``: told numbers of content bytes done. Raises MediumRefused, OutsideFailure.
    """
    assert _VOLUME.fullmatch(volume) and len(system_area) <= SYSTEM_AREA_BYTES
    places = offsets(files)
    end = places[-1] + (ALIGNMENT_BYTES if tail else 0)
    head = bytearray(BLOCK_BYTES * (_CATALOG + 1))
    head[: len(system_area)] = system_area

    def put(block: int, data: bytes) -> None:
        assert len(data) <= BLOCK_BYTES
        head[block * BLOCK_BYTES : block * BLOCK_BYTES + len(data)] = data

    directory = _directory(files, places, epoch)
    boot = None if efi_image is None else places[[file.name for file in files].index(efi_image)]
    put(_PRIMARY, _primary(volume, end // BLOCK_BYTES, epoch))
    put(_PRIMARY + 1, _terminator() if boot is None else _boot_record())
    put(_PRIMARY + 2, b"" if boot is None else _terminator())
    put(_PATHS_LITTLE, struct.pack("<BBIHBB", 1, 0, _ROOT, 1, 0, 0))
    put(_PATHS_BIG, struct.pack(">BBIHBB", 1, 0, _ROOT, 1, 0, 0))
    put(_ROOT, directory)
    put(_CATALOG, b"" if boot is None else _catalog(boot // BLOCK_BYTES))
    try:
        with path.open("xb") as target:
            target.truncate(end)
            target.write(head)
            for file, place in zip(files, places, strict=False):
                _copy(file.content.chunks(), target.fileno(), place, advance)
            if tail:
                target.seek(end - len(tail))
                target.write(tail)
            target.flush()
            os.fsync(target.fileno())
    except FileExistsError as error:
        raise OutsideFailure(f"{path} exists already") from error


def _copy(pieces: Iterable[bytes], target: int, position: int, advance: Callable[[int], object]) -> None:
    for piece in pieces:
        if piece.strip(b"\0"):
            view = memoryview(piece)
            done = 0
            while done < len(view):
                done += os.pwrite(target, view[done:], position + done)
        position += len(piece)
        advance(len(piece))


def _both(value: int) -> bytes:
    """A 32-bit number in both byte orders, as most numbers of the format are."""
    return struct.pack("<I", value) + struct.pack(">I", value)


def _both_short(value: int) -> bytes:
    return struct.pack("<H", value) + struct.pack(">H", value)


def _record(name: bytes, block: int, size_bytes: int, epoch: int, *, directory: bool = False) -> bytes:
    """A directory record (ECMA-119, 9.1)."""
    moment = time.gmtime(epoch)
    when = struct.pack("<7B", min(moment.tm_year - 1900, 255), *moment[1:6], 0)
    body = b"\0" + _both(block) + _both(size_bytes) + when + bytes([2 if directory else 0, 0, 0]) + _both_short(1)
    body += bytes([len(name)]) + name + bytes((len(name) + 1) % 2)
    return bytes([len(body) + 1]) + body


def _directory(files: Sequence[MediumFile], places: Sequence[int], epoch: int) -> bytes:
    records = [_record(name, _ROOT, BLOCK_BYTES, epoch, directory=True) for name in (b"\0", b"\1")]
    for file, place in sorted(zip(files, places, strict=False), key=lambda pair: pair[0].name.encode()):
        records.append(_record(file.name.encode() + b";1", place // BLOCK_BYTES, file.content.size_bytes, epoch))
    return b"".join(records)


def _primary(volume: str, blocks: int, epoch: int) -> bytes:
    """The primary volume descriptor (ECMA-119, 8.4)."""
    when = time.strftime("%Y%m%d%H%M%S00", time.gmtime(epoch)).encode() + b"\0"
    never = b"0" * 16 + b"\0"
    spaces = b" " * 128
    pieces = (
        b"\1CD001\1\0",
        b" " * 32,
        volume.encode().ljust(32),
        bytes(8),
        _both(blocks),
        bytes(32),
        _both_short(1) + _both_short(1) + _both_short(BLOCK_BYTES),
        _both(10),  # bytes of the path table: one record
        struct.pack("<II", _PATHS_LITTLE, 0),
        struct.pack(">II", _PATHS_BIG, 0),
        _record(b"\0", _ROOT, BLOCK_BYTES, epoch, directory=True),
        spaces * 3 + b"SHIPLAP".ljust(128),
        b" " * 37 * 3,
        when + when + never + never,
        b"\1\0",
    )
    return b"".join(pieces).ljust(BLOCK_BYTES, b"\0")


def _boot_record() -> bytes:
    return (b"\0CD001\1" + b"EL TORITO SPECIFICATION".ljust(64, b"\0") + struct.pack("<I", _CATALOG)).ljust(BLOCK_BYTES, b"\0")


def _terminator() -> bytes:
    return b"\xffCD001\1".ljust(BLOCK_BYTES, b"\0")


def _catalog(boot_block: int) -> bytes:
    """Validation entry and one entry of the EFI platform, no emulation. Its count of sectors has 16 bits: 0 is "to the end"."""
    validation = struct.pack("<BBH24sH2s", 1, _EFI_PLATFORM, 0, b"SHIPLAP", 0, b"\x55\xaa")
    checksum = -sum(struct.unpack("<16H", validation)) & 0xFFFF
    validation = struct.pack("<BBH24sH2s", 1, _EFI_PLATFORM, 0, b"SHIPLAP", checksum, b"\x55\xaa")
    return validation + struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, 0, boot_block)
