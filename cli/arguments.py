"""The command line's grammar: parsers that know the global options at every place and never exit.

``argparse`` prints and exits on its own; here help, version and mistakes are exceptions, so that ``cli.main``
stays the one place that prints errors and chooses exit codes.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from shiplap.cli.console import COLOR_WORDS
from shiplap.cli.renderers import WORDS as PROGRESS_WORDS
from shiplap.cli.verbs import LATER, VERBS, load
from shiplap.core.errors import Refused
from shiplap.core.version import VERSION

PROGRAM = "shiplap"
DESCRIPTION = "Container images into embedded firmware: one deterministic, sealed store, with no daemon, root or VM at build time."


class UsageError(Refused):
    """The command line itself is wrong."""


class NotInThisRelease(Refused):
    """A verb of the design that this release does not have yet."""


class Asked(Exception):
    """``--help`` or ``--version``: no error, but the parsing is over; what to print instead."""

    def __init__(self, data: dict[str, object], text: str) -> None:
        super().__init__(text)
        self.data = data
        self.text = text


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        text = parser.format_help()
        raise Asked({"help": text}, text)


class _Version(argparse.Action):
    def __call__(self, *_: object) -> NoReturn:
        raise Asked({"name": PROGRAM, "version": VERSION}, f"{PROGRAM} {VERSION}")


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError, accepts no abbreviated options, and has the global options itself.

    Sub-parsers are of this class as well, so ``shiplap -C d build``, ``shiplap build -C d`` and ``shiplap verity
    format -C d`` all work. No global option has a default here: an outer parser's value would be overwritten by it.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        if sys.version_info >= (3, 14):
            options["color"] = False  # colour is the console's business
        super().__init__(**{**options, "add_help": False, "allow_abbrev": False})
        self._add_global_options()

    def _add_global_options(self) -> None:
        group = self.add_argument_group("global options", "accepted before and after the verb")
        self.global_group = group
        absent = argparse.SUPPRESS
        group.add_argument("-C", dest="directory", metavar="DIR", default=absent, help="do everything as if started in DIR")
        # A count starts again in each nested parser, so each has its own; `verbosity` adds them up.
        group.add_argument(
            "-v", "--verbose", dest=f"verbose in {self.prog}", action="count", default=absent, help="say more; twice: more still"
        )
        group.add_argument("-q", "--quiet", action="store_true", default=absent, help="no notes and no progress: results and errors only")
        group.add_argument("--json", action="store_true", default=absent, help="the result as one JSON object; errors and notes too")
        group.add_argument(
            "--progress", choices=PROGRESS_WORDS, default=absent, help="how long work shows itself on standard error (default: auto)"
        )
        group.add_argument(
            "--color", choices=COLOR_WORDS, default=absent, help="colour on standard error (default: auto, which honours NO_COLOR)"
        )
        group.add_argument("--version", action=_Version, nargs=0, default=absent, help="print the version and stop")
        group.add_argument("-h", "--help", action=_Help, nargs=0, default=absent, help="print this help and stop")

    @property
    def own_actions(self) -> list[argparse.Action]:
        """The arguments that are not global."""
        return [action for action in self._actions if action not in self.global_group._group_actions]

    def format_help(self) -> str:
        # Own arguments first, and a usage line that is not three lines of global options.
        self._action_groups.sort(key=lambda group: group is self.global_group)
        if self.usage is None:
            formatter = self._get_formatter()
            formatter.add_usage(None, self.own_actions, self._mutually_exclusive_groups, prefix="")
            self.usage = formatter.format_help().strip().replace(self.prog, f"{self.prog} [global options]", 1).replace("%", "%%")
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"`{self.prog} --help` explains the arguments")


if TYPE_CHECKING:
    _SubParsers = argparse._SubParsersAction[Parser]
else:  # generic for type checkers only
    _SubParsers = argparse._SubParsersAction


class _VerbParsers(_SubParsers):
    """The verb's place on the command line: makes the parser of that one verb only."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.choices = None  # type: ignore[assignment]  # else argparse checks the name itself, without suggestions

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        name = str(values[0])
        if name in LATER:
            raise NotInThisRelease(f"`{PROGRAM} {name}` is not in this release ({VERSION})", hint=LATER[name])
        if name not in VERBS:
            raise UsageError(
                f"there is no verb {name!r}", hint=_suggestion([name], (*VERBS, *LATER)) or f"the verbs are: {', '.join(VERBS)}"
            )
        add_verb(self, name)
        super().__call__(parser, namespace, values, option_string)


class _TopParser(Parser):
    """The outermost parser; its help lists the verbs, for which all their modules are imported."""

    def format_help(self) -> str:
        width = max(map(len, VERBS))
        lines = [f"  {name:<{width}}  {load(name).SUMMARY}" for name in VERBS]
        self.epilog = "\n".join(["verbs:", *lines, "", f"`{PROGRAM} VERB --help` explains one. Not in this release: {', '.join(LATER)}."])
        return super().format_help()


def top_parser() -> tuple[argparse.ArgumentParser, _SubParsers]:
    """The outermost parser and its place for verbs, which :func:`add_verb` fills."""
    parser = _TopParser(prog=PROGRAM, description=DESCRIPTION, usage=f"{PROGRAM} [global options] VERB …")
    verbs = parser.add_subparsers(
        dest="verb", metavar="VERB", help=argparse.SUPPRESS, action=_VerbParsers, parser_class=Parser, prog=PROGRAM
    )
    return parser, verbs


def add_verb(verbs: _SubParsers, name: str) -> Parser:
    """Import the verb ``name`` and let it configure its parser."""
    verb = load(name)
    examples = textwrap.indent(textwrap.dedent(verb.EXAMPLES).strip("\n"), "  ")
    parser = verbs.add_parser(name, description=verb.SUMMARY, epilog=f"examples:\n{examples}" if examples else None)
    verb.configure(parser)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; the namespace has every global option. Raises UsageError, NotInThisRelease and Asked."""
    parser, verbs = top_parser()
    arguments, unknown = parser.parse_known_args(words)
    if unknown and not _take_late(unknown, arguments, verbs):
        _refuse_unknown(unknown, arguments, parser, verbs)
    if arguments.verb is None:
        raise UsageError("a verb is missing", hint=f"the verbs are: {', '.join(VERBS)}; `{PROGRAM} --help` explains them")
    defaults = {"directory": None, "quiet": False, "json": False, "progress": "auto", "color": "auto"}
    for name, value in defaults.items():
        if not hasattr(arguments, name):
            setattr(arguments, name, value)
    return arguments


def _take_late(words: Sequence[str], arguments: argparse.Namespace, verbs: _SubParsers) -> bool:
    """Append ``words`` to the verb's repeatable argument, if it has one and none of them is an option; else change nothing.

    ``extract THING --image X PATH``: argparse of older Pythons (3.11 is one) fills all positions that it can when the first word
    comes, with nothing where nothing stands there, and knows no place for what follows an option.
    """
    nested = verbs._name_parser_map.get(arguments.verb)
    if nested is None or any(word.startswith("-") and word != "-" for word in words):
        return False
    for action in nested._actions:
        if not action.option_strings and action.nargs == argparse.ZERO_OR_MORE:
            setattr(arguments, action.dest, [*(getattr(arguments, action.dest) or ()), *words])
            return True
    return False


def verbosity(arguments: argparse.Namespace) -> int:
    """-1 with ``-q``, else how often ``-v`` was given."""
    if arguments.quiet:
        return -1
    return sum(count for name, count in vars(arguments).items() if name.startswith("verbose in "))


def wants_json(words: Sequence[str]) -> bool:
    """Whether ``--json`` is on a command line that may not parse: its error has to be JSON too."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def sub_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers nested directly in ``parser``, by name (``format``, ``verify``, ``dump`` of ``verity``)."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action._name_parser_map)
    return {}


def _refuse_unknown(unknown: list[str], arguments: argparse.Namespace, parser: argparse.ArgumentParser, verbs: _SubParsers) -> NoReturn:
    options = [word.split("=", 1)[0] for word in unknown if word.startswith("-") and word != "-"]
    if not options:
        raise UsageError(f"unexpected argument {unknown[0]!r}", hint=f"`{PROGRAM} {arguments.verb} --help` explains the arguments")
    known = set(_options(parser))
    for nested in verbs._name_parser_map.values():
        known.update(_options(nested))
    where = f"{PROGRAM} {arguments.verb}" if arguments.verb else PROGRAM
    hint = _suggestion(options, sorted(known)) or f"`{where} --help` lists the options"
    raise UsageError(f"{where} has no option {', '.join(options)}", hint=hint)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from parser._option_string_actions
    for nested in sub_parsers(parser).values():
        yield from _options(nested)


def _suggestion(words: Iterable[str], known: Sequence[str]) -> str | None:
    close = [match for word in words for match in difflib.get_close_matches(word, known, 1)]
    return f"did you mean {' and '.join(f'`{match}`' for match in close)}?" if close else None
