"""The errors that a user can cause or meet.

Every one derives from :class:`ShiplapError`; only ``cli.main`` maps them to exit codes.
Impossible states are not errors of this kind: they raise plainly and show a traceback.
"""

from __future__ import annotations


class ShiplapError(Exception):
    """Base class: ``message`` says what is wrong and where, ``hint`` what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Refused(ShiplapError):
    """The input cannot be accepted: manifest, option, reference, hostile or corrupt image (exit 2)."""


class OutsideFailure(ShiplapError):
    """Something outside failed: a program, the network, the disk (exit 1)."""


class Difference(ShiplapError):
    """A comparison or a verification found a difference (exit 1)."""


class ProgramMissing(ShiplapError):
    """A needed program or library is not installed (exit 3)."""
