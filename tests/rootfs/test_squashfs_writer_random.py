"""A thousand random trees, made to meet each other's edges: repeated contents, holes, tails, links, sparse listings."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requirement import require
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.rootfs.squashfs.write import Layout
from squashfsimages import expected_facts, facts_of_image, facts_of_the_kernel, tree_order
from squashfswriting import sqfs2tar_disagrees, write_image

K = Kind
BLOCK = 4096
CONTENT_SIZES = (
    0,
    1,
    7,
    300,
    BLOCK // 2,
    BLOCK // 2 + 1,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    2 * BLOCK,
    3 * BLOCK - 5,
    70 * BLOCK,
    130 * BLOCK + 9,
)
KINDS = (K.DIRECTORY, K.DIRECTORY, K.REGULAR, K.REGULAR, K.REGULAR, K.SYMLINK, K.HARDLINK, K.FIFO, K.CHARACTER, K.BLOCK)


def random_content(rng: random.Random) -> bytes:
    """Made of few different blocks, so that contents begin, end or are like others."""
    size = rng.choice(CONTENT_SIZES)
    blocks = []
    for _ in range(size // BLOCK + 1):
        kind = rng.randrange(4)
        seed = rng.randrange(3)
        blocks.append(bytes(BLOCK) if kind == 0 else (b"%d" % seed * BLOCK)[:BLOCK] if kind == 1 else random.Random(seed).randbytes(BLOCK))
    if rng.random() < 0.5:
        blocks = [blocks[0]] * len(blocks)
    return b"".join(blocks)[:size]


def random_name(rng: random.Random) -> bytes:
    length = rng.choice((1, 2, 3, 8, 30, 255, 256))
    name = bytes(rng.choice((0x01, 0x2D, 0x2E, 0x41, 0x61, 0x7F, 0x80, 0xFF)) for _ in range(length))
    return b"x" if name in (b".", b"..") else name


def random_xattrs(rng: random.Random, *, user: bool = True) -> tuple[tuple[bytes, bytes], ...]:
    """``user``: also user.*, which Linux gives to files and directories only."""
    if rng.random() < 0.7:
        return ()
    names = rng.sample((b"user.a", b"user.b", b"trusted.overlay.opaque", b"security.selinux", b"user." + b"n" * 250), rng.randint(1, 4))
    values = (b"", b"y", b"12345678", b"123456789", b"a label that many share\0", bytes(range(256)) * 5, rng.randbytes(9000))
    return tuple(sorted((name, rng.choice(values)) for name in names if user or not name.startswith(b"user.")))


def random_tree(rng: random.Random) -> list[Entry]:
    """Up to 60 entries in tree order."""

    def attributes() -> tuple[int, int, int, int]:
        owner = rng.choice((0, 1, 1000, 65535, 65536, 2**32 - 2))
        return rng.randrange(0o10000), owner, rng.choice((0, owner)), rng.choice((0, 1, 2**31, 2**32 - 1, rng.randrange(2**32)))

    root = Entry(b"", K.DIRECTORY, *attributes(), xattrs=random_xattrs(rng))
    entries = {b"": root}
    directories = [b""]
    for _ in range(rng.randrange(60)):
        parent = rng.choice(directories)
        path = (parent + b"/" if parent else b"") + random_name(rng)
        if path in entries or len(path) > 4000:
            continue
        kind = rng.choice(KINDS)
        if kind is K.DIRECTORY:
            directories.append(path)
            entries[path] = Entry(path, kind, *attributes(), xattrs=random_xattrs(rng))
        elif kind is K.REGULAR:
            entries[path] = Entry(path, kind, *attributes(), xattrs=random_xattrs(rng), content=Bytes(random_content(rng)))
        elif kind is K.SYMLINK:
            target = rng.choice((b"t", b"\xff/" * 99, b"t" * 4095))
            entries[path] = Entry(path, kind, 0o777, *attributes()[1:], link=target, xattrs=random_xattrs(rng, user=False))
        elif kind is K.HARDLINK:
            entries[path] = Entry(path, kind, 0)
        else:
            device = (0, 0) if kind is K.FIFO else (rng.choice((0, 8, 0xFFF)), rng.choice((0, 255, 256, 0xFFFFF)))
            entries[path] = Entry(path, kind, *attributes(), device=device, xattrs=random_xattrs(rng, user=False))
    return _linked(tree_order(entries.values()), rng)


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


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**64), compression=st.sampled_from(["none", "zstd", "lz4", "gzip"]), tails=st.booleans())
def test_a_random_tree_comes_out(seed: int, compression: str, tails: bool, tmp_path: Path) -> None:
    entries = random_tree(random.Random(seed))
    write_image(tmp_path / "image", entries, compression, 1 if compression != "none" else None, Layout(BLOCK, tails=tails), jobs=2)
    assert facts_of_image(tmp_path / "image") == expected_facts(entries)


@pytest.mark.parametrize("seed", range(24))
def test_the_kernel_and_sqfs2tar_see_a_random_tree(seed: int, tmp_path: Path) -> None:
    require("tar2sqfs")
    entries = random_tree(random.Random(seed))
    write_image(tmp_path / "image", entries, "zstd", 1, Layout(BLOCK, exportable=True))
    assert facts_of_image(tmp_path / "image") == expected_facts(entries)
    assert not sqfs2tar_disagrees(tmp_path / "image", entries)
    if all(len(name) < 256 for entry in entries for name in entry.path.split(b"/")):  # the host's own interface ends at 255
        assert facts_of_the_kernel(tmp_path / "image", tmp_path) == expected_facts(entries)
