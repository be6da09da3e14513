"""The feed's own Makefile, run by GNU make under the clean-room stub of OpenWrt's includes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

STUB = Path(__file__).parent / "stub"


def make_tree(folder: Path, feed: Path, config: Mapping[str, str]) -> Path:
    """A tree in ``folder`` with the stub, the feed as `src-cpy` brings it, and a .config."""
    shutil.copytree(STUB, folder)
    shutil.copytree(feed, folder / "feeds/test")
    (folder / "scripts").mkdir()
    (folder / ".config").write_text("".join(f"CONFIG_{name}={value}\n" for name, value in config.items()))
    return folder


def make(tree: Path, package: str, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """``make WORDS`` in the package's folder."""
    folder = tree / "feeds/test/utils" / package
    return subprocess.run(
        ["make", "--no-print-directory", f"TOPDIR={tree}", *words],
        cwd=folder,
        env=env,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )


def installed(tree: Path, package: str, version: str) -> Path:
    """Where the package's files are, as they come into the root file system."""
    return tree / f"build_dir/{package}-{version}/ipkg"
