"""Where this user's configuration lies (XDG base directory specification, and what containers' tools make of it)."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path


def home_folder(environment: Mapping[str, str]) -> Path | None:
    """``$HOME``, else what the user database says; None for a user without one."""
    if home := environment.get("HOME"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def config_folder(environment: Mapping[str, str]) -> Path | None:
    """``$XDG_CONFIG_HOME``, else ``~/.config``."""
    if configured := environment.get("XDG_CONFIG_HOME"):
        return Path(configured)
    home = home_folder(environment)
    return None if home is None else home / ".config"
