"""Blocks that are in the image already, read back: to learn whether a content is there, nobody needs to keep digests of all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from shiplap.rootfs.squashfs.compress import Compressor
from shiplap.rootfs.squashfs.decompress import inflater
from shiplap.rootfs.squashfs.write.blocks import STORED
from shiplap.rootfs.squashfs.write.output import ImageOutput


class StoredBlocks:
    """Reads runs of blocks back from the image under way, which have been written."""

    def __init__(self, output: ImageOutput, compressor: Compressor, block_size_bytes: int) -> None:
        self._output = output
        self._compressor = compressor
        self._block_size_bytes = block_size_bytes

    def digest(self, start: int, words: Iterable[int], size_bytes: int) -> bytes:
        """SHA-256 of the content of a run: from byte ``start``, with the size words ``words``, ``size_bytes`` when it is read."""
        whole = hashlib.sha256()
        position, left = start, size_bytes
        for word in words:
            expected = min(self._block_size_bytes, left)
            left -= expected
            if not word:
                whole.update(bytes(expected))
                continue
            data = self._output.read(position, word & ~STORED)
            position += len(data)
            whole.update(data if word & STORED else inflater(self._compressor.name)(data, expected))
        return whole.digest()
