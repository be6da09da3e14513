"""Torture layers: everything a layer tar can say, with what the real engine makes of it.

Three tables of cases, each one layer, each tried against a live engine (tests/engines/test_truth_docker.py):
``SAME``: the engine unpacks it and we derive the same tree; ``REFUSED``: the engine refuses it and so do we;
``STRICTER``: the engine takes it and we do not, on purpose. Verdicts are those of Docker 20.10; where a newer engine
changed its mind, ``newer`` says so: {26: "refused"} holds for 26 and everything after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import layertar
from layertar import TarItem, build, gnu_record, header, item, padded, pax_item, pax_record

X = "SCHILY.xattr."
# cap_net_bind_service+ep in the kernel's version 2 form; the kernel refuses to store a made-up one.
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
CAPABILITY_OF_ROOTID_1000 = bytes.fromhex("0100000300040000000000000000000000000000e8030000")
ACL = bytes.fromhex("02000000" "01000600ffffffff" "02000700e8030000" "04000400ffffffff" "10000700ffffffff" "20000400ffffffff")  # fmt: skip
WHEN = 1_000_000_000
LATER = 1_500_000_000


def file(name: str | bytes, data: bytes | None = None, **fields: Any) -> TarItem:
    """A file of one byte; marks are empty, since the engine could never save one with content."""
    if data is None:
        data = b"" if layertar.octets(name).rpartition(b"/")[2].startswith(b".wh.") else b"x"
    return item(name, data=data, **fields)


def directory(name: str | bytes, **fields: Any) -> TarItem:
    return item(name, type="5", **fields)


def symlink(name: str | bytes, target: str | bytes, **fields: Any) -> TarItem:
    return item(name, type="2", linkname=target, **fields)


def hardlink(name: str | bytes, target: str | bytes, **fields: Any) -> TarItem:
    return item(name, type="1", linkname=target, **fields)


def character(name: str | bytes, major: int = 1, minor: int = 3, **fields: Any) -> TarItem:
    return item(name, type="3", devmajor=major, devminor=minor, **fields)


def block(name: str | bytes, major: int = 8, minor: int = 1, **fields: Any) -> TarItem:
    return item(name, type="4", devmajor=major, devminor=minor, **fields)


def fifo(name: str | bytes, **fields: Any) -> TarItem:
    return item(name, type="6", **fields)


def pax(*records: bytes) -> bytes:
    """An extended header of these records, in this order, repeats and all."""
    return pax_item(b"".join(records)).raw


@dataclass(frozen=True, slots=True)
class Case:
    """``newer``: major version of the engine, from which on its verdict is another: ``refused``, ``accepted``, ``other
    tree``, ``hangs``. ``saves``: whether `docker save` gives the layer back (it cannot where the engine looks for content
    under a name that it has not got any more)."""

    name: str
    layer: bytes
    newer: Mapping[int, str] = field(default_factory=dict)
    saves: bool = True

    def verdict(self, major: int, usual: str) -> str:
        """What an engine of version ``major`` does; ``usual``: what 20.10 does."""
        return next((self.newer[since] for since in sorted(self.newer, reverse=True) if since <= major), usual)


def _cases(table: Mapping[str, Sequence[TarItem | bytes] | bytes | Case]) -> tuple[Case, ...]:
    return tuple(_case(name, value) for name, value in table.items())


def _case(name: str, value: Sequence[TarItem | bytes] | bytes | Case) -> Case:
    if isinstance(value, Case):
        return Case(name, value.layer, value.newer, value.saves)
    return Case(name, value if isinstance(value, bytes) else build(value))


def but(items: Sequence[TarItem | bytes] | bytes, newer: Mapping[int, str] | None = None, *, saves: bool = True) -> Case:
    return Case("", items if isinstance(items, bytes) else build(items), newer or {}, saves)


ONE_FILE = build([file("f", b"1")])
LONG = "n" * 99

SAME = _cases(
    {
        # names
        "a leading ./": [directory("./"), directory("./d/"), file("./d/f")],
        "a leading slash": [directory("/d"), file("/d/f")],
        "a/../b with and without a": [directory("a"), file("a/../b"), file("absent/../c")],
        "a//b and a/./b": [file("a//b"), file("a/./c"), file("//d")],
        "dots that are names": [file("..a"), file("a/..b"), file("..."), directory("a/...")],
        "a name of 100 bytes": [file("n" * 100)],
        "a name of 255 bytes": [file("n" * 255)],
        "a path of 3,800 bytes whose directories are implied": [file("/".join([LONG] * 38))],
        "GNU long names and targets": [
            item("g" * 120, data=b"1", gnu_long=True),
            item("h" * 60 + "/" + "i" * 200, data=b"2", gnu_long=True),
            item("s", type="2", linkname="t" * 300, gnu_long=True),
            item("l", type="1", linkname="g" * 120, gnu_long=True),
        ],
        "pax long names and targets": [
            file("p" * 180 + "/" + "q" * 200),
            symlink("s", "t" * 300),
            hardlink("l", "p" * 180 + "/" + "q" * 200),
        ],
        "a ustar prefix": [file("nm", raw={"prefix": b"pre/fix"}), file("two", raw={"prefix": b"/pre/"})],
        "a prefix under the GNU magic": [item("nm", data=b"1", dialect="gnu", raw={"prefix": b"pre/fix"})],
        "GNU access and change times where the prefix would be": [
            item("f", data=b"1", dialect="gnu", mtime=5, raw={345: b"00000000012\0", 357: b"00000000013\0"})
        ],
        "names that are not UTF-8": [
            file(b"\xff\xfe"),
            item(b"\xff\xfe" * 60, data=b"1", gnu_long=True),
            file(b"x", pax={"path": b"\xfe\xff" + b"n" * 120}),
            file("nm", raw={"prefix": b"pr\xe9/fix"}),
        ],
        "control characters and blanks in names": [file(b"a\nb\t\x01\x7f"), file("back\\slash"), file(" lead"), file("trail ")],
        "names that differ in case": [file("A", b"1"), file("a", b"2")],
        "a name field with bytes after the NUL": [file("x", raw={0: b"abc\0def"})],
        "pax path over GNU name and header name": [
            pax(pax_record("path", "viapax")) + item("viagnu", data=b"1", gnu_long=True).raw,
            gnu_record("L", b"viagnu2") + pax(pax_record("path", "viapax2")) + item("hdr", data=b"1").raw,
            gnu_record("L", b"one") + gnu_record("L", b"two") + item("hdr", data=b"1").raw,
        ],
        "a GNU name without NUL, with one in its middle, empty": [
            header("././@LongLink", type="L", size=5, dialect="gnu") + padded(b"hello") + item("a").raw,
            header("././@LongLink", type="L", size=8, dialect="gnu") + padded(b"he\0llo\0\0") + item("b").raw,
            header("././@LongLink", type="L", size=1, dialect="gnu") + padded(b"\0") + item("c").raw,
        ],
        "an empty pax path means the header's name": [file("hdr", pax={"path": ""})],
        # the root
        "a root entry is ignored": but([directory("./", mode=0o700, uid=5, gid=6, pax={X + "user.a": b"1"}), file("f")]),
        "a root entry of another type is ignored": but([item("./", type=b"\0", dialect="v7", mode=0o700), file("f")]),
        "a root entry with a leading slash is ignored, as engines came to do": but(
            [directory("/", mode=0o700, uid=5, gid=6, mtime=WHEN), file("f")], {0: "other tree", 28: "accepted"}
        ),
        "an entry that cleans to the root": [directory("x/..", mode=0o700), file("f")],
        # types and modes
        "setuid, setgid, sticky and no permission at all": [
            file("suid", mode=0o4755, uid=1000, gid=1000),
            file("sgid", mode=0o2755, uid=1, gid=2),
            file("all", mode=0o7777, uid=5),
            file("none", b"", mode=0),
            directory("d", mode=0o7777, uid=1000, gid=1000),
            directory("t", mode=0o1777),
        ],
        "mode bits above 07777 are ignored": [
            file("a", mode=0o107777),
            file("b", mode=0o7777777),
            directory("c", mode=0o40755),
            file("d", mode=0o120644),
            file("e", raw={"mode": b"\xff" * 8}),
        ],
        "devices and fifos": [
            character("c", 5, 1, mode=0o620, gid=5, mtime=WHEN),
            character("big", 4095, 1048575),
            character("wide", 10, 300, mode=0o6755),
            block("b", 8, 17, mode=0o660, gid=6, mtime=WHEN),
            fifo("p", mode=0o6622, mtime=WHEN, devmajor=3, devminor=4),
            file("f", devmajor=3, devminor=4),
        ],
        "a device 0:0 as an ordinary entry": [character("c", 0, 0, mode=0o600, uid=3, mtime=WHEN)],
        "device numbers beyond 12 and 20 bits are cut": [character("c", 1, 1048576), character("d", 4096, 1)],
        "v7 headers": [
            item("v", data=b"1", dialect="v7", raw={"prefix": b"ignored"}),
            item("vd/", type="5", dialect="v7"),
            item("vs", type="2", linkname="x", dialect="v7"),
            item("vc", type="3", dialect="v7", raw={329: b"0000001\0" + b"0000003\0"}),
        ],
        "star's magic": [file("st", raw={508: b"tar\0"})],
        "type 0 with a trailing slash is a file": [file("e/", b"", mode=0o755), file("d/", b"abc", mode=0o755), file("after")],
        "type NUL with a trailing slash is a directory": [
            item("a/", type=b"\0", mode=0o755, dialect="v7"),
            item("b/", type=b"\0", mode=0o755),
            gnu_record("L", b"c/") + item("x", type=b"\0", mode=0o750).raw,
            item("x", type=b"\0", mode=0o711, pax={"path": "d/"}),
        ],
        "type NUL without one is a file": [item("d", type=b"\0", data=b"abc", dialect="v7"), item("f/", type=b"\0", pax={"path": "ff"})],
        "trailing slashes on everything else": [symlink("s/", "x"), file("o"), hardlink("l/", "o/"), fifo("p/")],
        # owners
        "ids of 32 bits in octal, base 256 and pax": [
            file("a", uid=2097151),
            file("b", uid=2097152, gid=65536),
            file("c", uid=2**31, gid=2**31 - 1),
            file("d", uid=2**32 - 2, gid=2**32 - 2),
            file("e", pax={"uid": "4000000000", "gid": "3000000000"}),
        ],
        "an id of -1 leaves what is there": [
            file("a", uid=2**32 - 1, gid=5),
            file("b", uid=6, gid=2**32 - 1),
            file("o", uid=7, gid=8, mode=0o4755),
            hardlink("l", "o", uid=2**32 - 1, gid=2**32 - 1, mode=0o4755),
        ],
        "user and group names do not matter": [file("d", uname="daemon", gname="daemon", pax={"uname": "bin", "gname": "bin"})],
        "odd but readable numbers": [
            file("a", raw={"uid": b"  12   \0"}),
            file("b", raw={"uid": b"\0" * 8}),
            file("c", raw={"mode": b"64\x004444\0"}),
            file("d", raw={"mode": b"00000644"}),
            file("e", b"abc", raw={"size": b"         3  "}),
            file("g", b"abc", raw={"size": b"\x80" + bytes(10) + b"\x03"}),
            file("h", raw={"mtime": b" " * 12}),
        ],
        # times
        "times from 1970 to 2262": [
            directory("d", mtime=WHEN),
            file("d/f", mtime=2**31),
            file("g", mtime=2**32),
            file("h", mtime=2**33),
            file("i", mtime=9223372036),
            file("j", pax={"mtime": "9223372036.854775807"}),
            symlink("s", "x", mtime=LATER),
        ],
        "times before 1970 and after 2262 become 0": [
            file("a", mtime=-5),
            directory("b", mtime=-5),
            fifo("c", mtime=-5),
            character("e", mtime=-(2**40)),
            file("f", mtime=9223372037),
            file("g", mtime=2**62),
            file("h", pax={"mtime": "9223372036.9"}),
            file("i", pax={"mtime": "-0.000000001"}),
        ],
        "a symlink's time before 1970 becomes 0, as engines came to do": but(
            [symlink("s", "x", mtime=-5), symlink("t", "x", mtime=2**34)], {0: "other tree", 28: "accepted"}
        ),
        "times below a second": [
            file("a", mtime=7, pax={"mtime": "1500000000.123456789"}),
            file("b", pax={"mtime": "1500000000.1234567891"}),
            directory("c", pax={"mtime": "1500000000.5"}),
            symlink("s", "x", pax={"mtime": "0.25"}),
            file("e", pax={"mtime": "1500000000."}),
            file("g", pax={"mtime": "+5"}),
            file("h", mtime=7, pax={"mtime": ""}),
        ],
        "access and change times are ignored": [file("f", mtime=7, pax={"atime": "1500000000", "ctime": "1500000001.5"})],
        "a directory keeps its time when things are put into it": [
            directory("d", mtime=WHEN),
            file("d/x"),
            directory("d/e", mtime=WHEN),
            file("d/e/y"),
            hardlink("d/l", "d/x"),
            file("d/.wh.gone"),
        ],
        # implied directories
        "implied parents": [
            file("i/j/k", uid=9, mtime=WHEN),
            symlink("n1/s", "x"),
            character("n2/c"),
            file("p/q/.wh.x"),
            hardlink("m/l", "i/j/k"),
        ],
        "an implied directory described later": [file("a/b"), directory("a", mode=0o711, uid=7, mtime=WHEN, pax={X + "user.a": b"1"})],
        "implied parents below a setgid directory": but(
            [directory("d", mode=0o2755, gid=50), file("d/f"), directory("d/e"), file("d/i/k/j"), file("d/.wh.w"), symlink("d/s", "x")],
            {28: "other tree"},
        ),
        # whiteouts
        "a whiteout of nothing": [file(".wh.nothing")],
        "a whiteout of a lower layer's file": [directory("lower"), file("lower/.wh.f")],
        "a whiteout keeps its owner and nothing else": [
            file(".wh.f", b"", uid=12, gid=34, mode=0o4755, mtime=LATER, pax={X + "user.a": b"1"})
        ],
        "a whiteout of any type": [
            directory(".wh.a", uid=3),
            symlink(".wh.b", "etc"),
            file("o"),
            hardlink(".wh.c", "o"),
            hardlink(".wh.d", "nowhere"),
            character(".wh.e", 1, 3),
        ],
        "a whiteout, then the same name again": [file(".wh.f"), file("f", b"new"), file(".wh.d"), directory("d"), file("d/x")],
        "a whiteout in a/.. and with a trailing slash": [directory(".wh.f/"), file("a/../.wh.g"), file("a/./.wh.h"), file(".wh.i/.", b"")],
        "a whiteout through a symlink": [directory("real"), symlink("ln", "real"), file("ln/.wh.f")],
        "a whiteout of a name of 251 bytes": [file(".wh." + "n" * 251)],
        "only the last component makes a whiteout": [file(".wh.d/x"), file(".wh.x/../y"), directory("d"), file("d/.wh..wh..opq/x")],
        "AUFS's own names are whiteouts like any other": [
            directory(".wh..wh.plnk"),
            file(".wh..wh.plnk/99.1", b"linked"),
            hardlink("hl", ".wh..wh.plnk/99.1"),
            file(".wh..wh.aufs", b""),
            file(".wh..wh.orph", b""),
            directory("d"),
            file("d/.wh..wh..opqX", b""),
        ],
        "a hard link to a whiteout": [file(".wh.f"), hardlink("l", "f")],
        # opaque directories
        "an opaque directory": [directory("lower"), file("lower/.wh..wh..opq"), file("lower/new")],
        "opaque before the directory": [file("lower/.wh..wh..opq"), directory("lower", mode=0o700, uid=9)],
        "an opaque implied directory": [file("n1/n2/.wh..wh..opq"), file("n1/n2/new")],
        "an opaque root": [file(".wh..wh..opq"), file("f")],
        "an opaque root after a root entry": [directory("./", mode=0o700), file("./.wh..wh..opq"), file("f")],
        "opaque after content of the same layer keeps it": [
            directory("d"),
            file("d/keep"),
            file("d/sub/x"),
            file("d/.wh.gone"),
            file("d/.wh..wh..opq"),
            file("d/later"),
        ],
        "opaque through a symlink": [directory("real"), symlink("ln", "real"), file("ln/.wh..wh..opq")],
        "an opaque marker of another type, with owner and xattr": [
            directory("d"),
            directory("d/.wh..wh..opq/", uid=5, pax={X + "user.a": b"1"}),
        ],
        # hard links
        "a hard link's mode, owner and time apply to the file": [
            file("o", b"data", mode=0o644, uid=1, gid=2, mtime=WHEN),
            hardlink("l", "o", mode=0o4755, uid=3, gid=4, mtime=LATER),
        ],
        "hard links across directories and to hard links": [
            directory("a"),
            directory("b"),
            file("a/o", b"data"),
            hardlink("b/l", "a/o"),
            hardlink("m", "b/l", mode=0o600),
            hardlink("new/dir/n", "m", mode=0o640),
        ],
        "every spelling of a hard link's target": [
            directory("real"),
            file("o"),
            file("real/p"),
            symlink("ln", "real"),
            hardlink("l1", "/o"),
            hardlink("l2", "./o"),
            hardlink("l3", "absent/../o"),
            hardlink("l4", "o/"),
            hardlink("l5", "ln/p"),
        ],
        "a hard link to a symlink takes the owner only": but(
            [
                file("t", mode=0o600, mtime=3),
                symlink("s", "t", uid=1, gid=1, mtime=WHEN),
                hardlink("l", "s", mode=0o644, uid=5, gid=6, mtime=LATER),
                symlink("dangling", "nowhere"),
                hardlink("m", "dangling", uid=5),
            ]
        ),
        "hard links to devices and fifos": [
            character("c", mode=0o600),
            hardlink("lc", "c", mode=0o666, uid=5, mtime=WHEN),
            block("b", mode=0o600),
            hardlink("lb", "b", mode=0o660, gid=6),
            fifo("p", mode=0o600),
            hardlink("lp", "p", mode=0o622),
        ],
        "a hard link adds its xattrs": [
            file("o", pax={X + "user.a": b"1", X + "user.b": b"1"}),
            hardlink("l", "o", pax={X + "user.b": b"2"}),
        ],
        "a hard link drops the file capability": [
            file("o", pax={X + "security.capability": CAPABILITY, X + "trusted.t": b"1", X + "security.ima": b"\4\2"}),
            hardlink("l", "o"),
            character("c", pax={X + "security.capability": CAPABILITY}),
            hardlink("lc", "c"),
        ],
        "the last hard link's capability stays": [file("o"), hardlink("l", "o", pax={X + "security.capability": CAPABILITY})],
        "a first hard link's capability goes": [
            file("o"),
            hardlink("l", "o", pax={X + "security.capability": CAPABILITY}),
            hardlink("m", "o"),
        ],
        "a hard link's time below a second, and before 1970": [
            file("o", pax={"mtime": "1.5"}),
            hardlink("l", "o", pax={"mtime": "2.25"}),
            file("p", mtime=5),
            hardlink("m", "p", mtime=-5),
        ],
        # symlinks
        "symlinks: any target, own mode ignored": [
            symlink("a", "x", mode=0o600, uid=8, gid=9, mtime=LATER),
            symlink("b", "../../../../etc/passwd"),
            symlink("c", b"\xff\xfe/"),
            symlink("d", "t/" * 2047 + "t"),
            symlink("e", "e"),
        ],
        "a symlink as parent, relative and chained": [
            directory("a"),
            directory("a/real"),
            directory("c"),
            symlink("l1", "a/real"),
            symlink("l2", "l1"),
            symlink("a/up", "../c"),
            file("l2/f"),
            file("l2/x/y/f"),
            file("a/up/g"),
        ],
        "an absolute symlink as parent": but([directory("real"), symlink("ln", "/real"), file("ln/f"), file("ln/empty", b"")], saves=False),
        "names are cleaned before links are followed": [directory("p"), directory("p/real"), symlink("ln", "p/real"), file("ln/../f")],
        "seven symlinks in a chain": [directory("r"), *[symlink(f"l{n}", f"l{n + 1}" if n < 6 else "r") for n in range(7)], file("l0/f")],
        "forty symlinks in a chain": but(
            [directory("r"), *[symlink(f"l{n}", f"l{n + 1}" if n < 39 else "r") for n in range(40)], file("l0/f")], {28: "refused"}
        ),
        # xattrs
        "xattrs of files and directories": [
            file(
                "f", pax={X + "user.x": b"v", X + "trusted.t": b"1", X + "security.ima": b"\x04\x02", X + "security.selinux": b"a:b:c:s0\0"}
            ),
            directory("d", mode=0o1777, pax={X + "user.y": b"a\0b\n=c\xff"}),
            fifo("p", pax={X + "trusted.t": b"1"}),
            character("c", pax={X + "trusted.t": b"1"}),
        ],
        "file capabilities": [
            file("f", mode=0o755, uid=5, pax={X + "security.capability": CAPABILITY}),
            file("s", mode=0o6755, uid=5, pax={X + "security.capability": CAPABILITY}),
            file("v3", mode=0o755, pax={X + "security.capability": CAPABILITY_OF_ROOTID_1000}),
            directory("d", pax={X + "security.capability": CAPABILITY}),
        ],
        "user xattrs where the kernel takes none": [
            fifo("p", pax={X + "user.a": b"1"}),
            character("c", pax={X + "user.a": b"1"}),
        ],
        "xattrs on a symlink": but(
            [
                symlink("s", "x", pax={X + "trusted.a": b"1", X + "user.a": b"1"}),
                file("o"),
                symlink("t", "o", pax={X + "security.selinux": b"l\0"}),
            ],
            {28: "refused"},
        ),
        "xattr names with =, beyond UTF-8, of 255 bytes": [
            file("a", pax={X + "user.x=y": b"v"}),
            file("b", pax={X.encode() + b"user.\xff": b"v"}),
            file("c", pax={X + "user." + "n" * 250: b"v"}),
            file("d", pax={X + "user.v": b"v" * 3900}),
        ],
        "an xattr twice: the last counts": [pax(pax_record(X + "user.x", "1"), pax_record(X + "user.x", "2")) + item("f").raw],
        "an xattr that the file system does not know": but(
            [file("f", pax={X + "foo.bar": b"1", X + "foo": b"1"}), directory("d", pax={X + "system.foo": b"1"})], {26: "refused"}
        ),
        "an xattr with an empty value": but(
            [file("f", pax={X + "user.x": b""}), pax(pax_record(X + "user.y", "1"), pax_record(X + "user.y", "")) + item("g").raw],
            {26: "other tree"},
        ),
        "other programs' pax keys": [
            file("a", pax={"LIBARCHIVE.xattr.user.a": "MQ==", "SCHILY.acl.access": "user::rw-", "RHT.security.selinux": "x"}),
            file("b", pax={"comment": "c", "hdrcharset": "BINARY", "VENDOR.key": "v", "linkpath": "zz"}),
            file("c", b"abc", pax={"GNU.sparse.name": "sp"}),
            file("d", b"abc", pax={"GNU.sparse.major": "2", "GNU.sparse.minor": "0"}),
        ],
        # pax and GNU records
        "global pax headers are ignored": [
            pax_item({"comment": "0" * 40}, type="g", name="pax_global_header"),
            file("e", mtime=5),
            pax_item({"path": "evil", "mtime": "77", "uid": "9"}, type="g"),
            file("f", mtime=6),
        ],
        "of two extended headers the second counts": [
            pax(pax_record("path", "p1"), pax_record("uid", "4")),
            pax(pax_record("path", "p2")),
            file("f"),
        ],
        "sizes from pax": [
            pax(pax_record("size", "6")) + header("a", size=0) + padded(b"abcdef"),
            pax(pax_record("size", "3")) + header("b", size=6) + padded(b"abcdef"),
            pax(pax_record("size", "+3")) + header("c", size=6) + padded(b"abcdef"),
            file("d", b"abc", pax={"size": ""}),
        ],
        "record lengths as Go reads them": [
            pax_item(b"011 path=x\n"),
            file("f"),
            pax_item(b"+11 path=y\n"),
            file("f"),
            pax_item(b""),
            file("g"),
        ],
        "an extended header at the end": [file("f"), pax_item({"path": "p"})],
        "a long name at the end": [file("f"), gnu_record("L", b"p")],
        "an extended header of almost 1 MiB": [pax_item({"comment": "c" * ((1 << 20) - 20)}), file("f")],
        # the end of the tar
        "an empty layer": [],
        "a layer of no bytes": b"",
        "one zero block": bytes(512),
        "no end marker": build([file("f", b"1")], end=False),
        "half an end marker": build([file("f", b"1")], end=False) + bytes(512),
        "padding to 10,240 bytes": ONE_FILE + bytes(10240 - len(ONE_FILE)),
        "another tar behind the end": ONE_FILE + build([file("g", b"2")]),
        "garbage behind the end": ONE_FILE + b"garbage" * 100,
        "padding that is not zero": [file("f", b"abc", padding=b"P" * 509), file("g")],
        "a signed checksum": [
            file(b"\xe9" * 20, raw={"chksum": b"%06o\0 " % (layertar.checksum(header(b"\xe9" * 20, size=1)) - 256 * 20)})
        ],
        # one real path by two names
        "a directory by two spellings": [
            directory("/d", pax={X + "user.a": b"1"}),
            directory("d", mode=0o711, uid=4, pax={X + "user.b": b"2"}),
        ],
        "a directory again through a symlink": [
            directory("real"),
            symlink("ln", "real"),
            directory("real/d", mtime=WHEN),
            directory("ln/d", mode=0o700, uid=5, mtime=2 * WHEN),
        ],
        "a file by two spellings": but([file("/b", b"1"), file("b", b"2")], saves=False),
        "an equal file by two spellings": [file("/b", b"same"), file("b", b"same"), file("/c", b""), file("c", b"")],
        "a file again through a symlink": but(
            [directory("real"), symlink("ln", "real"), file("real/f", b"1"), file("ln/f", b"2")], saves=False
        ),
        "a symlink replaced by a directory": [directory("t"), symlink("/x", "t"), directory("x")],
        "a file replaced by a hard link": but([file("o", b"o"), file("/x", b"1"), hardlink("x", "o")], saves=False),
        "a linked file replaced": but([file("/o", b"old"), hardlink("l", "o"), file("o", b"new")], saves=False),
        "an ordinary device 0:0 replaced by a file": [character("/c", 0, 0), file("c")],
        "proc, sys and dev like anything else": [directory("proc"), file("proc/x"), directory("dev"), character("dev/null", mode=0o666)],
    }
)

REFUSED = _cases(
    {
        # the same path twice
        "a file twice": [file("b", b"1"), file("b", b"2")],
        "a directory twice": [directory("d"), directory("d", mode=0o700)],
        "a directory twice, once with a slash": [directory("d"), directory("d/")],
        "./b and b": [file("./b"), file("b")],
        "a//b and a/b": [directory("a"), file("a/b"), file("a//b")],
        "a/../b and b": [directory("a"), file("b"), file("a/../b")],
        "the root twice": [directory("./"), directory("./")],
        "a symlink, then a directory under its name": [directory("real"), symlink("ln", "real"), directory("ln/")],
        # whiteouts
        "a whiteout of the layer's own file": [file("f"), file(".wh.f")],
        "a whiteout of the layer's own directory": [directory("d"), file("d/x"), file(".wh.d")],
        "a whiteout of an implied directory": [file("d/x"), file(".wh.d")],
        "a whiteout of the layer's own symlink": [symlink("ln", "etc"), file(".wh.ln")],
        "a whiteout by two spellings": [file(".wh.f"), file("/.wh.f")],
        "a whiteout, then something below it": [file(".wh.d"), file("d/x")],
        ".wh. alone": [file(".wh.")],
        ".wh..": [file(".wh..")],
        ".wh...": [file(".wh...")],
        "d/.wh.": [directory("d"), file("d/.wh.")],
        "a whiteout of a name of 256 bytes": [file(".wh." + "n" * 256)],
        "a whiteout below a file": [file("f"), file("f/.wh.x")],
        "a whiteout through a dangling symlink": but([symlink("ln", "no"), file("ln/.wh.x")], {28: "accepted"}),
        "opaque by two spellings": [directory("d"), file("d/.wh..wh..opq"), file("./d/.wh..wh..opq")],
        "opaque through a dangling symlink": but([symlink("ln", "no"), file("ln/.wh..wh..opq")], {28: "accepted"}),
        # hard links
        "a hard link to a directory": [directory("d"), hardlink("l", "d")],
        "a hard link to the root": [hardlink("l", ".")],
        "a hard link to itself": [hardlink("l", "l")],
        "a hard link over its own target": [file("/l"), hardlink("l", "l")],
        "a hard link to a later entry": [hardlink("l", "o"), file("o")],
        "a hard link to a lower layer's file": [hardlink("l", "lower/f")],
        "a hard link to nothing": [hardlink("l", "nope")],
        "a hard link without a target": [hardlink("l", "")],
        "a hard link to a whiteout's own name": [file(".wh.f"), hardlink("l", ".wh.f")],
        "a hard link with data": [file("o"), hardlink("l", "o", data=b"xxxx"), file("after")],
        # parents
        "a parent that is a file": [file("f"), file("f/x")],
        "a grandparent that is a file": [file("f"), file("f/x/y")],
        "a parent that is a fifo": [fifo("f"), file("f/x")],
        "a parent that is a symlink to a file": [file("t"), symlink("f", "t"), file("f/x")],
        "a parent that dangles": but([symlink("ln", "nowhere"), file("ln/f")], {28: "accepted"}),
        "a parent that dangles until later": but([symlink("ln", "real"), file("ln/f"), directory("real")], {28: "accepted"}),
        "a parent that is in a lower layer only": but([symlink("ln", "lower"), file("ln/g")], {28: "accepted"}),
        "an absolute parent that dangles": but([symlink("ln", "/nowhere"), file("ln/f")], {28: "accepted"}),
        "a grandparent that dangles": but([symlink("ln", "no"), file("ln/x/y")], {28: "accepted"}),
        "a symlink to itself as parent": [symlink("ln", "ln"), file("ln/x")],
        "forty-one symlinks in a chain": [
            directory("r"),
            *[symlink(f"l{n}", f"l{n + 1}" if n < 40 else "r") for n in range(41)],
            file("l0/f"),
        ],
        "the root as a file": but([file("a"), file("/", b"1")], {28: "accepted"}),
        "the root as a symlink": but([file("a"), symlink("/", "etc")], {28: "accepted"}),
        # names
        "a name of 256 bytes": [file("n" * 256)],
        "a directory name of 256 bytes": [directory("n" * 256)],
        "an implied name of 256 bytes": [file("n" * 256 + "/f")],
        "a path over 4,096 bytes": [file("/".join([LONG] * 42))],
        "a symlink target of 4,096 bytes": [symlink("s", "t/" * 2048)],
        "a symlink without a target": [symlink("s", "")],
        "a NUL in a pax path": [file("x", pax={"path": b"a\0b"})],
        "a NUL in a pax linkpath": [symlink("x", "t", pax={"linkpath": b"a\0b"})],
        "a NUL in an xattr's name": [file("f", pax={X + "user.a\0b": b"1"})],
        # types
        "data behind a directory": [directory("d", data=b"junk"), file("after")],
        "data behind a symlink": [symlink("s", "x", data=b"yyyy"), file("after")],
        "data behind a fifo": [fifo("c", data=b"zz"), file("after")],
        "data behind a device": [character("c", data=b"zz"), file("after")],
        "data behind a type NUL directory": [item("d/", type=b"\0", data=b"abc", dialect="v7"), file("after")],
        "an old GNU sparse file": [
            header("sp", type="S", size=3, dialect="gnu", raw={386: b"00000000012\0" + b"00000000003\0", 483: b"00000000024\0"})
            + padded(b"abc")
        ],
        **{f"typeflag {flag}": [item("t", type=flag), file("after")] for flag in ("7", "S", "A", "Z", "D", "M", "N", "V", "X", "8", " ")},
        "typeflag 0x80 with data": [item("t", type=b"\x80", data=b"abc"), file("after")],
        # xattrs
        "an xattr without a name": [file("f", pax={X: b"1"})],
        "an xattr that is only a namespace": [file("f", pax={X + "user.": b"1"})],
        "an xattr name of 256 bytes": [file("f", pax={X + "user." + "n" * 251: b"1"})],
        "an xattr value over 64 KiB": [file("f", pax={X + "user.v": b"v" * 65537})],
        "a capability that is none": [file("f", pax={X + "security.capability": b"abc"})],
        # numbers
        "a broken uid": [file("d", raw={"uid": b"12x4567\0"})],
        "a broken device number on a file": [file("f", raw={"devmajor": b"zzzzzzz\0"})],
        "a broken pax uid": [file("d", pax={"uid": "abc"})],
        "a pax id with a fraction": [file("d", pax={"gid": "1.5"})],
        "a pax time with an exponent": [file("d", pax={"mtime": "1e9"})],
        "a pax time without digits before the point": [file("d", pax={"mtime": ".5"})],
        "a pax time over 64 bits": [file("d", pax={"mtime": "99999999999999999999"})],
        "a broken access time": [file("d", pax={"atime": "junk"})],
        "a negative size": [file("f", b"", raw={"size": b"\xff" * 12}), file("g")],
        "a negative pax size": [file("f", pax={"size": "-1"})],
        "a size in octal with a minus": [file("f", b"", raw={"size": b"-0000000001\0"})],
        "a size that is no number": [file("f", b"", raw={"size": b"zzzzzzzzzzz\0"}), file("g")],
        "a size beyond the end": [file("f", b"", size=2**40), file("g")],
        # pax and GNU records
        "a pax record longer than the header": [pax_item(b"99 path=x\n"), file("f")],
        "a pax record without =": [pax_item(b"8 pathx\n"), file("f")],
        "a pax record without a newline": [pax_item(b"9 path=xx"), file("f")],
        "a pax record without a key": [pax_item(b"6 =ab\n"), file("f")],
        "zeros behind the pax records": [pax_item(pax_record("path", "aaa") + bytes(10)), file("f")],
        "an extended header over 1 MiB": [pax_item({"comment": "c" * (1 << 20)}), file("f")],
        "a GNU name over 1 MiB": [gnu_record("L", b"p" * (1 << 20)), file("f")],
        # the end of the tar
        "a bad checksum": [file("f", raw={"chksum": b"000000\0 "}), file("g")],
        "a zero block, then an entry": build([file("f")], end=False) + bytes(512) + build([file("g")]),
        "a zero block, then garbage": build([file("f")], end=False) + bytes(512) + b"\x01" * 512,
        "an end inside a zero block": build([file("f")], end=False) + bytes(512 + 100),
        "an end inside a header": build([file("f")], end=False) + b"abc",
        "an end inside the data": build([file("f", b"1" * 1000)], end=False)[:-700],
        "no tar at all": b"\x7fELF" + b"\1" * 2000,
    }
)

STRICTER = _cases(
    {
        # it can never be saved again
        "pax sparse 1.0": but(
            [
                file(
                    "f",
                    b"1\n0\n3\n" + bytes(506) + b"abc",
                    pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99"},
                )
            ],
            saves=False,
        ),
        "pax sparse 0.1": but(
            [file("f", b"abc", pax={"GNU.sparse.map": "10,3", "GNU.sparse.size": "20", "GNU.sparse.numblocks": "1"})], saves=False
        ),
        # names that leave the root
        "../x": but([file("../x")], {28: "refused"}, saves=False),
        "a/../../x": but([directory("a"), file("a/../../x")], {28: "refused"}, saves=False),
        "a hard link to ../o": but([file("o"), hardlink("l", "../o")], {28: "refused"}),
        "a parent symlink that climbs out": but(
            [directory("etc2"), symlink("ln", "../../etc2"), file("ln/x")], {28: "refused"}, saves=False
        ),
        "a whiteout that climbs out": but([file("../.wh.x")], {28: "refused"}),
        # overlayfs's own marks
        "trusted.overlay.opaque as an xattr": [directory("d", pax={X + "trusted.overlay.opaque": b"y"})],
        "trusted.overlay.redirect as an xattr": [directory("d", pax={X + "trusted.overlay.redirect": b"/etc"})],
        "user.overlay.opaque as an xattr": [directory("d", pax={X + "user.overlay.opaque": b"y"})],
        # what SquashFS cannot hold
        "a POSIX ACL": [file("f", pax={X + "system.posix_acl_access": ACL})],
        "a default POSIX ACL": [directory("d", pax={X + "system.posix_acl_default": ACL})],
    }
)


def depth(layers: int) -> list[bytes]:
    """That many different layers."""
    return [build([file(f"f{number}")]) for number in range(layers)]


BASE = build(
    [directory("etc"), file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), directory("lower"), file("lower/f"), directory("tmp", mode=0o1777)]
)
