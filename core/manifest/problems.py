"""What is wrong with a manifest: all of it at once, each with its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shiplap.core.errors import Refused

# A hostile file must not turn into a hostile error message.
_MAX_SHOWN = 50
_MAX_QUOTED = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. ``path``: the YAML path (``images[0].ref``) or the option; ``line`` and ``column`` count
    from 1, and are 0 where the mistake is in no file. ``file``: another file than the manifest itself.
    """

    path: str
    line: int
    column: int
    message: str
    file: str | None = None


class ManifestError(Refused):
    """A manifest, or options on top of it, that cannot be used; ``problems`` in the order of the files."""

    def __init__(self, name: str, problems: Iterable[Problem], *, hint: str | None = None) -> None:
        self.name = name
        self.problems = tuple(sorted(problems, key=lambda p: (p.file or "", p.line, p.column)))
        lines = [_line(name, problem) for problem in self.problems[:_MAX_SHOWN]]
        if len(self.problems) > _MAX_SHOWN:
            lines.append(f"and {len(self.problems) - _MAX_SHOWN} more")
        heading = f"{name} has {len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
        super().__init__("\n  ".join([heading, *lines]), hint=hint)


def _line(name: str, problem: Problem) -> str:
    name = problem.file or name
    place = f"{name}:{problem.line}:{problem.column}: " if problem.line else ""
    return f"{place}{problem.path}: {problem.message}" if problem.path else f"{place}{problem.message}"


def quoted(text: object) -> str:
    """A value of the file for a message: one line, never long."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: _MAX_QUOTED + 1])
    return f"`{shown}`" if len(shown) <= _MAX_QUOTED else f"`{shown[:_MAX_QUOTED]}…`"
