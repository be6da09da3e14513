"""``shiplap config``: the manifest as the program understands it, every default written out."""

from __future__ import annotations

import argparse
from pathlib import Path

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
    from shiplap.core.manifest.writing import resolved_text

    manifest = load_manifest(arguments.file)
    console.result(to_data(manifest), resolved_text(manifest))
    return 0
