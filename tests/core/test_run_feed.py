"""Feeding a program: its failures are its own, and nothing that it did not read goes unnoticed."""

from __future__ import annotations

import os
import signal
import time

import pytest
from shiplap.core.errors import OutsideFailure
from shiplap.core.run import feed


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_what_is_written_arrives() -> None:
    with feed(sh("test $(wc -c) = 300000")) as pipe:
        pipe.write(bytes(100_000))
        pipe.write(bytes(200_000))


def test_a_failing_program_is_quoted() -> None:
    with pytest.raises(OutsideFailure, match="sh failed with exit code 3: no room"), feed(sh("cat >/dev/null; echo no room >&2; exit 3")):
        pass


def test_a_program_that_dies_while_it_is_fed_surfaces_as_its_own_failure() -> None:
    with pytest.raises(OutsideFailure, match="sh failed with exit code 4: gone"), feed(sh("echo gone; exit 4")) as pipe:
        while True:
            pipe.write(bytes(100_000))


def test_a_program_that_ends_well_without_reading_everything_is_a_failure() -> None:
    with pytest.raises(OutsideFailure, match="sh ended before it had read everything"), feed(sh("exit 0")) as pipe:
        while True:
            pipe.write(bytes(100_000))


def test_a_broken_pipe_of_somebody_else_neither_hangs_nor_passes_for_success() -> None:
    begin = time.monotonic()
    with pytest.raises(OutsideFailure, match="cat ended before it had read everything"), feed(["cat"]):
        raise BrokenPipeError
    assert time.monotonic() - begin < 10


def test_a_warning_counts_when_silence_was_asked_for() -> None:
    with feed(sh("cat >/dev/null; echo skipping entry >&2")):
        pass
    with pytest.raises(OutsideFailure, match="sh warned: skipping entry"), feed(sh("cat >/dev/null; echo skipping entry >&2"), silent=True):
        pass
    with feed(sh("cat >/dev/null; echo"), silent=True):
        pass


def test_when_the_body_fails_the_program_is_killed_and_the_error_goes_on() -> None:
    with pytest.raises(KeyboardInterrupt), feed(sh("sleep 60")):
        raise KeyboardInterrupt


def test_a_killed_program_names_the_signal() -> None:
    with pytest.raises(OutsideFailure, match=f"was ended by signal {int(signal.SIGTERM)}"), feed(sh("kill -TERM $$; sleep 9")):
        pass


def test_the_environment_is_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert os.environ["TZ"] == "Asia/Tokyo"
    with feed(sh('test -z "$SOURCE_DATE_EPOCH" && test "$LC_ALL $TZ" = "C UTC"')):
        pass
