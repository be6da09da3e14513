"""The superblock of an EROFS: 128 little-endian bytes at byte 1024, and what fills its block (Linux, fs/erofs/erofs_fs.h)."""

from __future__ import annotations

import os
import struct
import uuid as uuids
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shiplap.core.errors import Refused

OFFSET_BYTES = 1024
_BYTES = 128
_MAGIC = b"\xe2\xe1\xf5\xe0"
# magic, checksum, compatible features, block bits, extension slots, root or blocks_hi, inodes, base seconds, nanoseconds, blocks_lo, …
_LAYOUT = struct.Struct("<4sIIBBHQQIIII16s16sIHHHBBIQBBHIQQ")
_CHECKSUMMED = 1  # compatible feature: the checksum is there
_48BIT = 1 << 7  # incompatible feature: wider block numbers
_SMALLEST_BLOCK_BITS, _LARGEST_BLOCK_BITS = 9, 16
_SLOT_BYTES = 16
_CRC32C_POLYNOMIAL = 0x82F63B78


class ErofsError(Refused):
    """Something that is no EROFS, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """What the superblock says.

    ``build_epoch``: seconds, when the image was made. ``uuid``: canonical form. ``used_bytes``: the image without
    padding behind it. ``inode_count``: without further names.
    """

    block_size_bytes: int
    inode_count: int
    build_epoch: int
    uuid: str
    used_bytes: int


def is_erofs(path: Path) -> bool:
    """Whether the magic number of an EROFS stands where it belongs; raises OSError."""
    with path.open("rb") as file:
        file.seek(OFFSET_BYTES)
        return file.read(len(_MAGIC)) == _MAGIC


def read_superblock(path: Path) -> Superblock:
    """Read the superblock and prove its checksum; raises ErofsError."""
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as error:
        raise ErofsError(f"cannot read {path}: {error.strerror}") from error


def _read(file: BinaryIO, path: Path) -> Superblock:
    size_bytes = os.fstat(file.fileno()).st_size
    file.seek(OFFSET_BYTES)
    raw = file.read(_BYTES)
    if len(raw) < _BYTES or raw[: len(_MAGIC)] != _MAGIC:
        raise ErofsError(f"{path}: not an EROFS image: the magic number is missing")
    # fmt: off
    (_, checksum, compatible, block_bits, slots, blocks_high, inodes, epoch, _, blocks_low, _, _, uuid, _, incompatible,
     _, _, _, _, _, _, _, _, _, _, build_seconds, _, _) = _LAYOUT.unpack(raw)
    # fmt: on
    if not _SMALLEST_BLOCK_BITS <= block_bits <= _LARGEST_BLOCK_BITS:
        raise ErofsError(f"{path}: the superblock's block size is 2^{block_bits} bytes, which no Linux reads")
    block_bytes = 1 << block_bits
    if not compatible & _CHECKSUMMED:
        raise ErofsError(f"{path}: the superblock has no checksum")
    covered = max(block_bytes - OFFSET_BYTES, _BYTES + slots * _SLOT_BYTES)
    file.seek(OFFSET_BYTES)
    block = bytearray(file.read(covered))
    block[4:8] = bytes(4)
    if len(block) < covered or crc32c(bytes(block)) != checksum:
        raise ErofsError(f"{path}: the superblock has another checksum than it says")
    blocks = blocks_low | (blocks_high << 32 if incompatible & _48BIT else 0)
    if blocks * block_bytes > size_bytes:
        raise ErofsError(f"{path}: cut short: the superblock says {blocks * block_bytes} bytes, the file has {size_bytes}")
    return Superblock(block_bytes, inodes, epoch + build_seconds, str(uuids.UUID(bytes=uuid)), blocks * block_bytes)


def crc32c(data: bytes) -> int:
    """CRC-32C begun with all ones and not inverted at the end, as EROFS has it. Of a few kilobytes: bit by bit is fast enough."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (_CRC32C_POLYNOMIAL if value & 1 else 0)
    return value
