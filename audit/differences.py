"""What a comparison found, as values: sections of findings, each with the fields that differ.

Everything foreign in here is text that has been made printable. Numbers of findings are counted without limit,
kept are the first ones only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SHOWN_CHARACTERS = 400
_GROUPS_MAX = 500
_OTHER = "other fields"


@dataclass(frozen=True, slots=True)
class Change:
    """One field with its two values; None: it is not there on that side."""

    field: str
    a: str | int | None
    b: str | int | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that differs.

    ``where``: a path, or a place in a document. ``verdict``: ``differs``, ``only in A`` or ``only in B``.
    ``detail``: lines that show the contents, a unified diff or bytes in hex. ``kind``: of an entry that only one has.
    ``entries``, ``content_bytes``: of a directory that only one has, with everything in it.
    """

    where: str
    verdict: str = "differs"
    changes: tuple[Change, ...] = ()
    detail: tuple[str, ...] = ()
    kind: str = ""
    entries: int = 1
    content_bytes: int = 0

    @property
    def group(self) -> str:
        """What findings of one cause have in common."""
        if self.verdict != "differs":
            return self.verdict
        return " and ".join(dict.fromkeys(change.field for change in self.changes)) or _OTHER

    def to_data(self) -> dict[str, object]:
        data: dict[str, object] = {"where": self.where, "verdict": self.verdict}
        if self.changes:
            data["fields"] = [{"field": one.field, "a": one.a, "b": one.b} for one in self.changes]
        if self.detail:
            data["detail"] = list(self.detail)
        if self.verdict != "differs" and self.kind:
            data |= {"kind": self.kind, "entries": self.entries, "content_bytes": self.content_bytes}
        return data


@dataclass(slots=True)
class Section:
    """One pair of things, and below it the pairs that are inside them.

    ``kind``: what they are. ``causes``: sentences that explain the rest (other tools, another compressor). ``remarks``:
    what the reader should know, no differences by themselves. ``bytes_differ``: they are not the same byte for byte.
    ``follows``: what differs in it is no cause: sums and figures that follow from other differences, when there are any.
    ``keep``: how many findings are kept. ``common``: the changes of a group whose findings all change alike, else None.
    """

    title: str
    kind: str
    keep: int
    bytes_differ: bool = False
    causes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    total: int = 0
    groups: Counter[str] = field(default_factory=Counter)
    common: dict[str, tuple[Change, ...] | None] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    follows: bool = False

    @property
    def has_room(self) -> bool:
        """Whether the next finding would be kept, and its details are worth the work."""
        return len(self.findings) < self.keep

    @property
    def differs(self) -> bool:
        return self.bytes_differ or bool(self.total) or any(section.differs for section in self.sections)

    @property
    def total_in_all(self) -> int:
        """Findings of this section and of all below it."""
        return self.total + sum(section.total_in_all for section in self.sections)

    @property
    def total_of_causes(self) -> int:
        """Findings of this section and of all below it, without those that follow."""
        return 0 if self.follows else self.total + sum(section.total_of_causes for section in self.sections)

    def following(self, title: str = "") -> Iterator[tuple[str, int]]:
        """The sections that differ and follow, as (title from the outermost inwards, number of findings)."""
        for section in self.sections:
            name = f"{title}{section.title}"
            if section.follows and section.differs:
                yield name, section.total_in_all
            else:
                yield from section.following(f"{name}'s ")

    def add(self, finding: Finding) -> None:
        self.total += 1
        group = finding.group
        if group not in self.groups and len(self.groups) >= _GROUPS_MAX:
            group = _OTHER
        self.groups[group] += 1
        if self.common.setdefault(group, finding.changes) != finding.changes:
            self.common[group] = None
        if self.has_room:
            self.findings.append(finding)

    def changed(self, where: str, changes: Iterable[Change]) -> None:
        self.add(Finding(where, changes=tuple(changes)))

    def section(self, title: str, kind: str) -> Section:
        """A new section below this one."""
        below = Section(title, kind, self.keep)
        self.sections.append(below)
        return below

    def summary(self) -> list[str]:
        """The findings by what they have in common, the most frequent first."""
        return [self._sentence(group, count) for group, count in self._by_count() if group != "value"]

    def _by_count(self) -> list[tuple[str, int]]:
        return sorted(self.groups.items(), key=lambda item: (-item[1], item[0]))

    def _sentence(self, group: str, count: int) -> str:
        if group.startswith("only in"):
            return f"{count} {'is' if count == 1 else 'are'} {group}"
        only = "" if " and " in group or group == _OTHER else " only"
        sentence = f"{count} {'differs' if count == 1 else 'differ'} in {group}{only}"
        alike = [change for change in self.common.get(group) or () if (change.a, change.b) != (None, None)]
        if count > 1 and alike:
            sentence += ", all alike: " + ", ".join(f"{change.a} / {change.b}" for change in alike)
        return sentence

    def to_data(self) -> dict[str, object]:
        """The JSON object of ``shiplap diff --json``, without the things' names."""
        return {
            "title": self.title,
            "kind": self.kind,
            "differs": self.differs,
            "follows": self.follows,
            "causes": self.causes,
            "remarks": self.remarks,
            "groups": [{"what": group, "count": count} for group, count in self._by_count()],
            "findings": [finding.to_data() for finding in self.findings],
            "findings-total": self.total,
            "sections": [section.to_data() for section in self.sections],
        }


def clipped(text: str, most: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def fields_of(pairs: Iterable[tuple[str, str | int | None, str | int | None]]) -> tuple[Change, ...]:
    """The pairs whose two values are not equal."""
    return tuple(Change(name, a, b) for name, a, b in pairs if a != b)
