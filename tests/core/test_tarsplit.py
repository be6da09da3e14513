"""tar-split data: every layer's tar comes back, the lines are what Go writes, damage is refused."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layertar import END, build, item, padded, pax_item
from memorytar import as_file, unpacked
from shiplap.core.entries import Content, Entry, FileSlice, Kind
from shiplap.core.errors import Refused
from shiplap.core.layer.crc64 import Crc64
from shiplap.core.layer.rules import clean
from shiplap.core.layer.tarsplit import (
    SEGMENT_BYTES,
    FilePart,
    Segment,
    StoredGzip,
    TarSplitCorrupt,
    TarSplitWriter,
    assemble,
    read_parts,
)
from shiplap.core.layer.unpack import write_tar_split


def stored_gzip(*pieces: bytes) -> bytes:
    found: list[bytes] = []
    file = StoredGzip(found.append)
    for piece in pieces:
        file.write(piece)
    file.close()
    assert file.written_bytes == sum(map(len, found))
    return b"".join(found)


def lines_of(*, segments: Iterable[bytes] = (), files: Iterable[tuple[bytes, int, bytes]] = ()) -> list[bytes]:
    found: list[bytes] = []
    writer = TarSplitWriter(found.append)
    for segment in segments:
        writer.segment(segment)
    for file in files:
        writer.file(*file)
    return found


def parts_of(data: bytes) -> list[Segment | FilePart]:
    return list(read_parts([data], what="data"))


def crc(data: bytes) -> bytes:
    checksum = Crc64()
    checksum.update(data)
    return checksum.digest()


# --- round trip

NAMES = st.sampled_from(
    ["a", "b", "d/a", "d/b", "d/e/c", "/a", "./b", "/d/a", "ln/a", "ln/z", "up/a", "d", "/d", "ln", "/ln", "é", "x/../b", "a/"]
)
BINARY = st.sampled_from([b"\xff\xfe", b"d/\xff", b"new\nline", b'd/<&>"\\\x7f\x01'])
DATA = st.one_of(st.binary(max_size=40), st.sampled_from([b"x" * 511, b"x" * 512, b"x" * 513, b"y" * 70_000]))
ITEMS = st.one_of(
    st.builds(lambda name, data: item(name, data=data), st.one_of(NAMES, BINARY), DATA),
    st.builds(lambda name: item(name, type="5"), NAMES),
    st.builds(
        lambda name, target: item(name, type="2", linkname=target),
        st.sampled_from(["ln", "up", "s"]),
        st.sampled_from(["d", "/d", "a", "d/e"]),
    ),
    st.builds(lambda name, target: item(name, type="1", linkname=target), NAMES, NAMES),
    st.builds(lambda name, data: item(name, data=data), st.sampled_from([".wh.a", "d/.wh.q", "d/.wh..wh..opq", "./"]), DATA),
    st.builds(lambda comment: pax_item({"comment": comment}, type="g", name="g" + comment), st.text("abc", max_size=3)),
    st.builds(lambda name, data: item(name, data=data, gnu_long=True), NAMES, DATA),
    st.builds(lambda name: item(name, data=b"odd", padding=b"P" * 509), NAMES),
)
TAILS = st.sampled_from(
    [END, b"", bytes(512), END + bytes(9000), END + b"junk" * 30, END + padded(b"z" * 700) + b"odd", END + b"\1" * SEGMENT_BYTES * 2]
)


def acceptable(items: list[Any]) -> list[Any]:
    """``items`` without those at which the rules stop."""
    kept: list[Any] = []
    for one in items:
        with as_file(build([*kept, one])) as file:
            try:
                unpacked(file)
            except Refused:
                continue
        kept.append(one)
    return kept


def contents(entries: Iterable[Entry]) -> dict[bytes, Content]:
    found: dict[bytes, Content] = {}
    for entry in entries:
        if entry.kind is Kind.HARDLINK and entry.link in found:
            found[entry.path] = found[entry.link]
        elif entry.content is not None:
            found[entry.path] = entry.content
    return found


def assembled(file: FileSlice) -> tuple[bytes, bytes]:
    """The tar that comes back from tree and tar-split data, and the data."""
    tree, outline = unpacked(file)
    pieces: list[bytes] = []
    compressed = StoredGzip(pieces.append)
    write_tar_split(file, outline, TarSplitWriter(compressed.write))
    compressed.close()
    data = b"".join(pieces)
    by_path = contents(tree.stream(b"", file))

    def content(name: bytes) -> Iterator[bytes]:
        # As the engine looks a name up: cleaned, from outside, with no symbolic link of the layer in its way.
        return by_path[clean(name.lstrip(b"/"))].chunks()

    return b"".join(assemble(read_parts([data], what="data"), content, what="layer")), data


@settings(max_examples=150, deadline=None)
@given(st.lists(ITEMS, max_size=9), TAILS)
def test_every_layer_s_tar_comes_back(items: list[Any], tail: bytes) -> None:
    tar = build(acceptable(items), end=False) + tail
    with as_file(tar, offset=77) as file:
        back, data = assembled(file)
    assert back == tar
    positions = [json.loads(line)["position"] for line in gzip.decompress(data).splitlines()]
    assert positions == list(range(len(positions)))


HIDDEN = {
    "through a symbolic link": [item("d", type="5"), item("ln", type="2", linkname="d"), item("ln/f", data=b"hidden")],
    "under a whiteout": [item(".wh.f", data=b"hidden")],
    "under an opaque marker": [item("d", type="5"), item("d/.wh..wh..opq", data=b"hidden")],
    "under the root's name": [item(".", data=b"hidden")],
    "replaced by another spelling": [item("/f", data=b"hidden"), item("f", data=b"shown")],
    "in a directory that was replaced": [item("/x/f", data=b"hidden"), item("x", data=b"shown")],
    "linked before it was replaced": [item("/o", data=b"hidden"), item("l", type="1", linkname="o"), item("o", data=b"shown")],
}


@pytest.mark.parametrize("case", HIDDEN)
def test_content_that_lies_under_no_name_of_its_own_travels_in_the_data(case: str) -> None:
    tar = build(HIDDEN[case])
    with as_file(tar) as file:
        back, data = assembled(file)
    assert back == tar
    parts = parts_of(data)
    assert b"hidden" in b"".join(part.data for part in parts if isinstance(part, Segment))
    assert b"shown" not in b"".join(part.data for part in parts if isinstance(part, Segment))


def test_empty_files_and_links_are_named_too() -> None:
    with as_file(build([item("d", type="5"), item("d/e"), item("l", type="1", linkname="d/e")])) as file:
        parts = parts_of(assembled(file)[1])
    assert [part.name for part in parts if isinstance(part, FilePart)] == [b"d", b"d/e", b"l"]


def test_what_lies_behind_the_end_is_cut_into_segments_of_a_mebibyte() -> None:
    with as_file(END + b"z" * (2 * SEGMENT_BYTES + 5)) as file:
        parts = parts_of(assembled(file)[1])
    assert [len(part.data) for part in parts if isinstance(part, Segment)] == [SEGMENT_BYTES, SEGMENT_BYTES, 5 + 1024]


def test_writing_stops_when_it_is_cancelled() -> None:
    with as_file(build([item("f", data=b"1"), item("g", data=b"2")])) as file:
        found: list[bytes] = []
        write_tar_split(file, unpacked(file)[1], TarSplitWriter(found.append), cancelled=lambda: bool(found))
    assert len(found) == 2  # the first header and its file


def test_writing_stops_within_a_large_file_when_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Counting(Crc64):
        def update(self, data: bytes) -> None:
            seen.append(len(data))

    monkeypatch.setattr("shiplap.core.layer.unpack.Crc64", Counting)
    with as_file(build([item("f", data=bytes(9 << 20))])) as file:
        write_tar_split(file, unpacked(file)[1], TarSplitWriter(lambda data: None), cancelled=lambda: sum(seen) > 2 << 20)
    assert sum(seen) == 3 << 20


def test_a_file_that_became_shorter_is_an_end_of_file() -> None:
    with as_file(build([item("f", data=b"1" * 100_000)])) as file:
        outline = unpacked(file)[1]
        longer = FileSlice(file.descriptor, 0, file.size_bytes + 10)
        with pytest.raises(EOFError):
            write_tar_split(longer, outline, TarSplitWriter(lambda data: None))


# --- the lines, as Go's encoding/json writes them (with HTML escaping, which is its default)

ESCAPED = [
    (b"plain-._~ name", '"plain-._~ name"'),
    (b'<a>&"b"\\', '"\\u003ca\\u003e\\u0026\\"b\\"\\\\"'),
    (b"/'`$%", '"/\'`$%"'),
    (b"\n\r\t", '"\\n\\r\\t"'),
    (b"\x00\x01\x08\x0b\x0c\x1f", '"\\u0000\\u0001\\u0008\\u000b\\u000c\\u001f"'),
    (b"\x7f", '"\x7f"'),
    ("é☃\U0001f600".encode(), '"é☃\U0001f600"'),
    ("\u2028\u2029".encode(), '"\\u2028\\u2029"'),
    ("\ufffd\ufeff\x80".encode(), '"\ufffd\ufeff\x80"'),
]


@pytest.mark.parametrize(("name", "text"), ESCAPED, ids=[ascii(name) for name, _ in ESCAPED])
def test_names_are_escaped_as_go_does(name: bytes, text: str) -> None:
    (line,) = lines_of(files=[(name, 0, b"")])
    assert line == b'{"type":1,"name":' + text.encode() + b',"payload":null,"position":0}\n'
    assert json.loads(line)["name"].encode() == name


@pytest.mark.parametrize("name", [b"\xff", b"ok\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80", b"<\xff>"])
def test_names_that_are_not_utf_8_are_raw(name: bytes) -> None:
    (line,) = lines_of(files=[(name, 3, b"12345678")])
    raw = base64.b64encode(name).decode()
    assert line.decode() == f'{{"type":1,"name_raw":"{raw}","size":3,"payload":"MTIzNDU2Nzg=","position":0}}\n'
    assert parts_of(stored_gzip(line)) == [FilePart(name, 3, b"12345678")]


def test_an_empty_name_is_left_out() -> None:
    assert lines_of(files=[(b"", 0, b"")]) == [b'{"type":1,"payload":null,"position":0}\n']


def test_segments_and_files_count_up() -> None:
    lines = lines_of(segments=[b"", b"abc", bytes(SEGMENT_BYTES + 1)], files=[(b"f", 1, crc(b"x"))])
    assert [json.loads(line)["position"] for line in lines] == [0, 1, 2, 3]
    assert lines[0] == b'{"type":2,"payload":"YWJj","position":0}\n'
    assert lines[3] == b'{"type":1,"name":"f","size":1,"payload":"%s","position":3}\n' % base64.b64encode(crc(b"x"))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=30), st.integers(0, 1 << 62)), max_size=5))
def test_names_and_sizes_come_back(files: list[tuple[bytes, int]]) -> None:
    lines = lines_of(files=[(name, size, b"8 bytes.") for name, size in files])
    for line in lines:
        json.loads(line)
    assert parts_of(stored_gzip(*lines)) == [FilePart(name, size, b"8 bytes." if size else b"") for name, size in files]


# --- gzip

BLOCK = 65535
SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 8 * BLOCK - 1, 8 * BLOCK, 8 * BLOCK + 1, 20 * BLOCK]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [1 << 30, 40_000])
def test_stored_gzip_is_read_by_zlib_whatever_the_pieces(size: int, piece: int) -> None:
    data = bytes(value % 253 for value in range(size))
    compressed = stored_gzip(*(data[at : at + piece] for at in range(0, size, piece)))
    assert gzip.decompress(compressed) == data
    assert compressed == stored_gzip(data)
    blocks = max(1, -(-size // BLOCK))
    assert len(compressed) == 10 + size + 5 * blocks + 8


def test_stored_gzip_is_accepted_by_gzip() -> None:
    compressed = stored_gzip(b"abc" * 100_000)
    done = subprocess.run(["gzip", "-tv"], input=compressed, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert compressed[:10].hex() == "1f8b08000000000000ff"


# --- damage

LINE = b'{"type":2,"payload":"YWJj","position":0}\n'
BAD_LINES = {
    "no JSON": b"{\n",
    "not UTF-8": b'{"type":1,"name":"\xff","payload":null,"position":0}\n',
    "a list": b"[]\n",
    "a number": b"5\n",
    "null": b"null\n",
    "nothing": b"\n",
    "no type": b'{"payload":"","position":0}\n',
    "an unknown type": b'{"type":3,"payload":"","position":0}\n',
    "no payload": b'{"type":2,"position":0}\n',
    "a payload that is no base64": b'{"type":2,"payload":"Y W J j","position":0}\n',
    "a payload that is a number": b'{"type":2,"payload":5,"position":0}\n',
    "no position": b'{"type":2,"payload":"YWJj"}\n',
    "another position": b'{"type":2,"payload":"YWJj","position":1}\n',
    "a name that is a number": b'{"type":1,"name":5,"payload":null,"position":0}\n',
    "a name that is a list": b'{"type":1,"name":[],"payload":null,"position":0}\n',
    "a raw name that is no base64": b'{"type":1,"name_raw":"?","payload":null,"position":0}\n',
    "a raw name that is a number": b'{"type":1,"name_raw":7,"payload":null,"position":0}\n',
    "half a surrogate": b'{"type":1,"name":"\\ud800","payload":null,"position":0}\n',
    "a negative size": b'{"type":1,"name":"f","size":-1,"payload":"AAAAAAAAAAA=","position":0}\n',
    "a size that is a text": b'{"type":1,"name":"f","size":"1","payload":"AAAAAAAAAAA=","position":0}\n',
    "a size that is true": b'{"type":1,"name":"f","size":true,"payload":"AAAAAAAAAAA=","position":0}\n',
    "a checksum of seven bytes": b'{"type":1,"name":"f","size":1,"payload":"AAAAAAAAAA==","position":0}\n',
    "no checksum": b'{"type":1,"name":"f","size":1,"payload":null,"position":0}\n',
    "endless nesting": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_refused(case: str) -> None:
    with pytest.raises(TarSplitCorrupt, match=r"^data: (line 1 is not a tar-split entry|entry 0 has position)"):
        parts_of(stored_gzip(BAD_LINES[case]))


def test_data_that_is_cut_anywhere_is_refused() -> None:
    data = stored_gzip(LINE)
    for length in range(len(data)):
        with pytest.raises(TarSplitCorrupt):
            parts_of(data[:length])
    with pytest.raises(TarSplitCorrupt, match="truncated"):
        parts_of(stored_gzip(LINE[:-1]))


def test_a_wrong_gzip_checksum_is_refused() -> None:
    data = bytearray(stored_gzip(LINE))
    data[-8] ^= 1
    with pytest.raises(TarSplitCorrupt, match="is not gzip"):
        parts_of(bytes(data))


def test_one_endless_line_does_not_fill_the_memory() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    data = b"".join(bomb.compress(b" " * (1 << 20)) for _ in range(40)) + bomb.flush()
    with pytest.raises(TarSplitCorrupt, match="a line is longer than"):
        parts_of(data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_raise_nothing_but_the_module_s_own_error(changes: list[tuple[int, int]]) -> None:
    text = bytearray(b"".join(lines_of(segments=[b"abc" * 30], files=[(b"f", 1, crc(b"x")), (b"\xff", 0, b"")])))
    for at, value in changes:
        text[at % len(text)] = value
    try:
        b"".join(assemble(read_parts([stored_gzip(bytes(text))], what="data"), lambda name: [b"x"], what="layer"))
    except TarSplitCorrupt:
        pass


@pytest.mark.parametrize("content", [b"", b"ab", b"abd", b"abcd"])
def test_a_file_of_another_content_is_refused(content: bytes) -> None:
    parts = [Segment(b"head"), FilePart(b"f", 3, crc(b"abc")), Segment(b"tail")]
    with pytest.raises(TarSplitCorrupt, match="layer: the content of 'f' does not fit its size and checksum"):
        list(assemble(parts, lambda name: [content], what="layer"))
    assert b"".join(assemble(parts, lambda name: [b"a", b"", b"bc"], what="layer")) == b"headabctail"


def test_a_file_of_another_size_than_stated_is_refused_although_its_checksum_fits() -> None:
    with pytest.raises(TarSplitCorrupt, match="does not fit its size"):
        list(assemble([FilePart(b"f", 3, crc(b"abcd"))], lambda name: [b"abcd"], what="layer"))
