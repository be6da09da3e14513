"""The canonical tar writer: what goes in comes out of every reader, and the bytes never change."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memorytar import headers
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.tar.records import END_OF_ARCHIVE, entry_header, write_entry, write_records

TYPEFLAGS = {
    Kind.REGULAR: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
DEVICES = (Kind.CHARACTER, Kind.BLOCK)
LINKS = (Kind.SYMLINK, Kind.HARDLINK)


def tar_of(entries: list[Entry]) -> bytes:
    pieces: list[bytes] = []
    write_records(entries, pieces.append)
    return b"".join(pieces)


def regular(path: bytes, data: bytes = b"", **fields: Any) -> Entry:
    return Entry(path, Kind.REGULAR, fields.pop("mode", 0o644), content=Bytes(data), **fields)


EXTREMES = [
    Entry(b"", Kind.DIRECTORY, 0o755, mtime_epoch=1700000000),
    Entry(b"d", Kind.DIRECTORY, 0o7777, 0o7777777, 0o7777777, 0o77777777777),
    Entry(b"d/" + b"n" * 97, Kind.DIRECTORY, 0o1777),
    Entry(b"d/" + b"n" * 98, Kind.DIRECTORY, 0),
    Entry(b"d/c", Kind.CHARACTER, 0o666, device=(4095, (1 << 20) - 1)),
    Entry(b"d/b", Kind.BLOCK, 0o660, device=(0, 1)),
    Entry(b"d/wh", Kind.CHARACTER, 0, device=(0, 0)),
    Entry(b"d/p", Kind.FIFO, 0o600),
    regular(b"d/e"),
    regular(b"d/f", b"x", uid=0o10000000, gid=(1 << 32) - 2, mtime_epoch=0o100000000000),
    regular(b"d/g", b"x" * 512, mtime_epoch=-5, mtime_nanoseconds=250_000_000),
    regular(b"d/h", b"x" * 513, mtime_epoch=5, mtime_nanoseconds=1),
    regular(b"d/i\xff\n\x01", b"binary name"),
    regular(
        "d/é☃".encode(), b"UTF-8 name", xattrs=((b"security.capability", bytes(20)), (b"user.\xff=", b"a\0b\n=c\xff"), (b"user.empty", b""))
    ),
    regular(b"l/" * 200 + b"f", b"long"),
    Entry(b"s1", Kind.SYMLINK, 0o777, link=b"t" * 100),
    Entry(b"s2", Kind.SYMLINK, 0o777, link=b"/" + b"t" * 100),
    Entry(b"s3/" * 60 + b"l", Kind.SYMLINK, 0o777, link=b"\xfft" * 2000, mtime_nanoseconds=999_999_999),
    Entry(b"h1", Kind.HARDLINK, 0o644, link=b"d/f", device=(1, 2)),
    Entry(b"h2", Kind.HARDLINK, 0o644, link=b"l/" * 200 + b"f"),
]

GOLDEN = "sha256:cd1b3e845108c2440942550c3d84e16cd9c556358e50dd9737795d3f47ef96c0"


def test_the_bytes_never_change() -> None:
    tar = tar_of(EXTREMES)
    assert "sha256:" + hashlib.sha256(tar).hexdigest() == GOLDEN
    assert tar_of(EXTREMES) == tar


PATHS = st.binary(min_size=1, max_size=300).filter(lambda path: b"\0" not in path and not path.endswith(b"/") and not path.startswith(b"/"))
XATTRS = st.dictionaries(
    st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name and b"=" not in name),
    st.binary(min_size=1, max_size=300),
    max_size=4,
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(list(Kind)))
    return Entry(
        draw(PATHS),
        kind,
        draw(st.integers(0, 0o7777)),
        draw(st.integers(0, (1 << 32) - 1)),
        draw(st.integers(0, (1 << 32) - 1)),
        draw(st.integers(-(1 << 62), 1 << 62)),
        draw(st.integers(0, 999_999_999)),
        draw(PATHS) if kind in LINKS else b"",
        (draw(st.integers(0, 4095)), draw(st.integers(0, (1 << 20) - 1))) if kind in DEVICES else (0, 0),
        tuple(sorted(draw(XATTRS).items())),
        Bytes(draw(st.binary(max_size=1200))) if kind is Kind.REGULAR else None,
    )


def assert_read_back(entry: Entry, tar: bytes) -> None:
    (found,) = headers(tar)
    slash = b"/" if entry.kind is Kind.DIRECTORY else b""
    assert (found.name, found.typeflag, found.linkname) == ((entry.path or b".") + slash, TYPEFLAGS[entry.kind], entry.link)
    assert (found.mode, found.uid, found.gid) == (entry.mode, entry.uid, entry.gid)
    assert (found.mtime_epoch, found.mtime_nanoseconds) == (entry.mtime_epoch, entry.mtime_nanoseconds)
    assert (found.devmajor, found.devminor) == (entry.device if entry.kind in DEVICES else (0, 0))
    assert found.xattrs == tuple(pair for pair in entry.xattrs if pair[1])  # Go, and so every engine, drops empty ones
    data = entry.content.data if isinstance(entry.content, Bytes) else b""
    assert tar[found.data_offset : found.data_offset + found.data_bytes] == data
    assert len(tar) == found.data_offset + len(data) + -len(data) % 512 + len(END_OF_ARCHIVE)


@settings(max_examples=300, deadline=None)
@given(entries())
def test_what_goes_in_comes_out_of_our_reader(entry: Entry) -> None:
    assert_read_back(entry, tar_of([entry]))


@pytest.mark.parametrize(
    "entry", [one for one in EXTREMES if b"=" not in b"".join(name for name, _ in one.xattrs)], ids=lambda one: repr(one.path[:20])
)
def test_extreme_fields_come_out_of_our_reader(entry: Entry) -> None:
    assert_read_back(entry, tar_of([entry]))


def test_a_pax_record_counts_the_digits_of_its_own_length() -> None:
    for size in range(1, 1100):
        entry = regular(b"f", xattrs=((b"user.a", b"v" * size),))
        assert_read_back(entry, tar_of([entry]))


def test_headers_are_whole_blocks_with_canonical_fields() -> None:
    for entry in EXTREMES:
        header = entry_header(entry)
        assert len(header) % 512 == 0
        last = header[-512:]
        assert last[257:265] == b"ustar\x0000"
        assert last[265:329] == bytes(64), "user and group names stay empty: tools would look them up on the host"
        assert last[345:512] == bytes(167), "no prefix: there is one way to write a long name"
    assert b"././@PaxHeader\0" in entry_header(EXTREMES[3])


def test_a_short_name_never_ends_with_a_slash_where_pax_has_the_name() -> None:
    long_file = regular(b"x" * 99 + b"/" + b"f" * 10, b"data")
    assert entry_header(long_file)[-512:][:100] == b"x" * 99 + b"\0"


def test_a_symlink_target_over_100_bytes_is_a_gnu_record() -> None:
    header = entry_header(EXTREMES[16])
    assert header[156:157] == b"K" and header[512:613] == b"/" + b"t" * 100
    assert b"linkpath" not in header


@settings(max_examples=60, deadline=None)
@given(st.lists(entries(), max_size=4))
def test_python_reads_what_goes_in(wanted: list[Entry]) -> None:
    # Python cannot hold the rest: its times are floats, its pax values text.
    wanted = [replace(entry, xattrs=(), mtime_epoch=entry.mtime_epoch % (1 << 40), mtime_nanoseconds=0) for entry in wanted]
    with tarfile.open(fileobj=io.BytesIO(tar_of(wanted)), errors="surrogateescape", encoding="utf-8") as tar:
        found = tar.getmembers()
        assert [one.name.encode("utf-8", "surrogateescape") for one in found] == [entry.path.rstrip(b"/") for entry in wanted]
        for one, entry in zip(found, wanted, strict=True):
            assert (one.type, one.mode, one.uid, one.gid, int(one.mtime)) == (
                TYPEFLAGS[entry.kind],
                entry.mode,
                entry.uid,
                entry.gid,
                entry.mtime_epoch,
            )
            assert one.linkname.encode("utf-8", "surrogateescape") == entry.link
            if entry.kind is Kind.REGULAR and isinstance(entry.content, Bytes):
                file = tar.extractfile(one)
                assert file is not None and file.read() == entry.content.data


def listing(*command: str) -> list[list[str]]:
    done = subprocess.run(
        command, input=tar_of(EXTREMES), capture_output=True, check=True, env={"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}
    )
    assert done.stderr == b""
    return [line.split() for line in done.stdout.decode().splitlines()]


def test_gnu_tar_lists_what_goes_in() -> None:
    lines = listing("tar", "--numeric-owner", "--full-time", "--quoting-style=escape", "-tvf", "-")
    assert len(lines) == len(EXTREMES)
    assert lines[0][:2] == ["drwxr-xr-x", "0/0"] and lines[0][-1] == "./"
    assert lines[1][:2] == ["drwsrwsrwt", "2097151/2097151"]
    assert lines[4][2] == "4095,1048575" and lines[6][0] == "c---------"
    assert lines[9][1] == "2097152/4294967294" and lines[9][3] == "2242-03-16"
    assert lines[12][-1] == "d/i\\377\\n\\001"
    assert lines[14][-1] == "l/" * 200 + "f"
    assert lines[16][-3:] == ["s2", "->", "/" + "t" * 100]
    assert lines[17][-1] == "\\377t" * 2000
    assert lines[19][-4:] == ["h2", "link", "to", "l/" * 200 + "f"]


def test_gnu_tar_extracts_a_time_before_1970(tmp_path: Path) -> None:
    tar = tar_of([replace(EXTREMES[10], path=b"f")])
    subprocess.run(["tar", "-xf", "-", "-C", tmp_path], input=tar, check=True, capture_output=True)
    assert (tmp_path / "f").stat().st_mtime_ns == -4_750_000_000


def test_libarchive_s_tar_lists_what_goes_in() -> None:
    libarchive = pytest.importorskip("libarchive")
    with libarchive.memory_reader(tar_of(EXTREMES)) as archive:
        for found, entry in zip(archive, EXTREMES, strict=True):
            assert (found.uid, found.gid) == (entry.uid, entry.gid)
            if entry.mtime_epoch >= 0:  # it takes -4.75 for -3.25
                assert found.mtime == entry.mtime_epoch + entry.mtime_nanoseconds / 1e9
            assert (found.mode & 0o7777, found.size or 0) == (entry.mode, entry.content.size_bytes if entry.content else 0)


@dataclass(frozen=True)
class Lying:
    """Content that states another size than it has."""

    size_bytes: int
    pieces: tuple[bytes, ...]

    def chunks(self) -> Iterator[bytes]:
        yield from self.pieces


@pytest.mark.parametrize(("size_bytes", "pieces"), [(5, (b"1234",)), (5, ()), (5, (b"123456",)), (512, (b"1" * 512, b"2"))])
def test_content_of_another_size_than_stated_is_an_error(size_bytes: int, pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(EOFError, match="bytes off its stated size"):
        write_entry(Entry(b"f", Kind.REGULAR, 0o644, content=Lying(size_bytes, pieces)), lambda data: None)


def test_empty_pieces_change_nothing() -> None:
    plain, gaps = regular(b"f", b"12345"), Entry(b"f", Kind.REGULAR, 0o644, content=Lying(5, (b"", b"123", b"", b"45", b"", b"")))
    assert tar_of([gaps]) == tar_of([plain])


def test_a_small_file_is_one_write() -> None:
    writes: list[bytes] = []
    write_entry(regular(b"f", b"12345"), writes.append)
    assert [len(one) for one in writes] == [1024]


def test_sizes_of_8_gib_and_more_are_pax_records() -> None:
    for size_bytes, pax in ((8**11 - 1, False), (8**11, True), (1 << 60, True)):
        header = entry_header(Entry(b"f", Kind.REGULAR, 0o644, content=Lying(size_bytes, ())))
        assert (b" size=%d\n" % size_bytes in header) == pax
        assert (header[-512:][124:135] == b"%011o" % size_bytes) != pax


def test_only_regular_files_have_content() -> None:
    tar = tar_of([Entry(b"l", Kind.HARDLINK, 0o644, link=b"f", content=Bytes(b"12345"))])
    assert len(tar) == 512 + len(END_OF_ARCHIVE)
