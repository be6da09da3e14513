"""The one door for reading compressed streams: layers, and archives that are compressed as a whole.

What is accepted is what ``docker load`` accepts (tried on 20.10): any number of gzip members, bzip2
streams, xz streams or zstd frames after each other, zero padding by fours after an xz stream, and
nothing else behind them; a stream that is cut off, and a wrong checksum, are refused. The kind is told
by its first bytes, never by a name or a media type, as the engines do.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from shiplap.core import zstd
from shiplap.core.entries import CHUNK_BYTES
from shiplap.core.errors import Refused
from shiplap.core.limits import PastLimit

DETECT_BYTES = 10
"""So many first bytes :func:`detect` wants; fewer only where there are no more."""

# A dictionary of 128 MiB and what surrounds it: twice what `xz -9` needs, and zstd's limit too.
XZ_MEMORY_BYTES = 160 << 20
# Small, because a decoder copies what follows its member, again and again where members are tiny.
_FEED_BYTES = 64 << 10
_XZ_PADDING = 4


class StreamCorrupt(Refused):
    """Compressed data that is damaged, cut off, or followed by something else."""


class TooLarge(PastLimit):
    """Data that is larger than the stated limit."""


class Decoder(Protocol):
    """One member of a compressed stream, as ``bz2``, ``lzma`` and ``compression.zstd`` model it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def detect(first_bytes: bytes) -> str:
    """``gzip``, ``bzip2``, ``xz``, ``zstd`` or ``none``, from the first DETECT_BYTES of a stream."""
    for name, magic in (("gzip", b"\x1f\x8b\x08"), ("bzip2", b"BZh"), ("xz", b"\xfd7zXZ\0"), ("zstd", b"\x28\xb5\x2f\xfd")):
        if first_bytes.startswith(magic):
            return name
    # RFC 8878, 3.1.2: a stream may begin with a skippable frame, 0x184D2A50 to 0x184D2A5F.
    if len(first_bytes) >= 8 and first_bytes[0] & 0xF0 == 0x50 and first_bytes[1:4] == b"\x2a\x4d\x18":
        return "zstd"
    return "none"


def uncompressed(chunks: Iterable[bytes], *, location: str, limit_bytes: int) -> Iterator[bytes]:
    """Yield the uncompressed bytes of ``chunks`` in pieces of at most CHUNK_BYTES, in bounded memory.

    ``location`` names the stream in messages. Every chunk is consumed before the end, so that a source
    which verifies its bytes comes to its verdict. Raises StreamCorrupt, and TooLarge as soon as more
    than ``limit_bytes`` would come out; ProgramMissing where zstd data cannot be read at all.
    """
    source = iter(chunks)
    first = b""
    for chunk in source:
        first += chunk
        if len(first) >= DETECT_BYTES:
            break
    kind = detect(first)
    pieces = _pieces(first, source)
    if kind != "none":
        pieces = _decoded(pieces, kind, location)
    passed_bytes = 0
    for piece in pieces:
        passed_bytes += len(piece)
        if passed_bytes > limit_bytes:
            raise TooLarge(
                f"{location}: it has more than {limit_bytes} bytes uncompressed, which is the limit",
                hint="raise `limits: {layer-bytes: …}` in the manifest, or give --limit layer-bytes=…, if you trust it",
            )
        yield piece


def _pieces(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    chunk: bytes | None = first
    while chunk is not None:
        if len(chunk) <= CHUNK_BYTES:
            if chunk:
                yield chunk
        else:
            view = memoryview(chunk)
            for start in range(0, len(view), CHUNK_BYTES):
                yield bytes(view[start : start + CHUNK_BYTES])
        chunk = next(rest, None)


def _decoded(pieces: Iterator[bytes], kind: str, location: str) -> Iterator[bytes]:
    new = _DECODERS[kind]()
    try:
        yield from _members(pieces, new, kind)
    except _Damage as error:
        # When the stored bytes are not what the source promised, that is the better message: let it be said.
        for _ in pieces:
            pass
        raise StreamCorrupt(
            f"{location}: its {kind} data is corrupt: {error}", hint="fetch it again; if it stays so, it was made so"
        ) from error


def _members(pieces: Iterator[bytes], new: Callable[[], Decoder], kind: str) -> Iterator[bytes]:
    decoder: Decoder | None = None
    padding = 0
    for data in _feed(pieces):
        while data or (decoder is not None and not decoder.needs_input):
            if decoder is None:
                if kind == "xz":
                    data, zeros = _strip_padding(data)
                    padding += zeros
                    if not data:
                        break
                    if padding % _XZ_PADDING:
                        raise _Damage("the padding after a stream is no multiple of four")
                decoder = new()
            piece = _decompress(decoder, data)
            data = b""
            if piece:
                yield piece
            if decoder.eof:
                data, decoder, padding = decoder.unused_data, None, 0
    if decoder is not None:
        raise _Damage("it is cut off")
    if padding % _XZ_PADDING:
        raise _Damage("the padding after a stream is no multiple of four")


def _decompress(decoder: Decoder, data: bytes) -> bytes:
    try:
        return decoder.decompress(data, CHUNK_BYTES)
    except zlib.error as error:
        # "Error -3 while decompressing data: incorrect header check"
        raise _Damage(str(error).rpartition(": ")[2]) from error
    except (lzma.LZMAError, zstd.ZstdCorrupt, OSError, ValueError) as error:  # bz2 says OSError
        raise _Damage(str(error) or type(error).__name__) from error


def _feed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), _FEED_BYTES):
            yield bytes(view[start : start + _FEED_BYTES])


def _strip_padding(data: bytes) -> tuple[bytes, int]:
    stripped = data.lstrip(b"\0")
    return stripped, len(data) - len(stripped)


class _Damage(Exception):
    """What is wrong with the data; becomes a StreamCorrupt."""


class _Gzip:
    """One gzip member, with the interface of the other decoders."""

    __slots__ = ("_stream", "_tail", "needs_input")

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._tail = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._stream.decompress(self._tail + data if self._tail else data, max_length)
        self._tail = self._stream.unconsumed_tail
        # A full piece may leave output inside zlib although all input is consumed.
        self.needs_input = not self._tail and len(piece) < max_length
        return piece


def _xz() -> Decoder:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)


# Each gives a factory that is called for every member of one stream.
_DECODERS: dict[str, Callable[[], Callable[[], Decoder]]] = {
    "gzip": lambda: _Gzip,
    "bzip2": lambda: bz2.BZ2Decompressor,
    "xz": lambda: _xz,
    "zstd": zstd.decoders,
}
