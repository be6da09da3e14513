"""What parts of a SquashFS cost: held against an image that is coloured byte by byte."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requirement import require
from shiplap.core.entries import Entry, Kind
from shiplap.rootfs.squashfs import costs
from shiplap.rootfs.squashfs.content import SquashfsContent
from shiplap.rootfs.squashfs.costs import Costs, measure_costs
from shiplap.rootfs.squashfs.file import SquashfsError
from shiplap.rootfs.squashfs.reader import SquashfsReader
from shiplap.rootfs.squashfs.write import Layout
from squashfscraft import Craft, listing
from squashfsimages import lay_out, mksquashfs, tar2sqfs
from squashfswriting import Pattern, file, write_image

_STORED = 1 << 24
SHARED = random.Random(1).randbytes(9000)


def tree() -> list[Entry]:
    """Three folders: runs of blocks, tails, holes; some of it in two of them, some twice in one."""
    rng = random.Random(7)
    entries = [Entry(b"", Kind.DIRECTORY, 0o755), Entry(b"a", Kind.DIRECTORY, 0o755)]
    entries += [file(b"a/%d" % number, rng.randbytes(rng.choice((0, 1, 700, 4096, 4097, 13000)))) for number in range(25)]
    entries += [file(b"a/shared", SHARED), file(b"a/text", b"again and again " * 900), Entry(b"b", Kind.DIRECTORY, 0o755)]
    entries += [file(b"b/%d" % number, rng.randbytes(1500) * (number % 5)) for number in range(20)]
    entries += [file(b"b/shared", SHARED), file(b"b/shared2", SHARED), Entry(b"b/tiny", Kind.SYMLINK, 0o777, link=b"0")]
    entries += [Entry(b"b/link", Kind.HARDLINK, 0o644, link=b"b/3"), Entry(b"c", Kind.DIRECTORY, 0o755)]
    entries += [Entry(b"c/hole", Kind.REGULAR, 0o644, content=Pattern(50_000, b"x", (20_000,))), file(b"c/tail", SHARED[8192:])]
    return entries


def _builtin(path: Path) -> None:
    write_image(path, tree(), layout=Layout(4096))


def _builtin_without_tails(path: Path) -> None:
    write_image(path, tree(), compression="none", layout=Layout(4096, tails=False))


def _tar2sqfs(path: Path) -> None:
    require("tar2sqfs")
    tar2sqfs(path, tree(), "-b", "4096")


def _mksquashfs(path: Path) -> None:
    require("mksquashfs")
    folder = path.with_suffix(".tree")
    folder.mkdir()
    lay_out(tree(), bytes(folder))
    mksquashfs(path, folder, "-b", "4096", "-always-use-fragments")


WRITERS = [_builtin, _builtin_without_tails, _tar2sqfs, _mksquashfs]
GROUPS = [[b"a"], [b"b"], [b"c"]]


@pytest.fixture(params=WRITERS, ids=lambda one: one.__name__.strip("_"))
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write: Callable[[Path], None] = request.param
    write(tmp_path / "image.squashfs")
    return tmp_path / "image.squashfs"


def measured(image: Path, groups: Sequence[Sequence[bytes]] = GROUPS) -> Costs:
    with SquashfsReader.open(image) as reader:
        return measure_costs(reader, groups)


def coloured(image: Path, groups: Sequence[Sequence[bytes]]) -> tuple[list[int], list[float]]:
    """Of each group: bytes of blocks that it owns, and what its tails make of their fragment blocks."""
    with SquashfsReader.open(image) as reader:
        owner = [-1] * reader.superblock.bytes_used
        tails: dict[int, list[int]] = {}
        for number, paths in enumerate(groups):
            for path in paths:
                for entry in reader.entries(path):
                    if not isinstance(entry.content, SquashfsContent):
                        continue
                    data, at = entry.content.data, entry.content.data.start
                    for word in entry.content.blocks.words(data):
                        for byte in range(at, at + (word & ~_STORED)):
                            owner[byte] = number if owner[byte] < 0 else owner[byte]
                        at += word & ~_STORED
                    if data.fragment is not None:
                        colours = tails.setdefault(data.fragment, [-1] * 4096)
                        for byte in range(data.fragment_offset, data.fragment_offset + data.size_bytes % 4096):
                            colours[byte] = number if colours[byte] < 0 else colours[byte]
        shares = [0.0] * len(groups)
        for fragment, colours in tails.items():
            stored, used = reader.stored_fragment_bytes(fragment), sum(one >= 0 for one in colours)
            for number in range(len(groups)):
                shares[number] += stored * colours.count(number) / used
    return [owner.count(number) for number in range(len(groups))], shares


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_each_byte_belongs_to_the_first_that_uses_it(image: Path, order: tuple[int, ...]) -> None:
    groups = [GROUPS[number] for number in order]
    found = measured(image, groups)
    runs, shares = coloured(image, groups)
    for cost, run, share in zip(found.groups, runs, shares, strict=True):
        assert abs(cost.data_bytes - run - share) < 30  # every fragment block rounds once


def test_the_parts_add_up_to_the_image(image: Path) -> None:
    found = measured(image, [[b""]])
    (whole,) = found.groups
    superblock_and_options = found.bytes_used - whole.stored_bytes
    assert 96 <= superblock_and_options <= 130
    parts = measured(image)
    assert sum(cost.data_bytes for cost in parts.groups) == whole.data_bytes
    # The entry of the root is in none of the parts.
    assert sum(cost.entries for cost in parts.groups) == whole.entries - 1
    assert sum(cost.metadata_bytes for cost in parts.groups) == whole.metadata_bytes
    assert sum(cost.content_bytes for cost in parts.groups) == whole.content_bytes


def test_what_is_there_already_costs_nothing_and_is_said_to_be_saved(image: Path) -> None:
    first, second, _ = measured(image).groups
    before = measured(image, [[b"b"], [b"a"], [b"c"]]).groups[0]
    assert first.duplicate_bytes == 0
    saved = second.duplicate_bytes - before.duplicate_bytes
    assert abs(saved - (before.data_bytes - second.data_bytes)) < 30  # every fragment block rounds once
    assert saved >= 8192  # the blocks of random bytes
    assert before.duplicate_bytes >= 8192  # shared2, in the folder itself


def test_the_largest_files_are_named_with_what_they_own(image: Path) -> None:
    found = measured(image)
    sizes = [one.data_bytes for one in found.largest]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) <= costs.LARGEST
    by_path = {one.path: one for one in found.largest}
    assert b"a/shared" in by_path and by_path[b"a/shared"].data_bytes >= 8192 and by_path[b"a/shared"].group == 0
    assert b"b/shared" not in by_path and b"b/shared2" not in by_path


def test_copies_do_not_crowd_others_out_of_the_largest(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {one.path for one in measured(image, [[b"b"]]).largest}
    monkeypatch.setattr(costs, "_CANDIDATES", 2)
    # Both copies are larger than all others, and one of them is enough.
    found = measured(image, [[b"b"]]).largest
    assert len(found) == 2 and found[0].path == b"b/shared" and found[1].path in everything


def _first_come(ranges: Iterable[tuple[int, int]]) -> list[int]:
    taken: set[int] = set()
    owned = []
    for start, length in ranges:
        new = set(range(start, start + length)) - taken
        taken |= new
        owned.append(len(new))
    return owned


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=30))
def test_of_overlapping_ranges_the_first_owns_what_they_share(ranges: list[tuple[int, int]]) -> None:
    starts, ends = array("Q", [start for start, _ in ranges]), array("Q", [start + length for start, length in ranges])
    assert list(costs._owned(starts, ends)) == _first_come(ranges)


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), max_size=20))
def test_what_is_divided_adds_up(total: int, weights: list[int]) -> None:
    parts = costs._apportioned(total, weights)
    assert sum(parts) == (total if sum(weights) else 0)
    assert all(part >= 0 for part in parts)
    assert all(abs(part - total * weight / max(1, sum(weights))) <= 1.001 for part, weight in zip(parts, weights, strict=True))


def hostile(tmp_path: Path, **fields: int) -> SquashfsError:
    """The error of measuring an image whose only file says ``fields`` of itself."""
    craft = Craft()
    craft.put(bytes(64))
    craft.fragments = [(96, 64 | _STORED)]
    inode = craft.file(2, **fields)  # type: ignore[arg-type]
    root = craft.directory(1, listing([(b"f", 2, inode, 2)]))
    (tmp_path / "hostile").write_bytes(craft.image(root))
    with pytest.raises(SquashfsError) as caught:
        measured(tmp_path / "hostile", [[b""]])
    return caught.value


def test_blocks_and_tails_outside_the_image_are_refused(tmp_path: Path) -> None:
    words: Any = (4096,)
    assert "lie outside the image" in hostile(tmp_path, size=4096, start=1 << 63, words=words).message
    assert "outside its fragment block" in hostile(tmp_path, size=100, fragment=0, offset=4050).message
    assert "record 7 is asked for" in hostile(tmp_path, size=100, fragment=7).message


def test_an_image_that_claims_too_many_blocks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "i", [file(b"a", bytes(40_960))], layout=Layout(4096))
    monkeypatch.setattr(costs, "_WORDS_MAX", 9)
    with pytest.raises(SquashfsError, match="claim more than 9 blocks"):
        measured(tmp_path / "i", [[b""]])
