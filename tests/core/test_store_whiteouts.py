"""Store images without extended attributes: whiteouts say what opaque directories would, and the kernel shows the same tree."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from archives import ImageSpec
from images import CAPABILITY, X, character, directory, file, hardlink, symlink
from layertar import TarItem, build
from memorytar import tree_of
from overlayview import overlay_facts
from shiplap.core.entries import Entry, Kind
from shiplap.core.layer.merged import MergedTree
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import StoredImage, merge
from shiplap.core.store.whiteouts import LostXattrs
from storeimages import EPOCH, explicit, identity, stored_images, streams
from tampering import entries_of

OPQ = ".wh..wh..opq"
GOLDEN = "4f0033e41ebcecbeb4db4309203e6ce015225ed5e5630b95395459baf5da1a5a"


def stack(store: StoreIdentity, image: StoredImage, sealed: bytes) -> list[list[Entry]]:
    """The layers of ``image`` in a Docker store image, base first, paths relative to each layer's root."""
    entries = entries_of(sealed)
    layers = []
    for chain in image.chain_ids:
        root = f"layers/{chain[7:]}"
        names = [name for name in entries if name == root or name.startswith(f"{root}/")]
        cut = len(root) + 1
        inside = [entries[name] for name in names]
        layers.append([replace(one, path=one.path[cut:], link=one.link[cut:] if one.kind is Kind.HARDLINK else one.link) for one in inside])
    return layers


def both(folder: Path, layers: Sequence[bytes], allow: Sequence[str] = ()) -> tuple[list[list[Entry]], list[list[Entry]]]:
    """The stack of one image as overlayfs marks it, and with explicit whiteouts."""
    with stored_images(folder, [ImageSpec(layers, ["app:1"])]) as images:
        marked, plain = identity(images), explicit(images, allow=allow)
        return stack(marked, images[0], streams(marked)[0]), stack(plain, images[0], streams(plain)[0])


def whiteouts(layer: Iterable[Entry]) -> list[str]:
    return [one.path.decode() for one in layer if one.kind is Kind.CHARACTER and one.device == (0, 0)]


LOWER = build(
    [
        directory("d"),
        file("d/file", b"1"),
        symlink("d/link", "file"),
        directory("d/sub"),
        file("d/sub/deep", b"2"),
        directory("d/sub/empty"),
        directory("d/sub/more"),
        file("d/sub/more/x", b"3"),
        directory("other"),
        file("other/kept", b"4"),
        file("was-file", b"5"),
    ]
)
CASES: dict[str, tuple[list[TarItem], list[str]]] = {
    "every name of an opaque directory": ([directory("d"), file(f"d/{OPQ}")], ["d/file", "d/link", "d/sub"]),
    "but those that the layer has itself": (
        [directory("d"), file(f"d/{OPQ}"), file("d/file", b"new"), symlink("d/sub", "x")],
        ["d/link"],
    ),
    "a directory made anew below it hides what lay there, as deep as it goes": (
        [directory("d"), file(f"d/{OPQ}"), directory("d/sub"), directory("d/sub/more"), file("d/sub/more/y")],
        ["d/file", "d/link", "d/sub/deep", "d/sub/empty", "d/sub/more/x"],
    ),
    "an opaque directory in an opaque directory": (
        [directory("d"), file(f"d/{OPQ}"), directory("d/sub"), file(f"d/sub/{OPQ}"), file("d/sub/deep", b"new")],
        ["d/file", "d/link", "d/sub/empty", "d/sub/more"],
    ),
    "a directory over a file has nothing to hide": ([directory("was-file"), file(f"was-file/{OPQ}"), file("was-file/x")], []),
    "an opaque directory where there is none below": ([directory("fresh"), file(f"fresh/{OPQ}"), file("fresh/x")], []),
    "a whiteout of the layer's own stays what it is": (
        [directory("d"), file(f"d/{OPQ}"), file("d/.wh.file", uid=7, gid=8)],
        ["d/file", "d/link", "d/sub"],
    ),
    "two names of one file, one of them over a lower name": (
        [directory("d"), file(f"d/{OPQ}"), file("d/a", b"1"), hardlink("d/file", "d/a")],
        ["d/link", "d/sub"],
    ),
    "the root's own mark hides nothing, as in the kernel": ([file(OPQ), file("only", b"1")], []),
    "nothing is opaque": ([directory("d"), file("d/new", b"1"), file("d/.wh.link")], ["d/link"]),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[list[Entry]], list[list[Entry]]]]:
    return {name: both(tmp_path_factory.mktemp("case"), [LOWER, build(items)]) for name, (items, _) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_whiteouts_stand_for_an_opaque_directory(name: str, made: dict[str, tuple[list[list[Entry]], list[list[Entry]]]]) -> None:
    marked, plain = made[name]
    assert whiteouts(plain[1]) == CASES[name][1]
    assert not any(entry.xattrs for layer in plain for entry in layer)
    # Beside the whiteouts nothing changes but the marks; the whiteouts that were added are the store's own.
    before = {entry.path: replace(entry, xattrs=()) for entry in marked[1]}
    added = [entry for entry in plain[1] if entry.path not in before]
    assert all((entry.mode, entry.uid, entry.gid, entry.mtime_epoch) == (0, 0, 0, EPOCH) for entry in added)
    assert {entry.path: entry for entry in plain[1] if entry.path in before}.keys() == before.keys()
    assert [
        entry for entry in plain[1] if entry.path in before and replace(entry, content=None) != replace(before[entry.path], content=None)
    ] == []


def test_the_kernel_shows_the_same_tree(made: dict[str, tuple[list[list[Entry]], list[list[Entry]]]], tmp_path: Path) -> None:
    # The kernel lists a whiteout in a directory that hides everything anyway, and knows no such file; explicit ones it does not list.
    names = [name for name in CASES if name != "a whiteout of the layer's own stays what it is"]
    views = overlay_facts([stack for name in names for stack in made[name]], tmp_path)
    for number, name in enumerate(names):
        assert views[2 * number] == views[2 * number + 1], name


def test_layers_that_hide_and_bring_back_over_several_layers(tmp_path: Path) -> None:
    """What a lower layer hid already needs no second whiteout, and what came back in between does."""
    layers = [
        LOWER,
        build([directory("d"), file(f"d/{OPQ}"), directory("d/sub"), file("d/sub/back", b"1")]),
        build([file(".wh.other")]),
        build([directory("other"), file("other/again", b"1"), directory("d"), file("d/file", b"again")]),
        build([directory("d"), file(f"d/{OPQ}"), directory("other"), file(f"other/{OPQ}")]),
    ]
    marked, plain = both(tmp_path, layers)
    assert [whiteouts(layer) for layer in plain] == [[], ["d/file", "d/link", "d/sub/deep", "d/sub/empty", "d/sub/more"], ["other"], [],
                                                     ["d/file", "d/sub", "other/again"]]  # fmt: skip
    one, other = overlay_facts([marked, plain], tmp_path)
    assert one == other


def test_a_layer_on_two_different_stacks_hides_what_each_has(tmp_path: Path) -> None:
    top = build([directory("d"), file(f"d/{OPQ}"), file("d/new", b"1")])
    other = build([directory("d"), file("d/else", b"1")])
    with stored_images(tmp_path, [ImageSpec([LOWER, top], ["one:1"]), ImageSpec([other, top], ["two:1"])]) as images:
        store = explicit(images)
        sealed = streams(store)[0]
        assert [whiteouts(stack(store, image, sealed)[1]) for image in images] == [["d/file", "d/link", "d/sub"], ["d/else"]]


def test_images_that_share_layers_are_made_from_what_each_layer_lies_on(tmp_path: Path) -> None:
    middle = build([directory("d"), file("d/middle", b"1")])
    top = build([directory("d"), file(f"d/{OPQ}")])
    specs = [ImageSpec([LOWER, middle, top], ["a:1"]), ImageSpec([LOWER, top], ["b:1"]), ImageSpec([LOWER, middle], ["c:1"])]
    with stored_images(tmp_path, specs) as images:
        store = explicit(images)
        sealed = streams(store)[0]
        found = [whiteouts(stack(store, image, sealed)[-1]) for image in images]
    assert found == [["d/file", "d/link", "d/middle", "d/sub"], ["d/file", "d/link", "d/sub"], []]


def test_store_tar_keeps_the_marks(tmp_path: Path) -> None:
    """It is unpacked where extended attributes are."""
    with stored_images(tmp_path, [ImageSpec([LOWER, build(CASES["every name of an opaque directory"][0])], ["app:1"])]) as images:
        assert streams(explicit(images))[1] == streams(identity(images))[1]


def test_a_podman_store_has_them_too(tmp_path: Path) -> None:
    with stored_images(tmp_path, [ImageSpec([LOWER, build(CASES["every name of an opaque directory"][0])], ["app:1"])]) as images:
        sealed = entries_of(streams(explicit(images, engine="podman", driver="overlay"))[0])
    assert not any(entry.xattrs for entry in sealed.values())
    assert sorted(name.partition("/diff/")[2] for name in whiteouts(sealed.values())) == ["d/file", "d/link", "d/sub"]


def test_a_deep_tree_takes_no_recursion(tmp_path: Path) -> None:
    deep = "x/" * 1900
    layers = [build([file(f"{deep}f", b"1")]), build([directory("x"), file(f"x/{OPQ}"), file(f"{deep}g", b"1")])]
    _, plain = both(tmp_path, layers)
    assert whiteouts(plain[1]) == [f"{deep}f"]


# --- random stacks ---------------------------------------------------------------------------------------------------


def random_stack(rng: random.Random) -> list[bytes]:
    """Layers that meet each other: few names, opaque directories everywhere, whiteouts of what is there."""
    layers: list[bytes] = []
    below = MergedTree("random", 100_000)
    for _ in range(rng.randint(2, 5)):
        visible = [entry.path for entry, _ in below.nodes() if entry.path]
        tar = random_layer(rng, visible)
        layers.append(tar)
        below.add(tree_of(tar))
    return layers


def random_layer(rng: random.Random, visible: Sequence[bytes]) -> bytes:
    paths: dict[str, str] = {}
    for _ in range(rng.randint(1, 14)):
        parts = [rng.choice("abc") for _ in range(rng.randint(1, 4))]
        parents = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if any(paths.get(parent, "d") not in "do" for parent in parents):
            continue
        for parent in parents:
            paths.setdefault(parent, rng.choice("ddo"))
        paths.setdefault("/".join(parts), rng.choice("dofffl"))
    items: list[TarItem] = []
    links: list[str] = []
    for path in sorted(paths):
        kind = paths[path]
        if kind in "do":
            items.append(directory(path, mode=rng.choice((0o700, 0o755)), mtime=rng.randrange(1000)))
            items += [file(f"{path}/{OPQ}")] if kind == "o" else []
        elif kind == "l" and links:
            items.append(hardlink(path, links[0]))
        else:
            items.append(file(path, path.encode(), mode=rng.choice((0o600, 0o644))))
            links.append(path)
    hidden = {path for path, kind in paths.items() if kind == "o"}
    for path in sorted({one.decode() for one in visible} - paths.keys()):
        parent, _, name = path.rpartition("/")
        above = {"/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)}
        # Not where the layer replaces a parent, nor below an opaque directory: the kernel would list such a whiteout.
        if rng.random() < 0.2 and not above & hidden and all(paths.get(one, "d") == "d" for one in above):
            items.append(file(f"{parent}/.wh.{name}" if parent else f".wh.{name}"))
            break
    return build(items)


def test_random_stacks_look_the_same_to_the_kernel(tmp_path: Path) -> None:
    rng = random.Random(20)
    stacks: list[list[list[Entry]]] = []
    hidden = 0
    for number in range(120):
        folder = tmp_path / str(number)
        folder.mkdir()
        marked, plain = both(folder, random_stack(rng))
        hidden += sum(len(whiteouts(layer)) for layer in plain) - sum(len(whiteouts(layer)) for layer in marked)
        stacks += [marked, plain]
    assert hidden > 200
    views = overlay_facts(stacks, tmp_path)
    assert [number for number in range(120) if views[2 * number] != views[2 * number + 1]] == []


# --- what is lost ----------------------------------------------------------------------------------------------------

PING = file("bin/ping", b"ping", mode=0o755, pax={X + "security.capability": CAPABILITY})


def notes_of(folder: Path, layers: Sequence[bytes], allow: Sequence[str] = ()) -> list[str]:
    notes: list[str] = []
    with stored_images(folder, [ImageSpec(layers, ["app:1"])]) as images:
        streams(explicit(images, allow=allow), notes=notes)
    return notes


def test_a_lost_capability_is_refused_by_image_layer_and_path(tmp_path: Path) -> None:
    with pytest.raises(LostXattrs) as caught:
        notes_of(tmp_path, [LOWER, build([PING, hardlink("bin/ping6", "bin/ping"), file("note", b"", pax={X + "user.a": "1"})])])
    message = str(caught.value)
    assert "docker.io/library/app:1, layer 1 (sha256:" in message
    # A hard link entry takes the capability away, as the engine's chown does.
    assert "/note would lose user.a" in message and "ping" not in message
    (tmp_path / "again").mkdir()
    with pytest.raises(LostXattrs, match=r"/bin/ping would lose its file capability") as caught:
        notes_of(tmp_path / "again", [LOWER, build([PING])])
    assert "allow-lost-xattrs" in (caught.value.hint or "")


@pytest.mark.parametrize("allowed", ["/bin/ping", "/bin", "/"])
def test_a_path_or_folder_may_be_allowed_to_lose_it(tmp_path: Path, allowed: str) -> None:
    notes = notes_of(tmp_path, [LOWER, build([PING])], [allowed])
    assert notes == ["docker.io/library/app:1: /bin/ping loses its file capability, as `allow-lost-xattrs` says"]


def test_an_allowance_that_matches_nothing_is_named(tmp_path: Path) -> None:
    assert "matches nothing" in notes_of(tmp_path, [LOWER], ["/bin/ping"])[0]
    (tmp_path / "again").mkdir()
    with pytest.raises(LostXattrs):
        notes_of(tmp_path / "again", [LOWER, build([PING])], ["/bin/pin"])


def test_a_directory_loses_attributes_too_and_the_upper_one_counts(tmp_path: Path) -> None:
    marked = directory("d", pax={X + "trusted.note": "1"})
    with pytest.raises(LostXattrs, match=r"/d would lose trusted\.note"):
        notes_of(tmp_path, [LOWER, build([marked])])
    (tmp_path / "again").mkdir()
    assert notes_of(tmp_path / "again", [LOWER, build([marked]), build([directory("d")])]) == []


@pytest.mark.parametrize(
    "above", [[file("bin/.wh.ping")], [file(".wh.bin")], [file("bin/ping", b"new")], [directory("bin"), file(f"bin/{OPQ}")]]
)
def test_what_no_container_sees_is_no_loss(tmp_path: Path, above: list[TarItem]) -> None:
    assert notes_of(tmp_path, [build([PING]), build(above)]) == []


def test_every_image_needs_its_own_allowance(tmp_path: Path) -> None:
    with stored_images(tmp_path, [ImageSpec([build([PING])], ["a:1"]), ImageSpec([build([PING]), LOWER], ["b:1"])]) as images:
        store = explicit(images)
        one, other = (replace(image, allow_lost_xattrs=("/bin",) if number == 0 else ()) for number, image in enumerate(store.images))
        with pytest.raises(LostXattrs, match=r"docker.io/library/b:1, layer 0 .*: /bin/ping") as caught:
            streams(replace(store, images=(one, other)))
    assert "a:1" not in str(caught.value)


def test_a_character_device_that_is_a_whiteout_is_one_whoever_made_it(tmp_path: Path) -> None:
    layers = [LOWER, build([character("was-file", 0, 0, mode=0)]), build([directory("was-file"), file("was-file/x", b"1")])]
    marked, plain = both(tmp_path, layers)
    assert whiteouts(plain[1]) == ["was-file"]
    one, other = overlay_facts([marked, plain], tmp_path)
    assert one == other


def test_what_two_requests_for_one_image_allow_is_put_together(tmp_path: Path) -> None:
    with stored_images(tmp_path, [ImageSpec([LOWER], ["a:1"])]) as images:
        merged = merge([replace(images[0], allow_lost_xattrs=("/a", "/b")), replace(images[0], allow_lost_xattrs=("/b", "/c"))])
    assert [one.allow_lost_xattrs for one in merged] == [("/a", "/b", "/c")]


def test_the_stream_of_format_1_never_changes(tmp_path: Path) -> None:
    with stored_images(tmp_path) as images:
        sealed = streams(explicit(images, allow=["/bin/ping"]))[0]
    assert hashlib.sha256(sealed).hexdigest() == GOLDEN
