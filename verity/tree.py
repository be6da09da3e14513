"""Where the blocks of a hash tree lie.

Level 0 holds the digests of the data blocks, each further level those of the level below, until one block is
left: the numbering of the kernel's dm-verity. On disk the top level comes first. One data block needs no
tree at all: its own digest is the root hash.
"""

from __future__ import annotations

from dataclasses import dataclass

from shiplap.core.errors import Refused
from shiplap.verity.parameters import KERNEL_PAGE_BYTES, SECTOR_BYTES, VerityParameters
from shiplap.verity.superblock import SUPERBLOCK_BYTES

# Offsets are signed 64-bit numbers in every system call that reads the files.
OFFSET_MAX_BYTES = (1 << 63) - 1


class UnfitLayout(Refused):
    """A tree that cannot lie where it was asked to, or is too large to exist."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of hash blocks: where it starts in the hash file, and how many there are."""

    offset_bytes: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Tree:
    """The layout of a hash area. ``levels[0]`` is the lowest; empty when there is one data block only.

    ``area_offset_bytes``: where the superblock stands, or the tree when there is none. ``tree_offset_bytes``:
    where the tree starts. ``end_bytes``: the length of a hash file that ends with this area; 0 when there is none.
    """

    parameters: VerityParameters
    data_blocks: int
    area_offset_bytes: int
    tree_offset_bytes: int
    levels: tuple[Level, ...]
    end_bytes: int

    @property
    def data_bytes(self) -> int:
        return self.data_blocks * self.parameters.data_block_bytes

    @property
    def hash_blocks(self) -> int:
        return sum(level.blocks for level in self.levels)


def lay_out(parameters: VerityParameters, data_blocks: int, hash_offset_bytes: int = 0) -> Tree:
    """The tree over ``data_blocks`` (at least 1) blocks with its hash area at ``hash_offset_bytes``.

    Raises UnfitLayout when the offset is not aligned (512 with a superblock, else the hash block size) or
    anything would lie beyond what a file offset can say.
    """
    assert data_blocks > 0
    block = parameters.hash_block_bytes
    alignment = SECTOR_BYTES if parameters.superblock else block
    if hash_offset_bytes < 0 or hash_offset_bytes % alignment:
        raise UnfitLayout(f"the hash area cannot start at byte {hash_offset_bytes}", hint=f"use a multiple of {alignment}")
    header_end = hash_offset_bytes + (SUPERBLOCK_BYTES if parameters.superblock else 0)
    tree_offset = -(-header_end // block) * block

    counts = []
    below = data_blocks
    while below > 1:
        below = -(-below // parameters.fanout)
        counts.append(below)
    levels = []
    position = tree_offset
    for count in reversed(counts):
        levels.append(Level(position, count))
        position += count * block
    if max(data_blocks * parameters.data_block_bytes, position) > OFFSET_MAX_BYTES:
        raise UnfitLayout(f"{data_blocks} data blocks of {parameters.data_block_bytes} bytes are more than a file can hold")
    end = position if levels else 0
    if parameters.superblock:
        # veritysetup writes the superblock in whole blocks of at most a page; without a tree that is the file's length.
        end = max(end, hash_offset_bytes + min(block, KERNEL_PAGE_BYTES))
    return Tree(parameters, data_blocks, hash_offset_bytes, tree_offset, tuple(reversed(levels)), end)
