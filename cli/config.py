"""``shiplap config``: the manifest as the program understands it, every default written out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from shiplap.cli.console import Console

NAME = "config"
SUMMARY = "check shiplap.yaml and print it with every default written out"
EXAMPLES = """
  shiplap config                      check ./shiplap.yaml and print what it means
  shiplap config -f gateway.yaml --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """``-f FILE``."""
    parser.add_argument(
        "-f", "--file", type=Path, default=Path("shiplap.yaml"), metavar="FILE", help="the manifest (default: shiplap.yaml)"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the resolved manifest. Reading the output again gives the same manifest."""
    from shiplap.core.manifest import load_manifest, to_data

    data = to_data(load_manifest(arguments.file))
    console.result(data, _as_yaml(data))
    return 0


def _as_yaml(data: dict[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000)
    return text
