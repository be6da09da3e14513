"""Two files with dm-verity hash trees: the superblocks' fields, and which data the differing hash blocks cover."""

from __future__ import annotations

from pathlib import Path

from shiplap.audit.diffcontent import first_difference
from shiplap.audit.differences import Change, Finding, Section, fields_of
from shiplap.core.entries import FileSlice
from shiplap.verity.superblock import Superblock
from shiplap.verity.tree import UnfitLayout, lay_out
from shiplap.verity.verify import read_superblock


def compare_verity(a: Path, b: Path, section: Section) -> None:
    """Superblock fields and the first differing block. Raises UnfitSuperblock."""
    one, other = read_superblock(a), read_superblock(b)
    pairs: list[tuple[str, str | int | None, str | int | None]] = [
        ("salt", one.parameters.salt.hex() or "-", other.parameters.salt.hex() or "-"),
        ("data blocks", one.data_blocks, other.data_blocks),
    ]
    changes = fields_of(
        [
            (name, str(getattr(one.parameters, attribute)), str(getattr(other.parameters, attribute)))
            for name, attribute in (
                ("UUID", "uuid"),
                ("hash", "hash_name"),
                ("hash type", "hash_type"),
                ("data block size", "data_block_bytes"),
                ("hash block size", "hash_block_bytes"),
            )
        ]
        + pairs
    )
    if changes:
        section.changed("superblock", changes)
    sizes = [path.stat().st_size for path in (a, b)]
    if sizes[0] != sizes[1]:
        section.add(Finding("the file", changes=(Change("size", *sizes),)))
    if {"hash", "salt", "data block size", "hash block size"} & {change.field for change in changes}:
        section.causes.append("another salt, hash or block size: every block of the tree differs, whatever the data are")
        return
    at = _first_tree_difference(a, b, one)
    if at is not None:
        where, covers = _place(one, at)
        section.add(Finding(where, changes=(Change("content", None, None),), detail=(covers,) if covers else ()))


def _first_tree_difference(a: Path, b: Path, superblock: Superblock) -> int | None:
    """First differing byte of the two trees, which begin in the first hash block behind the superblock."""
    start = superblock.parameters.hash_block_bytes
    with a.open("rb") as one, b.open("rb") as other:
        slices = [FileSlice(file.fileno(), start, max(0, path.stat().st_size - start), path.name) for file, path in ((one, a), (other, b))]
        at = first_difference(slices[0].chunks(), slices[1].chunks())
    return None if at is None else start + at


def _place(superblock: Superblock, at: int) -> tuple[str, str]:
    """The lowest-level block at or behind byte ``at``, and the data that it covers."""
    try:
        tree = lay_out(superblock.parameters, superblock.data_blocks)
    except UnfitLayout:
        return f"byte {at}", ""
    parameters = superblock.parameters
    for number, level in enumerate(tree.levels):
        index = (at - level.offset_bytes) // parameters.hash_block_bytes
        if not 0 <= index < level.blocks:
            continue
        covered = parameters.fanout ** (number + 1)
        first, last = index * covered, min((index + 1) * covered, superblock.data_blocks) - 1
        if number == 0:
            first = min(first + (at - level.offset_bytes) % parameters.hash_block_bytes // parameters.slot_bytes, last)
            last = first
        blocks = f"data block {first}" if first == last else f"data blocks {first} to {last}"
        return f"hash block {index} of level {number}", f"first difference at byte {at}; it covers {blocks}"
    return f"byte {at}", "behind the tree"
