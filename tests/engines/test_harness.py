"""The harness itself: an engine that ran, failed or was killed leaves nothing on the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engines.dockerd import Dockerd, DockerdError
from engines.installations import Installation
from engines.privateroot import PrivateRoot, PrivateRootError
from requirement import missing


def mounts_of_the_machine() -> set[str]:
    return set(Path("/proc/self/mountinfo").read_text().splitlines())


BEFORE = mounts_of_the_machine()


def state_of_the_machine(workdir: Path) -> tuple[set[str], set[str], set[str], set[str]]:
    """New mounts, loop devices in use, control groups of ours, processes that know ``workdir``."""
    mounts = {line for line in mounts_of_the_machine() - BEFORE if str(workdir) in line or "shiplap" in line}
    loops = {str(one) for one in Path("/sys/block").glob("loop*/loop/backing_file") if str(workdir) in one.read_text()}
    groups = {
        str(one)
        for pattern in ("*", "*/*")
        for one in Path("/sys/fs/cgroup").glob(pattern)
        if one.name.startswith(f"shiplap-{os.getpid()}-")
    }
    processes = set()
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = one.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(workdir) in command and one.parent.name != str(os.getpid()):
            processes.add(command)
    return mounts, loops, groups, processes


NOTHING: tuple[set[str], set[str], set[str], set[str]] = (set(), set(), set(), set())


def test_a_running_engine_is_on_no_mount_of_the_host_and_leaves_nothing(installation: Installation, tmp_path: Path) -> None:
    with Dockerd(tmp_path, base=installation.demand("docker")) as engine:
        assert engine.images() == []
        mounts, _, _, processes = state_of_the_machine(tmp_path)
        assert mounts == set()
        assert any("dockerd" in command for command in processes)
    assert state_of_the_machine(tmp_path) == NOTHING
    assert sorted(one.name for one in tmp_path.iterdir()) == ["data-root", "dockerd.log"]


def test_an_engine_that_cannot_start_says_why_and_leaves_nothing(installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("docker")
    with pytest.raises(DockerdError, match="no-such-driver"), Dockerd(tmp_path, base=root, options=["--storage-driver=no-such-driver"]):
        pass
    assert state_of_the_machine(tmp_path) == NOTHING


def test_a_failing_test_leaves_nothing(installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("docker")
    with pytest.raises(ZeroDivisionError), Dockerd(tmp_path, base=root):
        raise ZeroDivisionError
    assert state_of_the_machine(tmp_path) == NOTHING


def test_a_killed_test_run_takes_the_engine_with_it(installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("docker")
    program = (
        f"import sys, time; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from engines.dockerd import Dockerd\n"
        f"with Dockerd(Path({str(tmp_path)!r}), base=Path({str(root)!r})):\n"
        "    print('up', flush=True); time.sleep(600)\n"
    )
    victim = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"up\n"
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    deadline = time.monotonic() + 20
    while state_of_the_machine(tmp_path) != NOTHING and time.monotonic() < deadline:
        time.sleep(0.1)
    assert state_of_the_machine(tmp_path) == NOTHING


def test_a_store_image_that_is_none_is_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("docker", "a private root needs root")
    junk = tmp_path / "junk.squashfs"
    junk.write_bytes(b"no file system" * 1000)
    with pytest.raises(PrivateRootError, match=r"junk\.squashfs"), PrivateRoot(tmp_path, mounts=[(junk, "/usr/share/shiplap/store")]):
        pass
    assert state_of_the_machine(tmp_path) == NOTHING
