"""Values of options that several verbs take, for argparse's ``type=``."""

from __future__ import annotations

import argparse


def epoch(text: str) -> int:
    """Whole seconds since 1970. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of seconds since 1970")
    return int(text)


def jobs(text: str) -> int:
    """A number of processors, 1 to 1024. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processors")
    return int(text)
