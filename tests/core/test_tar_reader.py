"""The tar reader against the rules of Go's archive/tar (as Docker 20.10 showed them) and against Python's tarfile."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layertar import BLOCK, END, TarItem, build, checksum, gnu_record, header, item, padded, pax_item, pax_record
from memorytar import Memory, headers
from shiplap.core.tar.reader import META_LIMIT_BYTES, TarCorrupt, TarHeader, parse_pax, read_headers

X = "SCHILY.xattr."


def base256(value: int, length: int) -> bytes:
    return (value % (1 << 8 * length) | 1 << (8 * length - 1)).to_bytes(length, "big")


def behind(*records: bytes | TarItem, **fields: Any) -> bytes:
    """An entry ``f`` behind some extension records."""
    return build([*records, item("f", **fields)])


def raw(**fields: bytes) -> bytes:
    return build([item("f", raw=fields)])


def changed(block: bytes, at: int, data: bytes) -> bytes:
    """A header with other bytes at ``at`` and the checksum to match."""
    block = block[:at] + data + block[at + len(data) :]
    return block[:148] + b"%06o\0 " % checksum(block) + block[156:]


SIGNED = header(b"\xe9" * 20)
READ: dict[str, tuple[bytes, Mapping[str, Any]]] = {
    # numbers
    "octal with leading blanks and NULs": (raw(mode=b" \0 644\0"), {"mode": 0o644}),
    "octal with trailing blanks": (raw(uid=b"12      "), {"uid": 0o12}),
    "octal without a terminator": (raw(gid=b"00000644"), {"gid": 0o644}),
    "octal that ends at a NUL in the middle": (raw(mode=b"64\x004444\0"), {"mode": 0o64}),
    "an empty number is 0": (raw(uid=bytes(8), mtime=b" " * 12), {"uid": 0, "mtime_epoch": 0}),
    "the largest octal mtime": (raw(mtime=b"7" * 12), {"mtime_epoch": 8**12 - 1}),
    "base 256": (raw(uid=base256(4_000_000_000, 8), mtime=base256(1 << 40, 12)), {"uid": 4_000_000_000, "mtime_epoch": 1 << 40}),
    "base 256, negative": (
        raw(uid=base256(-2, 8), gid=b"\xff" * 8, mtime=base256(-(1 << 40), 12)),
        {"uid": -2, "gid": -1, "mtime_epoch": -(1 << 40)},
    ),
    "base 256, 63 bits": (raw(uid=b"\x80" + b"\xff" * 7), {"uid": (1 << 56) - 1}),
    "base 256, the largest and the smallest": (
        raw(mtime=base256((1 << 63) - 1, 12), uid=base256(-(1 << 62), 8)),
        {"mtime_epoch": (1 << 63) - 1, "uid": -(1 << 62)},
    ),
    "base 256 whose seventh bit alone is the sign": (raw(uid=b"\xc0" + bytes(7)), {"uid": -(1 << 62)}),
    # checksums
    "a signed checksum": (SIGNED[:148] + b"%06o\0 " % (checksum(SIGNED) - 256 * 20) + SIGNED[156:] + END, {"name": b"\xe9" * 20}),
    # dialects
    "v7 has no devices and no prefix": (
        build([item("c", type="3", dialect="v7", raw={329: b"0000001\0" + b"0000003\0", "prefix": b"pre"})]),
        {"name": b"c", "devmajor": 0, "devminor": 0},
    ),
    "an unknown magic is v7": (build([item("c", type="3", devmajor=1, raw={"magic": b"USTAR\0"})]), {"devmajor": 0}),
    "ustar with another version": (raw(version=b"\0\0", prefix=b"pre"), {"name": b"pre/f"}),
    "ustar with blanks for version is v7": (raw(magic=b"ustar ", version=b"00", prefix=b"pre"), {"name": b"f"}),
    "a prefix that is not ASCII": (raw(prefix=b"pr\xe9"), {"name": b"pr\xe9/f"}),
    "a prefix of 155 bytes": (raw(prefix=b"p" * 155), {"name": b"p" * 155 + b"/f"}),
    "star has a shorter prefix, and times behind it": (
        build([item("f", raw={"prefix": b"p" * 131, 476: b"00000000012\0", 508: b"tar\0"})]),
        {"name": b"p" * 131 + b"/f"},
    ),
    "GNU has a prefix where its times are no numbers": (
        build([item("f", dialect="gnu", raw={"prefix": b"pre/fix"})]),
        {"name": b"pre/fix/f"},
    ),
    "GNU has none where that is not ASCII": (build([item("f", dialect="gnu", raw={"prefix": b"pr\xe9"})]), {"name": b"f"}),
    "GNU has none where its times are numbers": (build([item("f", dialect="gnu", raw={345: b"00000000012\0"})]), {"name": b"f"}),
    "GNU has none where its times are base 256": (build([item("f", dialect="gnu", raw={345: base256(5, 12)})]), {"name": b"f"}),
    # names and types
    "a name field without NUL": (build([item("n" * 100, linkname="l" * 100, type="2")]), {"name": b"n" * 100, "linkname": b"l" * 100}),
    "a name field with bytes behind the NUL": (build([item("x", raw={0: b"abc\0def"})]), {"name": b"abc"}),
    "type NUL is a file": (build([item("f", type=b"\0", data=b"abc")]), {"typeflag": b"0", "data_bytes": 3}),
    "type NUL with a slash is a directory": (build([item("d/", type=b"\0")]), {"typeflag": b"5"}),
    "type NUL with a slash from a long name is a directory": (build([gnu_record("L", b"d/"), item("f", type=b"\0")]), {"typeflag": b"5"}),
    "type NUL whose pax path has no slash is a file": (
        build([item("d/", type=b"\0", pax={"path": "d"})]),
        {"typeflag": b"0", "name": b"d"},
    ),
    "type 0 with a slash is a file": (build([item("d/", data=b"abc")]), {"typeflag": b"0", "name": b"d/", "data_bytes": 3}),
    "a directory's size is not stored": (build([item("d", type="5", size=512)]), {"size_bytes": 512, "data_bytes": 0}),
    "a link's size may be negative": (build([item("l", type="1", raw={"size": b"\xff" * 12})]), {"size_bytes": -1, "data_bytes": 0}),
    "an unknown type has data": (build([item("q", type="Z", data=b"abc")]), {"typeflag": b"Z", "data_bytes": 3}),
    # pax
    "pax overrides what it names": (
        build(
            [item("f", type="2", linkname="t", uid=1, mtime=1, pax={"path": "p", "linkpath": "l", "uid": "-5", "gid": "+7", "mtime": "3"})]
        ),
        {"name": b"p", "linkname": b"l", "uid": -5, "gid": 7, "mtime_epoch": 3},
    ),
    "an empty pax value changes nothing": (
        build([item("f", uid=3, mtime=7, pax={"path": "", "uid": "", "mtime": "", "size": "", X + "user.a": ""})]),
        {"name": b"f", "uid": 3, "mtime_epoch": 7, "xattrs": ()},
    ),
    "the last of two pax values wins": (behind(pax_item(pax_record("uid", "1") + pax_record("uid", "2"))), {"uid": 2}),
    "an empty pax value takes the first one back": (behind(pax_item(pax_record("uid", "1") + pax_record("uid", "")), uid=9), {"uid": 9}),
    "the second of two pax headers counts alone": (
        behind(pax_item({"path": "p1", "uid": "4"}), pax_item({"path": "p2"})),
        {"name": b"p2", "uid": 0},
    ),
    "pax size over header size": (build([pax_item({"size": "6"}), header("f", size=0) + padded(b"abcdef"), item("g")]), {"data_bytes": 6}),
    "pax numbers with zeros in front": (
        build([item("f", data=b"x" * 8, pax={"size": "010", "uid": "0" * 5000 + "5"})]),
        {"data_bytes": 10, "uid": 5},
    ),
    "xattrs are raw and sorted": (
        build([item("f", pax={X + "user.b": b"a\0b\n=c\xff", X + "user.a": "1"})]),
        {"xattrs": ((b"user.a", b"1"), (b"user.b", b"a\0b\n=c\xff"))},
    ),
    "the first = ends an xattr's name": (build([item("f", pax={X + "user.x=y": "v"})]), {"xattrs": ((b"user.x", b"y=v"),)}),
    "other vendors' keys": (
        build([item("f", pax={"LIBARCHIVE.xattr.user.a": "MQ==", "RHT.security.selinux": "x", "comment": "c"})]),
        {"xattrs": ()},
    ),
    "a record length with zeros and a plus": (behind(pax_item(b"+0013 path=x\n")), {"name": b"x"}),
    "a pax header of almost 1 MiB": (behind(pax_item({"comment": "c" * (META_LIMIT_BYTES - 20)})), {"name": b"f"}),
    "an empty pax header": (behind(pax_item(b"")), {"name": b"f"}),
    # pax times
    "a time with nanoseconds": (build([item("f", pax={"mtime": "15.123456789"})]), {"mtime_epoch": 15, "mtime_nanoseconds": 123456789}),
    "digits beyond nine are cut": (build([item("f", pax={"mtime": "15.0000000019"})]), {"mtime_epoch": 15, "mtime_nanoseconds": 1}),
    "a time before 1970": (build([item("f", pax={"mtime": "-1.25"})]), {"mtime_epoch": -2, "mtime_nanoseconds": 750000000}),
    "a time just before 1970": (build([item("f", pax={"mtime": "-0.5"})]), {"mtime_epoch": -1, "mtime_nanoseconds": 500000000}),
    "a time with a bare point": (build([item("f", pax={"mtime": "+15."})]), {"mtime_epoch": 15, "mtime_nanoseconds": 0}),
    # GNU long names
    "a GNU name over a pax path, in either order": (
        build([gnu_record("L", b"gnu"), pax_item({"path": "pax"}), item("f")]),
        {"name": b"gnu"},
    ),
    "a GNU target over a pax linkpath": (
        build([pax_item({"linkpath": "pax"}), gnu_record("K", b"gnu"), item("f", type="2")]),
        {"linkname": b"gnu"},
    ),
    "a GNU name without NUL": (behind(header("L", type="L", size=5) + padded(b"hello")), {"name": b"hello"}),
    "a GNU name ends at its NUL": (behind(header("L", type="L", size=8) + padded(b"he\0llo\0\0")), {"name": b"he"}),
    "an empty GNU name changes nothing": (behind(gnu_record("L", b"")), {"name": b"f"}),
    "the last GNU name counts": (behind(gnu_record("L", b"one"), gnu_record("L", b"two")), {"name": b"two"}),
    # sparse
    "old GNU sparse": (build([item("f", type="S")]), {"sparse": True}),
    "pax sparse 0.0": (
        behind(pax_item(b"".join([pax_record("GNU.sparse.offset", "0"), pax_record("GNU.sparse.numbytes", "1")]))),
        {"sparse": True},
    ),
    "pax sparse 0.1": (build([item("f", pax={"GNU.sparse.map": "0,1"})]), {"sparse": True}),
    "pax sparse 1.0": (build([item("f", pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})]), {"sparse": True}),
    "single sparse keys": (
        build([item("f", pax={"GNU.sparse.name": "s", "GNU.sparse.size": "1", "GNU.sparse.realsize": "1"})]),
        {"sparse": False},
    ),
    "an unknown sparse version": (build([item("f", pax={"GNU.sparse.major": "2", "GNU.sparse.map": "0,1"})]), {"sparse": False}),
    "an empty sparse map": (build([item("f", pax={"GNU.sparse.map": ""})]), {"sparse": False}),
}


@pytest.mark.parametrize("case", READ)
def test_a_header_is_read_as_go_reads_it(case: str) -> None:
    tar, expected = READ[case]
    found = headers(tar)[0]
    assert {field: getattr(found, field) for field in expected} == expected


SPARSE_OUT_OF_ORDER = pax_record("GNU.sparse.numbytes", "1") + pax_record("GNU.sparse.offset", "1")
REFUSED: dict[str, bytes] = {
    "a bad checksum": raw(chksum=b"000000\0 "),
    "a blank checksum": raw(chksum=b" " * 8),
    "a checksum that is no number": raw(chksum=b"zzzzzzzz"),
    "an octal minus": raw(mtime=b"-0000000005\0"),
    "an eight in octal": raw(uid=b"0000008\0"),
    "a blank inside octal": raw(uid=b"12 3456\0"),
    "a plus in octal": raw(uid=b"+000001\0"),
    "base 256 over 63 bits": raw(mtime=b"\x80" + b"\xff" * 11),
    "base 256 below -2^63": raw(mtime=base256(-(1 << 63) - 1, 12)),
    "a device number that is none, on a file": raw(devmajor=b"zzzzzzz\0"),
    "a star access time that is none": build([item("f", raw={476: b"zzzzzzzzzzz\0", 508: b"tar\0"})]),
    "a negative size": build([item("f", raw={"size": b"\xff" * 12})]),
    "a negative size that pax would mend": build([pax_item({"size": "0"}), item("f", raw={"size": b"\xff" * 12})]),
    "a negative size of a type NUL directory": build([item("d/", type=b"\0", raw={"size": b"\xff" * 12})]),
    "a negative pax size": build([item("f", pax={"size": "-1"})]),
    "a size beyond the end": build([item("f", size=1 << 40)]),
    "a pax number that is none": build([item("f", pax={"uid": "1.5"})]),
    "a pax number of another script": build([item("f", pax={"uid": "١"})]),
    "a pax number with a blank": build([item("f", pax={"uid": " 1"})]),
    "a pax number over 63 bits": build([item("f", pax={"uid": str(1 << 63)})]),
    "a pax time with an exponent": build([item("f", pax={"mtime": "1e9"})]),
    "a pax time that begins with its point": build([item("f", pax={"mtime": ".5"})]),
    "a pax fraction that is none": build([item("f", pax={"mtime": "1.x"})]),
    "a pax access time that is none": build([item("f", pax={"atime": "junk"})]),
    "a pax record without length": behind(pax_item(b"path=x\n")),
    "a pax record with a negative length": behind(pax_item(b"-11 path=x\n")),
    "a pax record that is too long": behind(pax_item(b"99 path=x\n")),
    "a pax record of absurd length": behind(pax_item(b"9" * 5000 + b" path=x\n")),
    "a pax record that is too short": behind(pax_item(b"4 a\n")),
    "a pax record that ends in its length": behind(pax_item(b"5 a=\n5    \n")),
    "a pax record without =": behind(pax_item(b"8 pathx\n")),
    "a pax record without key": behind(pax_item(b"6 =ab\n")),
    "a pax record without newline": behind(pax_item(b"9 path=xx")),
    "zeros behind the pax records": behind(pax_item(pax_record("path", "aaa") + bytes(10))),
    "a NUL in a pax path": build([item("f", pax={"path": b"a\0b"})]),
    "a NUL in a pax linkpath": build([item("f", pax={"linkpath": b"a\0b"})]),
    "a NUL in a pax uname": build([item("f", pax={"uname": b"a\0b"})]),
    "a NUL in a pax gname": build([item("f", pax={"gname": b"a\0b"})]),
    "a NUL in a pax key": build([item("f", pax={X + "user.a\0b": "1"})]),
    "a pax header over 1 MiB": behind(pax_item({"comment": "c" * META_LIMIT_BYTES})),
    "a GNU name over 1 MiB": behind(gnu_record("L", b"p" * META_LIMIT_BYTES)),
    "a pax header with a negative size": build([item("x", type="x", raw={"size": b"\xff" * 12}), item("f")]),
    "a broken global header": build([pax_item(b"99 path=x\n", type="g"), item("f")]),
    "sparse records out of order": behind(pax_item(SPARSE_OUT_OF_ORDER)),
    "a comma in a sparse record": behind(pax_item(pax_record("GNU.sparse.offset", "1,2"))),
    "data behind a directory": build([item("d", type="5", data=b"junk"), item("f")]),
    "no tar at all": b"\x7fELF" + b"\1" * 2000,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_go_refuses_is_refused(case: str) -> None:
    with pytest.raises(TarCorrupt, match="is not a valid tar"):
        headers(REFUSED[case])


def test_a_global_header_is_an_entry_of_its_own_and_changes_no_other() -> None:
    global_header = pax_item({"path": "other", "uid": "9", "mtime": "77", X + "user.a": "1"}, type="g", name="global")
    found = headers(build([item("e"), global_header, item("f", uid=1)]))
    assert [(one.name, one.typeflag, one.uid, one.xattrs) for one in found] == [
        (b"e", b"0", 0, ()),
        (b"other", b"g", 0, ()),
        (b"f", b"0", 1, ()),
    ]
    assert found[2].start == found[1].data_offset


def test_a_global_header_takes_the_records_before_it_away() -> None:
    found = headers(build([pax_item({"uid": "4"}), gnu_record("L", b"long"), pax_item({"comment": "c"}, type="g"), item("f")]))
    assert (found[-1].name, found[-1].uid) == (b"f", 0)


ONE = build([item("f", data=b"1")], end=False)
ENDS = {
    "nothing at all": (b"", 0),
    "two zero blocks": (END, 0),
    "one zero block": (bytes(512), 0),
    "no zero block": (ONE, 1),
    "one zero block behind an entry": (ONE + bytes(512), 1),
    "padding to a record": (ONE + END + bytes(10240), 1),
    "anything behind two zero blocks": (ONE + END + b"garbage" * 100, 1),
    "a second tar behind two zero blocks": (ONE + END + ONE, 1),
    "records without an entry": (ONE + pax_item({"path": "p"}).raw + gnu_record("L", b"n"), 1),
    "an end inside the last padding": (ONE[:-100], 1),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_tar_may_end(case: str) -> None:
    tar, entries = ENDS[case]
    assert len(headers(tar)) == entries


@pytest.mark.parametrize(
    "rest", [bytes(512) + ONE, bytes(512) + b"\1" * 512, bytes(512 + 100), b"abc", bytes(100), ONE[:300], ONE[:512]], ids=range(7)
)
def test_a_tar_may_not_end_elsewhere(rest: bytes) -> None:
    with pytest.raises(TarCorrupt):
        headers(ONE + rest)


SMALL = build(
    [
        item("./d/", type="5"),
        item("d/f", data=b"x" * 700, pax={X + "user.a": "1", "mtime": "1.5"}),
        pax_item({"comment": "c"}, type="g"),
        item("g" * 120, data=b"1", gnu_long=True),
        item("s", type="2", linkname="t" * 120),
    ]
)


def test_a_tar_that_is_cut_anywhere_ends_or_is_refused() -> None:
    whole = headers(SMALL)
    for length in range(len(SMALL)):
        found: list[TarHeader] = []
        try:
            found.extend(read_headers(Memory(SMALL[:length])))
        except TarCorrupt as error:
            assert "at the first entry" in str(error) or "after entry" in str(error)
        assert found == whole[: len(found)]


def test_offsets_cover_the_tar_without_gaps() -> None:
    position = 0
    for one in headers(SMALL):
        assert one.start == position
        assert one.data_offset % BLOCK == 0 and one.data_offset > one.start
        position = one.data_offset + one.data_bytes + -one.data_bytes % BLOCK
    assert SMALL[position:] == END


def test_an_error_says_where() -> None:
    with pytest.raises(TarCorrupt, match=r"app:1, layer 2 is not a valid tar: .*checksum.* \(byte 512, after entry 'd'\)"):
        list(read_headers(Memory(build([item("d", type="5"), item("f", raw={"chksum": b"0" * 8})])), what="app:1, layer 2"))


# --- against Python's tarfile, where the two agree

NAMES = st.lists(st.text("abcé☃ .-", min_size=1, max_size=12).filter(lambda part: part not in (".", "..")), min_size=1, max_size=12).map(
    "/".join
)
KINDS = {
    tarfile.REGTYPE: b"0",
    tarfile.DIRTYPE: b"5",
    tarfile.SYMTYPE: b"2",
    tarfile.LNKTYPE: b"1",
    tarfile.FIFOTYPE: b"6",
    tarfile.CHRTYPE: b"3",
}


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(draw(NAMES))
    info.type = draw(st.sampled_from(sorted(KINDS)))
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(st.integers(0, (1 << 32) - 1)), draw(st.integers(0, (1 << 32) - 1))
    info.mtime = draw(st.integers(0, 1 << 40))
    if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = draw(NAMES)
    if info.type == tarfile.CHRTYPE:
        info.devmajor, info.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, (1 << 20) - 1))
    data = draw(st.binary(max_size=1500)) if info.type == tarfile.REGTYPE else b""
    info.size = len(data)
    return info, data


@settings(max_examples=150, deadline=None)
@given(st.lists(members(), max_size=5), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_python_writes_is_what_we_read(wanted: list[tuple[tarfile.TarInfo, bytes]], form: int) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for info, data in wanted:
            tar.addfile(info, io.BytesIO(data))
    found = headers(file.getvalue())
    assert len(found) == len(wanted)
    for one, (info, data) in zip(found, wanted, strict=True):
        slash = b"/" if info.type == tarfile.DIRTYPE else b""
        assert (one.name, one.typeflag, one.linkname) == (info.name.encode() + slash, KINDS[info.type], info.linkname.encode())
        assert (one.mode, one.uid, one.gid, one.mtime_epoch, one.mtime_nanoseconds) == (info.mode, info.uid, info.gid, info.mtime, 0)
        assert (one.devmajor, one.devminor) == (info.devmajor, info.devminor)
        assert file.getvalue()[one.data_offset : one.data_offset + one.data_bytes] == data


# --- hostile input

CHANGES = st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=12)), min_size=1, max_size=6)


def with_checksums(tar: bytes) -> bytes:
    """Every block's checksum field made right, so that a fuzzer gets past it."""
    blocks = [tar[at : at + BLOCK] for at in range(0, len(tar), BLOCK)]
    return b"".join(changed(block, 0, b"") if len(block) == BLOCK and any(block) else block for block in blocks)


@settings(max_examples=400, deadline=None)
@given(CHANGES, st.booleans())
def test_a_damaged_tar_raises_nothing_but_its_own_error(changes: list[tuple[int, bytes]], mend: bool) -> None:
    damaged = bytearray(SMALL)
    for at, data in changes:
        damaged[at : at + len(data)] = data
    try:
        found = headers(with_checksums(bytes(damaged)) if mend else bytes(damaged))
    except TarCorrupt:
        return
    for one in found:
        assert 0 <= one.data_offset <= one.data_offset + one.data_bytes <= len(damaged)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_damaged_pax_records_are_a_value_error(data: bytes) -> None:
    try:
        parse_pax(data)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "body",
    [b"5 a=\n" * (META_LIMIT_BYTES // 5), b"1" * META_LIMIT_BYTES, b"0" * (META_LIMIT_BYTES - 5) + b"5 a=\n", b" " * META_LIMIT_BYTES],
    ids=["many records", "no blank", "a long length", "only blanks"],
)
def test_a_pax_header_of_the_largest_size_takes_little_time(body: bytes) -> None:
    begin = time.process_time()
    try:
        for _ in range(2):
            parse_pax(body)
    except ValueError:
        pass
    assert time.process_time() - begin < 4  # seconds; quadratic ways take minutes


def test_many_meta_headers_before_an_entry_take_little_time() -> None:
    tar = behind(*[gnu_record("L", b"n" * 200_000)] * 3, *[pax_item({"comment": "c" * 400})] * 20_000)
    begin = time.process_time()
    assert len(headers(tar)) == 1
    assert time.process_time() - begin < 4
