"""What no SquashFS can hold."""

from __future__ import annotations

from shiplap.core.entries import printable
from shiplap.core.errors import Refused


class SquashfsCannotHold(Refused):
    """An entry or a whole tree that does not fit into the format. Names the entry."""


def cannot_hold(path: bytes, what: str, *, hint: str | None = None) -> SquashfsCannotHold:
    """The error for the entry at ``path``, ``what`` being a whole clause (``its name has 300 bytes, …``)."""
    shown = printable(path if len(path) <= 200 else path[:200]) + ("…" if len(path) > 200 else "")
    return SquashfsCannotHold(f"SquashFS cannot hold /{shown}: {what}", hint=hint)
