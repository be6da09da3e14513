"""Reads the log of writes that qemu's ``blklogwrites`` filter keeps, and makes the disk as it was at any moment.

The format is dm-log-writes' (kernel Documentation/admin-guide/device-mapper/log-writes.rst and drivers/md/dm-log-writes.c): a sector with
the super block, then for each request a sector with its head and the data.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAGIC, VERSION = 0x6A736677736872, 1
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")


@dataclass(frozen=True)
class Request:
    """``start_bytes``: where on the disk; ``at_bytes``: where its data lies in the log. A discard has no data there."""

    start_bytes: int
    length_bytes: int
    flags: int
    at_bytes: int

    @property
    def is_write(self) -> bool:
        return self.length_bytes > 0 and not self.flags & MARK


@dataclass(frozen=True)
class WriteLog:
    path: Path
    requests: tuple[Request, ...]

    def disk_at(self, base: Path, wanted: Sequence[int], out: Path) -> Path:
        """``base``, the disk before the first request, with those requests carried out in this order."""
        with self.path.open("rb") as log, out.open("wb") as disk:
            disk.write(base.read_bytes())
            for number in wanted:
                request = self.requests[number]
                if not request.is_write:
                    continue
                disk.seek(request.start_bytes)
                if request.flags & DISCARD:
                    disk.write(bytes(request.length_bytes))
                else:
                    log.seek(request.at_bytes)
                    disk.write(log.read(request.length_bytes))
        return out

    def survivors(self, count: int, chance: random.Random) -> list[int]:
        """Of the first ``count`` requests those that a disk with a volatile cache may have kept when the power went.

        Everything before the last flush, what was written through, and any part of the rest.
        """
        flushes = [number for number in range(count) if self.requests[number].flags & FLUSH]
        safe = flushes[-1] if flushes else 0
        return [one for one in range(count) if one < safe or self.requests[one].flags & FUA or chance.random() < 0.5]

    def flushed(self, count: int) -> list[int]:
        """The same, and of the rest nothing."""
        flushes = [number for number in range(count) if self.requests[number].flags & FLUSH]
        safe = flushes[-1] if flushes else 0
        return [one for one in range(count) if one < safe or self.requests[one].flags & FUA]


def read_log(path: Path) -> WriteLog:
    """The whole log; raises AssertionError for what is none."""
    with path.open("rb") as log:
        magic, version, count, sector_bytes = _SUPER.unpack(log.read(_SUPER.size))
        assert (magic, version) == (MAGIC, VERSION), f"{path} is no log of writes"
        requests, place = [], sector_bytes
        for _ in range(count):
            log.seek(place)
            sector, sectors, flags, data_bytes = _ENTRY.unpack(log.read(_ENTRY.size))
            at = place + sector_bytes
            length = sectors * sector_bytes
            requests.append(Request(sector * sector_bytes, length, flags, at))
            taken = 0 if flags & DISCARD else -(-data_bytes // sector_bytes) * sector_bytes if flags & MARK else length
            place = at + taken
    return WriteLog(path, tuple(requests))
