"""What is in a SquashFS, field by field, in the words of unsquashfs 4.6 and newer."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_WORDS = re.compile(r"(?<!\\) +")  # a space of a name is written with a backslash


def entries(unsquashfs: Path, image: Path, top: str = "") -> list[str]:
    """Everything below ``top`` (a folder with a slash at its end), a line each: name, type, time, mode, owner, size, target, attributes."""
    told = subprocess.run([unsquashfs, "-pf", "-", image], capture_output=True, check=True).stdout.partition(b"# START OF DATA")[0]
    lines = [line.removeprefix("/") for line in told.decode().splitlines() if not line.startswith("#")]
    below = [line.removeprefix(top) for line in lines if line.startswith(top)]
    return sorted(" ".join(_shown(_WORDS.split(line), top)) for line in below if line[:1] not in ("", " "))


def _shown(words: list[str], top: str) -> list[str]:
    """Without what depends on the image: a file's place in the data, the folder in a hard link's name."""
    if words[1] == "L":
        return [*words[:2], words[2].removeprefix(top)]
    return words[:7] if words[1] == "R" else words
