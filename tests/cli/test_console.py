"""What verbs print, and where it goes."""

from __future__ import annotations

import io
import json

import pytest
from shiplap.cli.console import Console, OutputFailure


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream that fails with one errno when it is written to."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        raise OSError(self._number, "broken")


def console(**options: object) -> tuple[Console, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Console(stdout=out, stderr=err, **options), out, err  # type: ignore[arg-type]


def test_a_result_is_text_with_a_final_newline_on_stdout_only() -> None:
    shown, out, err = console()
    shown.result({"a": 1}, "all fine")
    assert (out.getvalue(), err.getvalue()) == ("all fine\n", "")


def test_a_json_result_is_one_object_with_sorted_keys() -> None:
    shown, out, _ = console(json=True)
    shown.result({"b": "é", "a": [1]}, "ignored")
    assert out.getvalue() == '{\n  "a": [\n    1\n  ],\n  "b": "\\u00e9"\n}\n'


def test_control_characters_of_hostile_names_never_reach_the_terminal() -> None:
    shown, out, err = console()
    shown.result({}, "name \x1b[2J\x07 \u202eend\tcolumn\nline")
    shown.note("evil \x1b]0;title\x07")
    assert out.getvalue() == "name \\x1b[2J\\x07 \\u202eend\tcolumn\nline\n"
    assert err.getvalue() == "note: evil \\x1b]0;title\\x07\n"


def test_notes_go_to_stderr_and_details_only_with_verbose() -> None:
    shown, out, err = console()
    shown.note("kept")
    shown.detail("hidden")
    shown.progress.note("from below")
    assert (out.getvalue(), err.getvalue()) == ("", "note: kept\nnote: from below\n")
    shown, _, err = console(verbose=1)
    shown.detail("shown")
    assert err.getvalue() == "note: shown\n"


def test_quiet_silences_notes_and_progress_but_no_error() -> None:
    shown, _, err = console(verbose=-1)
    shown.note("no")
    with shown.progress.task("work") as task:
        task.advance(1)
    shown.error("broken", hint="mend it", exit_code=2)
    assert err.getvalue() == "error: broken\nhint: mend it\n"


def test_with_json_notes_and_errors_are_json_lines() -> None:
    shown, out, err = console(json=True)
    shown.note("a\nb")
    shown.error("broken", hint=None, exit_code=1, extra={"problems": []})
    assert [json.loads(line) for line in err.getvalue().splitlines()] == [
        {"event": "note", "message": "a\nb"},
        {"error": {"message": "broken", "hint": None, "exit": 1, "problems": []}},
    ]
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("word", "no_color", "terminal", "colored"),
    [
        ("auto", "", True, True),
        ("auto", "1", True, False),
        ("auto", "", False, False),
        ("always", "1", False, True),
        ("never", "", True, False),
    ],
)
def test_colour_follows_the_option_then_no_color_then_the_terminal(
    word: str, no_color: str, terminal: bool, colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal() if terminal else io.StringIO()
    Console(color=word, stdout=io.StringIO(), stderr=err, progress="quiet").note("x")
    assert ("\x1b[33mnote:\x1b[0m x" in err.getvalue()) is colored
    assert "note:" in err.getvalue()


def test_a_dumb_terminal_gets_neither_colour_nor_redrawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "dumb")
    err = Terminal()
    shown = Console(stdout=io.StringIO(), stderr=err)
    shown.note("x")
    with shown.progress.task("work") as task:
        task.advance(5)
    assert err.getvalue() == "note: x\n"


def test_a_reader_that_went_away_is_no_error_but_a_full_disk_is() -> None:
    Console(stdout=Broken(32), stderr=io.StringIO()).result({}, "text")
    with pytest.raises(OutputFailure, match="standard output"):
        Console(stdout=Broken(28), stderr=io.StringIO()).result({}, "text")


def test_closed_standard_streams_do_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    shown = Console()
    shown.note("nobody listens")
    shown.result({}, "nobody listens")


def test_a_stderr_that_breaks_stops_the_talking_not_the_work() -> None:
    shown = Console(progress="plain", stdout=io.StringIO(), stderr=Broken(32))
    with shown.progress.task("work", 10) as task:
        task.advance(10)
    shown.note("still no exception")
