"""A quick look through a tar that is somebody else's business: names, types, modes and where contents lie.

Plain headers are read here, at a tenth of the cost; everything else (pax and GNU headers, prefixes, numbers in base 256) goes to the
exact reader. Checksums and the fields that are not given out stay unread, so that a tar which engines refuse may pass: whoever has to
know uses :func:`~shiplap.core.tar.reader.read_headers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from shiplap.core.tar.reader import BLOCK_BYTES, RandomAccess, TarCorrupt, read_headers

_ZERO_BLOCK = bytes(BLOCK_BYTES)
_PLAIN = frozenset(b"0123456")
_WITH_DATA = ord("0")


class Skimmed(NamedTuple):
    """One entry: ``typeflag``, ``mode`` and both names as the header has them; the content at ``data_offset`` of the tar."""

    name: bytes
    typeflag: bytes
    linkname: bytes
    mode: int
    data_offset: int
    data_bytes: int
    sparse: bool = False


def skim_headers(data: RandomAccess, *, what: str = "tar") -> Iterator[Skimmed]:
    """Yield every entry of the tar in ``data``; ``what`` names it in errors. Raises TarCorrupt where nothing sensible can follow."""
    position = 0
    size = data.size_bytes
    read = data.read
    while position < size:
        block = read(position, BLOCK_BYTES)
        if block == _ZERO_BLOCK:
            return
        typeflag = block[156] if len(block) == BLOCK_BYTES else 0
        try:
            plain = typeflag in _PLAIN and block[257:262] == b"ustar" and not block[345]
            stored = int(block[124:136].rstrip(b" \0") or b"0", 8) if plain and typeflag == _WITH_DATA else 0
            mode = int(block[100:108].rstrip(b" \0") or b"0", 8) if plain else 0
        except ValueError:
            plain = False
        if plain and 0 <= stored <= size - position - BLOCK_BYTES:
            position += BLOCK_BYTES
            yield Skimmed(block[:100].partition(b"\0")[0], block[156:157], block[157:257].partition(b"\0")[0], mode, position, stored)
        else:
            header = next(read_headers(_From(data, position), what=what), None)
            if header is None:
                return
            position += header.data_offset
            stored = header.data_bytes
            yield Skimmed(header.name, header.typeflag, header.linkname, header.mode, position, stored, header.sparse)
        position += stored + -stored % BLOCK_BYTES
    if position > size:
        raise TarCorrupt(f"{what} is not a valid tar: it ends within the padding of its last entry")


@dataclass(frozen=True, slots=True)
class _From:
    """A tar from one of its entries on."""

    data: RandomAccess
    start: int

    @property
    def size_bytes(self) -> int:
        return self.data.size_bytes - self.start

    def read(self, offset: int, count: int) -> bytes:
        return self.data.read(self.start + offset, count)
