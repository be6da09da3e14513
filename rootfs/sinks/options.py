"""What a SquashFS sink is asked for, and what it can be asked for at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shiplap.core.entries import Entry
from shiplap.core.errors import Refused
from shiplap.core.imageform import SQUASHFS_BLOCK_BYTES, SQUASHFS_LEVELS, SQUASHFS_TOOLS_OF, is_size, level_problem

Write = Callable[[bytes], object]
Add = Callable[[Entry], object]
Advance = Callable[[int], object]
"""Told how many bytes more of a tar of the entries are done, for progress."""


class SquashfsOptionsError(Refused):
    """Options that no SquashFS tool, or not this one, can follow."""


@dataclass(frozen=True, slots=True)
class SquashfsOptions:
    """How to write an image.

    ``level``: None for the compression's default. ``epoch``: the superblock's time, seconds, 32 bit.
    ``jobs``: processors to use, None for all; never changes the bytes. ``allow_tool``: versions of the tool
    (``4.7.2`` or ``mksquashfs-4.7.2``) to accept although they are known to be faulty.
    The defaults were measured: docs/squashfs.md.
    """

    tool: str = "builtin"
    compression: str = "zstd"
    level: int | None = None
    block_size_bytes: int = 131072
    epoch: int = 0
    jobs: int | None = None
    allow_tool: tuple[str, ...] = ()

    @property
    def effective_level(self) -> int | None:
        """The level that is passed to the tool: tools' own defaults are never relied on."""
        levels = SQUASHFS_LEVELS.get(self.compression)
        return self.level if self.level is not None or levels is None else levels[0]

    @property
    def effective_jobs(self) -> int:
        return self.jobs if self.jobs is not None else len(os.sched_getaffinity(0))


class Sink(Protocol):
    """One way to turn an entry stream into a SquashFS image."""

    def open(self, options: SquashfsOptions, output: Path, advance: Advance) -> AbstractContextManager[Add]:
        """Begin; leaving the context finishes the image. Raises ProgramMissing, Refused, OutsideFailure."""
        ...

    def describe(self, options: SquashfsOptions) -> dict[str, str]:
        """``tool``, ``version`` and, where it can be told, ``library`` of the compressor."""
        ...


def check_options(options: SquashfsOptions) -> None:
    """Raises SquashfsOptionsError for the first thing that cannot be."""
    if options.compression not in SQUASHFS_LEVELS:
        hint = "write one of " + ", ".join(SQUASHFS_LEVELS)
        raise SquashfsOptionsError(f"{options.compression!r} is no compression of SquashFS", hint=hint)
    tools = SQUASHFS_TOOLS_OF.get(options.compression)
    if tools is not None and options.tool not in tools:
        raise SquashfsOptionsError(
            f"{options.tool} does not write {options.compression}", hint="use `tool: " + "` or `tool: ".join(tools) + "`"
        )
    problem = level_problem(options.compression, options.level, SQUASHFS_LEVELS[options.compression], "SquashFS")
    if problem is not None:
        raise SquashfsOptionsError(problem)
    if not is_size(options.block_size_bytes, SQUASHFS_BLOCK_BYTES):
        raise SquashfsOptionsError(f"a block size of {options.block_size_bytes} bytes is no power of two from 4 KiB to 1 MiB")
    if not 0 <= options.epoch < 1 << 32:
        raise SquashfsOptionsError(f"the time {options.epoch} does not fit into the 32 bits that SquashFS has for it")
    if options.jobs is not None and options.jobs < 1:
        raise SquashfsOptionsError(f"{options.jobs} jobs cannot work")
