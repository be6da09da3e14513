"""The reader against images of real tools, and against every other reader: kernel, unsquashfs, sqfs2tar."""

from __future__ import annotations

import functools
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from requirement import require
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.rootfs.squashfs import SquashfsError, open_squashfs
from squashfsimages import (
    expected_facts,
    facts,
    facts_of_host_tree,
    facts_of_image,
    facts_of_the_kernel,
    lay_out,
    mksquashfs,
    small_tree,
    tar2sqfs,
    tar_of,
    torture_tree,
    tree_order,
)
from squashfsreaders import facts_of_sqfs2tar

TAR2SQFS_IMAGES = {
    "zstd": ("-c", "zstd", "-b", "131072"),
    "gzip-4k": ("-c", "gzip", "-b", "4096"),
    "xz-1m": ("-c", "xz", "-b", "1048576"),
    "lzma": ("-c", "lzma", "-b", "65536"),
    "lz4": ("-c", "lz4", "-b", "131072", "-e"),
    "lzo-no-tails": ("-c", "lzo", "-b", "32768", "-T"),
}
MKSQUASHFS_IMAGES = {
    "zstd": ("-comp", "zstd", "-b", "128K"),
    "gzip-4k-no-fragments": ("-comp", "gzip", "-b", "4K", "-no-fragments"),
    "xz-1m-tails": ("-comp", "xz", "-b", "1M", "-Xbcj", "x86", "-always-use-fragments"),
    # OpenWrt's images: a filter for the machine's code before the compression. mksquashfs keeps whatever came out smallest.
    "xz-filters": ("-comp", "xz", "-b", "256K", "-Xbcj", "arm,armthumb,powerpc,sparc,ia64,x86", "-Xdict-size", "50%"),
    "lzma": ("-comp", "lzma", "-b", "64K"),
    "lz4": ("-comp", "lz4", "-b", "128K"),
    "lzo": ("-comp", "lzo", "-b", "32K"),
    "uncompressed": ("-noI", "-noD", "-noF", "-noX", "-noId", "-b", "128K", "-no-exports"),
}


def block_size_of(options: tuple[str, ...]) -> int:
    text = options[options.index("-b") + 1]
    return int(text.replace("K", "")) * 1024 if "K" in text else int(text.replace("M", "")) << 20 if "M" in text else int(text)


@pytest.mark.parametrize("name", TAR2SQFS_IMAGES)
def test_what_went_into_tar2sqfs_comes_out(name: str, tmp_path: Path) -> None:
    require("tar2sqfs")
    options = TAR2SQFS_IMAGES[name]
    entries = torture_tree(block_size_of(options), largest_xattr_bytes=60_000)
    image = tar2sqfs(tmp_path / "image", entries, *options)
    assert facts_of_image(image) == expected_facts(entries)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Real files of the torture tree, for a block size."""

    @functools.cache
    def folder(block_size_bytes: int) -> Path:
        tree = tmp_path_factory.mktemp("laid-out") / "tree"
        lay_out(mksquashfs_tree(block_size_bytes), os.fsencode(tree))
        return tree

    return folder


def mksquashfs_tree(block_size_bytes: int) -> list[Entry]:
    # mksquashfs makes as many inodes of a symbolic link as it has names.
    return torture_tree(block_size_bytes, hard_linked_symlinks=False)


@pytest.mark.parametrize("name", MKSQUASHFS_IMAGES)
def test_what_mksquashfs_packs_comes_out(name: str, laid_out: Callable[[int], Path], tmp_path: Path) -> None:
    require("mksquashfs")
    if os.geteuid() != 0:
        pytest.skip("only root can lay out devices and owners as files")
    options = MKSQUASHFS_IMAGES[name]
    # Two trees are enough to have files of exactly one block, and one byte off, with some of the options.
    tree_block_size = 4096 if "4K" in options else 131072
    image = mksquashfs(tmp_path / "image", laid_out(tree_block_size), *options)
    assert facts_of_image(image) == expected_facts(mksquashfs_tree(tree_block_size))
    if name in ("zstd", "uncompressed"):
        assert facts_of_image(image) == facts_of_the_kernel(image, tmp_path)


def test_the_kernel_sees_the_same_tree(tmp_path: Path) -> None:
    require("tar2sqfs")
    image = tar2sqfs(tmp_path / "image", torture_tree(131072, largest_xattr_bytes=60_000), "-c", "zstd")
    assert facts_of_image(image) == facts_of_the_kernel(image, tmp_path)


def test_unsquashfs_unpacks_the_same_tree(tmp_path: Path) -> None:
    require("tar2sqfs", "mksquashfs")
    if os.geteuid() != 0:
        pytest.skip("only root can unpack devices and owners")
    image = tar2sqfs(tmp_path / "image", torture_tree(131072), "-c", "xz")
    subprocess.run(["unsquashfs", "-q", "-n", "-d", str(tmp_path / "out"), str(image)], check=True, stdout=subprocess.DEVNULL)
    assert facts_of_image(image) == facts_of_host_tree(os.fsencode(tmp_path / "out"))


def test_sqfs2tar_writes_the_same_tree(tmp_path: Path) -> None:
    require("tar2sqfs")
    image = tar2sqfs(tmp_path / "image", torture_tree(4096), "-c", "gzip", "-b", "4096")
    assert facts_of_image(image) == facts_of_sqfs2tar(image)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("tar2sqfs")
    return tar2sqfs(tmp_path_factory.mktemp("small") / "image", small_tree(), "-c", "zstd", "-b", "4096", "-d", "mtime=1234567890")


def test_the_superblock_is_told(small: Path) -> None:
    with open_squashfs(small) as image:
        superblock = image.superblock
    assert superblock.mtime_epoch == 1234567890
    assert superblock.compressor == "zstd"
    assert superblock.block_size_bytes == 4096
    assert superblock.inode_count == 11
    assert superblock.bytes_used <= small.stat().st_size
    assert not superblock.exportable


def test_a_path_is_found_and_nothing_is_followed(small: Path) -> None:
    with open_squashfs(small) as image:
        root = image.find(b"")
        assert root is not None and (root.path, root.uid, root.gid) == (b"", 12, 34)
        link = image.find(b"symlink")
        assert link is not None and (link.kind, link.link) == (Kind.SYMLINK, b"dir/sub/text")
        for path in (b"symlink/x", b"dir/nothing", b"fifo/x", b"/dir", b"dir/", b"dir//sub", b"dir/../dir", b"."):
            assert image.find(path) is None, path


def test_a_hard_link_found_directly_is_the_file_itself(small: Path) -> None:
    with open_squashfs(small) as image:
        found = image.find(b"first")
        assert found is not None and found.kind is Kind.REGULAR and found.xattrs
        assert image.read(b"first", 10_000) == b"line\n" * 2000
        assert image.identity(b"first") == image.identity(b"dir/sub/text") != image.identity(b"dir/sub/zz")


def test_children_are_listed_in_order(small: Path) -> None:
    with open_squashfs(small) as image:
        assert [entry.path for entry in image.children(b"dir")] == [b"dir/data", b"dir/empty", b"dir/sub"]
        assert [entry.path for entry in image.children(b"")] == [b"dir", b"fifo", b"first", b"null", b"sda", b"symlink"]
        with pytest.raises(SquashfsError, match="has no directory 'fifo'"):
            list(image.children(b"fifo"))


def test_a_subtree_is_walked_with_full_paths(small: Path) -> None:
    with open_squashfs(small) as image:
        assert [entry.path for entry in image.entries(b"dir/sub")] == [b"dir/sub", b"dir/sub/text", b"dir/sub/zz"]
        assert [entry.path for entry in image.entries(b"fifo")] == [b"fifo"]
        with pytest.raises(SquashfsError, match="has no entry 'nowhere'"):
            list(image.entries(b"nowhere"))


def test_a_link_in_a_subtree_names_the_first_path_of_that_walk(tmp_path: Path) -> None:
    require("tar2sqfs")
    entries = tree_order(
        [
            Entry(b"", Kind.DIRECTORY, 0o755),
            Entry(b"a", Kind.REGULAR, 0o644, content=Bytes(b"x")),
            Entry(b"b", Kind.DIRECTORY, 0o755),
            Entry(b"b/c", Kind.HARDLINK, 0o644, link=b"a"),
            Entry(b"b/d", Kind.HARDLINK, 0o644, link=b"a"),
        ]
    )
    with open_squashfs(tar2sqfs(tmp_path / "image", entries)) as image:
        found = [(entry.path, entry.kind, entry.link) for entry in image.entries(b"b")]
    assert found == [(b"b", Kind.DIRECTORY, b""), (b"b/c", Kind.REGULAR, b""), (b"b/d", Kind.HARDLINK, b"b/c")]


def test_the_walk_is_a_tree_walk_and_not_a_sort_of_paths(tmp_path: Path) -> None:
    # "a-b" sorts before "a/x" as a path, but after the directory "a" with all that is in it.
    require("tar2sqfs")
    entries = [Entry(b"", Kind.DIRECTORY, 0o755)] + [Entry(path, Kind.DIRECTORY, 0o755) for path in (b"a", b"a/x", b"a-b")]
    with open_squashfs(tar2sqfs(tmp_path / "image", entries)) as image:
        assert [entry.path for entry in image.entries()] == [b"", b"a", b"a/x", b"a-b"]


def test_content_can_be_read_again_and_while_another_file_is_read(small: Path) -> None:
    with open_squashfs(small) as image:
        one, two = image.find(b"dir/sub/text"), image.find(b"dir/sub/zz")
        assert one is not None and one.content is not None and two is not None and two.content is not None
        pieces = list(zip(one.content.chunks(), two.content.chunks(), strict=False))
        assert b"".join(piece for piece, _ in pieces) == b"line\n" * 2000
        assert b"".join(one.content.chunks()) == b"".join(one.content.chunks()) == b"line\n" * 2000
        assert all(len(piece) <= 4096 for piece in two.content.chunks())


def test_reading_has_a_limit(small: Path) -> None:
    with open_squashfs(small) as image:
        assert len(image.read(b"dir/data", 5000)) == 5000
        with pytest.raises(SquashfsError, match="dir/data has 5000 bytes, more than the 4999 allowed"):
            image.read(b"dir/data", 4999)
        for path in (b"dir", b"nothing", b"symlink"):
            with pytest.raises(SquashfsError, match="has no regular file"):
                image.read(path, 10)


def test_a_walk_has_a_limit(small: Path) -> None:
    with pytest.raises(SquashfsError, match="has 11 entries or more; 10 are the limit"), open_squashfs(small, entry_limit=10) as image:
        list(image.entries())
    # Twelve names of eleven inodes.
    with pytest.raises(SquashfsError, match="12 entries or more"), open_squashfs(small, entry_limit=11) as image:
        list(image.entries())


def test_an_image_inside_a_larger_file_is_read(small: Path, tmp_path: Path) -> None:
    larger = tmp_path / "disk"
    larger.write_bytes(random.Random(0).randbytes(12345) + small.read_bytes() + b"\xff" * 99999)
    with open_squashfs(larger, offset_bytes=12345) as image:
        assert [facts(entry) for entry in image.entries()] == expected_facts(small_tree())


def test_an_empty_image_has_a_root(tmp_path: Path) -> None:
    require("tar2sqfs")
    root = Entry(b"", Kind.DIRECTORY, 0o700, 1, 2, 3)
    with open_squashfs(tar2sqfs(tmp_path / "image", [root])) as image:
        assert list(image.entries()) == [root]
        assert list(image.children(b"")) == []


def test_the_same_stream_gives_the_same_entries_again(small: Path, tmp_path: Path) -> None:
    """What the reader yields can be packed again: the second image is the first."""
    with open_squashfs(small) as image:
        assert tar_of(image.entries()) == tar_of(small_tree())
        again = tar2sqfs(tmp_path / "again", image.entries(), "-c", "zstd", "-b", "4096", "-d", "mtime=1234567890")
    assert again.read_bytes() == small.read_bytes()


def test_a_socket_is_refused_by_name(tmp_path: Path) -> None:
    require("mksquashfs")
    import socket

    (tmp_path / "tree").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "tree" / "listener"))
        image = mksquashfs(tmp_path / "image", tmp_path / "tree")
    with open_squashfs(image) as opened, pytest.raises(SquashfsError, match="listener is a socket"):
        list(opened.entries())
