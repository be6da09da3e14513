"""Decompression of single SquashFS blocks: the whole block is in memory, and its size has a known bound.

Whatever the data says, never more than ``limit_bytes`` of output (and a constant beside it) is allocated.
"""

from __future__ import annotations

import ctypes
import lzma
import threading
import zlib
from collections.abc import Callable
from typing import Any

from shiplap.core import zstd
from shiplap.core.errors import ProgramMissing

Inflate = Callable[[bytes, int], bytes]
"""``inflate(data, limit_bytes)``: the decompressed block; raises BadBlock for damage and for output beyond the limit."""

# The numbers are the superblock's.
COMPRESSORS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

# An xz dictionary is never larger than the largest block (1 MiB); the rest is the decoder's state.
_XZ_MEMORY_BYTES = 16 << 20


class BadBlock(Exception):
    """Data that does not decompress within its bound; the caller knows the place and makes the user's error of it."""


def inflater(compressor: str) -> Inflate:
    """The decompressor of that name; raises ProgramMissing naming the library that this machine lacks."""
    return _INFLATERS[compressor]()


def _complete(data: bytes, eof: bool, limit_bytes: int) -> bytes:
    if len(data) > limit_bytes:
        raise BadBlock(f"it decompresses to more than {limit_bytes} bytes")
    if not eof:
        raise BadBlock("its compressed data is cut short")
    return data


def _gzip(data: bytes, limit_bytes: int) -> bytes:
    # One byte of room beyond the limit lets every honest stream reach its end.
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, limit_bytes + 1)
    except zlib.error as error:
        raise BadBlock(str(error)) from error
    return _complete(out, stream.eof, limit_bytes)


def _lzma(container: int) -> Inflate:
    def inflate(data: bytes, limit_bytes: int) -> bytes:
        stream = lzma.LZMADecompressor(format=container, memlimit=_XZ_MEMORY_BYTES)
        try:
            out = stream.decompress(data, limit_bytes + 1)
        except lzma.LZMAError as error:
            raise BadBlock(str(error)) from error
        return _complete(out, stream.eof, limit_bytes)

    return inflate


def _library(soname: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(soname)
    except OSError:
        return None


def _missing(compressor: str, soname: str, package: str) -> ProgramMissing:
    return ProgramMissing(
        f"the library {soname} is not installed: this image is compressed with {compressor}", hint=f"on Debian: apt-get install {package}"
    )


class _Scratch(threading.local):
    """One output buffer for each thread, so that a block costs one copy and no fresh pages."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.address: Any = None

    def room(self, size_bytes: int) -> Any:
        if self.address is None or len(self.buffer) < size_bytes:
            self.buffer = bytearray(size_bytes)
            self.address = (ctypes.c_char * size_bytes).from_buffer(self.buffer)
        return self.address

    def content(self, size_bytes: int) -> bytes:
        with memoryview(self.buffer) as view:
            return bytes(view[:size_bytes])


class _ZstdDecoders(threading.local):
    """The decoders of core.zstd serve one stream at a time: every thread gets its own."""

    def __init__(self) -> None:
        self.new = zstd.decoders()


def _zstd() -> Inflate:
    decoders = _ZstdDecoders()

    def inflate(data: bytes, limit_bytes: int) -> bytes:
        decoder = decoders.new()
        try:
            out: bytes = decoder.decompress(data, limit_bytes + 1)
        except zstd.ZstdCorrupt as error:
            raise BadBlock(str(error)) from error
        return _complete(out, decoder.eof, limit_bytes)

    return inflate


def _lz4() -> Inflate:
    library = _library("liblz4.so.1")
    if library is None:
        raise _missing("lz4", "liblz4.so.1", "liblz4-1")
    decompress = library.LZ4_decompress_safe
    decompress.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    decompress.restype = ctypes.c_int
    scratch = _Scratch()

    def inflate(data: bytes, limit_bytes: int) -> bytes:
        size = decompress(data, scratch.room(limit_bytes), len(data), limit_bytes)
        if size < 0:
            raise BadBlock("its lz4 data is damaged")
        return scratch.content(size)

    return inflate


def _lzo() -> Inflate:
    library = _library("liblzo2.so.2")
    if library is None:
        raise _missing("lzo", "liblzo2.so.2", "liblzo2-2")
    decompress = library.lzo1x_decompress_safe
    decompress.argtypes = [ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.POINTER(ctypes.c_ulong), ctypes.c_void_p]
    decompress.restype = ctypes.c_int
    scratch = _Scratch()

    def inflate(data: bytes, limit_bytes: int) -> bytes:
        size = ctypes.c_ulong(limit_bytes)
        if decompress(data, len(data), scratch.room(limit_bytes), ctypes.byref(size), None) != 0:
            raise BadBlock("its lzo data is damaged")
        return scratch.content(size.value)

    return inflate


_INFLATERS: dict[str, Callable[[], Inflate]] = {
    "gzip": lambda: _gzip,
    "lzma": lambda: _lzma(lzma.FORMAT_ALONE),
    "lzo": _lzo,
    "xz": lambda: _lzma(lzma.FORMAT_XZ),
    "lz4": _lz4,
    "zstd": _zstd,
}
