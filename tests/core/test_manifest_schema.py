"""schema.json is the single source: our validator and a JSON Schema library must agree on it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import SMALLEST, buildable, whole
from shiplap.core.manifest import json_schema
from shiplap.core.manifest.document import compose, node_of, plain
from shiplap.core.manifest.schema import ANNOTATIONS, CHECKED, validate, with_defaults

LIBRARY = jsonschema.Draft202012Validator(json_schema())


def ours(data: Any) -> list[str]:
    return [f"{problem.path}: {problem.message}" for problem in validate(node_of(data))]


def theirs(data: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in LIBRARY.iter_errors(data)]


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema inside ``schema``, itself included."""
    yield schema
    for key in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(key), dict):
            yield from subschemas(schema[key])
    for key in ("properties", "$defs"):
        for below in schema.get(key, {}).values():
            yield from subschemas(below)


def test_the_schema_is_a_valid_schema_that_uses_only_what_our_validator_knows() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    for schema in subschemas(json_schema()):
        assert set(schema) <= CHECKED | ANNOTATIONS, schema


def test_every_object_with_named_keys_refuses_all_others() -> None:
    for schema in subschemas(json_schema()):
        if "properties" in schema:
            assert schema["additionalProperties"] is False
            assert schema["type"] == "object"


def test_every_default_and_every_example_is_valid() -> None:
    document = json_schema()
    for schema in subschemas(document):
        for value in (*schema.get("examples", ()), *([schema["default"]] if "default" in schema else ())):
            jsonschema.Draft202012Validator({**schema, "$defs": document["$defs"]}).validate(value)


def test_every_key_of_the_design_is_in_the_schema() -> None:
    assert set(whole()) | {"compose"} == set(json_schema()["properties"])
    container = json_schema()["$defs"]["container"]["properties"]
    assert set(whole()["containers"][0]) == set(container)


def test_a_caller_may_change_the_schema_it_gets() -> None:
    json_schema()["properties"].clear()
    assert json_schema()["properties"]


def nothing(data: dict[str, Any]) -> None:
    """Change nothing."""


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        target: Any = data
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


def drop(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        target: Any = data
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return change


GOOD = [
    nothing,
    drop("name"),
    drop("containers"),
    drop("squashfs"),
    put("epoch", value=0),
    put("epoch", value=4294967295),
    put("version", value=1.0),
    put("platform", value="anything at all"),
    put("squashfs", "block-size", value=131072),
    put("squashfs", "block-size", value="128KiB"),
    put("engine-config", value={"any": {"thing": [1, None, True]}}),
    put("images", 0, "allow-foreign-elf", value=[]),
    put("containers", 0, "cpus", value=2),
    put("containers", 0, "health", value={"cmd": "true"}),
    put("budget", value={}),
]
BAD = [
    drop("version"),
    drop("images"),
    drop("images", 0, "ref"),
    drop("containers", 0, "image"),
    put("version", value=2),
    put("version", value="1"),
    put("version", value=True),
    put("name", value=""),
    put("name", value="Gateway"),
    put("name", value=None),
    put("name", value=5),
    put("version", value=[]),
    put("version", value={}),
    put("epoch", value=-1),
    put("epoch", value=1.5),
    put("epoch", value="0"),
    put("epoch", value=1 << 32),
    put("epoch", value=True),
    put("images", value=[]),
    put("images", value={}),
    put("images", value=[None]),
    put("images", 0, "ref", value=""),
    put("images", 0, "ref", value=7),
    put("images", 0, "digest", value="sha256:ABC"),
    put("images", 0, "unknown", value=1),
    put("images", 0, "allow-foreign-elf", value=["opt"]),
    put("images", 0, "license", value="MIT; rm"),
    put("mode", value="STORE"),
    put("mode", value=None),
    put("outputs", value=[]),
    put("outputs", value=["tar", "tar"]),
    put("outputs", value=["iso"]),
    put("outputs", value="tar"),
    put("store-path", value="usr"),
    put("store-path", value="/a/../b"),
    put("store-path", value="/" + "a" * 200),
    put("squashfs", "level", value=0),
    put("squashfs", "level", value=23),
    put("squashfs", "block-size", value=0),
    put("squashfs", "block-size", value="128k B"),
    put("squashfs", "block-size", value="0"),
    put("squashfs", value=[]),
    put("verity", "hash", value="md5"),
    put("verity", "fec-roots", value=25),
    put("limits", "entries", value=0),
    put("registries", value={"": {}}),
    put("registries", value={"host": {"tls-verify": "no"}}),
    put("registries", value={"host": {"tls": True}}),
    put("target", "init", value=["upstart"]),
    put("containers", 0, "restart", value=False),
    put("containers", 0, "env", value={"A": None}),
    put("containers", 0, "cpus", value=-0.5),
    put("containers", 0, "read-only", value=1),
    put("shiplap", value=1),
]


@pytest.mark.parametrize("change", GOOD)
def test_both_accept(change: Callable[[dict[str, Any]], None]) -> None:
    data = whole()
    change(data)
    assert (ours(data), theirs(data)) == ([], [])


@pytest.mark.parametrize("change", BAD)
def test_both_refuse(change: Callable[[dict[str, Any]], None]) -> None:
    data = whole()
    change(data)
    # The library may have several complaints about one place.
    assert len(ours(data)) == len({error.json_path for error in LIBRARY.iter_errors(data)}) == 1, (ours(data), theirs(data))


def test_a_pattern_ends_at_the_very_end_as_ecma_says() -> None:
    # Here the Python library is too kind: its `$` also matches before a final newline.
    data = {**whole(), "name": "gateway\n"}
    assert ours(data)
    assert not theirs(data)


def places(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every path in ``data`` that can be replaced."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


PLACES = sorted(places(whole()), key=str)
TEXT = st.sampled_from(["", "a", "/a", "128K", "sha256:" + "0" * 64, "tar", "zstd", "no", "1", "systemd", "é", "a b"]) | st.text(
    st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=5
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1 << 60) | st.sampled_from([0.5, 1.0, -1.5, 1e30]) | TEXT,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXT | st.sampled_from(["ref", "name", "level"]), below, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_on_random_changes_our_validator_and_the_library_agree(changes: list[tuple[tuple[str | int, ...], Any]]) -> None:
    data = copy.deepcopy(whole())
    for path, value in changes:
        try:
            put(*path, value=value)(data)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took that place away
    assert bool(ours(data)) == bool(theirs(data)), (ours(data), theirs(data))


def test_defaults_are_filled_in_at_every_depth_and_nothing_written_is_lost() -> None:
    filled = with_defaults(plain(compose(SMALLEST, [])))
    assert filled["squashfs"]["compression"] == "zstd"
    assert filled["images"][0] == {"ref": "app:1", "from": "docker-archive:app.tar", "allow-foreign-elf": [], "allow-lost-xattrs": []}
    assert filled["target"] == {"quadlet": False} and filled["data-root"] == {}
    assert with_defaults(whole()) == whole()
    assert not theirs(filled)


def test_json_and_yaml_spellings_of_a_manifest_are_the_same() -> None:
    problems: list[Any] = []
    assert plain(compose(json.dumps(buildable()).encode(), problems)) == buildable()
    assert problems == []
