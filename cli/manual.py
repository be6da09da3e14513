"""docs/cli.md and the man page, made from the same parsers as ``--help``.

``python -m shiplap.cli.manual docs`` writes both; a test compares them with what is committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from shiplap.cli.shape import Argument, Command, whole_command_line
from shiplap.cli.verbs import LATER
from shiplap.core.version import VERSION

EXIT_CODES = (
    (0, "all is well"),
    (1, "something outside failed (the disk is full, a tool, the network), or a comparison or verification found a difference"),
    (2, "the input is refused: manifest, option, reference, output folder, or an image that is hostile, corrupt or not the one asked for"),
    (3, "a needed program or library is missing"),
    (70, "a bug in shiplap (with a traceback)"),
    (130, "interrupted by Ctrl-C, SIGTERM or SIGHUP; nothing partial is left behind"),
)
ENVIRONMENT = (
    ("SOURCE_DATE_EPOCH", "the timestamp of everything that shiplap itself writes, unless the manifest or an option names one"),
    ("NO_COLOR", "when not empty, no colour (unless --color always)"),
    ("TMPDIR", "where one layer at a time is spooled while it is read"),
)


def markdown(program: Command) -> str:
    """The whole reference as one Markdown file."""
    lines = [
        "# Command line",
        "",
        "<!-- Made by `python -m shiplap.cli.manual docs` from the parsers; edit those instead. -->",
        "",
        f"`{program.name} [global options] VERB …`",
        "",
        "Results go to standard output, everything else to standard error. What `--json` prints is described in",
        "[machine-output.md](machine-output.md); text for people may change in every release.",
        "",
        "## Verbs",
        "",
        *_table(("verb", "does"), [(f"[`{one.words[0]}`](#{one.name.replace(' ', '-')})", one.summary) for one in program.below]),
        "",
        f"Not in this release: {', '.join(f'`{name}`' for name in LATER)}.",
        "",
        "## Global options",
        "",
        "Accepted before and after the verb.",
        "",
        *_arguments_table(program.global_options),
        "",
    ]
    for command in list(program.walk())[1:]:
        lines += [f"## {command.name}", "", f"{_sentence(command.summary)}", "", f"`{_synopsis(command)}`", ""]
        if command.arguments:
            lines += [*_arguments_table(command.arguments), ""]
        if command.examples:
            lines += ["```sh", *_dedented(command.examples), "```", ""]
    lines += ["## Exit codes", "", *_table(("code", "means"), [(str(code), text) for code, text in EXIT_CODES]), ""]
    lines += ["## Environment", "", *_table(("variable", "means"), [(f"`{name}`", text) for name, text in ENVIRONMENT])]
    return "\n".join([*lines, ""])


def man_page(program: Command) -> str:
    """shiplap(1), in man's macros (man-pages(7))."""
    lines = [
        '.\\" Made by `python -m shiplap.cli.manual docs`.',
        f'.TH SHIPLAP 1 "" "shiplap {VERSION}" "User Commands"',
        ".SH NAME",
        f"{program.name} \\- {_roff(program.summary.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {program.name}",
        "[global options]",
        ".I VERB",
        "\\&...",
        ".SH GLOBAL OPTIONS",
        "Accepted before and after the verb.",
        *_roff_arguments(program.global_options),
        ".SH VERBS",
    ]
    for command in list(program.walk())[1:]:
        lines += [f".SS {_roff(' '.join(command.words))}", _roff(_sentence(command.summary)), ".PP", f".B {_roff(_synopsis(command))}"]
        lines += _roff_arguments(command.arguments)
        if command.examples:
            lines += [".PP", ".nf", *(_roff(line) for line in command.examples.splitlines()), ".fi"]
    lines.append(".SH EXIT STATUS")
    for code, text in EXIT_CODES:
        lines += [".TP", f".B {code}", _roff(text)]
    lines.append(".SH ENVIRONMENT")
    for name, text in ENVIRONMENT:
        lines += [".TP", f".B {name}", _roff(text)]
    return "\n".join([*lines, ""])


DOCUMENTS = {"cli.md": markdown, "shiplap.1": man_page}


def _synopsis(command: Command) -> str:
    words = [command.name]
    if any(one.flags for one in command.arguments):
        words.append("[options]")
    if command.below:
        words.append("|".join(below.words[-1] for below in command.below))
    for one in command.positionals:
        word = one.value if one.value.startswith("[") else one.value.upper()
        word += " …" if one.repeatable else ""
        words.append(f"[{word}]" if one.optional else word)
    return " ".join(words)


def _spelled(one: Argument) -> str:
    """``-o OUT, --out OUT`` without the repetition: the value once, after the last flag."""
    flags = ", ".join(one.flags)
    return f"{flags} {one.value}".strip() if flags else one.value


def _arguments_table(arguments: tuple[Argument, ...]) -> list[str]:
    return _table(("argument", "means"), [(f"`{_spelled(one)}`", one.help) for one in arguments])


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    cells = [head, ("---", "---"), *((left.replace("|", "\\|"), right.replace("|", "\\|")) for left, right in rows)]
    return [f"| {left} | {right} |" for left, right in cells]


def _roff_arguments(arguments: tuple[Argument, ...]) -> list[str]:
    lines = []
    for one in arguments:
        lines += [".TP", f".B {_roff(_spelled(one))}", _roff(one.help)]
    return lines


def _roff(text: str) -> str:
    """``text`` for man: hyphens that are minus signs, and no line that looks like a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _sentence(summary: str) -> str:
    return summary[:1].upper() + summary[1:].rstrip(".") + "."


def _dedented(examples: str) -> list[str]:
    return [line[2:] if line.startswith("  ") else line for line in examples.splitlines()]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, render in DOCUMENTS.items():
        (folder / name).write_text(render(whole_command_line()), encoding="utf-8")
