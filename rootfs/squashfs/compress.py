"""The one door to compression of single SquashFS blocks.

Each compressor is one call on a whole block of at most 1 MiB, in a context that belongs to one thread, and
releases the interpreter lock while it works. What comes out depends on library, version, level and block
size alone; ``Compressor.library`` names the first two for the record.

zlib and liblzma come with Python itself (liblzma with nearly every one). For zstd and lz4 the system's own shared libraries are called with
ctypes: every host that has a SquashFS kernel tool, libarchive, systemd or oe-core's, Buildroot's or Debian's
base packages has them, no host has a binding package in common, and Python's own ``compression.zstd`` exists
only from 3.14 on. It is used where the shared library cannot be loaded. docs/squashfs-format.md has the reasons.
"""

from __future__ import annotations

import ctypes
import importlib
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shiplap.core.errors import ProgramMissing
from shiplap.core.imageform import SQUASHFS_LEVELS, Levels

Deflate = Callable[[bytes, int, int], bytes | None]
"""``deflate(data, start, end)``: ``data[start:end]`` compressed, or None where that would not be smaller."""

LEVELS: dict[str, Levels] = {
    "zstd": SQUASHFS_LEVELS["zstd"],
    "gzip": SQUASHFS_LEVELS["gzip"],
    "xz": None,
    "lz4": (9, 0, 12),
    "none": None,
}
"""What the door can do: default, lowest and highest level, or None where there is none. lz4 0 is its fast mode, the others LZ4HC."""

_NOT_A_LEVEL = 0
# xz's own default preset; blocks are too small for a higher one to find more.
_XZ_PRESET = 6
_LZMA_HINT = "in Buildroot set BR2_PACKAGE_HOST_PYTHON3_XZ; elsewhere build Python with liblzma's headers present"
_ZSTD_PACKAGE_HINT = "on Debian: apt-get install libzstd1; in Yocto add zstd-native, in Buildroot host-zstd to the dependencies"
_LZ4_PACKAGE_HINT = "on Debian: apt-get install liblz4-1; in Yocto add lz4-native, in Buildroot host-lz4 to the dependencies"


@dataclass(frozen=True, slots=True)
class Compressor:
    """One compression as an image uses it.

    ``number``: the superblock's. ``options``: the content of the compressor options block, empty where the
    kernel's defaults hold. ``library``: name and version of what does the work.
    """

    name: str
    number: int
    level: int
    options: bytes
    library: str
    new: Callable[[], Deflate]
    """Makes the compressing function of one thread."""

    @property
    def stores(self) -> bool:
        """Whether nothing is compressed at all."""
        return self.name == "none"


def compressor(name: str, level: int | None, block_size_bytes: int) -> Compressor:
    """The compressor ``name`` (a key of LEVELS); the caller has checked the level.

    Raises ProgramMissing naming the package of the shared library that this machine lacks.
    """
    levels = LEVELS[name]
    if level is None:
        level = levels[0] if levels else _NOT_A_LEVEL
    return _MAKERS[name](level, block_size_bytes)


def _none(level: int, block_size_bytes: int) -> Compressor:
    # Every SquashFS names a compressor; gzip is the one that a kernel is most likely to have.
    return Compressor("none", 1, level, b"", "none", lambda: lambda data, start, end: None)


def _gzip(level: int, block_size_bytes: int) -> Compressor:
    def deflate(data: bytes, start: int, end: int) -> bytes | None:
        with memoryview(data) as view:
            out = zlib.compress(view[start:end], level)
        return out if len(out) < end - start else None

    options = b"" if level == 9 else struct.pack("<IHH", level, 15, 0)
    return Compressor("gzip", 1, level, options, f"zlib {zlib.ZLIB_RUNTIME_VERSION}", lambda: deflate)


def _xz(level: int, block_size_bytes: int) -> Compressor:
    try:
        import lzma
    except ImportError:
        raise ProgramMissing("xz blocks cannot be written: this Python was built without its lzma module", hint=_LZMA_HINT) from None
    # Linux allocates a dictionary of the block's size and refuses streams that want more; and it knows only CRC32.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": _XZ_PRESET, "dict_size": block_size_bytes}]

    def deflate(data: bytes, start: int, end: int) -> bytes | None:
        with memoryview(data) as view:
            out = lzma.compress(view[start:end], format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)
        return out if len(out) < end - start else None

    return Compressor("xz", 4, level, b"", f"liblzma {_lzma_version()}", lambda: deflate)


def _lzma_version() -> str:
    """The lzma module does not tell it, but the library that it is linked with does."""
    module: Any = importlib.import_module("_lzma")
    try:
        # A symbol is looked up in the module's own dependencies too; None is the program itself, for a module built in.
        function = ctypes.CDLL(getattr(module, "__file__", None)).lzma_version_string
    except (OSError, AttributeError):
        return "unknown"
    function.restype, function.argtypes = ctypes.c_char_p, ()
    return str(function().decode("ascii", "replace"))


def _load(soname: str, signatures: dict[str, tuple[Any, tuple[Any, ...]]]) -> Any | None:
    """The shared library with its functions declared, or None where it or one of them is missing."""
    try:
        library = ctypes.CDLL(soname)
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError):
        return None
    return library


class _Room:
    """An output buffer that one thread uses again and again."""

    __slots__ = ("address", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self.address: Any = None

    def of(self, size_bytes: int) -> Any:
        if size_bytes > self.size_bytes:
            self.size_bytes = size_bytes
            self.address = (ctypes.c_char * size_bytes)()
        return self.address


def _address(data: bytes) -> int:
    """Where the bytes lie; valid for as long as ``data`` is referenced."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


_ZSTD = {
    "ZSTD_versionString": (ctypes.c_char_p, ()),
    "ZSTD_createCCtx": (ctypes.c_void_p, ()),
    "ZSTD_freeCCtx": (ctypes.c_size_t, (ctypes.c_void_p,)),
    "ZSTD_compressBound": (ctypes.c_size_t, (ctypes.c_size_t,)),
    "ZSTD_compressCCtx": (
        ctypes.c_size_t,
        (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
    ),
    "ZSTD_isError": (ctypes.c_uint, (ctypes.c_size_t,)),
    "ZSTD_getErrorName": (ctypes.c_char_p, (ctypes.c_size_t,)),
}


class _ZstdContext:
    """A compression context of libzstd: about a megabyte that is worth keeping. Frames do not depend on those before them."""

    def __init__(self, library: Any, level: int) -> None:
        self._library = library
        self._level = level
        self._room = _Room()
        self._context = library.ZSTD_createCCtx()
        if not self._context:
            raise MemoryError("ZSTD_createCCtx")

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.ZSTD_freeCCtx(self._context)

    def deflate(self, data: bytes, start: int, end: int) -> bytes | None:
        library, size = self._library, end - start
        # The whole bound, although more than the block's size is of no use: libzstd may act differently when it is short of room.
        bound = library.ZSTD_compressBound(size)
        out = self._room.of(bound)
        done = library.ZSTD_compressCCtx(self._context, out, bound, _address(data) + start, size, self._level)
        if library.ZSTD_isError(done):
            raise RuntimeError(f"ZSTD_compressCCtx: {library.ZSTD_getErrorName(done).decode('ascii', 'replace')}")
        return ctypes.string_at(out, done) if done < size else None


def _zstd(level: int, block_size_bytes: int) -> Compressor:
    options = b"" if level == 15 else struct.pack("<I", level)
    library = _load("libzstd.so.1", _ZSTD)
    if library is not None:
        name = f"libzstd {library.ZSTD_versionString().decode('ascii', 'replace')}"
        return Compressor("zstd", 6, level, options, name, lambda: _ZstdContext(library, level).deflate)
    standard = standard_zstd(level)
    if standard is None:
        raise ProgramMissing(
            "zstd blocks cannot be written: neither libzstd.so.1 nor Python's compression.zstd (3.14) is there", hint=_ZSTD_PACKAGE_HINT
        )
    name, new = standard
    return Compressor("zstd", 6, level, options, name, new)


def standard_zstd(level: int) -> tuple[str, Callable[[], Deflate]] | None:
    """The library's name and the same blocks through Python's own module, or None before 3.14."""
    try:
        zstd: Any = importlib.import_module("compression.zstd")
    except ImportError:
        return None
    parameter = zstd.CompressionParameter
    options = {parameter.compression_level: level, parameter.content_size_flag: 1, parameter.checksum_flag: 0}

    def new() -> Deflate:
        context = zstd.ZstdCompressor(options=options)

        def deflate(data: bytes, start: int, end: int) -> bytes | None:
            # The size first: level and window are tuned to it, as in the one-call function.
            context.set_pledged_input_size(end - start)
            with memoryview(data) as view:
                out: bytes = context.compress(view[start:end], zstd.ZstdCompressor.FLUSH_FRAME)
            return out if len(out) < end - start else None

        return deflate

    return f"libzstd {zstd.zstd_version}", new


_LZ4 = {
    "LZ4_versionString": (ctypes.c_char_p, ()),
    "LZ4_compressBound": (ctypes.c_int, (ctypes.c_int,)),
    "LZ4_compress_default": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)),
    "LZ4_compress_HC": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int)),
}
_LZ4_LEGACY, _LZ4_HC = 1, 1


def _lz4(level: int, block_size_bytes: int) -> Compressor:
    library = _load("liblz4.so.1", _LZ4)
    if library is None:
        raise ProgramMissing("lz4 blocks cannot be written: the library liblz4.so.1 is not installed", hint=_LZ4_PACKAGE_HINT)

    def new() -> Deflate:
        room = _Room()

        def deflate(data: bytes, start: int, end: int) -> bytes | None:
            size = end - start
            bound = library.LZ4_compressBound(size)
            out = room.of(bound)
            if level:
                done = library.LZ4_compress_HC(_address(data) + start, out, size, bound, level)
            else:
                done = library.LZ4_compress_default(_address(data) + start, out, size, bound)
            if done <= 0:
                raise RuntimeError(f"LZ4_compress: {done}")
            return ctypes.string_at(out, done) if done < size else None

        return deflate

    # The one compression whose options block the kernel insists on.
    options = struct.pack("<II", _LZ4_LEGACY, _LZ4_HC if level else 0)
    return Compressor("lz4", 5, level, options, f"liblz4 {library.LZ4_versionString().decode('ascii', 'replace')}", new)


_MAKERS: dict[str, Callable[[int, int], Compressor]] = {"zstd": _zstd, "gzip": _gzip, "xz": _xz, "lz4": _lz4, "none": _none}


class ThreadDeflate(threading.local):
    """``deflate`` for whichever thread asks: each gets a context of its own."""

    def __init__(self, compressor: Compressor) -> None:
        self.deflate: Deflate = compressor.new()
