"""Our trees are veritysetup's, byte for byte."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
from hashtrees import content, options, parameters, tool, tool_format
from requirement import require
from shiplap.verity.format import format_file
from shiplap.verity.verify import verify_file

BLOCKS = (512, 1024, 4096)
HASHES = ("sha1", "sha256", "sha384", "sha512")


@pytest.fixture(autouse=True)
def _veritysetup():
    require("veritysetup")


def both(folder: Path, data: bytes, wanted, *more: str, offset: int = 0, verify: bool = True) -> None:
    """Format with both, compare, and let each verify what the other made."""
    file, ours, theirs = folder / "data", folder / "ours", folder / "theirs"
    file.write_bytes(data)
    theirs.unlink(missing_ok=True)
    ours.unlink(missing_ok=True)
    place = [f"--hash-offset={offset}"] if offset else []
    root = format_file(file, ours, wanted, hash_offset_bytes=offset)
    assert tool_format(file, theirs, wanted, *place) == root
    assert ours.read_bytes() == theirs.read_bytes()
    if verify:
        count = len(data) // wanted.data_block_bytes
        known = [] if wanted.superblock else [*options(wanted), f"--data-blocks={count}"]
        checked = tool("verify", *known, *place, file, ours, root)
        assert checked.returncode == 0, checked.stderr
        assert verify_file(file, theirs, root, parameters=None if wanted.superblock else wanted, hash_offset_bytes=offset) == ()


@pytest.mark.parametrize("hash_name", HASHES)
def test_every_pair_of_block_sizes_gives_the_same_tree(tmp_path: Path, hash_name: str):
    for data_block, hash_block in itertools.product(BLOCKS, BLOCKS):
        wanted = parameters(hash_name=hash_name, data_block_bytes=data_block, hash_block_bytes=hash_block)
        both(tmp_path, content(129 * data_block), wanted, verify=False)


@pytest.mark.parametrize("superblock", [True, False])
@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 1000])
def test_every_number_of_blocks_gives_the_same_tree(tmp_path: Path, blocks: int, superblock: bool):
    both(tmp_path, content(blocks * 4096), parameters(superblock=superblock))


@pytest.mark.parametrize("blocks", [16384, 16385])
def test_two_and_three_levels_of_4096_byte_blocks_give_the_same_tree(tmp_path: Path, blocks: int):
    # 64 MiB: also the size from which several processes hash.
    both(tmp_path, content(1 << 20) * 64 + content((blocks - 16384) * 4096), parameters())


@pytest.mark.parametrize("blocks", [1, 8, 9, 512, 513, 4097])
def test_many_levels_of_small_blocks_give_the_same_tree(tmp_path: Path, blocks: int):
    both(tmp_path, content(blocks * 512), parameters(hash_name="sha512", data_block_bytes=512, hash_block_bytes=512))


@pytest.mark.parametrize("salt", [b"", b"\x00", b"\xff" * 31, bytes(256)], ids=["none", "one zero", "31", "256 zeros"])
def test_every_salt_gives_the_same_tree(tmp_path: Path, salt: bytes):
    both(tmp_path, content(300 * 1024), parameters(salt=salt, data_block_bytes=1024, hash_block_bytes=1024))


@pytest.mark.parametrize("hash_name", HASHES)
def test_the_original_hash_type_gives_the_same_tree(tmp_path: Path, hash_name: str):
    for hash_block in BLOCKS:
        both(tmp_path, content(1100 * 512), parameters(hash_type=0, hash_name=hash_name, data_block_bytes=512, hash_block_bytes=hash_block))


@pytest.mark.parametrize(("offset", "superblock"), [(512, True), (1536, True), (4096, True), (8192, False), (1 << 20, True)])
def test_a_tree_at_an_offset_is_the_same(tmp_path: Path, offset: int, superblock: bool):
    both(tmp_path, content(200 * 4096), parameters(superblock=superblock), offset=offset)


@pytest.mark.parametrize(("offset", "superblock"), [(4096, True), (8192, False)])
def test_a_single_block_with_an_offset_gives_the_same_file(tmp_path: Path, offset: int, superblock: bool):
    both(tmp_path, content(4096), parameters(superblock=superblock), offset=offset)


@pytest.mark.parametrize("hash_block", [8192, 65536, 524288])
@pytest.mark.parametrize("blocks", [1, 3])
def test_hash_blocks_larger_than_a_page_give_the_same_file(tmp_path: Path, hash_block: int, blocks: int):
    both(tmp_path, content(blocks * 512), parameters(data_block_bytes=512, hash_block_bytes=hash_block))


@pytest.mark.parametrize("superblock", [True, False])
@pytest.mark.parametrize("gap_bytes", [0, 8192])
def test_a_tree_behind_the_data_in_the_same_file_is_the_same(tmp_path: Path, superblock: bool, gap_bytes: int):
    wanted = parameters(superblock=superblock)
    data = content(200 * 4096)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    offset = len(data) + gap_bytes
    for file in (ours, theirs):
        file.write_bytes(data)
    root = format_file(ours, ours, wanted, hash_offset_bytes=offset)
    assert tool_format(theirs, theirs, wanted, f"--hash-offset={offset}", "--data-blocks=200") == root
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.read_bytes()[: len(data)] == data
    known = [] if superblock else options(wanted)
    assert tool("verify", *known, "--data-blocks=200", f"--hash-offset={offset}", ours, ours, root).returncode == 0
    found = verify_file(theirs, theirs, root, parameters=wanted, hash_offset_bytes=offset, data_blocks=200)
    assert found == ()


def test_a_part_of_the_data_can_be_covered(tmp_path: Path):
    file, ours, theirs = tmp_path / "data", tmp_path / "ours", tmp_path / "theirs"
    file.write_bytes(content(300 * 4096 + 7))
    root = format_file(file, ours, parameters(), data_blocks=150)
    assert tool_format(file, theirs, parameters(), "--data-blocks=150") == root
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_fixed_input_gives_the_golden_tree(tmp_path: Path):
    """Never to be edited: a device out there has this root hash in its firmware."""
    file, tree = tmp_path / "data", tmp_path / "tree"
    file.write_bytes(b"".join(hashlib.sha256(number.to_bytes(3, "big")).digest() for number in range(70_016)))
    root = format_file(file, tree, parameters())
    assert root == "7c48b51bbf0051e842910204a66446c04484515265b022700576fed1fd57045e"
    assert hashlib.sha256(tree.read_bytes()).hexdigest() == "68303c57e4564fe88cc029ebfae461c4d15c45ad392aff22ec3ada86ae729e49"
