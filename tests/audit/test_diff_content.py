"""Contents side by side."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from shiplap.audit.diffcontent import first_difference, shown_difference
from shiplap.core.entries import Bytes


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 200), st.integers(1, 70), st.integers(1, 70))
def test_the_first_difference_does_not_depend_on_how_the_bytes_come(common: bytes, rest: bytes, cut: int, one: int, other: int) -> None:
    a, b = common + rest, common[:cut] + rest
    expected = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None if len(a) == len(b) else min(len(a), len(b)))
    assert first_difference(iter(pieces(a, one)), iter(pieces(b, other))) == expected


@given(st.binary(min_size=1, max_size=300), st.data(), st.integers(1, 70))
def test_one_flipped_bit_is_found_where_it_is(content: bytes, data: st.DataObject, size: int) -> None:
    at = data.draw(st.integers(0, len(content) - 1))
    other = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    assert first_difference(iter(pieces(content, size)), iter([other])) == at


def test_a_text_that_only_lost_its_last_newline_is_shown_so() -> None:
    assert shown_difference(Bytes(b"a\n"), Bytes(b"a")) == ("@@ -1 +1 @@", "-a", "+a (no newline at the end)")


def test_control_characters_of_a_text_are_escaped() -> None:
    lines = shown_difference(Bytes(b"a\x1b[2J\n"), Bytes("b\u202e\n".encode()))
    assert lines[1:] == ("-a\\x1b[2J", "+b\\u202e")


def test_a_content_that_ends_is_shown_to_end() -> None:
    lines = shown_difference(Bytes(b"\0" * 32), Bytes(b"\0" * 16))
    assert lines[0].startswith("first difference at byte 16") and lines[-1] == "+ (ends here)"


def test_long_lines_and_long_differences_are_cut() -> None:
    many = b"".join(b"%d\n" % number for number in range(300))
    lines = shown_difference(Bytes(many), Bytes(many.replace(b"\n", b"x\n")))
    assert len(lines) == 41 and lines[-1] == "…"
    (_, line, _) = shown_difference(Bytes(b"x" * 5000 + b"\n"), Bytes(b"y\n"))
    assert len(line) < 200 and line.endswith("(5001 characters)")
