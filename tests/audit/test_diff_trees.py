"""A change of one field is found as exactly that field, whatever the trees are kept in."""

from __future__ import annotations

import json
import random
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from comparison import FORMS, changed, compared, needs_root, told, written
from requirement import require
from shiplap.audit.extraction import ExtractOptions, open_entries
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.errors import ShiplapError
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT
from squashfscraft import FILE, SOCKET, Craft, Name, listing, reference
from squashfsimages import CAPABILITY, facts_of_image, lay_out, mksquashfs, small_tree, tar2sqfs, tar_of, torture_tree, tree_order
from squashfswriting import file

K = Kind
NOISE = random.Random(5).randbytes(9000)
TREE = tree_order(
    [
        Entry(b"", K.DIRECTORY, 0o755, mtime_epoch=5),
        Entry(b"dir", K.DIRECTORY, 0o755, mtime_epoch=5),
        Entry(b"dir/data", K.REGULAR, 0o644, 1, 2, 1_700_000_000, content=Bytes(NOISE), xattrs=((b"user.note", b"one"),)),
        Entry(b"dir/text", K.REGULAR, 0o644, content=Bytes(b"first\nsecond\nthird\n")),
        Entry(b"dir/text2", K.HARDLINK, 0o644, link=b"dir/text"),
        Entry(b"other", K.REGULAR, 0o644, content=Bytes(b"first\nsecond\nthird\n")),
        Entry(b"link", K.SYMLINK, 0o777, link=b"dir/data"),
        Entry(b"null", K.CHARACTER, 0o666, device=(1, 3)),
        Entry(b"pipe", K.FIFO, 0o600),
    ]
)
CHANGES = {
    "mode": (b"dir/data", {"mode": 0o4755}, "mode", "0644", "4755"),
    "mode of a directory": (b"dir", {"mode": 0o700}, "mode", "0755", "0700"),
    "mode of the root": (b"", {"mode": 0o700}, "mode", "0755", "0700"),
    "uid": (b"dir/data", {"uid": 1000}, "uid", 1, 1000),
    "gid": (b"pipe", {"gid": 7}, "gid", 0, 7),
    "mtime": (b"dir/data", {"mtime_epoch": 0}, "mtime", "1700000000 (2023-11-14T22:13:20Z)", "0 (1970-01-01T00:00:00Z)"),
    "link target": (b"link", {"link": b"/etc"}, "link target", "dir/data", "/etc"),
    "device": (b"null", {"device": (1, 5)}, "device", "1:3", "1:5"),
    "xattr": (b"dir/data", {"xattrs": ((b"user.note", b"two"),)}, "xattr user.note", '"one"', '"two"'),
    "a binary xattr": (
        b"dir/data",
        {"xattrs": ((b"security.capability", CAPABILITY), (b"user.note", b"one"))},
        "xattr security.capability",
        None,
        "0x" + CAPABILITY.hex(),
    ),
    "no xattr": (b"dir/data", {"xattrs": ()}, "xattr user.note", '"one"', None),
    "content": (b"dir/data", {"content": Bytes(NOISE[:-1] + bytes([NOISE[-1] ^ 1]))}, "content", None, None),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CHANGES)
def test_one_changed_field_is_found_as_exactly_that_field(name: str, form: str, tmp_path: Path) -> None:
    path, fields, field, a, b = CHANGES[name]
    section = compared(written(tmp_path / "a", TREE, form), written(tmp_path / "b", changed(TREE, path, **fields), form))
    (finding,) = section.findings
    (change,) = finding.changes
    assert finding.where == (path.decode() or "/")
    assert (change.field, change.a, change.b) == (field, a, b)
    assert section.total == 1 and section.differs


@pytest.mark.parametrize("form", FORMS)
def test_equal_trees_are_equal_and_say_nothing(form: str, tmp_path: Path) -> None:
    section = compared(written(tmp_path / "a", TREE, form), written(tmp_path / "b", TREE, form))
    assert not section.differs and not section.total


@pytest.mark.parametrize("form", FORMS)
def test_a_hard_link_and_a_copy_are_told_apart(form: str, tmp_path: Path) -> None:
    """The contents are equal in every case: only the link group differs."""
    copy = changed(TREE, b"dir/text2", kind=K.REGULAR, link=b"", content=Bytes(b"first\nsecond\nthird\n"))
    section = compared(written(tmp_path / "a", TREE, form), written(tmp_path / "b", copy, form))
    (finding,) = section.findings
    assert [(one.field, one.a, one.b) for one in finding.changes] == [("hard link", "dir/text", None)]
    elsewhere = changed(copy, b"other", kind=K.HARDLINK, link=b"dir/text", content=None)
    section = compared(written(tmp_path / "a", TREE, form), written(tmp_path / "c", elsewhere, form))
    assert told(section) == [("dir/text2", "hard link"), ("other", "hard link")]


@pytest.mark.parametrize("form", FORMS)
def test_another_content_behind_a_broken_link_is_found(form: str, tmp_path: Path) -> None:
    other = changed(TREE, b"dir/text2", kind=K.REGULAR, link=b"", content=Bytes(b"first\nSECOND\nthird\n"))
    section = compared(written(tmp_path / "a", TREE, form), written(tmp_path / "b", other, form))
    assert told(section) == [("dir/text2", "hard link and content")]


@pytest.mark.parametrize("form", FORMS)
def test_the_content_of_linked_names_is_told_once(form: str, tmp_path: Path) -> None:
    other = changed(TREE, b"dir/text", content=Bytes(b"first\n2nd\nthird\n"))
    section = compared(written(tmp_path / "a", TREE, form), written(tmp_path / "b", other, form))
    (finding,) = section.findings
    assert [one.field for one in finding.changes] == ["size", "content"]
    assert finding.detail == ("@@ -1,3 +1,3 @@", " first", "-second", "+2nd", " third")


def test_binary_contents_show_the_first_difference_in_hex(tmp_path: Path) -> None:
    other = changed(TREE, b"dir/data", content=Bytes(NOISE[:5000] + b"\0\0\0\0" + NOISE[5004:]))
    (finding,) = compared(written(tmp_path / "a", TREE, "tar"), written(tmp_path / "b", other, "tar")).findings
    assert finding.detail[0] == "first difference at byte 5000 (0x1388)"
    assert f"- 00001380  {NOISE[4992:5008].hex(' ')}" in finding.detail[1]
    assert f"+ 00001380  {(NOISE[4992:5000] + bytes(4) + NOISE[5004:5008]).hex(' ')}" in finding.detail[4]


@pytest.mark.parametrize("kind", [K.DIRECTORY, K.SYMLINK, K.FIFO, K.BLOCK])
def test_another_type_is_a_change_of_the_type(kind: Kind, tmp_path: Path) -> None:
    other = changed(
        TREE, b"other", kind=kind, content=None, link=b"x" if kind is K.SYMLINK else b"", device=(8, 1) if kind is K.BLOCK else (0, 0)
    )
    (finding,) = compared(written(tmp_path / "a", TREE, "squashfs"), written(tmp_path / "b", other, "squashfs")).findings
    assert (finding.changes[0].field, finding.changes[0].a, finding.changes[0].b) == ("type", "regular file", kind.value)


@pytest.mark.parametrize("form", FORMS)
def test_a_directory_of_one_side_is_one_finding_with_its_size(form: str, tmp_path: Path) -> None:
    more = tree_order([*TREE, Entry(b"new", K.DIRECTORY, 0o755), file(b"new/a", b"12345"), file(b"new/b", b"678"), file(b"new-er", b"")])
    section = compared(written(tmp_path / "a", TREE, form), written(tmp_path / "b", more, form))
    assert [(one.where, one.verdict, one.kind, one.entries, one.content_bytes) for one in section.findings] == [
        ("new", "only in B", "directory", 3, 8),
        ("new-er", "only in B", "regular file", 1, 0),
    ]
    back = compared(tmp_path / "b", tmp_path / "a")
    assert {one.verdict for one in back.findings} == {"only in A"}


def test_findings_are_grouped_and_counted_beyond_those_that_are_kept(tmp_path: Path) -> None:
    many = [Entry(b"", K.DIRECTORY, 0o755), *(file(b"f%04d" % number, b"") for number in range(300))]
    later = [many[0], *(replace(entry, mtime_epoch=9) for entry in many[1:-1]), replace(many[-1], mode=0o600)]
    section = compared(written(tmp_path / "a", many, "squashfs"), written(tmp_path / "b", later, "squashfs"), keep=7)
    assert len(section.findings) == 7 and section.total == 300
    assert section.summary() == [
        "299 differ in mtime only, all alike: 0 (1970-01-01T00:00:00Z) / 9 (1970-01-01T00:00:09Z)",
        "1 differs in mode only",
    ]


def test_a_squashfs_and_a_tar_are_compared_entry_by_entry(tmp_path: Path) -> None:
    section = compared(written(tmp_path / "a", TREE, "squashfs"), written(tmp_path / "b", TREE, "tar"))
    assert section.total == 0 and "entry by entry" in section.remarks[-1]
    other = changed(TREE, b"dir", uid=3)
    section = compared(tmp_path / "a", written(tmp_path / "c", other, "tar.gz"))
    assert told(section) == [("dir", "uid")]


def test_names_that_look_alike_are_two_names(tmp_path: Path) -> None:
    one, other = (changed(TREE, b"link", link=target) for target in (b"\xff", b"\\xff"))
    (finding,) = compared(written(tmp_path / "a", one, "squashfs"), written(tmp_path / "b", other, "squashfs")).findings
    assert finding.group == "link target"


def test_images_of_three_tools_with_everything_in_them_agree(tmp_path: Path) -> None:
    needs_root()
    require("tar2sqfs", "mksquashfs")
    tree = torture_tree(4096)
    ours = written(tmp_path / "ours", tree, "squashfs")
    section = compared(ours, tar2sqfs(tmp_path / "theirs", tree, "-b", "4096"))
    assert section.total == 0
    small = small_tree()
    (tmp_path / "laid").mkdir()
    lay_out(small, bytes(tmp_path / "laid"))
    mksquashfs(tmp_path / "mk", tmp_path / "laid", "-comp", "xz", "-b", "65536")
    section = compared(written(tmp_path / "small", small, "squashfs"), tmp_path / "mk")
    assert section.total == 0 and facts_of_image(tmp_path / "mk")
    superblock = next(one for one in section.sections[0].findings if one.where == "superblock")
    assert {("compressor", "gzip", "xz"), ("block size", 4096, 65536)} <= {(one.field, one.a, one.b) for one in superblock.changes}


def test_a_socket_is_compared_as_one(tmp_path: Path) -> None:
    def image(*names: bytes) -> bytes:
        craft = Craft()
        lines: list[Name] = []
        for number, name in enumerate(names, 2):
            lines.append((name, SOCKET, craft.inode(SOCKET, number, (1).to_bytes(4, "little")), number))
        craft.directory(1, listing(lines))
        return craft.image(reference(len(craft.inodes) - 32))

    (tmp_path / "a").write_bytes(image(b"one", b"two"))
    (tmp_path / "b").write_bytes(image(b"two"))
    section = compared(tmp_path / "a", tmp_path / "b")
    assert [(one.where, one.verdict, one.kind) for one in section.findings] == [("one", "only in A", "socket")]


def _hostile() -> dict[str, bytes]:
    loop = Craft()
    inner = loop.next_inode
    loop.directory(2, listing([(b"again", 1, inner, 2)]))
    loop.directory(1, listing([(b"dir", 1, inner, 2)]))
    absent = Craft()
    absent.directory(1, listing([(b"f", FILE, absent.file(2, size=100, start=1 << 40, words=(4096,)), 2)]))
    cut = Craft()
    cut.directory(1, listing([(b"f", FILE, cut.file(2), 2)]))
    images = {name: craft.image(reference(len(craft.inodes) - 32)) for name, craft in (("loop", loop), ("data outside", absent))}
    images["cut short"] = cut.image(reference(len(cut.inodes) - 32))[:-9]
    images["only a magic"] = b"hsqs"
    return images


@pytest.mark.parametrize("name", _hostile())
def test_a_hostile_image_is_one_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "hostile.squashfs").write_bytes(_hostile()[name])
    good = written(tmp_path / "good.squashfs", [Entry(b"", K.DIRECTORY, 0o755), file(b"f", b"x" * 100)], "squashfs")
    with pytest.raises(ShiplapError, match=r"hostile\.squashfs"):
        compared(good, tmp_path / "hostile.squashfs")


@pytest.mark.parametrize("records", [b"\x01" * 257 + b"ustar" + bytes(300), b"\0" * 257 + b"ustar\0" + b"00" + bytes(247)])
def test_a_damaged_tar_is_one_clear_error(records: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(records)
    with pytest.raises(ShiplapError, match=r"bad\.tar"):
        compared(tmp_path / "bad.tar", written(tmp_path / "good.tar", TREE, "tar"))


@pytest.mark.parametrize("form", ["squashfs", "tar"])
def test_whatever_is_damaged_raises_nothing_but_our_error(form: str, tmp_path: Path) -> None:
    good = written(tmp_path / "good", small_tree(), form)
    data = good.read_bytes()
    rng = random.Random(11)
    found = 0
    for round_ in range(250):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            # Headers and metadata are where it matters; of a SquashFS they lie at the end.
            at = rng.randrange(len(damaged)) if form == "tar" or round_ % 2 else max(0, len(damaged) - 1 - rng.randrange(900))
            damaged[at] = rng.choice((0, 0xFF, 0x30, damaged[at] ^ 1 << rng.randrange(8)))
        (tmp_path / "damaged").write_bytes(damaged[: rng.randrange(len(damaged))] if round_ % 10 == 0 else damaged)
        with suppress(ShiplapError):
            section = compared(good, tmp_path / "damaged", keep=3)
            found += section.differs
            json.dumps(section.to_data())
        with suppress(ShiplapError), open_entries(str(tmp_path / "damaged"), [], ExtractOptions(Limits(), SILENT)) as entries:
            tar_of(entries)
    assert found > 10


def test_memory_does_not_grow_with_the_trees(tmp_path: Path) -> None:
    """Of a SquashFS blocks of metadata are kept, of a tar names and positions: far less than entries would take."""

    def peak(count: int, form: str) -> int:
        entries = [Entry(b"", K.DIRECTORY, 0o755), *(file(b"name-%06d" % number, b"") for number in range(count))]
        later = [entries[0], *(replace(entry, mtime_epoch=1) for entry in entries[1:])]
        one, other = written(tmp_path / "a", entries, form), written(tmp_path / "b", later, form)
        del entries, later
        tracemalloc.start()
        section = compared(one, other, keep=5)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert section.total == count
        return most

    assert peak(7_000, "squashfs") < peak(2_000, "squashfs") + 5_000 * 2 * 150
    assert peak(5_000, "tar") < peak(1_000, "tar") + 4_000 * 2 * 450
