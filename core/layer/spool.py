"""A layer's uncompressed tar as a range of a file, verified before anyone reads it.

Uncompressed local blobs are read where they lie. Everything else is spooled to an unlinked file under
TMPDIR: marks and hard links can follow what they change, so a layer is read more than once.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from shiplap.core.compression import detect, uncompressed
from shiplap.core.entries import FileSlice
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.image import Image, Layer
from shiplap.core.limits import Limits, PastLimit

_RESERVE_BYTES = 64 << 20
_MORE_ROOM = "set TMPDIR to a folder with more room"


class DiffIDMismatch(Refused):
    """A layer's uncompressed bytes are not what the image's config says."""


@contextmanager
def spool_file(where: str) -> Iterator[IO[bytes]]:
    """An unlinked file under TMPDIR; whoever writes flushes it, and turns what fails into :func:`cannot_spool`."""
    try:
        file = tempfile.TemporaryFile(prefix="shiplap-")  # noqa: SIM115 - closed below, where that may fail
    except OSError as error:
        raise cannot_spool(where, error) from error
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError:
            pass  # it flushes once more what could not be written; the first failure said so


def cannot_spool(where: str, error: OSError) -> OutsideFailure:
    return OutsideFailure(f"{where}: cannot spool to {tempfile.gettempdir()}: {error.strerror}", hint=_MORE_ROOM)


def _check(image: Image, layer: Layer, digest: str) -> None:
    if digest != layer.diff_id:
        raise DiffIDMismatch(
            f"{image.label}, layer {layer.index} ({layer.blob.location}): its content has diffID {digest}, the config says {layer.diff_id}",
            hint="the image is corrupt or was tampered with; fetch it again",
        )


@contextmanager
def uncompressed_layer(
    image: Image, layer: Layer, limits: Limits, advance: Callable[[int], object] = lambda amount_bytes: None
) -> Iterator[FileSlice]:
    """Yield the verified uncompressed tar of ``layer``; valid inside the context.

    ``advance`` is told uncompressed bytes as they pass. Raises DiffIDMismatch, what the blob raises
    (wrong digest, truncated), what decompression raises (corrupt, over ``limits.layer_bytes``), and
    OutsideFailure when TMPDIR has no room.
    """
    where = f"{image.label}, layer {layer.index} ({layer.blob.location})"
    plain = layer.blob.slice()
    if plain is not None and detect(os.pread(plain.descriptor, min(16, plain.size_bytes), plain.offset)) == "none":
        if plain.size_bytes > limits.layer_bytes:
            raise PastLimit(
                f"{where}: {plain.size_bytes} bytes are over the limit of {limits.layer_bytes}",
                hint="raise `limits: {layer-bytes: …}` in the manifest, or give --limit layer-bytes=…, if you trust the image",
            )
        with _unchanged(plain, where):
            hasher = hashlib.sha256()
            for piece in plain.chunks():
                hasher.update(piece)
                advance(len(piece))
            digest = "sha256:" + hasher.hexdigest()
            if layer.blob.digest not in (None, digest):
                # Let the blob say it in its own words; it reads the same bytes.
                for _ in layer.blob.chunks():
                    pass
            _check(image, layer, digest)
            yield plain
        return
    with spool_file(where) as spool:
        hasher = hashlib.sha256()
        size_bytes = 0
        checked_bytes = 0
        try:
            for piece in uncompressed(layer.blob.chunks(), location=where, limit_bytes=limits.layer_bytes):
                if size_bytes >= checked_bytes:
                    checked_bytes = size_bytes + _require_room(spool.fileno(), where)
                hasher.update(piece)
                spool.write(piece)
                size_bytes += len(piece)
                advance(len(piece))
            spool.flush()
        except OSError as error:
            raise cannot_spool(where, error) from error
        _check(image, layer, "sha256:" + hasher.hexdigest())
        yield FileSlice(spool.fileno(), 0, size_bytes, where)


@contextmanager
def _unchanged(file: FileSlice, where: str) -> Iterator[None]:
    """A file that changes while it is read is said to have changed, whatever else went wrong because of it."""

    def state() -> tuple[int, int, int]:
        status = os.fstat(file.descriptor)
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns

    before = state()
    failure: Exception | None = None
    try:
        yield
    except (EOFError, Refused) as error:
        failure = error
    if state() != before:
        raise OutsideFailure(f"{where}: the file was changed while it was being read") from failure
    if failure is not None:
        raise failure


def _require_room(descriptor: int, where: str) -> int:
    """How many bytes may be written before asking again; raises OutsideFailure when there is no room."""
    status = os.fstatvfs(descriptor)
    free = status.f_bavail * status.f_frsize
    if free < _RESERVE_BYTES:
        raise OutsideFailure(
            f"{where}: no room to spool its tar: {free >> 20} MiB are free in {tempfile.gettempdir()}",
            hint=_MORE_ROOM,
        )
    return (free - _RESERVE_BYTES) // 2 + 1
