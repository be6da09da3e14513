"""The one boundary to libarchive, through libarchive-c.

Only archives and compressed outputs come here; nothing else of shiplap loads the library. What the
boundary guarantees, and why it is built this way:

- **No Python code runs inside libarchive.** libarchive writes into a memory file that we empty after each
  call. A ctypes callback would be the obvious way, but an exception that a signal handler raises at its
  first instruction is printed and dropped by ctypes, and libarchive goes on as if the piece had been
  written: measured with xz, one Ctrl-C gave a damaged file, no error and exit code 0.
- **The output decides nothing.** libarchive never sees the file or pipe, blocking is off and the last
  block is not padded, so a file and a pipe get equal bytes, and nothing is held back between two entries.
- **The locale is neither read nor changed.** libarchive converts names in the process's locale, and
  crashes where it cannot (pax writer, non-ASCII name, ``LC_ALL=C``); setting the locale would change the
  whole process, for every thread. Every name that passes is ASCII, which no conversion touches; others
  are a ValueError. Non-ASCII names are the business of :mod:`shiplap.core.tar.records`.
- **A warning is an error**: ARCHIVE_WARN means that the bytes are not what was asked for.
- libarchive-c finds and loads the library (the environment's ``LIBARCHIVE`` names another one). The
  functions are declared here, on a view of our own: its declarations, which log warnings, stay as they are
  for whoever else uses it in this process.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shiplap.core.entries import CHUNK_BYTES, Entry, Kind, printable
from shiplap.core.errors import OutsideFailure, ProgramMissing

USTAR_MEMBER_LIMIT_BYTES = 8 << 30
"""A ustar header has eleven octal digits for the size: every member is smaller than this."""
USTAR_TIME_LIMIT_EPOCH = 8 << 30
"""Likewise for the time (the year 2242)."""

_USTAR_NAME_BYTES = 100  # beyond it writers differ in where they split prefix and name
_FILE_TYPE = {Kind.REGULAR: 0o100000, Kind.DIRECTORY: 0o040000}

_TIME = ctypes.c_int64 if sysconfig.get_config_var("SIZEOF_TIME_T") == 8 else ctypes.c_long
_POINTER = ctypes.c_void_p
_STRING = ctypes.c_char_p
_INT = ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "version_number": (_INT, ()),
    "version_details": (_STRING, ()),
    "error_string": (_STRING, (_POINTER,)),
    "entry_new": (_POINTER, ()),
    "entry_free": (None, (_POINTER,)),
    "entry_copy_pathname": (None, (_POINTER, _STRING)),
    "entry_set_filetype": (None, (_POINTER, ctypes.c_uint)),
    "entry_set_perm": (None, (_POINTER, ctypes.c_uint)),
    "entry_set_uid": (None, (_POINTER, ctypes.c_int64)),
    "entry_set_gid": (None, (_POINTER, ctypes.c_int64)),
    "entry_set_size": (None, (_POINTER, ctypes.c_int64)),
    "entry_set_mtime": (None, (_POINTER, _TIME, ctypes.c_long)),
    "read_new": (_POINTER, ()),
    "read_free": (_INT, (_POINTER,)),
    "read_support_format_raw": (_INT, (_POINTER,)),
    "read_support_filter_lz4": (_INT, (_POINTER,)),
    "read_support_filter_lzip": (_INT, (_POINTER,)),
    "read_support_filter_lzma": (_INT, (_POINTER,)),
    "read_support_filter_compress": (_INT, (_POINTER,)),
    "read_open_fd": (_INT, (_POINTER, _INT, ctypes.c_size_t)),
    "read_next_header": (_INT, (_POINTER, ctypes.POINTER(_POINTER))),
    "read_data": (ctypes.c_ssize_t, (_POINTER, _POINTER, ctypes.c_size_t)),
    "write_new": (_POINTER, ()),
    "write_free": (_INT, (_POINTER,)),
    "write_fail": (_INT, (_POINTER,)),
    "write_close": (_INT, (_POINTER,)),
    "write_set_format_ustar": (_INT, (_POINTER,)),
    "write_set_format_raw": (_INT, (_POINTER,)),
    "write_add_filter_none": (_INT, (_POINTER,)),
    "write_add_filter_gzip": (_INT, (_POINTER,)),
    "write_add_filter_zstd": (_INT, (_POINTER,)),
    "write_add_filter_xz": (_INT, (_POINTER,)),
    "write_add_filter_lz4": (_INT, (_POINTER,)),
    "write_set_filter_option": (_INT, (_POINTER, _STRING, _STRING, _STRING)),
    "write_set_bytes_per_block": (_INT, (_POINTER, _INT)),
    "write_set_bytes_in_last_block": (_INT, (_POINTER, _INT)),
    "write_open_fd": (_INT, (_POINTER, _INT)),
    "write_header": (_INT, (_POINTER, _POINTER)),
    "write_data": (ctypes.c_ssize_t, (_POINTER, _POINTER, ctypes.c_size_t)),
    "write_finish_entry": (_INT, (_POINTER,)),
}
# These end an archive that has failed already; what they say is no news.
_UNCHECKED = frozenset(("write_free", "write_fail", "read_free"))

READ_FILTERS = ("lz4", "lzip", "lzma", "compress")
"""What :func:`decompressed` reads."""

# The function that says which build of a library is loaded, not which one libarchive was compiled with.
_VERSION_FUNCTIONS = {
    "liblz4": "LZ4_versionString",
    "liblzma": "lzma_version_string",
    "libzstd": "ZSTD_versionString",
    "zlib": "zlibVersion",
}


class LibarchiveError(OutsideFailure):
    """libarchive failed or warned."""


@dataclass(frozen=True, slots=True)
class Compression:
    """What one compressor of libarchive can do; ``library`` is its key in :func:`versions`."""

    library: str
    suffix: str
    levels: range
    default_level: int
    threaded: bool = False


COMPRESSIONS = {
    "none": Compression("", "", range(0), 0),
    "gzip": Compression("zlib", ".gz", range(1, 10), 6),
    "zstd": Compression("libzstd", ".zst", range(1, 23), 3, threaded=True),
    "xz": Compression("liblzma", ".xz", range(1, 10), 6, threaded=True),
    "lz4": Compression("liblz4", ".lz4", range(1, 10), 1),
}


def _checked(result: int, function: Any, arguments: tuple[Any, ...]) -> int:
    if result >= 0:
        return result
    said = _library().archive_error_string(arguments[0])
    raise LibarchiveError(f"libarchive: {said.decode('utf-8', 'replace') if said else f'{function.__name__} gave {result}'}")


@functools.cache
def _library() -> Any:
    """libarchive with every function that we use declared; raises ProgramMissing."""
    try:
        from libarchive import ffi
    except ImportError as error:
        raise ProgramMissing(
            f"libarchive-c, the Python binding of libarchive, cannot be imported: {error}",
            hint="pip install libarchive-c, or on Debian: apt-get install python3-libarchive-c",
        ) from error
    except (OSError, AttributeError, TypeError) as error:
        # No library found makes libarchive-c load the interpreter itself, where the first symbol is missing.
        raise ProgramMissing(
            f"the library libarchive.so.13 cannot be loaded: {error}",
            hint="on Debian: apt-get install libarchive13 (libarchive13t64 since Debian 13); LIBARCHIVE=FILE names another one",
        ) from error
    loaded = ffi.libarchive
    library = ctypes.CDLL(loaded._name, handle=loaded._handle)
    for name, (result, arguments) in _SIGNATURES.items():
        try:
            function = getattr(library, f"archive_{name}")
        except AttributeError as error:
            raise ProgramMissing(f"{loaded._name} has no archive_{name}", hint="install libarchive 3.4 or newer") from error
        function.restype = result
        function.argtypes = arguments
        if result in (_INT, ctypes.c_ssize_t) and arguments and name not in _UNCHECKED:
            function.errcheck = _checked
    return library


def versions() -> dict[str, str]:
    """Versions of libarchive and of the compressors it is linked with, sorted by name.

    Keys: ``libarchive``, ``liblz4``, ``liblzma``, ``libzstd``, ``zlib``; one that this build lacks is absent.
    """
    library = _library()
    # "libarchive 3.6.2 zlib/1.2.13 liblzma/5.4.1 …"
    details = dict(word.split("/", 1) for word in library.archive_version_details().decode("ascii", "replace").split() if "/" in word)
    number = library.archive_version_number()
    found = {"libarchive": f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"}
    for name, symbol in _VERSION_FUNCTIONS.items():
        if name not in details:
            continue
        try:
            # Found through libarchive's own dependencies; a build that hides them told us what it has.
            function = getattr(library, symbol)
        except AttributeError:
            found[name] = details[name]
            continue
        function.restype = _STRING
        found[name] = function().decode("ascii", "replace")
    return found


class _Sink:
    """An open archive and the memory file that it writes into."""

    def __init__(self, library: Any, archive: int, memory: int, write: Callable[[bytes], object]) -> None:
        self.library = library
        self.archive = archive
        self._memory = memory
        self._write = write

    def header(self, path: bytes, kind: Kind, *, mode: int = 0, size_bytes: int | None = None, mtime_epoch: int = 0) -> None:
        library = self.library
        entry = library.archive_entry_new()
        try:
            library.archive_entry_copy_pathname(entry, path)
            library.archive_entry_set_filetype(entry, _FILE_TYPE[kind])
            library.archive_entry_set_perm(entry, mode)
            library.archive_entry_set_uid(entry, 0)
            library.archive_entry_set_gid(entry, 0)
            library.archive_entry_set_mtime(entry, mtime_epoch, 0)
            if size_bytes is not None:
                library.archive_entry_set_size(entry, size_bytes)
            library.archive_write_header(self.archive, entry)
        finally:
            library.archive_entry_free(entry)
        self.drain()

    def data(self, piece: bytes) -> None:
        taken = self.library.archive_write_data(self.archive, piece, len(piece))
        if taken != len(piece):
            raise LibarchiveError(f"libarchive took {taken} of {len(piece)} bytes")
        self.drain()

    def drain(self) -> None:
        """Hand on what libarchive has written since the last time."""
        count = os.lseek(self._memory, 0, os.SEEK_CUR)
        if not count:
            return
        offset = 0
        while offset < count:
            piece = os.pread(self._memory, min(CHUNK_BYTES, count - offset), offset)
            offset += len(piece)
            self._write(piece)
        # The pages stay for the next round: the memory file is as large as the longest answer to one call.
        os.lseek(self._memory, 0, os.SEEK_SET)


@contextmanager
def _open(configure: Callable[[Any, int], None], write: Callable[[bytes], object]) -> Iterator[_Sink]:
    library = _library()
    archive = library.archive_write_new()
    if archive is None:
        raise MemoryError("archive_write_new")
    memory = os.memfd_create("shiplap-libarchive")
    try:
        configure(library, archive)
        library.archive_write_set_bytes_per_block(archive, 0)
        library.archive_write_set_bytes_in_last_block(archive, 1)
        library.archive_write_open_fd(archive, memory)
        sink = _Sink(library, archive, memory, write)
        yield sink
        library.archive_write_close(archive)
        sink.drain()
    except BaseException:
        library.archive_write_fail(archive)  # or the compressor would now finish what nobody reads
        raise
    finally:
        library.archive_write_free(archive)
        os.close(memory)


class Ustar:
    """A ustar archive of plain entries. Made by :func:`ustar`."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink

    def add(self, entry: Entry) -> None:
        """Write ``entry`` with its content and padding; nothing of it is held back on return.

        Regular files and directories, owned by 0:0, no xattrs, whole seconds; an ASCII path of at most
        100 bytes; size and time below the ``USTAR_…_LIMIT``s. Anything else is a ValueError: it belongs
        into :mod:`shiplap.core.tar.records`.
        """
        _require_plain(entry)
        path = entry.path + b"/" if entry.kind is Kind.DIRECTORY else entry.path
        size_bytes = entry.content.size_bytes if entry.content is not None else 0
        self._sink.header(path, entry.kind, mode=entry.mode, size_bytes=size_bytes, mtime_epoch=entry.mtime_epoch)
        left = size_bytes
        for piece in entry.content.chunks() if entry.content is not None else ():
            left -= len(piece)
            if left < 0:
                break
            self._sink.data(piece)
        if left:
            raise ValueError(f"the content of {printable(entry.path)} is not the {size_bytes} bytes that it promised")
        self._sink.library.archive_write_finish_entry(self._sink.archive)
        self._sink.drain()


def _require_plain(entry: Entry) -> None:
    size_bytes = entry.content.size_bytes if entry.content is not None else 0
    path_bytes = len(entry.path) + (entry.kind is Kind.DIRECTORY)
    plain = (
        entry.kind in _FILE_TYPE
        and (entry.content is not None) == (entry.kind is Kind.REGULAR)
        and (entry.uid, entry.gid, entry.mtime_nanoseconds, entry.link, entry.xattrs) == (0, 0, 0, b"", ())
        and 0 < path_bytes <= _USTAR_NAME_BYTES
        and entry.path.isascii()
        and b"\0" not in entry.path
        and not entry.path.endswith(b"/")
        and 0 <= entry.mode <= 0o7777
        and 0 <= entry.mtime_epoch < USTAR_TIME_LIMIT_EPOCH
        and 0 <= size_bytes < USTAR_MEMBER_LIMIT_BYTES
    )
    if not plain:
        raise ValueError(f"not a plain ustar entry: {entry!r}")


@contextmanager
def ustar(write: Callable[[bytes], object]) -> Iterator[Ustar]:
    """Open a ustar archive that goes to ``write``; leaving the context writes its two zero blocks.

    No padding to a record size, in any case. When the body raises, nothing more is written.
    """

    def configure(library: Any, archive: int) -> None:
        library.archive_write_set_format_ustar(archive)
        library.archive_write_add_filter_none(archive)

    with _open(configure, write) as sink:
        yield Ustar(sink)


class Compressor:
    """A compressed stream. Made by :func:`compressor`."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self.taken_bytes = 0

    def write(self, data: bytes) -> int:
        """Compress ``data``; compressors hold back what they like until the context is left."""
        self.taken_bytes += len(data)
        for start in range(0, len(data), CHUNK_BYTES):
            self._sink.data(data[start : start + CHUNK_BYTES])
        return len(data)


def compression_record(name: str, level: int, threads: int = 1) -> dict[str, str | int]:
    """What record.json says of a compressed output: compressed bytes are promised only together with it."""
    known = _known(name, level, threads)
    if name == "none":
        return {"compressor": "none"}
    found = versions()
    return {
        "compressor": name,
        "level": level or known.default_level,
        "libarchive": found["libarchive"],
        "library": known.library,
        "threads": threads,
        "version": found.get(known.library, "unknown"),
    }


def _known(name: str, level: int, threads: int) -> Compression:
    known = COMPRESSIONS.get(name)
    if known is None:
        raise ValueError(f"{name!r} is not one of {', '.join(COMPRESSIONS)}")
    if level and level not in known.levels:
        levels = f"levels {known.levels[0]} to {known.levels[-1]}" if known.levels else "no levels"
        raise ValueError(f"{name} has {levels}, not {level}")
    if threads < 1 or (threads > 1 and not known.threaded):
        raise ValueError(f"{name} cannot use {threads} threads")
    return known


@contextmanager
def compressor(name: str, level: int, write: Callable[[bytes], object], threads: int = 1) -> Iterator[Compressor]:
    """Compress a byte stream into ``write``.

    ``name``: a key of ``COMPRESSIONS``. ``level``: 0 is the compressor's own default. ``threads``: for zstd
    and xz, one thread and several give different bytes, any two numbers of several equal ones. The gzip
    header has no time and no name. Raises ValueError for a level or name that does not exist and for an
    empty lz4 stream, ProgramMissing where this libarchive was built without the compressor.
    """
    known = _known(name, level, threads)

    def configure(library: Any, archive: int) -> None:
        library.archive_write_set_format_raw(archive)
        try:
            getattr(library, f"archive_write_add_filter_{name}")(archive)
        except LibarchiveError as error:
            # It would start an external program of that name, with bytes and options of its own.
            raise ProgramMissing(
                f"this libarchive ({versions()['libarchive']}) was built without {name}", hint="choose another compression"
            ) from error
        if name == "none":
            return
        module = name.encode()
        library.archive_write_set_filter_option(archive, module, b"compression-level", b"%d" % (level or known.default_level))
        if name == "gzip":
            library.archive_write_set_filter_option(archive, module, b"timestamp", None)
        if threads > 1:
            library.archive_write_set_filter_option(archive, module, b"threads", b"%d" % threads)

    with _open(configure, write) as sink:
        sink.header(b"data", Kind.REGULAR)  # the raw format wants one entry and writes nothing of it
        stream = Compressor(sink)
        yield stream
        if name == "lz4" and not stream.taken_bytes:
            raise ValueError("lz4 cannot compress nothing: libarchive (3.4 to 3.8) ends the process with a segmentation fault")


def decompressed(descriptor: int) -> Iterator[bytes]:
    """The uncompressed bytes of the lz4, lzip, lzma or compress (``.Z``) stream at the file's position, in bounded pieces.

    What :mod:`shiplap.core.compression` reads itself (gzip, bzip2, xz, zstd) is not read here. Raises LibarchiveError,
    ProgramMissing where this build lacks the compression.
    """
    library = _library()
    archive = library.archive_read_new()
    if archive is None:
        raise MemoryError("archive_read_new")
    try:
        for name in READ_FILTERS:
            try:
                getattr(library, f"archive_read_support_filter_{name}")(archive)
            except LibarchiveError as error:
                # It would start an external program of that name.
                raise ProgramMissing(f"this libarchive ({versions()['libarchive']}) was built without {name}") from error
        library.archive_read_support_format_raw(archive)
        library.archive_read_open_fd(archive, descriptor, CHUNK_BYTES)
        entry = _POINTER()
        if library.archive_read_next_header(archive, ctypes.byref(entry)):
            return  # ARCHIVE_EOF: nothing in it
        buffer = ctypes.create_string_buffer(CHUNK_BYTES)
        while count := library.archive_read_data(archive, buffer, CHUNK_BYTES):
            yield buffer.raw[:count]
    finally:
        library.archive_read_free(archive)
