"""Two contents side by side: where they first differ, and what is there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import islice

from shiplap.audit.differences import clipped
from shiplap.core.entries import Content

TEXT_LIMIT_BYTES = 32 << 10
_TEXT_LIMIT_LINES = 400
_DIFF_LINES = 40
_LINE_CHARACTERS = 160
_ROW_BYTES = 16
_ROWS = 3


def first_difference(a: Iterator[bytes], b: Iterator[bytes]) -> int | None:
    """The first byte at which two streams differ (also where one ends), None for equal ones."""
    left = right = b""
    position = 0
    while True:
        if not left:
            left = next(a, b"")
        if not right:
            right = next(b, b"")
        size = min(len(left), len(right))
        if not size:
            return position if left or right else None
        if left[:size] != right[:size]:
            return position + _within(left, right, size)
        position += size
        left, right = left[size:], right[size:]


def _within(left: bytes, right: bytes, size: int) -> int:
    """The first differing byte of two pieces that differ before ``size``: by halves, since pieces are large."""
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def same_content(a: Content, b: Content) -> bool:
    return a.size_bytes == b.size_bytes and first_difference(a.chunks(), b.chunks()) is None


def shown_difference(a: Content, b: Content) -> tuple[str, ...]:
    """Lines that show how two contents differ: a unified diff of small texts, else offset and bytes."""
    if max(a.size_bytes, b.size_bytes) <= TEXT_LIMIT_BYTES:
        texts = [_text_lines(b"".join(content.chunks())) for content in (a, b)]
        if texts[0] is not None and texts[1] is not None:
            return _unified(texts[0], texts[1])
    at = first_difference(a.chunks(), b.chunks())
    return () if at is None else hex_context(at, _around(a, at), _around(b, at))


def hex_context(at: int, a: bytes, b: bytes) -> tuple[str, ...]:
    """``a`` and ``b``: the bytes from the row of byte ``at`` on."""
    start = at - at % _ROW_BYTES
    lines = [f"first difference at byte {at} ({at:#x})"]
    for sign, data in (("-", a), ("+", b)):
        rows = range(0, min(len(data), _ROWS * _ROW_BYTES), _ROW_BYTES)
        lines += [_row(sign, start + row, data[row : row + _ROW_BYTES]) for row in rows] or [f"{sign} (ends here)"]
    return tuple(lines)


def _row(sign: str, offset: int, data: bytes) -> str:
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    return f"{sign} {offset:08x}  {data.hex(' '):<{3 * _ROW_BYTES - 1}}  {text}"


def _around(content: Content, at: int) -> bytes:
    """Some bytes from the row of byte ``at`` on."""
    start = at - at % _ROW_BYTES
    position = 0
    found = b""
    for piece in content.chunks():
        if position + len(piece) > start:
            found += piece[max(0, start - position) :][: _ROWS * _ROW_BYTES - len(found)]
            if len(found) >= _ROWS * _ROW_BYTES:
                break
        position += len(piece)
    return found


def _text_lines(data: bytes) -> list[str] | None:
    """The lines of a small text, None for anything else."""
    if b"\0" in data:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    lines = text.split("\n")
    if len(lines) > _TEXT_LIMIT_LINES:
        return None
    if lines and not lines[-1]:
        lines.pop()
    elif lines:
        lines[-1] += " (no newline at the end)"
    return lines


def _unified(a: list[str], b: list[str]) -> tuple[str, ...]:
    lines = islice(difflib.unified_diff(a, b, lineterm="", n=2), 2, None)  # without the two lines with names
    shown = [clipped(escaped(line), _LINE_CHARACTERS) for line in islice(lines, _DIFF_LINES)]
    if next(lines, None) is not None:
        shown.append("…")
    return tuple(shown)


def escaped(text: str) -> str:
    """``text`` with everything escaped that does not print; tabs stay."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)
