"""The erofs-utils that tests use: those of SHIPLAP_EROFS_UTILS (a folder with mkfs.erofs, fsck.erofs and dump.erofs) or of PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from requirement import SEARCH_PATH, missing


def use_new_erofs_utils(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put erofs-utils 1.8 or newer first into PATH; skips the test where there are none."""
    folder = os.environ.get("SHIPLAP_EROFS_UTILS")
    path = os.pathsep.join(([folder] if folder else []) + [SEARCH_PATH])
    program = shutil.which("mkfs.erofs", path=path)
    said = subprocess.run([program, "--help"], capture_output=True, check=False).stdout if program else b""
    if b"--tar" not in said or b"--mkfs-time" not in said:
        missing("tools-newer", "erofs-utils 1.8 or newer (tests/make_newer_tools brings them; SHIPLAP_EROFS_UTILS names their folder)")
    monkeypatch.setenv("PATH", path)


def use_program(name: str, script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script first into PATH under ``name``."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
