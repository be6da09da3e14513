"""What an image of a store can be asked for: compressions, levels and block sizes of SquashFS and EROFS.

Leaf module: values only. The manifest's checks and those who write images read the same tables.
"""

from __future__ import annotations

Levels = tuple[int, int, int] | None
"""Default, lowest and highest level; None where there is none, or tools share none."""

SQUASHFS_LEVELS: dict[str, Levels] = {
    "zstd": (15, 1, 22),
    "gzip": (9, 1, 9),
    "xz": None,
    "lz4": None,
    "lzo": (8, 1, 9),
    "none": None,
}
"""Compressions of SquashFS that Linux reads."""

SQUASHFS_TOOLS_OF = {"lzo": ("tar2sqfs", "mksquashfs"), "none": ("builtin",)}
"""Compressions of SquashFS that not every tool can write, and the tools that can."""

SQUASHFS_BLOCK_BYTES = (4 << 10, 1 << 20)
"""Smallest and largest block, a power of two."""

EROFS_LEVELS: dict[str, Levels] = {
    "lz4hc": (12, 1, 12),
    "lz4": None,
    "zstd": (15, 1, 22),
    "deflate": (9, 1, 9),
    "lzma": (6, 0, 9),
    "none": None,
}
"""Compressions of EROFS. Linux reads lz4 (lz4hc is the same to it) from 5.4 on, lzma from 5.16, deflate from 6.6, zstd from 6.10."""

EROFS_CLUSTER_BYTES = (4 << 10, 1 << 20)
"""Smallest and largest compressed cluster, a power of two. Linux reads more than 4 KiB from 5.13 on."""


def level_problem(compression: str, level: int | None, levels: Levels, form: str) -> str | None:
    """What is wrong with ``level`` for ``compression`` in ``form`` (SquashFS, EROFS), or None. Level None is always right."""
    if level is None:
        return None
    if levels is None:
        return f"{compression} has no level in {form}: leave it out"
    if not levels[1] <= level <= levels[2]:
        return f"{level} is no level of {compression}, which has {levels[1]} to {levels[2]}"
    return None


def is_size(size_bytes: int, bounds: tuple[int, int]) -> bool:
    """Whether a block or cluster may have that many bytes."""
    return bounds[0] <= size_bytes <= bounds[1] and size_bytes & (size_bytes - 1) == 0
