"""docs/cli.md and the man page are what the parsers say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from requirement import missing
from shiplap.cli import verbs
from shiplap.cli.manual import DOCUMENTS, EXIT_CODES
from shiplap.cli.shape import whole_command_line

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_the_committed_reference_is_what_the_parsers_say(name: str) -> None:
    wanted = DOCUMENTS[name](whole_command_line())
    assert (DOCS / name).read_text(encoding="utf-8") == wanted, "run: PYTHONPATH=.ns python -m shiplap.cli.manual docs"


def test_every_verb_names_itself_and_says_what_it_does() -> None:
    for name in verbs.VERBS:
        verb = verbs.load(name)
        assert name == verb.NAME
        assert 10 < len(verb.SUMMARY) <= 100
        assert "\n" not in verb.SUMMARY
        assert f"shiplap {name}" in verb.EXAMPLES


def test_every_argument_of_every_verb_is_explained() -> None:
    for command in whole_command_line().walk():
        for argument in (*command.arguments, *command.global_options):
            assert argument.help, f"{command.name} {argument.flags or argument.value}"


def test_all_verbs_of_the_design_are_there_or_announced() -> None:
    design = {"build", "lock", "fetch", "rootfs", "verity", "generate", "inspect", "verify", "diff", "audit", "schema", "config", "doctor"}
    assert {*verbs.VERBS, *verbs.LATER} == design | {"cache", "completion", "extract", "import"}


def test_exit_codes_are_those_of_the_design() -> None:
    assert [code for code, _ in EXIT_CODES] == [0, 1, 2, 3, 70, 130]


def test_man_accepts_the_page() -> None:
    if shutil.which("groff") is None:
        missing("groff", "groff is not installed")
    page = DOCUMENTS["shiplap.1"](whole_command_line())
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-K", "utf-8"], input=page, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert "SHIPLAP(1)" in done.stdout
