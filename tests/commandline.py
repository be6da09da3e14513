"""Runs the real command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import shiplap.cli.main

# The folder that makes `shiplap` importable: .ns of a checkout, or site-packages.
IMPORT_ROOT = Path(shiplap.cli.main.__file__).parents[2]
COMMAND = (sys.executable, "-P", "-m", "shiplap.cli")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without what changes our output, and with the package importable."""
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "SOURCE_DATE_EPOCH", "COLUMNS")}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(IMPORT_ROOT), env.get("PYTHONPATH"))))
    return {**env, **(extra or {})}


def shiplap_command(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``shiplap ARGUMENTS…`` to its end; its output is text."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return subprocess.run([*COMMAND, *arguments], env=environment(env), text=True, check=False, timeout=60, **options)


@contextmanager
def folder_for_everybody() -> Iterator[Path]:
    """A temporary folder that other users can look into; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="shiplap-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def nobody_can_run_it() -> bool:
    """Whether user 65534 can run the command line: the checkout or its Python may lie where only root may look."""
    if os.geteuid() != 0:
        return False
    nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/"}
    try:
        return subprocess.run([*COMMAND, "--version"], env=environment(), capture_output=True, check=False, **nobody).returncode == 0
    except PermissionError:
        return False
