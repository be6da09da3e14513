"""The output folder: artifacts appear whole or not at all.

Everything is written into ``OUT/.shiplap-XXXX``; only when all of it is complete and on disk is
each artifact renamed into place. ``SHA256SUMS`` goes first and comes back last: a folder without it is
incomplete. Our own artifacts of an earlier build go: what its ``SHA256SUMS`` names. Foreign files are never touched, and one that has
an artifact's name is a refusal: it may be somebody's only copy, or the very input.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shiplap.core.entries import CHUNK_BYTES
from shiplap.core.errors import OutsideFailure, Refused

SUMS_NAME = "SHA256SUMS"
STAGE_PREFIX = ".shiplap-"
# In the stage while it is published: the earlier build's SHA256SUMS, for whoever goes on after a power cut.
_FORMER_NAME = "former"
# Comes from whoever has the key, and goes with the build that it belongs to.
_ATTACHED = ("store.roothash.p7s",)
_SUMS_LIMIT_BYTES = 1 << 20
ARTIFACTS = (
    "store.squashfs",
    "store.erofs",
    "store.verity",
    "store.roothash",
    "store.roothash.p7s",
    "store.tar",
    "images.tar",
    "images.tar.gz",
    "images.tar.xz",
    "images.tar.zst",
    "target.tar",
    "store.json",
    "record.json",
    "sbom.spdx.json",
    "sbom.cdx.json",
    SUMS_NAME,
)
"""Every name that shiplap may write into OUT, and may therefore remove from it."""


class OutputUnusable(Refused):
    """The output folder cannot be used."""


class Stage:
    """A folder of artifacts in the making. ``path(name)`` is where to write; ``publish`` makes them real."""

    def __init__(self, out: Path, folder: Path, artifacts: Sequence[str] = ARTIFACTS) -> None:
        self.out = out
        self.folder = folder
        self._artifacts = artifacts

    def path(self, name: str) -> Path:
        """Where to write the artifact ``name``, which may lie in a subfolder (``boot/…``)."""
        if name not in self._artifacts:
            raise AssertionError(f"{name} is no artifact")
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        return path

    def write(self, name: str, data: bytes) -> None:
        self.path(name).write_bytes(data)

    @contextmanager
    def writer(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """A write function for a new artifact; what is written is on disk when the context ends."""
        with self.path(name).open("xb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir())

    def publish(self, sums: dict[str, str]) -> None:
        """Write ``SHA256SUMS`` from ``sums`` (name → hex) and move everything into place."""
        names = self.names()
        assert names == sorted(sums), "every artifact has a checksum"
        self.write(SUMS_NAME, "".join(f"{sums[name]}  {name}\n" for name in names).encode())
        for name in (*names, SUMS_NAME):
            self.path(name).chmod(0o644)  # whatever the umask
            with self.path(name).open("rb") as file:
                os.fsync(file.fileno())
        folders = {(self.out / name).parent for name in self._artifacts}
        if (self.out / SUMS_NAME).exists():
            (self.folder / _FORMER_NAME).write_bytes((self.out / SUMS_NAME).read_bytes())
            _sync_folder(self.folder)
        for name in (SUMS_NAME, *(stale for stale in self._artifacts if stale not in sums and stale != SUMS_NAME)):
            (self.out / name).unlink(missing_ok=True)
        _sync_folder(self.out)
        for name in names:
            (self.out / name).parent.mkdir(mode=0o755, exist_ok=True)
            self.path(name).replace(self.out / name)
        for folder in sorted(folders):
            if folder.is_dir():
                _sync_folder(folder)
        self.path(SUMS_NAME).replace(self.out / SUMS_NAME)
        _sync_folder(self.out)


@contextmanager
def staged_output(out: Path, artifacts: Sequence[str] = ARTIFACTS) -> Iterator[Stage]:
    """A stage in ``out``, which is made when missing; without ``publish`` nothing of it stays.

    ``artifacts``: every name that may be written, and may therefore be removed; SUMS_NAME is one of them.

    One build at a time: a second one on the same folder is refused. Raises OutputUnusable, and
    OutsideFailure when the disk is full.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    lock = -1
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _unusable(out, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputUnusable(
                f"another build is writing to {out}", hint="wait for it, or give each build an output folder of its own with -o"
            ) from None
        for name in artifacts:
            if (out / name).is_dir() and not (out / name).is_symlink():
                raise OutputUnusable(f"{out / name} is a folder, and the build has to write a file of that name")
        _refuse_foreign(out, artifacts)
        # What a killed build left behind; the lock says that nobody works on it.
        for stale in sorted(out.glob(STAGE_PREFIX + "*")):
            shutil.rmtree(stale, ignore_errors=True)
        try:
            folder = Path(tempfile.mkdtemp(prefix=STAGE_PREFIX, dir=out))
        except OSError as error:
            raise _unusable(out, error) from error
        try:
            yield Stage(out, folder, artifacts)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OutsideFailure(
                    f"cannot write to {out}: {error.strerror}", hint="make room, or give another folder with -o"
                ) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        # A folder that this build made for nothing goes again; one with anything in it stays.
        for folder in made:
            try:
                folder.rmdir()
            except OSError:
                break
        raise
    finally:
        if lock >= 0:
            os.close(lock)


def _refuse_foreign(out: Path, artifacts: Sequence[str]) -> None:
    """Raises OutputUnusable for a file with an artifact's name that no earlier build has written."""
    stages = sorted(out.glob(STAGE_PREFIX + "*"))
    lists = [_names_in(path) for path in (out / SUMS_NAME, *(stage / name for stage in stages for name in (SUMS_NAME, _FORMER_NAME)))]
    # A list with other names is another program's.
    written = {name for names in lists if names <= set(artifacts) for name in names}
    if written:
        written.update((SUMS_NAME, *_ATTACHED))
    foreign = sorted(name for name in artifacts if name not in written and os.path.lexists(out / name))
    if foreign:
        raise OutputUnusable(
            f"{out / foreign[0]} would be replaced or removed, and no earlier build of shiplap has written it",
            hint="give another folder with -o, or move the file away",
        )


def _names_in(sums: Path) -> set[str]:
    """What a list of checksums names; nothing where there is none, or something else."""
    try:
        with sums.open("rb") as file:
            lines = file.read(_SUMS_LIMIT_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return set()
    return {name for digest, _, name in (line.partition("  ") for line in lines) if len(digest) == 64 and name}


def _unusable(out: Path, error: OSError) -> Refused | OutsideFailure:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutsideFailure(f"cannot write to {out}: {error.strerror}")
    return OutputUnusable(f"cannot use {out} as the output folder: {error.strerror}", hint="give another folder with -o")


def sha256_file(path: Path, advance: Callable[[int], object] = lambda amount_bytes: None) -> tuple[str, int]:
    """Hex digest and size in bytes."""
    hasher = hashlib.sha256()
    size_bytes = 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            hasher.update(piece)
            size_bytes += len(piece)
            advance(len(piece))
    return hasher.hexdigest(), size_bytes


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
