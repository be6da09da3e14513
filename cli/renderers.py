"""How progress looks: one renderer per ``--progress`` word, all on standard error.

Clocks are welcome here and nowhere deeper: what a renderer measures is shown and thrown away.
Renderers are driven by ``Task.advance`` alone. There is no thread of their own, so a task that says
nothing for a while is simply not redrawn.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal, TextIO

from shiplap.cli.quantities import duration_text, rate_text, size_text
from shiplap.core.progress import Task

WORDS = ("auto", "tty", "plain", "json", "quiet")

_REDRAW_SECONDS = 0.1
_PLAIN_SECONDS = 5.0
_JSON_SECONDS = 0.5
# A task shorter than this leaves no line behind on a terminal, and with `auto` none in a log either.
_WORTH_A_LINE_SECONDS = 2.0


def safe_text(text: str) -> str:
    """``text`` with control characters escaped, except newline and tab: names in images are hostile, terminals obey."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


class RunningTask:
    """The handle a worker advances; also the context that ends the task."""

    __slots__ = ("_renderer", "done_bytes", "drawn_at", "label", "number", "shown", "started_at", "total_bytes")

    def __init__(self, renderer: Renderer, number: int, label: str, total_bytes: int | None, now: float) -> None:
        self._renderer = renderer
        self.number = number
        self.label = safe_text(label).replace("\n", " ")
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self.started_at = now
        self.drawn_at = now
        self.shown = False

    def advance(self, amount_bytes: int) -> None:
        self._renderer.advanced(self, amount_bytes)

    def __enter__(self) -> RunningTask:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> Literal[False]:
        self._renderer.ended(self, failed=kind is not None)
        return False

    def summary(self, now: float) -> str:
        """The finished task in one line."""
        seconds = now - self.started_at
        if not self.done_bytes:
            return f"{self.label}: {duration_text(seconds)}"
        rate = rate_text(self.done_bytes, seconds)
        return f"{self.label}: {size_text(self.done_bytes)} in {duration_text(seconds)}" + (f", {rate}" if rate else "")

    def state(self, now: float) -> str:
        """The running task in one line: how much, how fast, how long still."""
        seconds = now - self.started_at
        parts = [self.label + ":", size_text(self.done_bytes)]
        if self.total_bytes:
            # Work may turn out larger than announced; 100 % of what it is by now is the honest end of that.
            total_bytes = max(self.total_bytes, self.done_bytes)
            share = self.done_bytes / total_bytes
            parts = [self.label + ":", f"{share:4.0%}", f"{size_text(self.done_bytes)} of {size_text(total_bytes)}"]
        if rate := rate_text(self.done_bytes, seconds):
            parts.append(rate)
        if self.total_bytes and self.done_bytes and seconds >= 1.0:
            left = max(self.total_bytes - self.done_bytes, 0) * seconds / self.done_bytes
            parts.append(f"{duration_text(left)} left")
        return "  ".join(parts)


class Renderer:
    """Base of all renderers, and the quiet one: tasks are not shown, whole lines are."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        # Re-entrant: a signal may arrive while the lock is held, and its cleanup may report as well.
        self._lock = threading.RLock()
        self._running: list[RunningTask] = []
        self._count = 0
        self._dead = False

    def task(self, label: str, total_bytes: int | None = None) -> AbstractContextManager[Task]:
        """See :class:`shiplap.core.progress.Progress`."""
        with self._lock:
            self._count += 1
            now = self._clock()
            task = RunningTask(self, self._count, label, total_bytes, now)
            self._running.append(task)
            self._draw_start(task)
        return task

    def advanced(self, task: RunningTask, amount_bytes: int) -> None:
        with self._lock:
            task.done_bytes += amount_bytes
            self._draw_state(task, self._clock())

    def ended(self, task: RunningTask, *, failed: bool) -> None:
        with self._lock:
            if task in self._running:
                self._running.remove(task)
                self._draw_end(task, self._clock(), failed=failed)

    def line(self, text: str) -> None:
        """Write ``text`` as whole lines, around whatever is being drawn."""
        with self._lock:
            self._write(text + "\n")

    def close(self) -> None:
        """Leave the terminal as it was."""

    def _draw_start(self, task: RunningTask) -> None:
        pass

    def _draw_state(self, task: RunningTask, now: float) -> None:
        pass

    def _draw_end(self, task: RunningTask, now: float, *, failed: bool) -> None:
        pass

    def _write(self, text: str) -> None:
        # Nobody reads: the work goes on, its exit code and its files still count.
        if self._dead:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._dead = True


class Terminal(Renderer):
    """One line at the bottom, redrawn at most ten times a second; long tasks leave their summary."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock=clock)
        self._drawn_at = float("-inf")
        self._visible = False

    def line(self, text: str) -> None:
        with self._lock:
            self._clear()
            self._write(text + "\n")

    def close(self) -> None:
        with self._lock:
            self._clear()

    def _draw_start(self, task: RunningTask) -> None:
        self._draw_state(task, task.started_at)

    def _draw_state(self, task: RunningTask, now: float) -> None:
        if now - self._drawn_at < _REDRAW_SECONDS:
            return
        self._drawn_at = now
        # The oldest task is the one that everything waits for.
        text = self._running[0].state(now) if self._running else task.state(now)
        if len(self._running) > 1:
            text += f"  (+{len(self._running) - 1} more)"
        self._write("\r" + text[: self._columns() - 1] + "\x1b[K")
        self._visible = True

    def _draw_end(self, task: RunningTask, now: float, *, failed: bool) -> None:
        if now - task.started_at >= _WORTH_A_LINE_SECONDS and not failed:
            self.line(task.summary(now))
        elif not self._running:
            self._clear()

    def _clear(self) -> None:
        if self._visible:
            self._write("\r\x1b[K")
            self._visible = False
            self._drawn_at = float("-inf")

    def _columns(self) -> int:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        return max(columns, 20) if columns else 80  # a serial line or a CI system's terminal says 0


class Plain(Renderer):
    """Lines for logs: at the start, every few seconds and at the end of each task that lasts ``after_seconds``."""

    def __init__(self, stream: TextIO, *, after_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock=clock)
        self._after_seconds = after_seconds

    def _draw_start(self, task: RunningTask) -> None:
        if self._after_seconds <= 0:
            self._announce(task)

    def _announce(self, task: RunningTask) -> None:
        task.shown = True
        self.line(task.label + (f" ({size_text(task.total_bytes)})" if task.total_bytes else ""))

    def _draw_state(self, task: RunningTask, now: float) -> None:
        if not task.shown:
            if now - task.started_at >= self._after_seconds:
                task.drawn_at = now
                self._announce(task)
        elif now - task.drawn_at >= _PLAIN_SECONDS:
            task.drawn_at = now
            self.line(task.state(now))

    def _draw_end(self, task: RunningTask, now: float, *, failed: bool) -> None:
        if not failed and (task.shown or now - task.started_at >= self._after_seconds):
            self.line(task.summary(now))


class JsonLines(Renderer):
    """One JSON object per line, for programs; the fields are documented in docs/machine-output.md."""

    def _event(self, event: str, **fields: object) -> None:
        self.line(json.dumps({"event": event, **fields}, sort_keys=True))

    def _draw_start(self, task: RunningTask) -> None:
        self._event("task-start", task=task.number, label=task.label, total_bytes=task.total_bytes)

    def _draw_state(self, task: RunningTask, now: float) -> None:
        if now - task.drawn_at >= _JSON_SECONDS:
            task.drawn_at = now
            self._event("task-progress", task=task.number, done_bytes=task.done_bytes, total_bytes=task.total_bytes)

    def _draw_end(self, task: RunningTask, now: float, *, failed: bool) -> None:
        seconds = round(now - task.started_at, 3)
        self._event("task-end", task=task.number, done_bytes=task.done_bytes, seconds=seconds, ok=not failed)


def is_terminal(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that understands cursor movement."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:
        return False


def renderer(word: str, stream: TextIO, *, machine: bool = False) -> Renderer:
    """The renderer for one word of ``WORDS``.

    ``auto`` draws on a terminal. Elsewhere it writes lines for tasks of two seconds and more, or nothing
    when ``machine`` says that a program reads standard error (``--json``).
    """
    if word == "auto":
        if is_terminal(stream):
            return Terminal(stream)
        return Renderer(stream) if machine else Plain(stream, after_seconds=_WORTH_A_LINE_SECONDS)
    if word == "tty":
        return Terminal(stream)
    if word == "plain":
        return Plain(stream)
    if word == "json":
        return JsonLines(stream)
    if word == "quiet":
        return Renderer(stream)
    raise ValueError(f"unknown progress word {word!r}")
