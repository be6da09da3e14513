"""A finished build as one archive: the form in which a build system that cannot run shiplap takes it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from shiplap.adapters.config import Prebuilt, PrebuiltFile
from shiplap.core.entries import Entry, FileSlice, Kind
from shiplap.core.errors import Refused
from shiplap.core.output import SUMS_NAME, sha256_file
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry

Advance = Callable[[int], object]

# The names stand in recipes, and so does the root hash.
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]{0,99})")
_ROOT_HASH = re.compile(r"[0-9a-f]{64,128}")
_SMALL_BYTES = 64 << 10
"""More than SHA256SUMS and store.roothash have."""


class BundleRefused(Refused):
    """A folder that is no finished build, or not of this lock."""


def read_build(out: Path, advance: Advance = lambda amount_bytes: None) -> tuple[PrebuiltFile, ...]:
    """Every artifact of the output folder ``out``, proven against its SHA256SUMS; that file is the last one.

    Raises BundleRefused. Foreign files in the folder are no part of a build.
    """
    try:
        sums = _small(out / SUMS_NAME)
    except OSError as error:
        raise BundleRefused(
            f"{out} is no finished build: cannot read {SUMS_NAME}: {error.strerror}", hint="name the output folder of `shiplap build`"
        ) from error
    stated: dict[str, str] = {}
    for line in sums.removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in stated or match[2] == SUMS_NAME:
            raise BundleRefused(f"{out / SUMS_NAME} has a line that no build writes: {line!r:.80}", hint="build again")
        stated[match[2]] = match[1]
    files = [_proven(out / name, digest, advance) for name, digest in stated.items()]
    files.append(_proven(out / SUMS_NAME, None, advance))
    return tuple(files)


def _small(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_SMALL_BYTES).decode("ascii", "replace")


def _proven(path: Path, stated: str | None, advance: Advance) -> PrebuiltFile:
    try:
        if not path.is_file():
            raise BundleRefused(f"{path} is missing, or no regular file", hint="build again")
        found, size_bytes = sha256_file(path, advance)
    except OSError as error:
        raise BundleRefused(f"cannot read {path}: {error.strerror}", hint="build again") from error
    if stated not in (None, found):
        raise BundleRefused(f"{path} is not what {SUMS_NAME} says: sha256 {found}, stated {stated}", hint="build again")
    return PrebuiltFile(path.name, found, size_bytes)


def describe_bundle(out: Path, files: tuple[PrebuiltFile, ...], top: str, epoch: int, url: str | None = None) -> Prebuilt:
    """The bundle that :func:`write_bundle` writes for the same arguments: name, size and sha256. ``top``: ``<name>-<version>``.

    Raises BundleRefused for a root hash that is none.
    """
    hasher = hashlib.sha256()
    size_bytes = 0

    def take(piece: bytes) -> None:
        nonlocal size_bytes
        hasher.update(piece)
        size_bytes += len(piece)

    write_bundle(out, files, top, epoch, take)
    root_hash = None
    if any(file.name == "store.roothash" for file in files):
        root_hash = _small(out / "store.roothash").strip()
        if not _ROOT_HASH.fullmatch(root_hash):
            raise BundleRefused(f"{out / 'store.roothash'} holds {root_hash!r:.80}, which is no root hash", hint="build again")
    return Prebuilt(f"{top}.tar", hasher.hexdigest(), size_bytes, files, root_hash, url)


def write_bundle(out: Path, files: tuple[PrebuiltFile, ...], top: str, epoch: int, write: Callable[[bytes], object]) -> None:
    """Call ``write`` with the bundle's pieces: a canonical tar of the folder ``top``, files of root, mode 0644, at the epoch."""
    with ExitStack() as stack:
        for entry in _entries(out, files, top, epoch, stack):
            write_entry(entry, write)
    write(END_OF_ARCHIVE)


def _entries(out: Path, files: tuple[PrebuiltFile, ...], top: str, epoch: int, stack: ExitStack) -> Iterator[Entry]:
    yield Entry(top.encode(), Kind.DIRECTORY, 0o755, mtime_epoch=epoch)
    for file in sorted(files, key=lambda one: one.name):
        opened = stack.enter_context((out / file.name).open("rb"))
        content = FileSlice(opened.fileno(), 0, file.size_bytes, file.name)
        yield Entry(f"{top}/{file.name}".encode(), Kind.REGULAR, 0o644, mtime_epoch=epoch, content=content)
