"""What all tools share: the pipe to them, and what can be told about them."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from shiplap.core import run
from shiplap.core.errors import OutsideFailure
from shiplap.rootfs.sinks.options import Write

_BUFFER_BYTES = 256 << 10
_PIPE_BYTES = 1 << 20

# Shared library of each compression, as both tools link it on Linux.
_LIBRARIES = {"zstd": "libzstd", "gzip": "libz", "xz": "liblzma", "lzma": "liblzma", "lz4": "liblz4", "lzo": "liblzo2"}


@contextmanager
def pipe_to(argv: Sequence[str]) -> Iterator[Write]:
    """Run a tool that reads its standard input and says nothing when all is well; yields the write function."""
    with run.feed(argv, silent=True) as pipe:
        _widen(pipe)
        buffer = PipeBuffer(pipe)
        yield buffer.write
        buffer.flush()


class PipeBuffer:
    """Thousands of small records become few writes, and partial writes are finished."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def write(self, data: bytes) -> int:
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= _BUFFER_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        left = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0
        while left:
            left = left[self._pipe.write(left) :]


def _widen(pipe: IO[bytes]) -> None:
    """A pipe of 1 MiB: the tool and we wait for each other less often."""
    try:
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass  # the user's limit on pipe memory is reached; the default works


def library_version(program: str, compression: str) -> str | None:
    """File name of the compressor's shared library that ``program`` runs with (``libzstd.so.1.5.4``), or None.

    The dynamic loader is asked, as ``ldd`` does; a static program just complains about its missing arguments.
    """
    library = _LIBRARIES.get(compression)
    if library is None:
        return None
    try:
        listed = run.run([program], allowed=range(256), extra_env={"LD_TRACE_LOADED_OBJECTS": "1"}).stdout
    except OutsideFailure:
        return None
    found = re.search(rb"^\s*%s\.so[.\d]* => (/\S+) " % library.encode(), listed, re.MULTILINE)
    return Path(os.fsdecode(found[1])).resolve().name if found else None


def version_of(argv: Sequence[str], pattern: bytes) -> str:
    """The version that ``pattern`` (with one group) finds in what the program says; raises OutsideFailure."""
    said = run.run(argv, allowed=range(256))
    found = re.search(pattern, said.stdout + said.stderr)
    if found is None:
        first = (said.stdout + said.stderr)[:200].decode("utf-8", "replace").strip()
        raise OutsideFailure(f"{Path(argv[0]).name} does not say its version but: {first}")
    return found[1].decode("ascii", "replace")
