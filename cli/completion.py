"""``shiplap completion SHELL``: completion scripts, generated from the parsers themselves.

Each script is a small state machine: walk the words before the cursor to find the command, then offer the value
of the option before the cursor, or the command's options, verbs and files.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from shiplap.cli.arguments import PROGRAM
from shiplap.cli.console import Console

NAME = "completion"
SUMMARY = "print a completion script for bash, zsh or fish"
EXAMPLES = """
  source <(shiplap completion bash)                                   in ~/.bashrc
  shiplap completion zsh > ~/.zfunc/_shiplap                          with ~/.zfunc in fpath
  shiplap completion fish > ~/.config/fish/completions/shiplap.fish
"""
SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the script."""
    from shiplap.cli.shape import whole_command_line
    from shiplap.cli.shells import bash, fish, zsh

    writers: dict[str, Callable[..., str]] = {"bash": bash, "zsh": zsh, "fish": fish}
    script = writers[arguments.shell](whole_command_line())
    console.result({"program": PROGRAM, "shell": arguments.shell, "script": script}, script)
    return 0
