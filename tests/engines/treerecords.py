"""Layer trees as comparable records: what an engine left on disk, and what an entry stream says."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from shiplap.core.entries import Entry, Kind

_KINDS = {
    stat.S_IFREG: Kind.REGULAR,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
# Kernels from 6.6 on put it on an upper directory's root as soon as it is mounted, which `docker save` does.
_KERNELS_OWN = b"trusted.overlay.uuid"


@dataclass(frozen=True, slots=True)
class Record:
    """One path of a tree; ``b""`` is its root. ``links``: every path that is the same inode, sorted (often only itself)."""

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    links: tuple[bytes, ...]
    size_bytes: int
    sha256: str
    target: bytes
    mtime: tuple[int, int]


def records_of_tree(top: Path) -> list[Record]:
    """Every path of the tree ``top``, sorted by bytes. Run as root (trusted xattrs); no symlink is followed."""
    root = os.fsencode(top)
    found: list[tuple[bytes, os.stat_result]] = []
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        status = os.lstat(_place(root, path))
        found.append((path, status))
        if stat.S_ISDIR(status.st_mode):
            waiting += [path + b"/" + name if path else name for name in os.listdir(_place(root, path))]
    found.sort()
    groups: dict[int, list[bytes]] = {}
    for path, status in found:
        groups.setdefault(status.st_ino, []).append(path)
    return [_record(_place(root, path), path, status, tuple(groups[status.st_ino])) for path, status in found]


def _place(root: bytes, path: bytes) -> bytes:
    return root + b"/" + path if path else root


def _record(place: bytes, path: bytes, status: os.stat_result, links: tuple[bytes, ...]) -> Record:
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    sha256 = ""
    if kind is Kind.REGULAR:
        with open(place, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    names = sorted(os.fsencode(name) for name in os.listxattr(place, follow_symlinks=False))
    return Record(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0),
        xattrs=tuple((name, os.getxattr(place, name, follow_symlinks=False)) for name in names if name != _KERNELS_OWN),
        links=links,
        size_bytes=status.st_size if kind is Kind.REGULAR else 0,
        sha256=sha256,
        target=os.readlink(place) if kind is Kind.SYMLINK else b"",
        mtime=divmod(status.st_mtime_ns, 1_000_000_000),
    )


def records_of_entries(entries: Iterable[Entry]) -> list[Record]:
    """The same from an entry stream, whose hard links become one link group with all fields of the first."""
    first: dict[bytes, Record] = {}
    groups: dict[bytes, list[bytes]] = {}
    for entry in entries:
        if entry.kind is Kind.HARDLINK:
            groups[entry.link].append(entry.path)
        else:
            first[entry.path] = _record_of_entry(entry)
            groups[entry.path] = [entry.path]
    return sorted(
        (replace(first[name], path=path, links=tuple(sorted(paths))) for name, paths in groups.items() for path in paths),
        key=lambda record: record.path,
    )


def _record_of_entry(entry: Entry) -> Record:
    sha256 = hashlib.sha256()
    for chunk in entry.content.chunks() if entry.content else ():
        sha256.update(chunk)
    regular = entry.kind is Kind.REGULAR
    return Record(
        path=entry.path,
        kind=entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        device=entry.device,
        xattrs=entry.xattrs,
        links=(entry.path,),
        size_bytes=entry.content.size_bytes if regular and entry.content else 0,
        sha256=sha256.hexdigest() if regular else "",
        target=entry.link,
        mtime=(entry.mtime_epoch, entry.mtime_nanoseconds),
    )


def differences(ours: Iterable[Record], theirs: Iterable[Record], *, epoch: int, started_epoch: int) -> list[str]:
    """What differs, a sentence each. Times that we give the ``epoch`` the engine stamps "now": after ``started_epoch``."""
    mine = {record.path: record for record in ours}
    other = {record.path: record for record in theirs}
    found = [f"{path!r}: only {'ours' if path in mine else 'theirs'}" for path in sorted(mine.keys() ^ other.keys())]
    for path in sorted(mine.keys() & other.keys()):
        for name in Record.__slots__:
            one, two = getattr(mine[path], name), getattr(other[path], name)
            if name == "mtime" and one == (epoch, 0) and two[0] >= started_epoch:
                continue
            if one != two:
                found.append(f"{path!r} {name}: ours {one!r}, theirs {two!r}")
    return found
