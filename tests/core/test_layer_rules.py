"""The layer rules against what Docker 20.10.24 was seen to do with the same layers, and where they differ on purpose."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from enginecases import CASES, EngineCase
from images import CAPABILITY, X, character, directory, file, hardlink, symlink
from layertar import build, item, pax_item
from memorytar import EPOCH, as_file, headers, tree_of, unpacked
from shiplap.core.entries import Entry, Kind
from shiplap.core.errors import Refused
from shiplap.core.layer.rules import LayerRefused, bounded_time, clean
from shiplap.core.tar.reader import TarCorrupt

WORDS = {
    Kind.REGULAR: "file",
    Kind.DIRECTORY: "dir",
    Kind.SYMLINK: "symlink",
    Kind.CHARACTER: "char",
    Kind.BLOCK: "block",
    Kind.FIFO: "fifo",
}


def quoted(name: bytes, limit: int) -> str:
    return repr(name[:limit])[2:-1]


def lines_of(entries: Iterable[Entry]) -> list[str]:
    """A tree in the notation of tests/enginecases.py."""
    found = {entry.path: entry for entry in entries}
    groups: dict[bytes, list[bytes]] = {}
    for path, entry in found.items():
        groups.setdefault(entry.link if entry.kind is Kind.HARDLINK else path, []).append(path)
    lines = []
    for path, entry in found.items():
        first = found[entry.link] if entry.kind is Kind.HARDLINK else entry
        if path == b"" and (first.mode, first.uid, first.gid, first.xattrs) == (0o755, 0, 0, ()):
            continue
        name = quoted(path, 60) if len(path) <= 60 else f"{quoted(path, 25)}...({len(path)})"
        lines.append(f"{name or '/'} {_facts(first, sorted(groups[first.path]))}")
    return lines


def _facts(entry: Entry, links: list[bytes]) -> str:
    text = f"{WORDS[entry.kind]} {entry.mode:04o} {entry.uid}:{entry.gid}"
    if entry.kind in (Kind.CHARACTER, Kind.BLOCK):
        text += " dev={}:{}".format(*entry.device)
    if entry.content is not None:
        text += f" size={entry.content.size_bytes}"
    if entry.kind is Kind.SYMLINK:
        text += f" -> {quoted(entry.link, 60)}" + (f"({len(entry.link)})" if len(entry.link) > 60 else "")
    if entry.xattrs:
        values = (f"{name[:40].decode(errors='backslashreplace')}={_value(value)}" for name, value in entry.xattrs)
        text += " xattrs=" + ", ".join(values)
    if len(links) > 1:
        text += " links=" + ",".join(name[:30].decode(errors="backslashreplace") for name in links)
    if entry.mtime_epoch == EPOCH:
        text += " now"
    elif (entry.mtime_epoch, entry.mtime_nanoseconds) != (0, 0):
        text += f" mtime={entry.mtime_epoch}" + (f".{entry.mtime_nanoseconds:09d}" if entry.mtime_nanoseconds else "")
    return text


def _value(value: bytes) -> str:
    return value.hex() if len(value) < 40 else f"{len(value)}B"


def result(layer: bytes) -> tuple[int, list[str]] | None:
    """The size and the lines of a layer's tree; None: refused."""
    with as_file(layer) as tar:
        try:
            tree, _ = unpacked(tar)
        except (LayerRefused, TarCorrupt):
            return None
        return tree.size_bytes, sorted(lines_of(tree.stream(b"", tar)))


def theirs(case: EngineCase) -> tuple[int, list[str]] | None:
    return None if case.size_bytes is None else (case.size_bytes, sorted(case.lines))


# --- documented differences, each with its reason

STRICTER = {
    "names and links that climb above the root are refused (Docker 28 does so too)": """
        hl target ../o (escape); symlink parent ../ escape rel; symlink parent ../ escape rel order; .. entry dir; ../x file; ../../x file
        a/../../x file; /../x file; ../.wh.x; /.. dir; ./.. dir; ../.. dir; name with leading ../ and hl; empty file ../x""",
    "an opaque mark on something that is no directory means nothing (Docker 28 hangs on a fifo)": """
        opaque below a regular file; opaque in fifo; opaque in symlink to file""",
    "marks of overlayfs are only ours to set": """
        xattr trusted.overlay.opaque dir; xattr trusted.overlay.redirect; xattr user.overlay.opaque""",
    "SquashFS cannot hold POSIX ACLs": """
        xattr posix_acl_access minimal; xattr posix_acl_access extended; xattr posix_acl_access junk; xattr posix_acl_default dir
        dir re-entry acl; acl access then mode; acl hl other mode; acl default inherited: implied dir, symlink, fifo, hl
        xattr system.posix_acl_access on fifo""",
    "no engine can give a pax sparse file back": "pax GNU.sparse 1.0; pax GNU.sparse 0.1; GNU.sparse 0.0 numblocks",
    "a broken global header is refused by newer engines": "g uid junk",
}
WIDER = {
    "about 4,000 bytes of xattrs are a limit of the engine's ext4, not of the layer": """
        xattr value 5000 (ext4 limit); xattr value 65536; two xattrs 3000 each""",
    "paths of 3,900 to 4,095 bytes are too long below the engine's data-root only": "path 4000; deep path total 4094",
}
ROOT_IGNORED = "root / type5; / dir after content, mtime; / dir first, mtime; /. dir; // dir; xattr on / root opaque etc"
SYMLINK_TIMES = """
    mtime hdr neg; mtime hdr 2^34; mtime hdr 2^35; mtime hdr 2^40; mtime hdr -2^40; mtime hdr -2^31; mtime 9223372037
    pax mtime -1.5; pax mtime -0.5; hl to symlink mtime neg; mtime of symlink sub-second neg"""


def names(text: str) -> list[str]:
    return [name.strip() for name in re.split(r"[;\n]", text) if name.strip()]


BY_NAME = {case.name: case for case in CASES}
OUR_LINES: dict[str, list[str]] = {
    # `/` is ignored like `./`, as Docker 28 does.
    **{name: [line for line in BY_NAME[name].lines if not line.startswith("/ ")] for name in names(ROOT_IGNORED)},
    # Symbolic links' times are bounded like all others, as in Docker 28.
    **{name: [re.sub(r"( symlink .*) mtime=\S+$", r"\1", line) for line in BY_NAME[name].lines] for name in names(SYMLINK_TIMES)},
    # The kernel shows a version 3 capability of root user 0 as version 2; on disk it is version 3.
    "xattr security.capability v3": ["f file 0755 0:0 size=1 xattrs=security.capability=010000030004000000000000000000000000000000000000"],
}
REFUSED_BY_US = [name for text in STRICTER.values() for name in names(text)]
ACCEPTED_BY_US = [name for text in WIDER.values() for name in names(text)]
AGREED = [case for case in CASES if case.name not in {*REFUSED_BY_US, *ACCEPTED_BY_US, *OUR_LINES}]


def by_name(case: EngineCase) -> str:
    return case.name


@pytest.mark.parametrize("case", AGREED, ids=by_name)
def test_a_layer_becomes_what_the_engine_makes_of_it(case: EngineCase) -> None:
    assert result(case.layer) == theirs(case)


@pytest.mark.parametrize("name", REFUSED_BY_US)
def test_refused_on_purpose(name: str) -> None:
    assert result(BY_NAME[name].layer) is None
    assert theirs(BY_NAME[name]) is not None, "the engine refuses it too: no exception"


@pytest.mark.parametrize("name", ACCEPTED_BY_US)
def test_accepted_although_the_engine_s_machine_has_no_room_for_it(name: str) -> None:
    assert result(BY_NAME[name].layer) is not None
    assert theirs(BY_NAME[name]) is None


@pytest.mark.parametrize("name", OUR_LINES)
def test_different_on_purpose(name: str) -> None:
    engine = theirs(BY_NAME[name])
    assert engine is not None
    ours = result(BY_NAME[name].layer)
    assert ours == (engine[0], sorted(OUR_LINES[name]))
    assert ours != engine, "no exception any more"


# --- what the recorded cases do not say


def test_forty_links_may_lead_to_a_parent_and_no_more() -> None:
    def chain(links: int) -> bytes:
        return build([directory("r"), *[symlink(f"l{n}", f"l{n + 1}" if n < links - 1 else "r") for n in range(links)], file("l0/f")])

    assert result(chain(40)) is not None
    assert result(chain(41)) is None


def test_every_ancestor_of_a_deep_name_is_implied() -> None:
    deep = "/".join(["n" * 99] * 39)
    found = tree_of(build([file(deep)]))
    assert [entry.kind for entry in found] == [Kind.DIRECTORY] * 39 + [Kind.REGULAR]
    assert {(entry.mode, entry.uid, entry.gid, entry.mtime_epoch) for entry in found[:-1]} == {(0o755, 0, 0, EPOCH)}


def test_a_path_that_grows_too_long_through_links_is_refused() -> None:
    steps = [directory("/".join(["d"] * 2000))]
    steps += [symlink("l0", "/".join(["d"] * 2000)), directory("l0/" + "/".join(["e"] * 2000))]
    with pytest.raises(LayerRefused, match=r"through symbolic links it makes a path of 409. bytes"):
        tree_of(build(steps))


def test_a_hard_link_takes_no_device_of_its_own() -> None:
    found = tree_of(build([character("c", 1, 3), hardlink("l", "c", mode=0o600)]))
    assert [(entry.path, entry.kind, entry.device) for entry in found[1:]] == [
        (b"c", Kind.CHARACTER, (1, 3)),
        (b"l", Kind.HARDLINK, (0, 0)),
    ]
    assert found[1].mode == found[2].mode == 0o600


def test_every_name_of_an_inode_says_the_same() -> None:
    layer = build(
        [
            file("b", uid=1, pax={X + "user.a": b"1"}),
            hardlink("a", "b", uid=2, gid=3, mode=0o4711, mtime=7),
            symlink("s", "x"),
            hardlink("t", "s", gid=9),
        ]
    )
    _, a, b, s, t = tree_of(layer)
    assert (a.kind, b.kind, b.link) == (Kind.REGULAR, Kind.HARDLINK, b"a"), "the first name in order is the one with the content"
    assert (a.uid, a.gid, a.mode, a.mtime_epoch) == (b.uid, b.gid, b.mode, b.mtime_epoch) == (2, 3, 0o4711, 7)
    assert (a.xattrs, b.xattrs) == (((b"user.a", b"1"),), ())
    assert (s.kind, s.gid, t.kind, t.link) == (Kind.SYMLINK, 9, Kind.HARDLINK, b"s")


def test_entries_come_as_a_sorted_walk() -> None:
    paths = [b"b", b"a-b", b"a", b"a/z", b"a/b", b"a.b", b"a/b/c", b"\xff", b"A"]
    found = tree_of(build([directory(path) for path in paths]))
    assert [entry.path for entry in found] == [b"", b"A", b"a", b"a/b", b"a/b/c", b"a/z", b"a-b", b"a.b", b"b", b"\xff"]


def test_content_lies_where_the_tar_has_it() -> None:
    with as_file(build([file("f", b"one"), file("g", b""), file("h", b"three")]), offset=999) as tar:
        tree, _ = unpacked(tar)
        contents = [b"".join(entry.content.chunks()) for entry in tree.stream(b"p", tar) if entry.content]
        paths = [entry.path for entry in tree.stream(b"p", tar)]
    assert contents == [b"one", b"", b"three"]
    assert paths == [b"p", b"p/f", b"p/g", b"p/h"]
    assert (tree.entries, tree.size_bytes) == (3, 8)


def test_the_root_is_the_engine_s_own() -> None:
    (root,) = tree_of(build([directory("./", mode=0o700, uid=5, gid=6, mtime=77, pax={X + "user.a": b"1"})]))
    assert (root.path, root.kind, root.mode, root.uid, root.gid, root.mtime_epoch, root.xattrs) == (
        b"",
        Kind.DIRECTORY,
        0o755,
        0,
        0,
        EPOCH,
        (),
    )


def test_xattrs_of_no_namespace_are_left_out_with_one_note() -> None:
    notes: list[str] = []
    found = tree_of(
        build([file(f"f{n}", pax={X + "foo.bar": b"1", X + "user.a": b"2", X + "com.apple.x": b"3"}) for n in range(100)]), notes=notes
    )
    assert {entry.xattrs for entry in found[1:]} == {((b"user.a", b"2"),)}
    assert notes == ["app:1, layer 0: xattrs in no namespace of Linux are left out, 200 in all, the first is 'com.apple.x' of 'f0'"]


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ([file("a\x1b[31m"), file("a\x1b[31m")], r"app:1, layer 0, entry 'a.*x1b\[31m': the path is in the layer twice"),
        ([file("../x")], r"entry '../x': '../x' leaves the root of the layer"),
        ([hardlink("l", "o")], r"entry 'l': a hard link to 'o', which the layer has not made before it"),
        ([symlink("s", "nowhere"), file("s/f")], r"entry 's/f': its path goes through a symbolic link whose target is not in the layer"),
        ([item("t", type="7")], r"entry 't': its type '7' is none that the engine unpacks"),
        ([file("f", pax={X + "security.capability": b"abc"})], r"entry 'f': xattr 'security.capability' is one that the kernel refuses"),
        (
            [directory("/x"), directory("/x/sub"), file("x")],
            r"layer 0, entry 'x/sub': its path goes through 'x/sub', which is no directory",
        ),
        ([pax_item({"path": "f"}, type="g"), file("f")], r"entry 'f': the path is in the layer twice"),
        ([file("n" * 256)], r"a name of 256 bytes; the limit is 255"),
        ([file(".wh." + "n" * 256)], r"a whiteout of a name of 256 bytes; the limit is 255"),
    ],
    ids=range(10),
)
def test_a_refusal_names_image_layer_and_entry(layer: list[object], says: str) -> None:
    with pytest.raises(LayerRefused, match=says) as caught:
        tree_of(build(layer))  # type: ignore[arg-type]
    assert caught.value.message.startswith("app:1, layer 0")
    assert caught.value.message.isprintable()


def test_the_number_of_entries_is_limited() -> None:
    layer = build([file(f"f{n}") for n in range(10)])
    assert len(tree_of(layer, entries_max=10)) == 11
    with pytest.raises(LayerRefused, match="more than 9 entries") as caught:
        tree_of(layer, entries_max=9)
    assert "limits: {entries" in (caught.value.hint or "")


def test_the_number_of_implied_directories_is_limited() -> None:
    with pytest.raises(LayerRefused, match="implies more than 20 directories and files") as caught:
        tree_of(build([file("/".join(f"d{n}" for n in range(30)))]), entries_max=10)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("time", "kept"),
    [
        ((0, 0), True),
        ((-1, 999_999_999), False),
        ((9223372036, 854775807), True),
        ((9223372036, 854775808), False),
        ((1 << 62, 0), False),
    ],
)
def test_times_outside_1970_to_2262_become_0(time: tuple[int, int], kept: bool) -> None:
    assert bounded_time(*time) == (time if kept else (0, 0))


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        (b"", b"."),
        (b".", b"."),
        (b"./", b"."),
        (b"/", b"/"),
        (b"//", b"/"),
        (b"/.", b"/"),
        (b"/..", b"/"),
        (b"/../a", b"/a"),
        (b"..", b".."),
        (b"../..", b"../.."),
        (b"../a/..", b".."),
        (b"a/../..", b".."),
        (b"a/..", b"."),
        (b"a//b/./c/", b"a/b/c"),
        (b"...", b"..."),
        (b"a/...", b"a/..."),
        (b"..a/b..", b"..a/b.."),
        (b".hidden/.x", b".hidden/.x"),
        (b"a/.b/..c", b"a/.b/..c"),
    ],
)
def test_names_are_cleaned_as_go_cleans_them(name: bytes, cleaned: bytes) -> None:
    assert clean(name) == cleaned


def test_the_builder_says_what_lies_at_its_own_name() -> None:
    layer = [directory("d"), file("d/f"), symlink("ln", "d"), file("ln/g"), file(".wh.x", b"1"), hardlink("l", "d/f"), file("./e", b"")]
    with as_file(build(layer)) as tar:
        _, outline = unpacked(tar)
    hidden = [header.name for header in headers(build(layer)) if header.data_offset in outline.inside]
    assert hidden == [b"ln/g", b".wh.x"]


OWN_PARENT = {
    "a file": [symlink("ln", "."), file("ln/f"), file("ln/ln", b"now a file")],
    "a directory": [symlink("ln", "."), directory("ln/ln")],
    "a symlink": [symlink("ln", "."), symlink("ln/ln", "x")],
    "a hard link": [symlink("ln", "."), file("o"), hardlink("ln/ln", "o")],
    "a file in place of the directory that holds the link": [directory("x"), symlink("x/up", ".."), file("x/up/x", b"1")],
    "a whiteout of the link": [symlink("ln", "."), file("ln/.wh.ln")],
}


@pytest.mark.parametrize("case", OWN_PARENT)
def test_an_entry_that_takes_its_own_parent_away_is_refused(case: str) -> None:
    assert result(build(OWN_PARENT[case])) is None  # tried: Docker 20.10 finds no such directory any more


def test_a_link_to_itself_is_no_harm() -> None:
    layer = [symlink("ln", "."), directory("ln/d"), file("ln/d/e"), file("/ln/d/e", b"again"), file("./ln/ln2")]
    found = result(build(layer))
    assert found == (7, ["d dir 0755 0:0", "d/e file 0644 0:0 size=5", "ln symlink 0777 0:0 -> .", "ln2 file 0644 0:0 size=1"])


def test_what_replaces_a_link_to_a_parent_is_that_parent_from_then_on() -> None:
    layer = [directory("a"), symlink("/ln", "a"), file("ln/x"), symlink("ln", "b"), directory("b"), file("ln/y")]
    paths = [(entry.path, entry.kind) for entry in tree_of(build(layer)) if entry.kind is not Kind.DIRECTORY]
    assert paths == [(b"a/x", Kind.REGULAR), (b"b/y", Kind.REGULAR), (b"ln", Kind.SYMLINK)]


def test_a_hard_link_between_two_files_behind_a_link_hides_neither() -> None:
    layer = build([directory("d"), symlink("ln", "d"), file("ln/a", b"1"), hardlink("ln/h", "d/a"), file("ln/b", b"2")])
    with as_file(layer) as tar:
        _, outline = unpacked(tar)
    assert [header.name for header in headers(layer) if header.data_offset in outline.inside] == [b"ln/a", b"ln/b"]


def test_capabilities_are_what_the_kernel_would_store() -> None:
    v3 = CAPABILITY[:3] + b"\3" + CAPABILITY[4:] + b"\xe8\3\0\0"
    good = [CAPABILITY, b"\0" + CAPABILITY[1:], v3]
    bad = [
        b"",
        CAPABILITY[:12],
        CAPABILITY + b"\0",
        b"\2" + CAPABILITY[1:],
        b"\1\1" + CAPABILITY[2:],
        v3[:20] + b"\xff" * 4,
        v3[:20],
        CAPABILITY + bytes(4),
    ]
    for value in good:
        assert tree_of(build([file("f", pax={X + "security.capability": value})]))[1].xattrs == ((b"security.capability", value),)
    for value in bad[1:]:
        with pytest.raises(Refused):
            tree_of(build([file("f", pax={X + "security.capability": value})]))
