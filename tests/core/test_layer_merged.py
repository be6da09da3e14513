"""Layers laid over each other: what a container sees, tried against the kernel's own overlayfs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from images import X, character, directory, file, hardlink, symlink
from layertar import build, item
from overlayview import nodes_as_facts, overlay_facts
from shiplap.core.entries import Entry, FileSlice, Kind
from shiplap.core.layer.merged import MergedTree, MergeRefused
from shiplap.core.layer.unpack import unpack_layer
from squashfsimages import Facts

BASE = build(
    [
        directory("etc", mode=0o711, uid=3, mtime=77),
        file("etc/passwd", b"root\n"),
        file("etc/gone", b"gone"),
        directory("opaque", mtime=5),
        file("opaque/old", b"old"),
        directory("opaque/sub"),
        directory("tree"),
        directory("tree/deep"),
        file("tree/deep/f", b"f"),
        file("a", b"linked"),
        hardlink("b", "a"),
        hardlink("c", "a"),
        symlink("to-dir", "etc"),
        directory("was-dir"),
        file("was-dir/in", b"in"),
        file("was-file", b"file"),
        character("null"),
    ]
)
LAYERS = {
    "a file over a file": [file("etc/passwd", b"new\n", mode=0o600)],
    "a whiteout": [file("etc/.wh.gone")],
    "a whiteout of a directory with everything in it": [file(".wh.tree")],
    "a whiteout of nothing": [file(".wh.nothing")],
    "an opaque directory": [directory("opaque", mode=0o700, mtime=9), file("opaque/.wh..wh..opq"), file("opaque/new", b"new")],
    "an opaque directory where there was none": [directory("fresh"), file("fresh/.wh..wh..opq"), file("fresh/x")],
    "a directory's own attributes": [directory("etc", mode=0o755, uid=9, mtime=99, pax={X + "trusted.note": b"1"})],
    "an implied directory": [file("etc/sub/new", b"1")],
    "a file over a directory": [file("was-dir", b"now a file")],
    "a directory over a file": [directory("was-file"), file("was-file/in", b"1")],
    "a symbolic link over a directory": [symlink("tree", "etc")],
    "a directory over a symbolic link": [directory("to-dir"), file("to-dir/x", b"1")],
    "one of three names goes": [file(".wh.b")],
    "the first of three names goes": [file(".wh.a")],
    "all names but one go": [file(".wh.a"), file(".wh.b")],
    "one of three names is replaced": [file("a", b"another")],
    "a link group of the upper layer over one of the lower": [file("a", b"up"), hardlink("d", "a")],
    "a device 0:0, which is a whiteout": [character("a", 0, 0, mode=0)],
    "two names of a whiteout": [character("a", 0, 0, mode=0), hardlink("b", "a", mode=0)],
    "the whole root opaque": [file(".wh..wh..opq"), file("only", b"1")],
    "nothing at all": [],
    "a file deep in a hidden tree": [file(".wh.tree"), file("etc/x", b"x")],
    "a fifo over a file": [item("was-file", type="6")],
}


def layer_entries(tar: bytes, folder: Path, name: str) -> list[Entry]:
    path = folder / name
    path.write_bytes(tar)
    descriptor = os.open(path, os.O_RDONLY)
    slice_ = FileSlice(descriptor, 0, len(tar), name)
    tree, _ = unpack_layer(slice_, where=name, epoch=1_700_000_000, entries_max=1000, note=lambda message: None)
    return list(tree.stream(b"", slice_))


def merged(*layers: Iterable[Entry]) -> MergedTree:
    tree = MergedTree("test", 1000)
    for layer in layers:
        tree.add(layer)
    return tree


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[list[Entry]], list[Facts]]]:
    """The layers of every case, and what the kernel shows of them."""
    folder = tmp_path_factory.mktemp("layers")
    base = layer_entries(BASE, folder, "base")
    stacks = [[base, layer_entries(build(LAYERS[name]), folder, f"top{number}")] for number, name in enumerate(LAYERS)]
    return dict(zip(LAYERS, zip(stacks, overlay_facts(stacks, folder), strict=True), strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_the_merged_tree_is_what_overlayfs_shows(name: str, views: dict[str, tuple[list[list[Entry]], list[Facts]]]) -> None:
    layers, expected = views[name]
    assert nodes_as_facts(merged(*layers).nodes()) == expected


def test_a_whiteout_below_a_new_directory_is_not_seen(tmp_path: Path) -> None:
    """The kernel lists such a name and then knows no such file; nobody can open it either way."""
    layers = [layer_entries(tar, tmp_path, name) for name, tar in (("base", BASE), ("top", build([directory("new"), file("new/.wh.x")])))]
    assert [entry.path for entry, _ in merged(*layers).nodes() if entry.path.startswith(b"new")] == [b"new"]


def test_three_layers_that_hide_and_bring_back(tmp_path: Path) -> None:
    hiding = build([file(".wh.tree"), file("etc/.wh.passwd")])
    bringing = build([directory("tree"), file("tree/back", b"1"), file("etc/passwd", b"2")])
    layers = [layer_entries(tar, tmp_path, f"layer{number}") for number, tar in enumerate((BASE, hiding, bringing))]
    tree = merged(*layers)
    assert nodes_as_facts(tree.nodes()) == overlay_facts([layers], tmp_path)[0]
    paths = [entry.path for entry, _ in tree.nodes()]
    assert b"tree/back" in paths and b"tree/deep" not in paths and b"etc/passwd" in paths


def test_the_number_of_entries_is_bounded_over_all_layers(tmp_path: Path) -> None:
    layer = layer_entries(BASE, tmp_path, "base")
    tree = MergedTree("app:1", 3 * len(layer) - 1)
    tree.add(layer)
    tree.add(layer)
    with pytest.raises(MergeRefused, match="app:1: its layers have more than"):
        tree.add(layer)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ([Entry(b"x/y", Kind.FIFO, 0o600)], "'x/y' lies in no directory"),
        ([Entry(b"x", Kind.FIFO, 0o600), Entry(b"x/y", Kind.FIFO, 0o600)], "'x/y' lies in no directory"),
        ([Entry(b"x", Kind.HARDLINK, 0o600, link=b"absent")], "'x' is a hard link to nothing"),
        ([Entry(b"d", Kind.DIRECTORY, 0o700), Entry(b"x", Kind.HARDLINK, 0o600, link=b"d")], "'x' is a hard link to nothing"),
    ],
)
def test_layers_that_make_no_tree_are_refused(entries: list[Entry], match: str) -> None:
    with pytest.raises(MergeRefused, match=match):
        merged(entries)
