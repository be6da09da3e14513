"""Programs that end everything at a set number of calls, as a power cut does: put in front of PATH."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Everything that the target kit runs and that changes a file.
CHANGING = ("mv", "rm", "ln", "mkdir", "rmdir", "chmod", "cp", "cat", "sync", "touch")
SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"

_CUT = """\
#!/bin/sh
# Counts; at the set number the power goes: half of the work done, and everything that was asked for it dies.
count=$(($(/usr/bin/cat "$CUT_FOLDER/count" 2>/dev/null || echo 0) + 1))
echo $count >"$CUT_FOLDER/count"
if [ "$count" -eq "$CUT_AT" ]; then kill -9 $PPID; exit 1; fi
exec /usr/bin/{program} "$@"
"""


def make_cuts(folder: Path) -> Path:
    """The folder of programs, for :func:`cut_environment`."""
    cuts = folder / "cuts"
    cuts.mkdir()
    for program in CHANGING:
        (cuts / program).write_text(_CUT.replace("{program}", program))
        (cuts / program).chmod(0o755)
    return cuts


def cut_environment(folder: Path, cut_at: int) -> dict[str, str]:
    """The power goes at call number ``cut_at``; 0: never. Counts from the start again."""
    (folder / "count").unlink(missing_ok=True)
    path = f"{folder / 'cuts'}:{SYSTEM_PATH}" if cut_at else SYSTEM_PATH
    return {"PATH": path, "CUT_FOLDER": str(folder), "CUT_AT": str(cut_at)}


def tree(root: Path) -> dict[str, tuple[str, str]]:
    """Path → (type and mode, content or target) of everything but the kit's working files."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            relative = str(path.relative_to(root))
            if relative.startswith(".shiplap/new"):
                continue
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_text("latin-1") if path.is_file() else ""
            found[relative] = (stat.filemode(status.st_mode), content)
    return found
