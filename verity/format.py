"""Making a hash tree: byte for byte what ``veritysetup format`` makes with the same salt and UUID."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shiplap.verity.area import writable_area, write_at
from shiplap.verity.data import OpenedFile, count_blocks, opened
from shiplap.verity.levels import DATA, level_hashing, top_digest
from shiplap.verity.parameters import VerityParameters
from shiplap.verity.superblock import Superblock, pack
from shiplap.verity.tree import Tree, lay_out
from shiplap.verity.workers import hash_level

__all__ = ["VerityParameters", "format_file", "planned_tree"]


def format_file(
    data: Path,
    hash_file: Path,
    parameters: VerityParameters,
    *,
    hash_offset_bytes: int = 0,
    data_blocks: int | None = None,
    jobs: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> str:
    """Write the hash tree of ``data`` into ``hash_file``; returns the root hash in lower-case hex.

    ``hash_file`` may be ``data`` itself, with an offset not before its end. ``data_blocks``: cover only so many
    blocks; by default the size of ``data`` must be a multiple of the block. ``jobs``: processes, default one for
    each core; the bytes do not depend on it. ``advance``: called with numbers of data bytes done. Raises UnfitFile,
    UnprotectedBytes, UnfitLayout, OccupiedArea (all Refused) and OutsideFailure; ``hash_file`` is then as before.
    """
    with opened(data) as source:
        tree = _tree(source, parameters, hash_offset_bytes, data_blocks)
        with writable_area(hash_file, source, hash_offset_bytes, tree.end_bytes) as target:
            children, label = source.descriptor, str(data)
            for level in range(DATA, len(tree.levels) - 1):
                hash_level(level_hashing(tree, level), children, target, label=label, jobs=jobs, advance=advance if level == DATA else None)
                children, label = target, str(hash_file)
            root = top_digest(tree, children, label)
            if not tree.levels and advance is not None:
                advance(tree.data_bytes)
            if parameters.superblock:
                # Last: an area without a superblock is never taken for a whole one.
                write_at(target, pack(Superblock(parameters, tree.data_blocks)), hash_offset_bytes, hash_file)
    return root.hex()


def planned_tree(data: Path, parameters: VerityParameters, *, hash_offset_bytes: int = 0, data_blocks: int | None = None) -> Tree:
    """The layout that format_file with the same arguments writes. Raises what it raises before it writes."""
    with opened(data) as source:
        return _tree(source, parameters, hash_offset_bytes, data_blocks)


def _tree(source: OpenedFile, parameters: VerityParameters, hash_offset_bytes: int, data_blocks: int | None) -> Tree:
    return lay_out(parameters, count_blocks(source, parameters.data_block_bytes, data_blocks), hash_offset_bytes)
