"""mkfs.erofs of erofs-utils, from 1.8 on, in its tar mode: an entry stream goes in, an EROFS comes out.

What each option is for, what was measured and the tool's traps: docs/erofs.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shiplap.core import run
from shiplap.core.entries import Entry, Kind
from shiplap.core.errors import OutsideFailure, ProgramMissing, Refused
from shiplap.core.imageform import EROFS_CLUSTER_BYTES, EROFS_LEVELS, is_size, level_problem
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry
from shiplap.rootfs.erofs.superblock import ErofsError, read_superblock
from shiplap.rootfs.sinks.imagefile import fresh_image
from shiplap.rootfs.sinks.options import Add, Advance
from shiplap.rootfs.sinks.program import library_version, pipe_to, version_of

_PROGRAM, _PACKAGE = "mkfs.erofs", "erofs-utils"
_OLDEST = "1.8"
_BLOCK_BYTES = 4096
# Options without which a tar cannot become the same bytes everywhere; a tool either lists them all or is unfit.
_NEEDED_OPTIONS = (b"--tar=", b"--sort=", b"--mkfs-time", b"--workers=")


class ErofsOptionsError(Refused):
    """Options that mkfs.erofs cannot follow."""


class UnfitMkfsErofs(ProgramMissing):
    """An mkfs.erofs that reads no tar, or that was built without the compression."""


@dataclass(frozen=True, slots=True)
class ErofsOptions:
    """How to write an image.

    ``level``: None for the compression's default. ``cluster_bytes``: of the largest compressed piece. ``epoch``: the
    superblock's time, seconds. ``uuid``: canonical form. ``jobs``: processors to use, None for all; never changes the bytes.
    """

    uuid: str
    compression: str = "lz4hc"
    level: int | None = None
    cluster_bytes: int = 65536
    epoch: int = 0
    jobs: int | None = None

    @property
    def tool(self) -> str:
        """The program that writes the image."""
        return _PROGRAM

    @property
    def effective_level(self) -> int | None:
        """The level that is passed to the tool: its own defaults are never relied on."""
        levels = EROFS_LEVELS.get(self.compression)
        return self.level if self.level is not None or levels is None else levels[0]


def _no_progress(amount_bytes: int) -> None:
    pass


@contextmanager
def open_erofs(options: ErofsOptions, output: Path, advance: Advance = _no_progress) -> Iterator[Add]:
    """Yield a function that takes one entry after another; ``output`` must not exist yet.

    As ``open_sink`` of SquashFS. Raises ErofsOptionsError, UnfitMkfsErofs and ProgramMissing before anything is written,
    OutsideFailure with the tool's words.
    """
    arguments = _arguments(_fit_program(options), options, output)
    inodes = 0
    with fresh_image(output):
        with pipe_to(arguments) as write:

            def counted(data: bytes) -> None:
                write(data)
                advance(len(data))

            def add(entry: Entry) -> None:
                nonlocal inodes
                inodes += entry.kind is not Kind.HARDLINK
                write_entry(entry, counted)

            yield add
            counted(END_OF_ARCHIVE)
        _check_image(options, output, inodes)


def describe_erofs(options: ErofsOptions) -> dict[str, str]:
    """What beside the stream decides the bytes, for record.json: tool, version, compression, level, cluster-size, library."""
    program = _fit_program(options)
    found = {"tool": _PROGRAM, "version": _version(program)}
    library = library_version(program, "lz4" if options.compression == "lz4hc" else options.compression)
    if library is not None:
        found["library"] = library
    found["compression"] = options.compression
    if options.effective_level is not None:
        found["level"] = str(options.effective_level)
    if options.compression != "none":
        found["cluster-size"] = str(options.cluster_bytes)
    return found


def check_erofs_options(options: ErofsOptions) -> None:
    """Raises ErofsOptionsError for the first thing that cannot be."""
    if options.compression not in EROFS_LEVELS:
        hint = "write one of " + ", ".join(EROFS_LEVELS)
        raise ErofsOptionsError(f"{options.compression!r} is no compression of EROFS", hint=hint)
    problem = level_problem(options.compression, options.level, EROFS_LEVELS[options.compression], "EROFS")
    if problem is not None:
        raise ErofsOptionsError(problem)
    if not is_size(options.cluster_bytes, EROFS_CLUSTER_BYTES):
        raise ErofsOptionsError(f"a cluster of {options.cluster_bytes} bytes is no power of two from 4 KiB to 1 MiB")
    if not 0 <= options.epoch < 1 << 32:
        raise ErofsOptionsError(f"the time {options.epoch} does not fit into 32 bits")
    if options.jobs is not None and options.jobs < 1:
        raise ErofsOptionsError(f"{options.jobs} jobs cannot work")


def _version(program: str) -> str:
    return version_of([program, "--version"], rb"mkfs\.erofs (?:\(erofs-utils\) )?(\d\S*)")


def _fit_program(options: ErofsOptions) -> str:
    """The program, proven to have what is needed: what it says of itself decides, its version is only named."""
    check_erofs_options(options)
    wanted = f"{_PACKAGE} {_OLDEST} or newer is needed (Debian 13 has 1.8.6); without it take `outputs: [squashfs]`"
    try:
        program = run.find(_PROGRAM, package=_PACKAGE)
    except ProgramMissing as error:
        raise ProgramMissing(error.message, hint=wanted) from error
    said = run.run([program, "--help"], allowed=range(256))
    text = said.stdout + said.stderr
    lacking = [option.decode().rstrip("=") for option in _NEEDED_OPTIONS if option not in text]
    if lacking:
        what = "cannot read a tar" if "--tar" in lacking else "lacks " + ", ".join(lacking)
        raise UnfitMkfsErofs(f"{_PROGRAM} {_version(program)} is too old: it {what}", hint=wanted)
    available = _compressions(program)
    if options.compression not in (*available, "none"):
        raise UnfitMkfsErofs(
            f"{_PROGRAM} {_version(program)} here was built without {options.compression}; it has {', '.join(available) or 'none'}",
            hint="choose one of these in `erofs: {compression: …}`, or install another build of " + _PACKAGE,
        )
    return program


def _compressions(program: str) -> list[str]:
    said = run.run([program, "--version"], allowed=range(256))
    found = re.search(rb"available compressors: *([\w, ]*)", said.stdout + said.stderr)
    return found[1].decode().replace(" ", "").split(",") if found else []


def _arguments(program: str, options: ErofsOptions, output: Path) -> list[str]:
    compression: tuple[str, ...] = ()
    if options.compression != "none":
        level = "" if options.effective_level is None else f",level={options.effective_level}"
        compression = (f"-z{options.compression}{level}", f"-C{options.cluster_bytes}")
    # More workers than processors are worth a warning to it, and a tool that says something has failed.
    processors = len(os.sched_getaffinity(0))
    jobs = processors if options.jobs is None else min(options.jobs, processors)
    return [
        program,
        "--quiet",
        "--tar=f",
        "--sort=path",
        f"-b{_BLOCK_BYTES}",
        f"-T{options.epoch}",
        # Otherwise the time of -T would become that of every file.
        "--mkfs-time",
        "--preserve-mtime",
        f"-U{options.uuid}",
        "-x2",
        f"--workers={jobs}",
        *compression,
        # Absolute: a name that begins with "-" must not become an option.
        str(output.absolute()),
    ]


def _check_image(options: ErofsOptions, output: Path, inodes: int) -> None:
    """What the tool left must be an image, the one that was asked for, and whole: it ends well on a stream that was cut off."""
    try:
        made = read_superblock(output)
    except ErofsError as error:
        raise OutsideFailure(f"{_PROGRAM} ended well but left an image that cannot be read: {error.message}") from error
    asked = (_BLOCK_BYTES, options.epoch, options.uuid, inodes)
    found = (made.block_size_bytes, made.build_epoch, made.uuid, made.inode_count)
    if found != asked:
        raise OutsideFailure(
            f"{_PROGRAM} did not follow its options: blocks, time, UUID and inodes of the image are {found}, asked for were {asked}"
        )
