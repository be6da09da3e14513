"""An exact tar reader: header by header, at known offsets, as Go's ``archive/tar`` understands them.

The engines read layers with Go's reader (and with tar-split's copy of it), so its rules are ours: which
magic means which format, what an octal field may hold, that pax records with an empty value change
nothing, that global pax headers are returned and otherwise ignored, that meta headers hold at most
1 MiB. Python's ``tarfile`` is no substitute: it drops a trailing slash, merges headers and guesses.

Source of the rules: Go's archive/tar reader.go, strconv.go and format.go; POSIX.1-2008 pax.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from shiplap.core.entries import printable
from shiplap.core.errors import Refused

BLOCK_BYTES = 512
META_LIMIT_BYTES = 1 << 20
_ZERO_BLOCK = bytes(BLOCK_BYTES)
_HEADER_ONLY = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(rb"[+-]?[0-9]+")
_PAX_LENGTH = re.compile(rb"\+?[0-9]+")
_INT64_MAX = (1 << 63) - 1
_XATTR = b"SCHILY.xattr."
_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")


class TarCorrupt(Refused):
    """A tar stream that Go's reader, and so every engine, would refuse."""


class RandomAccess(Protocol):
    """Bytes that can be read at any offset; :class:`Window` makes one of a file."""

    @property
    def size_bytes(self) -> int: ...

    def read(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``; fewer only at the end."""
        ...


class TarHeader(NamedTuple):
    """One entry. Offsets are bytes from the start of the tar.

    ``start``..``data_offset`` are the raw header blocks, meta headers (pax, GNU long names) included;
    ``data_offset``..``data_offset + data_bytes`` the content. ``size_bytes`` is what the header claims,
    ``data_bytes`` what is stored (0 for links, devices, directories). ``mtime_nanoseconds`` is 0 to
    999,999,999, also before 1970. ``sparse`` marks the GNU sparse formats, whose maps are not read.
    """

    name: bytes
    typeflag: bytes
    linkname: bytes
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_epoch: int
    mtime_nanoseconds: int
    devmajor: int
    devminor: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    sparse: bool
    start: int
    data_offset: int
    data_bytes: int


def _numeric(field: bytes) -> int:
    """A base-256 or octal field; raises ValueError."""
    if field[0] & 0x80:
        negative = bool(field[0] & 0x40)
        raw = int.from_bytes(field, "big")
        bits = 8 * len(field)
        # The top bit only marks the encoding; the one below it is the sign.
        value = raw - (1 << bits) if negative else raw & ((1 << (bits - 1)) - 1)
        if not -_INT64_MAX - 1 <= value <= _INT64_MAX:
            raise ValueError("a base-256 number does not fit 64 bits")
        return value
    return _octal(field)


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    end = digits.find(b"\0")
    if end >= 0:
        digits = digits[:end]
    if not _OCTAL.fullmatch(digits):
        raise ValueError(f"'{printable(digits)}' is not an octal number")
    return int(digits, 8)


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def _decimal(text: bytes, key: str) -> int:
    if _DECIMAL.fullmatch(text) and len(text.lstrip(b"+-0")) < 20 and -_INT64_MAX - 1 <= _whole(text) <= _INT64_MAX:
        return _whole(text)
    raise ValueError(f"pax record {key} holds '{printable(text[:40])}'")


def _whole(text: bytes) -> int:
    """Digits after a sign, perhaps. Any number of leading zeros is fine, which Python's own ``int`` limits."""
    value = int(text.lstrip(b"+-0") or b"0")
    return -value if text.startswith(b"-") else value


def _pax_time(text: bytes) -> tuple[int, int]:
    whole, _, fraction = text.partition(b".")
    seconds = _decimal(whole, "mtime")
    if not fraction:
        return seconds, 0
    if not fraction.isdigit():
        raise ValueError(f"pax record mtime holds '{printable(text[:40])}'")
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    if whole.startswith(b"-") and nanoseconds:
        return seconds - 1, 1_000_000_000 - nanoseconds
    return seconds, nanoseconds


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Records of a pax header, the last of a key winning; raises ValueError."""
    records: dict[bytes, bytes] = {}
    sparse_map: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position)
        length = data[position:space] if space >= 0 else b""
        if not _PAX_LENGTH.fullmatch(length) or len(length.lstrip(b"+0")) > 7:
            raise ValueError("a pax record has no length")
        end = position + _whole(length)
        if end - position < 5 or end > len(data) or end - 1 <= space or data[end - 1] != 0x0A:
            raise ValueError("a pax record's length is wrong")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise ValueError("a pax record has no key")
        if b"\0" in (value if key in (b"path", b"linkpath", b"uname", b"gname") else key):
            raise ValueError(f"pax record {printable(key)} has a NUL byte")
        position = end
        if key in _SPARSE_PAIR:
            # GNU's format 0.0 repeats two keys in turn; Go makes one map of them, as format 0.1 has it.
            if key != _SPARSE_PAIR[len(sparse_map) % 2] or b"," in value:
                raise ValueError("the pax records of a GNU sparse file are out of order")
            sparse_map.append(value)
        else:
            records[key] = value
    if sparse_map:
        records[b"GNU.sparse.map"] = b",".join(sparse_map)
    return records


class _Fields(NamedTuple):
    """What one 512-byte header block says, before meta headers change it."""

    name: bytes
    typeflag: bytes
    linkname: bytes
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_epoch: int
    devmajor: int
    devminor: int


def _checksum_holds(block: bytes) -> bool:
    claimed = _octal(block[148:156])
    # The checksum field itself counts as eight spaces.
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    if claimed == unsigned:
        return True
    rest = block[:148] + block[156:]
    return claimed == unsigned - 256 * sum(byte >= 0x80 for byte in rest)


def _prefix(block: bytes) -> bytes:
    """The name prefix, whose place and meaning depend on the format's magic."""
    magic = block[257:265]
    if magic[:6] == b"ustar\0":
        return _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
    if magic == b"ustar  \0":
        # GNU has no prefix, but writers built on Go before 1.8 put one over atime and ctime.
        try:
            for field in (block[345:357], block[357:369]):
                if field[0]:
                    _numeric(field)
        except ValueError:
            prefix = _text(block[345:500])
            return prefix if prefix.isascii() else b""
    return b""


def _fields(block: bytes) -> _Fields:
    if not _checksum_holds(block):
        raise ValueError("the header's checksum is wrong")
    name = _text(block[:100])
    major = minor = 0
    if block[257:263] == b"ustar\0" or block[257:265] == b"ustar  \0":
        major, minor = _numeric(block[329:337]), _numeric(block[337:345])
        if block[345] and (prefix := _prefix(block)):
            name = prefix + b"/" + name
        if block[257:263] == b"ustar\0" and block[508:512] == b"tar\0":
            _numeric(block[476:488])
            _numeric(block[488:500])
    return _Fields(
        name,
        block[156:157],
        _text(block[157:257]),
        _numeric(block[100:108]),
        _numeric(block[108:116]),
        _numeric(block[116:124]),
        _numeric(block[124:136]),
        _numeric(block[136:148]),
        major,
        minor,
    )


def read_headers(data: RandomAccess, *, what: str = "tar") -> Iterator[TarHeader]:
    """Yield every entry of the tar in ``data``; ``what`` names it in errors.

    Ends at two zero blocks, or at the end of the data; what follows is left unread.
    Raises TarCorrupt where Go's reader fails.
    """
    position = 0
    size = data.size_bytes
    previous = b""
    try:
        while True:
            start = position
            pax: dict[bytes, bytes] = {}
            long_name = long_link = b""
            while True:
                block = data.read(position, BLOCK_BYTES)
                if not block or (block == _ZERO_BLOCK and _at_end(data, position)):
                    return
                if len(block) < BLOCK_BYTES:
                    raise ValueError("it ends inside a header")
                fields = _fields(block)
                if fields.size_bytes < 0 and fields.typeflag not in _HEADER_ONLY:
                    raise ValueError("a size is negative")
                position += BLOCK_BYTES
                if fields.typeflag not in b"xgLK" or not fields.typeflag:
                    break
                meta = _meta(data, position, fields.size_bytes)
                position += -(-len(meta) // BLOCK_BYTES) * BLOCK_BYTES
                if fields.typeflag == b"L":
                    long_name = _text(meta)
                elif fields.typeflag == b"K":
                    long_link = _text(meta)
                elif fields.typeflag == b"x":
                    pax = parse_pax(meta)
                else:
                    # Only its name counts, for whoever wants every name once; a record can change it.
                    name = _merge(fields, parse_pax(meta), start, position).name
                    yield TarHeader(name, b"g", b"", 0, 0, 0, 0, 0, 0, 0, 0, (), False, start, position, 0)
                    start, pax, long_name, long_link = position, {}, b"", b""
            header = _merge(fields, pax, start, position)
            if long_name or long_link:
                header = header._replace(name=long_name or header.name, linkname=long_link or header.linkname)
            if header.typeflag == b"\0":
                header = header._replace(typeflag=b"5" if header.name.endswith(b"/") else b"0")
            stored = 0 if header.typeflag in _HEADER_ONLY else header.size_bytes
            if stored < 0:
                raise ValueError("a size is negative")
            if position + stored > size:
                raise ValueError(f"it ends inside '{printable(header.name)}', {position + stored - size} bytes early")
            previous = header.name
            yield header if stored == 0 else header._replace(data_bytes=stored)
            position += stored + -stored % BLOCK_BYTES
    except ValueError as error:
        where = f"after entry '{printable(previous)}'" if previous else "at the first entry"
        raise TarCorrupt(f"{what} is not a valid tar: {error} (byte {position}, {where})") from error


def _at_end(data: RandomAccess, position: int) -> bool:
    """Whether the zero block at ``position`` ends the archive; raises ValueError when data follows it."""
    following = data.read(position + BLOCK_BYTES, BLOCK_BYTES)
    if following and len(following) < BLOCK_BYTES:
        raise ValueError("it ends inside a block")
    if following and following != _ZERO_BLOCK:
        raise ValueError("a single zero block is followed by data")
    return True


def _meta(data: RandomAccess, position: int, size_bytes: int) -> bytes:
    if not 0 <= size_bytes <= META_LIMIT_BYTES:
        raise ValueError(f"a meta header claims {size_bytes} bytes, the limit is {META_LIMIT_BYTES}")
    meta = data.read(position, size_bytes)
    if len(meta) < size_bytes:
        raise ValueError("it ends inside a meta header")
    return meta


def _is_sparse(pax: dict[bytes, bytes]) -> bool:
    """Whether the records form one of GNU's sparse formats 0.0, 0.1 or 1.0; single keys do not."""
    version = (pax.get(b"GNU.sparse.major", b""), pax.get(b"GNU.sparse.minor", b""))
    if version != (b"", b""):
        return version in ((b"0", b"0"), (b"0", b"1"), (b"1", b"0"))
    return bool(pax.get(b"GNU.sparse.map"))


def _merge(fields: _Fields, pax: dict[bytes, bytes], start: int, data_offset: int) -> TarHeader:
    name, typeflag, linkname, mode, uid, gid, size_bytes, mtime, major, minor = fields
    nanoseconds = 0
    xattrs: list[tuple[bytes, bytes]] = []
    sparse = typeflag == b"S" or _is_sparse(pax)
    for key, value in pax.items():
        if not value:
            continue  # an empty value leaves the header's own
        if key.startswith(_XATTR):
            xattrs.append((key[len(_XATTR) :], value))
        elif key == b"path":
            name = value
        elif key == b"linkpath":
            linkname = value
        elif key == b"uid":
            uid = _decimal(value, "uid")
        elif key == b"gid":
            gid = _decimal(value, "gid")
        elif key == b"size":
            size_bytes = _decimal(value, "size")
        elif key == b"mtime":
            mtime, nanoseconds = _pax_time(value)
        elif key in (b"atime", b"ctime"):
            _pax_time(value)
    xattrs.sort()
    return TarHeader(
        name,
        typeflag,
        linkname,
        mode,
        uid,
        gid,
        size_bytes,
        mtime,
        nanoseconds,
        major,
        minor,
        tuple(xattrs),
        sparse,
        start,
        data_offset,
        0,
    )
