"""``shiplap diff``: why two artifacts differ, down to the entry and the field."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from shiplap.audit.diff import DiffOptions, diff_things
from shiplap.audit.differences import Change, Finding, Section
from shiplap.audit.diffhtml import html_report
from shiplap.cli.access import access_of, add_access_options
from shiplap.cli.console import Console
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.cli.quantities import count_text, size_text
from shiplap.core.errors import ProgramMissing, Refused
from shiplap.core.platform import parse_platform
from shiplap.core.run import find
from shiplap.verity.area import fresh_file

NAME = "diff"
SUMMARY = "why two artifacts differ, down to the entry and field; 0 when they are equal, 1 when not"
EXAMPLES = """\
shiplap diff out-monday out-tuesday                     two builds: tools first, then what they changed
shiplap diff old/store.squashfs new/store.squashfs      any two SquashFS images, also of other tools
shiplap diff docker-archive:app.tar oci:layout:app:2    two images: config, layers, entries
shiplap diff out-a out-b --html report                  report/index.html, one file without script
"""
_KEPT = 20
_KEPT_MAX = 1_000_000


class BadMaximum(Refused):
    """--max is no number of findings."""


def configure(parser: argparse.ArgumentParser) -> None:
    for letter in "AB":
        thing = "an output folder, SquashFS or store image, tar, archive of images, OCI layout, verity or other file, or a source"
        parser.add_argument(letter.lower(), metavar=letter, help=thing)
    parser.add_argument("--html", metavar="DIR", help="also write DIR/index.html, a report that needs nothing else")
    parser.add_argument("--max", metavar="N", default=str(_KEPT), help=f"how many findings to show of each part (default: {_KEPT})")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="which platform of sources with several")
    parser.add_argument(
        "--diffoscope",
        action="store_true",
        help="let diffoscope look at files of kinds that shiplap does not know; with --html it is asked when it is installed",
    )
    add_limit_option(parser)
    add_access_options(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    options = DiffOptions(
        limits_of(arguments),
        console.progress,
        keep=_maximum(arguments.max),
        diffoscope=_diffoscope(required=arguments.diffoscope, wanted=arguments.html is not None),
        platform=parse_platform(arguments.platform) if arguments.platform else None,
        access=access_of(arguments, console, {}, Path()),
    )
    section = diff_things(arguments.a, arguments.b, options)
    written = None
    if arguments.html is not None:
        folder = Path(arguments.html)
        folder.mkdir(parents=True, exist_ok=True)
        report = html_report(arguments.a, arguments.b, section)
        written = folder / "index.html"
        with fresh_file(written) as descriptor, os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as file:
            file.write(report)
    data: dict[str, object] = {"a": arguments.a, "b": arguments.b, "equal": not section.differs, "difference": section.to_data()}
    data["report"] = None if written is None else str(written)
    lines = [*_text(section, in_full=console.verbose > 0), *([] if written is None else [f"report: {written}"])]
    console.result(data, "\n".join(lines))
    return 1 if section.differs else 0


def _maximum(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 8 and int(text) <= _KEPT_MAX):
        raise BadMaximum(f"--max {text}: a whole number from 0 to {_KEPT_MAX} is expected")
    return int(text)


def _diffoscope(*, required: bool, wanted: bool) -> str | None:
    if not (required or wanted):
        return None
    try:
        return find("diffoscope", package="diffoscope")
    except ProgramMissing:
        if required:
            raise
        return None


def _text(section: Section, *, in_full: bool) -> Iterator[str]:
    """Causes first. What follows from them is one line at the end, unless ``in_full``, or when nothing else differs."""
    if not section.differs:
        yield f"equal ({section.kind})"
        return
    yield f"A and B differ ({section.kind})"
    in_full |= not section.total_of_causes
    yield from _section(section, 0, in_full)
    if not in_full and (following := list(section.following())):
        yield f"and what follows from that (-v lists it): {', '.join(f'{title} ({total})' for title, total in following)}"


def _section(section: Section, depth: int, in_full: bool) -> Iterator[str]:
    margin = "  " * depth
    yield from (f"{margin}! {cause}" for cause in section.causes)
    yield from (f"{margin}({remark})" for remark in section.remarks)
    equal = [below.title for below in section.sections if not below.differs]
    shown = [below for below in section.sections if below.differs and (in_full or not below.follows)]
    if equal:
        yield f"{margin}equal: {', '.join(equal[:20])}{' …' if len(equal) > 20 else ''}"
    if not depth and len(shown) > 1:
        totals = [below.total_in_all if in_full else below.total_of_causes for below in shown]
        yield "differ: " + ", ".join(f"{below.title} ({total})" for below, total in zip(shown, totals, strict=True))
    if section.total > 1:
        yield from (f"{margin}{line}" for line in section.summary())
    for finding in section.findings:
        yield from _finding(finding, margin)
    if section.total > len(section.findings):
        yield f"{margin}… and {section.total - len(section.findings)} more (--max shows them)"
    for below in shown:
        yield f"{margin}{below.title}" + (f" ({below.kind})" if below.kind not in below.title else "")
        yield from _section(below, depth + 1, in_full)


def _finding(finding: Finding, margin: str) -> Iterator[str]:
    if finding.verdict != "differs":
        kind = f" ({finding.kind}{_amount(finding)})" if finding.kind else ""
        yield f"{margin}- {finding.where}: {finding.verdict}{kind}"
    elif len(finding.changes) == 1:
        yield f"{margin}- {finding.where}: {_change(finding.changes[0], finding.where)}"
    else:
        yield f"{margin}- {finding.where}"
        yield from (f"{margin}    {_change(change)}" for change in finding.changes)
    yield from (f"{margin}    {line}" for line in finding.detail)


def _amount(finding: Finding) -> str:
    entries = f", {count_text(finding.entries, 'entry')}" if finding.entries > 1 else ""
    return entries + (f", {size_text(finding.content_bytes)}" if finding.content_bytes else "")


def _change(change: Change, where: str = "") -> str:
    if change.a is None and change.b is None:
        return f"{change.field} differs"
    name = "" if change.field in ("value", where) else f"{change.field}: "
    values = ("none" if value is None else str(value) for value in (change.a, change.b))
    return name + " / ".join(values)
