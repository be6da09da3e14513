"""The meter counts what is written into the task that is under way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from shiplap.core.progress import SILENT, Meter, Task


class Recorded:
    """A Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int | None, list[int]]] = []
        self.open = 0

    def task(self, label: str, total_bytes: int | None = None) -> AbstractContextManager[Task]:
        return self._task(label, total_bytes)

    @contextmanager
    def _task(self, label: str, total_bytes: int | None) -> Iterator[Task]:
        counted: list[int] = []
        self.tasks.append((label, total_bytes, counted))
        self.open += 1

        class _Task:
            def advance(self, amount_bytes: int) -> None:
                counted.append(amount_bytes)

        try:
            yield _Task()
        finally:
            self.open -= 1

    def note(self, message: str) -> None:
        raise AssertionError(message)


def test_written_bytes_count_for_the_task_under_way_and_for_none_outside() -> None:
    progress, written = Recorded(), list[bytes]()
    meter = Meter(progress)
    write = meter.counting(written.append)
    write(b"before")
    with meter.task("one", 5):
        write(b"12345")
        write(b"")
    write(b"between")
    with meter.task("two"):
        write(b"123")
    assert progress.tasks == [("one", 5, [5, 0]), ("two", None, [3])]
    assert b"".join(written) == b"before12345between123"


def test_a_task_ends_when_its_work_fails() -> None:
    progress = Recorded()
    meter = Meter(progress)
    with pytest.raises(OSError, match="full"), meter.task("one"):
        raise OSError("full")
    meter.counting(lambda data: None)(b"after")
    assert (progress.tasks, progress.open) == ([("one", None, [])], 0)


def test_what_cannot_be_written_is_not_counted() -> None:
    progress = Recorded()
    meter = Meter(progress)

    def full(data: bytes) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), meter.task("one"):
        meter.counting(full)(b"123")
    assert progress.tasks == [("one", None, [])]


def test_silence_takes_everything() -> None:
    with SILENT.task("one", 5) as task:
        task.advance(5)
    SILENT.note("a note")
