"""A disk image with a GUID partition table, written without tools, root or loop devices; the same bytes from the same parts.

Layout: UEFI specification 2.10, chapter 5 ("GUID Partition Table Disk Layout"): protective MBR, header and
128 entries at the start, the same entries and a second header at the end, everything of ours aligned to 1 MiB.
"""

from __future__ import annotations

import os
import struct
import uuid as uuids
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.errors import OutsideFailure, Refused

SECTOR_BYTES = 512
ALIGNMENT_BYTES = 1 << 20
NAME_UNITS = 36
"""UTF-16 code units of a partition's name."""

_ENTRIES = 128
_ENTRY = struct.Struct("<16s16sQQQ72s")
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY_SECTORS = _ENTRIES * _ENTRY.size // SECTOR_BYTES
_REVISION = 0x00010000
_MBR_PROTECTIVE = 0xEE
_CHUNK_BYTES = 64 << 10
_SECTORS_MAX = 1 << 55  # a file's size is a signed 64-bit number of bytes


class DiskRefused(Refused):
    """Partitions that no table can hold."""


@dataclass(frozen=True, slots=True)
class Partition:
    """``size_bytes``: of the partition, rounded up to whole alignment units. ``content``: what it begins with, None for zeros.

    ``type_uuid``, ``uuid``: canonical form. ``attributes``: the 64 bits of the entry.
    """

    name: str
    type_uuid: str
    uuid: str
    size_bytes: int
    content: Path | None = None
    attributes: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """A partition and where it lies: bytes from the start of the disk."""

    partition: Partition
    offset_bytes: int
    size_bytes: int


def place(partitions: Sequence[Partition]) -> tuple[Placed, ...]:
    """Partitions one after another from the first MiB on, each a whole number of MiB. Raises DiskRefused."""
    if len(partitions) > _ENTRIES:
        raise DiskRefused(f"{len(partitions)} partitions are more than the {_ENTRIES} that the table holds")
    if len({one.uuid for one in partitions}) < len(partitions):
        raise DiskRefused("two partitions would have the same UUID", hint="the same image cannot be root and store")
    placed, offset = [], ALIGNMENT_BYTES
    for one in partitions:
        if one.size_bytes <= 0:
            raise DiskRefused(f"the partition {one.name} has no size")
        if len(one.name.encode("utf-16-le")) > 2 * NAME_UNITS:
            raise DiskRefused(f"the partition's name {one.name!r} is longer than {NAME_UNITS} characters")
        size = -(-one.size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        placed.append(Placed(one, offset, size))
        offset += size
    if offset // SECTOR_BYTES > _SECTORS_MAX:
        raise DiskRefused("the partitions together are larger than a disk can be")
    return tuple(placed)


def disk_size_bytes(placed: Sequence[Placed]) -> int:
    """The whole disk: behind the last partition there is one MiB for the second table."""
    end = placed[-1].offset_bytes + placed[-1].size_bytes if placed else ALIGNMENT_BYTES
    return end + ALIGNMENT_BYTES


def tables(placed: Sequence[Placed], disk_uuid: str, size_bytes: int) -> tuple[bytes, bytes]:
    """What a disk of ``size_bytes`` begins with (protective MBR, header, entries), and what it ends with (entries, header)."""
    entries = b"".join(_entry(one) for one in placed).ljust(_ENTRIES * _ENTRY.size, b"\0")
    last = size_bytes // SECTOR_BYTES - 1
    first = _protective_mbr(last) + _header(1, last, 2, entries, disk_uuid) + entries
    return first, entries + _header(last, 1, last - _ENTRY_SECTORS, entries, disk_uuid)


def write_disk(
    path: Path, partitions: Sequence[Partition], disk_uuid: str, advance: Callable[[int], object] = lambda amount_bytes: None
) -> tuple[Placed, ...]:
    """Write the disk image ``path``, which must not exist yet, sparse where it is zero; returns where everything lies.

    ``advance``: told numbers of content bytes done. Raises DiskRefused, OutsideFailure.
    """
    placed = place(partitions)
    size = disk_size_bytes(placed)
    first_table, second_table = tables(placed, disk_uuid, size)
    try:
        with path.open("xb") as file:
            file.truncate(size)
            file.write(first_table)
            for one in placed:
                if one.partition.content is not None:
                    _copy(one, file.fileno(), advance)
            file.seek(size - len(second_table))
            file.write(second_table)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise OutsideFailure(f"{path} exists already") from error
    return placed


def _copy(placed: Placed, target: int, advance: Callable[[int], object]) -> None:
    content = placed.partition.content
    assert content is not None
    position, end = placed.offset_bytes, placed.offset_bytes + placed.size_bytes
    zeros = bytes(_CHUNK_BYTES)
    with content.open("rb") as source:
        while piece := source.read(_CHUNK_BYTES):
            if position + len(piece) > end:
                raise DiskRefused(f"{content.name} does not fit into the partition {placed.partition.name} of {placed.size_bytes} bytes")
            if piece != zeros[: len(piece)]:
                view = memoryview(piece)
                done = 0
                while done < len(view):
                    done += os.pwrite(target, view[done:], position + done)
            position += len(piece)
            advance(len(piece))


def _entry(placed: Placed) -> bytes:
    one = placed.partition
    first = placed.offset_bytes // SECTOR_BYTES
    last = first + placed.size_bytes // SECTOR_BYTES - 1
    name = one.name.encode("utf-16-le")
    # GUIDs are stored with their first three fields little-endian.
    return _ENTRY.pack(uuids.UUID(one.type_uuid).bytes_le, uuids.UUID(one.uuid).bytes_le, first, last, one.attributes, name)


def _header(own: int, other: int, entries_at: int, entries: bytes, disk_uuid: str) -> bytes:
    last = max(own, other)
    first_usable, last_usable = 2 + _ENTRY_SECTORS, last - _ENTRY_SECTORS - 1

    def packed(checksum: int) -> bytes:
        return _HEADER.pack(
            b"EFI PART",
            _REVISION,
            _HEADER.size,
            checksum,
            0,
            own,
            other,
            first_usable,
            last_usable,
            uuids.UUID(disk_uuid).bytes_le,
            entries_at,
            _ENTRIES,
            _ENTRY.size,
            zlib.crc32(entries),
        )

    return packed(zlib.crc32(packed(0))).ljust(SECTOR_BYTES, b"\0")


def _protective_mbr(last_sector: int) -> bytes:
    """One partition of type 0xEE over the whole disk, so that programs that know no GPT leave it alone."""
    # Start at cylinder 0, head 0, sector 2; the end is beyond what cylinders, heads and sectors can say.
    record = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", _MBR_PROTECTIVE, b"\xff\xff\xff", 1, min(last_sector, 0xFFFFFFFF))
    return bytes(446) + record + bytes(48) + b"\x55\xaa"
