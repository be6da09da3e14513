"""Extended attributes on their way into the image: each set stored once, large values shared between sets."""

from __future__ import annotations

import hashlib
import struct

from shiplap.rootfs.squashfs.compress import Deflate
from shiplap.rootfs.squashfs.superblock import NOTHING
from shiplap.rootfs.squashfs.write.errors import cannot_hold
from shiplap.rootfs.squashfs.write.metadata import NO_TABLE, MetadataWriter, write_table
from shiplap.rootfs.squashfs.write.output import ImageOutput
from shiplap.rootfs.squashfs.xattrs import PREFIXES, Xattrs

# Linux's own limits: XATTR_NAME_MAX, XATTR_SIZE_MAX, XATTR_LIST_MAX.
NAME_LIMIT_BYTES = 255
VALUE_LIMIT_BYTES = 65536
LIST_LIMIT_BYTES = 65536

_OUT_OF_LINE = 0x0100
_KEY = struct.Struct("<HH")
_WORD = struct.Struct("<I")
_LENGTHS = struct.Struct("<II")
_ELSEWHERE = struct.Struct("<IQ")
_RECORD = struct.Struct("<QII")
_HEADER = struct.Struct("<QII")


class XattrTable:
    """Collects the sets. They go into metadata blocks at once, so that very many different ones take little memory."""

    def __init__(self, deflate: Deflate) -> None:
        self._deflate = deflate
        self._stored = bytearray()
        self._pairs = MetadataWriter(self._stored.extend, deflate)
        self._records = bytearray()
        self._sets: dict[bytes, int] = {}
        self._values: dict[bytes, int] = {}

    def add(self, xattrs: Xattrs, path: bytes) -> int:
        """The number of the set ``xattrs`` (not empty, sorted by name), those of the entry ``path``; raises SquashfsCannotHold."""
        packed = b"".join([_LENGTHS.pack(len(name), len(value)) + name + value for name, value in xattrs])
        digest = hashlib.sha256(packed).digest()
        known = self._sets.get(digest)
        if known is None:
            _check(xattrs, path)
            self._sets[digest] = known = len(self._sets)
            self._write(xattrs)
        return known

    def finish(self, output: ImageOutput) -> int:
        """Write the table; its position, or NO_TABLE without any set."""
        if not self._sets:
            return NO_TABLE
        self._pairs.finish()
        start = output.position
        output.write(bytes(self._stored))
        return write_table(output, bytes(self._records), self._deflate, _HEADER.pack(start, len(self._sets), 0))

    def _write(self, xattrs: Xattrs) -> None:
        reference = self._pairs.reference
        size = 0
        for name, value in xattrs:
            prefix = next(number for number, prefix in enumerate(PREFIXES) if name.startswith(prefix))
            rest = name[len(PREFIXES[prefix]) :]
            elsewhere = self._values.get(hashlib.sha256(value).digest()) if len(value) > 8 else None
            if elsewhere is None:
                self._pairs.write(_KEY.pack(prefix, len(rest)) + rest)
                if len(value) > 8:  # a reference takes eight
                    self._values[hashlib.sha256(value).digest()] = self._pairs.reference
                self._pairs.write(_WORD.pack(len(value)) + value)
            else:
                self._pairs.write(_KEY.pack(prefix | _OUT_OF_LINE, len(rest)) + rest + _ELSEWHERE.pack(8, elsewhere))
            # What Linux counts as space on the disk: full names with a NUL, and values.
            size += len(name) + 1 + len(value)
        self._records += _RECORD.pack(reference, len(xattrs), size)


def _check(xattrs: Xattrs, path: bytes) -> None:
    previous = b""
    for name, value in xattrs:
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            what = f"its attribute {name[:80]!r} is none of " + ", ".join(prefix.decode() + "*" for prefix in PREFIXES)
            raise cannot_hold(path, what, hint="remove it (an ACL with `setfacl -b`)")
        if len(name) == len(prefix) or b"\0" in name or name <= previous:
            raise cannot_hold(path, f"an attribute cannot be called {name[:80]!r}, or not twice")
        if len(name) > NAME_LIMIT_BYTES:
            raise cannot_hold(path, f"an attribute's name has {len(name)} bytes, {NAME_LIMIT_BYTES} are the limit")
        if len(value) > VALUE_LIMIT_BYTES:
            raise cannot_hold(path, f"its attribute {name[:80]!r} has {len(value)} bytes, {VALUE_LIMIT_BYTES} are the limit")
        previous = name
    if sum(len(name) + 1 for name, _ in xattrs) > LIST_LIMIT_BYTES:
        raise cannot_hold(path, f"the names of its attributes have more than {LIST_LIMIT_BYTES} bytes together")
    assert len(xattrs) < NOTHING
