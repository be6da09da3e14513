"""Our own writer: needs nothing installed but the compressor's library, and its bytes change only with our format number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from shiplap.core.entries import CHUNK_BYTES, Content, Entry
from shiplap.core.errors import OutsideFailure
from shiplap.rootfs.sinks.options import Add, Advance, SquashfsOptions
from shiplap.rootfs.squashfs.compress import Compressor, compressor
from shiplap.rootfs.squashfs.write import WRITER_NUMBER, Layout, SquashfsWriter

_TAR_BLOCK_BYTES = 512


class Builtin:
    """The default sink. Takes entries as they are, without the way through tar."""

    @contextmanager
    def open(self, options: SquashfsOptions, output: Path, advance: Advance) -> Iterator[Add]:
        compression = _compressor(options)
        layout = Layout(options.block_size_bytes, options.epoch)
        try:
            file = FileIO(output, "x+")
        except OSError as error:
            raise OutsideFailure(f"builtin cannot write {output}: {error.strerror}") from error
        with file, SquashfsWriter(file, str(output), compression, layout, jobs=options.effective_jobs) as writer:
            yield _counting(writer.add, advance)
            writer.finish()

    def describe(self, options: SquashfsOptions) -> dict[str, str]:
        return {"tool": "builtin", "version": str(WRITER_NUMBER), "library": _compressor(options).library}


def _compressor(options: SquashfsOptions) -> Compressor:
    return compressor(options.compression, options.effective_level, options.block_size_bytes)


def _counting(add: Callable[[Entry], None], advance: Advance) -> Add:
    """``add``, counting what the entry would take in a tar, as for the other tools."""

    def counted(entry: Entry) -> None:
        content = entry.content
        size = content.size_bytes if content is not None else 0
        if content is None or size <= CHUNK_BYTES:
            add(entry)
            advance(size)
        else:
            add(replace(entry, content=_Counted(content, advance)))
        advance(_TAR_BLOCK_BYTES + -size % _TAR_BLOCK_BYTES)

    return counted


@dataclass(frozen=True, slots=True)
class _Counted:
    """A large content that tells how far it has been read."""

    content: Content
    advance: Advance

    @property
    def size_bytes(self) -> int:
        return self.content.size_bytes

    def chunks(self) -> Iterator[bytes]:
        for piece in self.content.chunks():
            self.advance(len(piece))
            yield piece
