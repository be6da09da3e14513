"""Sizes, numbers, times and rates as people read them. Never for machine-readable output."""

from __future__ import annotations

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_PLURALS = {"entry": "entries"}


def size_text(size_bytes: float) -> str:
    """``149.3 MiB``: binary units, three to four digits, plain bytes below 1 KiB."""
    if abs(size_bytes) < 1024:
        return f"{size_bytes:.0f} B"
    value = float(size_bytes)
    for unit in _UNITS:
        value /= 1024
        # 1023.96 would print as "1024.0 KiB".
        if abs(value) < 1023.95 or unit == _UNITS[-1]:
            return f"{value:.1f} {unit}"
    raise AssertionError("the last unit takes everything")


def count_text(number: int, noun: str) -> str:
    """``1 image``, ``2 images``; ``noun`` in the singular."""
    return f"{number} {noun if number == 1 else _PLURALS.get(noun, noun + 's')}"


def duration_text(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def rate_text(size_bytes: float, seconds: float) -> str:
    """``71.4 MiB/s``; empty where too little time has passed to say anything."""
    return f"{size_text(size_bytes / seconds)}/s" if seconds >= 0.05 else ""
