"""YAML bytes → a small tree of nodes that know their line and column.

PyYAML's scanner and parser do the syntax; composing is ours, because the stock one expands aliases without
bound, lets the last of two equal keys win in silence, and reads YAML 1.1, where ``no`` is false, ``010`` is 8 and
``22:22`` is 1342. Editors and most other tools read YAML 1.2. A plain scalar that the two versions
read differently is refused: quotes make it mean one thing everywhere.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import yaml
from shiplap.core.manifest.problems import Problem, quoted

# A manifest is written by hand. These bound the work and the memory that a hostile one can ask for.
MAX_DOCUMENT_BYTES = 256 << 10
MAX_DEPTH = 32
MAX_NODES = 20_000  # aliases expanded: "billion laughs" ends here


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a document may cost. ``what``: its kind, with an article, for messages; ``least``: what an empty one lacks."""

    document_bytes: int = MAX_DOCUMENT_BYTES
    nodes: int = MAX_NODES
    what: str = "a manifest"
    least: str = "`version: 1` and `images:`"


MANIFEST_BOUNDS = Bounds()

_CORE = "tag:yaml.org,2002:"
# YAML 1.2.2, section 10.3.2: tag resolution of the core schema.
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_NUMBER_CHARACTERS = 24
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value; ``text`` is how it stands in the file."""

    value: str | int | float | bool | None
    text: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """A YAML sequence."""

    items: tuple[Node, ...]
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Mapping:
    """A YAML mapping; ``keys`` are the places of the keys."""

    entries: dict[str, Node]
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    line: int = 0
    column: int = 0


Node: TypeAlias = Scalar | Listing | Mapping


def plain(node: Node) -> Any:
    """The node as dicts, lists and values, without places."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.entries.items()}
    if isinstance(node, Listing):
        return [plain(item) for item in node.items]
    return node.value


def node_of(data: Any) -> Node:
    """The reverse of :func:`plain`, for data that comes from no file."""
    if isinstance(data, dict):
        return Mapping({key: node_of(value) for key, value in data.items()})
    if isinstance(data, (list, tuple)):
        return Listing(tuple(node_of(item) for item in data))
    return Scalar(data, str(data))


def read_bounded(path: Path, bounds: Bounds) -> bytes | None:
    """The file's bytes, at most one more than ``bounds`` allow; None where it is no regular file. Raises OSError."""
    # Without O_NONBLOCK opening a pipe would wait for a writer before it could be refused.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        return file.read(bounds.document_bytes + 1)


class Unreadable(Exception):
    """Reading cannot go on; what was wrong is in the list of problems."""


def compose(raw: bytes, problems: list[Problem], bounds: Bounds = MANIFEST_BOUNDS) -> Node:
    """Read one YAML document. Mistakes go to ``problems``; Unreadable is raised where they leave nothing to check."""
    if len(raw) > bounds.document_bytes:
        _give_up(problems, 1, 1, f"the file has {len(raw)} bytes, more than the {bounds.document_bytes} {bounds.what} may have")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _place(raw[: error.start].decode("utf-8", "replace"))
        _give_up(problems, line, column, "not UTF-8 text")
    try:
        composer = _Composer(yaml.SafeLoader(text.removeprefix("\ufeff")), problems, bounds)
    except yaml.reader.ReaderError as error:
        line, column = _place(text[: error.position])
        _give_up(problems, line, column, f"character U+{ord(text[error.position]):04X} is not allowed in YAML")
    try:
        return composer.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        if "'\\t'" in what:
            what = "a tab: YAML indents with spaces only"
        _give_up(problems, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1, f"not YAML: {what}")
    except (ValueError, OverflowError):
        # PyYAML leaves these to the caller: "\UFFFFFFFF" goes to chr(), %YAML 1.9999… to int().
        mark = composer.loader.get_mark()
        _give_up(problems, mark.line + 1, mark.column + 1, "not YAML: a number or an escape is out of range")


class _Composer:
    """Turns the parser's events into nodes."""

    def __init__(self, loader: Any, problems: list[Problem], bounds: Bounds) -> None:
        self.loader = loader  # a yaml.SafeLoader, whose stubs leave the methods of the parser untyped
        self._problems = problems
        self._bounds = bounds
        self._anchors: dict[str, tuple[Node, int]] = {}

    def document(self) -> Node:
        self._next()  # the start of the stream
        if isinstance(self.loader.peek_event(), yaml.StreamEndEvent):
            _give_up(self._problems, 1, 1, f"the file is empty; it needs at least {self._bounds.least}")
        self._next()  # the start of the document
        node, _ = self._node(0)
        self._next()  # its end
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            self._problem(after, f"a second YAML document starts here; {self._bounds.what} is one document")
        return node

    def _next(self) -> Any:
        return self.loader.get_event()

    def _problem(self, event: Any, message: str, path: str = "") -> None:
        mark = event.start_mark
        self._problems.append(Problem(path, mark.line + 1, mark.column + 1, message))

    def _stop(self, event: Any, message: str) -> NoReturn:
        self._problem(event, message)
        raise Unreadable

    def _node(self, depth: int) -> tuple[Node, int]:
        """The next node, and how many nodes it is with all its aliases expanded."""
        event = self._next()
        if depth > MAX_DEPTH:
            self._stop(event, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                self._stop(event, f"the alias *{event.anchor} names no earlier, finished anchor")
            return self._anchors[event.anchor]
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node, count = self._scalar(event), 1
        elif isinstance(event, yaml.SequenceStartEvent):
            node, count = self._listing(event, depth)
        else:
            node, count = self._mapping(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, count)
        return node, count

    def _listing(self, event: Any, depth: int) -> tuple[Node, int]:
        self._check_tag(event, "seq")
        items: list[Node] = []
        count = 1
        while not isinstance(self.loader.peek_event(), yaml.SequenceEndEvent):
            item, more = self._node(depth + 1)
            items.append(item)
            count = self._counted(event, count + more)
        self._next()
        return Listing(tuple(items), event.start_mark.line + 1, event.start_mark.column + 1), count

    def _mapping(self, event: Any, depth: int) -> tuple[Node, int]:
        self._check_tag(event, "map")
        entries: dict[str, Node] = {}
        keys: dict[str, tuple[int, int]] = {}
        count = 1
        while not isinstance(self.loader.peek_event(), yaml.MappingEndEvent):
            start = self.loader.peek_event()
            key = self._key(depth)
            value, more = self._node(depth + 1)
            count = self._counted(event, count + 1 + more)
            if key is None:
                continue
            if key in entries:
                self._problem(start, f"the key {quoted(key)} stands here a second time; the first is on line {keys[key][0]}")
                continue
            entries[key] = value
            keys[key] = (start.start_mark.line + 1, start.start_mark.column + 1)
        self._next()
        return Mapping(entries, keys, event.start_mark.line + 1, event.start_mark.column + 1), count

    def _key(self, depth: int) -> str | None:
        """The next node as a key; None (and a problem) when it is no text."""
        event = self.loader.peek_event()
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            self._next()
            self._problem(event, "merge keys (<<) are not supported: YAML 1.2 has none")
            return None
        before = len(self._problems)
        node, _ = self._node(depth + 1)
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return node.value if len(self._problems) == before else None
        if len(self._problems) == before:
            shown = (
                f"{quoted(node.text)} must be in quotes: keys are text"
                if isinstance(node, Scalar)
                else "keys are text, not lists or mappings"
            )
            self._problem(event, shown)
        return None

    def _counted(self, event: Any, count: int) -> int:
        if count > self._bounds.nodes:
            self._stop(event, f"more than {self._bounds.nodes} values, aliases counted each time they are used")
        return count

    def _check_tag(self, event: Any, kind: str) -> None:
        if event.tag not in (None, "!", _CORE + kind):
            self._problem(event, f"tags such as {quoted(event.tag.replace(_CORE, '!!'))} are not supported")

    def _scalar(self, event: Any) -> Scalar:
        text = event.value
        value: str | int | float | bool | None = text
        if event.implicit[0]:
            value = self._plain_scalar(event, text)
        else:
            self._check_tag(event, "str")
        if found := _UNWANTED.search(text):
            self._problem(event, f"the text contains the control character U+{ord(found[0]):04X}")
        return Scalar(value, text, event.start_mark.line + 1, event.start_mark.column + 1)

    def _plain_scalar(self, event: Any, text: str) -> str | int | float | bool | None:
        value = _core_value(text)
        if isinstance(value, _TooLong):
            self._problem(event, f"the number {quoted(text)} is too long; quote it if it is text")
            return text
        tag = self.loader.resolve(yaml.ScalarNode, text, (True, False)).removeprefix(_CORE)
        if tag != _kind(value) or (tag == "int" and text.lstrip("+-") != "0" and text.lstrip("+-").startswith("0") and "x" not in text):
            self._problem(event, _ambiguity(text, tag, value))
            return text if isinstance(value, str) else value
        return value


class _TooLong:
    """A number that no manifest needs."""


def _core_value(text: str) -> str | int | float | bool | _TooLong | None:
    """What YAML 1.2's core schema makes of a plain scalar."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    decimal, other, real = _DECIMAL.fullmatch(text), _OTHER_BASE.fullmatch(text), _FLOAT.fullmatch(text)
    if _NO_NUMBER.fullmatch(text) or ((decimal or other or real) and len(text) > _MAX_NUMBER_CHARACTERS):
        return _TooLong()
    if decimal:
        return int(text)
    if other:
        return int(text, 0)
    if real:
        value = float(text)
        return value if abs(value) != float("inf") else _TooLong()
    return text


def _kind(value: object) -> str:
    return {bool: "bool", int: "int", float: "float", type(None): "null"}.get(type(value), "str")


_MEANING = {"bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date", "str": "text", "null": "nothing"}


def _ambiguity(text: str, old_tag: str, value: object) -> str:
    if old_tag == "bool":
        return f"{quoted(text)} is true or false in YAML 1.1 and text in YAML 1.2: write true or false, or quote it"
    if old_tag == "timestamp":
        return f"{quoted(text)} is a date in YAML 1.1 and text in YAML 1.2: quote it"
    old, new = _MEANING.get(old_tag, "special"), _MEANING[_kind(value)]
    if old == new:
        return f"{quoted(text)} is another number in YAML 1.1 than in YAML 1.2: write it without leading zeros, or quote it if it is text"
    return f"{quoted(text)} is {old} in YAML 1.1 and {new} in YAML 1.2: write a plain decimal number, or quote it if it is text"


def _place(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows the text ``before``."""
    lines = before.split("\n")
    return len(lines), len(lines[-1]) + 1


def _give_up(problems: list[Problem], line: int, column: int, message: str) -> NoReturn:
    problems.append(Problem("", line, column, message))
    raise Unreadable
