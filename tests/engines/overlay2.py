"""What a real engine wrote: the layer trees of an overlay2 data-root, path by path."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One path of a layer. ``links``: every path of the layer that is the same inode, sorted (one path: itself)."""

    path: bytes
    kind: str
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


def dump_tree(top: Path) -> list[Record]:
    """Every path below ``top`` sorted by bytes, ``top`` itself as ``b""``; run as root, no symlink is followed."""
    root = os.fsencode(top)
    found: list[tuple[bytes, os.stat_result]] = []
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        status = os.lstat(os.path.join(root, path) if path else root)
        found.append((path, status))
        if stat.S_ISDIR(status.st_mode):
            waiting += [os.path.join(path, name) if path else name for name in os.listdir(os.path.join(root, path))]
    found.sort()
    groups: dict[int, list[bytes]] = {}
    for path, status in found:
        groups.setdefault(status.st_ino, []).append(path)
    return [_record(os.path.join(root, path) if path else root, path, status, tuple(groups[status.st_ino])) for path, status in found]


def _record(place: bytes, path: bytes, status: os.stat_result, links: tuple[bytes, ...]) -> Record:
    kind = stat.S_IFMT(status.st_mode)
    device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    sha256 = ""
    if kind == stat.S_IFREG:
        with open(place, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    names = sorted(os.fsencode(name) for name in os.listxattr(place, follow_symlinks=False))
    return Record(
        path=path,
        kind=_KINDS[kind],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if device else (0, 0),
        xattrs=tuple((name, os.getxattr(place, name, follow_symlinks=False)) for name in names),
        links=links,
        size_bytes=status.st_size if kind == stat.S_IFREG else 0,
        sha256=sha256,
        target=os.readlink(place) if kind == stat.S_IFLNK else b"",
        mtime=divmod(status.st_mtime_ns, 1_000_000_000),
    )


def chains(data_root: Path) -> dict[str, Path]:
    """chainID → directory of the layer's tree, read from the layer database."""
    found: dict[str, Path] = {}
    for layer in sorted((data_root / "image/overlay2/layerdb/sha256").glob("*")):
        cache_id = (layer / "cache-id").read_text()
        found[f"sha256:{layer.name}"] = data_root / "overlay2" / cache_id / "diff"
    return found


def dump_overlay2(data_root: Path) -> dict[str, list[Record]]:
    """chainID → the records of its layer, for every layer of a data-root (of a stopped engine)."""
    return {chain: dump_tree(tree) for chain, tree in chains(data_root).items()}
