"""SPDX licence expressions (SPDX 2.3, annex D): is a text one, and how is it spelled."""

from __future__ import annotations

import difflib
import functools
import re
from importlib import resources

from shiplap.core.errors import Refused

_TOKEN = re.compile(r"\s*([()]|[A-Za-z0-9.+-]+)")
_OWN = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_MAX_CHARACTERS = 1000
_MAX_DEPTH = 20


class ExpressionInvalid(Refused):
    """A text that is no licence expression."""


@functools.cache
def _identifiers() -> tuple[dict[str, str], dict[str, str]]:
    """Licences and exceptions: lower case → as the list spells them."""
    text = (resources.files("shiplap.core.sbom") / "identifiers.txt").read_text(encoding="utf-8")
    licences, exceptions = ([line for line in part.splitlines() if not line.startswith("#")] for part in text.split("\n\n"))
    return {one.lower(): one for one in licences}, {one.lower(): one for one in exceptions}


def expression_or_none(text: str) -> str | None:
    """As :func:`licence_expression`, for texts of packages, of which there are many and nobody is to be advised."""
    try:
        return licence_expression(text, advise=False)
    except ExpressionInvalid:
        return None


def licence_expression(text: str, *, advise: bool = True) -> str:
    """``text`` as SPDX spells it; identifiers are known whatever their case. Raises ExpressionInvalid.

    Licences that are not on SPDX's list are written ``LicenseRef-NAME``. ``advise``: say what may have been meant, which takes a while.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ExpressionInvalid(f"a licence expression of {len(text)} characters")
    tokens: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise ExpressionInvalid(f"{text!r:.80} is no SPDX expression: {stripped[position]!r} has no meaning in one")
        tokens.append(match[1])
        position = match.end()
    parser = _Parser(tokens, text, advise)
    parser.alternatives(0)
    if parser.tokens:
        raise ExpressionInvalid(f"{text!r:.80} is no SPDX expression: {parser.tokens[0]} comes where AND, OR or the end should")
    return "".join(parser.spelled).replace("( ", "(").replace(" )", ")")


def own_licences(expression: str) -> list[str]:
    """The ``LicenseRef-…`` in a valid expression, sorted."""
    return sorted(set(_OWN.findall(expression)))


class _Parser:
    """Recursive descent; ``spelled`` collects the result."""

    def __init__(self, tokens: list[str], text: str, advise: bool) -> None:
        self.tokens = tokens
        self.spelled: list[str] = []
        self._text = text
        self._advise = advise

    def alternatives(self, depth: int) -> None:
        """AND binds tighter than OR; for validity and spelling the two are the same."""
        self._operand(depth)
        while self.tokens and self.tokens[0].upper() in ("AND", "OR"):
            self.spelled.append(f" {self.tokens.pop(0).upper()} ")
            self._operand(depth)

    def _operand(self, depth: int) -> None:
        if not self.tokens or depth > _MAX_DEPTH:
            raise ExpressionInvalid(f"{self._text!r:.80} is no SPDX expression: a licence is missing, or it nests too deep")
        token = self.tokens.pop(0)
        if token == "(":  # noqa: S105 (no password)
            self.spelled.append("(")
            self.alternatives(depth + 1)
            if not self.tokens or self.tokens.pop(0) != ")":
                raise ExpressionInvalid(f"{self._text!r:.80} is no SPDX expression: a ) is missing")
            self.spelled.append(")")
            return
        self.spelled.append(self._licence(token))
        if self.tokens and self.tokens[0].upper() == "WITH":
            self.tokens.pop(0)
            self.spelled.append(f" WITH {self._exception()}")

    def _licence(self, token: str) -> str:
        if _OWN.fullmatch(token):
            return token
        known = _identifiers()[0]
        # "+" is "or any later version"; a few identifiers end in one themselves.
        found = known.get(token.lower()) or (known.get(token[:-1].lower(), "") + "+" if token.endswith("+") else "")
        if found in ("", "+"):
            raise ExpressionInvalid(self._unknown(token, "a licence", known), hint="a licence of one's own is written LicenseRef-NAME")
        return found

    def _exception(self) -> str:
        known = _identifiers()[1]
        token = self.tokens.pop(0) if self.tokens else ""
        if token.lower() not in known:
            raise ExpressionInvalid(self._unknown(token, "an exception", known))
        return known[token.lower()]

    def _unknown(self, token: str, what: str, known: dict[str, str]) -> str:
        close = difflib.get_close_matches(token.lower(), known, 1, 0.6) if self._advise else []
        return f"{token!r:.60} is not {what} of SPDX's list" + (f"; did you mean {known[close[0]]}?" if close else "")
