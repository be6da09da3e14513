"""Random trees, made to meet each other's edges: repeated contents, holes, tails, links, sparse listings."""

from __future__ import annotations

import random
from dataclasses import replace

from shiplap.core.entries import Bytes, Entry, Kind
from squashfsimages import tree_order

K = Kind
KINDS = (K.DIRECTORY, K.DIRECTORY, K.REGULAR, K.REGULAR, K.REGULAR, K.SYMLINK, K.HARDLINK, K.FIFO, K.CHARACTER, K.BLOCK)
_PATH_LIMIT_BYTES = 3000  # of 4095 that Linux takes, mount points and folders included
_LARGE_BYTES = 8 << 12


def random_tree(rng: random.Random, block: int = 4096, *, on_hosts: bool = False) -> list[Entry]:
    """Up to 60 entries, rarely 300 in one directory, in tree order; contents of a size around ``block`` bytes.

    ``on_hosts``: no name and no attributes that SquashFS has room for but Linux or its other file systems have not.
    """

    def attributes() -> tuple[int, int, int, int]:
        owner = rng.choice((0, 1, 1000, 65535, 65536, 2**32 - 2))
        return rng.randrange(0o10000), owner, rng.choice((0, owner)), rng.choice((0, 1, 2**31, 2**32 - 1, rng.randrange(2**32)))

    def xattrs(*, user: bool = True) -> tuple[tuple[bytes, bytes], ...]:
        return random_xattrs(rng, 700 if on_hosts else 9000, user=user)

    root = Entry(b"", K.DIRECTORY, *attributes(), xattrs=xattrs())
    entries = {b"": root}
    directories = [b""]
    # Now and then a listing of many metadata blocks, which has an index.
    crowded = rng.random() < 0.01
    for _ in range(300 if crowded else rng.randrange(60)):
        parent = b"" if crowded else rng.choice(directories)
        path = (parent + b"/" if parent else b"") + random_name(rng, 255 if on_hosts else 256)
        if path in entries or len(path) > _PATH_LIMIT_BYTES:
            continue
        kind = rng.choice(KINDS)
        if kind is K.DIRECTORY:
            directories.append(path)
            entries[path] = Entry(path, kind, *attributes(), xattrs=xattrs())
        elif kind is K.REGULAR:
            entries[path] = Entry(path, kind, *attributes(), xattrs=xattrs(), content=Bytes(random_content(rng, block)))
        elif kind is K.SYMLINK:
            target = rng.choice((b"t", b"\xff/" * 99, b"t" * 4095))
            entries[path] = Entry(path, kind, 0o777, *attributes()[1:], link=target, xattrs=xattrs(user=False))
        elif kind is K.HARDLINK:
            entries[path] = Entry(path, kind, 0)
        else:
            device = (0, 0) if kind is K.FIFO else (rng.choice((0, 8, 0xFFF)), rng.choice((0, 255, 256, 0xFFFFF)))
            entries[path] = Entry(path, kind, *attributes(), device=device, xattrs=xattrs(user=False))
    return _linked(tree_order(entries.values()), rng)


def below(folder: bytes, entries: list[Entry]) -> list[Entry]:
    """The same tree, in a folder."""

    def moved(path: bytes) -> bytes:
        return folder + b"/" + path if path else folder

    return [replace(entry, path=moved(entry.path), link=moved(entry.link) if entry.kind is K.HARDLINK else entry.link) for entry in entries]


def random_content(rng: random.Random, block: int) -> bytes:
    """Made of few different blocks, so that contents begin, end or are like others."""
    size = rng.choice((0, 1, 7, 300, block // 2, block // 2 + 1, block - 1, block, block + 1, 2 * block, 3 * block - 5))
    if rng.random() < 0.05 and block <= _LARGE_BYTES:
        size = rng.choice((70 * block, 130 * block + 9))
    blocks = []
    for _ in range(size // block + 1):
        kind = rng.randrange(4)
        seed = rng.randrange(3)
        blocks.append(bytes(block) if kind == 0 else (b"%d" % seed * block)[:block] if kind == 1 else random.Random(seed).randbytes(block))
    if rng.random() < 0.5:
        blocks = [blocks[0]] * len(blocks)
    return b"".join(blocks)[:size]


def random_name(rng: random.Random, longest: int) -> bytes:
    length = rng.choice((1, 2, 3, 8, 30, 255, longest))
    name = bytes(rng.choice((0x01, 0x2D, 0x2E, 0x41, 0x61, 0x7F, 0x80, 0xFF)) for _ in range(length))
    return b"x" if name in (b".", b"..") else name


def random_xattrs(rng: random.Random, longest: int, *, user: bool) -> tuple[tuple[bytes, bytes], ...]:
    """``user``: also user.*, which Linux gives to files and directories only. ``longest``: of the values, in bytes."""
    if rng.random() < 0.7:
        return ()
    names = rng.sample((b"user.a", b"user.b", b"trusted.overlay.opaque", b"security.selinux", b"user." + b"n" * 250), rng.randint(1, 4))
    label = b"a label that many share\0"
    values = (b"", b"y", b"12345678", b"123456789", label, (bytes(range(256)) * 5)[:longest], rng.randbytes(longest))
    return tuple(sorted((name, rng.choice(values)) for name in names if user or not name.startswith(b"user.")))


def _linked(entries: list[Entry], rng: random.Random) -> list[Entry]:
    """Every hard link gets a target that came before it."""
    found: list[Entry] = []
    targets: list[Entry] = []
    for entry in entries:
        if entry.kind is not K.HARDLINK:
            found.append(entry)
            if entry.kind is not K.DIRECTORY:
                targets.append(entry)
        elif targets:
            target = rng.choice(targets)
            found.append(Entry(entry.path, K.HARDLINK, target.mode, target.uid, target.gid, target.mtime_epoch, link=target.path))
    return found
