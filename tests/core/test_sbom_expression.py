"""SPDX licence expressions: the list, the grammar, the spelling."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shiplap.core.manifest import ManifestError, parse_manifest, to_data
from shiplap.core.sbom.expression import ExpressionInvalid, expression_or_none, licence_expression, own_licences


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("MIT", "MIT"),
        ("mit", "MIT"),
        ("apache-2.0 or MIT", "Apache-2.0 OR MIT"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("gpl-2.0-or-later with gcc-exception-3.1 AND zlib", "GPL-2.0-or-later WITH GCC-exception-3.1 AND Zlib"),
        ("(MIT AND (BSD-3-Clause OR ISC))", "(MIT AND (BSD-3-Clause OR ISC))"),
        ("GPL-2.0+", "GPL-2.0+"),
        ("EPL-1.0+", "EPL-1.0+"),
        ("LicenseRef-Acme AND LicenseRef-b.2", "LicenseRef-Acme AND LicenseRef-b.2"),
        ("  MIT  ", "MIT"),
        ("NCSA AND(MIT)OR X11", "NCSA AND (MIT) OR X11"),
    ],
)
def test_an_expression_is_spelled_as_the_list_does(text: str, spelled: str) -> None:
    assert licence_expression(text) == spelled
    assert licence_expression(spelled) == spelled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a licence is missing"),
        ("Apache", "is not a licence of SPDX's list"),
        ("Apache2.0", "did you mean Apache-2.0?"),
        ("MIT AND", "a licence is missing"),
        ("MIT Apache-2.0", "comes where AND, OR or the end should"),
        ("(MIT", "a ) is missing"),
        ("MIT)", "comes where"),
        ("MIT WITH Classpath", "not an exception"),
        ("MIT WITH", "not an exception"),
        ("MIT; ISC", "';' has no meaning"),
        ("MIT WITH GCC-exception-3.1 WITH GCC-exception-3.1", "comes where"),
        ("GCC-exception-3.1", "not a licence"),
        ("DocumentRef-a:LicenseRef-b", "has no meaning"),
        ("(" * 500 + "MIT" + ")" * 500, "characters"),
        ("(" * 100 + "MIT" + ")" * 100, "too deep"),
    ],
)
def test_anything_else_says_why(text: str, message: str) -> None:
    with pytest.raises(ExpressionInvalid) as caught:
        licence_expression(text)
    assert message in caught.value.message


LEAVES = st.sampled_from(["MIT", "Apache-2.0", "GPL-2.0-only WITH GCC-exception-3.1", "LicenseRef-x", "ISC+"])
EXPRESSIONS = st.recursive(
    LEAVES, lambda below: st.builds(lambda a, word, b: f"({a}) {word} {b}", below, st.sampled_from(["AND", "OR"]), below), max_leaves=8
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(EXPRESSIONS)
def test_what_the_grammar_makes_is_kept_as_it_is(text: str) -> None:
    assert licence_expression(text) == text
    assert licence_expression(text.lower().replace("licenseref", "LicenseRef")) == text


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(max_size=40) | st.lists(st.sampled_from(["MIT", "AND", "OR", "WITH", "(", ")", " "])).map(" ".join))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        assert licence_expression(licence_expression(text)) == licence_expression(text)
    except ExpressionInvalid as error:
        assert len(error.message) < 400


def test_thousands_of_licences_that_are_none_take_no_time() -> None:
    begun = time.process_time()
    assert {expression_or_none(f"BSD-like licence of package{number}") for number in range(5000)} == {None}
    assert expression_or_none("mit or isc") == "MIT OR ISC"
    assert time.process_time() - begun < 2


def test_licences_of_ones_own_are_found() -> None:
    assert own_licences("LicenseRef-b AND (MIT OR LicenseRef-a) OR LicenseRef-b") == ["LicenseRef-a", "LicenseRef-b"]


def manifest(licence: Any) -> bytes:
    return json.dumps({"version": 1, "images": [{"ref": "app:1", "license": licence}]}).encode()


def test_the_manifest_takes_expressions_only_and_names_the_place() -> None:
    read = parse_manifest(manifest("mit or apache-2.0"), "m")
    assert read.images[0].license == "MIT OR Apache-2.0"
    assert to_data(read)["images"][0]["license"] == "MIT OR Apache-2.0"
    with pytest.raises(ManifestError) as caught:
        parse_manifest(manifest("Apache 2"), "m")
    assert [(one.path, one.line) for one in caught.value.problems] == [("images[0].license", 1)]
    assert "SPDX" in caught.value.problems[0].message and "LicenseRef-NAME" in caught.value.problems[0].message
