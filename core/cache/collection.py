"""Garbage collection: what no lock needs, what is too old, what is too much.

It never removes a blob that a living process has looked up or is bringing in, and it may run beside builds at any time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection
from dataclasses import dataclass

from shiplap.core.cache.cache import Cache
from shiplap.core.cache.folder import FILE_FLAGS, PARTIALS, CacheUnusable, guarded, opened, prepare, require_marked
from shiplap.core.cache.partial import partial_name
from shiplap.core.cache.use import in_use, locked

# A broken transfer that nobody took up again within a day.
PARTIAL_STALE_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Policy:
    """What may stay. Without anything only stale partials go.

    ``keep``: digests that stay in any case; alone, everything else goes. ``unused_seconds``: what was not used for so
    long goes. ``max_bytes``: of the rest, what was used longest ago goes until the blobs are not larger together.
    """

    keep: frozenset[str] | None = None
    unused_seconds: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What went (digest, size in bytes), what had to go and is in use, and what is left."""

    removed: tuple[tuple[str, int], ...] = ()
    partials: tuple[tuple[str, int], ...] = ()
    in_use: tuple[str, ...] = ()
    left_blobs: int = 0
    left_bytes: int = 0

    @property
    def freed_bytes(self) -> int:
        return sum(size_bytes for _, size_bytes in (*self.removed, *self.partials))


def collect(cache: Cache, policy: Policy, *, now_epoch: float, dry_run: bool = False) -> Collected:
    """Remove what ``policy`` does not let stay; ``dry_run`` only says what would go.

    Raises CacheUnusable for a folder that is no cache of ours, and OutsideFailure.
    """
    if not require_marked(cache.root):
        return Collected()
    prepare(cache.root)  # somebody may have removed its lock
    with guarded(cache.root, "write to"), locked(cache.root, alone=True):
        held = in_use(cache.root)
        statuses = dict(cache.statuses())
        going = _going({digest: (status.st_mtime, status.st_size) for digest, status in statuses.items()}, policy, held, now_epoch)
        removed = tuple((digest, statuses[digest].st_size) for digest in sorted(going - held))
        if not dry_run:
            for digest, _ in removed:
                if not cache.discard(digest):
                    raise CacheUnusable(f"{digest} in the cache {cache.root} belongs to another user", hint="collect garbage as its owner")
        partials = _stale_partials(cache, policy, now_epoch, dry_run=dry_run)
    return Collected(
        removed=removed,
        partials=partials,
        in_use=tuple(sorted(going & held)),
        left_blobs=len(statuses) - len(removed),
        left_bytes=sum(status.st_size for status in statuses.values()) - sum(size_bytes for _, size_bytes in removed),
    )


def _going(blobs: dict[str, tuple[float, int]], policy: Policy, held: Collection[str], now_epoch: float) -> set[str]:
    """The blobs that the policy gives up; ``blobs``: when each was last used, and its size in bytes."""
    keep = policy.keep or frozenset()
    free = sorted((used, digest) for digest, (used, _) in blobs.items() if digest not in keep)
    if policy.unused_seconds is None and policy.max_bytes is None:
        return set() if policy.keep is None else {digest for _, digest in free}
    going: set[str] = set()
    if policy.unused_seconds is not None:
        going = {digest for used, digest in free if used < now_epoch - policy.unused_seconds}
    if policy.max_bytes is not None:
        # What is in use stays and takes its room; something older makes way for it.
        left_bytes = sum(size_bytes for digest, (_, size_bytes) in blobs.items() if digest not in going or digest in held)
        for _, digest in free:
            if left_bytes <= policy.max_bytes:
                break
            if digest not in going and digest not in held:
                going.add(digest)
                left_bytes -= blobs[digest][1]
    return going


def _stale_partials(cache: Cache, policy: Policy, now_epoch: float, *, dry_run: bool) -> tuple[tuple[str, int], ...]:
    """Partials that nobody brings in at this moment. Raises OSError."""
    only_kept = policy.keep is not None and policy.unused_seconds is None and policy.max_bytes is None
    youngest_epoch = None if only_kept else now_epoch - PARTIAL_STALE_SECONDS
    stale = []
    for digest, size_bytes in cache.partials():
        if digest not in (policy.keep or ()):
            with opened(cache.root, PARTIALS) as folder:
                try:
                    if _drop_stale(folder, partial_name(digest), youngest_epoch, dry_run=dry_run):
                        stale.append((digest, size_bytes))
                except FileNotFoundError:
                    pass  # finished just now
    return tuple(stale)


def _drop_stale(folder: int, name: str, youngest_epoch: float | None, *, dry_run: bool) -> bool:
    descriptor = os.open(name, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)
    try:
        if youngest_epoch is not None and os.fstat(descriptor).st_mtime > youngest_epoch:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not dry_run:
            os.unlink(name, dir_fd=folder)
    except BlockingIOError:
        return False  # coming in right now
    finally:
        os.close(descriptor)
    return True
