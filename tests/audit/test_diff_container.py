"""Equal entries in unequal bytes: what differs in the container is named."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from comparison import compared, every_finding, needs_root, told, written
from layertar import build, item
from requirement import require
from shiplap.audit.differences import Finding, Section
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.errors import ShiplapError
from shiplap.rootfs.squashfs import SquashfsReader
from shiplap.rootfs.squashfs.write import Layout
from shiplap.verity.format import format_file
from shiplap.verity.parameters import VerityParameters
from squashfsimages import lay_out, mksquashfs, tar2sqfs, tar_of
from squashfswriting import file, write_image

K = Kind
NOISE = random.Random(2)
TREE = [
    Entry(b"", K.DIRECTORY, 0o755),
    *(file(b"f%02d" % number, NOISE.randbytes(9000) + b"text " * 2000) for number in range(12)),
    file(b"small", b"small"),
]
UUID = "6b0f6bb6-5d3c-4b5e-9d55-0c3d7a9d6a11"


def container(section: Section) -> dict[str, Finding]:
    assert section.total == 0 and section.differs, "the entries are equal, the bytes are not"
    assert any("only the container differs" in remark for remark in section.remarks)
    (below,) = section.sections
    return {finding.where: finding for finding in below.findings}


def fields(finding: Finding) -> dict[str, tuple[object, object]]:
    return {change.field: (change.a, change.b) for change in finding.changes}


def test_another_time_in_the_superblock_is_all_that_differs(tmp_path: Path) -> None:
    for name, epoch in (("a", 5), ("b", 7)):
        write_image(tmp_path / name, TREE, "gzip", layout=Layout(4096, epoch))
    found = container(compared(tmp_path / "a", tmp_path / "b"))
    assert list(found) == ["superblock"]
    assert fields(found["superblock"]) == {"time": (5, 7)}


def test_another_compressor_and_block_size_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a", TREE, "gzip", layout=Layout(4096))
    write_image(tmp_path / "b", TREE, "xz", layout=Layout(8192))
    superblock = fields(container(compared(tmp_path / "a", tmp_path / "b"))["superblock"])
    assert superblock["compressor"] == ("gzip", "xz") and superblock["block size"] == (4096, 8192)


def test_another_level_is_seen_in_options_or_stored_sizes(tmp_path: Path) -> None:
    write_image(tmp_path / "a", TREE, "gzip", 1)
    write_image(tmp_path / "b", TREE, "gzip", 9)
    found = container(compared(tmp_path / "a", tmp_path / "b"))
    assert "bytes" in found["stored size of a block"].detail[0] and "f00: block" in found["stored size of a block"].detail[0]
    assert "data" in found and found["data"].detail[0].startswith("first difference at byte ")


@pytest.mark.parametrize(
    ("compressor", "option", "a", "b"),
    [
        ("zstd", "-Xcompression-level", ("3", "level 3"), ("5", "level 5")),
        ("gzip", "-Xcompression-level", ("1", "level 1, window 15, strategies 0"), ("2", "level 2, window 15, strategies 0")),
        ("xz", "-Xdict-size", ("8K", "dictionary 8192, filters 0"), ("16K", "dictionary 16384, filters 0")),
    ],
)
def test_the_compressors_options_are_named(compressor: str, option: str, a: tuple[str, str], b: tuple[str, str], tmp_path: Path) -> None:
    needs_root()
    require("mksquashfs")
    (tmp_path / "laid").mkdir()
    lay_out(TREE, bytes(tmp_path / "laid"))
    images = [
        mksquashfs(tmp_path / name, tmp_path / "laid", "-comp", compressor, option, value) for name, value in (("a", a[0]), ("b", b[0]))
    ]
    assert fields(container(compared(*images))["superblock"])["compressor options"] == (a[1], b[1])


def test_another_order_of_the_data_is_seen_in_their_places(tmp_path: Path) -> None:
    require("tar2sqfs")
    turned = [TREE[0], *reversed(TREE[1:])]
    tar2sqfs(tmp_path / "a", TREE, "-j", "1")
    tar2sqfs(tmp_path / "b", turned, "-j", "1")
    found = container(compared(tmp_path / "a", tmp_path / "b"))
    assert found["place of a tail"].detail[0].startswith("13 files, the first is f00: fragment ")


def test_bytes_behind_the_image_are_told(tmp_path: Path) -> None:
    write_image(tmp_path / "a", TREE)
    with SquashfsReader.open(tmp_path / "a") as image:
        data = (tmp_path / "a").read_bytes()[: image.superblock.bytes_used]
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(data + bytes(4096))
    (tmp_path / "c").write_bytes(data + b"x" * 10)
    found = container(compared(tmp_path / "a", tmp_path / "b"))
    assert fields(found["behind the image"]) == {"padding": ("0 bytes", "4096 bytes")}
    found = container(compared(tmp_path / "b", tmp_path / "c"))
    assert fields(found["behind the image"]) == {"padding": ("4096 bytes", "10 bytes, not only zeros")}


def records(a: bytes, b: bytes, tmp_path: Path) -> list[Finding]:
    (tmp_path / "a").write_bytes(a)
    (tmp_path / "b").write_bytes(b)
    section = compared(tmp_path / "a", tmp_path / "b")
    assert section.total == 0 and section.differs
    (below,) = section.sections
    return below.findings


def test_tars_of_equal_entries_say_how_the_records_differ(tmp_path: Path) -> None:
    plain = build([item("d", type="5"), item("d/f", data=b"1", mtime=5)])
    assert told_of(records(plain, build([item("./d", type="5"), item("d/f", data=b"1", mtime=5)]), tmp_path)) == [("d", "name as written")]
    assert told_of(records(plain, build([item("d", type="5"), item("d/f", data=b"1", mtime=5, uname="root")]), tmp_path)) == [
        ("d/f", "user name")
    ]
    other = build([item("d", type="5"), item("d/f", data=b"1", pax={"mtime": "5", "comment": "hi"})])
    (finding,) = records(plain, other, tmp_path)
    assert {change.field for change in finding.changes} >= {"pax comment", "pax mtime", "mtime field"}
    (finding,) = records(plain, plain + bytes(512), tmp_path)
    assert (finding.where, finding.changes[0].a, finding.changes[0].b) == ("behind the last record", 1024, 1536)


def told_of(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.where, finding.group) for finding in findings]


def test_another_order_of_records_is_told_with_its_place(tmp_path: Path) -> None:
    files = [item(name, data=b"1") for name in ("a", "b", "c")]
    (finding,) = records(build(files), build([files[0], files[2], files[1]]), tmp_path)
    assert (finding.where, finding.changes[0].a, finding.changes[0].b) == ("record 1", "b", "c")


def test_a_record_that_a_later_one_replaces_counts_for_nothing(tmp_path: Path) -> None:
    twice = build([item("f", data=b"old"), item("f", data=b"new")])
    (tmp_path / "a").write_bytes(twice)
    (tmp_path / "b").write_bytes(build([item("f", data=b"new")]))
    section = compared(tmp_path / "a", tmp_path / "b")
    assert section.total == 0 and "1 records that a later one" in section.sections[0].remarks[0]


def test_only_the_compression_of_a_tar_differs(tmp_path: Path) -> None:
    written(tmp_path / "a", TREE, "tar")
    written(tmp_path / "b", TREE, "tar.gz")
    section = compared(tmp_path / "a", tmp_path / "b")
    assert section.causes == ["compressed with none and gzip"] and section.total == 0 and section.differs


# --- hash trees


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").write_bytes(random.Random(1).randbytes(4096 * 300))
    return tmp_path / "data"


def tree(data: Path, path: Path, **options: object) -> Path:
    parameters = VerityParameters(**{"salt": b"salt", "uuid": UUID, **options})  # type: ignore[arg-type]
    format_file(data, path, parameters)
    return path


@pytest.mark.parametrize(
    ("options", "field", "a", "b"),
    [
        ({"salt": b"other"}, "salt", b"salt".hex(), b"other".hex()),
        ({"uuid": UUID.replace("6", "7")}, "UUID", UUID, UUID.replace("6", "7")),
        ({"hash_name": "sha512"}, "hash", "sha256", "sha512"),
        ({"data_block_bytes": 1024}, "data block size", "4096", "1024"),
        ({"hash_type": 0}, "hash type", "1", "0"),
    ],
)
def test_every_field_of_a_hash_tree_is_found(options: dict[str, object], field: str, a: str, b: str, data: Path, tmp_path: Path) -> None:
    section = compared(tree(data, tmp_path / "a"), tree(data, tmp_path / "b", **options))
    superblock = next(finding for finding in section.findings if finding.where == "superblock")
    assert fields(superblock)[field] == (a, b)
    if field != "data block size":
        assert len(superblock.changes) == 1
    if field == "UUID":
        assert section.total == 1, "nothing of the tree depends on it"


def test_the_first_differing_data_block_is_named(data: Path, tmp_path: Path) -> None:
    one = tree(data, tmp_path / "a")
    content = bytearray(data.read_bytes())
    content[4096 * 200 + 5] ^= 1
    data.write_bytes(content)
    section = compared(one, tree(data, tmp_path / "b"))
    (finding,) = section.findings
    # Three blocks of 128 digests each below one top block, which comes first on disk.
    assert finding.where == "hash block 0 of level 1" and "data blocks 0 to 299" in finding.detail[0]
    (tmp_path / "c").write_bytes((tmp_path / "a").read_bytes()[:-4096] + bytes(4096))
    section = compared(one, tmp_path / "c")
    assert "covers data block 256" in section.findings[0].detail[0]


def test_a_superblock_that_is_none_is_one_error(data: Path, tmp_path: Path) -> None:
    good = tree(data, tmp_path / "a")
    (tmp_path / "bad").write_bytes(good.read_bytes()[:8] + b"\xff" * 600)
    with pytest.raises(ShiplapError, match="bad: superblock version"):
        compared(good, tmp_path / "bad")


def test_files_of_no_known_kind_show_their_first_difference(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x7fELF" + bytes(100))
    (tmp_path / "b").write_bytes(b"\x7fELF" + bytes(90) + b"\1" + bytes(20))
    (finding,) = compared(tmp_path / "a", tmp_path / "b").findings
    assert fields(finding) == {"size": (104, 115), "content": (None, None)}
    assert finding.detail[0] == "first difference at byte 94 (0x5e)"


def test_a_changed_byte_of_a_files_data_is_not_hidden_by_equal_stored_blocks(tmp_path: Path) -> None:
    """Blocks that are stored alike are not decompressed; one bit decides."""
    other = [
        replace(entry, content=Bytes(b"\xff" + entry.content.chunks().__next__()[1:])) if entry.path == b"f07" else entry for entry in TREE
    ]  # type: ignore[union-attr]
    for name, entries in (("a", TREE), ("b", other)):
        write_image(tmp_path / name, entries, "none" if name == "none" else "zstd", layout=Layout(4096))
    assert told(compared(tmp_path / "a", tmp_path / "b")) == [("f07", "content")]
    assert (tmp_path / "a").stat().st_size > len(tar_of(TREE)) // 8
    assert every_finding(compared(tmp_path / "a", tmp_path / "a")) == []
