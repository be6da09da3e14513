"""``--limit``: how much of an image is accepted, in the words of the manifest's ``limits:``."""

from __future__ import annotations

import argparse
from dataclasses import replace

from shiplap.core.errors import Refused
from shiplap.core.limits import Limits
from shiplap.core.manifest.sizes import parse_size

_FIELDS = {"layer-bytes": "layer_bytes", "entries": "entries", "metadata-bytes": "metadata_bytes"}
_ENTRIES_MAX = 1_000_000_000  # as the manifest's schema has it


def add_limit_option(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the option; :func:`limits_of` reads it."""
    parser.add_argument(
        "--limit",
        action="append",
        type=_limit,
        default=[],
        metavar="KEY=VALUE",
        help="accept more of an image than usual: layer-bytes=16G, entries=2000000 or metadata-bytes=4M; repeatable",
    )


def limits_of(arguments: argparse.Namespace, base: Limits | None = None) -> Limits:
    """``base`` (the usual limits) with what the command line says laid over it."""
    changed: dict[str, int] = dict(arguments.limit)
    return replace(base or Limits(), **changed)


def _limit(text: str) -> tuple[str, int]:
    key, _, value = text.partition("=")
    if key not in _FIELDS:
        raise argparse.ArgumentTypeError(f"{text!r} sets no limit; there are {', '.join(_FIELDS)}")
    if key == "entries":
        if not (value.isascii() and value.isdigit() and len(value) <= 10 and 1 <= int(value) <= _ENTRIES_MAX):
            raise argparse.ArgumentTypeError(f"{value!r} is no number of entries from 1 to {_ENTRIES_MAX}")
        return _FIELDS[key], int(value)
    try:
        return _FIELDS[key], parse_size(value)
    except Refused as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.hint}") from None
