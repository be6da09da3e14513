"""The window over a file reads what a plain slice of its bytes would give."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from memorytar import as_file
from shiplap.core.entries import FileSlice
from shiplap.core.tar.window import WINDOW_BYTES, Window

SIZE = 3 * WINDOW_BYTES + 700
DATA = bytes(value % 251 for value in range(SIZE))
# Around the borders of windows, and anywhere.
OFFSETS = st.one_of(
    st.integers(0, SIZE + 600), st.sampled_from([0, 512, WINDOW_BYTES - 1, WINDOW_BYTES, WINDOW_BYTES + 512, SIZE - 1, SIZE])
)
COUNTS = st.one_of(st.integers(0, 2000), st.sampled_from([WINDOW_BYTES, WINDOW_BYTES + 1, 2 * WINDOW_BYTES, SIZE]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(OFFSETS, COUNTS), min_size=1, max_size=30))
def test_any_sequence_of_reads_gives_the_file_s_bytes(reads: list[tuple[int, int]]) -> None:
    with as_file(DATA, offset=513) as file:
        window = Window(file)
        for offset, count in reads:
            assert window.read(offset, count) == DATA[offset : offset + count]


def test_a_window_ends_where_its_slice_does() -> None:
    with as_file(DATA) as file:
        window = Window(FileSlice(file.descriptor, 100, 50))
        assert window.size_bytes == 50
        assert window.read(0, 1000) == DATA[100:150]
        assert window.read(49, 2) == DATA[149:150]
        assert window.read(50, 1) == window.read(5000, 1) == b""


def test_a_file_that_became_shorter_is_a_short_read() -> None:
    with as_file(DATA) as file:
        window = Window(FileSlice(file.descriptor, 0, 2 * SIZE))
        assert window.read(SIZE - 10, 100) == DATA[-10:]
        assert window.read(SIZE + 10, WINDOW_BYTES + 1) == b""
