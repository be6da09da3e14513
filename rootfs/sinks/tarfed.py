"""Tools that read a tar stream, as sinks of entries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from shiplap.core.entries import Entry
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry
from shiplap.rootfs.sinks.options import Add, Advance, SquashfsOptions, Write


class TarTool(Protocol):
    """One program that turns a canonical tar stream into a SquashFS image."""

    def open(self, options: SquashfsOptions, output: Path) -> AbstractContextManager[Write]:
        """Start the tool; leaving the context waits for it. Raises ProgramMissing, Refused, OutsideFailure."""
        ...

    def describe(self, options: SquashfsOptions) -> dict[str, str]:
        """``tool``, ``version`` and, where it can be told, ``library`` of the compressor."""
        ...


class TarFed:
    """A sink that writes each entry's records into a tool's pipe."""

    def __init__(self, tool: TarTool) -> None:
        self.tool = tool

    @contextmanager
    def open(self, options: SquashfsOptions, output: Path, advance: Advance) -> Iterator[Add]:
        with self.tool.open(options, output) as write:

            def counted(data: bytes) -> None:
                write(data)
                advance(len(data))

            def add(entry: Entry) -> None:
                write_entry(entry, counted)

            yield add
            counted(END_OF_ARCHIVE)

    def describe(self, options: SquashfsOptions) -> dict[str, str]:
        return self.tool.describe(options)
