"""A verb for tests of the frame: ``probe KIND`` ends in every way a verb can end.

Run as a program it is the command line with that verb added.
"""

from __future__ import annotations

import argparse
import errno
import sys
import time
import types
from pathlib import Path

from shiplap.cli import arguments as command_line
from shiplap.cli import verbs
from shiplap.cli.console import Console
from shiplap.core.errors import Difference, OutsideFailure, ProgramMissing, Refused, ShiplapError

NAME = "probe"
SUMMARY = "end in a chosen way"
EXAMPLES = "shiplap probe ok"

RAISED: dict[str, BaseException] = {
    "refused": Refused("the image is odd", hint="send another"),
    "outside": OutsideFailure("tar2sqfs failed"),
    "difference": Difference("layer 3 differs"),
    "missing": ProgramMissing("tar2sqfs is not installed", hint="on Debian: apt-get install squashfs-tools-ng"),
    "base": ShiplapError("something else"),
    "full": OSError(errno.ENOSPC, "No space left on device", "/out/store.squashfs"),
    "io": OSError(errno.EIO, "Input/output error"),
    "permission": PermissionError(errno.EACCES, "Permission denied", "/root/x"),
    "readonly": OSError(errno.EROFS, "Read-only file system", "/usr/x"),
    "absent": FileNotFoundError(errno.ENOENT, "No such file or directory", b"/caf\xe9"),
    "rename": FileExistsError(errno.EEXIST, "File exists", "a", None, "b"),
    "memory": MemoryError(),
    "ctrl-c": KeyboardInterrupt(),
    "bug": RuntimeError("impossible"),
    "module": ModuleNotFoundError("No module named 'yaml'", name="yaml"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind in ("ok", "sleep", "state", *RAISED):
        nested = kinds.add_parser(kind, help=kind, description=kind)
        nested.add_argument("file", nargs="?", metavar="FILE", help="left behind only when cleaning up failed")
        nested.add_argument("--chunk-size", metavar="SIZE", help="nothing")


def run(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.kind == "ok":
        console.result({"kind": "ok"}, "fine")
        return 0
    if arguments.kind == "state":
        state = {"directory": str(Path.cwd()), "json": console.json, "verbose": console.verbose}
        console.result(state, str(state))
        return 0
    if arguments.kind == "sleep":
        return _sleep(Path(arguments.file), console)
    raise RAISED[arguments.kind]


def _sleep(left: Path, console: Console) -> int:
    try:
        with console.progress.task("sleeping", 100):
            left.write_text("partial output")
            console.note("sleeping")
            time.sleep(30)
    finally:
        time.sleep(0.3)  # a clean-up that a second signal could hit
        left.unlink()
    return 0


def install() -> None:
    """Add the verb to the registry of this process."""
    sys.modules["shiplap.cli.probe"] = sys.modules[__name__]
    verbs.VERBS = command_line.VERBS = (*verbs.VERBS, NAME)  # type: ignore[assignment]


if __name__ == "__main__":
    from shiplap.cli.main import main

    assert isinstance(sys.modules[__name__], types.ModuleType)
    install()
    sys.exit(main())
