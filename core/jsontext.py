"""The one place that reads foreign JSON.

The engines parse with Go's ``encoding/json``, and an image must mean to us what it means to them.
Go takes the last of two equal keys, merges objects that occur twice, and matches keys without regard
to case; Python does none of the last two. So: of equal keys the last one counts, a repeated key that
holds an object is refused, and a key we read that is spelled in another case is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from shiplap.core.errors import Refused

JsonObject = dict[str, Any]

# The decoder recurses; how deep it gets before RecursionError differs between Python versions.
MAX_DEPTH = 128
# A string's closing quote is optional, so that one without it is not searched for again and again.
_NESTING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)
_MAX_INTEGER = (1 << 63) - 1

_SHOWN = 160

T = TypeVar("T")


class JsonInvalid(Refused):
    """A document that is not the JSON it should be."""


def shown(text: str) -> str:
    """A foreign text for a message: control characters and surrogates escaped, and not longer than a message bears."""
    clipped = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return clipped if clipped.isprintable() else ascii(clipped)[1:-1]


def parse_object(raw: bytes, *, what: str, limit_bytes: int) -> JsonObject:
    """Parse ``raw`` as one JSON object; ``what`` names it in the message. Raises JsonInvalid."""
    value = _parse(raw, what, limit_bytes)
    if not isinstance(value, dict):
        raise JsonInvalid(f"{what} holds {_kind(value)} where an object is expected")
    return value


def parse_array(raw: bytes, *, what: str, limit_bytes: int) -> list[Any]:
    """Parse ``raw`` as one JSON array. Raises JsonInvalid."""
    value = _parse(raw, what, limit_bytes)
    if not isinstance(value, list):
        raise JsonInvalid(f"{what} holds {_kind(value)} where an array is expected")
    return value


def member(holder: JsonObject, key: str, kind: type[T], *, what: str) -> T | None:
    """``holder[key]`` when it is a ``kind``, None when it is absent or null.

    Raises JsonInvalid for another type, for a negative or over-large integer and for a key that
    differs from ``key`` only in case, which the engines would take for it.
    """
    for other in holder:
        if other != key and other.casefold() == key.casefold():
            raise JsonInvalid(f"{what} has the key '{shown(other)}', which engines read as {key!r}")
    value = holder.get(key)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise JsonInvalid(f"{key!r} of {what} is {_kind(value)} where {_NAMES[kind]} is expected")
    if kind is int and not 0 <= value <= _MAX_INTEGER:  # type: ignore[operator]
        raise JsonInvalid(f"{key!r} of {what} is out of range")
    return value


def required(holder: JsonObject, key: str, kind: type[T], *, what: str) -> T:
    """Like :func:`member`, and absence is an error too."""
    value = member(holder, key, kind, what=what)
    if value is None:
        raise JsonInvalid(f"{what} has no {key!r}")
    return value


def elements(values: Iterable[Any], kind: type[T], *, what: str) -> list[T]:
    """All ``values`` when each is a ``kind``; raises JsonInvalid."""
    checked: list[T] = list(values)
    for value in checked:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise JsonInvalid(f"{what} holds {_kind(value)} where {_NAMES[kind]} is expected")
    return checked


def _parse(raw: bytes, what: str, limit_bytes: int) -> Any:
    if len(raw) > limit_bytes:
        raise JsonInvalid(f"{what} has {len(raw)} bytes, more than the {limit_bytes} allowed for metadata")
    _check_depth(raw, what)
    try:
        # Never json.loads(bytes): it would guess UTF-16 and swallow a byte order mark. Go puts U+FFFD
        # for bytes that are no UTF-8.
        return json.loads(raw.decode("utf-8", "replace"), object_pairs_hook=_unambiguous, parse_constant=_no_constant)
    except JsonInvalid as error:
        raise JsonInvalid(f"{what}: {error.message}") from None
    except json.JSONDecodeError as error:
        raise JsonInvalid(f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # integers beyond Python's digit limit; nesting that _check_depth missed
        raise JsonInvalid(f"{what} is not acceptable JSON: {type(error).__name__}") from None


def _check_depth(raw: bytes, what: str) -> None:
    depth = 0
    for match in _NESTING.finditer(raw):
        first = raw[match.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise JsonInvalid(f"{what} is nested more than {MAX_DEPTH} levels deep")
        elif first in b"]}":
            depth -= 1


def _unambiguous(pairs: list[tuple[str, Any]]) -> JsonObject:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen and (_holds_object(value) or _holds_object(seen[key])):
                raise JsonInvalid(f"the key '{shown(key)}' occurs twice, which engines merge in their own ways")
            seen[key] = value
    return result


def _holds_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value))


def _no_constant(name: str) -> NoReturn:
    raise JsonInvalid(f"{name} is no JSON value")


_NAMES: dict[type, str] = {dict: "an object", list: "an array", str: "a string", int: "an integer", bool: "true or false"}


def _kind(value: Any) -> str:
    return "null" if value is None else _NAMES.get(type(value), "a number")
