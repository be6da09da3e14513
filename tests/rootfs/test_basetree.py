"""A base root file system: what its tar says, what is refused, and how our files go into it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from images import ACL, CAPABILITY, X, block, character, directory, fifo, file, hardlink, symlink
from layertar import TarItem, build, item
from shiplap.core.compression import TooLarge
from shiplap.core.entries import Bytes, Entry, FileSlice, Kind
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.rootfs.basetar import BaseUnreadable, open_base_tar
from shiplap.rootfs.basetree import BaseTree, RootRefused

EPOCH = 1700000000


def tree_of(*items: TarItem | bytes, entries_max: int = 1000) -> BaseTree:
    tree = BaseTree("base.tar", EPOCH, entries_max)
    with slice_of(build(list(items))) as tar:
        tree.read(FileSlice(os.dup(tar.descriptor), 0, tar.size_bytes, "base.tar"))
    return tree


@contextmanager
def slice_of(data: bytes) -> Iterator[FileSlice]:
    with tempfile.TemporaryFile() as spool:
        spool.write(data)
        spool.flush()
        yield FileSlice(spool.fileno(), 0, len(data), "base.tar")


def listed(tree: BaseTree) -> dict[bytes, Entry]:
    return {entry.path: entry for entry in tree.entries()}


def content(entry: Entry) -> bytes:
    assert entry.content is not None
    return b"".join(entry.content.chunks())


def ours(path: bytes, data: bytes = b"ours", **fields: Any) -> Entry:
    return Entry(path, Kind.REGULAR, 0o644, mtime_epoch=EPOCH, content=Bytes(data), **fields)


def test_every_kind_of_entry_keeps_what_the_tar_says() -> None:
    long = "l" * 200 + "/" + "n" * 200
    found = listed(
        tree_of(
            directory("./", mode=0o711, uid=3, mtime=9),
            file("./bin/ping", b"ping", mode=0o4755, uid=7, gid=8, mtime=5, pax={X + "security.capability": CAPABILITY}),
            symlink("sbin", "usr/sbin"),
            character("dev/null", 1, 3, mode=0o666),
            block("dev/sda1", 8, 1),
            fifo("run/pipe"),
            file(long, b"far", pax={"path": long}),
            hardlink("bin/ping2", "./bin/ping"),
        )
    )
    assert (found[b""].mode, found[b""].uid, found[b""].mtime_epoch) == (0o711, 3, 9)
    ping = found[b"bin/ping"]
    assert (ping.mode, ping.uid, ping.gid, ping.mtime_epoch) == (0o4755, 7, 8, 5)
    assert ping.xattrs == ((b"security.capability", CAPABILITY),)
    assert (found[b"bin/ping2"].kind, found[b"bin/ping2"].link) == (Kind.HARDLINK, b"bin/ping")
    assert (found[b"sbin"].kind, found[b"sbin"].link) == (Kind.SYMLINK, b"usr/sbin")
    assert (found[b"dev/null"].device, found[b"dev/sda1"].device) == ((1, 3), (8, 1))
    assert found[b"run/pipe"].kind is Kind.FIFO
    assert (found[b"bin"].mode, found[b"bin"].mtime_epoch) == (0o755, EPOCH)


def test_the_order_is_parents_first_and_by_bytes() -> None:
    found = list(listed(tree_of(file("b/c"), file("b.d"), file("b/a"), file("a"), file("B"))))
    assert found == [b"", b"B", b"a", b"b", b"b/a", b"b/c", b"b.d"]


def test_the_later_of_two_entries_counts() -> None:
    tree = tree_of(
        file("a", b"old"), file("a", b"new"), symlink("l", "x"), directory("l"), directory("d", mode=0o700), directory("d", mode=0o711)
    )
    found = listed(tree)
    assert found[b"a"].content is not None
    assert found[b"a"].content.size_bytes == 3
    assert found[b"l"].kind is Kind.DIRECTORY
    assert found[b"d"].mode == 0o711


def test_a_hard_link_keeps_what_was_there_when_its_name_is_replaced() -> None:
    found = listed(tree_of(file("a", b"one"), hardlink("b", "a"), file("a", b"three"), file("c")))
    assert found[b"a"].content is not None and found[b"a"].content.size_bytes == 5
    assert found[b"b"].kind is Kind.REGULAR
    assert found[b"b"].content is not None and found[b"b"].content.size_bytes == 3
    assert listed(tree_of(file("a", b"one"), hardlink("a", "a")))[b"a"].kind is Kind.REGULAR


def test_hard_links_and_entries_go_through_the_links_of_a_merged_usr() -> None:
    found = listed(tree_of(directory("usr/bin"), symlink("bin", "usr/bin"), file("bin/sh", b"sh"), hardlink("bin/sh2", "bin/sh")))
    assert found[b"usr/bin/sh"].kind is Kind.REGULAR
    assert (found[b"usr/bin/sh2"].kind, found[b"usr/bin/sh2"].link) == (Kind.HARDLINK, b"usr/bin/sh")


REFUSED = {
    "leaves the root": [file("../x")],
    "which is no earlier file": [hardlink("a", "b"), file("b")],
    "which is no earlier file ": [directory("d"), hardlink("a", "d")],
    "cannot replace a directory with entries": [file("d/x"), file("d")],
    "is a regular file": [file("f"), file("f/x")],
    "too many symbolic links": [symlink("a", "b"), symlink("b", "a"), file("a/x")],
    "POSIX ACL": [file("f", pax={X + "system.posix_acl_access": ACL})],
    "its type": [item("f", type="Z")],
    "there is no device": [character("f", 5000, 1)],
    "its owner": [file("f", uid=0xFFFFFFFF)],
    "the root of the file system is a symbolic link": [symlink("./", "x")],
    "a name of 300 bytes": [file("n" * 300, pax={"path": "n" * 300})],
    "a path of 5": [file("x", pax={"path": "/".join(["d" * 50] * 100)})],
    "more than 1000 entries": [file("x", pax={"path": "/".join("d" * 1100)})],
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_no_root_file_system_can_be_is_refused(words: str) -> None:
    with pytest.raises(RootRefused, match=words.strip()):
        tree_of(*REFUSED[words])


def test_as_many_links_are_followed_as_the_kernel_follows() -> None:
    def chain(count: int) -> list[TarItem]:
        return [directory("l0"), *(symlink(f"l{number}", f"l{number - 1}") for number in range(1, count + 1)), file(f"l{count}/f")]

    assert b"l0/f" in listed(tree_of(*chain(40)))
    with pytest.raises(RootRefused, match="too many symbolic links"):
        tree_of(*chain(41))


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(RootRefused, match="more than 2 entries"):
        tree_of(file("a"), file("b"), file("c"), entries_max=2)


def test_links_never_lead_out_of_the_base(tmp_path: Path) -> None:
    found = listed(tree_of(symlink("up", "../../../.."), file("up/etc/x", b"x"), symlink("abs", str(tmp_path)), file("abs/y", b"y")))
    assert b"etc/x" in found
    assert str(tmp_path).lstrip("/").encode() + b"/y" in found
    assert list(tmp_path.iterdir()) == []


def test_sockets_and_attributes_that_squashfs_lacks_are_left_out_and_named() -> None:
    tree = tree_of(item("run/socket", type="s"), file("f", pax={X + "user.a": "1", X + "system.nfs4_acl": "2", X + "com.apple.x": "3"}))
    assert tree.sockets == [b"run/socket"]
    assert tree.xattrs_left_out == [b"f"]
    assert listed(tree)[b"f"].xattrs == ((b"user.a", b"1"),)


def test_our_files_replace_the_base_s_and_are_named_and_directories_stay() -> None:
    tree = tree_of(directory("etc", mode=0o700, uid=5), file("etc/conf", b"base"), symlink("lib", "usr/lib"), directory("usr/lib"))
    tree.put(Entry(b"etc", Kind.DIRECTORY, 0o755))
    tree.put(ours(b"etc/conf"))
    tree.put(Entry(b"lib", Kind.DIRECTORY, 0o755))
    tree.put(ours(b"lib/new"))
    found = listed(tree)
    assert tree.replaced == [b"etc/conf"]
    assert content(found[b"etc/conf"]) == b"ours"
    assert (found[b"etc"].mode, found[b"etc"].uid) == (0o700, 5)
    assert content(found[b"usr/lib/new"]) == b"ours"
    assert found[b"lib"].kind is Kind.SYMLINK
    with pytest.raises(RootRefused, match="the base has a directory there"):
        tree.put(ours(b"etc"))


def test_a_tree_is_grafted_with_hard_links_devices_and_attributes() -> None:
    tree = tree_of(symlink("store", "usr/share/s"), directory("usr/share/s"))
    opaque = ((b"trusted.overlay.opaque", b"y"),)
    stream = [
        Entry(b"", Kind.DIRECTORY, 0o750, mtime_epoch=4),
        Entry(b"d", Kind.DIRECTORY, 0o700, xattrs=opaque),
        ours(b"d/f"),
        Entry(b"d/gone", Kind.CHARACTER, 0, device=(0, 0)),
        Entry(b"e", Kind.HARDLINK, 0o644, link=b"d/f"),
    ]
    tree.graft(b"store", iter(stream))
    found = listed(tree)
    assert (found[b"usr/share/s"].mode, found[b"usr/share/s/d"].xattrs) == (0o750, opaque)
    assert (found[b"usr/share/s/d/gone"].kind, found[b"usr/share/s/d/gone"].device) == (Kind.CHARACTER, (0, 0))
    assert found[b"usr/share/s/e"].link == b"usr/share/s/d/f"
    with pytest.raises(RootRefused, match="has something there already"):
        tree.graft(b"store", iter(stream))


# --- the file

COMPRESSORS = {
    "gzip": ["gzip", "-nc"],
    "bzip2": ["bzip2", "-c"],
    "xz": ["xz", "-c"],
    "zstd": ["zstd", "-qc"],
    "lz4": ["lz4", "-qc"],
    "lzma": ["xz", "--format=lzma", "-c"],
    "compress": ["bsdtar", "-Zcf", "-", "@-"],
    "lzip": ["bsdtar", "--lzip", "-cf", "-", "@-"],
}


@pytest.mark.parametrize("name", ["none", *COMPRESSORS])
def test_every_compression_of_the_base_is_read(name: str, tmp_path: Path) -> None:
    plain = build([directory("etc"), file("etc/x", b"x" * 3_000_000)])
    data = plain
    if name != "none":
        if shutil.which(COMPRESSORS[name][0]) is None:
            pytest.skip(f"{COMPRESSORS[name][0]} is not installed")
        data = subprocess.run(COMPRESSORS[name], input=plain, capture_output=True, check=True).stdout
    (tmp_path / "base").write_bytes(data)
    with open_base_tar(tmp_path / "base", 1 << 30) as tar:
        tree = BaseTree("base", EPOCH, 100)
        tree.read(tar)
        assert content(listed(tree)[b"etc/x"]) == b"x" * 3_000_000
        if name not in ("compress", "lzip"):  # bsdtar writes the archive anew
            assert tar.size_bytes == len(plain)
    if name != "none":
        with pytest.raises(TooLarge), open_base_tar(tmp_path / "base", 100_000):
            pass


def test_gnu_and_pax_tars_of_real_programs_are_read(tmp_path: Path) -> None:
    deep = tmp_path / "root" / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / "f").write_text("far")
    (deep / "link").symlink_to("/" + "t" * 150)
    for form in ("gnu", "pax", "ustar"):
        names = tmp_path / f"{form}.tar"
        done = subprocess.run(["tar", f"--format={form}", "-C", tmp_path / "root", "-cf", names, "."], capture_output=True, check=False)
        if done.returncode:
            assert form == "ustar"
            continue
        with open_base_tar(names, 1 << 30) as tar:
            tree = BaseTree(form, EPOCH, 100)
            tree.read(tar)
            found = listed(tree)
            path = f"{'d' * 120}/{'e' * 120}".encode()
            assert found[path + b"/link"].link == b"/" + b"t" * 150
            assert content(found[path + b"/f"]) == b"far"


def test_no_room_to_uncompress_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").write_bytes(subprocess.run(["gzip", "-c"], input=build([file("x")]), capture_output=True, check=True).stdout)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(OutsideFailure, match=r"cannot uncompress .* No such file"), open_base_tar(tmp_path / "base", 1 << 30):
        pass


def test_what_is_no_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for path, words in ((tmp_path / "empty", "is empty"), (tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(BaseUnreadable, match=words), open_base_tar(path, 1 << 30):
            pass
    (tmp_path / "noise").write_bytes(b"noise" * 1000)
    with open_base_tar(tmp_path / "noise", 1 << 30) as tar, pytest.raises(Refused, match="not a valid tar"):
        BaseTree("noise", EPOCH, 10).read(tar)
