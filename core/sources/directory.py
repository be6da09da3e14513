"""A folder on disk as the files of a source."""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType

from shiplap.core.blobs import FETCH_AGAIN, SourceInvalidContent
from shiplap.core.entries import FileSlice
from shiplap.core.errors import OutsideFailure
from shiplap.core.jsontext import shown


class Directory:
    """Regular files below one folder; symbolic links are followed only inside it.

    A layout may come from anywhere, and a link out of it would make its digests a question about this
    machine's files. Paths are ours (constants and verified digests), not the source's. A context manager:
    what :meth:`slice` opened is closed at its end.
    """

    remedy = FETCH_AGAIN

    def __init__(self, path: str, label: str) -> None:
        self.label = label
        self._root = os.path.realpath(path)
        self._open: dict[str, FileSlice] = {}

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one in self._open.values():
            os.close(one.descriptor)
        self._open.clear()

    def release(self, path: str) -> None:
        stored = self._open.pop(path, None)
        if stored is not None:
            os.close(stored.descriptor)

    def is_ambiguous(self, path: str) -> bool:
        return False

    def size_bytes(self, path: str) -> int | None:
        real = self._locate(path)
        try:
            status = os.lstat(real)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise OutsideFailure(f"cannot read {shown(path)} in {self.label}: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise SourceInvalidContent(f"{shown(path)} in {self.label} is not a regular file")
        return status.st_size

    def slice(self, path: str) -> FileSlice:
        stored = self._open.get(path)
        if stored is None:
            try:
                # Neither a link nor a fifo that took the file's place since it was looked at.
                descriptor = os.open(self._locate(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError as error:
                hint = "raise the limit of open files: ulimit -n" if error.errno == errno.EMFILE else None
                raise OutsideFailure(f"cannot open {shown(path)} in {self.label}: {error.strerror}", hint=hint) from error
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                os.close(descriptor)
                raise SourceInvalidContent(f"{shown(path)} in {self.label} is not a regular file")
            stored = self._open[path] = FileSlice(descriptor, 0, status.st_size, f"{path} in {self.label}")
        return stored

    def _locate(self, path: str) -> str:
        real = os.path.realpath(f"{self._root}/{path}")
        if os.path.commonpath((self._root, real)) != self._root:
            raise SourceInvalidContent(
                f"{shown(path)} in {self.label} is a link that leaves the folder", hint="copy the folder with its links resolved: cp -rL"
            )
        return real
