"""The whole trees of the vfs driver: what a layer does to a copy of the tree below it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from images import CAPABILITY, SAME, X, directory, file, hardlink, symlink
from layertar import TarItem, build
from memorytar import EPOCH, as_file, tree_of
from shiplap.core.entries import Entry, Kind
from shiplap.core.errors import Refused
from shiplap.core.layer.rules import LayerRefused
from shiplap.core.layer.unpack import unpack_with
from shiplap.core.layer.vfstree import MergedTree, MergingBuilder

BASE = [
    directory("d", mode=0o750, uid=3, mtime=1000),
    file("d/a", b"a"),
    file("d/b", b"b", pax={X + "security.capability": CAPABILITY, X + "user.x": b"1"}),
    directory("d/e", mtime=1001),
    file("d/e/f"),
    hardlink("h", "d/a", mtime=7),
    symlink("s", "d"),
]


def stack(*layers: list[TarItem] | bytes) -> list[dict[str, Entry]]:
    """The entries of every layer's tree, by path."""
    found: list[dict[str, Entry]] = []
    below: MergedTree | None = None
    for number, items in enumerate(layers):
        with as_file(items if isinstance(items, bytes) else build(items)) as tar:
            builder = MergingBuilder(below, b"%d" % number, where="layer", epoch=EPOCH, entries_max=1000, note=lambda text: None)
            tree, _ = unpack_with(builder, tar, where="layer")
            assert isinstance(tree, MergedTree)
            below = tree
            found.append({entry.path[2:].decode(errors="replace"): entry for entry in tree.stream(b"%d" % number, tar)})
    return found


def test_an_untouched_file_is_a_further_name_of_the_one_below() -> None:
    first, second, third = stack(BASE, [file("new")], [file("newer")])
    assert [second["d/a"].kind, second["d/a"].link, third["d/a"].link] == [Kind.HARDLINK, b"0/d/a", b"0/d/a"]
    assert third["new"].link == b"1/new" and third["newer"].kind is Kind.REGULAR
    assert second["h"].link == first["h"].link == b"0/d/a"
    assert second["s"].kind is Kind.HARDLINK  # symbolic links have further names as well
    assert second["d"].kind is Kind.DIRECTORY


def test_a_directory_keeps_its_time_until_its_names_change() -> None:
    _, same, touched = stack(BASE, [directory("other")], [file("d/new")])
    assert same["d"].mtime_epoch == 1000 and same[""].mtime_epoch == EPOCH
    assert (touched["d"].mtime_epoch, touched["d"].mode, touched["d"].uid) == (EPOCH, 0o750, 3)
    assert touched["d/e"].mtime_epoch == 1001


@pytest.mark.parametrize("change", [file("d/a", b"a", mtime=0), file("d/.wh.a"), directory("d/n")])
def test_replacing_removing_and_making_change_a_directory(change: TarItem) -> None:
    _, second = stack(BASE, [change])
    assert second["d"].mtime_epoch == EPOCH


def test_a_directory_entry_sets_what_is_there() -> None:
    _, second = stack(BASE, [directory("d", mode=0o700, uid=9, mtime=5), file("d/new")])
    assert (second["d"].mode, second["d"].uid, second["d"].mtime_epoch) == (0o700, 9, 5)
    assert "d/a" in second


def test_whiteouts_remove_with_everything_below() -> None:
    _, second = stack(BASE, [file(".wh.d"), file(".wh.nothing")])
    assert sorted(second) == ["", "h", "s"]
    assert second["h"].link == b"0/d/a"  # the content stays where it was written


def test_an_opaque_marker_empties_but_for_what_this_layer_made() -> None:
    _, second = stack(BASE, [directory("d/e"), file("d/e/mine"), file("d/mine"), file("d/.wh..wh..opq"), file("d/later")])
    assert sorted(name for name in second if name.startswith("d/")) == ["d/e", "d/e/mine", "d/later", "d/mine"]


def test_an_opaque_marker_takes_what_lies_in_implied_directories_of_its_own_layer() -> None:
    """The engine knows only what has an entry."""
    _, second = stack(BASE, [file("d/i/x"), file("d/.wh..wh..opq")])
    assert "d/i" not in second


def test_an_opaque_marker_behind_a_symbolic_link_does_nothing() -> None:
    _, second = stack(BASE, [file("s/.wh..wh..opq")])
    assert "d/a" in second


def test_paths_go_through_symbolic_links_of_lower_layers() -> None:
    _, second = stack(BASE, [file("s/new")])
    assert second["d/new"].kind is Kind.REGULAR and second["s"].kind is Kind.HARDLINK


def test_names_of_aufs_are_left_out() -> None:
    _, second = stack(BASE, [directory(".wh..wh.plnk"), file(".wh..wh.aufs"), file(".wh..wh.orph")])
    assert not [name for name in second if ".wh." in name]


def test_no_entry_changes_the_root() -> None:
    for name in ("./", "/"):
        first, second = stack([directory(name, mode=0o711, uid=4, mtime=8)], [file("x")])
        for tree in (first, second):
            assert (tree[""].mode, tree[""].uid, tree[""].mtime_epoch) == (0o755, 0, EPOCH)


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([hardlink("l", "d/a")], "of a lower layer"),
        ([file("x"), file(".wh.x")], "the same layer made before"),
        ([file(".wh..wh.plnk/9.1", b"x"), hardlink("l", ".wh..wh.plnk/9.1")], "hard link of AUFS"),
        ([file("x"), file("x")], "twice"),
        ([file("../x")], "leaves the root"),
    ],
)
def test_what_the_overlay_drivers_refuse_is_refused(items: list[TarItem], says: str) -> None:
    with pytest.raises(LayerRefused, match=says):
        stack(BASE, items)


def test_a_replaced_file_of_the_same_layer_travels_in_the_tar_split_data_and_a_lower_one_does_not() -> None:
    with ExitStack() as files:
        base = files.enter_context(as_file(build(BASE)))
        below, _ = unpack_with(
            MergingBuilder(None, b"0", where="layer", epoch=EPOCH, entries_max=100, note=lambda text: None), base, where="layer"
        )
        assert isinstance(below, MergedTree)
        tar = files.enter_context(as_file(build([file("/x", b"old"), file("x", b"new"), file("d/a", b"new")])))
        _, outline = unpack_with(
            MergingBuilder(below, b"1", where="layer", epoch=EPOCH, entries_max=100, note=lambda text: None), tar, where="layer"
        )
        offsets = list(outline.data_offsets)
    assert outline.inside == {offsets[0]}


def accepted() -> Iterator[tuple[str, bytes]]:
    for case in SAME:
        try:
            tree_of(case.layer)
        except Refused:
            continue
        yield case.name, case.layer


def test_a_layer_alone_gives_the_overlay_tree_without_marks() -> None:
    """Over nothing, both drivers unpack the same files."""
    for name, layer in accepted():
        try:
            (merged,) = stack(layer)
        except Refused:
            continue
        overlay = {entry.path.decode(errors="replace"): entry for entry in tree_of(layer)}
        removed = {path for path, entry in overlay.items() if entry.kind is Kind.CHARACTER and entry.device == (0, 0)}
        aufs = {path for path in {*overlay, *merged} if ".wh." in path}
        missing = overlay.keys() - merged.keys() - removed - aufs
        opaque = any((b"trusted.overlay.opaque", b"y") in entry.xattrs for entry in overlay.values())
        assert opaque or not missing, (name, missing)
        assert merged.keys() - overlay.keys() - aufs == set(), name
