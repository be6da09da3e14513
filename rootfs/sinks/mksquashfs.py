"""mksquashfs of squashfs-tools, from 4.6 on, in its tar mode.

It ignores the stream's entry of the root directory and has options instead, so the stream's first record
is read here and turned into them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shiplap.core import run
from shiplap.core.entries import printable
from shiplap.core.errors import ProgramMissing, Refused
from shiplap.core.tar.reader import TarCorrupt, TarHeader, read_headers
from shiplap.rootfs.sinks.options import SquashfsOptions, SquashfsOptionsError, Write
from shiplap.rootfs.sinks.program import library_version, pipe_to, version_of

_PACKAGE = "squashfs-tools"
_OLDEST = (4, 6)
# Upstream's release notes of 4.7.1 to 4.7.5 name data races and corruption of sparse files.
_FAULTY = ((4, 7, 0), (4, 7, 5))
_FIRST_RECORD_LIMIT_BYTES = 2 << 20
_SAFE_XATTR_NAME = re.compile(rb"[!-~]+")
_ROOT_NAMES = (b"./", b".", b"/")
# The longest single argument that Linux passes to a program is 128 KiB.
_ARGUMENT_LIMIT_BYTES = 128 << 10
# Bounds its caches, which are a quarter of all memory otherwise. The bytes do not depend on it.
_MEMORY = "512M"


class UnfitMksquashfs(ProgramMissing):
    """An mksquashfs that is too old for the tar mode shiplap needs."""


class FaultyMksquashfs(Refused):
    """A version whose authors name faults that can corrupt an image."""


class Mksquashfs:
    """The other sink, for those who want the kernel author's own tool. Its bytes differ from tar2sqfs's."""

    @contextmanager
    def open(self, options: SquashfsOptions, output: Path) -> Iterator[Write]:
        program = run.find("mksquashfs", package=_PACKAGE)
        _check_version(_version(program), options)
        with ExitStack() as stack:
            stream = _Stream(stack, program, options, output)
            yield stream.write
            stream.finish()

    def describe(self, options: SquashfsOptions) -> dict[str, str]:
        program = run.find("mksquashfs", package=_PACKAGE)
        found = {"tool": "mksquashfs", "version": _version(program)}
        library = library_version(program, options.compression)
        return found if library is None else {**found, "library": library}


def _version(program: str) -> str:
    return version_of([program, "-version"], rb"mksquashfs version (\S+)")


def _check_version(version: str, options: SquashfsOptions) -> None:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < _OLDEST:
        raise UnfitMksquashfs(
            f"mksquashfs {version} is too old: it gives the root directory of a tar stream mode 0777 and the time of the build",
            hint="install squashfs-tools 4.6 or newer, or use `tool: tar2sqfs`",
        )
    if _FAULTY[0] <= (*numbers, 0)[:3] <= _FAULTY[1] and not {version, f"mksquashfs-{version}"} & set(options.allow_tool):
        raise FaultyMksquashfs(
            f"mksquashfs {version} is refused: its authors name data races and corruption of sparse files in 4.7.0 to 4.7.5",
            hint=f'use `tool: tar2sqfs` or another version; `allow-tool: ["{version}"]` accepts the risk',
        )


class _Stream:
    """Holds the stream's beginning back until its first record is complete, then starts the tool."""

    def __init__(self, stack: ExitStack, program: str, options: SquashfsOptions, output: Path) -> None:
        self._stack = stack
        self._arguments = _arguments(program, options, output)
        self._options = options
        self._begin = bytearray()
        self._write: Write | None = None

    def write(self, data: bytes) -> object:
        if self._write is not None:
            return self._write(data)
        self._begin += data
        first = _first_record(bytes(self._begin))
        if first is not None or len(self._begin) > _FIRST_RECORD_LIMIT_BYTES:
            self._start(first)
        return len(data)

    def finish(self) -> None:
        """Start the tool even if not one whole record came: it shall say so itself."""
        if self._write is None:
            self._start(None)

    def _start(self, first: TarHeader | None) -> None:
        root = first if first is not None and first.name in _ROOT_NAMES else None
        write = self._stack.enter_context(pipe_to([*self._arguments, *_root_arguments(root, self._options)]))
        write(bytes(self._begin[root.data_offset if root is not None else 0 :]))
        self._begin.clear()
        self._write = write


class _Prefix:
    """The bytes of a stream so far, for the tar reader."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)

    def read(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]


def _first_record(data: bytes) -> TarHeader | None:
    """The stream's first entry, or None while its header is not complete."""
    try:
        return next(read_headers(_Prefix(data)), None)
    except TarCorrupt:
        return None


def _root_arguments(root: TarHeader | None, options: SquashfsOptions) -> list[str]:
    if root is None:
        return ["-root-mode", "755", "-root-uid", "0", "-root-gid", "0", "-root-time", str(options.epoch)]
    arguments = ["-root-mode", f"{root.mode & 0o7777:o}", "-root-uid", str(root.uid), "-root-gid", str(root.gid)]
    arguments += ["-root-time", str(root.mtime_epoch)]
    for name, value in root.xattrs:
        definition = b"/ x %s=0s%s" % (name, base64.b64encode(value))
        if not _SAFE_XATTR_NAME.fullmatch(name) or b"=" in name or len(definition) >= _ARGUMENT_LIMIT_BYTES:
            raise SquashfsOptionsError(
                f"mksquashfs cannot give the root directory the attribute {printable(name)} of {len(value)} bytes",
                hint="use `tool: tar2sqfs`",
            )
        arguments += ["-p", definition.decode("ascii")]
    return arguments


def _arguments(program: str, options: SquashfsOptions, output: Path) -> list[str]:
    level = () if options.effective_level is None else ("-Xcompression-level", str(options.effective_level))
    return [
        program,
        "-",
        str(output.absolute()),
        "-tar",
        "-comp",
        options.compression,
        *level,
        "-b",
        str(options.block_size_bytes),
        "-processors",
        str(options.effective_jobs),
        "-mem",
        _MEMORY,
        "-mkfs-time",
        str(options.epoch),
        "-no-exports",
        "-tailends",
        "-noappend",
        "-no-recovery",
        "-exit-on-error",
        "-no-progress",
        "-quiet",
    ]
