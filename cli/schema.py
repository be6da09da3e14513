"""``shiplap schema``: the JSON Schema of shiplap.yaml."""

from __future__ import annotations

import argparse
import json

from shiplap.cli.console import Console

NAME = "schema"
SUMMARY = "print the JSON Schema of shiplap.yaml, for editors and checks"
EXAMPLES = """
  shiplap schema > shiplap.schema.json     then put this line on top of shiplap.yaml:
                                           # yaml-language-server: $schema=shiplap.schema.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the schema; with and without ``--json`` it is the same document."""
    from shiplap.core.manifest import json_schema

    schema = json_schema()
    console.result(schema, json.dumps(schema, indent=2))
    return 0
