"""The manifest's schema: ``schema.json`` is its single source, and this module reads manifests by it.

The file is an ordinary JSON Schema (draft 2020-12), for editors. The validator here understands the part of
the language that the file uses; in return it knows lines and columns, reports everything at once and suggests
what was meant. ``errorMessage`` (known to editors too) words what a pattern wants.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shiplap.core.manifest.document import Listing, Mapping, Node, Scalar, plain
from shiplap.core.manifest.problems import Problem, quoted

Schema = dict[str, Any]

# Every keyword that the validator understands or may pass over. A test holds schema.json to this list.
_OF_TEXT_AND_NUMBERS = ("const", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum")
_OF_LISTS_AND_MAPPINGS = ("items", "minItems", "maxItems", "uniqueItems", "properties", "required", "additionalProperties", "propertyNames")
CHECKED = frozenset(("type", "$ref", *_OF_TEXT_AND_NUMBERS, *_OF_LISTS_AND_MAPPINGS))
ANNOTATIONS = frozenset(("$schema", "$id", "$defs", "title", "description", "default", "examples", "errorMessage"))

_PLAIN_KEY = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "empty",
}


@functools.cache
def _schema() -> Schema:
    loaded: Schema = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))
    return loaded


def json_schema() -> Schema:
    """A fresh copy of the JSON Schema of shiplap.yaml."""
    copy: Schema = json.loads(json.dumps(_schema()))
    return copy


def validate(node: Node, schema: Schema | None = None) -> list[Problem]:
    """Everything about ``node`` that ``schema`` forbids: the manifest's, or another one without ``$ref``."""
    problems: list[Problem] = []
    _check(node, _schema() if schema is None else schema, "", problems)
    return problems


def with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` (a valid manifest, perhaps with parts left out) with the schema's defaults filled in, in the schema's order."""
    filled = _fill(data, _schema())
    assert isinstance(filled, dict)
    return filled


def join(path: str, key: str | int) -> str:
    """The YAML path of ``key`` below ``path``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not key or key.strip(_PLAIN_KEY):
        key = json.dumps(key if len(key) <= 60 else key[:60] + "…")
    return f"{path}.{key}" if path else key


def sound_data(node: Node, path: str, bad: set[str]) -> Any:
    """The data of ``node`` without what has a problem: keys vanish, items of a list become None."""
    if isinstance(node, Mapping):
        below = ((key, join(path, key), value) for key, value in node.entries.items())
        return {key: sound_data(value, where, bad) for key, where, value in below if where not in bad}
    if isinstance(node, Listing):
        items = ((join(path, index), item) for index, item in enumerate(node.items))
        return [None if where in bad else sound_data(item, where, bad) for where, item in items]
    return plain(node)


def place_of(node: Node, path: str) -> tuple[int, int]:
    """Where ``path`` stands in the file, or the nearest thing around it that is written."""
    if isinstance(node, Mapping):
        key, rest = _first_key(node, path)
        if key is not None:
            value = node.entries[key]
            return place_of(value, rest.removeprefix(".")) if rest else (value.line, value.column)
    if isinstance(node, Listing) and path.startswith("["):
        index, _, rest = path[1:].partition("]")
        return place_of(node.items[int(index)], rest.removeprefix("."))
    return node.line, node.column


def _first_key(node: Mapping, path: str) -> tuple[str | None, str]:
    """The key that ``path`` (of :func:`join`) begins with, when ``node`` has it, and what follows."""
    if path.startswith('"'):
        key, end = json.JSONDecoder().raw_decode(path)
        if key not in node.entries and key.endswith("…"):
            key = next((one for one in node.entries if one.startswith(key[:-1])), key)
    else:
        end = len(path) - len(path.lstrip(_PLAIN_KEY))
        key = path[:end]
    return (key if key in node.entries else None), path[end:]


def _resolved(schema: Schema) -> Schema:
    """``schema`` with its ``$ref`` replaced by what it names; keys beside the ``$ref`` stay."""
    while "$ref" in schema:
        target = _schema()["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _check(node: Node, schema: Schema, path: str, problems: list[Problem]) -> None:
    schema = _resolved(schema)

    def problem(message: str) -> None:
        problems.append(Problem(path, node.line, node.column, message))

    wanted = schema.get("type")
    if wanted is not None and not any(_is(node, name) for name in _listed(wanted)):
        problem(_wrong_type(node, _listed(wanted)))
    elif "const" in schema and not isinstance(node, Scalar):
        problem(f"must be {schema['const']}, not {'a mapping' if isinstance(node, Mapping) else 'a list'}")
    elif isinstance(node, Mapping):
        _check_mapping(node, schema, path, problems)
    elif isinstance(node, Listing):
        _check_listing(node, schema, path, problems)
    elif (message := _scalar_mistake(node, schema)) is not None:
        problem(message)


def _check_mapping(node: Mapping, schema: Schema, path: str, problems: list[Problem]) -> None:
    known: dict[str, Schema] = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for key, value in node.entries.items():
        line, column = node.keys.get(key, (node.line, node.column))
        if key in known:
            _check(value, known[key], join(path, key), problems)
        elif others is False:
            problems.append(Problem(join(path, key), line, column, f"unknown key {quoted(key)}{did_you_mean(key, known)}"))
        elif isinstance(others, dict):
            _check(value, others, join(path, key), problems)
        if len(key) < schema.get("propertyNames", {}).get("minLength", 0):
            problems.append(Problem(join(path, key), line, column, "the key is empty"))
    absent = [key for key in schema.get("required", ()) if key not in node.entries]
    problems.extend(Problem(join(path, key), node.line, node.column, f"the key `{key}` is missing") for key in absent)


def _check_listing(node: Listing, schema: Schema, path: str, problems: list[Problem]) -> None:
    count = len(node.items)
    least, most = schema.get("minItems", 0), schema.get("maxItems", count)
    if count < least:
        problems.append(Problem(path, node.line, node.column, f"needs at least {least} item{'s' if least > 1 else ''}"))
    if count > most:
        problems.append(Problem(path, node.line, node.column, f"has {count} items, more than {most}"))
    seen: set[str] = set()
    for index, item in enumerate(node.items):
        before = len(problems)
        if "items" in schema:
            _check(item, schema["items"], join(path, index), problems)
        if schema.get("uniqueItems") and len(problems) == before:
            text = json.dumps(plain(item), sort_keys=True)
            if text in seen:
                problems.append(Problem(join(path, index), item.line, item.column, f"{quoted(plain(item))} stands here twice"))
            seen.add(text)


def _scalar_mistake(node: Scalar, schema: Schema) -> str | None:
    value = node.value
    wording = schema.get("errorMessage")
    if "const" in schema and not _same(value, schema["const"]):
        return f"must be {schema['const']}, not {quoted(node.text)}" + (f": {wording}" if wording else "")
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        words = [str(one) for one in schema["enum"]]
        return f"{quoted(node.text)} is not one of {', '.join(words)}{did_you_mean(node.text, words)}"
    if isinstance(value, str):
        return _text_mistake(value, schema, wording)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            return f"{quoted(node.text)} is less than {schema['minimum']}"
        if value > schema.get("maximum", value):
            return f"{quoted(node.text)} is more than {schema['maximum']}"
    return None


def _text_mistake(value: str, schema: Schema, wording: str | None) -> str | None:
    if not value and schema.get("minLength"):
        return "is empty"
    if len(value) > schema.get("maxLength", len(value)):
        return f"has {len(value)} characters, more than {schema['maxLength']}"
    if "pattern" in schema and not _compiled(schema["pattern"]).search(value):
        return f"{quoted(value)}: {wording}" if wording else f"{quoted(value)} does not match {schema['pattern']}"
    return None


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # In JSON Schema (ECMA 262) `$` is the very end; in Python it also matches before a final newline.
    return re.compile(pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern)


def _is(node: Node, name: str) -> bool:
    if isinstance(node, Mapping):
        return name == "object"
    if isinstance(node, Listing):
        return name == "array"
    value = node.value
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, int):
        return name in ("integer", "number")
    if isinstance(value, float):  # JSON has one kind of number: 1.0 is an integer
        return name == "number" or (name == "integer" and value.is_integer())
    return name == ("null" if value is None else "string")


def _same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _wrong_type(node: Node, wanted: list[str]) -> str:
    names = " or ".join(_TYPES[name] for name in wanted)
    if isinstance(node, Mapping):
        return f"must be {names}, not a mapping"
    if isinstance(node, Listing):
        return f"must be {names}, not a list"
    if node.value is None:
        return f"has no value; must be {names}"
    hint = f': put it in quotes, "{node.text}"' if "string" in wanted and len(node.text) < 40 else ""
    return f"must be {names}, not {quoted(node.text)}{hint}"


def _listed(wanted: str | list[str]) -> list[str]:
    return [wanted] if isinstance(wanted, str) else wanted


def did_you_mean(word: str, known: Iterable[str], separator: str = "-") -> str:
    """``; did you mean …``, or nothing. ``separator``: between the words of ``known``."""
    meant = re.sub("[-_]", separator, word[:60].lower())
    close = difflib.get_close_matches(meant, list(known), 1, 0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def _fill(data: Any, schema: Schema) -> Any:
    schema = _resolved(schema)
    if isinstance(data, dict):
        known: dict[str, Schema] = schema.get("properties", {})
        filled: dict[str, Any] = {}
        for key, below in known.items():
            default = _resolved(below).get("default")
            if key in data or default is not None:
                filled[key] = _fill(data.get(key, default), below)
        others = schema.get("additionalProperties", True)
        for key, value in data.items():
            if key not in known:
                filled[key] = _fill(value, others) if isinstance(others, dict) else value
        return filled
    if isinstance(data, list):
        return [_fill(item, schema.get("items", {})) for item in data]
    return data
