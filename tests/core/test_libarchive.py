"""The boundary to libarchive: exact bytes, exact errors, and nothing of the process touched."""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import locale
import lzma
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shiplap.core import libarchive
from shiplap.core.compression import uncompressed
from shiplap.core.entries import CHUNK_BYTES, Bytes, Entry, Kind
from shiplap.core.errors import OutsideFailure
from shiplap.core.libarchive import LibarchiveError, compression_record, compressor, ustar, versions

ENTRIES = (
    Entry(b"blobs", Kind.DIRECTORY, 0o755, mtime_epoch=1700000000),
    Entry(b"blobs/" + b"a" * 94, Kind.REGULAR, 0o644, mtime_epoch=1700000000, content=Bytes(b"hello")),
    Entry(b"setuid and full", Kind.REGULAR, 0o7777, content=Bytes(bytes(512))),
    Entry(b"empty", Kind.REGULAR, 0, mtime_epoch=(8 << 30) - 1, content=Bytes(b"")),
)
GOLDEN = "2054fa71f8e79dc0de0c86f260e9a51a6a005c6d837f235f7f6c1658e3e1bd49"
_RANDOM = random.Random(1)
_WORDS = [_RANDOM.randbytes(_RANDOM.randrange(1, 9)) for _ in range(1000)]
SOME_TEXT = b" ".join(_WORDS[min(_RANDOM.randrange(1000), _RANDOM.randrange(1000))] for _ in range(200_000))


def ustar_bytes(*entries: Entry) -> bytes:
    pieces: list[bytes] = []
    with ustar(pieces.append) as tar:
        for entry in entries:
            tar.add(entry)
    return b"".join(pieces)


def compressed(name: str, data: bytes, level: int = 0, threads: int = 1) -> bytes:
    pieces: list[bytes] = []
    with compressor(name, level, pieces.append, threads) as stream:
        stream.write(data)
    return b"".join(pieces)


def plain(name: bytes = b"x", **fields: object) -> Entry:
    given: dict[str, object] = {"path": name, "kind": Kind.REGULAR, "mode": 0o644, "content": Bytes(b"data"), **fields}
    return Entry(**given)  # type: ignore[arg-type]


def in_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``program`` in a fresh interpreter that has the same paths."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=False)


# --- ustar ---


def test_the_fixed_entries_give_the_golden_bytes() -> None:
    assert hashlib.sha256(ustar_bytes(*ENTRIES)).hexdigest() == GOLDEN


def test_every_header_field_is_where_posix_puts_it() -> None:
    block = ustar_bytes(ENTRIES[1])[:512]
    assert block[:100] == ENTRIES[1].path
    assert [int(block[start:end].strip(b" \0"), 8) for start, end in ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148))] == [
        0o644, 0, 0, 5, 1700000000,
    ]  # fmt: skip
    assert (block[156:157], block[257:265]) == (b"0", b"ustar\x0000")
    assert block[157:257] == bytes(100)
    assert block[265:329] == bytes(64), "user and group names are empty"
    assert int(block[148:154], 8) == sum(block[:148]) + 8 * 32 + sum(block[156:])


def test_an_archive_ends_with_two_zero_blocks_and_no_padding() -> None:
    assert ustar_bytes() == bytes(1024)
    assert len(ustar_bytes(ENTRIES[1])) == 512 + 512 + 1024


def test_tar_lists_what_was_written() -> None:
    listed = subprocess.run(
        ["tar", "--numeric-owner", "--full-time", "-tvf", "-"],
        input=ustar_bytes(*ENTRIES),
        capture_output=True,
        env={"PATH": os.environ["PATH"], "TZ": "UTC"},
        check=True,
    ).stdout.decode()
    assert [line.split(None, 5) for line in listed.splitlines()] == [
        ["drwxr-xr-x", "0/0", "0", "2023-11-14", "22:13:20", "blobs/"],
        ["-rw-r--r--", "0/0", "5", "2023-11-14", "22:13:20", "blobs/" + "a" * 94],
        ["-rwsrwsrwt", "0/0", "512", "1970-01-01", "00:00:00", "setuid and full"],
        ["----------", "0/0", "0", "2242-03-16", "12:56:31", "empty"],
    ]


def test_nothing_is_held_back_between_two_entries() -> None:
    pieces: list[bytes] = []
    with ustar(pieces.append) as tar:
        tar.add(plain(content=Bytes(b"x" * 513)))
        assert len(b"".join(pieces)) == 512 + 1024
        pieces.append(b"between")
        tar.add(plain())
    assert b"".join(pieces)[1536:1543] == b"between"


def test_a_stream_of_any_length_takes_the_memory_of_one_piece() -> None:
    passed = 0

    def count(piece: bytes) -> None:
        nonlocal passed
        assert len(piece) <= CHUNK_BYTES
        passed += len(piece)

    class Long:
        size_bytes = 64 << 20

        def chunks(self) -> Iterator[bytes]:
            piece = bytes(CHUNK_BYTES)
            return (piece for _ in range(64))

    with ustar(count) as tar:
        tar.add(plain(content=Long()))
        assert os.fstat(tar._sink._memory).st_size <= CHUNK_BYTES
    assert passed == 512 + (64 << 20) + 1024


@pytest.mark.parametrize(
    "entry",
    [
        plain("größe".encode()),
        plain(b"\xff"),
        plain(b"a\0b"),
        plain(b""),
        plain(b"a" * 101),
        plain(b"a" * 100, kind=Kind.DIRECTORY, content=None),
        plain(b"a/"),
        plain(kind=Kind.SYMLINK, content=None, link=b"x"),
        plain(kind=Kind.DIRECTORY),
        plain(content=None),
        plain(uid=1),
        plain(gid=1),
        plain(mtime_nanoseconds=1),
        plain(mtime_epoch=-1),
        plain(mtime_epoch=8 << 30),
        plain(mode=0o10000),
        plain(xattrs=((b"user.x", b"y"),)),
    ],
    ids=lambda entry: repr(entry)[:60],
)
def test_an_entry_that_ustar_cannot_say_exactly_is_no_plain_entry(entry: Entry) -> None:
    with pytest.raises(ValueError, match="not a plain ustar entry"), ustar(lambda piece: None) as tar:
        tar.add(entry)


def test_a_member_of_8_gib_is_no_plain_entry_and_one_byte_less_is() -> None:
    class Huge:
        def __init__(self, size_bytes: int) -> None:
            self.size_bytes = size_bytes

        def chunks(self) -> Iterator[bytes]:
            raise KeyboardInterrupt  # far enough: the header is written

    with pytest.raises(ValueError, match="not a plain"), ustar(lambda piece: None) as tar:
        tar.add(plain(content=Huge(8 << 30)))
    pieces: list[bytes] = []
    with pytest.raises(KeyboardInterrupt), ustar(pieces.append) as tar:
        tar.add(plain(content=Huge((8 << 30) - 1)))
    assert pieces[0][124:136] == b"77777777777 "


@pytest.mark.parametrize("promised", [3, 5, 513])
def test_content_that_is_not_as_long_as_it_promised_is_an_error(promised: int) -> None:
    class Liar:
        size_bytes = promised

        def chunks(self) -> Iterator[bytes]:
            yield b"four"

    with pytest.raises(ValueError, match=f"not the {promised} bytes"), ustar(lambda piece: None) as tar:
        tar.add(plain(content=Liar()))


def test_an_error_of_the_output_comes_out_as_it_is_and_nothing_more_is_written() -> None:
    class DiskFull(Exception):
        pass

    pieces: list[bytes] = []

    def fail(piece: bytes) -> None:
        pieces.append(piece)
        if len(pieces) == 2:
            raise DiskFull

    with pytest.raises(DiskFull), ustar(fail) as tar:
        tar.add(plain(content=Bytes(b"x" * 1000)))
    assert len(pieces) == 2


def test_an_error_of_the_body_ends_the_archive_without_its_end_blocks() -> None:
    pieces: list[bytes] = []
    with pytest.raises(RuntimeError), ustar(pieces.append) as tar:
        tar.add(plain())
        raise RuntimeError
    assert len(b"".join(pieces)) == 1024


def test_no_descriptor_is_left_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    ustar_bytes(*ENTRIES)
    with pytest.raises(RuntimeError), compressor("xz", 0, lambda piece: None) as stream:
        stream.write(b"x")
        raise RuntimeError
    assert sorted(os.listdir("/proc/self/fd")) == before


# --- compressors ---


@pytest.mark.parametrize("name", ["none", "gzip", "zstd", "xz"])
def test_what_a_compressor_writes_our_own_reader_reads(name: str) -> None:
    data = SOME_TEXT + os.urandom(CHUNK_BYTES + 1)
    stream = compressed(name, data)
    assert b"".join(uncompressed([stream], location="test", limit_bytes=1 << 30)) == data
    assert (len(stream) < len(data)) is (name != "none")


@pytest.mark.parametrize(("name", "program"), [("gzip", "gzip"), ("zstd", "zstd"), ("xz", "xz"), ("lz4", "lz4")])
def test_the_reference_program_accepts_the_stream(name: str, program: str) -> None:
    try:
        out = subprocess.run([program, "-dc"], input=compressed(name, SOME_TEXT), capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip(f"{program} is not installed")
    assert out == SOME_TEXT


@pytest.mark.parametrize("name", ["none", "gzip", "zstd", "xz"])
def test_an_empty_stream_compresses_to_something_that_reads_as_empty(name: str) -> None:
    assert b"".join(uncompressed([compressed(name, b"")], location="test", limit_bytes=10)) == b""


def test_an_empty_lz4_stream_is_refused_because_libarchive_would_crash() -> None:
    with pytest.raises(ValueError, match="lz4 cannot compress nothing"), compressor("lz4", 0, lambda piece: None):
        pass


def test_the_gzip_header_has_neither_time_nor_name() -> None:
    assert compressed("gzip", b"x")[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "lz4"])
def test_equal_input_gives_equal_bytes_however_it_is_cut(name: str) -> None:
    pieces: list[bytes] = []
    with compressor(name, 0, pieces.append) as stream:
        for start in range(0, len(SOME_TEXT), 99_991):
            stream.write(SOME_TEXT[start : start + 99_991])
    assert b"".join(pieces) == compressed(name, SOME_TEXT)


@pytest.mark.parametrize(("name", "decompress"), [("gzip", gzip.decompress), ("xz", lzma.decompress)])
def test_the_level_is_honoured(name: str, decompress: Callable[[bytes], bytes]) -> None:
    fast, default, best = (compressed(name, SOME_TEXT, level) for level in (1, 0, 9))
    assert len(fast) > len(best)
    assert default == compressed(name, SOME_TEXT, 6)
    assert decompress(fast) == decompress(best) == SOME_TEXT


def test_zstd_goes_up_to_level_22_and_defaults_to_3() -> None:
    assert len(compressed("zstd", SOME_TEXT, 22)) < len(compressed("zstd", SOME_TEXT, 1))
    assert compressed("zstd", SOME_TEXT, 3) == compressed("zstd", SOME_TEXT)


@pytest.mark.parametrize("name", ["zstd", "xz"])
def test_one_thread_and_several_differ_but_any_two_numbers_of_several_agree(name: str) -> None:
    data = SOME_TEXT * 8  # more than one block for each thread
    several = compressed(name, data, 1, threads=2)
    assert several == compressed(name, data, 1, threads=3)
    assert several != compressed(name, data, 1)


@pytest.mark.parametrize(
    ("name", "level", "threads", "message"),
    [
        ("gzip", 10, 1, "gzip has levels 1 to 9, not 10"),
        ("gzip", -1, 1, "not -1"),
        ("zstd", 23, 1, "levels 1 to 22"),
        ("none", 1, 1, "none has no levels"),
        ("bzip2", 0, 1, "'bzip2' is not one of none, gzip, zstd, xz, lz4"),
        ("gzip", 0, 2, "gzip cannot use 2 threads"),
        ("xz", 0, 0, "xz cannot use 0 threads"),
    ],
)
def test_an_option_that_does_not_exist_is_named(name: str, level: int, threads: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)), compressor(name, level, lambda piece: None, threads):
        pytest.fail("opened")


def test_ctrl_c_during_compression_is_never_lost() -> None:
    """A ctypes callback loses it: the exception is printed, the piece is missing, the stream goes on."""
    noise = os.urandom(CHUNK_BYTES)
    deadline = time.monotonic() + 60
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt), compressor("xz", 9, lambda piece: None) as stream:
            while time.monotonic() < deadline:
                stream.write(noise)
    finally:
        timer.join()


# --- the library itself ---


def test_versions_names_libarchive_and_every_compressor_that_is_linked() -> None:
    found = versions()
    assert list(found) == sorted(found)
    assert {"libarchive", "liblzma", "libzstd", "zlib"} <= set(found)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+\S*", version) for version in found.values())


def test_the_record_of_a_compression_names_all_that_decides_its_bytes() -> None:
    found = versions()
    assert compression_record("zstd", 0) == {
        "compressor": "zstd",
        "level": 3,
        "libarchive": found["libarchive"],
        "library": "libzstd",
        "threads": 1,
        "version": found["libzstd"],
    }
    assert compression_record("none", 0) == {"compressor": "none"}


def test_a_warning_of_libarchive_is_an_error() -> None:
    library = libarchive._library()
    function = library.archive_write_add_filter_grzip  # "using external program" is a warning
    function.argtypes, function.restype, function.errcheck = (ctypes.c_void_p,), ctypes.c_int, libarchive._checked
    archive = library.archive_write_new()
    try:
        with pytest.raises(LibarchiveError, match="grzip") as raised:
            function(archive)
        assert isinstance(raised.value, OutsideFailure)
    finally:
        library.archive_write_free(archive)


def test_every_c_function_that_is_called_is_declared_and_none_besides() -> None:
    source = Path(libarchive.__file__).read_text()
    called = set(re.findall(r"library(?:\(\))?\.archive_(\w+)", source)) | {f"write_add_filter_{name}" for name in libarchive.COMPRESSIONS}
    called |= {f"read_support_filter_{name}" for name in libarchive.READ_FILTERS}
    assert called == set(libarchive._SIGNATURES)


def test_libarchive_c_keeps_its_own_declarations() -> None:
    from libarchive import ffi

    libarchive._library()
    assert ffi.write_header.errcheck is ffi.check_int
    assert ffi.write_header is not libarchive._library().archive_write_header


def test_the_locale_of_the_process_is_not_touched() -> None:
    before = locale.setlocale(locale.LC_ALL)
    ustar_bytes(*ENTRIES)
    compressed("xz", b"x")
    assert locale.setlocale(locale.LC_ALL) == before


def test_nothing_is_loaded_before_an_archive_is_written() -> None:
    done = in_python("import sys, shiplap.core.archive; sys.exit('libarchive' in sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("prelude", "library", "message", "package"),
    [
        ("import sys; sys.modules['libarchive'] = None", "", "libarchive-c", "python3-libarchive-c"),
        ("", "/nonexistent/libarchive.so", "cannot be loaded", "libarchive13"),
        ("", "libc.so.6", "cannot be loaded", "libarchive13"),
    ],
    ids=["no libarchive-c", "no library", "another library"],
)
def test_a_missing_part_is_named_with_its_package(prelude: str, library: str, message: str, package: str) -> None:
    program = f"""{prelude}
from shiplap.core.errors import ProgramMissing
from shiplap.core.libarchive import ustar
try:
    with ustar(print): pass
except ProgramMissing as error:
    print(error.message, error.hint, sep=" | ")
"""
    done = in_python(program, **({"LIBARCHIVE": library} if library else {}))
    assert done.returncode == 0, done.stderr
    assert message in done.stdout and package in done.stdout
