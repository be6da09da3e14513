"""The hashing of one level of blocks into the level above: the hot loop, and the worker process around it.

The same code runs in our process and, as ``python blocks.py``, in several worker processes: at 4 KiB a block
threads lose a third of their time handing over the interpreter lock. It therefore imports the standard
library only. Workers take the numbers of their shares from one pipe, so that a busy core takes fewer.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

# Read at once: small enough for a core's cache, large enough that system calls do not count. The largest block fits.
READ_BYTES = 512 * 1024

# What a share can say: (code, value).
DONE_BYTES, CHILD_DIFFERS, SPARE_DIFFERS, READ_FAILED, WRITE_FAILED, READ_SHORT = range(6)
Block = bytes | memoryview
Report = Callable[[int, int], None]
RECORD = struct.Struct("<QQ")
SHARE_NUMBER = struct.Struct("<Q")


# Not a dataclass: importing dataclasses would double the time a worker needs to start.
class LevelHashing(NamedTuple):
    """The work on one level: child blocks of one file, whose digests make up the parent blocks of another.

    ``compare``: the parents exist and are compared, otherwise they are written. ``salt``: hex digits.
    ``salt_first``: before the block (hash type 1) or behind it. ``share_parents``: parents in one
    share. ``differences_limit``: at most this many differing children, and as many parents with bytes where zeros
    belong, are reported for each share.
    """

    hash_name: str
    salt: str
    salt_first: bool
    child_offset_bytes: int
    child_block_bytes: int
    child_blocks: int
    parent_offset_bytes: int
    parent_block_bytes: int
    fanout: int
    digest_bytes: int
    slot_bytes: int
    share_parents: int
    compare: bool
    differences_limit: int

    @property
    def parent_blocks(self) -> int:
        return -(-self.child_blocks // self.fanout)

    @property
    def shares(self) -> int:
        return -(-self.parent_blocks // self.share_parents)


class _Stop(Exception):
    """Ends a share that has reported why."""


def digests_of(hash_name: str, salt: bytes, *, salt_first: bool) -> Callable[[Sequence[Block]], list[bytes]]:
    """The function that hashes blocks, each with the salt."""
    copy = hashlib.new(hash_name, salt if salt_first else b"", usedforsecurity=False).copy

    # Two loops, one for each order: a test for every block would cost as much as the rest of the loop.
    def salted_before(blocks: Sequence[Block]) -> list[bytes]:
        digests = []
        for block in blocks:
            state = copy()
            state.update(block)
            digests.append(state.digest())
        return digests

    def salted_behind(blocks: Sequence[Block]) -> list[bytes]:
        digests = []
        for block in blocks:
            state = copy()
            state.update(block)
            state.update(salt)
            digests.append(state.digest())
        return digests

    return salted_before if salt_first else salted_behind


def parents(work: LevelHashing, children: int, first: int, count: int, report: Report) -> Iterator[tuple[int, bytes]]:
    """Compute ``count`` parent blocks from number ``first`` on: yields the number of the next one and whole blocks.

    ``children``: the file descriptor to read from. A failing read is reported and ends the share.
    """
    hashed = digests_of(work.hash_name, bytes.fromhex(work.salt), salt_first=work.salt_first)
    size, fanout = work.child_block_bytes, work.fanout
    end = min((first + count) * fanout, work.child_blocks)
    # Block sizes and fanouts are powers of two: a piece is whole blocks, and whole parents or a part of one.
    buffer = memoryview(bytearray(READ_BYTES))
    views = [buffer[at : at + size] for at in range(0, READ_BYTES, size)]
    digests: list[bytes] = []
    position = first * fanout
    while position < end:
        blocks = min(len(views), end - position)
        _read_exactly(children, buffer[: blocks * size], work.child_offset_bytes + position * size, report)
        digests += hashed(views[:blocks])
        position += blocks
        if len(digests) >= fanout or position == end:
            assembled = _assemble(work, digests)
            yield first, assembled
            first += len(assembled) // work.parent_block_bytes
            digests.clear()
        report(DONE_BYTES, blocks * size)


def _assemble(work: LevelHashing, digests: list[bytes]) -> bytes:
    """Hash blocks out of digests: each digest in its slot, zeros everywhere else."""
    pad = bytes(work.slot_bytes - len(digests[0]))
    blocks = []
    for start in range(0, len(digests), work.fanout):
        body = pad.join(digests[start : start + work.fanout])
        blocks.append(body.ljust(work.parent_block_bytes, b"\0"))
    return b"".join(blocks)


def hash_share(work: LevelHashing, share: int, children: int, parent: int, report: Report) -> None:
    """Do one share of ``work`` with two file descriptors; everything it finds or fails at goes to ``report``."""
    first = share * work.share_parents
    count = min(work.share_parents, work.parent_blocks - first)
    left = dict.fromkeys((CHILD_DIFFERS, SPARE_DIFFERS), work.differences_limit)

    def limited(code: int, value: int) -> None:
        if code in left:
            left[code] -= 1
        if left.get(code, 0) >= 0:
            report(code, value)

    try:
        for number, blocks in parents(work, children, first, count, report):
            if work.compare:
                _compare(work, parent, number, blocks, limited)
            else:
                _write(work, parent, number, blocks, report)
    except _Stop:
        pass


def _write(work: LevelHashing, descriptor: int, first: int, blocks: bytes, report: Report) -> None:
    offset = work.parent_offset_bytes + first * work.parent_block_bytes
    view = memoryview(blocks)
    try:
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
    except OSError as error:
        report(WRITE_FAILED, error.errno or 0)
        raise _Stop from None


def _compare(work: LevelHashing, descriptor: int, first: int, blocks: bytes, report: Report) -> None:
    """Report the children whose stored digest differs, and the parents where anything else differs."""
    stored_blocks = bytearray(len(blocks))
    _read_exactly(descriptor, memoryview(stored_blocks), work.parent_offset_bytes + first * work.parent_block_bytes, report)
    if stored_blocks == blocks:
        return
    for index in range(len(blocks) // work.parent_block_bytes):
        start = index * work.parent_block_bytes
        computed, stored = blocks[start : start + work.parent_block_bytes], stored_blocks[start : start + work.parent_block_bytes]
        child = (first + index) * work.fanout
        for at in range(min(work.fanout, work.child_blocks - child)):
            slot = slice(at * work.slot_bytes, at * work.slot_bytes + work.digest_bytes)
            if computed[slot] != stored[slot]:
                report(CHILD_DIFFERS, child + at)
                stored[slot] = computed[slot]
        if computed != stored:
            report(SPARE_DIFFERS, first + index)


def _read_exactly(descriptor: int, buffer: memoryview, offset: int, report: Report) -> None:
    try:
        while buffer:
            read = os.preadv(descriptor, [buffer], offset)
            if not read:
                report(READ_SHORT, offset)
                raise _Stop
            buffer, offset = buffer[read:], offset + read
    except OSError as error:
        report(READ_FAILED, error.errno or 0)
        raise _Stop from None


def worker_arguments(work: LevelHashing, children: int, parent: int) -> list[str]:
    """What to call this file with; ``children`` and ``parent`` are inherited descriptors."""
    return [json.dumps(work._asdict()), str(children), str(parent)]


def main(arguments: list[str]) -> None:
    """A worker: share numbers from standard input until it ends, records to standard output."""
    work = LevelHashing(**json.loads(arguments[0]))
    children, parent = int(arguments[1]), int(arguments[2])

    def report(code: int, value: int) -> None:
        # A closed pipe means that our parent is gone, and nobody wants the result.
        os.write(1, RECORD.pack(code, value))

    try:
        while number := os.read(0, SHARE_NUMBER.size):
            hash_share(work, SHARE_NUMBER.unpack(number)[0], children, parent, report)
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
