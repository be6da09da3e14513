"""YAML with places: what is read, and what is refused because it means two things or costs too much."""

from __future__ import annotations

import time
from typing import Any

import pytest
from shiplap.core.manifest.document import MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_NODES, Mapping, Scalar, Unreadable, compose, node_of, plain
from shiplap.core.manifest.problems import Problem


def read(raw: bytes) -> tuple[Any, list[Problem]]:
    """Data (None when reading was given up) and problems of a document."""
    problems: list[Problem] = []
    try:
        return plain(compose(raw, problems)), problems
    except Unreadable:
        return None, problems


def value_of(scalar: str) -> tuple[Any, list[str]]:
    data, problems = read(f"key: {scalar}\n".encode())
    return data["key"], [problem.message for problem in problems]


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("text", "text"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-7", -7),
        ("1700000000", 1700000000),
        ("0x1F", 31),
        ("0.5", 0.5),
        ("1.", 1.0),
        ("'no'", "no"),
        ('"010"', "010"),
        ("!!str 010", "010"),
        ("y", "y"),
        ("redis:7", "redis:7"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
        ("128K", "128K"),
        ("80:80", "80:80"),
        ("4.7.2", "4.7.2"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">-\n  a\n  b\n", "a b"),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(scalar: str, value: object) -> None:
    found, problems = value_of(scalar)
    assert (found, problems) == (value, [])
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("scalar", "message"),
    [
        ("no", "true or false in YAML 1.1 and text in YAML 1.2"),
        ("on", "true or false in YAML 1.1 and text in YAML 1.2"),
        ("Yes", "true or false in YAML 1.1 and text in YAML 1.2"),
        ("OFF", "true or false in YAML 1.1 and text in YAML 1.2"),
        ("010", "another number in YAML 1.1 than in YAML 1.2"),
        ("089", "text in YAML 1.1 and a number in YAML 1.2"),
        ("0o17", "text in YAML 1.1 and a number in YAML 1.2"),
        ("0b11", "a number in YAML 1.1 and text in YAML 1.2"),
        ("1_000", "a number in YAML 1.1 and text in YAML 1.2"),
        ("22:22", "a number in YAML 1.1 and text in YAML 1.2"),
        ("1e3", "text in YAML 1.1 and a number in YAML 1.2"),
        ("2023-11-14", "a date in YAML 1.1"),
        ("2023-11-14T22:13:20Z", "a date in YAML 1.1"),
        ("=", "special in YAML 1.1"),
        (".inf", "too long"),
        ("-.INF", "too long"),
        (".nan", "too long"),
        ("1" * 25, "too long"),
        ("1" * 5000, "too long"),
        ("9" * 20 + "e99", "a number in YAML 1.2"),
    ],
)
def test_scalars_that_two_versions_of_yaml_read_differently_are_refused(scalar: str, message: str) -> None:
    _, problems = value_of(scalar)
    assert len(problems) == 1
    assert message in problems[0]


def test_places_count_from_one_and_point_at_values_and_keys() -> None:
    problems: list[Problem] = []
    node = compose("é: 1\nb:\n  - x\n  -   yy\n".encode(), problems)
    assert isinstance(node, Mapping)
    assert node.keys == {"é": (1, 1), "b": (2, 1)}
    listing = node.entries["b"]
    assert (listing.line, listing.column) == (3, 3)
    assert [(item.line, item.column) for item in listing.items] == [(3, 5), (4, 7)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("raw", "place", "message"),
    [
        (b"", (1, 1), "the file is empty"),
        (b"# only a comment\n", (1, 1), "the file is empty"),
        (b"a: 1\nb: [\n", (3, 1), "not YAML"),
        (b"a: 1\n\tb: 2\n", (2, 1), "a tab: YAML indents with spaces only"),
        (b"a: 1\nb: \x00\n", (2, 4), "character U+0000 is not allowed"),
        (b"a: 1\nb: \x1b[2J\n", (2, 4), "character U+001B is not allowed"),
        (b"a: 1\nb: caf\xe9\n", (2, 7), "not UTF-8 text"),
        ("a: 1\n".encode("utf-16"), (1, 1), "not UTF-8 text"),
        (b"a: 1\n---\nb: 2\n", (2, 1), "a second YAML document"),
        (b"a: 1\na: 2\n", (2, 1), "the key `a` stands here a second time; the first is on line 1"),
        (b"1: a\n", (1, 1), "`1` must be in quotes: keys are text"),
        (b"null: a\n", (1, 1), "`null` must be in quotes: keys are text"),
        (b"no: a\n", (1, 1), "true or false in YAML 1.1"),
        (b"[a]: b\n", (1, 1), "keys are text, not lists or mappings"),
        (b"? {a: b}\n: c\n", (1, 3), "keys are text, not lists or mappings"),
        (b"a: &x {b: 1}\nc:\n  <<: *x\n", (3, 3), "merge keys (<<) are not supported"),
        (b"a: *nowhere\n", (1, 4), "names no earlier, finished anchor"),
        (b"a: &x [*x]\n", (1, 8), "names no earlier, finished anchor"),
        (b"a: !!python/object:os.system x\n", (1, 4), "tags such as `!!python/object:os.system` are not supported"),
        (b"a: !!binary aGk=\n", (1, 4), "tags such as `!!binary`"),
        (b"a: !custom [1]\n", (1, 4), "tags such as `!custom`"),
        (b'a: "\\0"\n', (1, 4), "control character U+0000"),
        (b'a: "\\e[2J"\n', (1, 4), "control character U+001B"),
        (b'a: "\\ud800"\n', (1, 4), "control character U+D800"),
        (b'a: "\\UFFFFFFFF"\n', (1, 7), "out of range"),
        (b"%YAML 1." + b"9" * 5000 + b"\n---\na: 1\n", (1, 9), "out of range"),
        (b"%YAML 2.0\n---\na: 1\n", (1, 1), "incompatible YAML document"),
        (b"a: @x\n", (1, 4), "not YAML"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(raw: bytes, place: tuple[int, int], message: str) -> None:
    _, problems = read(raw)
    assert len(problems) == 1, problems
    assert message in problems[0].message
    assert (problems[0].line, problems[0].column) == place


def test_anchors_and_aliases_are_allowed() -> None:
    data, problems = read(b"a: &x {k: [1, 2]}\nb: *x\nc: [*x, *x]\n")
    assert problems == []
    assert data == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}, "c": [{"k": [1, 2]}, {"k": [1, 2]}]}


def test_a_byte_order_mark_of_utf_8_is_no_part_of_the_text() -> None:
    assert read(b"\xef\xbb\xbfa: 1\n") == ({"a": 1}, [])


def bomb() -> bytes:
    above = (f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 30))
    return "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *above]).encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (bomb(), f"more than {MAX_NODES} values"),
        (b"[" * 200_000, f"nested more than {MAX_DEPTH} levels"),
        (b"- " * 100_000 + b"x", f"nested more than {MAX_DEPTH} levels"),
        (b"{a: " * 50_000, f"nested more than {MAX_DEPTH} levels"),
        (b"? " * 50_000, f"nested more than {MAX_DEPTH} levels"),
        (b"[" + b"x," * 30_000 + b"]", f"more than {MAX_NODES} values"),
        (b"a: '" + b"x" * MAX_DOCUMENT_BYTES + b"'", f"more than the {MAX_DOCUMENT_BYTES}"),
    ],
    ids=["billion laughs", "flow lists", "block lists", "mappings", "complex keys", "many values", "too large"],
)
def test_bombs_are_refused_early_and_cheaply(raw: bytes, message: str) -> None:
    start = time.process_time()
    _, problems = read(raw)
    assert message in problems[-1].message
    assert time.process_time() - start < 15  # far below what an unbounded reader would need


def test_data_that_comes_from_no_file_becomes_nodes_and_back() -> None:
    data = {"a": [1, "x", None, True, 0.5], "b": {"c": []}}
    assert plain(node_of(data)) == data
    assert node_of("x") == Scalar("x", "x")
