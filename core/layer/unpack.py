"""One layer's tar → its tree and its tar-split data, in one pass over the tar."""

from __future__ import annotations

from collections.abc import Callable

from shiplap.core.entries import CHUNK_BYTES, FileSlice
from shiplap.core.layer.crc64 import Crc64
from shiplap.core.layer.rules import LayerBuilder
from shiplap.core.layer.tarsplit import TarSplitWriter
from shiplap.core.layer.tree import LayerTree
from shiplap.core.tar.reader import read_headers
from shiplap.core.tar.window import WINDOW_BYTES, Window


def unpack_layer(
    tar: FileSlice,
    *,
    where: str,
    epoch: int,
    entries_max: int,
    note: Callable[[str], object],
    tar_split: Callable[[], TarSplitWriter] | None = None,
) -> LayerTree:
    """The tree of the layer whose uncompressed tar is ``tar``.

    ``tar_split``, when given, is called for a fresh writer and the layer's tar-split data is written to
    it; in the rare layer that overwrites its own files it is called a second time, and only what the
    last writer got counts. Raises LayerRefused and TarCorrupt.
    """
    builder = LayerBuilder(where=where, epoch=epoch, entries_max=entries_max, note=note)
    window = Window(tar)
    if tar_split is None:
        for header in read_headers(window, what=where):
            builder.add(header)
        return builder.finish()
    found: set[int] = set()
    pass_over = _TarSplitPass(tar, window, tar_split())
    for header in read_headers(window, what=where):
        at_its_name = builder.add(header)
        pass_over.entry(header.name, header.data_offset, header.data_bytes, at_its_name)
        if header.data_bytes and not at_its_name:
            found.add(header.data_offset)
    pass_over.end()
    if builder.displaced:
        # Content that lies nowhere in the tree any more travels inside the tar-split data itself.
        inside = found | builder.displaced
        pass_over = _TarSplitPass(tar, window, tar_split())
        for header in read_headers(window, what=where):
            pass_over.entry(header.name, header.data_offset, header.data_bytes, header.data_offset not in inside)
        pass_over.end()
    return builder.finish()


class _TarSplitPass:
    def __init__(self, tar: FileSlice, window: Window, writer: TarSplitWriter) -> None:
        self._tar = tar
        self._window = window
        self._writer = writer
        self._done = 0  # everything before this offset is written

    def entry(self, name: bytes, data_offset: int, data_bytes: int, at_its_name: bool) -> None:
        if data_bytes and not at_its_name:
            self._raw(data_offset + data_bytes)
            return
        self._raw(data_offset)
        self._writer.file(name, data_bytes, self._checksum(data_offset, data_bytes) if data_bytes else b"")
        self._done = data_offset + data_bytes

    def end(self) -> None:
        self._raw(self._tar.size_bytes)

    def _raw(self, until: int) -> None:
        while self._done < until:
            piece = self._window.read(self._done, min(CHUNK_BYTES, until - self._done))
            if not piece:
                raise EOFError(f"{self._tar.name} ended at byte {self._done}")
            self._writer.segment(piece)
            self._done += len(piece)

    def _checksum(self, offset: int, size_bytes: int) -> bytes:
        checksum = Crc64()
        if size_bytes <= WINDOW_BYTES:
            checksum.update(self._window.read(offset, size_bytes))
        else:
            for piece in FileSlice(self._tar.descriptor, self._tar.offset + offset, size_bytes, self._tar.name).chunks():
                checksum.update(piece)
        return checksum.digest()
