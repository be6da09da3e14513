"""``shiplap extract`` as a command."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from commandline import COMMAND, environment, shiplap_command
from comparison import written
from shiplap.core.entries import Entry, Kind
from squashfsimages import small_tree, tar_of, tree_order
from squashfswriting import file


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return written(tmp_path / "image.squashfs", small_tree(), "squashfs")


def to_stdout(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, "extract", *words], env=environment(), capture_output=True, check=False)


def test_standard_output_and_a_file_get_the_same_tar(image: Path, tmp_path: Path) -> None:
    piped = to_stdout(str(image))
    assert (piped.returncode, piped.stderr, piped.stdout) == (0, b"", tar_of(small_tree()))
    done = shiplap_command("extract", str(image), "-o", str(tmp_path / "out.tar"), "--json")
    digest = hashlib.sha256(piped.stdout).hexdigest()
    assert json.loads(done.stdout) == {
        "out": str(tmp_path / "out.tar"),
        "entries": len(small_tree()),
        "size_bytes": len(piped.stdout),
        "sha256": digest,
    }
    assert (tmp_path / "out.tar").read_bytes() == piped.stdout
    assert to_stdout(str(image), "-o", "-").stdout == piped.stdout


def test_the_tar_does_not_depend_on_who_extracts_it_and_where(image: Path, tmp_path: Path) -> None:
    plain = to_stdout(str(image)).stdout
    env = environment({"TZ": "Asia/Tokyo", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "5"})
    argv = [*COMMAND, "extract", os.path.relpath(image, tmp_path)]
    other = subprocess.run(argv, env=env, cwd=tmp_path, umask=0o77, capture_output=True, check=True)
    assert other.stdout == plain


def test_paths_may_stand_behind_options(image: Path) -> None:
    wanted = to_stdout(str(image), "dir/sub", "symlink").stdout
    assert wanted
    assert to_stdout(str(image), "dir/sub", "--lst", "symlink").returncode == 2
    for words in (
        [str(image), "-o", "-", "dir/sub", "symlink"],
        [str(image), "dir/sub", "-o", "-", "symlink"],
        ["-o", "-", str(image), "dir/sub", "symlink"],
        ["-o", "-", str(image), "dir/sub", "-q", "symlink"],
    ):
        done = to_stdout(*words)
        assert (done.returncode, done.stdout) == (0, wanted), words


def test_a_list_shows_what_ls_would(image: Path) -> None:
    lines = shiplap_command("extract", str(image), "--list").stdout.splitlines()
    assert "drwxrwsr-x 0/7           0 1970-01-01 00:00:05 dir" in lines
    assert "lrwxrwxrwx 0/0           0 1970-01-01 00:00:00 symlink -> dir/sub/text" in lines
    assert "crw-rw-rw- 0/0         1,3 1970-01-01 00:00:00 null" in lines
    assert "-rwsr-xr-x 3/4           0 1970-01-01 00:01:39 first link to dir/sub/text" in lines
    entries = json.loads(shiplap_command("extract", str(image), "--list", "--json").stdout)["entries"]
    assert [entry["path"] for entry in entries] == [entry.path.decode() or "/" for entry in small_tree()]
    device = next(entry for entry in entries if entry["path"] == "sda")
    assert device == {"path": "sda", "type": "block device", "mode": "0660", "uid": 0, "gid": 6, "mtime_epoch": 0, "device": [8, 1]}


def test_names_in_a_list_are_escaped(tmp_path: Path) -> None:
    tree = tree_order([Entry(b"", Kind.DIRECTORY, 0o755), file(b"\x1b[2J\nevil", b"")])
    done = shiplap_command("extract", str(written(tmp_path / "image", tree, "squashfs")), "--list")
    assert "\x1b" not in done.stdout and done.stdout.endswith("\\x1b[2J\\nevil\n")


def test_words_that_do_not_go_together_are_refused(image: Path, tmp_path: Path) -> None:
    for words in (
        ["--list", "-o", "x.tar"],
        ["--list", "--to", "x"],
        ["--to", "x", "-o", "x.tar"],
        ["--json"],
        ["absent"],
        ["-o", str(tmp_path / "no" / "folder.tar")],
    ):
        done = shiplap_command("extract", str(image), *words, cwd=str(tmp_path))
        assert (done.returncode, done.stdout) == (2, ""), words
        assert "error" in done.stderr and "Traceback" not in done.stderr
    for thing in ("absent.squashfs", str(tmp_path)):
        assert shiplap_command("extract", thing, cwd=str(tmp_path)).returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["image.squashfs"]


def test_a_terminal_gets_no_tar(image: Path) -> None:
    main, side = pty.openpty()
    try:
        done = subprocess.run([*COMMAND, "extract", str(image)], env=environment(), stdout=side, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(side)
        os.close(main)
    assert done.returncode == 1 and b"bytes cannot be shown on a terminal" in done.stderr and b"-o" in done.stderr


def test_a_reader_that_goes_away_is_one_error(tmp_path: Path) -> None:
    tree = [Entry(b"", Kind.DIRECTORY, 0o755), file(b"large", os.urandom(1 << 20))]
    image = written(tmp_path / "image", tree, "squashfs")
    process = subprocess.Popen([*COMMAND, "extract", str(image)], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1 and said.startswith(b"error: cannot write to standard output") and b"Traceback" not in said


def test_a_full_disk_is_one_error_and_leaves_nothing(image: Path) -> None:
    done = shiplap_command("extract", str(image), "-o", "/dev/full")
    assert done.returncode == 2 and "is not a regular file" in done.stderr
    with open("/dev/full", "wb") as full:
        process = subprocess.run([*COMMAND, "extract", str(image)], env=environment(), stdout=full, stderr=subprocess.PIPE, check=False)
    assert process.returncode == 1 and b"No space left" in process.stderr
