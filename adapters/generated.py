"""A generated tree on disk: written over itself again and again, and nothing that somebody edited is ever lost.

``.shiplap-generated`` in the tree says what was written: a line ``sha256  path`` for each file. A file that still is what
we wrote is replaced, or removed when it is no longer generated. One that is not stays as it is; what we would
have written stands beside it with the suffix ``.shiplap-new``.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shiplap.core.errors import OutsideFailure, Refused

STAMP_NAME = ".shiplap-generated"
NEW_SUFFIX = ".shiplap-new"

Writer = Callable[[Callable[[bytes], object]], object]
"""Called with a write function; a file's content as it is made."""


class TreeRefused(Refused):
    """A folder that cannot take the generated files."""


@dataclass(frozen=True, slots=True)
class TreeReport:
    """Paths in the tree, sorted. ``kept``: edited by somebody, left as they are. ``left``: edited, and no longer generated."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    kept: tuple[str, ...]
    left: tuple[str, ...]
    removed: tuple[str, ...]


def write_tree(folder: Path, texts: Mapping[str, str], carried: Mapping[str, Writer], *, force: bool = False) -> TreeReport:
    """Bring the tree in ``folder`` to ``texts`` and ``carried`` (path → content). A text that begins with ``#!`` is executable.

    ``force``: edited files are replaced, too. Raises TreeRefused, and OutsideFailure when the disk does not take it.
    """
    before = _stamp(folder)
    wanted: dict[str, Writer] = {path: _text_writer(text) for path, text in texts.items()} | dict(carried)
    lists: dict[str, list[str]] = {"written": [], "unchanged": [], "kept": [], "left": [], "removed": []}
    stamp: dict[str, str] = {}
    for path in sorted({*wanted, *before}):
        _inside(folder, path)
        _inside(folder, path + NEW_SUFFIX)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TreeRefused(f"cannot use {folder} as the folder to write to: {error.strerror}", hint="give another folder with -o") from error
    try:
        for path in sorted(wanted):
            executable = path in texts and texts[path].startswith("#!")
            what, stamp[path] = _put(folder, path, wanted[path], before.get(path), executable, force)
            lists[what].append(path)
        for path in sorted(set(before) - set(wanted)):
            if gone := _remove(folder, path, before[path], force):
                lists[gone].append(path)
        _replace(folder, STAMP_NAME, _text_writer("".join(f"{stamp[path]}  {path}\n" for path in sorted(stamp))), 0o644)
    except PermissionError as error:
        raise TreeRefused(f"cannot write to {error.filename or folder}: {error.strerror}", hint="give another folder with -o") from error
    except OSError as error:
        raise OutsideFailure(f"cannot write the generated files to {folder}: {error.strerror}") from error
    return TreeReport(**{name: tuple(paths) for name, paths in lists.items()})


def _put(folder: Path, path: str, writer: Writer, before: str | None, executable: bool, force: bool) -> tuple[str, str]:
    """What became of it (a list of TreeReport), and the sha256 that the stamp has to remember."""
    ours, there = _digest_of(writer), _digest_at(_inside(folder, path))
    mode = 0o755 if executable else 0o644
    if there == ours:
        (folder / path).chmod(mode)
        (folder / (path + NEW_SUFFIX)).unlink(missing_ok=True)
        return "unchanged", ours
    if there is not None and there != before and not force:
        _replace(folder, path + NEW_SUFFIX, writer, mode)
        return "kept", ours
    _replace(folder, path, writer, mode)
    (folder / (path + NEW_SUFFIX)).unlink(missing_ok=True)
    return "written", ours


def _remove(folder: Path, path: str, before: str, force: bool) -> str | None:
    place = _inside(folder, path)
    there = _digest_at(place)
    (folder / (path + NEW_SUFFIX)).unlink(missing_ok=True)
    if there is None:
        return None
    if there != before and not force:
        return "left"
    place.unlink()
    for parent in place.relative_to(folder).parents:
        if str(parent) == "." or any((folder / parent).iterdir()):
            break
        (folder / parent).rmdir()
    return "removed"


def _inside(folder: Path, path: str) -> Path:
    """Where ``path`` is; no link on the way may lead out of the tree."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or not parts or not path.isprintable():
        raise TreeRefused(f"{folder / STAMP_NAME} names {path!r:.80}, which is no generated file")
    place = folder
    for part in parts[:-1]:
        place = place / part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise TreeRefused(f"{place} is in the way: a folder is needed there")
    place = place / parts[-1]
    if place.is_symlink() or (place.exists() and not place.is_file()):
        raise TreeRefused(f"{place} is in the way: a regular file is generated there")
    return place


def _stamp(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / STAMP_NAME).read_text("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise TreeRefused(f"cannot read {folder / STAMP_NAME}: {error.strerror}") from error
    pairs = (line.partition("  ") for line in lines)
    return {path: digest for digest, _, path in pairs if path}


def _text_writer(text: str) -> Writer:
    data = text.encode()
    return lambda write: write(data)


def _digest_of(writer: Writer) -> str:
    hasher = hashlib.sha256()
    writer(hasher.update)
    return hasher.hexdigest()


def _digest_at(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _replace(folder: Path, path: str, writer: Writer, mode: int) -> None:
    """Whole or not at all."""
    place = _inside(folder, path)
    for parent in reversed(place.relative_to(folder).parents):
        if not (folder / parent).exists():
            (folder / parent).mkdir()
            (folder / parent).chmod(0o755)  # whatever the umask
    descriptor, name = tempfile.mkstemp(prefix=".shiplap-", dir=place.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            writer(file.write)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
