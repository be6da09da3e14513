"""Two trees, entry by entry and field by field, in one pass over both: nothing of them is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from shiplap.audit.diffcontent import same_content, shown_difference
from shiplap.audit.differences import Change, Finding, Section, clipped, fields_of
from shiplap.audit.trees import Node, order_key
from shiplap.core.entries import Content, Entry, Kind, printable

Same = Callable[[Content, Content], bool]
Leave = Callable[[bytes], bool]

_DEVICES = (Kind.CHARACTER, Kind.BLOCK)


def compare_nodes(
    a: Iterator[Node],
    b: Iterator[Node],
    section: Section,
    *,
    same: Same = same_content,
    leave_out: Leave = lambda path: False,
    both: Callable[[Node, Node], object] = lambda one, other: None,
) -> int:
    """Add every difference of the two walks to ``section``; returns the number of paths that were looked at.

    ``same``: whether two contents are equal. ``leave_out``: paths that are not to be compared. ``both``: told the
    nodes of every path that is in both. Raises what the walks raise.
    """
    join = _Join(section, same)
    left, right = next(a, None), next(b, None)
    count = 0
    while left is not None or right is not None:
        one = None if left is None else order_key(left.entry.path)
        other = None if right is None else order_key(right.entry.path)
        takes_a = one is not None and (other is None or one <= other)
        takes_b = other is not None and (one is None or other <= one)
        path = left.entry.path if takes_a and left is not None else right.entry.path if right is not None else b""
        if not leave_out(path):
            count += 1
            join.take(left if takes_a else None, right if takes_b else None)
            if takes_a and takes_b and left is not None and right is not None:
                both(left, right)
        if takes_a:
            left = next(a, None)
        if takes_b:
            right = next(b, None)
    join.flush()
    return count


@dataclass(slots=True)
class _Lonely:
    """An entry that only one side has, with what is below it."""

    path: bytes
    side: str
    kind: Kind
    entries: int = 0
    content_bytes: int = 0


class _Join:
    def __init__(self, section: Section, same: Same) -> None:
        self._section = section
        self._same = same
        self._lonely: dict[str, _Lonely] = {}

    def take(self, a: Node | None, b: Node | None) -> None:
        if a is not None and b is not None:
            self.flush()
            self._compare(a, b)
        elif a is not None:
            self._alone("A", a)
        elif b is not None:
            self._alone("B", b)

    def flush(self) -> None:
        for lonely in self._lonely.values():
            self._section.add(
                Finding(
                    shown_path(lonely.path),
                    f"only in {lonely.side}",
                    kind=lonely.kind.value,
                    entries=lonely.entries,
                    content_bytes=lonely.content_bytes,
                )
            )
        self._lonely.clear()

    def _alone(self, side: str, node: Node) -> None:
        entry = node.entry
        lonely = self._lonely.get(side)
        if lonely is None or not entry.path.startswith(lonely.path + b"/"):
            self.flush()
            lonely = self._lonely[side] = _Lonely(entry.path, side, entry.kind)
        lonely.entries += 1
        if entry.content is not None and node.first == entry.path:
            lonely.content_bytes += entry.content.size_bytes

    def _compare(self, a: Node, b: Node) -> None:
        one, other = a.entry, b.entry
        firsts = tuple(node.first if node.first != node.entry.path else None for node in (a, b))
        if firsts[0] is not None and firsts[0] == firsts[1]:
            return  # the inode has been compared under its first name
        changes = list(entry_changes(one, other))
        if firsts[0] != firsts[1]:
            changes.append(Change("hard link", *(None if first is None else shown_path(first) for first in firsts)))
        detail: tuple[str, ...] = ()
        if one.content is not None and other.content is not None:
            sizes = one.content.size_bytes, other.content.size_bytes
            changes += fields_of([("size", *sizes)])
            if sizes[0] != sizes[1] or not self._same(one.content, other.content):
                changes.append(Change("content", None, None))
                if self._section.has_room:
                    detail = shown_difference(one.content, other.content)
        if changes:
            self._section.add(Finding(shown_path(one.path), changes=tuple(changes), detail=detail))


def entry_changes(a: Entry, b: Entry) -> Iterator[Change]:
    """Every field of two entries that differs, except content and hard links.

    Decided by the values themselves: two names that look alike when they are printed are still two names.
    """
    if a.kind is not b.kind:
        yield Change("type", a.kind.value, b.kind.value)
    if a.mode != b.mode:
        yield Change("mode", f"{a.mode:04o}", f"{b.mode:04o}")
    yield from fields_of((("uid", a.uid, b.uid), ("gid", a.gid, b.gid)))
    if (a.mtime_epoch, a.mtime_nanoseconds) != (b.mtime_epoch, b.mtime_nanoseconds):
        yield Change("mtime", *(time_text(entry.mtime_epoch, entry.mtime_nanoseconds) for entry in (a, b)))
    if a.device != b.device or (a.kind is not b.kind and (a.kind in _DEVICES or b.kind in _DEVICES)):
        yield Change("device", _device_text(a), _device_text(b))
    if a.link != b.link:
        yield Change("link target", *(shown(entry.link) if entry.link else None for entry in (a, b)))
    if a.xattrs != b.xattrs:
        one, other = dict(a.xattrs), dict(b.xattrs)
        for name in sorted(one.keys() | other.keys()):
            if one.get(name) != other.get(name):
                yield Change(f"xattr {shown(name)}", *(None if name not in has else shown_value(has[name]) for has in (one, other)))


def _device_text(entry: Entry) -> str | None:
    return f"{entry.device[0]}:{entry.device[1]}" if entry.kind in _DEVICES else None


def shown_path(path: bytes) -> str:
    return printable(path) or "/"


def shown(name: bytes) -> str:
    return clipped(printable(name[:5000]))


def shown_value(value: bytes) -> str:
    """An extended attribute: as text where it is one, else in hex."""
    text = value.decode("ascii", "replace")
    return clipped(f'"{text}"' if text.isascii() and text.isprintable() else f"0x{value.hex()}")


@lru_cache(maxsize=1024)
def time_text(epoch: int, nanoseconds: int) -> str:
    """Seconds since 1970, and what they mean."""
    fraction = f".{nanoseconds:09d}" if nanoseconds else ""
    try:
        meaning = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    except (OverflowError, ValueError, OSError):
        return f"{epoch}{fraction}"
    return f"{epoch}{fraction} ({meaning})"
