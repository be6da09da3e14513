"""A FAT32 file system with a few files, written in one pass; the same bytes from the same files.

Microsoft's "FAT: General Overview of On-Disk Format", 1.03; UEFI 2.10, 13.3. Names are eight and three capital letters, so that no
long names are needed. Every file lies in one piece.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.entries import Content
from shiplap.core.errors import OutsideFailure, Refused

SECTOR_BYTES = 512
_RESERVED_SECTORS = 32
_TABLES = 2
_FIRST_CLUSTER = 2
_CLUSTERS_MIN = 65525  # with fewer it would be FAT16, whatever the boot sector says
_LARGE_BYTES = 256 << 20  # from here on clusters of 4 KiB; a file system of that size has enough of them
_END = 0x0FFFFFFF
_FILE_MAX_BYTES = (1 << 32) - 1
_NAME = re.compile(r"[A-Z0-9_-]{1,8}(\.[A-Z0-9_-]{1,3})?")
_RECORD = struct.Struct("<11sBBBHHHHHHHI")
_DIRECTORY, _ARCHIVE, _LABEL = 0x10, 0x20, 0x08
_DOS_EPOCH = 315532800  # 1980-01-01


class FatRefused(Refused):
    """Files that FAT32 cannot hold."""


@dataclass(slots=True)
class _Piece:
    """A file or a folder: ``children`` is None for a file."""

    name: str
    content: Content | None
    children: list[_Piece] | None
    first: int = 0
    clusters: int = 0

    @property
    def size_bytes(self) -> int:
        if self.content is not None:
            return self.content.size_bytes
        assert self.children is not None
        return (len(self.children) + 2) * _RECORD.size


def fat_size_bytes(content_bytes: int) -> int:
    """A size, in whole MiB, that holds files of so many bytes together, and that FAT32 may have."""
    # A table entry and the rest of a cluster for each, and some room for whoever adds a file.
    return (max(content_bytes + (content_bytes >> 6), 34 << 20) >> 20) + 4 << 20


def write_fat(
    path: Path,
    files: Mapping[str, Content],
    size_bytes: int,
    volume_id: int,
    epoch: int,
    advance: Callable[[int], object] = lambda amount_bytes: None,
) -> None:
    """Write the file system ``path``, which must not exist yet, sparse where it is empty.

    ``files``: path (``EFI/BOOT/BOOTX64.EFI``) → content. ``volume_id``: its 32-bit serial number. ``epoch``: the time of all of it.
    ``advance``: told numbers of content bytes done. Raises FatRefused, OutsideFailure.
    """
    root = _tree(files)
    sectors = size_bytes // SECTOR_BYTES
    cluster_sectors = 8 if size_bytes >= _LARGE_BYTES else 1
    table_sectors = _table_sectors(sectors, cluster_sectors)
    data_at = _RESERVED_SECTORS + _TABLES * table_sectors
    clusters = (sectors - data_at) // cluster_sectors
    assert clusters >= _CLUSTERS_MIN, "fat_size_bytes has made sure"
    cluster_bytes = cluster_sectors * SECTOR_BYTES
    free = _FIRST_CLUSTER
    chains = [0x0FFFFFF8, _END]
    for piece in _walk(root):
        piece.clusters = max(piece.children is not None, -(-piece.size_bytes // cluster_bytes))
        if free + piece.clusters > clusters:
            raise FatRefused(f"{piece.name} does not fit into a file system of {size_bytes} bytes")
        piece.first = free if piece.clusters else 0
        chains += [*range(free + 1, free + piece.clusters), _END][: piece.clusters]
        free += piece.clusters
    table = struct.pack(f"<{len(chains)}I", *chains)
    boot = _boot_sector(sectors, cluster_sectors, table_sectors, volume_id)
    information = _information(clusters - (free - _FIRST_CLUSTER), free)
    try:
        with path.open("xb") as file:
            file.truncate(size_bytes)
            for sector, data in ((0, boot), (1, information), (6, boot), (7, information)):
                file.seek(sector * SECTOR_BYTES)
                file.write(data)
            for number in range(_TABLES):
                file.seek((_RESERVED_SECTORS + number * table_sectors) * SECTOR_BYTES)
                file.write(table)
            for piece in _walk(root):
                file.seek(data_at * SECTOR_BYTES + (piece.first - _FIRST_CLUSTER) * cluster_bytes)
                if piece.content is None:
                    file.write(_folder(piece, root, epoch))
                elif piece.clusters:
                    for chunk in piece.content.chunks():
                        file.write(chunk)
                        advance(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise OutsideFailure(f"{path} exists already") from error


def _tree(files: Mapping[str, Content]) -> _Piece:
    root = _Piece("", None, [])
    for path in sorted(files):
        folder = root
        *parents, name = path.split("/")
        for part in (*parents, name):
            assert _NAME.fullmatch(part), f"{path} needs a long name"
        for part in parents:
            assert folder.children is not None
            found = next((one for one in folder.children if one.name == part), None)
            if found is None:
                found = _Piece(part, None, [])
                folder.children.append(found)
            folder = found
        if files[path].size_bytes > _FILE_MAX_BYTES:
            raise FatRefused(f"{name} would have {files[path].size_bytes} bytes; 4 GiB are the most for a file of FAT")
        assert folder.children is not None
        folder.children.append(_Piece(name, files[path], None))
    return root


def _walk(piece: _Piece) -> Iterator[_Piece]:
    yield piece
    for child in piece.children or ():
        yield from _walk(child)


def _table_sectors(sectors: int, cluster_sectors: int) -> int:
    """Sectors of one table: the formula of Microsoft's paper, which may be a few too many and never too few."""
    per_table = (256 * cluster_sectors + _TABLES) // 2
    return -(-(sectors - _RESERVED_SECTORS) // per_table)


def _boot_sector(sectors: int, cluster_sectors: int, table_sectors: int, volume_id: int) -> bytes:
    head = b"\xeb\x58\x90SHIPLAP "
    parameters = struct.pack(
        "<HBHBHHBHHHIIIHHIHH12x",
        *(SECTOR_BYTES, cluster_sectors, _RESERVED_SECTORS, _TABLES, 0, 0, 0xF8, 0, 63, 255, 0, sectors),
        *(table_sectors, 0, 0, _FIRST_CLUSTER, 1, 6),
    )
    extended = struct.pack("<BBBI11s8s", 0x80, 0, 0x29, volume_id, b"SHIPLAP    ", b"FAT32   ")
    return (head + parameters + extended).ljust(SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"


def _information(free_clusters: int, next_free: int) -> bytes:
    return b"RRaA" + bytes(480) + b"rrAa" + struct.pack("<II12xI", free_clusters, next_free, 0xAA550000)


def _folder(piece: _Piece, root: _Piece, epoch: int) -> bytes:
    assert piece.children is not None
    if piece is root:
        records = [_record(b"SHIPLAP    ", _LABEL, 0, 0, epoch)]
    else:
        parent = next(one for one in _walk(root) if piece in (one.children or ()))
        # A parent that is the root is cluster 0 there.
        records = [
            _record(b".          ", _DIRECTORY, piece.first, 0, epoch),
            _record(b"..         ", _DIRECTORY, 0 if parent is root else parent.first, 0, epoch),
        ]
    for child in piece.children:
        stem, _, extension = child.name.partition(".")
        attribute, size = (_DIRECTORY, 0) if child.content is None else (_ARCHIVE, child.size_bytes)
        records.append(_record(f"{stem:<8}{extension:<3}".encode(), attribute, child.first, size, epoch))
    return b"".join(records)


def _record(name: bytes, attribute: int, first: int, size_bytes: int, epoch: int) -> bytes:
    moment = time.gmtime(max(epoch, _DOS_EPOCH))
    date = (min(moment.tm_year - 1980, 127) << 9) | moment.tm_mon << 5 | moment.tm_mday
    hour = moment.tm_hour << 11 | moment.tm_min << 5 | min(moment.tm_sec, 59) // 2
    return _RECORD.pack(name, attribute, 0, 0, hour, date, date, first >> 16, hour, date, first & 0xFFFF, size_bytes)
