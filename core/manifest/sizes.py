"""Sizes as the manifest writes them: ``128K``, ``256M``, ``16G``, ``4MiB`` or plain bytes."""

from __future__ import annotations

import re

from shiplap.core.errors import Refused

_SIZE = re.compile(r"([1-9][0-9]{0,9})(?:([KMGTkmgt])(?:iB)?)?")
_SHIFT = {"K": 10, "M": 20, "G": 30, "T": 40}
MAX_SIZE_BYTES = 1 << 53  # what every JSON reader still holds exactly


class SizeInvalid(Refused):
    """A text that is no size."""


def parse_size(value: int | str) -> int:
    """Bytes meant by ``value``; suffixes are powers of 1024. Raises SizeInvalid.

    ``MB`` is refused: half of the world means a power of 1000 by it.
    """
    if isinstance(value, int):
        size_bytes = value
    else:
        match = _SIZE.fullmatch(value)
        if match is None:
            raise SizeInvalid(f"{value[:40]!r} is not a size", hint="write 128K, 256M, 16G (powers of 1024) or plain bytes")
        size_bytes = int(match[1]) << _SHIFT.get((match[2] or "").upper(), 0)
    if not 0 < size_bytes <= MAX_SIZE_BYTES:
        raise SizeInvalid(f"a size of {value} is out of range", hint=f"between 1 and {MAX_SIZE_BYTES} bytes")
    return size_bytes


def format_size(size_bytes: int) -> int | str:
    """The shortest form that parses to the same number: ``128K``, or the number itself."""
    for suffix, shift in reversed(_SHIFT.items()):
        if size_bytes and size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift}{suffix}"
    return size_bytes
