"""The entry: parse, run one verb, turn what was raised into one clear error and an exit code.

Exit codes: 0 ok; 1 something outside failed, or a comparison found a difference; 2 the input is refused;
3 a needed program is missing; 70 a bug; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Mapping, Sequence

from shiplap.cli.arguments import Asked, parse, verbosity, wants_json
from shiplap.cli.console import Console
from shiplap.cli.interrupts import Interrupted, signals_as_exceptions
from shiplap.cli.verbs import load
from shiplap.core.errors import ProgramMissing, Refused, ShiplapError
from shiplap.core.version import VERSION

OK, FAILED, REFUSED, MISSING, BUG, INTERRUPTED = 0, 1, 2, 3, 70, 130

# What the user named cannot be used as named; every other errno is the machine's trouble (disk full, I/O error).
_REFUSED_ERRNO = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTEMPTY,
}


# A checkout or a packager may leave out what pip would have installed.
_LIBRARIES = {"yaml": "pip install PyYAML, or on Debian: apt-get install python3-yaml"}


class DirectoryRefused(Refused):
    """The directory of ``-C`` cannot be entered."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: this process's) and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    _accept_any_text()
    console = Console(json=wants_json(words))
    try:
        with signals_as_exceptions(), contextlib.ExitStack() as undo:
            arguments = parse(words)
            console = Console(json=arguments.json, verbose=verbosity(arguments), color=arguments.color, progress=arguments.progress)
            if arguments.directory is not None:
                _enter(arguments.directory, undo)
            return load(arguments.verb).run(arguments, console)
    except Asked as asked:
        return _print_asked(asked, console)
    except ShiplapError as error:
        return _report(console, error.message, error.hint, exit_code(error), details_of(error))
    except OSError as error:
        return _report(console, *_explain(error), exit_code(error))
    except MemoryError:
        return _report(console, "out of memory", None, FAILED)
    except KeyboardInterrupt as error:
        name = f" ({error.name})" if isinstance(error, Interrupted) else ""
        return _report(console, f"interrupted{name}", None, INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - everything else is a bug, and a bug has its own exit code
        if isinstance(error, ModuleNotFoundError) and error.name in _LIBRARIES:
            return _report(console, f"the Python module {error.name} is not installed", _LIBRARIES[error.name], MISSING)
        traceback.print_exc()
        release = f"shiplap {VERSION} on Python {sys.version.split()[0]}"
        hint = f"please report it with the lines above, the command and the manifest; this is {release}"
        return _report(console, "this is a bug in shiplap, not a mistake of yours", hint, BUG, traced=True)
    finally:
        console.close()


def exit_code(error: ShiplapError | OSError) -> int:
    """The exit code for an error that reached the entry."""
    if isinstance(error, OSError):
        return REFUSED if error.errno in _REFUSED_ERRNO else FAILED
    if isinstance(error, Refused):
        return REFUSED
    return MISSING if isinstance(error, ProgramMissing) else FAILED


def details_of(error: ShiplapError) -> Mapping[str, object]:
    """What the JSON form of an error says beyond message and hint: a manifest's problems one by one."""
    problems = getattr(error, "problems", None)
    if not problems:
        return {}
    return {"problems": [{"path": p.path, "line": p.line, "column": p.column, "message": p.message} for p in problems]}


def _enter(directory: str, undo: contextlib.ExitStack) -> None:
    try:
        undo.enter_context(contextlib.chdir(directory))
    except OSError as error:
        raise DirectoryRefused(f"cannot enter {directory}: {error.strerror}", hint="-C names an existing directory") from error


def _print_asked(asked: Asked, console: Console) -> int:
    try:
        console.result(asked.data, asked.text)
    except ShiplapError as error:
        return _report(console, error.message, error.hint, exit_code(error))
    return OK


def _report(
    console: Console, message: str, hint: str | None, code: int, extra: Mapping[str, object] | None = None, *, traced: bool = False
) -> int:
    if console.verbose >= 2 and not traced:
        traceback.print_exc()
    console.error(message, hint=hint, exit_code=code, extra=extra)
    return code


def _explain(error: OSError) -> tuple[str, str | None]:
    """Message and hint for an OSError that nothing closer to it explained."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes, os.PathLike))]
    what = error.strerror or str(error) or type(error).__name__
    hint = None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space, or name another folder with -o or TMPDIR"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "shiplap needs no root, only a folder that you may write to and files that you may read"
    return (f"{' → '.join(names)}: {what}" if names else what), hint


def _accept_any_text() -> None:
    """Names in images and arguments need not be valid in this locale; printing them must not fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
