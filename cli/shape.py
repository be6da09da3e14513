"""The command line as data, read off the parsers: what completion scripts and the reference are made from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from shiplap.cli.arguments import PROGRAM, Parser, add_verb, sub_parsers, top_parser
from shiplap.cli.verbs import VERBS

# What a metavar says about its value. Everything else is completed as a file name, which is never wrong for long.
_DIRECTORIES = frozenset(("DIR", "OUT"))
_NO_FILES = frozenset(
    (
        "A,B",
        "BYTES",
        "DIGEST",
        "DRIVER",
        "ENGINE",
        "HEX",
        "N",
        "NAME",
        "OS/ARCH[/VARIANT]",
        "ROOT_HASH",
        "SIZE",
        "UUID",
        "VERSION",
        "[ENGINE:]VERSION",
    )
)


@dataclass(frozen=True, slots=True)
class Argument:
    """An option (``flags``) or, without flags, a positional argument. ``value`` is empty for a switch."""

    flags: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str
    repeatable: bool
    optional: bool

    @property
    def completes(self) -> str:
        """``words``, ``directories``, ``files`` or ``nothing``."""
        if self.choices:
            return "words"
        if self.value in _DIRECTORIES:
            return "directories"
        return "nothing" if self.value in _NO_FILES or not self.value else "files"


@dataclass(frozen=True, slots=True)
class Command:
    """A verb, or a verb below a verb. ``words``: how it is called, without the program's name."""

    words: tuple[str, ...]
    summary: str
    examples: str
    arguments: tuple[Argument, ...]
    global_options: tuple[Argument, ...]
    below: tuple[Command, ...]

    @property
    def name(self) -> str:
        return " ".join((PROGRAM, *self.words))

    @property
    def options(self) -> tuple[Argument, ...]:
        """Own options first, then the global ones."""
        return tuple(one for one in (*self.arguments, *self.global_options) if one.flags)

    @property
    def positionals(self) -> tuple[Argument, ...]:
        return tuple(one for one in self.arguments if not one.flags)

    def walk(self) -> Iterator[Command]:
        """This command and all below it, depth first."""
        yield self
        for command in self.below:
            yield from command.walk()


def whole_command_line() -> Command:
    """The program itself, with all verbs below it."""
    parser, verbs = top_parser()
    assert isinstance(parser, Parser)
    below = tuple(_command(add_verb(verbs, name), (name,)) for name in VERBS)
    globals_ = _arguments(parser, parser.global_group._group_actions)
    return Command((), parser.description or "", "", (), globals_, below)


def _command(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Command:
    assert isinstance(parser, Parser)
    below = tuple(_command(nested, (*words, name)) for name, nested in sub_parsers(parser).items())
    own = [action for action in parser.own_actions if not isinstance(action, argparse._SubParsersAction)]
    examples = (parser.epilog or "").removeprefix("examples:\n")
    globals_ = _arguments(parser, parser.global_group._group_actions)
    return Command(words, parser.description or "", examples, _arguments(parser, own), globals_, below)


def _arguments(parser: argparse.ArgumentParser, actions: list[argparse.Action]) -> tuple[Argument, ...]:
    return tuple(_argument(parser, action) for action in actions if action.help != argparse.SUPPRESS)


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    value = ""
    if action.nargs != 0:
        metavar = action.metavar if isinstance(action.metavar, str) else None
        value = metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    return Argument(
        flags=tuple(action.option_strings),
        value=value,
        choices=tuple(map(str, action.choices or ())),
        help=(action.help or "") % {**vars(action), "prog": parser.prog},
        repeatable=action.nargs in ("*", "+") or isinstance(action, (argparse._AppendAction, argparse._CountAction)),
        optional=bool(action.option_strings) or action.nargs in ("?", "*"),
    )
