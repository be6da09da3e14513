"""Metadata on its way into the image: blocks of 8 KiB, each compressed alone, and tables that point to such blocks."""

from __future__ import annotations

import struct
from collections.abc import Callable

from shiplap.rootfs.squashfs.compress import Deflate
from shiplap.rootfs.squashfs.metadata import METADATA_BYTES
from shiplap.rootfs.squashfs.write.output import ImageOutput

_STORED = 0x8000
_HEADER = struct.Struct("<H")
NO_TABLE = 0xFFFFFFFFFFFFFFFF
"""The superblock's word for a table that is not there."""


def metadata_block(content: bytes, deflate: Deflate) -> bytes:
    """One block with its two bytes of header."""
    packed = deflate(content, 0, len(content))
    if packed is None:
        return _HEADER.pack(len(content) | _STORED) + content
    return _HEADER.pack(len(packed)) + packed


class MetadataWriter:
    """Cuts what is written into blocks; every block but the last holds 8192 bytes.

    ``block`` is where the block under way will begin, relative to the first one; ``len(pending)`` the offset in it.
    """

    __slots__ = ("_deflate", "_write", "block", "pending")

    def __init__(self, write: Callable[[bytes], object], deflate: Deflate) -> None:
        self._write = write
        self._deflate = deflate
        self.block = 0
        self.pending = bytearray()

    @property
    def reference(self) -> int:
        """Where the next byte goes: ``block << 16 | offset``."""
        return self.block << 16 | len(self.pending)

    def write(self, data: bytes) -> None:
        self.pending += data
        # Always less than a whole block remains: a reference to offset 8192 would name no byte.
        while len(self.pending) >= METADATA_BYTES:
            self._put(bytes(self.pending[:METADATA_BYTES]))
            del self.pending[:METADATA_BYTES]

    def finish(self) -> None:
        """Write the last, short block."""
        if self.pending:
            self._put(bytes(self.pending))
            self.pending.clear()

    def _put(self, content: bytes) -> None:
        block = metadata_block(content, self._deflate)
        self._write(block)
        self.block += len(block)


def write_table(output: ImageOutput, records: bytes, deflate: Deflate, header: bytes = b"") -> int:
    """Write a table: its blocks, then ``header`` and the list of the blocks' positions. Returns the position of the header.

    Linux checks that the list ends exactly where the next table's blocks begin, so nothing may come between tables.
    """
    positions = []
    for start in range(0, len(records), METADATA_BYTES):
        positions.append(output.position)
        output.write(metadata_block(records[start : start + METADATA_BYTES], deflate))
    at = output.position
    output.write(header + struct.pack(f"<{len(positions)}Q", *positions))
    return at
