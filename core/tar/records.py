"""The canonical tar record writer: one way, and only one, to write an entry.

ustar with pax where ustar cannot say it. Numeric owners, empty user and group names, no atime, no
ctime; pax keys sorted; a fixed name for the extended header; two zero blocks at the end. A link target
over 100 bytes goes into a GNU ``K`` record, because squashfs-tools 4.5.1 strips the leading ``/`` from
a pax ``linkpath``; every engine and tool that reads our records knows ``K``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shiplap.core.entries import Entry, Kind

BLOCK_BYTES = 512
END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)
_EXTENDED_NAME = b"././@PaxHeader"
_LONG_LINK_NAME = b"././@LongLink"
_NAME_BYTES = 100
_OCTAL_7 = 0o7777777
_OCTAL_11 = 0o77777777777
_TYPEFLAG = {
    Kind.REGULAR: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
KINDS = {typeflag: kind for kind, typeflag in _TYPEFLAG.items()}
"""What the typeflags of entries mean; a NUL typeflag has become one of them in the reader."""
_USTAR_NUMERIC = b"ustar\x0000" + bytes(64)  # magic, version, empty uname and gname
_NO_DEVICE = b"0000000\x000000000\x00" + bytes(155 + 12)  # device numbers, prefix, padding


def _header(
    name: bytes, typeflag: bytes, mode: int, uid: int, gid: int, size_bytes: int, mtime_epoch: int, link: bytes, device: tuple[int, int]
) -> bytes:
    tail = _NO_DEVICE if device == (0, 0) else b"%07o\x00%07o\x00" % device + _NO_DEVICE[16:]
    before = b"%s%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00" % (name.ljust(_NAME_BYTES, b"\0"), mode, uid, gid, size_bytes, mtime_epoch)
    after = b"%s%s%s%s" % (typeflag, link.ljust(_NAME_BYTES, b"\0"), _USTAR_NUMERIC, tail)
    return b"%s%06o\x00 %s" % (before, sum(before) + sum(after) + 8 * 32, after)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK_BYTES)


def _pax_record(key: bytes, value: bytes) -> bytes:
    body = len(key) + len(value) + 3  # space, equals sign, newline
    length = body + len(str(body))
    if len(str(length)) != len(str(body)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _pax_time(seconds: int, nanoseconds: int) -> bytes:
    if nanoseconds == 0:
        return b"%d" % seconds
    sign = b""
    if seconds < 0:
        sign, seconds, nanoseconds = b"-", -(seconds + 1), 1_000_000_000 - nanoseconds
    return (b"%s%d.%09d" % (sign, seconds, nanoseconds)).rstrip(b"0")


def entry_header(entry: Entry) -> bytes:
    """All header blocks of ``entry``, meta headers included. Shape: a multiple of 512 bytes."""
    name = entry.path or b"."
    if entry.kind is Kind.DIRECTORY:
        name += b"/"
    size_bytes = entry.content.size_bytes if entry.content is not None and entry.kind is Kind.REGULAR else 0
    uid, gid, mtime, link = entry.uid, entry.gid, entry.mtime_epoch, entry.link
    pax: list[tuple[bytes, bytes]] = [(b"SCHILY.xattr." + key, value) for key, value in entry.xattrs]
    if len(name) > _NAME_BYTES:
        pax.append((b"path", name))
        # Never end the short name with a slash: some readers would take a file for a directory.
        name = name[:_NAME_BYTES].rstrip(b"/")
    if uid > _OCTAL_7:
        pax.append((b"uid", b"%d" % uid))
        uid = 0
    if gid > _OCTAL_7:
        pax.append((b"gid", b"%d" % gid))
        gid = 0
    header_size = size_bytes
    if size_bytes > _OCTAL_11:
        pax.append((b"size", b"%d" % size_bytes))
        header_size = 0
    if entry.mtime_nanoseconds or not 0 <= mtime <= _OCTAL_11:
        pax.append((b"mtime", _pax_time(mtime, entry.mtime_nanoseconds)))
        mtime = min(max(mtime, 0), _OCTAL_11)
    blocks = b""
    if pax:
        pax.sort()
        records = b"".join(_pax_record(key, value) for key, value in pax)
        blocks = _header(_EXTENDED_NAME, b"x", 0o644, 0, 0, len(records), 0, b"", (0, 0)) + _padded(records)
    if len(link) > _NAME_BYTES:
        target = link + b"\0"
        blocks += _header(_LONG_LINK_NAME, b"K", 0o644, 0, 0, len(target), 0, b"", (0, 0)) + _padded(target)
        link = link[:_NAME_BYTES]
    device = entry.device if entry.kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0)
    return blocks + _header(name, _TYPEFLAG[entry.kind], entry.mode, uid, gid, header_size, mtime, link, device)


def write_entry(entry: Entry, write: Callable[[bytes], object]) -> None:
    """Write ``entry`` with its content and padding."""
    header = entry_header(entry)
    content = entry.content
    if content is None or entry.kind is not Kind.REGULAR or content.size_bytes == 0:
        write(header)
        return
    left = content.size_bytes
    padding = bytes(-left % BLOCK_BYTES)
    for piece in content.chunks():
        left -= len(piece)
        # Joined writes: a small file is one write to the pipe instead of three.
        if header or (not left and padding):
            piece = b"".join((header, piece, b"" if left else padding))
            header = b""
            padding = padding if left else b""
        write(piece)
    if left:
        raise EOFError(f"the content of {entry.path!r} is {left} bytes off its stated size")


def write_records(entries: Iterable[Entry], write: Callable[[bytes], object]) -> None:
    """Write a whole tar: every entry in the order given, then two zero blocks."""
    for entry in entries:
        write_entry(entry, write)
    write(END_OF_ARCHIVE)
