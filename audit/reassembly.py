"""A layer's tar put together from tar-split data and stored files, as fast as the machine can.

One thread reads and writes, one computes SHA-256, one the CRC-64 of large files, and blocks of the store image are
decompressed ahead where that is dear. Results and the first error are those of doing one thing after the other.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

from shiplap.core.entries import Content, printable
from shiplap.core.layer.crc64 import Crc64
from shiplap.core.layer.tarsplit import FilePart, Segment, TarSplitCorrupt
from shiplap.core.lookahead import begun_early

_BATCH_BYTES = 1 << 20
# A checksum of less is computed at once: to hand it over, and the interpreter's lock with it, costs more.
_SUMMED_AT_ONCE_BYTES = 64 << 10
# Batches that wait for the threads: memory is bounded by a few of them.
_BATCHES_WAITING = 4
# Parts of the tar that are looked at before their turn, in bytes of their own and an allowance for each.
_AHEAD_BYTES = 4 << 20
_PART_BYTES = 32 << 10


@dataclass(frozen=True, slots=True)
class Assembled:
    """``checksums``: CRC-64 of every file's content that is not empty, proven, by its offset in the tar."""

    size_bytes: int
    sha256_hex: str
    checksums: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes ``start`` to ``end`` of a batch belong to the file ``part``; ``last``: and nothing more does."""

    start: int
    end: int
    part: FilePart
    last: bool


def reassemble(
    parts: Iterable[Segment | FilePart],
    content: Callable[[FilePart, int], Content],
    begin: Callable[[FilePart], bool],
    spool: IO[bytes],
    advance: Callable[[int], object],
    *,
    what: str,
    threads: bool,
) -> Assembled:
    """Write the tar that ``parts`` describe to ``spool``.

    ``content(part, offset)``: of the file whose content begins at that offset of the tar. ``begin(part)``: may start to
    read it before, and says whether it had room. ``threads``: whether to compute beside reading. Raises TarSplitCorrupt
    when a file has another size or checksum than its part says, and whatever ``content``, ``advance`` and the spool raise.
    """
    with _executor("sha256", threads) as hashing, _executor("crc64", threads) as summing:
        work = _Work(hashing, summing, spool, advance, what)

        def early(part: Segment | FilePart) -> bool:
            return begin(part) if isinstance(part, FilePart) and part.size_bytes else True

        try:
            for part in begun_early(parts, early, cost=_cost, room=_AHEAD_BYTES):
                if isinstance(part, Segment):
                    work.add(part.data)
                elif part.size_bytes:
                    work.file(part, content(part, work.size_bytes))
            work.flush()
        except Exception:
            work.settle()  # a file before this place that has another checksum is the first fault
            raise
        work.settle()
        return Assembled(work.size_bytes, work.sha256.hexdigest(), work.checksums)


class _AtOnce(Executor):
    """Does everything in the caller's own thread, before ``submit`` returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asks for the result
            done.set_exception(error)
        return done


def _executor(name: str, threads: bool) -> Executor:
    return ThreadPoolExecutor(1, name) if threads else _AtOnce()


def _cost(part: Segment | FilePart) -> int:
    return _PART_BYTES + (len(part.data) if isinstance(part, Segment) else 0)


class _Work:
    """Collects pieces into batches; each goes to the spool at once and to the two threads."""

    def __init__(self, hashing: Executor, summing: Executor, spool: IO[bytes], advance: Callable[[int], object], what: str) -> None:
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.checksums: dict[int, bytes] = {}
        self._hashing, self._summing = hashing, summing
        self._spool, self._advance, self._what = spool, advance, what
        self._pieces: list[bytes] = []
        self._batch_bytes = 0
        self._spans: list[_Span] = []
        self._waiting: deque[Future[None]] = deque()
        self._crc = Crc64()

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._batch_bytes += len(piece)
        self.size_bytes += len(piece)
        if self._batch_bytes >= _BATCH_BYTES:
            self.flush()

    def file(self, part: FilePart, content: Content) -> None:
        self.checksums[self.size_bytes] = part.checksum
        if part.size_bytes <= _SUMMED_AT_ONCE_BYTES:
            self._small_file(part, content)
            return
        left = part.size_bytes
        for piece in _held_back(content.chunks()):
            left -= len(piece)
            if left < 0:
                break
            self._spans.append(_Span(self._batch_bytes, self._batch_bytes + len(piece), part, left == 0))
            self.add(piece)
        if left:
            raise misfit(self._what, part)

    def _small_file(self, part: FilePart, content: Content) -> None:
        checksum, left = Crc64(), part.size_bytes
        for piece in content.chunks():
            left -= len(piece)
            if left < 0:
                break
            checksum.update(piece)
            self.add(piece)
        if left or checksum.digest() != part.checksum:
            raise misfit(self._what, part)

    def flush(self) -> None:
        data, spans = b"".join(self._pieces), self._spans
        self._pieces, self._spans, self._batch_bytes = [], [], 0
        if not data:
            return
        self._spool.write(data)
        self._advance(len(data))
        self._waiting.append(self._hashing.submit(self.sha256.update, data))
        if spans:
            self._waiting.append(self._summing.submit(self._sum, data, spans))
        while len(self._waiting) > 2 * _BATCHES_WAITING:
            self._waiting.popleft().result()

    def settle(self) -> None:
        """Wait for the threads; raises what the first of them found."""
        if self._spans:
            self.flush()
        while self._waiting:
            self._waiting.popleft().result()

    def _sum(self, data: bytes, spans: list[_Span]) -> None:
        for span in spans:
            self._crc.update(data[span.start : span.end])
            if span.last:
                if self._crc.digest() != span.part.checksum:
                    raise misfit(self._what, span.part)
                self._crc = Crc64()


def _held_back(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks that hold anything."""
    return (chunk for chunk in chunks if chunk)


def misfit(what: str, part: FilePart) -> TarSplitCorrupt:
    return TarSplitCorrupt(f"{what}: the content of '{printable(part.name)}' does not fit its size and checksum")
