"""What a SquashFS of any origin holds: its superblock in words, and its entries counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from shiplap.audit.diffsquashfs import flag_text
from shiplap.audit.trees import open_squashfs_tree
from shiplap.core.entries import Kind

_PLURALS = {
    Kind.REGULAR: "regular-files",
    Kind.DIRECTORY: "directories",
    Kind.SYMLINK: "symbolic-links",
    Kind.CHARACTER: "character-devices",
    Kind.BLOCK: "block-devices",
    Kind.FIFO: "fifos",
}


def squashfs_facts(path: Path, *, entry_limit: int) -> tuple[tuple[str, Any], ...]:
    """Names and values, the names as in ``shiplap inspect --json``. Raises SquashfsError where the tree is damaged.

    ``content_bytes``: of all files as they are read, each once however many names it has.
    """
    counts: Counter[str] = Counter(dict.fromkeys(_PLURALS.values(), 0))
    content_bytes = hard_links = attributed = 0
    with open_squashfs_tree(path, entry_limit=entry_limit) as tree:
        block = tree.reader.superblock
        for entry, first in tree.nodes():
            if first != entry.path:
                hard_links += 1
                continue
            counts[_PLURALS[entry.kind]] += 1
            attributed += bool(entry.xattrs)
            if entry.content is not None:
                content_bytes += entry.content.size_bytes
        sockets = tree.left_out_count
    return (
        ("image_bytes", path.stat().st_size),
        ("used_bytes", block.bytes_used),
        ("content_bytes", content_bytes),
        ("compressor", block.compressor),
        ("block-size_bytes", block.block_size_bytes),
        ("made_epoch", block.mtime_epoch),
        ("flags", flag_text(block.flags)),
        ("inodes", block.inode_count),
        ("fragments", block.fragment_count),
        ("ids", block.id_count),
        *counts.items(),
        ("sockets", sockets),
        ("hard-links", hard_links),
        ("inodes-with-xattrs", attributed),
    )
