"""Two JSON documents, field by field; and what a build's record says about why two builds differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shiplap.audit.diffcontent import escaped
from shiplap.audit.differences import Change, Finding, Section, clipped
from shiplap.core.jsontext import JsonInvalid, parse_array, parse_object

DOCUMENT_LIMIT_BYTES = 16 << 20
# What names an element of a list, so that elements are compared with their like and not by position.
_NAMES = ("config", "tool", "chainID", "name", "ref", "digest")

# Keys of record.json that say what came out of a build, not why.
_FIGURES = ("costs", "elf-audit", "layers", "outputs", "verity")


def parsed(raw: bytes, what: str) -> Any:
    """The document, or None for what is none (or too large, or too deep): then only bytes can be compared."""
    for parse in (parse_object, parse_array):
        try:
            return parse(raw, what=what, limit_bytes=DOCUMENT_LIMIT_BYTES)
        except JsonInvalid:
            continue
    return None


def compare_documents(a: Any, b: Any, section: Section, prefix: str = "") -> None:
    """Add every place of two parsed documents that differs."""
    for where, one, other in _differing(a, b, prefix):
        place = where or "(the document)"
        if one is _ABSENT or other is _ABSENT:
            side, value = ("B", other) if one is _ABSENT else ("A", one)
            section.add(Finding(place, f"only in {side}", detail=(json_text(value),)))
        else:
            section.changed(place, [Change("value", json_text(one), json_text(other))])


def compare_records(a: Any, b: Any, section: Section) -> None:
    """Two records: what the builds were told and made of, then, in a section that follows, the figures that came out."""
    compare_documents(_part(a, figures=False), _part(b, figures=False), section)
    below = section.section("figures", "what came out")
    below.follows = True
    compare_documents(_part(a, figures=True), _part(b, figures=True), below)


def _part(record: Any, *, figures: bool) -> Any:
    if not isinstance(record, dict):
        return {} if figures else record
    return {key: value for key, value in record.items() if (key in _FIGURES) == figures}


class _Absent:
    pass


_ABSENT = _Absent()


def _differing(a: Any, b: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from _differing(a.get(key, _ABSENT), b.get(key, _ABSENT), f"{where}.{_name(key)}" if where else _name(key))
    elif isinstance(a, list) and isinstance(b, list):
        yield from _lists(a, b, where)
    elif type(a) is not type(b) or a != b:
        yield where, a, b


def _lists(a: list[Any], b: list[Any], where: str) -> Iterator[tuple[str, Any, Any]]:
    key = _common_name(a, b)
    if key is None:
        for index in range(max(len(a), len(b))):
            one, other = (items[index] if index < len(items) else _ABSENT for items in (a, b))
            yield from _differing(one, other, f"{where}[{index}]")
        return
    left, right = ({item[key]: item for item in items} for items in (a, b))
    for name in sorted(left.keys() | right.keys()):
        yield from _differing(left.get(name, _ABSENT), right.get(name, _ABSENT), f"{where}[{_name(name)}]")
    order = [[item[key] for item in items] for items in (a, b)]
    if order[0] != order[1] and sorted(order[0]) == sorted(order[1]):
        yield f"{where} (order)", order[0], order[1]


def _common_name(a: list[Any], b: list[Any]) -> str | None:
    """The key that names every element of both lists differently within its list, if there is one."""
    for key in _NAMES:
        if all(isinstance(item, dict) and isinstance(item.get(key), str) for item in (*a, *b)) and all(
            len({item[key] for item in items}) == len(items) for items in (a, b)
        ):
            return key
    return None


def _name(key: str) -> str:
    return clipped(escaped(key), 100)


def json_text(value: Any) -> str:
    """A value as JSON, for people: printable and not long."""
    return clipped(escaped(json.dumps(value, sort_keys=True, ensure_ascii=False)))


def causes(a: Any, b: Any) -> Iterator[str]:
    """Sentences on what two records (``record.json``) say about tools, versions, options and the epoch."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return
    if a.get("shiplap") != b.get("shiplap"):
        yield f"built with shiplap {_plain(a.get('shiplap'))} and {_plain(b.get('shiplap'))}"
    tools = [_tools(record) for record in (a, b)]
    for name in sorted(tools[0].keys() | tools[1].keys()):
        one, other = tools[0].get(name), tools[1].get(name)
        if one is None or other is None:
            has, lacks = ("A", "B") if other is None else ("B", "A")
            yield f"{_name(name)} was used for {has}, not for {lacks}"
            continue
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                yield _tool_sentence(_name(name), key, one.get(key), other.get(key))
    epochs = [record.get("epoch") for record in (a, b)]
    if epochs[0] != epochs[1]:
        values = [epoch if isinstance(epoch, dict) else {} for epoch in epochs]
        said = " and ".join(f"{_plain(value.get('value'))} (from {_plain(value.get('from'))})" for value in values)
        yield f"built with the epochs {said}"
    if a.get("options") != b.get("options"):
        places = [where for where, _, _ in _differing(a.get("options"), b.get("options"), "")]
        yield f"built with other options: {', '.join(places[:8])}{' …' if len(places) > 8 else ''}"


def _tools(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    tools = record.get("tools")
    if not isinstance(tools, list):
        return {}
    return {tool["tool"]: tool for tool in tools if isinstance(tool, dict) and isinstance(tool.get("tool"), str)}


def _tool_sentence(tool: str, key: str, one: Any, other: Any) -> str:
    values = _plain(one), _plain(other)
    if key == "library":
        return f"built with {values[0]} and {_shortened(*values)}"
    if key == "version":
        return f"built with {tool} {values[0]} and {values[1]}"
    return f"built with {tool}, {_name(key)} {values[0]} and {values[1]}"


def _shortened(one: str, other: str) -> str:
    """``1.5.7`` instead of ``libzstd 1.5.7`` where the name is the same."""
    name, _, version = other.rpartition(" ")
    return version if name and one.startswith(name + " ") else other


def _plain(value: Any) -> str:
    return _name(value) if isinstance(value, str) else json_text(value)
