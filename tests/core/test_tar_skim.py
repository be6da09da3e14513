"""The quick look through a tar sees what the exact reader sees."""

from __future__ import annotations

import images
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import directory, file, hardlink
from layertar import build, item
from memorytar import Memory
from shiplap.core.tar.reader import TarCorrupt, read_headers
from shiplap.core.tar.skim import Skimmed, skim_headers


def exactly(tar: bytes) -> list[Skimmed]:
    return [
        Skimmed(one.name, one.typeflag, one.linkname, one.mode, one.data_offset, one.data_bytes, one.sparse)
        for one in read_headers(Memory(tar))
    ]


def skimmed(tar: bytes) -> list[Skimmed]:
    return list(skim_headers(Memory(tar)))


@pytest.mark.parametrize("case", [*images.SAME, *images.STRICTER], ids=lambda case: case.name)
def test_every_tar_that_an_engine_takes_looks_the_same(case: images.Case) -> None:
    assert skimmed(case.layer) == exactly(case.layer)


@pytest.mark.parametrize("case", images.REFUSED, ids=lambda case: case.name)
def test_a_tar_that_is_refused_gives_what_it_has_or_one_error(case: images.Case) -> None:
    try:
        found = skimmed(case.layer)
    except TarCorrupt:
        return
    assert len(found) <= len(case.layer) // 512


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text("ab/.é", min_size=1, max_size=120), st.binary(max_size=1500), st.integers(0, 0o7777)), max_size=8))
def test_any_files_look_the_same(files: list[tuple[str, bytes, int]]) -> None:
    tar = build([item(f"{number}{name}", data=data, mode=mode) for number, (name, data, mode) in enumerate(files)])
    assert skimmed(tar) == exactly(tar)


def test_a_mutated_tar_ends_or_raises_one_error() -> None:
    tar = build([directory("d"), file("d/f", b"x" * 700, mode=0o755), hardlink("l", "d/f"), file("n" * 120, b"y")])
    for at in range(0, len(tar) - 1024, 3):
        for value in (0x00, 0x37, 0x80, 0xFF):
            try:
                assert len(skimmed(tar[:at] + bytes((value,)) + tar[at + 1 :])) < 20
            except TarCorrupt as error:
                assert error.message.startswith("tar is not a valid tar")


def test_what_is_cut_off_is_said() -> None:
    tar = build([file("f", b"x" * 600)])
    with pytest.raises(TarCorrupt, match="layer 3 is not a valid tar"):
        list(skim_headers(Memory(tar[:900]), what="layer 3"))
    # The last content's padding: Go's reader does not miss it, and neither do we where nothing follows.
    assert [one.name for one in skimmed(tar[: 512 + 1024])] == [b"f"]
    assert skimmed(b"") == []
