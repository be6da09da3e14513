"""Contents of regular files: data blocks, sparse blocks, and tails in shared fragment blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from shiplap.core.entries import printable
from shiplap.rootfs.squashfs.decompress import BadBlock, Inflate
from shiplap.rootfs.squashfs.file import ImageFile
from shiplap.rootfs.squashfs.inodes import FileData
from shiplap.rootfs.squashfs.metadata import LookupTable, MetadataArea

_STORED = 1 << 24
_FRAGMENT = struct.Struct("<QII")
_CACHED_FRAGMENTS = 4
_WORDS_AT_ONCE = 1024


class DataBlocks:
    """The data of an image. Keeps a few fragment blocks: neighbouring small files share them."""

    def __init__(
        self, file: ImageFile, inflate: Inflate, block_size_bytes: int, fragments: LookupTable | None, inodes: MetadataArea
    ) -> None:
        self.file = file
        self.block_size_bytes = block_size_bytes
        self._inflate = inflate
        self._fragments = fragments
        self._inodes = inodes
        self._cache: dict[int, bytes] = {}

    def chunks(self, data: FileData, path: bytes) -> Iterator[bytes]:
        """The file's bytes, block by block; raises SquashfsError naming ``path``."""
        position, left = data.start, data.size_bytes
        for number, word in enumerate(self.words(data)):
            expected = min(self.block_size_bytes, left)
            if word:
                yield self._block(position, word, expected, f"{_named(path)}: block {number}")
                position += word & ~_STORED
            else:
                yield bytes(expected)
            left -= expected
        if left:
            yield self._tail(data, left, path)

    def words(self, data: FileData) -> Iterator[int]:
        """The words with the stored sizes of a file's blocks (0 for a sparse one; bit 24 for an uncompressed one)."""
        if not data.block_count:
            return
        cursor = self._inodes.cursor(data.words_reference)
        for start in range(0, data.block_count, _WORDS_AT_ONCE):
            count = min(_WORDS_AT_ONCE, data.block_count - start)
            yield from struct.unpack(f"<{count}I", cursor.take(4 * count))

    def _block(self, position: int, word: int, expected: int | None, what: str) -> bytes:
        """The block at byte ``position`` whose stored size and kind is ``word``: ``expected`` bytes, or None for up to a block."""
        size = word & ~_STORED
        if size > self.block_size_bytes:
            raise self.file.error(f"{what} at byte {position} claims {size} bytes of a block size of {self.block_size_bytes}")
        content = self.file.read(position, size, what)
        if not word & _STORED:
            try:
                content = self._inflate(content, self.block_size_bytes)
            except BadBlock as error:
                raise self.file.error(f"{what} at byte {position} is damaged: {error}") from error
        if expected is not None and len(content) != expected:
            raise self.file.error(f"{what} at byte {position} has {len(content)} bytes instead of {expected}")
        return content

    def _tail(self, data: FileData, size_bytes: int, path: bytes) -> bytes:
        assert data.fragment is not None, "without a fragment the blocks cover the whole file"
        content = self._fragment(data.fragment, path)
        tail = content[data.fragment_offset : data.fragment_offset + size_bytes]
        if len(tail) != size_bytes:
            raise self.file.error(
                f"{_named(path)}: its tail lies at {data.fragment_offset} to {data.fragment_offset + size_bytes} of"
                f" fragment {data.fragment}, which has {len(content)} bytes"
            )
        return tail

    def _fragment(self, index: int, path: bytes) -> bytes:
        found = self._cache.get(index)
        if found is None:
            if self._fragments is None:
                raise self.file.error(f"{_named(path)}: its tail is in fragment {index}, the image has none")
            position, word, _unused = _FRAGMENT.unpack(self._fragments.record(index))
            if not word:
                raise self.file.error(f"fragment {index} is empty")
            found = self._block(position, word, None, f"fragment {index}")
            while len(self._cache) >= _CACHED_FRAGMENTS:
                self._cache.pop(next(iter(self._cache)), None)
            self._cache[index] = found
        return found


@dataclass(frozen=True, slots=True)
class SquashfsContent:
    """Content of one file of an image, decompressed when it is read. Valid while the image is open."""

    blocks: DataBlocks
    data: FileData
    path: bytes

    @property
    def size_bytes(self) -> int:
        return self.data.size_bytes

    def chunks(self) -> Iterator[bytes]:
        return self.blocks.chunks(self.data, self.path)


def _named(path: bytes) -> str:
    return printable(b"/" + path)
