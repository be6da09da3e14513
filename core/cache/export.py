"""Flat export: blobs of the cache as files ``sha256-<hex>`` of one folder, which is a download mirror then."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.blobs import Files, StoredBlob, blob_path
from shiplap.core.cache.cache import Cache
from shiplap.core.cache.mirror import flat_name
from shiplap.core.entries import FileSlice
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.progress import SILENT, Progress, Task

# Another file system, a file system without hard links, another user's file (fs.protected_hardlinks), too many links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


class ExportRefused(Refused):
    """Something cannot be exported, or not to there."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Digests that were written, and those that were there already."""

    new: tuple[str, ...]
    present: tuple[str, ...]


def export(cache: Cache, digests: Collection[str], folder: Path, *, link: bool = False, progress: Progress = SILENT) -> Exported:
    """Write what is missing of ``digests`` into ``folder``, which is made; each file appears whole or not at all.

    ``link``: as hard links where the file system can. Every blob is verified on its way. A file that is there is
    taken for right when it has the right size. Raises ExportRefused for a digest that the cache lacks and for a folder that is no good,
    BlobCorrupt, and OutsideFailure when the disk is full.
    """
    wanted = sorted(set(digests))
    missing = [digest for digest in wanted if not cache.has(digest)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ExportRefused(f"the cache has no {missing[0]}{more}", hint="`shiplap fetch` fills the cache from the lock")
    new: list[str] = []
    with cache.files() as files:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for digest in wanted:
                stored = files.slice(blob_path(digest))
                if not _is_there(folder / flat_name(digest), stored.size_bytes):
                    with progress.task(f"{digest[:19]} to {folder}", stored.size_bytes) as task:
                        _write(cache, files, stored, digest, folder, task, link=link)
                    new.append(digest)
                files.release(blob_path(digest))
            _sync(folder)
        except OSError as error:
            raise _failure(folder, error) from error
    return Exported(tuple(new), tuple(digest for digest in wanted if digest not in new))


def _is_there(path: Path, size_bytes: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size_bytes
    except FileNotFoundError:
        return False


def _write(cache: Cache, files: Files, stored: FileSlice, digest: str, folder: Path, task: Task, *, link: bool) -> None:
    blob = StoredBlob(files, blob_path(digest), stored.size_bytes, digest, None)
    temporary = folder / f".{flat_name(digest)}.{os.urandom(8).hex()}"
    try:
        if link and _linked(cache, stored, digest, temporary):
            for piece in blob.chunks():
                task.advance(len(piece))
        else:
            with temporary.open("xb") as file:
                for piece in blob.chunks():
                    file.write(piece)
                    task.advance(len(piece))
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(folder / flat_name(digest))
    finally:
        temporary.unlink(missing_ok=True)


def _linked(cache: Cache, stored: FileSlice, digest: str, temporary: Path) -> bool:
    """Whether ``temporary`` is another name of the file that is being verified now."""
    try:
        os.link(cache.root / blob_path(digest), temporary, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    if os.path.samestat(temporary.stat(follow_symlinks=False), os.fstat(stored.descriptor)):
        return True
    temporary.unlink()
    return False


def _failure(folder: Path, error: OSError) -> Refused | OutsideFailure:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return OutsideFailure(f"cannot export to {folder}: {error.strerror}", hint="make room, or name another folder")
    return ExportRefused(f"cannot export to {folder}: {error.strerror}", hint="name a folder that you may write to")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
