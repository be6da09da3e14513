"""The cache's folder on disk: found, made, marked, and never left through a link inside it.

Whoever else may write to a shared cache must not be able to make us write elsewhere: everything below the root
is opened name by name without following links. The root itself may be a link.
"""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shiplap.core.errors import OutsideFailure, Refused

VARIABLE = "SHIPLAP_CACHE"
TAG_NAME = "CACHEDIR.TAG"
# https://bford.info/cachedir/: exactly these 43 bytes first; what follows is free.
TAG_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_TAG = TAG_SIGNATURE + b"\n# This file is a cache directory tag created by shiplap.\n# See https://bford.info/cachedir/\n"

BLOBS, PARTIALS, USES, LOCK_NAME = "blobs", "partial", "use", "lock"
_OWN_NAMES = {TAG_NAME, BLOBS, PARTIALS, USES, LOCK_NAME, "lost+found"}

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNUSABLE = {
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
    errno.ENXIO,
    errno.ESPIPE,
}
# What keeps a reader from leaving its mark, and must not keep it from reading.
UNMARKABLE = _FULL | _UNUSABLE

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A fifo or a device that stands where a file should be must not be waited for; fstat then tells what it is.
FILE_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class CacheUnusable(Refused):
    """The cache's folder cannot be used as it is."""


def cache_folder(environment: Mapping[str, str]) -> Path:
    """``SHIPLAP_CACHE``, else ``$XDG_CACHE_HOME/shiplap``, else ``~/.cache/shiplap``; absolute.

    A relative XDG_CACHE_HOME is ignored (XDG base directory specification, "All paths … must be absolute"). Who has no home
    gets ``/.cache/shiplap``: many builds need no cache, and one that does says what is wrong with it.
    """
    if asked := environment.get(VARIABLE):
        return Path(asked).absolute()
    xdg = environment.get("XDG_CACHE_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg) / "shiplap"
    home = environment.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            home = "/"
    return Path(home) / ".cache" / "shiplap"


def unusable(root: Path, error: OSError, *, what: str = "use") -> OutsideFailure | Refused:
    """``error``, met inside the cache, in words: ``what`` is ``read`` or ``write to`` or ``use``."""
    if error.errno in _FULL:
        return OutsideFailure(
            f"cannot write to the cache: {error.strerror}",
            hint=f"make room (`shiplap cache gc` can remove what is not needed), or set {VARIABLE} to a folder with more room",
        )
    if error.errno in _UNUSABLE:
        return CacheUnusable(
            f"cannot {what} the cache {root}: {error.strerror}", hint=f"set {VARIABLE} to a folder of your own that you may write to"
        )
    hint = None
    if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
        hint = f"its file system has no locks; set {VARIABLE} to a folder on another one"
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "raise the limit of open files: ulimit -n"
    return OutsideFailure(f"cannot {what} the cache: {error.strerror}", hint=hint)


@contextmanager
def guarded(root: Path, what: str = "use") -> Iterator[None]:
    """OSErrors of the body become errors that say what to do about the cache."""
    try:
        yield
    except OSError as error:
        raise unusable(root, error, what=what) from error


@contextmanager
def opened(root: Path, *names: str, make: bool = False) -> Iterator[int]:
    """Descriptor of a folder below ``root``, with ``make`` made when it is missing. Raises OSError."""
    descriptor = os.open(root, FOLDER_FLAGS)
    try:
        for name in names:
            try:
                inner = os.open(name, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=descriptor)
            except FileNotFoundError:
                if not make:
                    raise
                try:
                    os.mkdir(name, 0o777, dir_fd=descriptor)
                    os.fsync(descriptor)
                except FileExistsError:
                    pass  # another build was first
                inner = os.open(name, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def names_in(folder: int) -> list[str]:
    """The names in an open folder, sorted. Raises OSError."""
    return sorted(os.listdir(folder))


def prepare(root: Path) -> None:
    """Make ``root`` and mark it as a cache. Raises CacheUnusable and OutsideFailure.

    A folder with other things in it is refused: the tag would take them out of backups, and garbage collection
    owns what lies in ``blobs``.
    """
    with guarded(root, "use"):
        root.mkdir(parents=True, exist_ok=True)
        with opened(root) as folder:
            is_marked = _is_marked(folder)
            if not is_marked and _has_foreign(folder):
                raise CacheUnusable(
                    f"{root} is not empty and is no cache of shiplap",
                    hint=f"set {VARIABLE} to a folder of its own, for example {root / 'shiplap'}",
                )
            if not _is_there(folder, LOCK_NAME):
                os.close(os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT | FILE_FLAGS, 0o666, dir_fd=folder))
            if not is_marked:
                _write_tag(folder)


def require_marked(root: Path) -> bool:
    """Whether there is a cache at all; raises CacheUnusable for a folder that is none of ours."""
    with guarded(root, "read"):
        try:
            with opened(root) as folder:
                if not _is_marked(folder) and _has_foreign(folder):
                    raise CacheUnusable(f"{root} is no cache of shiplap", hint=f"set {VARIABLE} to the cache")
        except FileNotFoundError:
            return False
    return True


def _is_marked(folder: int) -> bool:
    try:
        descriptor = os.open(TAG_NAME, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        tag = os.pread(descriptor, 4096, 0)
    finally:
        os.close(descriptor)
    return tag.startswith(TAG_SIGNATURE) and b"shiplap" in tag


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _has_foreign(folder: int) -> bool:
    return any(name not in _OWN_NAMES and not name.startswith(TAG_NAME + ".") for name in names_in(folder))


def _write_tag(folder: int) -> None:
    temporary = f"{TAG_NAME}.{os.urandom(8).hex()}"  # two containers that share the folder can have the same process ids
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE_FLAGS, 0o666, dir_fd=folder)
    try:
        os.write(descriptor, _TAG)
        os.fsync(descriptor)
    except OSError:
        os.unlink(temporary, dir_fd=folder)
        raise
    finally:
        os.close(descriptor)
    os.replace(temporary, TAG_NAME, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
