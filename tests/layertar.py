"""Layer tars from Python values, with control over every header byte.

``build([item("etc", type="5"), item("etc/hosts", data=b"x")])`` is a plain ustar layer. Every field of a
header can be forced, also to what no sane program would write; nothing here uses ``tarfile``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

BLOCK = 512
END = bytes(2 * BLOCK)

# field: (offset, length) of the POSIX ustar header (pax(1), "ustar Interchange Format")
FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "chksum": (148, 8),
    "typeflag": (156, 1),
    "linkname": (157, 100),
    "magic": (257, 6),
    "version": (263, 2),
    "uname": (265, 32),
    "gname": (297, 32),
    "devmajor": (329, 8),
    "devminor": (337, 8),
    "prefix": (345, 155),
}
_MAGIC = {"ustar": b"ustar\x0000", "gnu": b"ustar  \x00", "v7": b""}
_DEFAULT_MODE = {"5": 0o755, "2": 0o777}


@dataclass(frozen=True, slots=True)
class TarItem:
    """One entry as it lies in the tar: extension records, header, data, padding."""

    raw: bytes


def octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def number(value: int, length: int) -> bytes:
    """``value`` as NUL-terminated octal, or in GNU's base 256 where octal has no room (or it is negative)."""
    if 0 <= value < 8 ** (length - 1):
        return b"%0*o\x00" % (length - 1, value)
    return (value % (1 << 8 * length) | 1 << (8 * length - 1)).to_bytes(length, "big")


def pax_record(key: str | bytes, value: str | bytes) -> bytes:
    """One ``"%d %s=%s\\n"`` record whose length counts itself."""
    body = b" " + octets(key) + b"=" + octets(value) + b"\n"
    length = len(body) + 1
    while length != len(b"%d" % length) + len(body):
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def pax_records(records: Mapping[str, str | bytes]) -> bytes:
    return b"".join(pax_record(key, value) for key, value in records.items())


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def checksum(header: bytes) -> int:
    start, length = FIELDS["chksum"]
    return sum(header[:start]) + 32 * length + sum(header[start + length :])


def header(
    name: str | bytes,
    *,
    type: str | bytes = "0",
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    linkname: str | bytes = b"",
    uname: str | bytes = b"",
    gname: str | bytes = b"",
    devmajor: int = 0,
    devminor: int = 0,
    prefix: str | bytes = b"",
    dialect: str = "ustar",
    raw: Mapping[int | str, bytes] | None = None,
) -> bytes:
    """The 512 bytes of one header.

    ``raw`` maps a field's name or an offset to bytes put there as they are. The checksum is computed
    over the result, unless ``raw`` sets ``chksum`` itself.
    """
    values = {
        "name": octets(name),
        "mode": number(mode, 8),
        "uid": number(uid, 8),
        "gid": number(gid, 8),
        "size": number(size, 12),
        "mtime": number(mtime, 12),
        "typeflag": octets(type),
        "linkname": octets(linkname),
        "magic": _MAGIC[dialect],
    }
    if dialect != "v7":
        values |= {"uname": octets(uname), "gname": octets(gname), "devmajor": number(devmajor, 8), "devminor": number(devminor, 8)}
        values |= {"prefix": octets(prefix)} if prefix else {}
    block = bytearray(BLOCK)
    for field, value in values.items():
        start, length = FIELDS[field]
        if field == "magic":
            length = 8
        if len(value) > length:
            raise ValueError(f"{value!r} does not fit into {field}")
        block[start : start + len(value)] = value
    forced = {(FIELDS[key][0] if isinstance(key, str) else key): value for key, value in (raw or {}).items()}
    sum_at = FIELDS["chksum"][0]
    for start, value in forced.items():
        block[start : start + len(value)] = value
    if sum_at not in forced:
        block[sum_at : sum_at + 8] = b"%06o\x00 " % checksum(bytes(block))
    if len(block) != BLOCK:
        raise ValueError("raw does not fit into the header")
    return bytes(block)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """``(prefix, name)`` for ustar, or None when it cannot be split."""
    for at in range(min(len(name) - 2, 155), 0, -1):
        if name[at : at + 1] == b"/" and len(name) - at - 1 <= 100:
            return name[:at], name[at + 1 :]
    return None


def item(
    name: str | bytes,
    *,
    type: str | bytes = "0",
    data: bytes = b"",
    mode: int | None = None,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    linkname: str | bytes = b"",
    uname: str | bytes = b"",
    gname: str | bytes = b"",
    devmajor: int = 0,
    devminor: int = 0,
    pax: Mapping[str, str | bytes] | None = None,
    gnu_long: bool = False,
    dialect: str = "ustar",
    size: int | None = None,
    padding: bytes | None = None,
    raw: Mapping[int | str, bytes] | None = None,
) -> TarItem:
    """One entry.

    ``type`` is the typeflag (``"0"`` file, ``"1"`` hard link, ``"2"`` symlink, ``"3"`` char, ``"4"``
    block, ``"5"`` directory, ``"6"`` fifo, or any other byte). ``pax``: records of an extended header
    before it; ``gnu_long``: GNU ``L``/``K`` records before it for name and link target, whatever their
    length. A name or target over 100 bytes is otherwise split into ``prefix`` or goes into pax records.
    ``size`` overrides the header's size field (a lie), ``padding`` what follows the data, ``raw`` any
    header byte (see :func:`header`).
    """
    name, linkname = octets(name), octets(linkname)
    typeflag = octets(type)
    if mode is None:
        mode = _DEFAULT_MODE.get(typeflag.decode("latin-1"), 0o644)
    records = dict(pax or {})
    before = b""
    prefix = b""
    if gnu_long:
        dialect = "gnu"
        if linkname:
            before += gnu_record("K", linkname)
        before += gnu_record("L", name)
    else:
        if len(name) > 100 and "path" not in records:
            split = _split(name) if dialect == "ustar" else None
            if split is None:
                records["path"] = name
            else:
                prefix, name = split
        if len(linkname) > 100 and "linkpath" not in records:
            records["linkpath"] = linkname
    if records:
        before += pax_item(records).raw
    block = header(
        name[:100],
        type=typeflag,
        size=len(data) if size is None else size,
        mode=mode,
        uid=uid,
        gid=gid,
        mtime=mtime,
        linkname=linkname[:100],
        uname=uname,
        gname=gname,
        devmajor=devmajor,
        devminor=devminor,
        prefix=prefix,
        dialect=dialect,
        raw=raw,
    )
    return TarItem(before + block + (padded(data) if padding is None else data + padding))


def gnu_record(type: str, value: bytes) -> bytes:
    """A GNU ``L`` (long name) or ``K`` (long link target) record."""
    value += b"\x00"
    return header("././@LongLink", type=type, size=len(value), mode=0, dialect="gnu") + padded(value)


def pax_item(records: Mapping[str, str | bytes] | bytes, *, type: str = "x", name: str | bytes = "PaxHeaders/x") -> TarItem:
    """An extended header (``x``) or a global one (``g``) by itself; bytes are taken as they are."""
    body = records if isinstance(records, bytes) else pax_records(records)
    return TarItem(header(name, type=type, size=len(body)) + padded(body))


def build(items: Iterable[TarItem | Mapping[str, Any] | bytes], *, end: bool = True) -> bytes:
    """The tar: items as :class:`TarItem`, as keywords of :func:`item`, or as raw bytes; then two zero blocks."""
    parts: list[bytes] = []
    for one in items:
        if isinstance(one, bytes):
            parts.append(one)
        elif isinstance(one, TarItem):
            parts.append(one.raw)
        else:
            parts.append(item(**one).raw)
    return b"".join(parts) + (END if end else b"")


def layer(entries: Iterable[TarItem | Mapping[str, Any] | bytes]) -> bytes:
    """The same as :func:`build`, under the name a reader of image tests expects."""
    return build(entries)


def diff_id(tar: bytes) -> str:
    return "sha256:" + hashlib.sha256(tar).hexdigest()
