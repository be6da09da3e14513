"""Our own writer: what goes in comes out, through our reader, the kernel and every other tool that reads SquashFS."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from requirement import SEARCH_PATH, require
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.rootfs.squashfs import open_squashfs
from shiplap.rootfs.squashfs.write import Layout, SquashfsCannotHold
from squashfsimages import (
    expected_facts,
    facts_of_image,
    facts_of_the_kernel,
    small_tree,
    torture_tree,
    tree_order,
)
from squashfsreaders import assert_every_reader_sees
from squashfswriting import ROOT, Pattern, file, golden_tree, write_image

BLOCK_SIZES = [4096 << number for number in range(9)]
COMPRESSIONS = ["zstd", "xz", "gzip", "lz4", "none"]


@pytest.mark.parametrize("block_size_bytes", BLOCK_SIZES)
def test_every_block_size_comes_out(block_size_bytes: int, tmp_path: Path) -> None:
    entries = torture_tree(block_size_bytes, largest_xattr_bytes=60_000)
    write_image(tmp_path / "image", entries, "zstd", 1, Layout(block_size_bytes))
    assert facts_of_image(tmp_path / "image") == expected_facts(entries) == facts_of_the_kernel(tmp_path / "image", tmp_path)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", [Layout(4096, 1234567890), Layout(65536, tails=False, exportable=True)], ids=["4K", "64K-no-tails"])
def test_every_compression_comes_out_of_every_reader(compression: str, layout: Layout, tmp_path: Path) -> None:
    # Host file systems hold 4 KiB of attributes a file.
    entries = torture_tree(layout.block_size_bytes, largest_xattr_bytes=2000)
    write_image(tmp_path / "image", entries, compression, None, layout)
    assert_every_reader_sees(tmp_path / "image", expected_facts(entries), tmp_path)


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "lz4"])  # which p7zip 16 does not know
def test_7z_finds_everything_in_order(compression: str, tmp_path: Path) -> None:
    program = next((folder for folder in SEARCH_PATH.split(os.pathsep) if Path(folder, "7z").exists()), None)
    if program is None:
        pytest.skip("7z is not installed")
    write_image(tmp_path / "image", torture_tree(32768), compression, None, Layout(32768))
    done = subprocess.run([f"{program}/7z", "t", str(tmp_path / "image")], capture_output=True, text=True, check=False)
    assert "Everything is Ok" in done.stdout, done.stdout + done.stderr
    assert "Folders: 79\nFiles: 3082\n" in done.stdout


_FILE_TYPES = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.REGULAR: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}


def test_7z_lists_and_unpacks_what_went_in(tmp_path: Path) -> None:
    program = next((folder for folder in SEARCH_PATH.split(os.pathsep) if Path(folder, "7z").exists()), None)
    if program is None:
        pytest.skip("7z is not installed")
    entries = small_tree()
    image = str(tmp_path / "image")
    write_image(Path(image), entries, "zstd", None, Layout(4096))
    said = subprocess.run([f"{program}/7z", "l", "-slt", image], capture_output=True, text=True, check=True, env={"TZ": "UTC"}).stdout
    found = {}
    for block in said.partition("----------\n")[2].strip().split("\n\n"):
        fields = dict(line.partition(" = ")[::2] for line in block.splitlines())
        found[fields.pop("Path")] = fields
    of_path = {entry.path: entry for entry in entries}
    for entry in entries[1:]:
        inode = of_path[entry.link] if entry.kind is Kind.HARDLINK else entry
        fields = found.pop(entry.path.decode())
        time = f"{datetime.fromtimestamp(inode.mtime_epoch, UTC):%Y-%m-%d %H:%M:%S}"
        expected = (stat.filemode(_FILE_TYPES[inode.kind] | inode.mode), str(inode.uid), str(inode.gid), time)
        assert (fields["Mode"], fields["User ID"], fields["Group ID"], fields["Modified"][:19]) == expected, entry.path
        if inode.content is not None:
            assert fields["Size"] == str(inode.content.size_bytes)
    assert not found
    # It complains about devices and ends with 2; the files are there.
    subprocess.run([f"{program}/7z", "x", f"-o{tmp_path / 'out'}", image], capture_output=True, check=False)
    for entry in entries:
        if entry.content is not None:
            assert (tmp_path / "out" / entry.path.decode()).read_bytes() == b"".join(entry.content.chunks()), entry.path


def test_the_tools_complain_about_nothing_in_the_superblock_and_the_tables(tmp_path: Path) -> None:
    require("mksquashfs", "tar2sqfs")
    image = tmp_path / "image"
    write_image(image, golden_tree(), "zstd", 3, Layout(8192, 1_700_000_000, exportable=True))
    shown = subprocess.run(["unsquashfs", "-UTC", "-s", str(image)], capture_output=True, text=True, check=True).stdout
    for line in (
        "Found a valid SQUASHFS 4:0 superblock",
        "Creation or last append time Tue Nov 14 22:13:20 2023",
        "Compression zstd",
        "compression-level 3",
        "Block size 8192",
        "Filesystem is exportable via NFS",
        "Inodes are compressed",
        "Xattrs are compressed",
        "Duplicates are removed",
    ):
        assert line in shown
    listed = subprocess.run(["rdsquashfs", "-d", str(image)], capture_output=True, check=True).stdout
    assert listed.count(b"\n") == len(golden_tree()) - 1  # it leaves the root out


def test_an_empty_tree_is_a_root(tmp_path: Path) -> None:
    root = Entry(b"", Kind.DIRECTORY, 0o3700, 1, 2, 3)
    write_image(tmp_path / "image", [root])
    assert facts_of_image(tmp_path / "image") == expected_facts([root]) == facts_of_the_kernel(tmp_path / "image", tmp_path)


def test_a_stream_without_a_root_gets_a_plain_one_at_the_epoch(tmp_path: Path) -> None:
    write_image(tmp_path / "image", [file(b"file", b"x")], layout=Layout(4096, 77))
    assert facts_of_image(tmp_path / "image") == expected_facts([replace(ROOT, mtime_epoch=77), file(b"file", b"x")])


def test_parents_that_are_missing_are_implied_and_may_still_come(tmp_path: Path) -> None:
    late = Entry(b"a/b", Kind.DIRECTORY, 0o700, 3, 4, 5, xattrs=((b"user.x", b"y"),))
    late_root = Entry(b"", Kind.DIRECTORY, 0o711, 1, 1, 1)
    write_image(tmp_path / "image", [file(b"a/b/c/d", b"deep"), late, late_root, file(b"a/z", b"")], layout=Layout(4096, 77))
    implied = Entry(b"a", Kind.DIRECTORY, 0o755, 0, 0, 77)
    expected = [late_root, implied, late, replace(implied, path=b"a/b/c"), file(b"a/b/c/d", b"deep"), file(b"a/z", b"")]
    assert facts_of_image(tmp_path / "image") == expected_facts(expected)


def test_entries_may_come_in_any_order_that_has_parents_and_link_targets_first(tmp_path: Path) -> None:
    entries = tree_order([entry for entry in small_tree() if entry.kind is not Kind.HARDLINK])
    shuffled = sorted(entries, key=lambda entry: (entry.path.count(b"/"), bytes(255 - byte for byte in entry.path)))
    write_image(tmp_path / "image", [*shuffled, Entry(b"first", Kind.HARDLINK, 0, link=b"dir/sub/text")])
    assert facts_of_image(tmp_path / "image") == expected_facts(small_tree())


def test_a_later_name_of_a_link_group_may_lie_before_the_first_in_the_tree(tmp_path: Path) -> None:
    entries = [ROOT, Entry(b"z", Kind.DIRECTORY, 0o755), file(b"z/first", b"content"), Entry(b"a", Kind.DIRECTORY, 0o755)]
    entries += [Entry(b"a/second", Kind.HARDLINK, 0o644, link=b"z/first"), Entry(b"a/third", Kind.HARDLINK, 0o644, link=b"a/second")]
    write_image(tmp_path / "image", entries)
    with open_squashfs(tmp_path / "image") as image:
        assert image.read(b"a/third", 100) == b"content"
        assert image.identity(b"a/third") == image.identity(b"a/second") == image.identity(b"z/first")
    assert facts_of_image(tmp_path / "image") == facts_of_the_kernel(tmp_path / "image", tmp_path)


def test_every_kind_but_directories_can_have_more_names(tmp_path: Path) -> None:
    # The torture tree has them within and across directories; the link counts are the kernel's.
    firsts = [entry for entry in small_tree() if entry.kind not in (Kind.DIRECTORY, Kind.HARDLINK)]
    links = [Entry(b"zz%02d" % number, Kind.HARDLINK, e.mode, e.uid, e.gid, e.mtime_epoch, link=e.path) for number, e in enumerate(firsts)]
    entries = tree_order([entry for entry in small_tree() if entry.kind is not Kind.HARDLINK] + links)
    write_image(tmp_path / "image", entries)
    assert facts_of_image(tmp_path / "image") == expected_facts(entries) == facts_of_the_kernel(tmp_path / "image", tmp_path)


def test_contents_in_pieces_of_any_size_are_the_same_image(tmp_path: Path) -> None:
    class Pieces:
        def __init__(self, data: bytes, size: int) -> None:
            self.data, self.size, self.size_bytes = data, size, len(data)

        def chunks(self):  # type: ignore[no-untyped-def]
            for start in range(0, len(self.data), self.size):
                yield self.data[start : start + self.size]
            yield b""

    images = set()
    for size in (1, 1000, 4096, 5000, 1 << 20):
        entries = [
            replace(entry, content=Pieces(b"".join(entry.content.chunks()), size)) if entry.content else entry for entry in golden_tree()
        ]
        write_image(tmp_path / "image", entries)
        images.add((tmp_path / "image").read_bytes())
    assert len(images) == 1


@pytest.mark.parametrize("off", [-1, 1, 5000, -5000])
@pytest.mark.parametrize("size", [100, 4096, 12288, 15000, 2 << 20])
def test_a_content_that_is_not_as_long_as_it_says_is_no_image(size: int, off: int, tmp_path: Path) -> None:
    class Liar:
        size_bytes = size

        def chunks(self):  # type: ignore[no-untyped-def]
            return Bytes(b"x" * max(0, size + off)).chunks()

    with pytest.raises(EOFError, match=f"a content of {size} bytes has "):
        write_image(tmp_path / "image", [Entry(b"file", Kind.REGULAR, 0o644, content=Liar())])


def test_a_regular_file_without_content_is_empty(tmp_path: Path) -> None:
    write_image(tmp_path / "image", [ROOT, Entry(b"file", Kind.REGULAR, 0o600)])
    assert facts_of_image(tmp_path / "image") == expected_facts([ROOT, replace(file(b"file", b""), mode=0o600)])


def test_what_the_reader_gives_can_be_written_again_as_the_same_image(tmp_path: Path) -> None:
    write_image(tmp_path / "one", golden_tree(), layout=Layout(4096, 5))
    with open_squashfs(tmp_path / "one") as image:
        write_image(tmp_path / "two", image.entries(), layout=Layout(4096, 5))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_content_is_read_once_and_in_order(tmp_path: Path) -> None:
    read: list[str] = []

    class Watched(Bytes):
        def chunks(self):  # type: ignore[no-untyped-def]
            read.append(f"{len(self.data)}")
            return Bytes.chunks(self)

    sizes = [10, 5000, 40000, 3_000_000, 4096, 2 << 20]
    entries = [Entry(b"%d" % number, Kind.REGULAR, 0o644, content=Watched(b"%d" % number * size)) for number, size in enumerate(sizes)]
    write_image(tmp_path / "image", entries)
    assert read == [str(size) for size in sizes]


def test_a_failing_content_ends_the_threads_and_comes_through(tmp_path: Path) -> None:
    class Failing:
        size_bytes = 3 << 20

        def chunks(self):  # type: ignore[no-untyped-def]
            yield b"x" * (1 << 20)
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_image(tmp_path / "image", [Entry(b"file", Kind.REGULAR, 0o644, content=Failing())])


def test_sparse_and_very_large_files_come_out(tmp_path: Path) -> None:
    # 5 GiB with a few bytes; beginning, end and both sides of 4 GiB.
    large = Pattern(5 << 30, b"here", (0, (4 << 30) - 8, 4 << 30, (5 << 30) - 4))
    with open_squashfs(_sparse_image(tmp_path, large)) as image:
        entry = image.find(b"large")
        assert entry is not None and entry.content is not None and entry.content.size_bytes == 5 << 30
        found = []
        position = 0
        zeros = bytes(1 << 20)
        for chunk in entry.content.chunks():
            if chunk != zeros:
                found += [position + place for place in range(len(chunk)) if chunk.startswith(b"here", place)]
            position += len(chunk)
        assert (position, found) == (5 << 30, list(large.at))
    assert (tmp_path / "image").stat().st_size < 100_000


def _sparse_image(tmp_path: Path, large: Pattern) -> Path:
    entries = [ROOT, Entry(b"large", Kind.REGULAR, 0o644, content=large), file(b"small", b"x")]
    write_image(tmp_path / "image", entries, "zstd", 3, Layout(1 << 20))
    return tmp_path / "image"


def test_names_that_occur_twice_are_refused(tmp_path: Path) -> None:
    twice = {
        "files": [file(b"a/f", b"1"), file(b"a/e", b""), file(b"a/f", b"2")],
        "neighbours": [file(b"f", b"1"), file(b"f", b"2")],
        "directories": [Entry(b"f", Kind.DIRECTORY, 0o755), Entry(b"f", Kind.DIRECTORY, 0o755)],
        "roots": [ROOT, ROOT],
        "a link": [file(b"g", b"1"), file(b"f", b"2"), Entry(b"f", Kind.HARDLINK, 0, link=b"g")],
        "a file that others lie in": [file(b"f", b"1"), file(b"f/g", b"2")],
        "a directory, then a file": [file(b"f/g", b"2"), file(b"f", b"1")],
    }
    for name, entries in twice.items():
        with pytest.raises(SquashfsCannotHold, match=r"/(a/f|f|): it is in the stream twice"):
            write_image(tmp_path / "image", entries)
            pytest.fail(name)
