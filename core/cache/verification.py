"""Every blob of the cache read and hashed again: disks rot, and a shared folder has other writers."""

from __future__ import annotations

from dataclasses import dataclass

from shiplap.core.blobs import BlobCorrupt, SourceInvalidContent, StoredBlob, blob_path
from shiplap.core.cache.cache import ALGORITHMS, Cache
from shiplap.core.cache.folder import BLOBS, CacheUnusable, guarded, names_in, opened, require_marked
from shiplap.core.errors import OutsideFailure
from shiplap.core.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class Verified:
    """``damaged``: digest and what is wrong with it; ``odd``: what lies among the blobs and is none; nothing ever touches that."""

    blobs: int = 0
    size_bytes: int = 0
    damaged: tuple[tuple[str, str], ...] = ()
    odd: tuple[str, ...] = ()


def verify_all(cache: Cache, *, repair: bool = False, progress: Progress = SILENT) -> Verified:
    """Read every blob; with ``repair`` the damaged ones are removed, and the next build or ``fetch`` brings them anew.

    Raises CacheUnusable for a folder that is no cache of ours, and for a damaged blob that this user may not remove.
    """
    if not require_marked(cache.root):
        return Verified()
    blobs = tuple(cache.blobs())
    total_bytes = sum(size_bytes for _, size_bytes in blobs)
    damaged: list[tuple[str, str]] = []
    with progress.task("verifying the cache", total_bytes) as task, cache.files(hold=False) as files:
        for digest, size_bytes in blobs:
            try:
                for piece in StoredBlob(files, blob_path(digest), size_bytes, digest, None).chunks():
                    task.advance(len(piece))
            except SourceInvalidContent:
                continue  # collected since
            except (BlobCorrupt, OutsideFailure) as error:
                damaged.append((digest, error.message))
                if repair and not cache.discard(digest):
                    raise CacheUnusable(
                        f"{error.message}, and this user may not remove it", hint=f"repair {cache.root} as its owner"
                    ) from error
            finally:
                files.release(blob_path(digest))
    return Verified(len(blobs), total_bytes, tuple(damaged), _odd_names(cache))


def _odd_names(cache: Cache) -> tuple[str, ...]:
    blobs = {digest for digest, _ in cache.blobs()}
    odd = [f"{BLOBS}/{name}" for name in _names(cache, BLOBS) if name not in ALGORITHMS]
    for algorithm in ALGORITHMS:
        odd += [f"{BLOBS}/{algorithm}/{name}" for name in _names(cache, BLOBS, algorithm) if f"{algorithm}:{name}" not in blobs]
    return tuple(odd)


def _names(cache: Cache, *folders: str) -> list[str]:
    with guarded(cache.root, "read"):
        try:
            with opened(cache.root, *folders) as folder:
                return names_in(folder)
        except FileNotFoundError:
            return []
