"""A layer's tar put together again from a data-root: tar-split data says what comes when, the layer's tree has the contents."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shiplap.core.entries import CHUNK_BYTES, FileSlice, printable
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.layer.rules import clean
from shiplap.core.layer.tarsplit import SEGMENT_BYTES, FilePart, Segment, TarSplitCorrupt, assemble, read_parts
from shiplap.core.limits import Limits

_MAX_LINKS = 40  # the kernel's own limit for one path
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER = _READ | os.O_DIRECTORY
NOT_ROOT = "a data-root belongs to root: run shiplap with sudo"


class LayerChanged(Refused):
    """A layer's files are not those that the engine unpacked."""


class UnpackedLayer:
    """A folder as if it were the root of everything: links inside lead nowhere else, as in the container."""

    def __init__(self, path: str, where: str) -> None:
        self._path = path
        self._where = where

    def content(self, name: bytes) -> Iterator[bytes]:
        """The bytes of the file that a tar calls ``name``; raises LayerChanged and OutsideFailure."""
        shown_name = printable(name)
        try:
            descriptor = self._open(name)
        except FileNotFoundError as error:
            raise LayerChanged(f"{self._where}: the layer's file '{shown_name}' is missing", hint=_CHANGED) from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO):
                raise LayerChanged(f"{self._where}: '{shown_name}' is no file any more: {error.strerror}", hint=_CHANGED) from error
            hint = NOT_ROOT if isinstance(error, PermissionError) else None
            raise OutsideFailure(f"{self._where}: cannot open '{shown_name}': {error.strerror}", hint=hint) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LayerChanged(f"{self._where}: '{shown_name}' is no regular file any more", hint=_CHANGED)
            while piece := os.read(descriptor, CHUNK_BYTES):
                yield piece
        except OSError as error:
            raise OutsideFailure(f"{self._where}: cannot read '{shown_name}': {error.strerror}") from error
        finally:
            os.close(descriptor)

    def _open(self, name: bytes) -> int:
        """Component by component, so that every link is resolved here and not by the kernel."""
        pending = [part for part in clean(name.lstrip(b"/")).split(b"/") if part][::-1]
        folders = [os.open(self._path, _FOLDER)]
        links = 0
        try:
            while pending:
                part = pending.pop()
                if part == b"..":
                    if len(folders) > 1:
                        os.close(folders.pop())
                    continue
                target = _link(part, folders[-1])
                if target is not None:
                    links += 1
                    if links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    if target.startswith(b"/"):
                        while len(folders) > 1:
                            os.close(folders.pop())
                    pending.extend([one for one in target.split(b"/") if one not in (b"", b".")][::-1])
                elif pending:
                    folders.append(os.open(part, _FOLDER, dir_fd=folders[-1]))
                else:
                    return os.open(part, _READ | os.O_NONBLOCK, dir_fd=folders[-1])
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        finally:
            for one in folders:
                os.close(one)


def _link(name: bytes, folder: int) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EINVAL:  # no link
            return None
        raise


@dataclass(frozen=True, slots=True)
class AssembledBlob:
    """The uncompressed tar of a layer in a data-root (:class:`shiplap.core.image.Blob`).

    ``tar_split``: yields the compressed tar-split data.
    """

    location: str
    tree: UnpackedLayer
    tar_split: Callable[[], Iterator[bytes]]
    limits: Limits
    digest: str | None
    media_type: str | None = None

    @property
    def size_bytes(self) -> int:
        """Of the tar; the tar-split data is read through for it."""
        return sum(len(part.data) if isinstance(part, Segment) else part.size_bytes for part in self._parts())

    def chunks(self) -> Iterator[bytes]:
        """The tar; raises LayerChanged naming the first file that is not what it was, TarSplitCorrupt, OutsideFailure.

        Whether the whole has the layer's diffID is checked by whoever reads it, as with every layer.
        """
        try:
            yield from assemble(self._parts(), self.tree.content, what=self.location)
        except TarSplitCorrupt as error:
            raise LayerChanged(error.message, hint=_CHANGED) from error

    def slice(self) -> FileSlice | None:
        return None

    def _parts(self) -> Iterator[Segment | FilePart]:
        most = 3 * self.limits.entries + self.limits.layer_bytes // SEGMENT_BYTES
        passed_bytes = 0
        for number, part in enumerate(read_parts(self.tar_split(), what=f"tar-split data of {self.location}")):
            passed_bytes += len(part.data) if isinstance(part, Segment) else part.size_bytes
            if number > most or passed_bytes > self.limits.layer_bytes:
                raise LayerChanged(
                    f"{self.location}: its tar-split data has more than {self.limits.layer_bytes} bytes or {self.limits.entries} entries",
                    hint="raise `limits:` in the manifest if you trust the data-root",
                )
            yield part


_CHANGED = "somebody changed the data-root behind the engine's back: pull or load the image again"
