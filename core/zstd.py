"""Zstandard decoders, from whichever implementation this Python can reach.

Python 3.14 has one in its standard library. Before that it is libzstd itself, loaded with ctypes: as
``libzstd.so.1``, or through libarchive, which is linked with it. All behave alike and are tested against
each other; :mod:`shiplap.core.compression` is the only user.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from shiplap.core.errors import ProgramMissing

WINDOW_LOG_MAX = 27
"""Frames that need more than 128 MiB of memory are refused: libzstd's own default, and the command's."""

_D_WINDOW_LOG_MAX = 100  # ZSTD_d_windowLogMax
_RESET_SESSION = 1  # ZSTD_reset_session_only


class ZstdCorrupt(ValueError):
    """libzstd refused the data."""


def decoders() -> Callable[[], Any]:
    """A factory of frame decoders for one stream (``decompress``, ``eof``, ``needs_input``, ``unused_data``).

    A factory's decoders are used one after the other, never two at a time. Raises ProgramMissing when
    there is no implementation.
    """
    for implementation in (standard_library, libzstd):
        factory = implementation()
        if factory is not None:
            return factory
    raise ProgramMissing(
        "zstd data cannot be read: neither Python's compression.zstd (3.14) nor libzstd.so.1 is there",
        hint="on Debian: apt-get install libzstd1",
    )


def standard_library(module: str = "compression.zstd") -> Callable[[], Any] | None:
    """Decoders of Python's own module, or None before 3.14 (or where it was built without)."""
    try:
        zstd = importlib.import_module(module)
    except ImportError:
        return None
    options = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX}
    return lambda: _Translating(zstd.ZstdDecompressor(options=options), zstd.ZstdError)


def libzstd() -> Callable[[], Any] | None:
    """Decoders of the shared library, or None where it cannot be loaded."""
    library = _library()
    if library is None:
        return None
    context = _Context(library)

    def new() -> _Context:
        context.restart()
        return context

    return new


class _Translating:
    """A standard library decoder whose errors are ours."""

    __slots__ = ("_decoder", "_error")

    def __init__(self, decoder: Any, error: type[Exception]) -> None:
        self._decoder = decoder
        self._error = error

    @property
    def eof(self) -> bool:
        return bool(self._decoder.eof)

    @property
    def needs_input(self) -> bool:
        return bool(self._decoder.needs_input)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._decoder.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return bytes(self._decoder.decompress(data, max_length))
        except self._error as error:
            raise ZstdCorrupt(str(error)) from error


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer, which have the same shape."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))


_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ZSTD_createDCtx": (ctypes.c_void_p, ()),
    "ZSTD_freeDCtx": (ctypes.c_size_t, (ctypes.c_void_p,)),
    "ZSTD_DCtx_reset": (ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_int)),
    "ZSTD_DCtx_setParameter": (ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)),
    "ZSTD_decompressStream": (ctypes.c_size_t, (ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer))),
    "ZSTD_isError": (ctypes.c_uint, (ctypes.c_size_t,)),
    "ZSTD_getErrorName": (ctypes.c_char_p, (ctypes.c_size_t,)),
}


@functools.cache
def _library() -> Any:
    for library in _candidates():
        try:
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(library, name)
                function.restype = result
                function.argtypes = arguments
        except AttributeError:  # older than 1.4, or hidden inside libarchive
            continue
        return library
    return None


def _candidates() -> Iterator[Any]:
    try:
        yield ctypes.CDLL("libzstd.so.1")
    except OSError:
        pass
    try:
        from libarchive import ffi

        # A symbol is looked up in the library's own dependencies too, wherever they were found.
        yield ctypes.CDLL(ffi.libarchive._name)
    except (ImportError, OSError, AttributeError, TypeError):
        pass


class _Context:
    """A libzstd decompression context as a decoder of one frame after the other."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._context = library.ZSTD_createDCtx()
        if not self._context:
            raise MemoryError("ZSTD_createDCtx")
        self._checked(library.ZSTD_DCtx_setParameter(self._context, _D_WINDOW_LOG_MAX, WINDOW_LOG_MAX))
        self._out = ctypes.create_string_buffer(0)
        self.restart()

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.ZSTD_freeDCtx(self._context)

    def restart(self) -> None:
        """Forget the frame before; what it did not use was handed out as ``unused_data``."""
        self._checked(self._library.ZSTD_DCtx_reset(self._context, _RESET_SESSION))
        self._rest = b""
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if len(self._out) < max_length:
            self._out = ctypes.create_string_buffer(max_length)
        data = self._rest + data if self._rest else data
        # `data` stays referenced for as long as libzstd reads it.
        source = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
        target = _Buffer(ctypes.cast(self._out, ctypes.c_void_p), max_length, 0)
        while True:
            before = source.position, target.position
            left = self._checked(self._library.ZSTD_decompressStream(self._context, ctypes.byref(target), ctypes.byref(source)))
            if left == 0:
                self.eof = True
                break
            if target.position == max_length or (source.position, target.position) == before:
                break
        self._rest = data[source.position :]
        if self.eof:
            self.unused_data, self._rest = self._rest, b""
        self.needs_input = not self.eof and not self._rest and target.position < max_length
        return ctypes.string_at(self._out, target.position)

    def _checked(self, result: int) -> int:
        if self._library.ZSTD_isError(result):
            raise ZstdCorrupt(self._library.ZSTD_getErrorName(result).decode("ascii", "replace"))
        return result
