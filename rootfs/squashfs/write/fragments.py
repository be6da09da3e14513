"""Fragment blocks: the ends of many files, packed together in the order of the stream."""

from __future__ import annotations

import struct

from shiplap.rootfs.squashfs.write.blocks import Blocks, BlockWriter

_RECORD = struct.Struct("<QII")


class FragmentWriter:
    """Gathers tails. A fragment block is handed on when the next tail does not fit into it any more."""

    def __init__(self, blocks: BlockWriter, block_size_bytes: int) -> None:
        self._blocks = blocks
        self._block_size_bytes = block_size_bytes
        self._tails: list[bytes] = []
        self._used_bytes = 0
        self._handed = 0
        self.records = bytearray()
        """The fragment table, complete once the blocks have settled."""

    @property
    def count(self) -> int:
        return len(self.records) // _RECORD.size

    def add(self, tail: bytes) -> tuple[int, int]:
        """Where ``tail``, shorter than a block, will lie: number of the fragment block and offset in it."""
        if self._used_bytes + len(tail) > self._block_size_bytes:
            self.flush()
        offset = self._used_bytes
        self._tails.append(tail)
        self._used_bytes += len(tail)
        return self._handed, offset

    def flush(self) -> None:
        """Hand the block under way on to be compressed."""
        if self._used_bytes:
            self._blocks.put_fragments(b"".join(self._tails), self._take)
            self._tails.clear()
            self._used_bytes = 0
            self._handed += 1

    def _take(self, position: int, blocks: Blocks) -> None:
        (word,) = blocks.words
        self.records += _RECORD.pack(position, word, 0)
