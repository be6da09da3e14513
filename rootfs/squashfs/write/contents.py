"""Contents of regular files: cut into runs of blocks and tails, each stored once however often it occurs."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from shiplap.core.entries import Content
from shiplap.rootfs.squashfs.superblock import NOTHING
from shiplap.rootfs.squashfs.write.blocks import Blocks, BlockWriter, block_digest
from shiplap.rootfs.squashfs.write.fragments import FragmentWriter

# An offset lies in a block, and a block has at most 1 MiB.
_OFFSET_BITS = 20


class Place(NamedTuple):
    """Where a content lies. ``run``: number of its run of blocks; ``fragment``: where its tail is. NOTHING for none."""

    run: int
    fragment: int
    offset: int


class ContentWriter:
    """Stores contents. Equal ones are found by SHA-256, runs and tails each for themselves.

    Each content is read once; a second time only when it begins like an earlier one of the same length and then
    turns out to be another. ``tails``: whether the last, short block of a larger file may go into a fragment.
    """

    def __init__(self, blocks: BlockWriter, fragments: FragmentWriter, block_size_bytes: int, *, tails: bool) -> None:
        self._blocks = blocks
        self._fragments = fragments
        self._block_size_bytes = block_size_bytes
        self._tails = tails
        # A longer tail gets a block of its own: nothing is gained by packing it (measured: docs/squashfs-format.md), and
        # who reads it need not decompress its neighbours.
        self._fragment_limit_bytes = block_size_bytes // 2
        self._tail_places: dict[bytes, int] = {}
        self._begun: set[bytes] = set()
        self._runs_by_digest: dict[bytes, int] = {}
        self._starts = array("Q")
        self._first_words = array("Q")
        self._words = array("I")
        self.duplicate_bytes = 0
        """Bytes of contents that were there already."""

    def put(self, content: Content) -> Place:
        """Store one content. Raises EOFError when it is not as long as it says."""
        size = content.size_bytes
        if not size:
            return Place(NOTHING, NOTHING, 0)
        tail_bytes = size % self._block_size_bytes
        if tail_bytes > self._fragment_limit_bytes or (tail_bytes < size and not self._tails):
            tail_bytes = 0
        if tail_bytes == size:
            return self._put_tail(NOTHING, _whole(content))
        run, tail = self._put_run(content, size - tail_bytes)
        return self._put_tail(run, tail) if tail else Place(run, NOTHING, 0)

    def run(self, number: int, block_count: int) -> tuple[int, array[int]]:
        """First byte in the image (0 if all are holes) and size words of a run, once everything has been settled."""
        first = self._first_words[number]
        return self._starts[number], self._words[first : first + block_count]

    def _put_tail(self, run: int, tail: bytes) -> Place:
        digest = hashlib.sha256(tail).digest()
        place = self._tail_places.get(digest)
        if place is None:
            fragment, offset = self._fragments.add(tail)
            # One small number for each of very many files.
            self._tail_places[digest] = fragment << _OFFSET_BITS | offset
            return Place(run, fragment, offset)
        self.duplicate_bytes += len(tail)
        return Place(run, place >> _OFFSET_BITS, place & (1 << _OFFSET_BITS) - 1)

    def _put_run(self, content: Content, run_bytes: int) -> tuple[int, bytes]:
        """The number of the run of the content's first ``run_bytes`` bytes, and what follows them."""
        reading = _Reading(content, run_bytes, self._block_size_bytes, self._blocks.batch_bytes)
        batches = reading.batches()
        data, start, end = next(batches)
        first_digest = block_digest(data, start, min(start + self._block_size_bytes, end), self._blocks.zeros)
        beginning = first_digest + run_bytes.to_bytes(8, "little")
        if beginning in self._begun:
            known = self._known_run(first_digest, data, start, end, batches)
            if known is not None:
                self.duplicate_bytes += run_bytes
                return known, reading.tail
            reading = _Reading(content, run_bytes, self._block_size_bytes, self._blocks.batch_bytes)
            batches = reading.batches()
            data, start, end = next(batches)
        self._begun.add(beginning)
        taker = _RunTaker(self._starts, self._first_words, self._words, self._runs_by_digest, -(-run_bytes // self._block_size_bytes))
        self._blocks.put_data(data, start, end, taker.take, first_digest)
        for data, start, end in batches:
            self._blocks.put_data(data, start, end, taker.take)
        return taker.run, reading.tail

    def _known_run(self, first_digest: bytes, data: bytes, start: int, end: int, batches: Iterator[tuple[bytes, int, int]]) -> int | None:
        """The earlier run that is equal to the one whose first batch is given, if there is one. Reads it all."""
        # The digests of runs are complete once they have been written.
        self._blocks.settle()
        size, zeros = self._block_size_bytes, self._blocks.zeros
        whole = hashlib.sha256(first_digest)
        start += size
        while True:
            for at in range(start, end, size):
                whole.update(block_digest(data, at, min(at + size, end), zeros))
            try:
                data, start, end = next(batches)
            except StopIteration:
                return self._runs_by_digest.get(whole.digest())


class _RunTaker:
    """One run on its way through the threads."""

    __slots__ = ("_first_words", "_left", "_runs_by_digest", "_starts", "_whole", "_words", "run")

    def __init__(
        self, starts: array[int], first_words: array[int], words: array[int], runs_by_digest: dict[bytes, int], block_count: int
    ) -> None:
        self._starts = starts
        self._first_words = first_words
        self._words = words
        self._runs_by_digest = runs_by_digest
        self._left = block_count
        self._whole = hashlib.sha256()
        self.run = len(starts)
        if self.run >= NOTHING:
            raise OverflowError("more runs of blocks than 32 bits can number")
        starts.append(0)

    def take(self, position: int, blocks: Blocks) -> None:
        if len(self._first_words) == self.run:
            self._first_words.append(len(self._words))
        if blocks.data and not self._starts[self.run]:
            self._starts[self.run] = position
        self._words.extend(blocks.words)
        self._whole.update(b"".join(blocks.digests))
        self._left -= len(blocks.words)
        if not self._left:
            self._runs_by_digest[self._whole.digest()] = self.run


class _Reading:
    """One pass over a content: batches of whole blocks up to ``run_bytes``, the rest in ``tail`` afterwards."""

    __slots__ = ("_batch_bytes", "_block_size_bytes", "_content", "_run_bytes", "tail")

    def __init__(self, content: Content, run_bytes: int, block_size_bytes: int, batch_bytes: int) -> None:
        self._content = content
        self._run_bytes = run_bytes
        self._block_size_bytes = block_size_bytes
        self._batch_bytes = batch_bytes
        self.tail = b""

    def batches(self) -> Iterator[tuple[bytes, int, int]]:
        """``(data, start, end)``: about ``batch_bytes``, at least a block, the last one of the run perhaps shorter."""
        left = self._run_bytes
        held: list[bytes] = []
        held_bytes = 0
        for piece in self._content.chunks():
            held.append(piece)
            held_bytes += len(piece)
            if not left or held_bytes < min(self._batch_bytes, left):
                continue
            data = piece if len(held) == 1 else b"".join(held)
            end = min(len(data), left)
            if end < left:
                end -= end % self._block_size_bytes
            for at in range(0, end, self._batch_bytes):
                yield data, at, min(at + self._batch_bytes, end)
            left -= end
            held = [data[end:]] if end < len(data) else []
            held_bytes = len(data) - end
        self.tail = b"".join(held)
        if self._run_bytes - left + held_bytes != self._content.size_bytes:
            raise EOFError(f"a content of {self._content.size_bytes} bytes has {self._run_bytes - left + held_bytes}")


def _whole(content: Content) -> bytes:
    pieces = list(content.chunks())
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if len(data) != content.size_bytes:
        raise EOFError(f"a content of {content.size_bytes} bytes has {len(data)}")
    return data
