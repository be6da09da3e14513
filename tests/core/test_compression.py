"""Compressed streams: what docker load accepts, nothing else, in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import lzma
import os
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from archives import zstd_stored
from hypothesis import given, settings
from hypothesis import strategies as st
from shiplap.core import compression, libarchive, zstd
from shiplap.core.compression import StreamCorrupt, TooLarge, detect, uncompressed
from shiplap.core.entries import CHUNK_BYTES
from shiplap.core.errors import ProgramMissing, Refused

NO_LIMIT = 1 << 62
SKIPPABLE = b"\x52\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"skipped"
TEXT = b"".join(b"line %d of something that compresses\n" % number for number in range(20_000))


def zstd_compress(data: bytes, level: int = 3) -> bytes:
    out = io.BytesIO()
    with libarchive.compressor("zstd", level, out.write) as compressor:
        compressor.write(data)
    return out.getvalue()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 6, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd_compress,
}
KINDS = sorted(COMPRESS)


def read(data: bytes, *, piece: int = 70_000, limit: int = NO_LIMIT) -> bytes:
    pieces = (data[start : start + piece] for start in range(0, len(data), piece))
    return b"".join(uncompressed(pieces, location="a blob", limit_bytes=limit))


# --- what is read


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", b"x", TEXT, os.urandom(300_000) + bytes(3_000_000)], ids=["empty", "byte", "text", "mixed"])
def test_what_was_compressed_comes_out_again(kind: str, data: bytes) -> None:
    stored = COMPRESS[kind](data)
    assert detect(stored) == kind
    assert read(stored) == data


def test_uncompressed_data_passes_unchanged() -> None:
    assert detect(TEXT) == detect(b"") == detect(b"\x1f") == "none"
    assert read(TEXT) == TEXT
    assert read(b"") == b""
    assert read(b"\x1f\x8b", piece=1) == b"\x1f\x8b"


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_told_although_the_first_bytes_come_one_by_one(kind: str) -> None:
    assert read(COMPRESS[kind](b"abc"), piece=1) == b"abc"


@pytest.mark.parametrize("kind", KINDS)
def test_several_members_after_each_other_are_one_stream(kind: str) -> None:
    compress = COMPRESS[kind]
    assert read(compress(TEXT) + compress(b"") + compress(b"more")) == TEXT + b"more"


def test_skippable_zstd_frames_are_skipped_wherever_they_are() -> None:
    frame = zstd_compress(TEXT)
    assert detect(SKIPPABLE + frame) == "zstd"
    assert read(SKIPPABLE + frame + SKIPPABLE + frame + SKIPPABLE) == TEXT * 2
    assert read(SKIPPABLE) == b""


def test_a_zstd_frame_of_raw_blocks_is_read() -> None:
    assert read(zstd_stored(TEXT)) == TEXT
    assert read(zstd_stored(b"")) == b""


def test_output_that_waits_inside_the_decoder_at_the_end_of_input_comes_out() -> None:
    lengths = [1, *[128 << 10] * 8]  # the last block does not fit into the first piece, and no input is left
    blocks = b"".join((length << 3 | 1 << 1 | (number == 8)).to_bytes(3, "little") + b"x" for number, length in enumerate(lengths))
    assert read(b"\x28\xb5\x2f\xfd\x00\x58" + blocks) == b"x" * sum(lengths)
    for kind in KINDS:
        data = bytes(CHUNK_BYTES + 1)
        assert read(COMPRESS[kind](data)) == data


def test_a_gzip_member_with_every_optional_header_field_is_read() -> None:
    flags = b"\x1f\x8b\x08\x1e" + bytes(4) + b"\0\x03"
    fields = flags + b"\x04\0EXTR" + b"name\0" + b"comment\0"
    header = fields + (zlib.crc32(fields) & 0xFFFF).to_bytes(2, "little")
    assert read(header + gzip.compress(TEXT, mtime=0)[10:]) == TEXT


@pytest.mark.parametrize("count", [4, 8, 512])
def test_zero_padding_by_fours_may_follow_an_xz_stream(count: int) -> None:
    assert read(lzma.compress(TEXT) + bytes(count) + lzma.compress(b"x") + bytes(count)) == TEXT + b"x"


@pytest.mark.parametrize("kind", [*KINDS, "none"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), pieces=st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_it_does_not_matter_how_the_stream_is_cut_into_chunks(kind: str, seed: int, pieces: list[int]) -> None:
    data = random.Random(seed).randbytes(3000) + TEXT[:7000]
    stored = COMPRESS[kind](data) if kind != "none" else data

    def chunks() -> Iterator[bytes]:
        position = 0
        while position < len(stored):
            for length in pieces:
                yield stored[position : position + length]
                position += length

    assert b"".join(uncompressed(chunks(), location="a blob", limit_bytes=NO_LIMIT)) == data


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_no_piece_is_larger_than_a_chunk(kind: str) -> None:
    data = bytes(5 * CHUNK_BYTES + 1)
    stored = COMPRESS[kind](data) if kind != "none" else data
    sizes = [len(piece) for piece in uncompressed([stored], location="a blob", limit_bytes=NO_LIMIT)]
    assert max(sizes) <= CHUNK_BYTES
    assert min(sizes) > 0
    assert sum(sizes) == len(data)


# --- what is refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_is_cut_off_anywhere_is_refused(kind: str) -> None:
    stored = COMPRESS[kind](b"some text, " * 20)
    for length in range(len(stored) - 1, 0, -1):
        if detect(stored[:length]) == "none":
            break
        with pytest.raises(StreamCorrupt, match="cut off"):
            read(stored[:length])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trailer", [b"garbage!", b"\x01", bytes(4), bytes(512)], ids=["text", "byte", "4 zeros", "512 zeros"])
def test_bytes_behind_the_stream_are_refused_as_docker_load_does(kind: str, trailer: bytes) -> None:
    stored = COMPRESS[kind](TEXT) + trailer
    if kind == "xz" and not any(trailer):
        assert read(stored) == TEXT
        return
    with pytest.raises(StreamCorrupt, match="a blob"):
        read(stored)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_other_padding_after_an_xz_stream_is_refused(count: int) -> None:
    for rest in (b"", lzma.compress(b"x")):
        with pytest.raises(StreamCorrupt, match="padding"):
            read(lzma.compress(TEXT) + bytes(count) + rest)


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_a_wrong_checksum_is_refused(kind: str) -> None:
    stored = bytearray(COMPRESS[kind](TEXT))
    stored[{"gzip": -5, "bzip2": -2, "xz": -20}[kind]] ^= 0x55
    with pytest.raises(StreamCorrupt):
        read(bytes(stored))


def test_a_wrong_checksum_of_a_zstd_frame_is_refused() -> None:
    frame = b"\x28\xb5\x2f\xfd\x24\x00\x01\x00\x00"  # nothing, and a checksum
    assert read(frame + b"\x99\xe9\xd8\x51") == b""  # XXH64 of nothing
    with pytest.raises(StreamCorrupt):
        read(frame + b"\x99\xe9\xd8\x52")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_mutated_stream_is_read_or_refused_and_nothing_else(kind: str, data: st.DataObject) -> None:
    stored = bytearray(COMPRESS[kind](TEXT[:3000]))
    for _ in range(data.draw(st.integers(1, 4))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(stored), limit=1 << 24)
    except Refused as error:
        assert "a blob" in error.message


def test_a_zstd_window_beyond_the_limit_is_refused() -> None:
    window_log_28 = b"\x28\xb5\x2f\xfd\x00" + bytes([(28 - 10) << 3]) + b"\x01\x00\x00"
    window_log_27 = b"\x28\xb5\x2f\xfd\x00" + bytes([(27 - 10) << 3]) + b"\x01\x00\x00"
    assert read(window_log_27) == b""
    with pytest.raises(StreamCorrupt, match="memory"):
        read(window_log_28)


def test_an_xz_dictionary_beyond_the_limit_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 << 20}]
    with pytest.raises(StreamCorrupt, match=r"[Mm]emory"):
        read(lzma.compress(b"x", filters=filters))


# --- limits


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_more_than_the_limit_is_refused_naming_the_limit_and_how_to_raise_it(kind: str) -> None:
    data = bytes(3 * CHUNK_BYTES)
    stored = COMPRESS[kind](data) if kind != "none" else data
    assert read(stored, limit=len(data)) == data
    with pytest.raises(TooLarge, match=rf"a blob.*{len(data) - 1} bytes") as caught:
        read(stored, limit=len(data) - 1)
    assert caught.value.hint is not None
    assert "layer-bytes" in caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_stopped_at_the_limit_without_filling_memory(kind: str) -> None:
    stored = COMPRESS[kind](bytes(64 << 20))
    tracemalloc.start()
    try:
        passed = 0
        with pytest.raises(TooLarge):
            for piece in uncompressed([stored], location="a blob", limit_bytes=40 << 20):
                passed += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert passed <= 40 << 20
    assert peak < 16 << 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_nothing_but_empty_members_is_read_in_time(kind: str) -> None:
    """A decoder copies what follows its member."""
    stored = COMPRESS[kind](b"")
    begin = time.perf_counter()
    assert read(stored * (2_000_000 // len(stored)), piece=CHUNK_BYTES) == b""
    assert time.perf_counter() - begin < 20


# --- the source's own errors


class SourceFailed(Exception):
    pass


def test_an_error_of_the_source_passes_through_unchanged() -> None:
    def chunks() -> Iterator[bytes]:
        yield gzip.compress(TEXT)[:100]
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        list(uncompressed(chunks(), location="a blob", limit_bytes=NO_LIMIT))


def test_the_source_gets_its_say_before_data_is_called_corrupt() -> None:
    """A blob with the wrong digest is better called that than "incorrect data check"."""

    def chunks() -> Iterator[bytes]:
        yield gzip.compress(TEXT)[:-8] + b"damaged."
        yield b"the rest"
        raise SourceFailed

    with pytest.raises(SourceFailed):
        list(uncompressed(chunks(), location="a blob", limit_bytes=NO_LIMIT))


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_every_chunk_of_the_source_is_consumed(kind: str) -> None:
    stored = COMPRESS[kind](TEXT) if kind != "none" else TEXT
    finished = []

    def chunks() -> Iterator[bytes]:
        yield stored
        finished.append(True)

    assert b"".join(uncompressed(chunks(), location="a blob", limit_bytes=NO_LIMIT)) == TEXT
    assert finished


# --- zstd implementations


def implementations() -> dict[str, Callable[[], Callable[[], Any] | None]]:
    """Every way to decode zstd that this interpreter has; `backports.zstd` is Python 3.14's module for older ones."""
    found: dict[str, Callable[[], Callable[[], Any] | None]] = {"libzstd": zstd.libzstd}
    for module in ("compression.zstd", "backports.zstd"):
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is not None and importlib.util.find_spec(module) is not None:
            found[module] = lambda module=module: zstd.standard_library(module)
    return found


STREAMS = {
    "plain": zstd_compress(TEXT),
    "high": zstd_compress(TEXT * 30, 19),
    "frames": zstd_compress(TEXT) * 3,
    "skippable": SKIPPABLE + zstd_compress(TEXT) + SKIPPABLE,
    "raw": zstd_stored(TEXT[:150_000]),
    "empty": zstd_compress(b""),
    "cut": zstd_compress(TEXT)[:-1],
    "cut skippable": SKIPPABLE[:-1],
    "garbage": zstd_compress(TEXT) + b"garbage",
    "zeros": zstd_compress(TEXT) + bytes(8),
    "large window": b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00",
}


@pytest.mark.parametrize("name", STREAMS)
def test_every_zstd_implementation_says_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, bytes | str] = {}
    for implementation, decoders in implementations().items():
        if decoders() is None:
            continue
        monkeypatch.setitem(compression._DECODERS, "zstd", decoders)
        for piece in (1, 1000, 1 << 20):
            try:
                said[f"{implementation} {piece}"] = read(STREAMS[name], piece=piece)
            except StreamCorrupt:
                said[f"{implementation} {piece}"] = "refused"
    assert said
    assert len(set(said.values())) == 1, {key: value[:20] for key, value in said.items()}


def test_libzstd_is_found_through_libarchive_where_it_has_no_path_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems without a global library path."""
    load = zstd.ctypes.CDLL

    def without_libzstd(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "libzstd.so.1":
            raise OSError("not here")
        return load(name, *arguments, **keywords)

    monkeypatch.setattr(zstd.ctypes, "CDLL", without_libzstd)
    monkeypatch.setattr(zstd, "_library", zstd._library.__wrapped__)
    decoders = zstd.libzstd()
    assert decoders is not None
    monkeypatch.setitem(compression._DECODERS, "zstd", lambda: decoders)
    assert read(zstd_compress(TEXT)) == TEXT


def test_without_any_zstd_implementation_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "standard_library", lambda: None)
    monkeypatch.setattr(zstd, "libzstd", lambda: None)
    with pytest.raises(ProgramMissing, match="zstd") as caught:
        read(zstd_compress(TEXT))
    assert "libzstd1" in str(caught.value.hint)
