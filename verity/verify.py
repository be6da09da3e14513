"""Checking a file against its hash tree and root hash, and naming what does not fit.

Top down, as the kernel does: a block is only judged by a digest that is itself proven. Stricter than the
kernel in one thing, as ``veritysetup verify`` is: everything behind the last digest of a level must be zero. A
superblock that counts fewer blocks than the tree covers shows that way.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shiplap.core.errors import Refused
from shiplap.verity.data import OpenedFile, UnfitFile, UnprotectedBytes, opened
from shiplap.verity.levels import DATA, block_bytes_of, block_digest, level_hashing, level_of, top_digest
from shiplap.verity.parameters import VerityParameters
from shiplap.verity.superblock import SUPERBLOCK_BYTES, Superblock, UnfitSuperblock, parse
from shiplap.verity.tree import Tree, UnfitLayout, lay_out
from shiplap.verity.workers import hash_level, rebuild_parent

# More than a reader of the result wants, little enough for every share of a wholly different file to hold.
BAD_BLOCKS_MAX = 1000


class UnfitRootHash(Refused):
    """A root hash that is none for this tree's hash."""


@dataclass(frozen=True, slots=True)
class BadBlock:
    """One thing that does not fit the root hash.

    ``data``: a data block, ``index`` in the data, ``offset_bytes`` in the data file, ``level`` None. ``hash``: a hash
    block, ``index`` in its ``level`` (0 is the lowest), ``offset_bytes`` in the hash file. ``root``: the tree as a
    whole belongs to another root hash; ``offset_bytes`` of its top block. ``missing``: the file ends before it, and so
    before every later one.
    """

    kind: Literal["data", "hash", "root"]
    level: int | None
    index: int
    offset_bytes: int
    missing: bool = False


def read_superblock(hash_file: Path, hash_offset_bytes: int = 0) -> Superblock:
    """The superblock at an offset of a file. Raises UnfitFile, UnfitSuperblock."""
    with opened(hash_file) as file:
        return _superblock(file, hash_offset_bytes)


def verify_file(
    data: Path,
    hash_file: Path,
    root_hash: str,
    *,
    parameters: VerityParameters | None = None,
    hash_offset_bytes: int = 0,
    data_blocks: int | None = None,
    jobs: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> tuple[BadBlock, ...]:
    """Check ``data`` against ``hash_file`` and ``root_hash`` (hex); empty: every byte of ``data`` is as it was.

    ``parameters``: None takes them from the superblock; given, a superblock must agree in every field. ``data_blocks``:
    how many blocks the tree covers, needed only where no superblock says it and the size does not; without it, bytes
    of a separate data file behind the covered blocks are refused. Of many bad blocks the first BAD_BLOCKS_MAX are
    returned: hash blocks from the top down, then data blocks. Blocks below a bad hash block cannot be judged and are
    left out. ``jobs``, ``advance``: as in format_file. Raises UnfitRootHash, UnfitSuperblock, UnfitFile,
    UnprotectedBytes, UnfitLayout (all Refused) and OutsideFailure.
    """
    with opened(data) as source, opened(hash_file) as hashes:
        tree = _tree(source, hashes, parameters, hash_offset_bytes, data_blocks)
        root = parse_root_hash(root_hash, tree.parameters)
        missing = _missing(tree, source, hashes)
        if missing is not None:
            return (missing,)
        return _Verification(tree, source, hashes, root, jobs, advance).bad_blocks()


def covering_tree(
    data: Path,
    hash_file: Path,
    *,
    parameters: VerityParameters | None = None,
    hash_offset_bytes: int = 0,
    data_blocks: int | None = None,
) -> Tree:
    """The layout that verify_file with the same arguments follows. Raises what it raises before it hashes."""
    with opened(data) as source, opened(hash_file) as hashes:
        return _tree(source, hashes, parameters, hash_offset_bytes, data_blocks)


def parse_root_hash(text: str, parameters: VerityParameters) -> bytes:
    """The bytes of a root hash in hex. Raises UnfitRootHash."""
    try:
        root = bytes.fromhex(text) if text.isalnum() else b""
    except ValueError:
        root = b""
    if len(root) != parameters.digest_bytes:
        raise UnfitRootHash(f"{text[:140]!r} is no {parameters.hash_name} root hash", hint=f"{2 * parameters.digest_bytes} hex digits")
    return root


def _superblock(file: OpenedFile, offset_bytes: int) -> Superblock:
    where = f"{file.path}, byte {offset_bytes}" if offset_bytes else str(file.path)
    try:
        return parse(os.pread(file.descriptor, SUPERBLOCK_BYTES, offset_bytes), where)
    except OSError as error:
        raise UnfitFile(f"cannot read {where}: {error.strerror}") from error


def _tree(
    data: OpenedFile, hashes: OpenedFile, parameters: VerityParameters | None, hash_offset_bytes: int, data_blocks: int | None
) -> Tree:
    """The layout that superblock, parameters and sizes together say."""
    available = hash_offset_bytes if data.identity == hashes.identity else data.size_bytes
    if parameters is None or parameters.superblock:
        found = _superblock(hashes, hash_offset_bytes)
        if parameters is not None and found.parameters != parameters:
            raise UnfitSuperblock(f"{hashes.path}: the superblock says {_differing(found.parameters, parameters)}")
        if data_blocks is not None and found.data_blocks != data_blocks:
            raise UnfitSuperblock(f"{hashes.path}: the superblock counts {found.data_blocks} data blocks, not {data_blocks}")
        parameters, count = found.parameters, found.data_blocks
    else:
        count = data_blocks if data_blocks is not None else available // parameters.data_block_bytes
        if count < 1:
            raise UnprotectedBytes(f"{data.path} has no whole data block of {parameters.data_block_bytes} bytes")
    try:
        tree = lay_out(parameters, count, hash_offset_bytes)
    except UnfitLayout as error:
        raise UnfitSuperblock(f"{hashes.path}: {error.message}") if parameters.superblock else error from None
    if data.identity == hashes.identity:
        if tree.data_bytes > hash_offset_bytes:
            raise UnfitSuperblock(f"{hashes.path}: {count} data blocks reach into the hash area at byte {hash_offset_bytes}")
    elif data_blocks is None and data.size_bytes > tree.data_bytes:
        raise UnprotectedBytes(
            f"{data.path} has {data.size_bytes - tree.data_bytes} bytes behind the {count} data blocks that the tree covers",
            hint=f"--data-blocks {count} checks the covered part only",
        )
    return tree


def _differing(found: VerityParameters, wanted: VerityParameters) -> str:
    pairs = []
    for name in VerityParameters.__dataclass_fields__:
        is_value, wanted_value = getattr(found, name), getattr(wanted, name)
        if is_value != wanted_value:
            shown = [value.hex() or "-" if isinstance(value, bytes) else str(value) for value in (is_value, wanted_value)]
            pairs.append(f"{name.removesuffix('_bytes').replace('_', ' ')} {shown[0]}, expected is {shown[1]}")
    return "; ".join(pairs)


def _missing(tree: Tree, data: OpenedFile, hashes: OpenedFile) -> BadBlock | None:
    """The first block that a file is too short for; hash blocks first, in the order of the file."""
    size_bytes = tree.parameters.hash_block_bytes
    for level in range(len(tree.levels) - 1, DATA, -1):
        start = tree.levels[level].offset_bytes
        there = max(0, hashes.size_bytes - start) // size_bytes
        if there < tree.levels[level].blocks:
            return BadBlock("hash", level, there, start + there * size_bytes, missing=True)
    there = data.size_bytes // tree.parameters.data_block_bytes
    if there < tree.data_blocks:
        return BadBlock("data", None, there, there * tree.parameters.data_block_bytes, missing=True)
    return None


@dataclass(frozen=True, slots=True)
class _Verification:
    """Files that are long enough for their tree, and the root hash to hold them against."""

    tree: Tree
    data: OpenedFile
    hashes: OpenedFile
    root: bytes
    jobs: int | None
    advance: Callable[[int], object] | None

    def bad_blocks(self) -> tuple[BadBlock, ...]:
        top = len(self.tree.levels) - 1
        holds = top_digest(self.tree, *self._holder(top)) == self.root
        if top == DATA:
            self._say_done()
            return () if holds else (self._named(DATA, 0),)
        bad: list[tuple[int, int]] = []
        judged = top
        if not holds:
            # Either the top block or the root hash is wrong: the blocks below know.
            rebuilt = rebuild_parent(level_hashing(self.tree, top - 1), 0, *self._holder(top - 1))
            if block_digest(self.tree, rebuilt) != self.root:
                return (BadBlock("root", None, 0, self.tree.levels[top].offset_bytes),)
            bad.append((top, 0))
            judged = top - 1
            if judged == DATA:
                self._say_done()
        unproven: set[tuple[int, int]] = set()
        for level in range(judged - 1, DATA - 1, -1):
            bad += self._compare(level, unproven)
        return tuple(self._named(level, index) for level, index in bad[:BAD_BLOCKS_MAX])

    def _compare(self, level: int, unproven: set[tuple[int, int]]) -> list[tuple[int, int]]:
        """The bad blocks that comparing ``level`` with the digests above it shows; those of ``level`` join ``unproven``."""
        work = level_hashing(self.tree, level, differences_limit=BAD_BLOCKS_MAX)
        descriptor, label = self._holder(level)
        advance = self.advance if level == DATA else None
        findings = hash_level(work, descriptor, self.hashes.descriptor, label=label, jobs=self.jobs, advance=advance)
        spare = [(level + 1, index) for index in sorted(findings.spare)]
        children = [(level, index) for index in sorted(findings.children)]
        found = [block for block in spare + children if not self._is_below(block, unproven)]
        # Stray bytes in a block do not make its digests wrong.
        unproven.update(block for block in found if block[0] == level)
        return found

    def _is_below(self, block: tuple[int, int], unproven: set[tuple[int, int]]) -> bool:
        level, index = block
        while level < len(self.tree.levels):
            if (level, index) in unproven:
                return True
            level, index = level + 1, index // self.tree.parameters.fanout
        return False

    def _holder(self, level: int) -> tuple[int, str]:
        file = self.data if level == DATA else self.hashes
        return file.descriptor, str(file.path)

    def _say_done(self) -> None:
        if self.advance is not None:
            self.advance(self.tree.data_bytes)

    def _named(self, level: int, index: int) -> BadBlock:
        offset_bytes = level_of(self.tree, level).offset_bytes + index * block_bytes_of(self.tree, level)
        return BadBlock("data", None, index, offset_bytes) if level == DATA else BadBlock("hash", level, index, offset_bytes)
