"""What comes out of ``extract`` is what other readers of the same image see."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive, oci_layout
from commandline import COMMAND, environment, shiplap_command
from comparison import needs_root, written
from images import CAPABILITY, X, directory, hardlink, symlink
from images import file as tarfile
from layertar import build, item
from memorytar import Memory
from requirement import require
from shiplap.audit.extraction import ExtractOptions, NotExtractable, open_entries
from shiplap.audit.trees import NotInTree
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.errors import ShiplapError
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT
from shiplap.core.tar.reader import read_headers
from squashfscraft import FILE, SOCKET, Craft, listing, reference
from squashfsimages import (
    Facts,
    expected_facts,
    facts,
    facts_of_host_tree,
    facts_of_the_kernel,
    lay_out,
    mksquashfs,
    small_tree,
    tar2sqfs,
    tar_of,
    torture_tree,
    tree_order,
)
from squashfswriting import file
from storeimages import IMAGES
from tampering import entries_of

K = Kind


def extracted(thing: Path | str, *paths: str, image: str | None = None) -> list[Facts]:
    """The facts of the entries, their order as it came."""
    with open_entries(str(thing), paths, ExtractOptions(Limits(), SILENT, image=image)) as entries:
        return [facts(entry) for entry in entries]


def facts_of_tar(data: bytes) -> list[Facts]:
    return expected_facts(tree_order(entries_of(data).values()))


@pytest.mark.parametrize("form", ["squashfs", "tar", "tar.gz"])
def test_what_went_in_comes_out_in_order(form: str, tmp_path: Path) -> None:
    tree = torture_tree(4096)
    assert extracted(written(tmp_path / "thing", tree, form)) == expected_facts(tree)


def test_a_tar_in_any_order_becomes_a_canonical_one(tmp_path: Path) -> None:
    tree = small_tree()
    links = [entry for entry in tree if entry.kind is K.HARDLINK]
    rest = [entry for entry in tree if entry.kind is not K.HARDLINK]
    random.Random(3).shuffle(rest)
    assert extracted(written(tmp_path / "mixed.tar", [*rest, *links], "tar")) == expected_facts(tree)


def test_sqfs2tar_and_the_kernel_see_the_same_as_the_extracted_tar(tmp_path: Path) -> None:
    needs_root()
    require("tar2sqfs")
    image = tar2sqfs(tmp_path / "image", torture_tree(4096), "-b", "4096")
    assert shiplap_command("extract", str(image), "-o", str(tmp_path / "ours.tar")).returncode == 0
    ours = facts_of_tar((tmp_path / "ours.tar").read_bytes())
    theirs = subprocess.run(["sqfs2tar", str(image)], capture_output=True, check=True).stdout
    without_links = [fact for fact in ours if fact[1] != "hard link"]
    names = {fact[0]: fact for fact in facts_of_tar(theirs)}
    assert [names[fact[0]][:6] for fact in without_links if fact[0]] == [fact[:6] for fact in without_links if fact[0]]
    assert ours == facts_of_the_kernel(image, tmp_path)


@pytest.mark.parametrize("compressor", ["xz", "gzip", "lzo", "lz4", "zstd"])
def test_unsquashfs_sees_the_same_in_an_image_of_mksquashfs(compressor: str, tmp_path: Path) -> None:
    """As OpenWrt makes them: xz, a large block size, no export table."""
    needs_root()
    require("mksquashfs")
    (tmp_path / "laid").mkdir()
    lay_out(small_tree(), bytes(tmp_path / "laid"))
    image = mksquashfs(tmp_path / "image", tmp_path / "laid", "-comp", compressor, "-b", "262144", "-no-exports")
    subprocess.run(["unsquashfs", "-q", "-n", "-d", str(tmp_path / "out"), str(image)], check=True, capture_output=True)
    assert extracted(image) == facts_of_host_tree(bytes(tmp_path / "out"))


def test_gnu_tar_unpacks_what_we_extract(tmp_path: Path) -> None:
    needs_root()
    tree = torture_tree(4096, largest_xattr_bytes=1000)
    image = written(tmp_path / "image", tree, "squashfs")
    (tmp_path / "out").mkdir()
    argv = ["tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-C", str(tmp_path / "out")]
    subprocess.run(argv, input=tar_of_thing(image), check=True, capture_output=True)
    assert facts_of_host_tree(bytes(tmp_path / "out")) == expected_facts(tree)


def tar_of_thing(thing: Path, *words: str) -> bytes:
    return subprocess.run([*COMMAND, "extract", str(thing), *words], env=environment(), capture_output=True, check=True).stdout


# --- a part of a tree


def paths_of(found: Sequence[Facts]) -> list[str]:
    return [bytes.fromhex(fact[0]).decode("utf-8", "surrogateescape") for fact in found]


@pytest.mark.parametrize("form", ["squashfs", "tar"])
def test_paths_choose_what_is_at_and_below_them(form: str, tmp_path: Path) -> None:
    thing = written(tmp_path / "thing", small_tree(), form)
    assert paths_of(extracted(thing, "dir/sub")) == ["dir/sub", "dir/sub/text", "dir/sub/zz"]
    assert paths_of(extracted(thing, "/dir/sub/", "null", "./dir/sub/zz")) == ["dir/sub", "dir/sub/text", "dir/sub/zz", "null"]
    assert paths_of(extracted(thing, "symlink")) == ["symlink"]
    assert extracted(thing, ".") == extracted(thing)


@pytest.mark.parametrize("form", ["squashfs", "tar"])
def test_a_link_whose_first_name_is_not_chosen_comes_whole(form: str, tmp_path: Path) -> None:
    thing = written(tmp_path / "thing", small_tree(), form)
    (first,) = extracted(thing, "first")
    assert first[1] == "regular file" and first[-1] is not None and first[-2] != []
    both = extracted(thing, "first", "dir/sub/text")
    assert [(fact[1], bytes.fromhex(fact[6])) for fact in both] == [("regular file", b""), ("hard link", b"dir/sub/text")]


@pytest.mark.parametrize("form", ["squashfs", "tar"])
def test_neighbours_of_a_chosen_directory_are_not_chosen(form: str, tmp_path: Path) -> None:
    """``a-b`` and ``a.b`` sort before ``a/b`` as bytes; in a tree they come after it."""
    tree = tree_order(
        [Entry(b"", K.DIRECTORY, 0o755), Entry(b"a", K.DIRECTORY, 0o755), file(b"a/x", b""), file(b"a-b", b""), file(b"a.b", b"")]
    )
    thing = written(tmp_path / "thing", tree, form)
    assert paths_of(extracted(thing, "a")) == ["a", "a/x"]
    assert paths_of(extracted(thing, "a", "a.b")) == ["a", "a/x", "a.b"]


@pytest.mark.parametrize("form", ["squashfs", "tar"])
@pytest.mark.parametrize("paths", [["absent"], ["dir", "dir/absent"], ["null/x"], ["../dir"]])
def test_a_path_that_is_not_there_is_refused(form: str, paths: list[str], tmp_path: Path) -> None:
    thing = written(tmp_path / "thing", small_tree(), form)
    with pytest.raises(ShiplapError, match=r"no entry|leaves the tree"):
        extracted(thing, *paths)


# --- images


def test_an_image_is_the_same_from_every_form_that_holds_it(tmp_path: Path) -> None:
    docker_archive(tmp_path / "images.tar", IMAGES)
    oci_layout(tmp_path / "layout", IMAGES, compression="gzip")
    out, archive = tmp_path / "out", tmp_path / "images.tar"
    done = shiplap_command("build", f"docker-archive:{archive}", "-o", str(out), "--output", "squashfs,tar")
    assert done.returncode == 0
    for name in ("app:1", "docker.io/library/app:1", "data:latest", IMAGES[0].config_digest, IMAGES[1].config_digest[7:]):
        # A SquashFS keeps whole seconds, and so do facts.
        found = {
            str(thing): extracted(thing, image=name)
            for thing in (out / "store.squashfs", out / "store.tar", out, archive, f"docker-archive:{archive}", tmp_path / "layout")
        }
        assert len({str(one) for one in found.values()}) == 1, name
    assert "bin/su" not in paths_of(extracted(out, image="app:1"))
    assert "bin/su" in paths_of(extracted(out, image="data:latest"))


def test_a_source_with_one_image_needs_no_name(tmp_path: Path) -> None:
    docker_archive(tmp_path / "one.tar", [ImageSpec([build([directory("d"), tarfile("d/f"), hardlink("d/g", "d/f")])], tags=["one:1"])])
    source = f"docker-archive:{tmp_path / 'one.tar'}"
    assert paths_of(extracted(source)) == ["", "d", "d/f", "d/g"]
    assert paths_of(extracted(source, "d/g")) == ["d/g"]
    assert "manifest.json" in paths_of(extracted(tmp_path / "one.tar")), "a path means what is in that file"


def test_an_image_that_is_not_there_is_refused_with_what_there_is(tmp_path: Path) -> None:
    docker_archive(tmp_path / "images.tar", IMAGES)
    with pytest.raises(NotExtractable, match=r"no image nothing:1; it has docker\.io/library/app:1"):
        extracted(tmp_path / "images.tar", image="nothing:1")
    with pytest.raises(NotExtractable, match="has 2 images: ") as caught:
        extracted(f"docker-archive:{tmp_path / 'images.tar'}")
    assert caught.value.hint is not None and "--image" in caught.value.hint
    with pytest.raises(NotExtractable, match="neither a store nor an archive"):
        extracted(written(tmp_path / "plain.tar", small_tree(), "tar"), image="app:1")


# --- what cannot be told


def test_sockets_are_left_out_with_a_note(tmp_path: Path) -> None:
    craft = Craft()
    socket = craft.inode(SOCKET, 2, (1).to_bytes(4, "little"))
    craft.directory(1, listing([(b"a", SOCKET, socket, 2), (b"b", FILE, craft.file(3), 3)]))
    (tmp_path / "image").write_bytes(craft.image(reference(len(craft.inodes) - 32)))
    done = shiplap_command("extract", str(tmp_path / "image"), "--list")
    assert done.returncode == 0 and "1 sockets are left out, which no tar can hold: a" in done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [".", "b"]


@pytest.mark.parametrize(
    ("tar", "match"),
    [
        (build([item("f", type="7", data=b"x"), item("g", type="V")]), "of the type 'V'"),
        (build([item("s", data=b"1", pax={"GNU.sparse.map": "0,1", "GNU.sparse.size": "20"})]), "a GNU sparse file"),
        (build([item("f", data=b"x" * 600)])[:700], "not a valid tar"),
    ],
)
def test_a_tar_that_is_no_tree_is_one_clear_error(tar: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(tar)
    with pytest.raises(ShiplapError, match=match) as caught:
        extracted(tmp_path / "bad.tar")
    assert "bad.tar" in caught.value.message


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    circle = [hardlink(f"l{number}", f"l{(number + 1) % 500}") for number in range(500)]
    (tmp_path / "circle.tar").write_bytes(build([*circle, hardlink("x", "x"), hardlink("y", "absent")]))
    found = extracted(tmp_path / "circle.tar")
    assert {fact[1] for fact in found} == {"hard link"} and len(found) == 502


def test_a_hard_link_that_comes_before_its_target_is_put_behind_it(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(build([hardlink("z", "b"), hardlink("a", "b"), tarfile("b", b"data")]))
    found = extracted(tmp_path / "t.tar")
    assert [(fact[0], fact[1]) for fact in found] == [("61", "regular file"), ("62", "hard link"), ("7a", "hard link")]
    with pytest.raises(NotInTree):
        extracted(tmp_path / "t.tar", "b", "c")


def test_the_tar_is_canonical(tmp_path: Path) -> None:
    """The same records as from any other way of writing the entries."""
    tree = [Entry(b"", K.DIRECTORY, 0o755), Entry(b"f", K.REGULAR, 0o644, content=Bytes(b"x" * 1000), xattrs=((b"user.a", b"\0"),))]
    image = written(tmp_path / "image", tree, "squashfs")
    assert tar_of_thing(image) == tar_of(tree)
    assert [header.name for header in read_headers(Memory(tar_of_thing(image, "f")))] == [b"f"]


def test_umoci_unpacks_the_same_root_file_system(tmp_path: Path) -> None:
    needs_root()
    require("umoci")
    base = build(
        [
            directory("etc", mode=0o711, uid=3, mtime=77),
            tarfile("etc/passwd", b"root\n", mtime=5),
            tarfile("etc/gone", b"gone"),
            directory("opaque", mtime=5),
            tarfile("opaque/old", b"old"),
            directory("bin"),
            tarfile("bin/a", b"a" * 5000, mode=0o4755, mtime=9),
            hardlink("bin/b", "bin/a", mode=0o4755, mtime=9),
            symlink("bin/sh", "a", mtime=9),
            tarfile("bin/ping", b"ping", mode=0o755, pax={X + "security.capability": CAPABILITY, X + "user.note": b"1"}),
        ]
    )
    marked = [directory("etc", mode=0o755, mtime=78), tarfile("etc/.wh.gone"), tarfile("etc/new", b"new")]
    marked += [directory("opaque", mtime=6), tarfile("opaque/.wh..wh..opq"), tarfile("opaque/new", b"new"), directory("bin", mtime=9)]
    oci_layout(tmp_path / "layout", [ImageSpec([base, build(marked)], tags=["app"])])
    argv = ["umoci", "unpack", "--image", f"{tmp_path / 'layout'}:app", str(tmp_path / "bundle")]
    subprocess.run(argv, check=True, capture_output=True)
    theirs = facts_of_host_tree(bytes(tmp_path / "bundle" / "rootfs"))
    ours = extracted(tmp_path / "layout")
    assert ours[1:] == theirs[1:], "the root's own time is the one that each of us chooses"
