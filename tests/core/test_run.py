"""The door to external programs: what they get, what becomes of their failures, what says that one is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from shiplap.core.errors import OutsideFailure, ProgramMissing
from shiplap.core.run import environment, find, run


def program(folder: Path, name: str, script: str = "exit 0") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_program_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = program(tmp_path, "packer")
    assert find("packer", package="packer-tools") == str(path)


def test_programs_for_root_are_found_by_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find("ldconfig", package="libc-bin") in ("/usr/sbin/ldconfig", "/sbin/ldconfig")
    monkeypatch.delenv("PATH")
    assert Path(find("sh", package="dash")).name == "sh"


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ProgramMissing, match="tar2sqfs2 is not installed") as caught:
        find("tar2sqfs2", package="squashfs-tools-ng")
    assert caught.value.hint == "on Debian: apt-get install squashfs-tools-ng"


def test_the_environment_holds_nothing_that_could_change_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SOURCE_DATE_EPOCH": "1",
        "TZ": "Asia/Tokyo",
        "LANG": "de_DE.UTF-8",
        "POSIXLY_CORRECT": "1",
        "TAR_OPTIONS": "-v",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", "/somewhere")
    env = environment({"EXTRA": "1"})
    assert (env["LC_ALL"], env["TZ"], env["TMPDIR"], env["EXTRA"], env["PATH"]) == ("C", "UTC", "/somewhere", "1", os.environ["PATH"])
    assert set(env) <= {"PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "LC_ALL", "TZ", "EXTRA"}


def test_a_program_gets_its_input_and_gives_its_output() -> None:
    done = run(["sh", "-c", "cat; echo problem >&2; echo $X"], stdin=b"\xff\0 input ", extra_env={"X": "extra"})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\xff\0 input extra\n", b"problem\n")


def test_an_exit_code_that_is_allowed_is_no_failure() -> None:
    assert run(["sh", "-c", "exit 3"], allowed=(0, 3)).returncode == 3
    with pytest.raises(OutsideFailure, match=r"^sh failed with exit code 3$"):
        run(["sh", "-c", "exit 3"], allowed=(0, 2))


def test_a_failure_quotes_what_the_program_said_last() -> None:
    with pytest.raises(OutsideFailure, match=r"^sh failed with exit code 1: no space left$"):
        run(["sh", "-c", "echo ignored; echo no space left >&2; exit 1"])
    with pytest.raises(OutsideFailure, match=r"^sh failed with exit code 1: said on stdout$"):
        run(["sh", "-c", "echo said on stdout; exit 1"])
    with pytest.raises(OutsideFailure) as caught:
        run(["sh", "-c", "yes | head -c 100000 >&2; echo THE END >&2; exit 1"])
    assert caught.value.message.endswith("THE END") and len(caught.value.message) < 4100


def test_what_a_program_says_need_not_be_utf_8() -> None:
    with pytest.raises(OutsideFailure, match="exit code 1: \ufffd"):
        run(["sh", "-c", r"printf '\377' >&2; exit 1"])


def test_a_signal_is_named() -> None:
    with pytest.raises(OutsideFailure, match="sh was ended by signal 9"):
        run(["sh", "-c", "kill -9 $$"])


def test_a_program_that_cannot_be_run_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("no program")
    with pytest.raises(OutsideFailure, match=r"cannot run .*broken: Permission denied"):
        run([tmp_path / "broken"])
    with pytest.raises(OutsideFailure, match=r"cannot run .*absent: No such file"):
        run([tmp_path / "absent"])
