"""One level of a tree as work to hash, for the builder and the verifier alike."""

from __future__ import annotations

import os

from shiplap.verity.blocks import LevelHashing, digests_of
from shiplap.verity.tree import Level, Tree
from shiplap.verity.workers import ReadFailure, share_parents

DATA = -1  # as a level: the data blocks, below level 0


def level_hashing(tree: Tree, level: int, *, differences_limit: int | None = None) -> LevelHashing:
    """The hashing of ``level`` (DATA or below the top) into the level above it.

    With a ``differences_limit`` the level above is compared instead of written.
    """
    parameters = tree.parameters
    children, parents, block_bytes = level_of(tree, level), tree.levels[level + 1], block_bytes_of(tree, level)
    return LevelHashing(
        hash_name=parameters.hash_name,
        salt=parameters.salt.hex(),
        salt_first=parameters.hash_type == 1,
        child_offset_bytes=children.offset_bytes,
        child_block_bytes=block_bytes,
        child_blocks=children.blocks,
        parent_offset_bytes=parents.offset_bytes,
        parent_block_bytes=parameters.hash_block_bytes,
        fanout=parameters.fanout,
        digest_bytes=parameters.digest_bytes,
        slot_bytes=parameters.slot_bytes,
        share_parents=share_parents(children.blocks * block_bytes, parents.blocks),
        compare=differences_limit is not None,
        differences_limit=differences_limit or 0,
    )


def level_of(tree: Tree, level: int) -> Level:
    return Level(0, tree.data_blocks) if level == DATA else tree.levels[level]


def block_bytes_of(tree: Tree, level: int) -> int:
    return tree.parameters.data_block_bytes if level == DATA else tree.parameters.hash_block_bytes


def block_digest(tree: Tree, block: bytes) -> bytes:
    """The salted digest of one block."""
    parameters = tree.parameters
    return digests_of(parameters.hash_name, parameters.salt, salt_first=parameters.hash_type == 1)([block])[0]


def top_digest(tree: Tree, descriptor: int, label: str) -> bytes:
    """The digest of the topmost block that is stored: of the one data block when there is no tree.

    ``descriptor``: of the file that holds it; ``label`` names it. Raises ReadFailure.
    """
    top = len(tree.levels) - 1
    offset_bytes, size_bytes = level_of(tree, top).offset_bytes, block_bytes_of(tree, top)
    try:
        block = os.pread(descriptor, size_bytes, offset_bytes)
    except OSError as error:
        raise ReadFailure(f"cannot read {label}: {error.strerror}") from error
    if len(block) < size_bytes:
        raise ReadFailure(f"{label}: ended at byte {offset_bytes + len(block)} while it was read", hint="something else is changing it")
    return block_digest(tree, block)
