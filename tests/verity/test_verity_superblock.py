"""Superblocks are written to the letter and read with suspicion."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hashtrees import UUID, content, parameters
from hypothesis import given
from hypothesis import strategies as st
from shiplap.core.errors import Refused
from shiplap.verity.parameters import DIGEST_BYTES, UnfitParameters, VerityParameters
from shiplap.verity.superblock import SUPERBLOCK_BYTES, Superblock, UnfitSuperblock, pack, parse
from shiplap.verity.tree import UnfitLayout, lay_out
from shiplap.verity.verify import verify_file

GOOD = pack(Superblock(parameters(), 1000))


def changed(offset: int, value: bytes) -> bytes:
    return GOOD[:offset] + value + GOOD[offset + len(value) :]


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


HOSTILE = {
    "nothing at all": (b"", "ends after 0"),
    "one byte short": (GOOD[:-1], "ends after 511"),
    "another signature": (changed(0, b"verify\0\0"), "signature"),
    "version 2": (changed(8, u32(2)), "version 2"),
    "hash type 2": (changed(12, u32(2)), "hash type 2"),
    "a hash without name": (changed(32, bytes(32)), "hash b''"),
    "an unknown hash": (changed(32, b"crc32".ljust(32, b"\0")), "crc32"),
    "bytes behind the hash's name": (changed(32, b"sha256\0x".ljust(32, b"\0")), "sha256"),
    "a hash name that is no text": (changed(32, b"\xff" * 32), "hash"),
    "data blocks of size 0": (changed(64, u32(0)), "0 is no data block size"),
    "data blocks of size 4097": (changed(64, u32(4097)), "4097 is no data block size"),
    "data blocks of 1 MiB": (changed(64, u32(1 << 20)), "no data block size"),
    "data blocks of 4 GiB - 512": (changed(64, u32((1 << 32) - 512)), "no data block size"),
    "hash blocks of size 0": (changed(68, u32(0)), "0 is no hash block size"),
    "hash blocks of size 256": (changed(68, u32(256)), "256 is no hash block size"),
    "no data blocks": (changed(72, u64(0)), "counts no data blocks"),
    "a salt of 257 bytes": (changed(80, u16(257)), "257 salt bytes"),
    "a salt of 65535 bytes": (changed(80, u16(65535)), "65535 salt bytes"),
    "bytes in the first padding": (changed(82, b"x"), "zeros belong"),
    "bytes behind the salt": (changed(88 + 32, b"x"), "zeros belong"),
    "bytes in the last padding": (changed(511, b"x"), "zeros belong"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_superblock_is_refused_with_one_clear_error(case: str):
    data, said = HOSTILE[case]
    with pytest.raises(UnfitSuperblock, match=said) as caught:
        parse(data, "evil.verity")
    assert caught.value.message.startswith("evil.verity: ")


@pytest.mark.parametrize("count", [1 << 52, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_count_of_blocks_that_no_file_can_hold_is_refused(tmp_path: Path, count: int):
    data, tree = tmp_path / "data", tmp_path / "tree"
    data.write_bytes(content(4096))
    tree.write_bytes(changed(72, u64(count)) + bytes(8192))
    with pytest.raises(UnfitSuperblock, match="more than a file can hold"):
        verify_file(data, tree, "00" * 32)


def test_a_huge_count_of_blocks_costs_no_time_or_memory(tmp_path: Path):
    data, tree = tmp_path / "data", tmp_path / "tree"
    data.write_bytes(content(4096))
    tree.write_bytes(changed(72, u64(1 << 50)) + bytes(8192))
    (bad,) = verify_file(data, tree, "00" * 32)
    assert bad.missing


def test_the_superblock_has_its_fields_where_the_format_says():
    assert len(GOOD) == SUPERBLOCK_BYTES
    assert GOOD[:8] == b"verity\0\0"
    assert GOOD[8:16] == u32(1) + u32(1)
    assert GOOD[16:32].hex() == UUID.replace("-", "")
    assert GOOD[32:64] == b"sha256".ljust(32, b"\0")
    assert GOOD[64:82] == u32(4096) + u32(4096) + u64(1000) + u16(32)
    assert GOOD[82:88] == bytes(6)
    assert GOOD[88:120] == bytes(range(32))
    assert GOOD[120:] == bytes(392)


def test_an_old_tree_with_a_block_size_only_other_kernels_take_is_read():
    assert parse(changed(64, u32(65536)), "x").parameters.data_block_bytes == 65536


block_sizes = st.sampled_from([1 << power for power in range(9, 20)])


@given(
    hash_name=st.sampled_from(sorted(DIGEST_BYTES)),
    data_block_bytes=block_sizes,
    hash_block_bytes=block_sizes,
    salt=st.binary(max_size=256),
    uuid=st.uuids().map(str),
    hash_type=st.sampled_from([0, 1]),
    data_blocks=st.integers(1, (1 << 64) - 1),
)
def test_what_is_packed_is_parsed(data_blocks: int, **fields):
    superblock = Superblock(VerityParameters(**fields), data_blocks)
    assert parse(pack(superblock), "x") == superblock


@given(
    st.binary(min_size=504, max_size=504).map(lambda rest: b"verity\0\0" + rest) | st.tuples(st.integers(0, 511), st.binary(max_size=16))
)
def test_any_bytes_are_parsed_or_refused(data: bytes | tuple[int, bytes]):
    raw = data if isinstance(data, bytes) else changed(*data)[:512]
    try:
        superblock = parse(raw, "x")
        assert pack(superblock) == raw
        lay_out(superblock.parameters, superblock.data_blocks)
    except Refused:
        pass


@pytest.mark.parametrize(
    "fields",
    [
        {"hash_name": "md5"},
        {"hash_name": "SHA256"},
        {"data_block_bytes": 0},
        {"data_block_bytes": -512},
        {"hash_block_bytes": 3 * 512},
        {"hash_block_bytes": 256},
        {"hash_block_bytes": 1 << 20},
        {"salt": bytes(257)},
        {"uuid": ""},
        {"uuid": UUID.upper()},
        {"uuid": UUID.replace("-", "")},
        {"hash_type": 2},
    ],
    ids=str,
)
def test_parameters_that_dm_verity_does_not_take_are_refused(fields: dict[str, object]):
    with pytest.raises(UnfitParameters):
        parameters(**fields)


@pytest.mark.parametrize(("superblock", "offset"), [(True, 1), (True, 511), (True, 4097), (False, 512), (False, 4095), (True, -512)])
def test_an_offset_that_is_not_aligned_is_refused(superblock: bool, offset: int):
    with pytest.raises(UnfitLayout, match="cannot start at byte"):
        lay_out(parameters(superblock=superblock), 10, offset)
