"""Contents of regular files: data blocks, sparse blocks, and tails in shared fragment blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from shiplap.core.entries import printable
from shiplap.core.lookahead import begun_early
from shiplap.rootfs.squashfs.decompress import BadBlock, Inflate
from shiplap.rootfs.squashfs.file import ImageFile, SquashfsError
from shiplap.rootfs.squashfs.inodes import FileData
from shiplap.rootfs.squashfs.metadata import LookupTable, MetadataArea

_STORED = 1 << 24
_FRAGMENT = struct.Struct("<QII")
_CACHED_FRAGMENTS = 4
_WORDS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one block of a file lies: ``word`` as stored, 0 for a hole; ``size_bytes`` when it is decompressed."""

    number: int
    position: int
    word: int
    size_bytes: int

    @property
    def key(self) -> tuple[int, int, int]:
        return self.position, self.word, self.size_bytes


class DataBlocks:
    """The data of an image. Keeps a few fragment blocks: neighbouring small files share them.

    Serves one thread. With ``work_ahead`` it lets others decompress blocks that will be asked for soon.
    """

    def __init__(
        self, file: ImageFile, inflate: Inflate, block_size_bytes: int, fragments: LookupTable | None, inodes: MetadataArea
    ) -> None:
        self.file = file
        self.block_size_bytes = block_size_bytes
        self._inflate = inflate
        self._fragments = fragments
        self._inodes = inodes
        self._cache: dict[int, bytes] = {}
        self._pool: Executor | None = None
        self._blocks_ahead = 0
        self._ahead: dict[tuple[int, int, int], Future[bytes]] = {}
        self._fragments_ahead: dict[int, Future[bytes]] = {}

    def work_ahead(self, pool: Executor, blocks: int) -> None:
        """From now on decompress up to that many ``blocks`` in ``pool`` before they are asked for."""
        self._pool, self._blocks_ahead = pool, blocks

    def begin(self, data: FileData, path: bytes) -> bool:
        """Begin to decompress the first blocks of a file, or its tail; whether there was room for that.

        What is begun stays in memory until ``chunks`` of the file is read. Raises nothing: what is wrong shows there.
        """
        if self._pool is None:
            return True
        try:
            if data.fragment is not None and data.size_bytes < self.block_size_bytes:
                return self._begin_fragment(data.fragment, path)
            # One block: reading the file begins the others.
            return all(self._begin_block(place, path) for place, _ in zip(self._places(data), range(1), strict=False))
        except SquashfsError:
            return True

    def _room(self) -> bool:
        return len(self._ahead) + len(self._fragments_ahead) < self._blocks_ahead

    def _begin_block(self, place: _Place, path: bytes) -> bool:
        if self._pool is None or not place.word or place.key in self._ahead:
            return True
        if not self._room():
            return False
        self._ahead[place.key] = self._pool.submit(self._block, place.position, place.word, place.size_bytes, _block_name(path, place))
        return True

    def _begin_fragment(self, index: int, path: bytes) -> bool:
        if self._pool is None or index in self._cache or index in self._fragments_ahead:
            return True
        if not self._room():
            return False
        position, word = self._fragment_place(index, path)
        self._fragments_ahead[index] = self._pool.submit(self._block, position, word, None, f"fragment {index}")
        return True

    def chunks(self, data: FileData, path: bytes) -> Iterator[bytes]:
        """The file's bytes, block by block; raises SquashfsError naming ``path``."""
        places = self._places(data)
        if self._pool is not None:
            places = begun_early(places, lambda place: self._begin_block(place, path), cost=lambda place: 1, room=self._blocks_ahead)
        left = data.size_bytes
        for place in places:
            begun = self._ahead.pop(place.key, None)
            if begun is not None:
                yield begun.result()
            elif place.word:
                yield self._block(place.position, place.word, place.size_bytes, _block_name(path, place))
            else:
                yield bytes(place.size_bytes)
            left -= place.size_bytes
        if left:
            yield self._tail(data, left, path)

    def _places(self, data: FileData) -> Iterator[_Place]:
        position, left = data.start, data.size_bytes
        for number, word in enumerate(self.words(data)):
            size_bytes = min(self.block_size_bytes, left)
            yield _Place(number, position, word, size_bytes)
            position += word & ~_STORED
            left -= size_bytes

    def words(self, data: FileData) -> Iterator[int]:
        """The words with the stored sizes of a file's blocks (0 for a sparse one; bit 24 for an uncompressed one)."""
        if not data.block_count:
            return
        cursor = self._inodes.cursor(data.words_reference)
        for start in range(0, data.block_count, _WORDS_AT_ONCE):
            count = min(_WORDS_AT_ONCE, data.block_count - start)
            yield from struct.unpack(f"<{count}I", cursor.take(4 * count))

    def stored_run_bytes(self, data: FileData) -> int:
        """What the file's own blocks take in the image, compressed. They lie one behind the other from ``data.start`` on."""
        size_bytes = sum(word & ~_STORED for word in self.words(data))
        if size_bytes and data.start + size_bytes > self.file.size_bytes:
            raise self.file.error(
                f"{size_bytes} bytes of blocks at byte {data.start} lie outside the image of {self.file.size_bytes} bytes"
            )
        return size_bytes

    def stored_fragment_bytes(self, index: int) -> int:
        """What fragment block ``index`` takes in the image, compressed."""
        if self._fragments is None:
            raise self.file.error(f"fragment {index} is asked for, the image has none")
        return int(_FRAGMENT.unpack(self._fragments.record(index))[1]) & ~_STORED

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
            begun = self._fragments_ahead.pop(index, None)
            if begun is not None:
                found = begun.result()
            else:
                position, word = self._fragment_place(index, path)
                found = self._block(position, word, None, f"fragment {index}")
            while len(self._cache) >= _CACHED_FRAGMENTS:
                self._cache.pop(next(iter(self._cache)), None)
            self._cache[index] = found
        return found

    def _fragment_place(self, index: int, path: bytes) -> tuple[int, int]:
        """Position and word of a fragment block."""
        if self._fragments is None:
            raise self.file.error(f"{_named(path)}: its tail is in fragment {index}, the image has none")
        position, word, _unused = _FRAGMENT.unpack(self._fragments.record(index))
        if not word:
            raise self.file.error(f"fragment {index} is empty")
        return position, word


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

    def begin(self) -> bool:
        """Begin to read before ``chunks`` is called; whether there was room for that. See ``DataBlocks.begin``."""
        return self.blocks.begin(self.data, self.path)


def _block_name(path: bytes, place: _Place) -> str:
    return f"{_named(path)}: block {place.number}"


def _named(path: bytes) -> str:
    return printable(b"/" + path)
