"""One link of the chain: an entry of a store held against what it should be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeAlias

from shiplap.core.entries import Content, Entry, Kind, printable
from shiplap.core.errors import Difference

SameContent: TypeAlias = Callable[[Content, Content, bytes], bool]


class BrokenLink(Difference):
    """A link of the chain does not hold."""


def require_same(wanted: Entry, stored: Entry | None, where: str, same_content: SameContent) -> None:
    """Raise BrokenLink unless ``stored`` is ``wanted`` in every field. ``same_content(wanted, stored, path)``: of regular files."""

    def named() -> str:
        return f"'{printable(wanted.path) or '/'}'"

    if stored is None:
        raise BrokenLink(f"{where}: {named()} is missing")
    for field in ("kind", "uid", "gid", "mtime_epoch", "mtime_nanoseconds", "link", "device", "mode", "xattrs"):
        if wanted.kind is Kind.HARDLINK and field == "xattrs":
            continue  # they belong to the first name
        one, other = getattr(wanted, field), getattr(stored, field)
        if one != other:
            raise BrokenLink(f"{where}: {named()} has {field.replace('_', ' ')} {_shown(other)}, it should have {_shown(one)}")
    if wanted.kind is Kind.REGULAR:
        assert wanted.content is not None
        if stored.content is None or not same_content(wanted.content, stored.content, wanted.path):
            raise BrokenLink(f"{where}: {named()} has another content")


def _shown(value: Any) -> str:
    if isinstance(value, Kind):
        return value.value
    if isinstance(value, bytes):
        return f"'{printable(value)}'"
    return str(value)


def equal_content(one: Content, other: Content) -> bool:
    """Whether two contents have the same bytes; both are read."""
    if one.size_bytes != other.size_bytes:
        return False
    left, right = hashlib.sha256(), hashlib.sha256()
    for piece in one.chunks():
        left.update(piece)
    for piece in other.chunks():
        right.update(piece)
    return left.digest() == right.digest()
