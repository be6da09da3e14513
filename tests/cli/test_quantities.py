"""Sizes, times and rates for people."""

from __future__ import annotations

import pytest
from shiplap.cli.quantities import count_text, duration_text, rate_text, size_text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (149_300_000, "142.4 MiB"),
        (16 << 30, "16.0 GiB"),
        (1 << 60, "1024.0 PiB"),
    ],
)
def test_sizes_use_binary_units_and_never_show_1024_of_one(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


def test_one_is_singular() -> None:
    assert [count_text(number, "layer") for number in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]
    assert [count_text(number, "entry") for number in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (-1, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations_get_coarser_as_they_grow(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_rate_needs_some_time_to_mean_anything() -> None:
    assert rate_text(1 << 20, 0.5) == "2.0 MiB/s"
    assert rate_text(1 << 20, 0.0) == ""
