"""One layer's tar → its tree, and then its tar-split data.

Two steps, because the second one is the expensive one (a checksum of every byte) and needs only what the
first one found: it runs beside the packing of the tree.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from shiplap.core.entries import CHUNK_BYTES, FileSlice
from shiplap.core.layer.crc64 import Crc64
from shiplap.core.layer.rules import LayerBuilder
from shiplap.core.layer.tarsplit import TarSplitWriter
from shiplap.core.layer.tree import LayerTree
from shiplap.core.tar.reader import TarHeader, read_headers
from shiplap.core.tar.window import WINDOW_BYTES, Window


@dataclass(slots=True)
class TarOutline:
    """Where the tar's entries begin and end; kept small, since a layer may have a million of them.

    ``inside``: offsets of contents that lie nowhere in the tree under the entry's own name. They travel
    inside the tar-split data itself, so that the tar can always be given back.
    """

    names: list[bytes] = field(default_factory=list)
    data_offsets: array[int] = field(default_factory=lambda: array("Q"))
    data_sizes: array[int] = field(default_factory=lambda: array("Q"))
    inside: set[int] = field(default_factory=set)

    def entries(self) -> Iterator[tuple[bytes, int, int]]:
        """(name, data offset, data bytes) of every entry, in the tar's order."""
        return zip(self.names, self.data_offsets, self.data_sizes, strict=True)


def unpack_layer(
    tar: FileSlice, *, where: str, epoch: int, entries_max: int, note: Callable[[str], object]
) -> tuple[LayerTree, TarOutline]:
    """The tree of the layer whose uncompressed tar is ``tar``, and the outline of the tar.

    ``where`` names image and layer in errors. Raises LayerRefused and TarCorrupt.
    """
    return unpack_with(LayerBuilder(where=where, epoch=epoch, entries_max=entries_max, note=note), tar, where=where)


def unpack_with(
    builder: LayerBuilder, tar: FileSlice, *, where: str, observe: Callable[[TarHeader], object] | None = None
) -> tuple[LayerTree, TarOutline]:
    """The same with a builder of one's own; ``observe`` sees every header."""
    outline = TarOutline()
    for header in read_headers(Window(tar), what=where):
        if observe is not None:
            observe(header)
        at_its_name = builder.add(header)
        outline.names.append(header.name)
        outline.data_offsets.append(header.data_offset)
        outline.data_sizes.append(header.data_bytes)
        if header.data_bytes and not at_its_name:
            outline.inside.add(header.data_offset)
    outline.inside |= builder.displaced
    return builder.finish(), outline


def write_tar_split(
    tar: FileSlice,
    outline: TarOutline,
    writer: TarSplitWriter,
    cancelled: Callable[[], bool] = lambda: False,
    known: Mapping[int, bytes] = MappingProxyType({}),
) -> None:
    """Write the tar-split data of ``tar``. May run in a thread of its own; stops early when ``cancelled``.

    ``known``: checksums by data offset that need not be computed again.
    """
    window = Window(tar)
    done = 0  # everything before this offset is written

    def raw(until: int) -> None:
        nonlocal done
        while done < until and not cancelled():
            piece = window.read(done, min(CHUNK_BYTES, until - done))
            if not piece:
                raise EOFError(f"{tar.name} ended at byte {done}")
            writer.segment(piece)
            done += len(piece)

    for name, offset, size_bytes in outline.entries():
        if cancelled():
            return
        if size_bytes and offset in outline.inside:
            raw(offset + size_bytes)
            continue
        raw(offset)
        writer.file(name, size_bytes, (known.get(offset) or _checksum(tar, window, offset, size_bytes, cancelled)) if size_bytes else b"")
        done = offset + size_bytes
    raw(tar.size_bytes)


def _checksum(tar: FileSlice, window: Window, offset: int, size_bytes: int, cancelled: Callable[[], bool]) -> bytes:
    checksum = Crc64()
    if size_bytes <= WINDOW_BYTES:
        checksum.update(window.read(offset, size_bytes))
    else:
        for piece in FileSlice(tar.descriptor, tar.offset + offset, size_bytes, tar.name).chunks():
            if cancelled():
                break  # nobody waits for it any more, and a file may be large
            checksum.update(piece)
    return checksum.digest()
