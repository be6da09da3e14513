"""The verbs: one module of this folder each, imported only when it is the one that was asked for.

A verb's module has ``NAME`` (as typed), ``SUMMARY`` (one line), ``EXAMPLES`` (shown below its help),
``configure`` (adds its arguments to a parser that has the global options already) and ``run`` (does it and
returns the exit code; what goes wrong is raised).
"""

from __future__ import annotations

import argparse
import importlib
import keyword
from typing import Protocol, cast

from shiplap.cli.console import Console


class Verb(Protocol):
    """What a verb's module offers."""

    @property
    def NAME(self) -> str: ...

    @property
    def SUMMARY(self) -> str: ...

    @property
    def EXAMPLES(self) -> str: ...

    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace, console: Console) -> int: ...


# In the order of the help. A new verb is a module beside this one plus its name here.
VERBS = (
    "build",
    "lock",
    "fetch",
    "cache",
    "import",
    "inspect",
    "verify",
    "diff",
    "extract",
    "rootfs",
    "generate",
    "verity",
    "config",
    "schema",
    "doctor",
    "completion",
)

# Known to the design, not in this release, with what to do instead.
LATER = {
    "audit": "build twice and compare SHA256SUMS meanwhile",
}


def load(name: str) -> Verb:
    """The module of the verb ``name``, which must be one of ``VERBS``."""
    if name not in VERBS:
        raise ValueError(f"{name!r} is not a verb")
    module = f"{name}_" if keyword.iskeyword(name) else name  # import_.py
    return cast(Verb, importlib.import_module(f"shiplap.cli.{module}"))
