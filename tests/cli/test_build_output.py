"""Real builds that are interrupted, killed, doubled or out of room: nothing partial, nothing outside, one clear error."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive
from commandline import COMMAND, environment, nobody_can_run_it, shiplap_command
from images import file
from layertar import build
from requirement import require
from shiplap.core.output import STAGE_PREFIX, SUMS_NAME
from smalldisk import with_small_disk
from storeimages import APP_IMAGE

SMALL = ImageSpec([build([file("f", b"small")])], tags=["small:1"])


@pytest.fixture(scope="module")
def archives() -> Iterator[Path]:
    """small.tar, quickly built, and large.tar, on which a build works for a while."""
    require("tar2sqfs")
    with tempfile.TemporaryDirectory(prefix="shiplap-output-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        docker_archive(folder / "small.tar", [SMALL])
        docker_archive(
            folder / "large.tar", [ImageSpec([build([file(f"f{n}", os.urandom(4 << 20)) for n in range(16)])], tags=["large:1"])]
        )
        yield folder


class Build:
    """A build of large.tar, stopped in the middle: while the SquashFS tool is at work."""

    def __init__(self, archives: Path, out: Path, outputs: str = "squashfs,verity,tar") -> None:
        self.out = out
        argv = [*COMMAND, "build", f"docker-archive:{archives / 'large.tar'}", "-o", str(out), "--output", outputs, "--progress", "quiet"]
        self.process = subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size for path in out.glob(f"{STAGE_PREFIX}*/store.squashfs")):
            assert self.process.poll() is None and time.monotonic() < deadline, self.process.communicate()
            time.sleep(0.005)

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        said = self.process.communicate(timeout=30)
        assert said[0] == ""
        return self.process.returncode, said[1]


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def tools_on(out: Path) -> list[bytes]:
    """Command lines of tools that still write below ``out``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if line.startswith((b"tar2sqfs", b"/usr/bin/tar2sqfs")) and os.fsencode(out) in line:
            found.append(line)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_build_leaves_nothing(archives: Path, tmp_path: Path, number: signal.Signals) -> None:
    work = Build(archives, tmp_path / "deep/out")
    assert work.end(number) == (130, f"error: interrupted ({number.name})\n")
    assert list(tmp_path.iterdir()) == []
    assert tools_on(tmp_path) == []


def test_an_interrupted_build_leaves_the_one_before_it(archives: Path, tmp_path: Path) -> None:
    assert shiplap_command("build", f"docker-archive:{archives / 'small.tar'}", "-o", str(tmp_path)).returncode == 0
    (tmp_path / "notes.txt").write_bytes(b"mine")
    before = content(tmp_path)
    assert Build(archives, tmp_path).end(signal.SIGTERM)[0] == 130
    assert content(tmp_path) == before
    assert shiplap_command("verify", str(tmp_path)).returncode == 0


def test_a_killed_build_leaves_the_one_before_it_and_the_next_one_cleans_up(archives: Path, tmp_path: Path) -> None:
    assert shiplap_command("build", f"docker-archive:{archives / 'small.tar'}", "-o", str(tmp_path)).returncode == 0
    before = content(tmp_path)
    work = Build(archives, tmp_path)
    work.process.kill()
    work.process.communicate()
    left = [path for path in tmp_path.iterdir() if path.name.startswith(STAGE_PREFIX)]
    assert len(left) == 1
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    deadline = time.monotonic() + 30
    while tools_on(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)  # its input has ended, it goes by itself
    assert tools_on(tmp_path) == []
    assert shiplap_command("build", f"docker-archive:{archives / 'small.tar'}", "-o", str(tmp_path)).returncode == 0
    assert content(tmp_path) == before


def test_a_second_build_into_the_same_folder_is_refused_and_disturbs_nobody(archives: Path, tmp_path: Path) -> None:
    work = Build(archives, tmp_path / "out")
    work.process.send_signal(signal.SIGSTOP)  # a fast machine would be done before the second one begins
    done = shiplap_command("build", f"docker-archive:{archives / 'small.tar'}", "-o", str(tmp_path / "out"))
    work.process.send_signal(signal.SIGCONT)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2].startswith(f"error: another build is writing to {tmp_path / 'out'}")
    assert any((tmp_path / "out").glob(f"{STAGE_PREFIX}*/store.squashfs")), "the first build's work is still there"
    assert work.end(signal.SIGINT)[0] == 130


def test_nothing_is_written_outside_the_output_folder(archives: Path, tmp_path: Path) -> None:
    for folder in ("home", "tmp", "cwd"):
        (tmp_path / folder).mkdir()
    env = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    compressed = docker_archive(tmp_path / "in.tar", [APP_IMAGE], compression="gzip", whole="gzip")
    words = ["build", f"docker-archive:{compressed}", "-o", "out", "--output", "squashfs,verity,tar"]
    assert shiplap_command(*words, env=env, cwd=tmp_path / "cwd").returncode == 0
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())
    inside = ["record.json", "sbom.cdx.json", "sbom.spdx.json"]
    inside += ["store.json", "store.roothash", "store.squashfs", "store.tar", "store.verity", "target.tar"]
    assert files == [f"cwd/out/{name}" for name in (SUMS_NAME, *inside)] + ["in.tar"]


# --- no room


@pytest.mark.parametrize("outputs", ["squashfs", "squashfs,verity,tar", "tar"])
def test_a_full_disk_is_one_clear_error_and_nothing_is_left(archives: Path, tmp_path: Path, outputs: str) -> None:
    out = tmp_path / "out"
    script = 'shift; "$@"; code=$?; ls -A "$OUT"; exit $code'
    argv = [*COMMAND, "build", f"docker-archive:{archives / 'large.tar'}", "-o", str(out), "--output", outputs, "--progress", "quiet"]
    done = with_small_disk(out, "8m", ["sh", "-c", script, "sh", "", *argv], environment({"OUT": str(out)}))
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in done.stderr
    assert str(out) in errors[0] and errors[0].endswith(": No space left on device")


def test_a_read_only_folder_is_refused(archives: Path, tmp_path: Path) -> None:
    argv = [*COMMAND, "build", f"docker-archive:{archives / 'small.tar'}", "-o", str(tmp_path / "out")]
    done = with_small_disk(tmp_path / "out", "1m,ro", argv, environment())
    assert done.returncode == 2
    assert f"error: cannot use {tmp_path}/out as the output folder: Read-only file system" in done.stderr


def test_a_folder_of_somebody_else_is_refused(archives: Path) -> None:
    if not nobody_can_run_it():
        pytest.skip("only root can become somebody else, who must be able to reach this checkout and its Python")
    for out in (archives, archives / "new/out"):
        argv = [*COMMAND, "build", f"docker-archive:{archives / 'small.tar'}", "-o", str(out)]
        done = subprocess.run(argv, env=environment(), capture_output=True, text=True, user=65534, group=65534, extra_groups=[], cwd="/")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"error: cannot use {out} as the output folder: Permission denied" in done.stderr
    assert sorted(path.name for path in archives.iterdir()) == ["large.tar", "small.tar"]


def test_a_file_in_the_place_of_the_folder_is_refused(archives: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    done = shiplap_command("build", f"docker-archive:{archives / 'small.tar'}", "-o", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"cannot use {tmp_path / 'out'} as the output folder: File exists" in done.stderr
    assert (tmp_path / "out").read_bytes() == b"mine"
