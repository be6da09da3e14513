"""The programs that write a SquashFS, put where a sink finds them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from requirement import require
from squashfsimages import mksquashfs_for_tar


def prepared(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """``name``, when the tool of that name can be used; skips the test otherwise."""
    if name == "mksquashfs":
        use_as(mksquashfs_for_tar(), "mksquashfs", tmp_path, monkeypatch)
    elif name != "builtin":
        require(name)
    return name


def use_as(program: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put ``program`` first into PATH under ``name``."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(program)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
