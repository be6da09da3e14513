"""Data blocks through all processors and into the image, strictly in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from shiplap.rootfs.squashfs.compress import Compressor, ThreadDeflate
from shiplap.rootfs.squashfs.write.output import ImageOutput

STORED = 1 << 24
"""Bit of a block's size word: the block is not compressed. A word of 0 is a hole."""

# One piece of work for a thread: so much that handing it over costs little, so little that all threads end together.
_BATCH_BYTES = 256 << 10
# What waits or is being compressed, at most, unless one batch for each thread is more.
_PENDING_BYTES = 48 << 20


@dataclass(frozen=True, slots=True)
class Blocks:
    """A batch, compressed. ``words``: size words, ``data``: what to write for those that are no holes."""

    words: list[int]
    data: list[bytes]


Take = Callable[[int, Blocks], object]
"""``take(position, blocks)``: called in the order of the batches; the batch begins at byte ``position`` of the image."""


class BlockWriter:
    """Compresses batches of blocks in threads. The bytes do not depend on the number of threads.

    Memory is bounded by the batches in flight, a few for each thread.
    """

    def __init__(self, output: ImageOutput, compressor: Compressor, block_size_bytes: int, jobs: int) -> None:
        self._output = output
        self._local = ThreadDeflate(compressor)
        self._block_size_bytes = block_size_bytes
        self._zeros = bytes(block_size_bytes)
        self.batch_bytes = max(block_size_bytes, _BATCH_BYTES)
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="squashfs-block")
        self._most = max(jobs + 1, min(4 * jobs, _PENDING_BYTES // self.batch_bytes))
        self._pending: deque[tuple[Future[Blocks], Take]] = deque()

    def put_data(self, data: bytes, start: int, end: int, take: Take) -> None:
        """Compress ``data[start:end]`` as blocks of a file, the last of which may be short; blocks of zeros become holes."""
        self._put(self._pool.submit(self._compress, data, start, end), take)

    def put_fragments(self, data: bytes, take: Take) -> None:
        """Compress ``data`` as one fragment block. It is never a hole, which Linux knows in files only."""
        self._put(self._pool.submit(self._compress_one, data), take)

    def settle(self) -> None:
        """Wait until everything that was put has been written and taken."""
        while self._pending:
            self._write_first()

    def close(self) -> None:
        """End the threads; what has not been settled is given up."""
        self._pool.shutdown(cancel_futures=True)

    def _put(self, future: Future[Blocks], take: Take) -> None:
        self._pending.append((future, take))
        while len(self._pending) > self._most or (self._pending and self._pending[0][0].done()):
            self._write_first()

    def _write_first(self) -> None:
        future, take = self._pending.popleft()
        blocks = future.result()
        position = self._output.position
        for data in blocks.data:
            self._output.write(data)
        take(position, blocks)

    def _compress(self, data: bytes, start: int, end: int) -> Blocks:
        size, zeros = self._block_size_bytes, self._zeros
        blocks = Blocks([], [])
        for at in range(start, end, size):
            stop = min(at + size, end)
            if not data[at] and data.startswith(zeros if stop - at == size else zeros[: stop - at], at):
                blocks.words.append(0)
            else:
                self._compress_block(data, at, stop, blocks)
        return blocks

    def _compress_one(self, data: bytes) -> Blocks:
        blocks = Blocks([], [])
        self._compress_block(data, 0, len(data), blocks)
        return blocks

    def _compress_block(self, data: bytes, start: int, end: int, blocks: Blocks) -> None:
        packed = self._local.deflate(data, start, end)
        if packed is None:
            blocks.words.append(end - start | STORED)
            blocks.data.append(data[start:end])
        else:
            blocks.words.append(len(packed))
            blocks.data.append(packed)
