"""Two trees as files of one form or another, and what a comparison of them found, in short."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from shiplap.audit.diff import DiffOptions, diff_things
from shiplap.audit.differences import Finding, Section
from shiplap.core.entries import Entry
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT
from squashfsimages import tar_of, tree_order
from squashfswriting import write_image

FORMS = ("squashfs", "tar", "tar.gz")


def needs_root() -> None:
    """Skip the running test where owners, devices and trusted attributes cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("only root can make such files")


def written(path: Path, entries: Iterable[Entry], form: str) -> Path:
    """``path`` as a SquashFS, a tar or a gzipped tar of ``entries``."""
    if form == "squashfs":
        write_image(path, entries, "gzip", 1)
    else:
        data = tar_of(entries)
        if form == "tar.gz":
            data = gzip.compress(data, mtime=0)
        path.write_bytes(data)
    return path


def changed(entries: Iterable[Entry], path: bytes, **fields: object) -> list[Entry]:
    """The tree with fields of one entry replaced."""
    found = [replace(entry, **fields) if entry.path == path else entry for entry in entries]  # type: ignore[arg-type]
    return tree_order(found)


def compared(a: Path | str, b: Path | str, *, keep: int = 100, diffoscope: str | None = None) -> Section:
    return diff_things(str(a), str(b), DiffOptions(Limits(), SILENT, keep=keep, diffoscope=diffoscope))


def every_section(section: Section) -> Iterable[Section]:
    yield section
    for below in section.sections:
        yield from every_section(below)


def every_finding(section: Section) -> list[Finding]:
    return [finding for one in every_section(section) for finding in one.findings]


def told(section: Section) -> list[tuple[str, str]]:
    """(where, what they have in common) of the section's own findings."""
    return [(finding.where, finding.group) for finding in section.findings]


def every_text(section: Section) -> list[str]:
    """Everything that is said, causes and remarks among it."""
    said = []
    for one in every_section(section):
        said += [one.title, *one.causes, *one.remarks]
        for finding in one.findings:
            said += [finding.where, *(str(value) for change in finding.changes for value in (change.field, change.a, change.b))]
            said += finding.detail
    return said
