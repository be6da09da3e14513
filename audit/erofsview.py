"""The metadata of a store in an EROFS, read by ``dump.erofs``; and what ``fsck.erofs`` says of the image.

There is no reader of our own for EROFS: single small files can be read, the trees of layers cannot be compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shiplap.core import run
from shiplap.core.entries import CHUNK_BYTES, Entry, FileSlice, Kind
from shiplap.core.errors import OutsideFailure, ProgramMissing
from shiplap.rootfs.erofs.superblock import ErofsError

_PACKAGE = "erofs-utils"
# What a single metadata file may have; a config has a few kilobytes.
_FILE_LIMIT_BYTES = 16 << 20
_SIZE = re.compile(rb"^Size: (\d+) .*regular file$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Dumped:
    """Content of a file of the image, read by the program when it is asked for."""

    program: str
    image: Path
    path: str
    size_bytes: int

    def chunks(self) -> Iterator[bytes]:
        data = run.run([self.program, "--cat", f"--path=/{self.path}", str(self.image.absolute())]).stdout
        if len(data) != self.size_bytes:
            raise ErofsError(f"{self.image}: {self.path} has {len(data)} bytes instead of {self.size_bytes}")
        for start in range(0, len(data), CHUNK_BYTES):
            yield data[start : start + CHUNK_BYTES]

    def slice(self) -> FileSlice | None:
        return None


class ErofsView:
    """The part of a store image that its identity follows from; see ``storeview.MetadataView``."""

    sealed = True

    def __init__(self, image: Path, program: str) -> None:
        self.name = image.name
        self._image = image
        self._program = program

    def find(self, path: bytes) -> Entry | None:
        """A regular file, with its content and nothing else of it; None for everything else. Raises ErofsError, OutsideFailure."""
        text = path.decode("ascii")
        found = _SIZE.search(run.run([self._program, f"--path=/{text}", str(self._image.absolute())]).stdout)
        if found is None:
            return None
        size_bytes = int(found[1])
        if size_bytes > _FILE_LIMIT_BYTES:
            raise ErofsError(f"{self._image}: {text} has {size_bytes} bytes, more than the {_FILE_LIMIT_BYTES} it may have")
        return Entry(path, Kind.REGULAR, 0, content=_Dumped(self._program, self._image, text, size_bytes))


def erofs_view(image: Path) -> ErofsView:
    """Raises ProgramMissing where no ``dump.erofs`` is installed that prints files (erofs-utils 1.8 or newer)."""
    return ErofsView(image, _program("dump.erofs", b"--cat", "cannot print files"))


def check_contents(image: Path, compression: str) -> None:
    """Let ``fsck.erofs`` decompress every file. Raises ErofsError with its words, ProgramMissing where none is there that can."""
    # Older ones do not say what they can decompress, and call the rest a corruption.
    program = _program("fsck.erofs", b"following algorithms: ", "does not say what it can decompress")
    listed = run.run([program, "--help"], allowed=range(256)).stdout.partition(b"following algorithms: ")[2].split(b"\n")[0].split(b", ")
    if compression != "none" and compression.encode() not in listed:
        raise ProgramMissing(f"the fsck.erofs here was built without {compression}", hint=f"install another build of {_PACKAGE}")
    try:
        # Without a folder it decompresses and writes nothing.
        run.run([program, "--extract", str(image.absolute())])
    except OutsideFailure as error:
        raise ErofsError(f"{image}: {error.message}") from error


def _program(name: str, option: bytes, lack: str) -> str:
    program = run.find(name, package=_PACKAGE)
    said = run.run([program, "--help"], allowed=range(256))
    if option not in said.stdout + said.stderr:
        raise ProgramMissing(f"the {name} here is too old: it {lack}", hint=f"{_PACKAGE} 1.8 or newer is needed")
    return program
