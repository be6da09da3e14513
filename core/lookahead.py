"""Work that begins before its turn: items keep their order, and so do errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def begun_early(items: Iterable[T], begin: Callable[[T], bool], *, cost: Callable[[T], int], room: int) -> Iterator[T]:
    """``items`` in their order, each after ``begin`` was called for it and, where there was room, for later ones.

    ``begin`` returns False when it has no room at the moment; it is then asked again later, and an item may come
    without having begun. Items of a ``cost`` of ``room`` together, or one more expensive one, are held at the same
    time. What ``items`` raises comes when the items before it are through.
    """
    source = iter(items)
    waiting: deque[tuple[T, int]] = deque()
    held = begun = 0
    failure: Exception | None = None
    more = True
    while True:
        while more and held < room:
            try:
                item = next(source)
            except StopIteration:
                more = False
            except Exception as error:  # noqa: BLE001 - raised below, at its place
                more, failure = False, error
            else:
                price = cost(item)
                waiting.append((item, price))
                held += price
        while begun < len(waiting) and begin(waiting[begun][0]):
            begun += 1
        if not waiting:
            break
        item, price = waiting.popleft()
        held -= price
        if begun:
            begun -= 1
        yield item
    if failure is not None:
        raise failure
