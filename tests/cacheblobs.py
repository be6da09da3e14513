"""Blobs for a cache, and processes that use it beside the test's own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from commandline import environment
from shiplap.core.blobs import StoredBlob, blob_path
from shiplap.core.cache import Cache

TESTS = Path(__file__).parent


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def put(cache: Cache, data: bytes) -> str:
    digest = sha256(data)
    cache.add(digest, len(data), [data])
    return digest


def content(cache: Cache, digest: str, size_bytes: int) -> bytes:
    """The blob, read as builds read it: verified."""
    with cache.files() as files:
        return b"".join(StoredBlob(files, blob_path(digest), size_bytes, digest, None).chunks())


def blob_file(cache: Cache, digest: str) -> Path:
    return cache.root / blob_path(digest)


def partial_file(cache: Cache, digest: str) -> Path:
    return cache.root / "partial" / digest.replace(":", "-")


_PREAMBLE = """
import os, sys
from pathlib import Path
from shiplap.core.blobs import BlobCorrupt
from shiplap.core.cache import Cache
from shiplap.core.errors import ShiplapError
from cacheblobs import put, sha256
cache = Cache(Path(sys.argv[1]))
"""


def command(program: str, cache: Cache, *arguments: str) -> list[str]:
    """A Python process with ``cache`` and ``sys.argv[2:]``, which prints for the test."""
    return [sys.executable, "-c", _PREAMBLE + program, str(cache.root), *arguments]


def child_environment() -> dict[str, str]:
    env = environment()
    return {**env, "PYTHONPATH": f"{env['PYTHONPATH']}:{TESTS}", "PYTHONUNBUFFERED": "1"}


def process(program: str, cache: Cache, *arguments: str, **options: object) -> subprocess.Popen[str]:
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": child_environment(), **options}
    return subprocess.Popen(command(program, cache, *arguments), text=True, **options)  # type: ignore[call-overload,no-any-return]


def said(running: subprocess.Popen[str]) -> str:
    """The next line that the process prints; fails with its error when it has ended."""
    assert running.stdout is not None
    line = running.stdout.readline()
    if not line:
        raise AssertionError(running.communicate()[1])
    return line.strip()


def finished(running: subprocess.Popen[str]) -> str:
    """Everything else it prints, when it has ended well."""
    # Not communicate(): it knows nothing of what reading a line has buffered.
    assert running.stdin is not None and running.stdout is not None and running.stderr is not None
    running.stdin.close()
    out, err = running.stdout.read(), running.stderr.read()
    assert (running.wait(60), err) == (0, ""), err
    return out
