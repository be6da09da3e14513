"""The one door to external programs.

Programs get a scrubbed environment: nothing of the caller's locale, time zone or
``SOURCE_DATE_EPOCH`` reaches a tool whose bytes it could change (mksquashfs refuses
SOURCE_DATE_EPOCH together with its own time options, for one).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shiplap.core.errors import OutsideFailure, ProgramMissing

_KEEP = ("PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH", "LD_PRELOAD")
_STDERR_TAIL_BYTES = 4000


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program said; a non-zero exit has already become an OutsideFailure unless allowed."""

    returncode: int
    stdout: bytes
    stderr: bytes


def find(program: str, *, package: str) -> str:
    """Absolute path of ``program``; raises ProgramMissing naming the Debian ``package`` that has it."""
    # Debian keeps veritysetup and friends in /usr/sbin, which an ordinary user's PATH lacks.
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which(program, path=os.pathsep.join((path, "/usr/sbin", "/sbin")))
    if found is None:
        raise ProgramMissing(f"{program} is not installed", hint=f"on Debian: apt-get install {package}")
    return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The scrubbed environment every program gets, plus ``extra``."""
    env = {name: os.environ[name] for name in _KEEP if name in os.environ}
    env.update(LC_ALL="C", TZ="UTC")
    env.update(extra or {})
    return env


def run(
    argv: Sequence[str | os.PathLike[str]], *, allowed: Sequence[int] = (0,), stdin: bytes = b"", extra_env: Mapping[str, str] | None = None
) -> Completed:
    """Run a program to its end. An exit code outside ``allowed`` raises OutsideFailure with what it wrote."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, env=environment(extra_env), check=False)
    except OSError as error:
        raise OutsideFailure(f"cannot run {os.fspath(argv[0])}: {error.strerror}") from error
    if done.returncode not in allowed:
        raise OutsideFailure(_failure(argv, done.returncode, done.stderr or done.stdout))
    return Completed(done.returncode, done.stdout, done.stderr)


@contextmanager
def feed(
    argv: Sequence[str | os.PathLike[str]], *, extra_env: Mapping[str, str] | None = None, silent: bool = False
) -> Iterator[IO[bytes]]:
    """Run a program and yield its standard input to write to; leaving the context waits for it.

    The standard input is unbuffered: a write can be partial. A program that dies early, or ends well without
    having read everything, surfaces as its own failure, not as a broken pipe. ``silent``: also one that ends
    well but said something (tools that warn, leave something out and exit with 0). When the body raises,
    the program is killed and the body's error goes on.
    """
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment(extra_env), bufsize=0)
        except OSError as error:
            raise OutsideFailure(f"cannot run {os.fspath(argv[0])}: {error.strerror}") from error
        assert process.stdin is not None
        all_read = True
        try:
            try:
                yield process.stdin
            except BrokenPipeError:
                all_read = False  # it has said why on its standard error; the exit code below decides
            # Before waiting, in every case: a program waits for the end of its input, too.
            process.stdin.close()
            returncode = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            process.stdin.close()
            process.wait()
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - _STDERR_TAIL_BYTES))
        said = log.read()
        if returncode != 0 or not all_read or (silent and said.strip()):
            raise OutsideFailure(_failure(argv, returncode, said, all_read=all_read))


def _failure(argv: Sequence[str | os.PathLike[str]], returncode: int, said: bytes, *, all_read: bool = True) -> str:
    if returncode:
        how = f"was ended by signal {-returncode}" if returncode < 0 else f"failed with exit code {returncode}"
    else:
        how = "warned" if all_read else "ended before it had read everything"
    text = said[-_STDERR_TAIL_BYTES:].decode("utf-8", "replace").strip()
    return f"{Path(argv[0]).name} {how}" + (f": {text}" if text else "")
