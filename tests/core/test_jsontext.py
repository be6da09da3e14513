"""Foreign JSON means to us what it means to the engines, or it is refused."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shiplap.core.jsontext import MAX_DEPTH, JsonInvalid, elements, member, parse_array, parse_object, required

LIMIT = 4 << 20


def parse(raw: bytes) -> dict[str, object]:
    return parse_object(raw, what="a document", limit_bytes=LIMIT)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=9), json_values, max_size=4))
def test_what_json_writes_is_read(value: dict[str, object]) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) is not None


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789eE.-ntrufals\\ ', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for parser in (parse_object, parse_array):
        try:
            parser(raw, what="a document", limit_bytes=LIMIT)
        except JsonInvalid as error:
            assert error.message.startswith("a document")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{}}",
        b"{} x",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":01}',
        b'{"a":"\n"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b"[]",
        b"null",
        b"1",
        b'{"a":' + b"9" * 10_000 + b"}",
    ],
    ids=range(17),
)
def test_what_go_refuses_is_refused(raw: bytes) -> None:
    with pytest.raises(JsonInvalid, match="a document"):
        parse(raw)


def test_bytes_that_are_no_utf8_are_replaced_as_go_does() -> None:
    assert parse(b'{"author":"\xff"}') == {"author": "\ufffd"}


def test_of_equal_keys_the_last_one_counts_as_for_go() -> None:
    assert parse(b'{"os":"windows","os":"linux","diff_ids":["a"],"diff_ids":["b"]}') == {"os": "linux", "diff_ids": ["b"]}


@pytest.mark.parametrize(
    "raw",
    [b'{"rootfs":{"type":"layers"},"rootfs":{}}', b'{"a":{},"a":1}', b'{"a":1,"a":[{}]}', b'{"x":[{"a":{},"a":{}}]}'],
)
def test_a_repeated_key_that_holds_an_object_is_refused_because_go_merges(raw: bytes) -> None:
    with pytest.raises(JsonInvalid, match="occurs twice"):
        parse(raw)


def test_a_second_spelling_of_a_key_is_refused_because_go_would_read_it() -> None:
    # U+017F folds to "s" in Go as well.
    for spelling in ("RootFS", "ROOTFS", "rootf\u017f"):
        holder = parse(json.dumps({"rootfs": {}, spelling: {}}).encode())
        with pytest.raises(JsonInvalid, match="engines read"):
            member(holder, "rootfs", dict, what="a config")


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_deep_nesting_is_refused_on_every_python(opening: str) -> None:
    closing = {"[": "]", '{"a":': "}", '[{"a":': "}]"}[opening]
    deep = MAX_DEPTH // (2 if len(closing) == 2 else 1)
    for depth, accepted in ((deep - 2, True), (deep + 2, False), (100_000, False)):
        raw = b'{"x":' + opening.encode() * depth + b"1" + closing.encode() * depth + b"}"
        if accepted:
            parse(raw)
        else:
            with pytest.raises(JsonInvalid, match="levels deep"):
                parse(raw)


def test_brackets_inside_strings_are_no_nesting() -> None:
    parse(json.dumps({"a": "[" * 1000 + '"' + "{" * 1000 + "\\"}).encode())


def test_an_unfinished_document_of_brackets_is_refused_quickly() -> None:
    begin = time.perf_counter()
    for raw in (b"[" * LIMIT, b'["' * (LIMIT // 2), b'"\\' * (LIMIT // 2), b"[]" * (LIMIT // 2)):
        with pytest.raises(JsonInvalid):
            parse(raw)
    assert time.perf_counter() - begin < 10


def test_a_document_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(JsonInvalid, match="11 bytes, more than the 10"):
        parse_object(b'{"a":"123"}', what="a document", limit_bytes=10)


@pytest.mark.parametrize(
    ("value", "kind"),
    [("1", int), (True, int), (1.0, int), (-1, int), (1 << 63, int), (1, str), ([], dict), ({}, list), (1, bool), (None, int)],
)
def test_a_member_of_another_type_is_refused_and_null_is_absence(value: object, kind: type) -> None:
    with pytest.raises(JsonInvalid, match=r"'size'"):
        required({"size": value}, "size", kind, what="a descriptor")
    if value is None:
        assert member({"size": value}, "size", kind, what="a descriptor") is None


def test_elements_checks_every_one() -> None:
    assert elements(["a", "b"], str, what="a list") == ["a", "b"]
    for bad in ([1], ["a", None], [True], [[]]):
        with pytest.raises(JsonInvalid, match="a list"):
            elements(bad, str, what="a list")
    with pytest.raises(JsonInvalid, match="a list"):
        elements([1, True], int, what="a list")
