"""Lint, format and types are tests like all others; they look at the whole repository."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from requirement import missing

ROOT = Path(__file__).parents[1]

CHECKS = {
    "ruff check": ("ruff", "check", "."),
    "ruff format": ("ruff", "format", "--check", "--diff", "."),
    "mypy": ("mypy", "--no-error-summary"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_whole_repository_passes(name: str) -> None:
    module, *arguments = CHECKS[name]
    if importlib.util.find_spec(module) is None:
        missing(module, f"{module} is not installed; the README's test command installs it")
    if not (ROOT / ".ns").is_dir():
        pytest.skip("not a checkout: the source distribution is checked through the installed package")
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"
