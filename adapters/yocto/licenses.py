"""Licence expressions put together. ``shiplap_license`` of the layer turns them into an older OpenEmbedded's form."""

from __future__ import annotations

import re


def all_of(expressions: tuple[str, ...]) -> str:
    """All of several SPDX expressions (as the manifest's reader spells them) at once, each once."""
    unique = tuple(dict.fromkeys(expressions))
    return " AND ".join(f"({one})" if " " in one and len(unique) > 1 else one for one in unique)


def with_names(expression: str) -> tuple[str, ...]:
    """Its licences with an exception, as an OpenEmbedded before blacksail calls them (``Apache-2.0-with-LLVM-exception``)."""
    return tuple(dict.fromkeys(f"{name}-with-{exception}" for name, exception in re.findall(r"([^\s(]+) WITH ([^\s)]+)", expression)))
