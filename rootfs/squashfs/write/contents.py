"""Contents of regular files: cut into runs of blocks and tails, each stored once however often it occurs."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

from shiplap.core.entries import Content
from shiplap.rootfs.squashfs.superblock import NOTHING
from shiplap.rootfs.squashfs.write.blocks import Blocks, BlockWriter
from shiplap.rootfs.squashfs.write.fragments import FragmentWriter
from shiplap.rootfs.squashfs.write.stored import StoredBlocks

# An offset lies in a block, and a block has at most 1 MiB.
_OFFSET_BITS = 20
# What a run is known by at first. More would make fewer false alarms, but takes time for every file.
_BEGINNING_BYTES = 4096


class Place(NamedTuple):
    """Where a content lies. ``run``: number of its run of blocks; ``fragment``: where its tail is. NOTHING for none."""

    run: int
    fragment: int
    offset: int


class ContentWriter:
    """Stores contents. Equal ones are found, runs and tails each for themselves, and stored once.

    Tails are known by their SHA-256. A run is first known by its length and its beginning alone; when another one
    has these too, the digest of the first is made from what is stored, and the other is read to its end before it
    is compressed. So nearly every content is read once and large ones are hardly ever hashed.

    ``tails``: whether the last, short block of a larger file may go into a fragment.
    """

    def __init__(self, blocks: BlockWriter, fragments: FragmentWriter, stored: StoredBlocks, block_size_bytes: int, *, tails: bool) -> None:
        self._blocks = blocks
        self._fragments = fragments
        self._stored = stored
        self._block_size_bytes = block_size_bytes
        self._tails = tails
        # A longer tail gets a block of its own: nothing is gained by packing it (measured: docs/squashfs-format.md), and
        # who reads it need not decompress its neighbours.
        self._fragment_limit_bytes = block_size_bytes // 2
        self._tail_places: dict[bytes, int] = {}
        self._runs_by_beginning: dict[bytes, int | None] = {}  # None: there are several, all known by their digests
        self._runs_by_digest: dict[bytes, int] = {}
        self._runs = _Runs()
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
        return self._runs.start(number), self._runs.words(number, block_count)

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
        data, start, end = first = next(batches)
        beginning = run_bytes.to_bytes(8, "little") + hashlib.sha256(data[start : min(end, start + _BEGINNING_BYTES)]).digest()
        digest = None
        if beginning in self._runs_by_beginning:
            self._know_by_digest(beginning, run_bytes)
            digest = _digest(chain((first,), batches))
            known = self._runs_by_digest.get(digest)
            if known is not None:
                self.duplicate_bytes += run_bytes
                return known, reading.tail
            reading = _Reading(content, run_bytes, self._block_size_bytes, self._blocks.batch_bytes)
            batches = reading.batches()
            first = next(batches)
        run = self._runs.begin()
        if digest is None:
            self._runs_by_beginning[beginning] = run
        else:
            self._runs_by_digest[digest] = run
        for data, start, end in chain((first,), batches):
            self._blocks.put_data(data, start, end, partial(self._runs.take, run))
        return run, reading.tail

    def _know_by_digest(self, beginning: bytes, run_bytes: int) -> None:
        """Make sure that the runs with this beginning can be found by their digests."""
        run = self._runs_by_beginning[beginning]
        if run is not None:
            self._blocks.settle()
            words = self._runs.words(run, -(-run_bytes // self._block_size_bytes))
            self._runs_by_digest[self._stored.digest(self._runs.start(run), words, run_bytes)] = run
            self._runs_by_beginning[beginning] = None


class _Runs:
    """Where the runs lie, in the order in which they were begun."""

    def __init__(self) -> None:
        self._starts = array("Q")
        self._first_words = array("Q")
        self._words = array("I")

    def begin(self) -> int:
        """The number of a further run."""
        self._starts.append(0)
        if len(self._starts) > NOTHING:
            raise OverflowError("more runs of blocks than 32 bits can number")
        return len(self._starts) - 1

    def take(self, run: int, position: int, blocks: Blocks) -> None:
        """Note a batch of the run's blocks; batches come in order."""
        if len(self._first_words) == run:
            self._first_words.append(len(self._words))
        if blocks.data and not self._starts[run]:
            self._starts[run] = position
        self._words.extend(blocks.words)

    def start(self, run: int) -> int:
        return self._starts[run]

    def words(self, run: int, block_count: int) -> array[int]:
        first = self._first_words[run]
        return self._words[first : first + block_count]


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


def _digest(batches: Iterable[tuple[bytes, int, int]]) -> bytes:
    """SHA-256 of all batches together."""
    whole = hashlib.sha256()
    for data, start, end in batches:
        with memoryview(data) as view:
            whole.update(view[start:end])
    return whole.digest()


def _whole(content: Content) -> bytes:
    pieces = list(content.chunks())
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if len(data) != content.size_bytes:
        raise EOFError(f"a content of {content.size_bytes} bytes has {len(data)}")
    return data
