"""The superblock of an EROFS: what is read of it, of newer ones too, and what damage is called."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from shiplap.rootfs.erofs import ErofsError, is_erofs, read_superblock
from shiplap.rootfs.erofs.superblock import crc32c

UUID = "00112233-4455-6677-8899-aabbccddeeff"
BLOCKS = 2
# Offsets in the superblock: Linux, fs/erofs/erofs_fs.h, struct erofs_super_block.
COMPATIBLE, BLOCK_BITS, SLOTS, ROOT_OR_BLOCKS_HIGH = 8, 12, 13, 14
INODES, BLOCKS_LOW, UUID_AT, INCOMPATIBLE, BUILD_SECONDS = 16, 36, 48, 80, 108


def image(covered_bytes: int = 3072, **fields: int) -> bytes:
    """Two blocks of 4 KiB with a superblock and its checksum; ``fields`` are 32-bit numbers at those offsets, or smaller ones."""
    block = bytearray(BLOCKS * 4096 - 1024)
    block[:4] = bytes.fromhex("e2e1f5e0")
    struct.pack_into("<I", block, COMPATIBLE, 1)
    block[BLOCK_BITS] = 12
    struct.pack_into("<H", block, ROOT_OR_BLOCKS_HIGH, 36)
    struct.pack_into("<QQ", block, INODES, 7, 1_700_000_000)
    struct.pack_into("<I", block, BLOCKS_LOW, BLOCKS)
    block[UUID_AT : UUID_AT + 16] = bytes.fromhex(UUID.replace("-", ""))
    block[3000:3004] = block[3200:3204] = b"data"
    struct.pack_into("<I", block, INCOMPATIBLE, fields.get("incompatible", 0))
    struct.pack_into("<I", block, BUILD_SECONDS, fields.get("build_seconds", 0))
    block[SLOTS] = fields.get("slots", 0)
    struct.pack_into("<I", block, 4, crc32c(bytes(block[:covered_bytes])))
    return bytes(1024) + bytes(block)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "image").write_bytes(image())
    return tmp_path / "image"


def test_a_superblock_is_read(path: Path) -> None:
    assert is_erofs(path)
    found = read_superblock(path)
    assert (found.block_size_bytes, found.inode_count, found.build_epoch, found.uuid) == (4096, 7, 1_700_000_000, UUID)
    assert found.used_bytes == BLOCKS * 4096


def test_the_time_is_the_base_and_what_newer_tools_add(path: Path) -> None:
    path.write_bytes(image(build_seconds=100))
    assert read_superblock(path).build_epoch == 1_700_000_100


def test_more_than_32_bits_of_blocks_count_only_where_the_feature_says_so(path: Path) -> None:
    # The same field is the root's number otherwise.
    path.write_bytes(image(incompatible=1 << 7))
    with pytest.raises(ErofsError, match=rf"cut short: the superblock says {(36 << 32 | BLOCKS) * 4096} bytes"):
        read_superblock(path)


def test_extension_slots_are_part_of_the_checksum(path: Path) -> None:
    path.write_bytes(image(128 + 16 * 200, slots=200))
    assert read_superblock(path).inode_count == 7
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"data", b"date"))
    with pytest.raises(ErofsError, match="another checksum"):
        read_superblock(path)


def test_crc32c_is_the_one_of_the_standard_without_its_last_inversion() -> None:
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_damage_of_the_superblock_is_named(path: Path) -> None:
    whole = path.read_bytes()

    def damaged(data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(ErofsError) as caught:
            read_superblock(path)
        return caught.value.message

    assert "magic number is missing" in damaged(b"")
    assert "magic number is missing" in damaged(whole[:1024] + b"\0" + whole[1025:])
    assert "another checksum" in damaged(whole[:1100] + b"\xff" + whole[1101:])
    assert "another checksum" in damaged(whole[:4000])
    assert "cut short" in damaged(whole[:4096])
    assert "block size is 2^60" in damaged(whole[:1036] + b"\x3c" + whole[1037:])
    assert "has no checksum" in damaged(whole[:1032] + struct.pack("<I", 0) + whole[1036:])
