"""Signals that end the program become exceptions, so that every context manager on the way out runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A closed terminal, Ctrl-C, and what `kill`, `timeout`, cron and CI systems send.
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

# The clean-up after the first signal is short; whoever insists three times wants out.
_INSISTED = 3


class Interrupted(KeyboardInterrupt):
    """One of the ending signals came in."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.name = signal.Signals(number).name


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise Interrupted in the main thread at the first signal; ignore the second, it would interrupt the clean-up.

    `timeout`, `make` and terminals often send two at once. A signal that the caller had set to be ignored
    (``nohup``) stays ignored. Outside the main thread nothing is changed: Python allows handlers only there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1 or count >= _INSISTED:
            raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        for number, old in before.items():
            if old is not signal.SIG_IGN:
                signal.signal(number, handle)
        yield
    finally:
        for number, old in before.items():
            if old is not None:  # None: set by something that is not Python
                signal.signal(number, old)
