"""Work that begins before its turn keeps order, bounds and errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from shiplap.core.lookahead import begun_early


def test_items_come_in_order_and_later_ones_have_begun() -> None:
    begun: list[int] = []

    def begin(item: int) -> bool:
        begun.append(item)
        return True

    seen = []
    for item in begun_early(range(10), begin, cost=lambda _: 1, room=3):
        seen.append(item)
        assert begun[-1] == min(9, item + 2)
    assert seen == begun == list(range(10))


def test_what_has_no_room_is_asked_again_and_comes_nevertheless() -> None:
    asked: list[int] = []

    def begin(item: int) -> bool:
        asked.append(item)
        return False

    assert list(begun_early([1, 2, 3], begin, cost=lambda _: 1, room=2)) == [1, 2, 3]
    assert asked == [1, 2, 3]


def test_no_more_is_held_than_there_is_room_for() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for cost in (5, 1, 100, 1, 1, 1):
            taken += 1
            yield cost

    early = begun_early(items(), lambda _: True, cost=lambda item: item, room=6)
    assert [next(early), taken] == [5, 2]
    assert [next(early), taken] == [1, 3], "one expensive item more than there is room for"
    assert list(early) == [100, 1, 1, 1]


def test_an_error_comes_when_the_items_before_it_are_through() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    seen = []
    with pytest.raises(ValueError, match="the third"):
        for item in begun_early(items(), lambda _: True, cost=lambda _: 1, room=100):
            seen.append(item)  # noqa: PERF402 - what came before the error counts
    assert seen == [1, 2]
