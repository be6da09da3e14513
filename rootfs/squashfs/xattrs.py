"""Extended attributes: sets of them, shared by inodes, with values in line or elsewhere."""

from __future__ import annotations

import struct

from shiplap.core.entries import printable
from shiplap.rootfs.squashfs.decompress import Inflate
from shiplap.rootfs.squashfs.file import ImageFile
from shiplap.rootfs.squashfs.metadata import Cursor, LookupTable, MetadataArea

Xattrs = tuple[tuple[bytes, bytes], ...]

PREFIXES = (b"user.", b"trusted.", b"security.")
"""The three namespaces that SquashFS can store, in the order of its type numbers."""

# Linux's own limits (XATTR_NAME_MAX, XATTR_SIZE_MAX, XATTR_LIST_MAX) and a bound on one inode's whole set.
_NAME_LIMIT_BYTES = 255
_VALUE_LIMIT_BYTES = 65536
_NAMES_LIMIT_BYTES = 65536
_SET_LIMIT_BYTES = 1 << 20

_OUT_OF_LINE = 0x0100
_HEADER = struct.Struct("<QII")
_RECORD = struct.Struct("<QII")
_KEY = struct.Struct("<HH")
_WORD = struct.Struct("<I")
_REFERENCE = struct.Struct("<Q")
_CACHED_SETS = 64
_CACHED_SET_LIMIT_BYTES = 4096


class XattrTable:
    """The sets of an image, by the number that inodes hold."""

    def __init__(self, file: ImageFile, inflate: Inflate, start: int) -> None:
        keys, count, _unused = _HEADER.unpack(file.read(start, _HEADER.size, "the xattr table"))
        tables = MetadataArea(file, inflate, 0, start, "xattr table", cached_blocks=8)
        self._records = LookupTable(tables, start + _HEADER.size, count, _RECORD.size)
        if keys > start:
            raise tables.error(f"the attributes lie at byte {keys}, behind the table at {start}")
        self._area = MetadataArea(file, inflate, keys, start, "xattrs", cached_blocks=16)
        self._cache: dict[int, Xattrs] = {}

    def get(self, index: int) -> Xattrs:
        """The attributes of set ``index``, sorted by name; raises SquashfsError."""
        found = self._cache.get(index)
        if found is None:
            found = self._read(index)
            if sum(len(value) for _, value in found) <= _CACHED_SET_LIMIT_BYTES:
                while len(self._cache) >= _CACHED_SETS:
                    self._cache.pop(next(iter(self._cache)), None)
                self._cache[index] = found
        return found

    def _read(self, index: int) -> Xattrs:
        reference, count, _size = _RECORD.unpack(self._records.record(index))
        cursor = self._area.cursor(reference)
        found: dict[bytes, bytes] = {}
        names_bytes = values_bytes = 0
        for _ in range(count):
            name, value = self._pair(cursor, index)
            if name in found:
                raise self._area.error(f"set {index} holds {printable(name)} twice")
            found[name] = value
            names_bytes += len(name) + 1
            values_bytes += len(value)
            if names_bytes > _NAMES_LIMIT_BYTES or values_bytes > _SET_LIMIT_BYTES:
                raise self._area.error(f"set {index} is larger than one inode's attributes can be")
        return tuple(sorted(found.items()))

    def _pair(self, cursor: Cursor, index: int) -> tuple[bytes, bytes]:
        type_, length = _KEY.unpack(cursor.take(_KEY.size))
        prefix = type_ & ~_OUT_OF_LINE
        if prefix >= len(PREFIXES):
            raise self._area.error(f"set {index} holds an attribute of the unknown type {type_:#x}")
        name = PREFIXES[prefix] + cursor.take(min(length, _NAME_LIMIT_BYTES))
        if not length or len(name) > _NAME_LIMIT_BYTES or b"\0" in name:
            raise self._area.error(f"set {index} holds the impossible name '{printable(name)}'")
        if not type_ & _OUT_OF_LINE:
            return name, self._value(cursor, name)
        (size,) = _WORD.unpack(cursor.take(_WORD.size))
        if size != _REFERENCE.size:
            raise self._area.error(f"{printable(name)} in set {index} refers to its value with {size} bytes instead of 8")
        (elsewhere,) = _REFERENCE.unpack(cursor.take(_REFERENCE.size))
        return name, self._value(self._area.cursor(elsewhere), name)

    def _value(self, cursor: Cursor, name: bytes) -> bytes:
        (size,) = _WORD.unpack(cursor.take(_WORD.size))
        if size > _VALUE_LIMIT_BYTES:
            raise self._area.error(f"{printable(name)} claims a value of {size} bytes")
        return cursor.take(size)
