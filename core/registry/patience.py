"""How long is waited, and how often tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from shiplap.core.registry.failures import RegistryFailed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """``attempts`` tries; before the second ``first_wait_seconds``, then each time twice as long, or what the server asks for.

    More than ``longest_wait_seconds`` is not waited: the failure is reported at once. ``connect_seconds``: for one address.
    ``silence_seconds``: without a single byte while an answer is expected, or with fewer than ``least_bytes`` of one.
    ``progress_bytes``: a transfer that moved on by so much before it broke begins to count its tries anew.
    """

    attempts: int = 5
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 60
    connect_seconds: float = 30
    silence_seconds: float = 60
    least_bytes: int = 1 << 10
    progress_bytes: int = 1 << 20

    def persist(self, attempt: Callable[[], T], wait: Callable[[float], object]) -> T:
        """The first success of ``attempt``; raises the last RegistryFailed when tries, or the patience, are over."""
        failed = 0
        while True:
            try:
                return attempt()
            except RegistryFailed as error:
                failed += 1
                wait(self.pause(error, failed))

    def pause(self, error: RegistryFailed, failed: int) -> float:
        """How many seconds to wait after the ``failed``-th failure in a row; raises ``error`` when there is no point."""
        pause = error.wait_seconds if error.wait_seconds is not None else self.first_wait_seconds * (1 << min(failed - 1, 20))
        if not error.may_pass or failed >= self.attempts or pause > self.longest_wait_seconds:
            raise error
        return pause
