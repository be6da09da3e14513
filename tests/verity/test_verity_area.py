"""A hash file is fresh, and a failure leaves everything as it was."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hashtrees import command, content, naive_area, options, parameters, source_root
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.verity import workers
from shiplap.verity.area import OccupiedArea, UnwritableFile
from shiplap.verity.data import UnfitFile, UnprotectedBytes, pad_file, padded
from shiplap.verity.format import format_file

DATA = content(200 * 4096)
AREA, ROOT = naive_area(DATA, parameters())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "data"
    file.write_bytes(DATA)
    return file


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_no_byte_of_an_older_hash_file_remains(data: Path, tmp_path: Path):
    tree = tmp_path / "tree"
    tree.write_bytes(b"\xee" * 1_000_000)
    assert format_file(data, tree, parameters()) == ROOT
    assert tree.read_bytes() == AREA
    assert files(tmp_path).keys() == {"data", "tree"}


def test_the_gap_between_superblock_and_tree_is_zeros(data: Path, tmp_path: Path):
    tree = tmp_path / "tree"
    tree.write_bytes(b"\xee" * 512)
    format_file(data, tree, parameters(), hash_offset_bytes=512)
    assert tree.read_bytes() == b"\xee" * 512 + AREA[:512] + bytes(4096 - 1024) + AREA[4096:]


@pytest.mark.parametrize("before", [b"", b"boot sector".ljust(4096, b".")], ids=["a short file", "a full one"])
def test_what_stands_before_the_offset_is_kept(data: Path, tmp_path: Path, before: bytes):
    tree = tmp_path / "tree"
    tree.write_bytes(before)
    format_file(data, tree, parameters(), hash_offset_bytes=4096)
    assert tree.read_bytes() == before.ljust(4096, b"\0") + AREA


@pytest.mark.parametrize("there", [4097, 4096 + len(AREA), 10_000_000])
def test_bytes_where_the_area_would_go_are_never_overwritten(data: Path, tmp_path: Path, there: int):
    tree = tmp_path / "tree"
    tree.write_bytes(b"\xee" * there)
    with pytest.raises(OccupiedArea, match=f"has {there - 4096} bytes from byte 4096 on"):
        format_file(data, tree, parameters(), hash_offset_bytes=4096)
    assert tree.read_bytes() == b"\xee" * there


@pytest.mark.parametrize("offset", [0, 4096, 199 * 4096])
def test_data_is_never_overwritten_by_its_own_tree(data: Path, tmp_path: Path, offset: int):
    link = tmp_path / "link"
    hard = tmp_path / "hard"
    link.symlink_to(data)
    os.link(data, hard)
    for name in (data, link, hard):
        with pytest.raises(OccupiedArea):
            format_file(data, name, parameters(), hash_offset_bytes=offset)
    assert data.read_bytes() == DATA


def test_a_second_format_behind_the_data_needs_the_first_removed(data: Path):
    format_file(data, data, parameters(), hash_offset_bytes=len(DATA))
    once = data.read_bytes()
    with pytest.raises(OccupiedArea) as caught:
        format_file(data, data, parameters(), hash_offset_bytes=len(DATA))
    assert f"truncate -s {len(DATA)}" in str(caught.value.hint)
    os.truncate(data, len(DATA))
    format_file(data, data, parameters(), hash_offset_bytes=len(DATA))
    assert data.read_bytes() == once == DATA + AREA


def test_a_link_to_a_hash_file_stays_a_link(data: Path, tmp_path: Path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("new")
    format_file(data, tmp_path / "link", parameters())
    format_file(data, tmp_path / "dangling", parameters())
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == (tmp_path / "new").read_bytes() == AREA


def test_the_mode_of_a_hash_file_is_the_older_ones_or_the_umasks(data: Path, tmp_path: Path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"")
    old.chmod(0o604)
    before = os.umask(0o027)
    try:
        format_file(data, old, parameters())
        format_file(data, new, parameters())
    finally:
        os.umask(before)
    assert (old.stat().st_mode & 0o777, new.stat().st_mode & 0o777) == (0o604, 0o640)


class Broken(Exception):
    pass


def broken(_: int) -> None:
    raise Broken


@pytest.mark.parametrize("large", [False, True], ids=["one process", "several processes"])
def test_a_failure_in_the_middle_leaves_everything_as_it_was(data: Path, tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch):
    if large:
        monkeypatch.setattr(workers, "PARALLEL_FROM_BYTES", 1)
        monkeypatch.setattr(workers, "SHARE_MIN_BYTES", 4096)
    tree, behind = tmp_path / "tree", tmp_path / "behind"
    tree.write_bytes(b"older tree")
    behind.write_bytes(b"content")
    before = files(tmp_path)
    for place, offset in ((tree, 0), (tmp_path / "new", 0), (behind, 512), (data, len(DATA))):
        with pytest.raises(Broken):
            format_file(data, place, parameters(), hash_offset_bytes=offset, jobs=2, advance=broken)
        assert files(tmp_path) == before


def test_a_full_disk_is_one_clear_error_and_leaves_everything_as_it_was(tmp_path: Path):
    """The limit on a file's size stands for the disk; like a full disk it stops a write in the middle."""
    data = tmp_path / "data"
    data.write_bytes(content(1000 * 512))
    wanted = parameters(data_block_bytes=512, hash_block_bytes=512)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    for place, more in ((tmp_path / "new", []), (data, [f"--hash-offset={data.stat().st_size}"])):
        before = files(tmp_path)
        done = command("format", *options(wanted), *more, data, place, preexec_fn=limited)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: cannot write {place}: File too large"), done.stderr
        assert files(tmp_path) == before


@pytest.mark.parametrize("place", ["absent/tree", "folder", "data/tree", "x" * 300])
def test_a_hash_file_that_cannot_be_written_is_refused(data: Path, tmp_path: Path, place: str):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnwritableFile):
        format_file(data, tmp_path / place, parameters())


def test_devices_and_pipes_are_refused_at_once(data: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UnwritableFile, match="not a regular file"):
            format_file(data, special, parameters())
        with pytest.raises(UnfitFile, match="not a regular file"):
            format_file(special, tmp_path / "tree", parameters())
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("missing", ["absent", "folder"])
def test_data_that_cannot_be_read_is_refused(tmp_path: Path, missing: str):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnfitFile):
        format_file(tmp_path / missing, tmp_path / "tree", parameters())
    assert files(tmp_path) == {}


@pytest.mark.parametrize("extra", [1, 100, 4095])
def test_a_size_that_is_no_multiple_is_refused_naming_the_unprotected_bytes(data: Path, tmp_path: Path, extra: int):
    with data.open("ab") as file:
        file.write(b"x" * extra)
    with pytest.raises(UnprotectedBytes, match=rf"last {extra} bytes \(from byte {len(DATA)}\) would be unprotected"):
        format_file(data, tmp_path / "tree", parameters())
    assert not (tmp_path / "tree").exists()


def test_an_empty_file_is_refused(tmp_path: Path):
    (tmp_path / "empty").touch()
    with pytest.raises(UnprotectedBytes, match="is empty"):
        format_file(tmp_path / "empty", tmp_path / "tree", parameters())


def test_more_blocks_than_the_data_has_are_refused(data: Path, tmp_path: Path):
    for count in (0, 201, 1 << 62):
        with pytest.raises(UnfitFile, match=f"has no {count} blocks"):
            format_file(data, tmp_path / "tree", parameters(), data_blocks=count)


def test_padding_adds_zeros_up_to_the_block(tmp_path: Path):
    file = tmp_path / "file"
    for size, added in ((0, 0), (1, 4095), (4095, 1), (4096, 0), (4097, 4095)):
        file.write_bytes(b"x" * size)
        assert pad_file(file, 4096) == added
        assert file.read_bytes() == b"x" * size + bytes(added)


def test_padding_is_taken_back_when_what_follows_fails(tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    with pytest.raises(Broken), padded(file, 512) as added:
        assert (added, file.stat().st_size) == (511, 512)
        raise Broken
    assert file.read_bytes() == b"x"


def test_a_file_that_shrinks_while_it_is_hashed_is_one_clear_error(data: Path, tmp_path: Path):
    def shrink(_: int) -> None:
        os.truncate(data, 4096)

    for size in (len(DATA), 1 << 24):
        os.truncate(data, size)
        with pytest.raises(OutsideFailure, match=r"data: ended at byte \d+ while it was read"):
            format_file(data, tmp_path / "tree", parameters(), advance=shrink)
    assert not (tmp_path / "tree").exists()


def test_every_refusal_has_the_exit_code_of_a_refusal():
    for kind in (OccupiedArea, UnwritableFile, UnfitFile, UnprotectedBytes):
        assert issubclass(kind, Refused)


def test_an_interrupt_ends_the_workers_and_leaves_everything_as_it_was(tmp_path: Path):
    data, tree = tmp_path / "data", tmp_path / "tree"
    tree.write_bytes(b"older tree")
    with data.open("wb") as file:
        file.truncate(64 << 30)  # sparse; minutes of work
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": source_root(), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-m", "shiplap.cli", "verity", "format", "--jobs=2", "data", "tree"]
    process = subprocess.Popen(argv, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 30
    while len(workers_of := children(process.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)  # past the start of the workers' interpreters
    assert all(os.getpgid(int(worker)) != process.pid for worker in workers_of), "they would be interrupted too, and say so"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to the whole group
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "error: interrupted (SIGINT)\n")
    while any(Path(f"/proc/{worker}").exists() for worker in workers_of):  # one interrupted at its start ends by itself
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "tree"]
    assert tree.read_bytes() == b"older tree"


def test_a_worker_whose_start_was_interrupted_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It runs, and nobody holds it yet to end it; behind data it would write into a file that was already restored."""
    monkeypatch.setattr(workers, "PARALLEL_FROM_BYTES", 1)
    started = []
    start = workers._start

    def interrupted(*how):
        started.append(start(*how))
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "_start", interrupted)
    data = tmp_path / "data"
    data.write_bytes(content(1 << 24))
    with pytest.raises(KeyboardInterrupt):
        format_file(data, data, parameters(), hash_offset_bytes=1 << 24, jobs=2)
    (orphan,) = started
    orphan.wait(timeout=30)
    orphan.stdout.close()
    assert data.read_bytes() == content(1 << 24)


def children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def test_the_memory_does_not_grow_with_the_file(tmp_path: Path):
    data = tmp_path / "data"
    with data.open("wb") as file:
        file.truncate(1 << 30)
    # Not ru_maxrss of the process itself: it begins with the size of the process that started it, which is pytest.
    script = (
        "import re, resource, sys; from shiplap.cli.main import main; code = main(sys.argv[1:]);"
        "print(re.search('VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1],"
        " resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    argv = [sys.executable, "-c", script, "-q", "verity", "format", "--jobs=2", data, tmp_path / "tree"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={"PYTHONPATH": source_root()})
    own, workers_own = map(int, done.stderr.split())
    assert 0 < own < 64 * 1024
    assert 0 < workers_own < 64 * 1024
