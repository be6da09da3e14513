"""The frame around every verb: options in every place, one clear error, the exit codes of the design."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import probeverb
import pytest
from commandline import COMMAND, environment, shiplap_command
from shiplap.cli import arguments as command_line
from shiplap.cli import verbs
from shiplap.cli.main import main
from shiplap.core.version import VERSION

PROBE = (sys.executable, "-P", probeverb.__file__)
MANIFEST = "version: 1\nimages:\n  - ref: app:1\n    from: docker-archive:app.tar\n"


@pytest.fixture
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shiplap.cli.probe", probeverb)
    for module in (verbs, command_line):
        monkeypatch.setattr(module, "VERBS", (*verbs.VERBS[:1], "schema", "probe"))


pytestmark = pytest.mark.usefixtures("_probe")


@pytest.mark.parametrize(
    ("kind", "code", "message", "hint"),
    [
        ("refused", 2, "the image is odd", "send another"),
        ("outside", 1, "tar2sqfs failed", None),
        ("difference", 1, "layer 3 differs", None),
        ("missing", 3, "tar2sqfs is not installed", "on Debian: apt-get install squashfs-tools-ng"),
        ("base", 1, "something else", None),
        ("full", 1, "/out/store.squashfs: No space left on device", "free some space, or name another folder with -o or TMPDIR"),
        ("io", 1, "Input/output error", None),
        ("permission", 2, "/root/x: Permission denied", "shiplap needs no root"),
        ("readonly", 2, "/usr/x: Read-only file system", "shiplap needs no root"),
        ("absent", 2, "/caf\\udce9: No such file or directory", None),
        ("rename", 2, "a → b: File exists", None),
        ("module", 3, "the Python module yaml is not installed", "pip install PyYAML, or on Debian: apt-get install python3-yaml"),
        ("memory", 1, "out of memory", None),
        ("ctrl-c", 130, "interrupted", None),
    ],
)
def test_every_way_to_end_has_its_exit_code_and_one_error(
    kind: str, code: int, message: str, hint: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", kind]) == code
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == ""
    assert lines[0] == f"error: {message}"
    assert len(lines) == (1 if hint is None else 2)
    if hint is not None:
        assert lines[1].startswith(f"hint: {hint}")


def test_a_bug_shows_its_traceback_and_how_to_report_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "bug"]) == 70
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "RuntimeError: impossible" in shown
    assert "this is a bug in shiplap" in shown
    assert f"this is shiplap {VERSION} on Python" in shown


def test_users_mistakes_show_no_traceback_unless_asked_twice_for_more(capsys: pytest.CaptureFixture[str]) -> None:
    main(["probe", "refused", "-v"])
    assert "Traceback" not in capsys.readouterr().err
    main(["-v", "probe", "refused", "-v"])
    assert "Traceback" in capsys.readouterr().err


def test_errors_are_json_too_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "refused", "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.err) == {"error": {"message": "the image is odd", "hint": "send another", "exit": 2}}
    assert shown.out == ""
    assert main(["--json", "no-such-verb"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["exit"] == 2


@pytest.mark.parametrize("place", [0, 1, 2])
def test_global_options_work_before_the_verb_after_it_and_below_it(place: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.getcwd()
    words = ["probe", "state"]
    words[place:place] = ["-C", str(tmp_path), "--json", "-vv", "--progress", "quiet", "--color=never"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == {"directory": str(tmp_path.resolve()), "json": True, "verbose": 2}
    assert os.getcwd() == before


def test_verbosity_adds_up_over_all_places_and_quiet_wins(capsys: pytest.CaptureFixture[str]) -> None:
    main(["-v", "probe", "-v", "state", "-v", "--json"])
    assert json.loads(capsys.readouterr().out)["verbose"] == 3
    main(["-q", "probe", "state", "-v", "--json"])
    assert json.loads(capsys.readouterr().out)["verbose"] == -1


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ([], "a verb is missing", "the verbs are: "),
        (["shema"], "there is no verb 'shema'", "did you mean `schema`?"),
        (["audi"], "there is no verb 'audi'", "did you mean `audit`?"),
        (["frobnicate"], "there is no verb 'frobnicate'", "the verbs are: "),
        (["schema", "--verbos"], "shiplap schema has no option --verbos", "did you mean `--verbose`?"),
        (["probe", "ok", "--chunksize=3"], "shiplap probe has no option --chunksize", "did you mean `--chunk-size`?"),
        (["schema", "-Z"], "shiplap schema has no option -Z", "`shiplap schema --help` lists the options"),
        (["--jsn"], "shiplap has no option --jsn", "did you mean `--json`?"),
        (["schema", "one"], "unexpected argument 'one'", "`shiplap schema --help` explains the arguments"),
        (["--progress", "fast", "schema"], "argument --progress: invalid choice", "`shiplap --help` explains the arguments"),
        (["-C", "/nonexistent", "schema"], "cannot enter /nonexistent: No such file or directory", "-C names an existing directory"),
    ],
)
def test_mistakes_on_the_command_line_exit_with_2_and_a_suggestion(
    words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    error, advice = shown.err.splitlines()
    assert error.startswith(f"error: {message}")
    assert advice.startswith(f"hint: {hint}")
    assert shown.out == ""


@pytest.mark.parametrize("verb", sorted(verbs.LATER))
def test_verbs_of_later_releases_say_so_whatever_their_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--some-option", "x"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: `shiplap {verb}` is not in this release ({VERSION})"
    assert hint.startswith("hint: ")


def test_no_option_may_be_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--vers"]) == 2
    assert "`--version`" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--version"], ["schema", "--version"], ["probe", "ok", "--version"]])
def test_the_version_is_printed_at_every_place(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == f"shiplap {VERSION}\n"
    assert main(["--json", *words]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "shiplap", "version": VERSION}


def test_help_of_a_verb_has_summary_examples_and_a_short_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: shiplap probe [global options] KIND")
    assert "end in a chosen way" in shown
    assert "examples:\n  shiplap probe ok" in shown
    assert "accepted before and after the verb" in shown


def test_only_the_chosen_verb_is_imported() -> None:
    code = (
        "import sys; from shiplap.cli.main import main; main(['--version']); "
        "print([n for n in ('yaml', 'hashlib', 'shiplap.cli.build', 'shiplap.cli.schema', 'shiplap.core.manifest') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment(), text=True, capture_output=True, check=True)
    assert done.stdout.splitlines() == [f"shiplap {VERSION}", "[]"]


def test_python_m_works_and_a_verb_runs_in_the_folder_of_minus_c(tmp_path: Path) -> None:
    (tmp_path / "shiplap.yaml").write_text(MANIFEST)
    done = shiplap_command("config", "-C", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "ref: docker.io/library/app:1" in done.stdout
    done = shiplap_command("config", cwd=tmp_path / "..")
    assert done.returncode == 2


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")])
def test_an_ending_signal_cleans_up_and_exits_with_130(number: signal.Signals, name: str, tmp_path: Path) -> None:
    left = tmp_path / "left"
    with subprocess.Popen([*PROBE, "probe", "sleep", str(left)], env=environment(), text=True, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "note: sleeping\n"
        process.send_signal(number)
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)  # comes while the first one is being cleaned up after
        assert process.wait(20) == 130
        assert process.stderr.read() == f"error: interrupted ({name})\n"
    assert not left.exists()


def test_a_signal_that_the_caller_ignores_stays_ignored(tmp_path: Path) -> None:
    left = tmp_path / "left"
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *PROBE, "probe", "sleep", str(left)]
    with subprocess.Popen(command, env=environment(), text=True, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == "error: interrupted (SIGINT)\n"


def test_signal_handlers_are_the_callers_again_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    main(["probe", "ctrl-c"])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_main_may_run_outside_the_main_thread(capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["probe", "ok"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert capsys.readouterr().out == "fine\n"


@pytest.mark.parametrize("words", [["schema"], ["schema", "--help"], ["--version"], ["schema", "--json"]])
def test_a_closed_pipe_ends_quietly_with_the_verbs_own_code(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = shiplap_command(*words, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_stdout_is_an_outside_failure() -> None:
    with open("/dev/full", "w") as full:
        done = shiplap_command("schema", stdout=full)
    assert (done.returncode, done.stderr) == (1, "error: cannot write to standard output: No space left on device\n")


def test_arguments_that_are_no_text_are_shown_not_fatal() -> None:
    done = subprocess.run([*COMMAND, "config", "-f", b"caf\xe9.yaml"], env=environment({"LC_ALL": "C"}), capture_output=True, check=False)
    assert done.returncode == 2
    assert b"cannot read the manifest caf\\udce9.yaml" in done.stderr
