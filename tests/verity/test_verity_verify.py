"""One flipped byte is found, and its block named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hashtrees import UUID, content, parameters, tool
from requirement import require
from shiplap.core.errors import Refused
from shiplap.verity import blocks
from shiplap.verity.data import UnprotectedBytes
from shiplap.verity.format import format_file, planned_tree
from shiplap.verity.levels import DATA, level_hashing
from shiplap.verity.superblock import UnfitSuperblock
from shiplap.verity.verify import BAD_BLOCKS_MAX, BadBlock, UnfitRootHash, covering_tree, read_superblock, verify_file

SMALL = parameters(data_block_bytes=512, hash_block_bytes=512)  # 16 digests in a block: 700 blocks make three levels
BLOCKS = 700


class Sealed:
    """A data file with its tree."""

    def __init__(self, folder: Path, wanted=SMALL, blocks: int = BLOCKS) -> None:
        self.data, self.tree, self.wanted = folder / "data", folder / "tree", wanted
        self.data.write_bytes(content(blocks * wanted.data_block_bytes))
        self.root = format_file(self.data, self.tree, wanted)
        self.layout = planned_tree(self.data, wanted)

    def verify(self, **how) -> tuple[BadBlock, ...]:
        return verify_file(self.data, self.tree, how.pop("root", self.root), **how)


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path)


def flip(file: Path, offset: int, bits: int = 0x40) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= bits
    file.write_bytes(data)


def names(bad: tuple[BadBlock, ...]) -> list[tuple[str, int | None, int]]:
    return [(block.kind, block.level, block.index) for block in bad]


@pytest.mark.parametrize("offset", [0, 511, 512, 5 * 512 + 100, BLOCKS * 512 - 1])
def test_a_flipped_byte_of_the_data_is_found_and_its_block_named(sealed: Sealed, offset: int):
    flip(sealed.data, offset)
    assert sealed.verify() == (BadBlock("data", None, offset // 512, offset // 512 * 512),)


def test_a_flipped_byte_of_every_hash_block_is_found_and_its_level_and_block_named(sealed: Sealed):
    assert [level.blocks for level in sealed.layout.levels] == [44, 3, 1]
    for level, place in enumerate(sealed.layout.levels):
        for index in range(place.blocks):
            for inside in (0, 37, 511):
                offset = place.offset_bytes + index * 512
                flip(sealed.tree, offset + inside)
                assert sealed.verify() == (BadBlock("hash", level, index, offset),)
                flip(sealed.tree, offset + inside)
    assert sealed.verify() == ()


def test_every_byte_of_the_superblock_but_the_uuid_is_checked(sealed: Sealed):
    unchecked = []
    for offset in range(512):
        flip(sealed.tree, offset)
        try:
            if not sealed.verify():
                unchecked.append(offset)
        except Refused:
            pass
        flip(sealed.tree, offset)
    assert unchecked == list(range(16, 32))


def test_a_flipped_uuid_is_found_when_the_parameters_are_known(sealed: Sealed):
    flip(sealed.tree, 20)
    with pytest.raises(UnfitSuperblock, match=f"uuid .*, expected is {UUID}"):
        sealed.verify(parameters=SMALL)


def test_a_flipped_salt_names_the_tree_as_a_whole(sealed: Sealed):
    flip(sealed.tree, 90)
    assert names(sealed.verify()) == [("root", None, 0)]


def test_a_wrong_root_hash_names_the_tree_as_a_whole(sealed: Sealed):
    assert sealed.verify(root="00" * 32) == (BadBlock("root", None, 0, sealed.layout.levels[-1].offset_bytes),)


@pytest.mark.parametrize("root", ["", "00", "00" * 31, "00" * 33, "zz" * 32, " " + "00" * 31 + " ", "00" * 64, "-", "0x" + "0" * 62])
def test_a_root_hash_of_the_wrong_form_is_refused(sealed: Sealed, root: str):
    with pytest.raises(UnfitRootHash):
        sealed.verify(root=root)


def test_a_root_hash_in_capitals_is_the_same(sealed: Sealed):
    assert sealed.verify(root=sealed.root.upper()) == ()


def test_several_bad_blocks_are_named_in_order(sealed: Sealed):
    level_0, _, top = sealed.layout.levels
    for index in (600, 3, 250):
        flip(sealed.data, index * 512)
    flip(sealed.tree, level_0.offset_bytes + 20 * 512)
    flip(sealed.tree, top.offset_bytes + 3)
    expected = [("hash", 2, 0), ("hash", 0, 20), ("data", None, 3), ("data", None, 250), ("data", None, 600)]
    assert names(sealed.verify()) == expected


def test_blocks_below_a_bad_hash_block_are_not_judged(sealed: Sealed):
    flip(sealed.tree, sealed.layout.levels[1].offset_bytes + 1 * 512)  # holds the digests of the leaf blocks 16 to 31
    flip(sealed.data, 300 * 512)  # below leaf block 18
    flip(sealed.data, 100 * 512)  # below leaf block 6
    assert names(sealed.verify()) == [("hash", 1, 1), ("data", None, 100)]


def test_a_wholly_different_file_gives_a_bounded_list(tmp_path: Path):
    sealed = Sealed(tmp_path, blocks=20_000)
    sealed.data.write_bytes(content(20_000 * 512, seed=2))
    found = sealed.verify()
    assert names(found) == [("data", None, index) for index in range(BAD_BLOCKS_MAX)]


def test_one_share_reports_no_more_differences_than_its_limit(sealed: Sealed):
    """The bound on memory: a hostile pair of files has as many differences as blocks."""
    sealed.data.write_bytes(content(BLOCKS * 512, seed=2))
    work = level_hashing(sealed.layout, DATA, differences_limit=3)
    assert work.shares == 1
    said: list[tuple[int, int]] = []
    with sealed.data.open("rb") as data, sealed.tree.open("rb") as tree:
        blocks.hash_share(work, 0, data.fileno(), tree.fileno(), lambda *record: said.append(record))
    assert [value for code, value in said if code == blocks.CHILD_DIFFERS] == [0, 1, 2]
    assert sum(value for code, value in said if code == blocks.DONE_BYTES) == BLOCKS * 512


def test_a_flip_in_the_top_block_above_data_is_told_from_a_wrong_root_hash(tmp_path: Path):
    sealed = Sealed(tmp_path, blocks=10)
    flip(sealed.tree, 512 + 5)
    assert names(sealed.verify()) == [("hash", 0, 0)]


def test_a_single_block_has_no_tree_and_is_checked_all_the_same(tmp_path: Path):
    sealed = Sealed(tmp_path, blocks=1)
    assert sealed.verify() == ()
    flip(sealed.data, 9)
    assert names(sealed.verify()) == [("data", None, 0)]


def test_a_superblock_that_counts_fewer_blocks_is_found(sealed: Sealed):
    """The root hash stays the same; the digests that are left over betray it."""
    data = bytearray(sealed.tree.read_bytes())
    data[72:80] = (BLOCKS - 1).to_bytes(8, "little")
    sealed.tree.write_bytes(data)
    sealed.data.write_bytes(sealed.data.read_bytes()[:-512])
    assert names(sealed.verify()) == [("hash", 0, 43)]


def test_bytes_behind_the_covered_blocks_are_refused(sealed: Sealed):
    with sealed.data.open("ab") as file:
        file.write(b"more")
    with pytest.raises(UnprotectedBytes, match="4 bytes behind the 700 data blocks"):
        sealed.verify()
    assert sealed.verify(data_blocks=BLOCKS) == ()
    with pytest.raises(UnfitSuperblock, match="counts 700 data blocks, not 699"):
        sealed.verify(data_blocks=BLOCKS - 1)


@pytest.mark.parametrize("left", [0, 1, 511, 512, 512 * 699])
def test_a_truncated_data_file_names_the_first_missing_block(sealed: Sealed, left: int):
    sealed.data.write_bytes(sealed.data.read_bytes()[:left])
    assert sealed.verify() == (BadBlock("data", None, left // 512, left // 512 * 512, missing=True),)


@pytest.mark.parametrize(("left", "level", "index"), [(512, 2, 0), (1023, 2, 0), (1024, 1, 0), (512 * 5, 0, 0), (512 * 49 - 1, 0, 43)])
def test_a_truncated_hash_file_names_the_first_missing_block(sealed: Sealed, left: int, level: int, index: int):
    assert sealed.tree.stat().st_size == 512 * 49
    sealed.tree.write_bytes(sealed.tree.read_bytes()[:left])
    assert names(sealed.verify()) == [("hash", level, index)]
    assert sealed.verify()[0].missing


@pytest.mark.parametrize("wanted", [parameters(hash_name="sha1", hash_type=0), parameters(hash_name="sha384")], ids=["type 0", "sha384"])
def test_bytes_between_and_behind_digests_are_checked(tmp_path: Path, wanted):
    sealed = Sealed(tmp_path, wanted, blocks=130)
    leaf = sealed.layout.levels[0].offset_bytes
    used = 128 * 20 if wanted.hash_type == 0 else 48
    flip(sealed.tree, leaf + used)
    assert names(sealed.verify()) == [("hash", 0, 0)]


def test_stray_bytes_under_a_matching_root_hash_are_found_as_veritysetup_finds_them(tmp_path: Path):
    """A tree that someone made with bytes where zeros belong, and a root hash to match."""
    import hashlib

    require("veritysetup")
    sealed = Sealed(tmp_path, parameters(), blocks=100)
    flip(sealed.tree, 4096 + 4000)
    top = sealed.tree.read_bytes()[4096:8192]
    root = hashlib.sha256(sealed.wanted.salt + top).hexdigest()
    assert "not zeroed" in tool("verify", sealed.data, sealed.tree, root).stderr
    assert names(sealed.verify(root=root)) == [("hash", 0, 0)]


def test_a_tree_without_superblock_is_verified_with_its_parameters(tmp_path: Path):
    wanted = parameters(superblock=False)
    sealed = Sealed(tmp_path, wanted, blocks=200)
    assert sealed.verify(parameters=wanted) == ()
    flip(sealed.data, 77 * 4096)
    assert names(sealed.verify(parameters=wanted)) == [("data", None, 77)]
    with pytest.raises(UnfitSuperblock, match="no dm-verity superblock"):
        sealed.verify()


@pytest.mark.parametrize("other", [{"hash_name": "sha512"}, {"salt": b""}, {"data_block_bytes": 1024}, {"hash_type": 0}])
def test_a_superblock_that_contradicts_the_known_parameters_is_refused(sealed: Sealed, other: dict[str, object]):
    import dataclasses

    with pytest.raises(UnfitSuperblock, match="expected is"):
        sealed.verify(parameters=dataclasses.replace(SMALL, **other))


def test_data_blocks_that_reach_into_the_hash_area_are_refused(tmp_path: Path):
    file = tmp_path / "disk"
    file.write_bytes(content(10 * 4096))
    root = format_file(file, file, parameters(), hash_offset_bytes=10 * 4096)
    assert covering_tree(file, file, hash_offset_bytes=10 * 4096).data_blocks == 10
    data = bytearray(file.read_bytes())
    data[10 * 4096 + 72] = 11
    file.write_bytes(data)
    with pytest.raises(UnfitSuperblock, match="11 data blocks reach into the hash area"):
        verify_file(file, file, root, hash_offset_bytes=10 * 4096)


def test_the_verdict_does_not_depend_on_the_number_of_workers(tmp_path: Path):
    sealed = Sealed(tmp_path, parameters(), blocks=13_000)  # 51 MiB: several processes
    for index in (12_999, 7, 6_500):
        flip(sealed.data, index * 4096 + 11)
    expected = (("data", None, 7), ("data", None, 6500), ("data", None, 12_999))
    for jobs in (1, 2, 5):
        done: list[int] = []
        assert tuple(names(sealed.verify(jobs=jobs, advance=done.append))) == expected
        assert sum(done) == 13_000 * 4096


def test_the_superblock_is_read_back(sealed: Sealed):
    found = read_superblock(sealed.tree)
    assert (found.parameters, found.data_blocks) == (SMALL, BLOCKS)
