"""The layer rules against GNU tar where both define the tree, against any damage, and against time."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from engines.treerecords import differences, records_of_entries, records_of_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from images import CAPABILITY, X, directory, file, hardlink, symlink
from layertar import TarItem, build, item
from memorytar import EPOCH, as_file, tree_of, unpacked
from shiplap.core.entries import Kind
from shiplap.core.errors import Refused
from shiplap.core.layer.rules import LayerRefused
from shiplap.core.layer.tree import Inode, LayerTree

# --- the same tree as `tar -x`

# Without ".." and absolute targets, which GNU tar puts off to the end, and without what only engines do: whiteouts, the
# attributes of a hard link entry, a second spelling of a path.
PARTS = st.sampled_from(["a", "b", "c", "d", "ln", "é", "n" * 90])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
SPELLINGS = st.sampled_from(["", "./", "/", ".//"])
TIMES = st.one_of(
    st.integers(0, 1 << 33).map(str), st.tuples(st.integers(0, 1 << 33), st.integers(1, 999_999_999)).map(lambda t: f"{t[0]}.{t[1]:09d}")
)
XATTRS = st.dictionaries(st.sampled_from(["user.a", "user.b", "trusted.t"]), st.binary(min_size=1, max_size=20), max_size=2)


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from("0005523461"))
    fields: dict[str, Any] = {"name": draw(SPELLINGS) + draw(PATHS), "type": kind, "pax": {"mtime": draw(TIMES)}}
    if kind == "1":
        return {**fields, "linkname": draw(PATHS)}
    fields |= {"mode": draw(st.integers(0, 0o7777)), "uid": draw(st.integers(0, 70_000)), "gid": draw(st.integers(0, 70_000))}
    if kind == "5":
        fields["mode"] &= 0o5777  # GNU tar sets modes late: implied directories do not inherit the setgid bit
    if kind == "2":
        fields["linkname"] = draw(PATHS)
    if kind == "0":
        fields["data"] = draw(st.binary(max_size=600))
    if kind in "34":
        fields |= {"devmajor": draw(st.integers(0, 255)), "devminor": draw(st.integers(0, 255))}
    if kind in "05":
        fields["pax"] |= {X + name: value for name, value in draw(XATTRS).items()}
        if kind == "0" and draw(st.booleans()):
            fields["pax"][X + "security.capability"] = CAPABILITY
    return fields


def layer_of(wanted: list[dict[str, Any]]) -> bytes:
    """The entries that the rules take and that make a new path; a hard link repeats what its target is."""
    kept: list[TarItem] = []
    paths: set[bytes] = {b""}
    for fields in wanted:
        found = {entry.path: entry for entry in tree_of(build(kept))}
        if fields["type"] == "1":
            target = found.get(fields["linkname"].encode())
            if target is None or target.kind is Kind.HARDLINK or target.xattrs:
                continue
            seconds = f"{target.mtime_epoch}.{target.mtime_nanoseconds:09d}"
            fields = {**fields, "mode": target.mode, "uid": target.uid, "gid": target.gid, "pax": {"mtime": seconds}}
        one = item(**fields)
        try:
            after = {entry.path for entry in tree_of(build([*kept, one]))}
        except Refused:
            continue
        if len(after) > len(paths) and paths <= after and fields["name"].rpartition("/")[2] not in ("", "."):
            kept.append(one)
            paths = after
    return build(kept)


@settings(max_examples=40, deadline=None)
@given(st.lists(entries(), max_size=14))
def test_the_tree_is_what_gnu_tar_extracts(wanted: list[dict[str, Any]]) -> None:
    if os.geteuid() != 0:
        pytest.skip("owners and devices need root")
    layer = layer_of(wanted)
    started_epoch = int(time.time()) - 1
    with tempfile.TemporaryDirectory() as folder, as_file(layer) as tar:
        Path(folder).chmod(0o755)
        words = [
            "tar",
            "--numeric-owner",
            "--same-owner",
            "--delay-directory-restore",
            "-p",
            "--xattrs",
            "--xattrs-include=*",
            "-xf",
            "-",
            "-C",
            folder,
        ]
        done = subprocess.run(words, input=layer, capture_output=True, umask=0o022)
        assert done.returncode == 0, done.stderr
        ours = records_of_entries(unpacked(tar)[0].stream(b"", tar))
        assert differences(ours, records_of_tree(Path(folder)), epoch=EPOCH, started_epoch=started_epoch) == []


# --- anything at all

WILD = st.one_of(
    st.builds(
        item,
        st.sampled_from(
            [
                b"a",
                b"/a",
                b"a/b",
                b"ln",
                b"ln/x",
                b".wh.a",
                b"a/.wh..wh..opq",
                b"..",
                b"./",
                b"",
                b"l/../a",
                b"\xff",
                b"a/" * 40 + b"z",
                b".wh.",
                b"/ln",
            ]
        ),
        type=st.sampled_from(["0", "1", "2", "3", "4", "5", "6", "7", "S", "Z", b"\0"]),
        linkname=st.sampled_from([b"", b"a", b"/a", b"..", b"ln", b"a/b/../../ln", b"/", b"x" * 90, b".", b"ln/../ln"]),
        mode=st.integers(0, 0o7777777),
        uid=st.integers(-(1 << 40), 1 << 40),
        mtime=st.integers(-(1 << 40), 1 << 40),
        pax=st.dictionaries(
            st.sampled_from(
                [X + "user.a", X + "security.capability", X + "foo", X + "trusted.overlay.x", "mtime", "GNU.sparse.map", "path"]
            ),
            st.sampled_from([b"", b"1", CAPABILITY, b"-1.5", b"a/b", b"\0"]),
            max_size=2,
        ),
    )
)


@settings(max_examples=250, deadline=None)
@given(st.lists(WILD, max_size=12))
def test_any_layer_is_a_tree_or_refused(items: list[TarItem]) -> None:
    try:
        found = tree_of(build(items))
    except Refused as error:
        assert error.message.startswith("app:1, layer 0")
        return
    paths = [entry.path for entry in found]
    assert paths == sorted(paths, key=lambda path: path.split(b"/") if path else [])
    known = {entry.path: entry for entry in found}
    for entry in found[1:]:
        parent = known[entry.path.rpartition(b"/")[0]]
        assert parent.kind is Kind.DIRECTORY
        assert 0 <= entry.mode <= 0o7777 and 0 <= entry.uid < 1 << 32 and entry.mtime_epoch >= 0
        if entry.kind is Kind.HARDLINK:
            assert known[entry.link].kind not in (Kind.HARDLINK, Kind.DIRECTORY)
            assert paths.index(entry.link) < paths.index(entry.path)


# --- time: what would take minutes if it were quadratic takes seconds


def seconds_for(layer: bytes, **limits: int) -> float:
    begin = time.process_time()
    try:
        tree_of(layer, **limits)
    except LayerRefused:
        pass
    return time.process_time() - begin


def test_tens_of_thousands_of_implied_directories_take_little_time() -> None:
    assert seconds_for(build([item(f"{n}/" + "/".join(["d"] * 99)) for n in range(300)])) < 10


def test_names_of_two_thousand_components_take_little_time() -> None:
    assert seconds_for(build([file("d/" * 2000 + f"f{n}") for n in range(300)])) < 10


def test_long_chains_of_links_before_every_entry_end_at_a_stated_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shiplap.core.layer.rules.LINK_STEPS_MAX", 200_000)
    winding = "r/../" * 800 + "r"
    links = [symlink(f"l{n}", winding[:-1] + (f"l{n + 1}" if n < 30 else "r")) for n in range(31)]
    layer = build([directory("r"), *links, *[directory(f"l0/d{n}/e") for n in range(3000)]])
    with pytest.raises(LayerRefused, match="go through symbolic links for ever"):
        tree_of(layer)


def test_an_entry_with_very_many_xattrs_takes_little_time() -> None:
    many = {f"{X}user.{n}": b"1" for n in range(20_000)} | {f"{X}foo.{n}": b"1" for n in range(10_000)}
    notes: list[str] = []
    begin = time.process_time()
    found = tree_of(build([file("f", pax=many)] + [hardlink(f"l{n}", "f") for n in range(200)]), notes=notes)
    assert time.process_time() - begin < 10
    assert len(found[1].xattrs) == 20_000
    assert len(notes) == 1


def test_a_directory_that_is_replaced_again_and_again_takes_little_time() -> None:
    spellings = ["x", "/x", "./x", "//x", "x/.", "/./x"]
    layer = build(
        [directory(f"d{n}") for n in range(3000)] + [file("y/" * 50 + "f")] + [directory("/x"), *[file(one) for one in spellings[:1]]]
    )
    assert seconds_for(layer) < 5


def test_the_walk_of_a_deep_tree_holds_no_path_twice() -> None:
    root = Inode(Kind.DIRECTORY, 0o755, 0, 0, 0)
    at = root
    for _ in range(50_000):
        assert at.children is not None
        at.children[b"d"] = at = Inode(Kind.DIRECTORY, 0o755, 0, 0, 0)
    tree = LayerTree(root)
    begin = time.process_time()
    too_long = tree.measure(4095)
    assert too_long is not None and len(too_long) == 4097
    assert time.process_time() - begin < 1
    # Taken apart by hand: Python's own clean-up is recursive in places.
    while root.children:
        root = root.children.popitem()[1]
