"""Names from images reach a message escaped, and escaped once: what is shown can be searched for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import shiplap.cli.main
from images import file
from layertar import build
from memorytar import as_file, tree_of, unpacked
from shiplap.core.errors import Refused
from shiplap.core.tar.reader import TarCorrupt

PACKAGE = Path(shiplap.cli.main.__file__).parents[1]
ESCAPED = r"b\xff\x1b[2J\ü"
RAW = b"b\xff\x1b[2J\\\xc3\xbc"


def _escapes(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("printable", "shown")


def escaped_twice(source: bytes) -> Iterator[int]:
    """Lines where a name that is escaped already goes through repr, which escapes its backslashes again."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r") and _escapes(node.value):
            yield node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "repr" and any(map(_escapes, node.args)):
            yield node.lineno


def test_nothing_is_escaped_twice() -> None:
    assert sorted(escaped_twice(b"f'{printable(a)!r} {shown(b)!r} {c!r} {printable(d)}'\nrepr(printable(e))")) == [1, 1, 2]
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for folder in ("core", "rootfs", "verity", "audit", "adapters", "cli")
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        for line in escaped_twice(path.read_bytes())
    ]
    assert found == []


def test_a_layer_that_is_refused_shows_the_name_as_other_messages_do() -> None:
    with pytest.raises(Refused) as caught:
        tree_of(build([file(RAW), file(RAW)]))
    assert f"entry '{ESCAPED}': the path is in the layer twice" in caught.value.message


def test_a_tar_that_is_cut_shows_the_name_as_other_messages_do() -> None:
    tar = build([file(RAW, b"x" * 600)])[:700]
    with pytest.raises(TarCorrupt) as caught, as_file(tar) as one:
        unpacked(one)
    assert f"it ends inside '{ESCAPED}'" in caught.value.message
