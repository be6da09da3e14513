"""Where Podman's unpacking differs from Docker's, seen with Podman 4.3, 5.4 and 5.8; the engines' own tests compare all the rest."""

from __future__ import annotations

import pytest
from images import CAPABILITY, X, directory, fifo, file, hardlink, symlink
from layertar import TarItem, build
from memorytar import EPOCH, as_file
from shiplap.core.entries import Entry
from shiplap.core.layer.dialect import CONTAINERS_STORAGE, MOBY, Dialect
from shiplap.core.layer.rules import LayerBuilder, LayerRefused
from shiplap.core.layer.unpack import unpack_with


def tree_of(items: list[TarItem], dialect: Dialect = CONTAINERS_STORAGE) -> dict[bytes, Entry]:
    with as_file(build(items)) as tar:
        builder = LayerBuilder(where="layer", epoch=EPOCH, entries_max=1000, note=lambda text: None, dialect=dialect)
        tree, _ = unpack_with(builder, tar, where="layer")
        return {entry.path: entry for entry in tree.stream(b"", tar)}


def test_the_root_directory_is_0555_and_dot_slash_does_not_change_it() -> None:
    root = tree_of([directory("./", mode=0o700, uid=5, mtime=9)])[b""]
    assert (root.mode, root.uid, root.mtime_epoch) == (0o555, 0, EPOCH)


def test_an_entry_of_the_root_itself_changes_it() -> None:
    items = [directory("/", mode=0o711, uid=5, gid=6, mtime=9), file("a")]
    root = tree_of(items)[b""]
    assert (root.mode, root.uid, root.gid, root.mtime_epoch) == (0o711, 5, 6, 9)
    assert tree_of(items, MOBY)[b""].mode == 0o755


def test_the_root_keeps_its_time_when_directories_are_stamped_again() -> None:
    items = [directory("/", mtime=9), directory("/d", mtime=7), file("d", b"now a file"), directory("e", mtime=5)]
    with pytest.raises(LayerRefused):  # the directory's time cannot be set any more, as in Docker
        tree_of([*items[:2], symlink("d", "nowhere")])
    assert tree_of(items)[b""].mtime_epoch == 9


@pytest.mark.parametrize(("link", "kept"), [({}, True), ({"uid": 1}, False), ({"gid": 1}, False), ({"uid": 1 << 32}, True)])
def test_a_hard_link_takes_a_capability_away_only_with_another_owner(link: dict[str, int], kept: bool) -> None:
    found = tree_of([file("f", pax={X + "security.capability": CAPABILITY}), hardlink("l", "f", **link)])
    assert bool(found[b"f"].xattrs) is kept
    assert not tree_of([file("f", pax={X + "security.capability": CAPABILITY}), hardlink("l", "f", **link)], MOBY)[b"f"].xattrs


def test_selinux_labels_are_left_out_without_a_word() -> None:
    label = {X + "security.selinux": b"a:b:c:s0\0", X + "user.kept": b"1"}
    assert tree_of([file("f", pax=label)])[b"f"].xattrs == ((b"user.kept", b"1"),)
    assert len(tree_of([file("f", pax=label)], MOBY)[b"f"].xattrs) == 2


@pytest.mark.parametrize("item", [fifo("x", pax={X + "user.a": b"1"}), symlink("x", "y", pax={X + "user.a": b"1"})])
def test_user_xattrs_where_linux_has_none_are_refused(item: TarItem) -> None:
    with pytest.raises(LayerRefused, match="which Linux has on files and directories only"):
        tree_of([item])
    assert tree_of([item], MOBY)[b"x"].xattrs == ()
