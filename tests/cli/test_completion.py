"""Completion scripts, tried in the shells themselves."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from requirement import missing
from shiplap.cli.main import main
from shiplap.cli.shape import whole_command_line
from shiplap.cli.shells import bash
from shiplap.cli.verbs import VERBS


def completed(line: str, folder: Path) -> list[str]:
    """What bash offers at the end of ``line``, in ``folder``."""
    words = line.split(" ")
    script = "\n".join(
        [
            bash(whole_command_line()),
            f"cd {shlex.quote(str(folder))}",
            # compopt works only while readline completes; here it says what it was asked for.
            'compopt() { echo "compopt $*"; }',
            f"COMP_WORDS=({' '.join(map(shlex.quote, words))})",
            f"COMP_CWORD={len(words) - 1}",
            "_shiplap",
            '(( ${#COMPREPLY[@]} )) && printf "%s\\n" "${COMPREPLY[@]}"',
        ]
    )
    done = subprocess.run(["bash", "--norc", "-u", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture(autouse=True)
def _bash() -> None:
    if shutil.which("bash") is None:
        missing("bash", "bash is not installed")


def test_bash_registers_the_completion_of_the_printed_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    question = ["bash", "--norc", "-c", "source /dev/stdin; complete -p shiplap"]
    done = subprocess.run(question, input=script, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("complete -F _shiplap shiplap\n", "")


def test_every_verb_is_offered_and_narrowed_by_what_is_typed(tmp_path: Path) -> None:
    offered = completed("shiplap ", tmp_path)
    assert offered[: len(VERBS)] == list(VERBS)
    assert {"--json", "--progress", "-C"} <= set(offered)
    assert completed("shiplap ver", tmp_path) == ["verify", "verity"]
    assert completed("shiplap --js", tmp_path) == ["--json"]


def test_options_before_the_verb_and_their_values_do_not_confuse(tmp_path: Path) -> None:
    # The value of -C is called like a verb.
    assert completed("shiplap -C build --progress plain comp", tmp_path) == ["completion"]
    assert completed("shiplap -q completion z", tmp_path) == ["zsh"]


def test_values_of_options_are_offered(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert completed("shiplap --progress ", tmp_path) == ["auto", "tty", "plain", "json", "quiet"]
    assert completed("shiplap config --color a", tmp_path) == ["auto", "always"]
    assert completed("shiplap -C f", tmp_path) == ["compopt -o filenames", "folder"]
    assert completed("shiplap config -f ", tmp_path) == ["compopt -o default"]
    assert completed("shiplap doctor --target ", tmp_path) == []
    # readline hands over --progress=t as three words
    assert completed("shiplap --progress = t", tmp_path) == ["tty"]
    assert completed("shiplap --progress =", tmp_path) == ["auto", "tty", "plain", "json", "quiet"]


def test_verbs_below_verbs_are_offered_with_their_own_options(tmp_path: Path) -> None:
    offered = completed("shiplap verity ", tmp_path)
    assert offered[:3] == ["format", "verify", "dump"]
    assert "--salt" in completed("shiplap verity format --sa", tmp_path)
    assert completed("shiplap verity dump --sa", tmp_path) == []


def test_files_are_offered_where_a_verb_takes_files(tmp_path: Path) -> None:
    assert "compopt -o default" in completed("shiplap build ", tmp_path)
    assert "compopt -o default" not in completed("shiplap schema ", tmp_path)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_accept_their_script(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    for verb in VERBS:
        assert verb in script.read_text()
    if shutil.which(shell) is None:
        missing(shell, f"{shell} is not installed")
    at_home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False, env=at_home)
    assert (done.returncode, done.stderr) == (0, "")
    questions = {
        "fish": f"source {script}; complete -C 'shiplap verity dump --jso'; complete -C 'shiplap comp'",
        "zsh": f"autoload -U compinit; compinit -u -d {tmp_path}/dump; source {script}; print $_comps[shiplap]",
    }
    done = subprocess.run([shell, "-c", questions[shell]], capture_output=True, text=True, check=False, env=at_home)
    assert ("--json" in done.stdout and "completion" in done.stdout) if shell == "fish" else done.stdout == "_shiplap\n"


def test_an_unknown_shell_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "powershell"]) == 2
    assert "bash" in capsys.readouterr().err
