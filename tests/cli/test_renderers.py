"""How progress looks, with a clock that the test holds."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import termios
import threading

import pytest
from shiplap.cli.renderers import JsonLines, Plain, Renderer, Terminal, renderer


class Clock:
    """Stands still until it is set forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_shows_share_sizes_rate_and_time_left_in_one_line() -> None:
    stream, clock = io.StringIO(), Clock()
    display = Terminal(stream, clock=clock)
    with display.task("layer 1/2", 100 << 20) as task:
        clock.now += 2
        task.advance(25 << 20)
        drawn = stream.getvalue().split("\r")[-1]
        assert drawn == "layer 1/2:   25%  25.0 MiB of 100.0 MiB  12.5 MiB/s  6.0 s left\x1b[K"
    assert stream.getvalue().endswith("layer 1/2: 25.0 MiB in 2.0 s, 12.5 MiB/s\n")


def test_a_terminal_is_redrawn_at_most_ten_times_a_second() -> None:
    stream, clock = io.StringIO(), Clock()
    display = Terminal(stream, clock=clock)
    with display.task("work", 1000) as task:
        for _ in range(1000):
            clock.now += 0.001
            task.advance(1)
    # One second; the first drawing at its beginning.
    assert stream.getvalue().count("work") <= 11


def test_short_tasks_leave_nothing_on_a_terminal() -> None:
    stream, clock = io.StringIO(), Clock()
    with Terminal(stream, clock=clock).task("blink", 10) as task:
        clock.now += 0.5
        task.advance(10)
    assert stream.getvalue().endswith("\r\x1b[K")
    assert "\n" not in stream.getvalue()


def test_a_note_is_written_above_the_moving_line() -> None:
    stream, clock = io.StringIO(), Clock()
    display = Terminal(stream, clock=clock)
    with display.task("work", 10):
        display.line("note: careful")
    assert "\r\x1b[Knote: careful\n" in stream.getvalue()


def test_a_failed_task_leaves_a_clean_terminal_and_no_summary() -> None:
    stream, clock = io.StringIO(), Clock()
    display = Terminal(stream, clock=clock)
    with pytest.raises(KeyboardInterrupt), display.task("work", 10):
        clock.now += 60
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\r\x1b[K")
    assert " in " not in stream.getvalue()


def test_plain_writes_a_line_at_start_every_five_seconds_and_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with Plain(stream, clock=clock).task("store.squashfs", 12 << 20) as task:
        for _ in range(12):
            clock.now += 1
            task.advance(1 << 20)
    assert stream.getvalue().splitlines() == [
        "store.squashfs (12.0 MiB)",
        "store.squashfs:   42%  5.0 MiB of 12.0 MiB  1.0 MiB/s  7.0 s left",
        "store.squashfs:   83%  10.0 MiB of 12.0 MiB  1.0 MiB/s  2.0 s left",
        "store.squashfs: 12.0 MiB in 12 s, 1.0 MiB/s",
    ]


def test_auto_without_a_terminal_speaks_only_of_tasks_of_two_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    display = Plain(stream, after_seconds=2.0, clock=clock)
    with display.task("short", 10) as task:
        clock.now += 1
        task.advance(10)
    assert stream.getvalue() == ""
    with display.task("long", 10) as task:
        clock.now += 2.5
        task.advance(10)
    assert stream.getvalue().splitlines() == ["long (10 B)", "long: 10 B in 2.5 s, 4 B/s"]


def test_json_lines_tell_start_progress_and_end() -> None:
    stream, clock = io.StringIO(), Clock()
    display = JsonLines(stream, clock=clock)
    with display.task("a", 10) as task:
        clock.now += 1
        task.advance(4)
        task.advance(1)
    with pytest.raises(ValueError, match="x"), display.task("b"):
        raise ValueError("x")
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"event": "task-start", "task": 1, "label": "a", "total_bytes": 10},
        {"event": "task-progress", "task": 1, "done_bytes": 4, "total_bytes": 10},
        {"event": "task-end", "task": 1, "done_bytes": 5, "seconds": 1.0, "ok": True},
        {"event": "task-start", "task": 2, "label": "b", "total_bytes": None},
        {"event": "task-end", "task": 2, "done_bytes": 0, "seconds": 0.0, "ok": False},
    ]


def test_labels_from_hostile_images_are_one_harmless_line() -> None:
    stream = io.StringIO()
    with Plain(stream).task("app\x1b[2J\nerror: forged"):
        pass
    assert stream.getvalue().splitlines()[0] == "app\\x1b[2J error: forged"


def test_work_larger_than_announced_stays_at_a_hundred_percent() -> None:
    stream, clock = io.StringIO(), Clock()
    with Plain(stream, clock=clock).task("w", 10) as task:
        clock.now += 6
        task.advance(30)
    assert "100%" in stream.getvalue()


def test_many_threads_may_advance_many_tasks() -> None:
    stream, clock = io.StringIO(), Clock()
    display = JsonLines(stream, clock=clock)

    def work() -> None:
        for _ in range(50):
            with display.task("t") as task:
                for _ in range(20):
                    task.advance(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends = [event for event in map(json.loads, stream.getvalue().splitlines()) if event["event"] == "task-end"]
    assert len(ends) == 200
    assert all(event["done_bytes"] == 20 for event in ends)


@pytest.mark.parametrize(
    ("word", "machine", "expected"),
    [("auto", False, Plain), ("auto", True, Renderer), ("tty", False, Terminal), ("plain", True, Plain), ("json", False, JsonLines)],
)
def test_each_word_has_its_renderer(word: str, machine: bool, expected: type[Renderer]) -> None:
    assert type(renderer(word, io.StringIO(), machine=machine)) is expected


def test_quiet_shows_no_task_and_an_unknown_word_is_a_bug() -> None:
    stream = io.StringIO()
    with renderer("quiet", stream).task("x", 5) as task:
        task.advance(5)
    assert stream.getvalue() == ""
    with pytest.raises(ValueError, match="loud"):
        renderer("loud", stream)


@pytest.mark.parametrize(("columns", "width"), [(200, 63), (40, 39), (0, 63), (5, 19)])
def test_the_moving_line_never_wraps_and_a_terminal_without_a_size_counts_as_eighty_columns(columns: int, width: int) -> None:
    main, side = pty.openpty()
    try:
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with os.fdopen(os.dup(side), "w") as stream:
            clock = Clock()
            with Terminal(stream, clock=clock).task("layer 1/2", 100 << 20) as task:
                clock.now += 1.5
                task.advance(25 << 20)
                seen = b""
                while seen.count(b"\x1b[K") < 2:  # the terminal delivers in pieces of its own
                    seen += os.read(main, 4096)
    finally:
        os.close(side)
        os.close(main)
    assert len(seen.decode().split("\r")[-1].removesuffix("\x1b[K")) == width
