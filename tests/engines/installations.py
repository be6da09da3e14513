"""Which engines there are to try: the installed one, and newer ones in root directories of their own.

``SHIPLAP_ENGINE_ROOTS`` names a directory of such roots (``make_roots`` fills it); nothing else finds them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from requirement import missing, require

ROOTS_VARIABLE = "SHIPLAP_ENGINE_ROOTS"


@dataclass(frozen=True, slots=True)
class Installation:
    """``root`` holds the programs; None stands for newer engines that nobody has made available."""

    name: str
    root: Path | None

    def demand(self, tool: str) -> Path:
        """The root, or skip (fail when demanded): ``tool`` is a name of tests/requirement.py, docker or podman."""
        if self.root is None:
            missing("engines-newer", f"{ROOTS_VARIABLE} names no directory made by tests/engines/make_roots")
        if os.geteuid() != 0:
            missing(tool, "a private root needs root")
        if self.root == Path("/"):
            require(tool)
        assert self.root is not None
        return self.root


def installations() -> list[Installation]:
    found = [Installation("installed", Path("/"))]
    named = os.environ.get(ROOTS_VARIABLE)
    newer = [Installation(one.name, one) for one in sorted(Path(named).iterdir()) if (one / "usr/sbin/dockerd").exists()] if named else []
    return found + (newer or [Installation("newer", None)])
