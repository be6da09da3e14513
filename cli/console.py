"""What a verb may print, and where it goes.

Results go to standard output, once, as text or (``--json``) as one JSON object. Everything else goes to
standard error: progress, notes and errors. Verbs get a :class:`Console` and never touch ``sys.stdout``.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TextIO

from shiplap.cli.renderers import JsonLines, Renderer, is_terminal, renderer, safe_text
from shiplap.core.errors import OutsideFailure
from shiplap.core.progress import Progress, Task

COLOR_WORDS = ("auto", "always", "never")

_STYLES = {"error": "1;31", "hint": "36", "note": "33"}


class OutputFailure(OutsideFailure):
    """Standard output cannot be written."""


class Console:
    """Where one run of the program prints.

    ``json``: results, notes and errors are JSON. ``verbose``: -1 with ``-q`` (no notes, no progress),
    0, 1 with ``-v``, 2 with ``-vv``. ``progress``: what long work reports to; its notes come here.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        verbose: int = 0,
        color: str = "auto",
        progress: str = "auto",
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.json = json
        self.verbose = verbose
        # Python sets a standard stream to None when its descriptor is closed: then nobody wants to read it.
        self._stdout: TextIO = stdout or sys.stdout or io.StringIO()
        self._stderr: TextIO = stderr or sys.stderr or io.StringIO()
        word = "quiet" if verbose < 0 and progress == "auto" else progress
        self._renderer = renderer(word, self._stderr, machine=json)
        self._machine_notes = json or isinstance(self._renderer, JsonLines)
        self._colored = _wants_color(color, self._stderr)
        self.progress: Progress = _Reporter(self, self._renderer)

    def result(self, data: Mapping[str, object], text: str) -> None:
        """Print the result of a verb: ``data`` as one JSON object with sorted keys, or ``text``.

        Control characters of ``text`` are escaped, except newline and tab. A reader that has gone away is no
        error: the verb's own exit code still says what it found. Raises OutputFailure when the disk is full.
        """
        self._renderer.close()
        shown = json.dumps(data, sort_keys=True, indent=2, allow_nan=False) if self.json else safe_text(text)
        try:
            self._stdout.write(shown if shown.endswith("\n") else shown + "\n")
            self._stdout.flush()
        except OSError as error:
            _discard(self._stdout)
            if error.errno != errno.EPIPE:
                raise OutputFailure(f"cannot write to standard output: {error.strerror}") from error

    def raw(self) -> Callable[[bytes], object]:
        """A write function for a result of bytes, instead of :meth:`result`; standard output has to be no terminal.

        Raises OutputFailure: for a terminal, and from each write that fails, also when the reader has gone away.
        """
        self._renderer.close()
        if is_terminal(self._stdout):
            raise OutputFailure("bytes cannot be shown on a terminal", hint="write them to a file with -o, or into a pipe")
        binary = getattr(self._stdout, "buffer", None)
        if binary is None:
            raise OutputFailure("standard output takes no bytes")

        def write(data: bytes) -> None:
            try:
                binary.write(data)
                if not data:
                    binary.flush()
            except OSError as error:
                _discard(self._stdout)
                raise OutputFailure(f"cannot write to standard output: {error.strerror}") from error

        return write

    def note(self, message: str) -> None:
        """A sentence worth keeping: a warning, a decision. Silent with ``-q``."""
        if self.verbose >= 0:
            self._say("note", message)

    def detail(self, message: str) -> None:
        """Something for the curious: shown with ``-v``."""
        if self.verbose >= 1:
            self._say("note", message)

    def error(self, message: str, *, hint: str | None, exit_code: int, extra: Mapping[str, object] | None = None) -> None:
        """Say why the run ends. Only ``cli.main`` calls it; verbs raise."""
        self._renderer.close()
        if self.json:
            body = {"message": message, "hint": hint, "exit": exit_code, **(extra or {})}
            self._renderer.line(json.dumps({"error": body}, sort_keys=True))
            return
        self._renderer.line(self._labelled("error", message))
        if hint:
            self._renderer.line(self._labelled("hint", hint))

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._renderer.close()

    def _say(self, kind: str, message: str) -> None:
        if self._machine_notes:
            self._renderer.line(json.dumps({"event": kind, "message": message}, sort_keys=True))
        else:
            self._renderer.line(self._labelled(kind, message))

    def _labelled(self, kind: str, message: str) -> str:
        label = f"\x1b[{_STYLES[kind]}m{kind}:\x1b[0m" if self._colored else f"{kind}:"
        return f"{label} {safe_text(message)}"


class _Reporter:
    """The console's Progress: tasks to the renderer, notes to the console."""

    def __init__(self, console: Console, target: Renderer) -> None:
        self._console = console
        self._target = target

    def task(self, label: str, total_bytes: int | None = None) -> AbstractContextManager[Task]:
        return self._target.task(label, total_bytes)

    def note(self, message: str) -> None:
        self._console.note(message)


def _wants_color(word: str, stream: TextIO) -> bool:
    if word == "auto":
        # https://no-color.org: any non-empty value means no; the flag is stronger than the variable.
        return not os.environ.get("NO_COLOR") and is_terminal(stream)
    return word == "always"


def _discard(stream: TextIO) -> None:
    """Let what is still buffered for ``stream`` go nowhere.

    The interpreter flushes it once more at its end, and exits with 120 when that fails.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
    finally:
        os.close(nowhere)
