"""Progress is an interface; the renderers live in ``cli``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol


class Task(Protocol):
    """One piece of long work."""

    def advance(self, amount_bytes: int) -> None:
        """Say that ``amount_bytes`` more are done."""
        ...


class Progress(Protocol):
    """Where long work reports to. Thread-safe."""

    def task(self, label: str, total_bytes: int | None = None) -> AbstractContextManager[Task]:
        """Begin ``label`` (for example ``layer 3/7 of app:1``); it ends when the context is left."""
        ...

    def note(self, message: str) -> None:
        """A sentence worth keeping: a warning, a decision. Goes to standard error, never to stdout."""
        ...


class _Silent:
    def advance(self, amount_bytes: int) -> None:
        pass

    def task(self, label: str, total_bytes: int | None = None) -> AbstractContextManager[Task]:
        return nullcontext(self)

    def note(self, message: str) -> None:
        pass


SILENT: Progress = _Silent()


class Meter:
    """Counts what passes through write functions into whichever task is under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: Task | None = None

    @contextmanager
    def task(self, label: str, total_bytes: int | None = None) -> Iterator[None]:
        """Until the context ends, written bytes count for this task."""
        with self._progress.task(label, total_bytes) as task:
            self._task = task
            try:
                yield
            finally:
                self._task = None

    def advance(self, amount_bytes: int) -> None:
        """Count ``amount_bytes`` for the task under way."""
        if self._task is not None:
            self._task.advance(amount_bytes)

    def counting(self, write: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """``write``, counted."""

        def counted(data: bytes) -> None:
            write(data)
            self.advance(len(data))

        return counted
