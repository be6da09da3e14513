"""The bytes do not depend on who makes them, where, or with how many cores."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import nobody_can_run_it
from hashtrees import command, content, naive_area, options, parameters, source_root
from shiplap.verity import workers
from shiplap.verity.format import format_file

DATA = content(1 << 20) * 50  # 50 MiB: several processes


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Not below pytest's own folder, which other users cannot enter.
    with tempfile.TemporaryDirectory(prefix="shiplap-verity-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        folder.joinpath("data").write_bytes(DATA)
        yield folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> tuple[str, str]:
    root = format_file(folder / "data", folder / "expected", parameters(), jobs=1)
    return root, digest(folder / "expected")


@pytest.mark.parametrize("jobs", [2, 5, None])
def test_the_bytes_do_not_depend_on_the_number_of_workers(folder: Path, expected: tuple[str, str], jobs: int | None):
    done: list[int] = []
    root = format_file(folder / "data", folder / "tree", parameters(), jobs=jobs, advance=done.append)
    assert (root, digest(folder / "tree")) == expected
    assert sum(done) == len(DATA)


def test_several_workers_really_work(folder: Path, monkeypatch: pytest.MonkeyPatch):
    started = []
    start = workers._start
    monkeypatch.setattr(workers, "_start", lambda *a: started.append(start(*a)) or started[-1])
    format_file(folder / "data", folder / "tree", parameters(), jobs=3)
    assert len(started) == 3
    assert all(process.returncode == 0 for process in started)


def test_without_an_interpreter_to_start_the_bytes_are_the_same(folder: Path, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "")
    assert (format_file(folder / "data", folder / "tree", parameters(), jobs=2), digest(folder / "tree")) == expected


def test_levels_of_every_shape_are_the_same_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every level goes through the workers here, in as many shares as it has parents, or nearly."""
    monkeypatch.setattr(workers, "PARALLEL_FROM_BYTES", 1)
    monkeypatch.setattr(workers, "SHARE_MIN_BYTES", 512)
    for number, wanted in enumerate(
        (
            parameters(data_block_bytes=512, hash_block_bytes=512, hash_name="sha512"),
            parameters(data_block_bytes=1024, hash_block_bytes=512, hash_name="sha1", hash_type=0),
            parameters(data_block_bytes=512, hash_block_bytes=1024, salt=b""),
        )
    ):
        data, tree = tmp_path / "data", tmp_path / f"tree{number}"
        data.write_bytes(content(700 * wanted.data_block_bytes))
        area, root = naive_area(data.read_bytes(), wanted)
        assert format_file(data, tree, wanted, jobs=3) == root
        assert tree.read_bytes() == area


VARIATIONS = {
    "another hash seed": {"env": {"PYTHONHASHSEED": "4711"}},
    "another locale and time zone": {"env": {"LC_ALL": "C", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"}},
    "an epoch": {"env": {"SOURCE_DATE_EPOCH": "1"}},
    "another umask": {"umask": 0o077},
    "another folder": {"cwd": "/"},
    "optimised": {"env": {"PYTHONOPTIMIZE": "2"}},
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_the_bytes_do_not_depend_on_the_surroundings(folder: Path, expected: tuple[str, str], variation: str):
    tree = folder / "tree"
    tree.unlink(missing_ok=True)
    done = command("format", *options(parameters()), folder / "data", tree, **VARIATIONS[variation])
    assert done.returncode == 0, done.stderr
    assert expected[0] in done.stdout
    assert digest(tree) == expected[1]


def test_salt_and_uuid_from_the_content_do_not_depend_on_name_or_time(folder: Path, tmp_path: Path):
    other = tmp_path / "another name"
    shutil.copyfile(folder / "data", other)
    os.utime(other, (0, 0))
    for file, tree in ((folder / "data", tmp_path / "a"), (other, tmp_path / "b")):
        assert command("format", file, tree).returncode == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nobody_can_format_and_verify(folder: Path, expected: tuple[str, str]):
    if shutil.which("setpriv") is None or not nobody_can_run_it():
        pytest.skip("only root can become nobody, who must be able to reach this checkout and its Python")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all")
    out = folder / "nobody"
    out.mkdir()
    os.chown(out, 65534, 65534)
    if subprocess.run([*nobody, "test", "-r", source_root(), "-a", "-r", folder / "data"], check=False).returncode:
        pytest.skip("nobody cannot read the sources here")
    done = command("format", *options(parameters()), folder / "data", out / "tree", prefix=nobody)
    assert done.returncode == 0, done.stderr
    assert digest(out / "tree") == expected[1]
    assert command("verify", folder / "data", out / "tree", expected[0], prefix=nobody).returncode == 0
    # And a folder that is not nobody's is one clear refusal.
    done = command("format", folder / "data", folder / "forbidden", prefix=nobody)
    assert (done.returncode, done.stderr) == (2, f"error: cannot write {folder / 'forbidden'}: Permission denied\n")


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_every_python_here_gives_the_same_bytes(folder: Path, expected: tuple[str, str], minor: int):
    candidates = [shutil.which(f"python3.{minor}"), *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")]
    found = next((str(python) for python in candidates if python and "/shims/" not in str(python)), None)
    if found is None:
        pytest.skip(f"no Python 3.{minor} here")
    script = (
        "import sys, pathlib; from shiplap.verity.format import *;"
        "p = VerityParameters(salt=bytes(range(32)), uuid=sys.argv[3]);"
        "print(format_file(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), p))"
    )
    argv = [found, "-W", "error", "-c", script, folder / "data", folder / "tree", parameters().uuid]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"PYTHONPATH": source_root()})
    assert (done.stdout.strip(), done.stderr) == (expected[0], "")
    assert digest(folder / "tree") == expected[1]
