"""tar-split data: how the engine gives back a layer's tar, byte for byte, from an unpacked tree.

One JSON object a line, in the tar's order. Type 2 is a segment, raw bytes that belong to no file
(headers, padding, whatever follows the end); type 1 names a file whose content comes next, with its size
and CRC-64. Written as gzip with stored blocks, so that the bytes depend on no zlib.

Source of the format: vbatts/tar-split, tar/storage/entry.go and tar/asm/disassemble.go; JSON escaping as
Go's encoding/json does it.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from shiplap.core.entries import printable
from shiplap.core.errors import Refused
from shiplap.core.layer.crc64 import Crc64

# Trailing bytes of a tar are cut into segments of this size, as the engine's own writer does.
SEGMENT_BYTES = 1 << 20
_STORED_BLOCK_BYTES = 65535
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, unknown system
_PLAIN_NAME = re.compile(rb"[ !#-%'-;=?-\[\]-~]*")
_LINE_LIMIT_BYTES = 16 << 20
_ESCAPES = {
    0x22: '\\"',
    0x5C: "\\\\",
    0x0A: "\\n",
    0x0D: "\\r",
    0x09: "\\t",
    0x3C: "\\u003c",
    0x3E: "\\u003e",
    0x26: "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
    **{code: f"\\u{code:04x}" for code in range(0x20) if code not in (0x0A, 0x0D, 0x09)},
}


class TarSplitCorrupt(Refused):
    """tar-split data that no engine could read, or that does not fit its files."""


class StoredGzip:
    """gzip without compression: the same bytes from every zlib. Writes to ``write``."""

    __slots__ = ("_buffer", "_crc", "_length", "_write", "written_bytes")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._buffer = bytearray()
        self._crc = 0
        self._length = 0
        self.written_bytes = len(_GZIP_HEADER)
        write(_GZIP_HEADER)

    def write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
        self._buffer += data
        if len(self._buffer) >= 8 * _STORED_BLOCK_BYTES:
            self._drain(final=False)

    def close(self) -> None:
        self._drain(final=True)
        self._emit(struct.pack("<II", self._crc, self._length & 0xFFFFFFFF))

    def _drain(self, *, final: bool) -> None:
        buffer, self._buffer = bytes(self._buffer), bytearray()
        position = 0
        # A full block is held back unless something follows it, so that the last one can say so.
        while len(buffer) - position > _STORED_BLOCK_BYTES:
            self._block(buffer[position : position + _STORED_BLOCK_BYTES], last=False)
            position += _STORED_BLOCK_BYTES
        if final:
            self._block(buffer[position:], last=True)
        else:
            self._buffer += buffer[position:]

    def _block(self, data: bytes, *, last: bool) -> None:
        self._emit(struct.pack("<BHH", last, len(data), len(data) ^ 0xFFFF) + data)

    def _emit(self, data: bytes) -> None:
        self.written_bytes += len(data)
        self._write(data)


def _name_field(name: bytes) -> bytes:
    if not name:
        return b""
    if _PLAIN_NAME.fullmatch(name):
        return b'"name":"%s",' % name
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return b'"name_raw":"%s",' % b2a_base64(name, newline=False)
    return b'"name":"%s",' % text.translate(_ESCAPES).encode()


class TarSplitWriter:
    """Writes the lines; positions count up from 0. ``write`` gets the uncompressed JSON."""

    __slots__ = ("_position", "_write")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._position = 0

    def segment(self, data: bytes) -> None:
        """Raw bytes that belong to no file; nothing is written for none."""
        for start in range(0, len(data), SEGMENT_BYTES):
            piece = data[start : start + SEGMENT_BYTES]
            self._write(b'{"type":2,"payload":"%s","position":%d}\n' % (b2a_base64(piece, newline=False), self._position))
            self._position += 1

    def file(self, name: bytes, size_bytes: int, checksum: bytes) -> None:
        """A file's content comes here; ``checksum`` is its CRC-64 (8 bytes), unused when it is empty."""
        field = _name_field(name)
        if size_bytes:
            self._write(
                b'{"type":1,%s"size":%d,"payload":"%s","position":%d}\n'
                % (field, size_bytes, b2a_base64(checksum, newline=False), self._position)
            )
        else:
            self._write(b'{"type":1,%s"payload":null,"position":%d}\n' % (field, self._position))
        self._position += 1


@dataclass(frozen=True, slots=True)
class Segment:
    """Raw bytes of the tar."""

    data: bytes


@dataclass(frozen=True, slots=True)
class FilePart:
    """The content of the file ``name`` (as the tar spells it), with its size and CRC-64."""

    name: bytes
    size_bytes: int
    checksum: bytes


def read_parts(chunks: Iterable[bytes], *, what: str) -> Iterator[Segment | FilePart]:
    """Parts of gzipped tar-split data in the tar's order; raises TarSplitCorrupt. ``what`` names it."""
    for expected, line in enumerate(_lines(chunks, what)):
        try:
            value = json.loads(line)
            part = _part(value)
            position = value["position"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TarSplitCorrupt(f"{what}: line {expected + 1} is not a tar-split entry: {error}") from error
        if position != expected:
            raise TarSplitCorrupt(f"{what}: entry {expected} has position {position!r}")
        yield part


def _part(value: Any) -> Segment | FilePart:
    kind = value["type"]
    payload = value["payload"]
    data = base64.b64decode(payload, validate=True) if payload else b""
    if kind == 2:
        return Segment(data)
    if kind != 1:
        raise ValueError(f"type {kind!r}")
    name = base64.b64decode(value["name_raw"], validate=True) if value.get("name_raw") else value.get("name", "").encode()
    size = value.get("size", 0)
    if type(size) is not int or size < 0 or (size and len(data) != 8):
        raise ValueError(f"size {size!r}")
    return FilePart(name, size, data)


def _lines(chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
    inflate = zlib.decompressobj(wbits=31)
    rest = b""
    try:
        for chunk in chunks:
            while chunk and not inflate.eof:
                text = inflate.decompress(chunk, SEGMENT_BYTES)
                chunk = inflate.unconsumed_tail
                *whole, rest = (rest + text).split(b"\n")
                if len(rest) > _LINE_LIMIT_BYTES:
                    raise TarSplitCorrupt(f"{what}: a line is longer than {_LINE_LIMIT_BYTES} bytes")
                yield from whole
    except zlib.error as error:
        raise TarSplitCorrupt(f"{what} is not gzip: {error}") from error
    if not inflate.eof or rest:
        raise TarSplitCorrupt(f"{what} is truncated")


def assemble(parts: Iterable[Segment | FilePart], content: Callable[[bytes], Iterable[bytes]], *, what: str) -> Iterator[bytes]:
    """The tar that ``parts`` describe; ``content(name)`` yields a file's bytes.

    Raises TarSplitCorrupt when a file has another size or checksum than the parts say.
    """
    for part in parts:
        if isinstance(part, Segment):
            yield part.data
        elif part.size_bytes:
            checksum, size_bytes = Crc64(), 0
            for piece in content(part.name):
                checksum.update(piece)
                size_bytes += len(piece)
                yield piece
            if size_bytes != part.size_bytes or checksum.digest() != part.checksum:
                raise TarSplitCorrupt(f"{what}: the content of '{printable(part.name)}' does not fit its size and checksum")
