"""Files in a new folder: everything that may be made is, and no entry leads out of the folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from commandline import COMMAND, environment, nobody_can_run_it, shiplap_command
from comparison import written
from images import directory, hardlink, symlink
from images import file as tarfile
from layertar import build
from shiplap.audit.extractfolder import FolderUnusable, NotAFile, extract_to_folder
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.errors import ShiplapError
from squashfsimages import expected_facts, facts_of_host_tree, small_tree
from squashfswriting import file

K = Kind


def extract(entries: Iterable[Entry], folder: Path) -> list[str]:
    notes: list[str] = []
    extract_to_folder(entries, folder, notes.append)
    return notes


def test_root_gets_everything_but_attributes_of_what_cannot_be_opened(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make devices and owners")
    assert extract(small_tree(), tmp_path / "out") == []
    assert facts_of_host_tree(bytes(tmp_path / "out")) == expected_facts(small_tree())


def test_somebody_gets_what_he_may_make_and_is_told_the_rest(tmp_path: Path) -> None:
    if os.geteuid() == 0 and not nobody_can_run_it():
        pytest.skip("the checkout lies where only root may look")
    image = written(tmp_path / "image", small_tree(), "squashfs")
    place = tmp_path / "place"
    place.mkdir()
    options = {}
    if os.geteuid() == 0:
        above = [folder for folder in tmp_path.parents if "pytest" in str(folder)]  # pytest's own are closed
        for folder in (place, *above, tmp_path):
            folder.chmod(0o755)
        os.chown(place, 65534, 65534)
        image.chmod(0o644)
        options = {"user": 65534, "group": 65534, "extra_groups": []}
    argv = [*COMMAND, "extract", str(image), "--to", str(place / "out")]
    done = subprocess.run(argv, env=environment(), text=True, capture_output=True, check=False, cwd="/", **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert "2 devices were left out: only root can make them" in done.stderr and "set-id bits were left out" in done.stderr
    out = place / "out"
    assert (out / "dir/sub/text").read_bytes() == b"line\n" * 2000 and (out / "dir/sub/text").stat().st_mode & 0o7777 == 0o755
    assert (out / "first").samefile(out / "dir/sub/text")
    assert (out / "dir").stat().st_mtime == 5 and not (out / "null").exists()


def test_a_folder_with_anything_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for name in ("full", "link", "full/x"):
        with pytest.raises(FolderUnusable):
            extract(small_tree(), tmp_path / name)
    extract([file(b"f", b"1")], tmp_path / "empty")
    assert (tmp_path / "empty" / "f").read_bytes() == b"1" and (tmp_path / "full" / "x").read_text() == "mine"


ATTACKS = {
    "through a link to a folder outside": [symlink("out", "/tmp"), tarfile("out/evil", b"x")],
    "through a relative link": [directory("d"), symlink("d/up", "../.."), tarfile("d/up/evil", b"x")],
    "through a chain of links": [symlink("a", "."), symlink("a/b", "/"), tarfile("a/b/evil", b"x")],
    "a hard link through a link": [symlink("etc", "/etc"), tarfile("etc/passwd-x", b"x"), hardlink("p", "etc/passwd")],
    "a hard link out of the folder": [hardlink("p", "../../../../etc/passwd")],
    "a path that climbs": [tarfile("../evil", b"x")],
    "a name that is too long": [tarfile("n" * 300, b"x")],
    "a file as a folder": [tarfile("f", b"x"), tarfile("f/g", b"x")],
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_written_outside_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (tmp_path / "attack.tar").write_bytes(build(ATTACKS[name]))
    before = {path: path.lstat().st_mtime_ns for path in sorted(tmp_path.rglob("*")) if path != inside}
    done = shiplap_command("extract", str(tmp_path / "attack.tar"), "--to", str(inside / "out"))
    assert (done.returncode, done.stdout) in ((1, ""), (2, "")), done.stdout
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert list(inside.iterdir()) == []
    assert {path: path.lstat().st_mtime_ns for path in sorted(tmp_path.rglob("*")) if path != inside} == before
    assert not Path("/tmp/evil").exists() and not Path("/evil").exists()


@pytest.mark.parametrize("path", [b"../x", b"/x", b"a/../../x", b"a//b", b".", b"a/.", b"n" * 256])
def test_impossible_paths_are_refused(path: bytes, tmp_path: Path) -> None:
    with pytest.raises(NotAFile, match="is no path below the folder"):
        extract([Entry(path, K.REGULAR, 0o644, content=Bytes(b""))], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    tree = [Entry(b"", K.DIRECTORY, 0o755), file(b"a", b"a" * 9000), file(b"b", bytes(range(256)) * 90)]
    data = bytearray(written(tmp_path / "image", tree, "squashfs").read_bytes())
    data[100:140] = b"\xff" * 40
    (tmp_path / "image").write_bytes(data)
    done = shiplap_command("extract", str(tmp_path / "image"), "--to", str(tmp_path / "out"))
    assert done.returncode == 2 and "is damaged" in done.stderr
    done = shiplap_command("extract", str(tmp_path / "image"), "-o", str(tmp_path / "out.tar"))
    assert done.returncode == 2 and [path.name for path in tmp_path.iterdir()] == ["image"]


def test_implied_folders_are_made(tmp_path: Path) -> None:
    extract([file(b"a/b/c", b"1"), Entry(b"a/d", K.DIRECTORY, 0o700, mtime_epoch=3)], tmp_path / "out")
    assert (tmp_path / "out/a/b/c").read_bytes() == b"1" and (tmp_path / "out/a/d").stat().st_mtime == 3
    assert sys.platform == "linux" and issubclass(NotAFile, ShiplapError)
