"""Between a store's writer and a SquashFS: what the format cannot keep is changed, counted or refused here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shiplap.core.entries import Entry, printable
from shiplap.core.errors import Refused
from shiplap.core.store.model import StoredLayer

SQUASHFS_TIME_MAX = (1 << 32) - 1
# The superblock counts ids with 16 bits: tools write an image with 65,536, and nobody can read it.
SQUASHFS_IDS_MAX = 65535
# tar2sqfs rejects longer extended headers. Engines on ext4 take a sixteenth of it.
PAX_HEADER_MAX_BYTES = 65536
_PAX_RECORD_BYTES = 32  # at most, beside name and value

Put = Callable[[Entry], object]


class TooManyOwners(Refused):
    """More distinct ids than a SquashFS id table holds."""


class TooManyXattrs(Refused):
    """More extended attributes on one file than a SquashFS tool takes."""


def as_squashfs_keeps(entry: Entry) -> Entry:
    """``entry`` with its time in whole seconds and 32 bits; tools would wrap what is larger without a word."""
    if entry.mtime_nanoseconds or entry.mtime_epoch > SQUASHFS_TIME_MAX:
        return replace(entry, mtime_epoch=min(entry.mtime_epoch, SQUASHFS_TIME_MAX), mtime_nanoseconds=0)
    return entry


class SquashfsSink:
    """Passes entries on to ``put``. Raises TooManyOwners; ``finish`` tells ``note`` what was clamped."""

    def __init__(self, put: Put, note: Callable[[str], object]) -> None:
        self._put = put
        self._note = note
        self._ids: set[int] = set()
        self._clamped = 0

    def __call__(self, entry: Entry) -> None:
        self._clamped += entry.mtime_epoch > SQUASHFS_TIME_MAX
        entry = as_squashfs_keeps(entry)
        ids = self._ids
        if entry.uid not in ids or entry.gid not in ids:
            ids.update((entry.uid, entry.gid))
            if len(ids) > SQUASHFS_IDS_MAX:
                raise TooManyOwners(f"the images have more than {SQUASHFS_IDS_MAX} different owners, which no SquashFS can hold")
        self._put(entry)

    def finish(self) -> None:
        if self._clamped:
            self._note(f"{self._clamped} times beyond 2106 do not fit SquashFS's 32 bits and became 2106-02-07")


def require_room_for_xattrs(entry: Entry, root: bytes, stored: StoredLayer) -> None:
    """Raises TooManyXattrs. ``root``: the layer's own path, left out of the message."""
    size_bytes = sum(len(name) + len(value) + _PAX_RECORD_BYTES for name, value in entry.xattrs)
    if size_bytes + len(entry.path) + 4 * _PAX_RECORD_BYTES > PAX_HEADER_MAX_BYTES:
        path = entry.path[len(root) + 1 :]
        raise TooManyXattrs(f"{stored.where}, entry '{printable(path)}': {size_bytes} bytes of xattrs are more than SquashFS tools take")
