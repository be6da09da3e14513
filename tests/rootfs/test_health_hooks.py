"""The updaters' snippets ask `shiplap-target status --wait` and believe it: run, with stand-ins for the device's programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from requirement import require
from shiplap.rootfs.bootsnippets import BootSettings, SealedImage, render
from shiplap.verity.parameters import VerityParameters
from shiplap.verity.tree import lay_out

LAYOUT = lay_out(VerityParameters(salt=b"\x5a" * 32, uuid="00000000-0000-5000-8000-000000000000"), 18246)
ROOT = SealedImage("root", "rootfs.squashfs", "rootfs.verity", "ab" * 16 + "cd" * 16, LAYOUT, 18246 * 4096, 600_000, "a1" * 32, "a2" * 32)
STORE = SealedImage("store", "store.squashfs", "store.verity", "12" * 16 + "34" * 16, LAYOUT, 5_000_000, 40_960, "b1" * 32, "b2" * 32)
UUIDS = ("dddddddd-0000-5000-8000-000000000000", "eeeeeeee-0000-5000-8000-000000000000")
TEXTS = render(BootSettings("arm64", ROOT, STORE, *UUIDS, data_bytes=64 << 20))
PROGRAMS = {
    "shiplap-target": 'echo "$*" >>"$STATE/asked"; exit "$(cat "$STATE/health")"',
    "fw_printenv": 'cat "$STATE/$2"',
    "fw_setenv": 'echo "$2" >"$STATE/$1"',
}


class Board:
    """A boot loader's environment, and the containers' health as an exit code."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.bin, self.update = folder / "bin", folder / "update"
        for one in (self.state, self.bin, self.update / "tmp"):
            one.mkdir(parents=True)
        for name, text in PROGRAMS.items():
            (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.bin / name).chmod(0o755)
        (self.update / "tmp/before").write_text("a\n")
        self.set(bootslot="b", upgrade_available="1", health="0")

    def set(self, **values: str) -> None:
        for name, value in values.items():
            (self.state / name).write_text(value + "\n")

    def get(self, name: str) -> str:
        return (self.state / name).read_text().strip()

    def asked(self) -> list[str]:
        return (self.state / "asked").read_text().splitlines() if (self.state / "asked").exists() else []

    def run(self, script: str, *words: str) -> int:
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin", "STATE": str(self.state)}
        return subprocess.run(["dash", "-c", script, "script", *words], env=environment, capture_output=True, check=False).returncode


@pytest.fixture
def board(tmp_path: Path) -> Board:
    require("shells")
    return Board(tmp_path)


def test_mender_confirms_an_update_only_when_every_container_runs(board: Board) -> None:
    module = TEXTS["mender-module"]
    for state in ("ArtifactVerifyReboot", "ArtifactCommit"):
        board.set(health="1")
        assert board.run(module, state, str(board.update)) != 0
        assert board.get("upgrade_available") == "1"  # so the boot loader may still fall back
        board.set(health="0")
        assert board.run(module, state, str(board.update)) == 0
    assert board.get("upgrade_available") == "0"
    assert board.asked() == ["status --wait 120"] * 4


def test_mender_does_not_take_the_old_slot_for_the_new_one(board: Board) -> None:
    board.set(bootslot="a")  # the boot loader fell back; there every container runs, too
    assert board.run(TEXTS["mender-module"], "ArtifactVerifyReboot", str(board.update)) != 0
    assert board.run(TEXTS["mender-module"], "ArtifactRollback", str(board.update)) == 0
    assert (board.get("bootslot"), board.get("upgrade_available")) == ("a", "0")


def test_a_rollback_goes_back_to_the_slot_that_ran_before(board: Board) -> None:
    assert board.run(TEXTS["mender-module"], "ArtifactRollback", str(board.update)) == 0
    assert (board.get("bootslot"), board.get("upgrade_available")) == ("a", "0")


def lines(name: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in TEXTS[name].splitlines() if line.startswith(key + "=")]


def test_rauc_and_swupdate_mark_the_slot_as_good_after_the_question_and_not_without(board: Board) -> None:
    """Of several ExecStart= (and of ExecStartPre=) systemd runs none after one that failed; a "-" before one would change that."""
    assert lines("rauc-mark-good.conf", "ExecStartPre") == ["/usr/sbin/shiplap-target status --wait 120"]
    commands = lines("swupdate-health.service", "ExecStart")
    assert commands[0] == "/usr/sbin/shiplap-target status --wait 120"
    assert lines("swupdate-health.service", "Type") == ["oneshot"]  # another type takes one command
    confirm = " && ".join(command.replace("/usr/sbin/", "") for command in commands)
    board.set(health="1", bootcount="1")
    assert board.run(confirm) != 0
    assert (board.get("upgrade_available"), board.get("bootcount")) == ("1", "1")
    board.set(health="0")
    assert board.run(confirm) == 0
    assert (board.get("upgrade_available"), board.get("bootcount")) == ("0", "0")
