"""Commands that see a small tmpfs over one folder, in a mount namespace of their own: disks that are full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

_MOUNT = 'mount -t tmpfs -o "size=$1,mode=1777" shiplap "$2"; shift 2; exec "$@"'


@cache
def _unshare() -> tuple[str, ...] | None:
    """A command that gives its own command private mounts; as an ordinary user through a user namespace."""
    words = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-r", "-m")
    try:
        done = subprocess.run([*words, "mount", "-t", "tmpfs", "shiplap", "/mnt"], capture_output=True, check=False)
    except OSError:
        return None
    return words if done.returncode == 0 else None


def with_small_disk(folder: Path, size: str, command: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``command`` with an empty tmpfs of ``size`` (``20m``) over ``folder``; skips where no mount is allowed."""
    words = _unshare()
    if words is None:
        pytest.skip("no private mount namespace here")
    folder.mkdir(exist_ok=True)
    argv = [*words, "sh", "-ec", _MOUNT, "sh", size, str(folder), *command]
    return subprocess.run(argv, env=dict(env), capture_output=True, text=True, check=False, timeout=120)
