"""The door to compression: blocks that Linux can read, the same from every thread, and a clear word where a library is missing."""

from __future__ import annotations

import ctypes
import lzma
import random
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from shiplap.core.errors import ProgramMissing
from shiplap.rootfs.squashfs import compress
from shiplap.rootfs.squashfs.compress import LEVELS, compressor, standard_zstd
from shiplap.rootfs.squashfs.decompress import inflater

RNG = random.Random(11)
NOISE = RNG.randbytes(1 << 20)
TEXT = b"".join(b"%d bottles of beer on the wall, " % RNG.randrange(10_000) for _ in range(40_000))[: 1 << 20]
MIXED = b"".join(part for at in range(0, 1 << 20, 8192) for part in (NOISE[at : at + 2048], TEXT[at : at + 6144]))
SIZES = (1, 2, 100, 4096, 8192, 131072, 1 << 20)
REAL = [name for name in LEVELS if name != "none"]


@pytest.mark.parametrize("name", REAL)
def test_what_is_compressed_comes_out(name: str) -> None:
    inflate = inflater(name)
    for level in (None, *(LEVELS[name] or ())[1:]):
        for size in SIZES:
            deflate = compressor(name, level, max(4096, size)).new()
            for data in (TEXT, MIXED):
                for start in (0, 3, len(data) - size):
                    packed = deflate(data, start, start + size) if start + size <= len(data) else None
                    if packed is not None:
                        assert len(packed) < size
                        assert inflate(packed, size) == data[start : start + size]


@pytest.mark.parametrize("name", LEVELS)
def test_what_does_not_shrink_is_not_compressed(name: str) -> None:
    deflate = compressor(name, None, 1 << 20).new()
    for size in (1, 4096, 131072):
        assert deflate(NOISE, 5, 5 + size) is None
        assert (deflate(TEXT, 0, size) is None) == (name == "none" or size == 1)


@pytest.mark.parametrize("name", REAL)
def test_a_block_depends_on_no_block_before_it(name: str) -> None:
    for level in {"zstd": (1, 3, 5, 7, 9, 12, 15, 19), "lz4": (0, 3, 9, 12)}.get(name, (None,)):
        made = compressor(name, level, 131072)
        used = made.new()
        order = [(data, at) for data in (TEXT, MIXED, NOISE) for at in range(0, 1 << 20, 131072)]
        RNG.shuffle(order)
        for data, at in order[:8]:
            assert used(data, at, at + 131072) == made.new()(data, at, at + 131072)


@pytest.mark.parametrize("name", REAL)
def test_threads_give_the_same_blocks(name: str) -> None:
    made = compressor(name, None if name != "zstd" else 9, 131072)
    local = compress.ThreadDeflate(made)
    places = list(range(0, 1 << 20, 65536)) * 2
    alone = [local.deflate(MIXED, at, at + 65536) for at in places]
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(lambda at: local.deflate(MIXED, at, at + 65536), places)) == alone


def test_zstd_frames_are_such_as_linux_wants() -> None:
    # The size is told, nothing is checked twice, and the window is never larger than the block: RFC 8878, 3.1.1.1.
    for level in (1, 3, 15, 22):
        for size in (300, 8192, 131072, 1 << 20):
            packed = compressor("zstd", level, size).new()(TEXT, 0, size)
            assert packed is not None
            magic, descriptor = struct.unpack_from("<IB", packed)
            assert magic == 0xFD2FB528
            assert not descriptor & 0x04, "a checksum"
            assert not descriptor & 0x03, "a dictionary"
            if descriptor & 0x20:  # one segment: the window is the content
                length = {0: 1, 1: 2, 2: 4}[descriptor >> 6]
                assert int.from_bytes(packed[5 : 5 + length], "little") + (256 if length == 2 else 0) == size
            else:
                exponent, mantissa = packed[5] >> 3, packed[5] & 7
                assert (1 << (10 + exponent)) * (8 + mantissa) // 8 <= max(size, 8192)
                assert descriptor >> 6, "no size"


def test_xz_streams_are_such_as_linux_wants() -> None:
    for size in (4096, 131072, 1 << 20):
        packed = compressor("xz", None, size).new()(TEXT, 0, size)
        assert packed is not None
        assert packed[:8] == b"\xfd7zXZ\0\0\x01", "CRC32, which is the only check that Linux knows"
        # A block header of 12 bytes: LZMA2 alone, whose dictionary byte stands for at most the block's size.
        assert packed[14:16] == b"\x21\x01"
        bits = packed[16]
        assert (2 | bits & 1) << (bits // 2 + 11) <= max(size, 4096)


def test_gzip_and_lz4_are_what_their_names_say() -> None:
    packed = compressor("gzip", 6, 4096).new()(TEXT, 10, 4000)
    assert packed == zlib.compress(TEXT[10:4000], 6)
    assert compressor("lz4", 0, 4096).new()(TEXT, 0, 4096) != compressor("lz4", None, 4096).new()(TEXT, 0, 4096)


def test_every_compressor_tells_its_library() -> None:
    for name in REAL:
        library, _, version = compressor(name, None, 4096).library.partition(" ")
        assert library in ("libzstd", "zlib", "liblzma", "liblz4")
        assert version[0].isdigit() and "." in version


def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str | None) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    monkeypatch.setattr(compress, "standard_zstd", lambda level: None)
    for name, package in (("zstd", "libzstd1"), ("lz4", "liblz4-1")):
        with pytest.raises(ProgramMissing, match=f"{name} blocks cannot be written") as caught:
            compressor(name, None, 4096)
        assert package in str(caught.value.hint)
    assert compressor("xz", None, 4096).library == "liblzma unknown"
    assert compressor("gzip", None, 4096).new()(TEXT, 0, 4096)


def test_a_python_without_lzma_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # As Buildroot builds its host Python unless it is asked for more.
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(ProgramMissing, match="built without its lzma module") as caught:
        compressor("xz", None, 4096)
    assert "BR2_PACKAGE_HOST_PYTHON3_XZ" in str(caught.value.hint)
    assert compressor("gzip", None, 4096).library


def test_a_library_without_a_function_counts_as_missing() -> None:
    assert compress._load("libc.so.6", {"ZSTD_compressCCtx": (ctypes.c_size_t, ())}) is None
    assert compress._load("libc.so.6", {"strlen": (ctypes.c_size_t, (ctypes.c_char_p,))}) is not None


def test_pythons_own_zstd_gives_the_same_blocks() -> None:
    for level in (1, 3, 7, 12, 15, 19, 22):
        standard = standard_zstd(level)
        if standard is None:
            pytest.skip("this Python has no compression.zstd")
        name, new = standard
        made = compressor("zstd", level, 131072)
        if name != made.library:
            pytest.skip(f"Python was built with {name}, the system has {made.library}")
        ours, theirs = made.new(), new()
        for size in (*SIZES, 131073, 262144):
            for data in (TEXT, MIXED, NOISE):
                assert ours(data, 0, size) == theirs(data, 0, size)


def test_xz_is_read_by_the_standard_library_with_a_dictionary_of_one_block() -> None:
    packed = compressor("xz", None, 131072).new()(TEXT, 0, 131072)
    assert packed is not None
    assert lzma.decompress(packed, memlimit=1 << 20) == TEXT[:131072]
