"""What parts of an image cost in it: compressed data, and a share of the tables.

Who comes first owns: a block or a tail that several files share is paid for by the first of them in the order of the groups,
and costs the others nothing. A fragment block is divided by the tails in it, the tables by what each entry takes in them
before compression. The parts add up to the whole exactly.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from shiplap.core.entries import Entry, Kind
from shiplap.rootfs.squashfs.content import SquashfsContent
from shiplap.rootfs.squashfs.reader import SquashfsReader

LARGEST = 20
"""How many of the largest files are named."""

_CANDIDATES = 200  # files remembered by name; more than LARGEST, because what is shared turns out smaller
_OFFSET_BITS = 21  # a tail ends within a block, and a block has at most 1 MiB
_WORDS_MAX = 1 << 28  # data blocks of all files; an image may claim any number of empty ones
_INODE_BYTES = {Kind.DIRECTORY: 32, Kind.REGULAR: 32, Kind.SYMLINK: 24, Kind.FIFO: 20, Kind.HARDLINK: 0}
_NAME_BYTES = 8  # beside the name, in a listing
_WORD_BYTES = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one group. ``content_bytes``: of its regular files, when they are read. ``data_bytes``: compressed, what it owns.

    ``metadata_bytes``: its share of the tables. ``duplicate_bytes``: what it would cost more if nothing of it were there already.
    """

    entries: int
    content_bytes: int
    data_bytes: int
    metadata_bytes: int
    duplicate_bytes: int

    @property
    def stored_bytes(self) -> int:
        return self.data_bytes + self.metadata_bytes


@dataclass(frozen=True, slots=True)
class CostlyFile:
    """A file's own part of the data; the path as in the image."""

    data_bytes: int
    path: bytes
    group: int


@dataclass(frozen=True, slots=True)
class Costs:
    """``groups`` in the order asked for. ``largest``: files, largest first. ``bytes_used``: of the image, without padding."""

    groups: tuple[Cost, ...]
    largest: tuple[CostlyFile, ...]
    bytes_used: int


def measure_costs(reader: SquashfsReader, groups: Sequence[Sequence[bytes]]) -> Costs:
    """What each group of subtrees costs. Needs about 150 bytes of memory for a file. Raises SquashfsError."""
    ledger = _Ledger(reader)
    for paths in groups:
        ledger.begin_group()
        for path in paths:
            for entry in reader.entries(path):
                ledger.add(entry)
    return ledger.settle()


class _Ledger:
    """Files are numbered as they come; the lower number owns what two share."""

    def __init__(self, reader: SquashfsReader) -> None:
        self._reader = reader
        self._group_ends = array("Q")  # number of the first file of the next group
        self._entries: list[int] = []
        self._content: list[int] = []
        self._weights: list[int] = []
        # Of each file: its run of blocks in the image, and its tail as fragment number and offset in one number.
        self._starts, self._ends = array("Q"), array("Q")
        self._tail_starts, self._tail_ends = array("Q"), array("Q")
        self._words = 0
        self._candidates: list[tuple[int, int, bytes]] = []
        self._known_starts: set[int] = set()

    def begin_group(self) -> None:
        if self._entries:
            self._group_ends.append(len(self._starts))
        self._entries.append(0)
        self._content.append(0)
        self._weights.append(0)

    def add(self, entry: Entry) -> None:
        self._entries[-1] += 1
        weight = _INODE_BYTES.get(entry.kind, 24) + _NAME_BYTES + len(entry.path) - entry.path.rfind(b"/") - 1
        if entry.kind is Kind.SYMLINK:
            weight += len(entry.link)
        for name, value in entry.xattrs:
            weight += len(name) + len(value)
        if isinstance(entry.content, SquashfsContent):
            weight += _WORD_BYTES * self._add_file(entry.content, entry.path)
        self._weights[-1] += weight

    def _add_file(self, content: SquashfsContent, path: bytes) -> int:
        """Returns the number of the file's block words."""
        data = content.data
        self._content[-1] += data.size_bytes
        self._words += data.block_count
        if self._words > _WORDS_MAX:
            raise content.blocks.file.error(f"its files claim more than {_WORDS_MAX} blocks")
        run_bytes = content.blocks.stored_run_bytes(data)
        tail_bytes = tail_start = 0
        if data.fragment is not None:
            tail_bytes = data.size_bytes - data.block_count * content.blocks.block_size_bytes
            tail_start = data.fragment << _OFFSET_BITS | data.fragment_offset
            if not 0 < tail_bytes <= content.blocks.block_size_bytes - data.fragment_offset:
                raise content.blocks.file.error("a file's tail lies outside its fragment block")
        if run_bytes and data.start not in self._known_starts:
            self._remember(run_bytes, data.start, path)
        start = data.start if run_bytes else 0
        self._starts.append(start)
        self._ends.append(start + run_bytes)
        self._tail_starts.append(tail_start)
        self._tail_ends.append(tail_start + tail_bytes)
        return data.block_count

    def _remember(self, run_bytes: int, start: int, path: bytes) -> None:
        candidate = (run_bytes, len(self._starts), path)
        if len(self._candidates) < _CANDIDATES:
            heapq.heappush(self._candidates, candidate)
        elif candidate > self._candidates[0]:
            heapq.heapreplace(self._candidates, candidate)
        else:
            return
        self._known_starts.add(start)

    def settle(self) -> Costs:
        block = self._reader.superblock
        count = len(self._starts)
        owned = _owned(self._starts, self._ends)
        tails_owned = _owned(self._tail_starts, self._tail_ends)
        shares, alone = self._tail_shares(tails_owned)
        metadata = _apportioned(block.bytes_used - block.inode_table, self._weights)
        ends = [*self._group_ends, count][: len(self._entries)]
        groups = []
        first = 0
        for number, end in enumerate(ends):
            data_bytes = sum(owned[first:end]) + sum(shares[first:end])
            whole = sum(self._ends[first:end]) - sum(self._starts[first:end]) + sum(alone[first:end])
            groups.append(Cost(self._entries[number], self._content[number], data_bytes, metadata[number], whole - data_bytes))
            first = end
        largest = heapq.nsmallest(
            LARGEST, ((-owned[number] - shares[number], path, number) for _, number, path in self._candidates if owned[number])
        )
        files = tuple(CostlyFile(-size, path, next(at for at, end in enumerate(ends) if number < end)) for size, path, number in largest)
        return Costs(tuple(groups), files, block.bytes_used)

    def _tail_shares(self, owned: array[int]) -> tuple[array[int], array[int]]:
        """Of each file: its share of its fragment block, and the share it would have if its tail were its own."""
        shares, alone = array("Q", bytes(8 * len(owned))), array("Q", bytes(8 * len(owned)))
        starts, ends = self._tail_starts, self._tail_ends
        with_tail = sorted((number for number in range(len(owned)) if ends[number] > starts[number]), key=starts.__getitem__)
        position = 0
        while position < len(with_tail):
            fragment = starts[with_tail[position]] >> _OFFSET_BITS
            stop = position
            while stop < len(with_tail) and starts[with_tail[stop]] >> _OFFSET_BITS == fragment:
                stop += 1
            numbers = with_tail[position:stop]
            stored = self._reader.stored_fragment_bytes(fragment)
            total = sum(owned[number] for number in numbers)
            for number, share in zip(numbers, _apportioned(stored, [owned[number] for number in numbers]), strict=True):
                shares[number] = share
                # At least what it costs now, so that rounding makes no negative saving.
                alone[number] = max(share, stored * (ends[number] - starts[number]) // total)
            position = stop
        return shares, alone


def _owned(starts: array[int], ends: array[int]) -> array[int]:
    """Of each range: how much of it belongs to no range with a lower number."""
    owned = array("Q", bytes(8 * len(starts)))
    under_way: list[tuple[int, int]] = []  # (number, end) of the ranges that reach to where we are; the lowest number owns
    at = 0
    for number, start in _by_start(starts, ends):
        while under_way and at < start:
            owner, end = under_way[0]
            if end <= at:
                heapq.heappop(under_way)
                continue
            until = min(end, start)
            owned[owner] += until - at
            at = until
        at = max(at, start)
        if number >= 0:
            heapq.heappush(under_way, (number, ends[number]))
    return owned


def _by_start(starts: array[int], ends: array[int]) -> Iterator[tuple[int, int]]:
    """(number, start) of the ranges that are not empty, sorted by start; then one that begins behind all."""
    numbers = sorted((number for number in range(len(starts)) if ends[number] > starts[number]), key=starts.__getitem__)
    for number in numbers:
        yield number, starts[number]
    yield -1, max(ends, default=0)


def _apportioned(total: int, weights: Iterable[int]) -> list[int]:
    """``total`` divided by ``weights`` into whole numbers that add up to it (to nothing where all weights are 0)."""
    weights = list(weights)
    whole = sum(weights) or 1
    parts = []
    done = given = 0
    for weight in weights:
        done += weight
        upto = total * done // whole
        parts.append(upto - given)
        given = upto
    return parts
