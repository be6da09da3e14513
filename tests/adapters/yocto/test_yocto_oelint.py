"""What oelint-adv, the linter of OpenEmbedded's recipes, says of the generated files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from requirement import SEARCH_PATH, missing
from shiplap.adapters.yocto import render
from yoctoconfigs import CASES

# The first wants an http address, and looks at the network; the second knows the fetchers of BitBake itself only.
_SUPPRESSED = ("oelint.vars.homepageping", "oelint.vars.srcurioptions")


def findings(folder: Path) -> list[str]:
    """Warnings and errors; hints about variables that a recipe could have, too, are left out."""
    beside = Path(sys.executable).parent
    linter = shutil.which("oelint-adv", path=f"{beside}:{SEARCH_PATH}")
    if linter is None:
        missing("yocto-tools", "oelint-adv is not installed: pip install oelint-adv")
    files = sorted(str(path) for path in folder.rglob("*") if path.suffix in (".bb", ".bbclass", ".conf"))
    words = [str(linter), "--quiet", "--nobackup", "--jobs", "1", *(f"--suppress={name}" for name in _SUPPRESSED), *files]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(folder)}, cwd=folder)
    lines = [line.removeprefix(f"{folder}/") for line in (done.stdout + done.stderr).splitlines()]
    return [line for line in lines if re.match(r"\S+:\d+:(warning|error):", line)]


def written(folder: Path, case: str) -> Path:
    for path, text in render(CASES[case]()).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_the_linter_of_recipes_finds_nothing(tmp_path: Path, case: str) -> None:
    assert findings(written(tmp_path, case)) == []


def test_the_linter_is_awake(tmp_path: Path) -> None:
    written(tmp_path, "prebuilt")
    recipe = next(tmp_path.rglob("*-store_*.bb"))
    recipe.write_text(recipe.read_text().replace("SUMMARY", "SUMARY"))
    assert any("SUMMARY" in line for line in findings(tmp_path))
