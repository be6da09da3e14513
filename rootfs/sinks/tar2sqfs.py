"""tar2sqfs of squashfs-tools-ng: reads the whole tar stream, honours the root's entry, needs little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.core import run
from shiplap.rootfs.sinks.options import SquashfsOptions, Write
from shiplap.rootfs.sinks.program import library_version, pipe_to, version_of

_PACKAGE = "squashfs-tools-ng"
# Its xz level is written out like every level; 6 is xz's own default, and blocks are too small for more to matter.
_XZ_EXTRA = "level=6"


class Tar2sqfs:
    """The default sink. Same bytes for any number of jobs, user, umask, time zone and locale."""

    @contextmanager
    def open(self, options: SquashfsOptions, output: Path) -> Iterator[Write]:
        program = run.find("tar2sqfs", package=_PACKAGE)
        with pipe_to(_arguments(program, options, output)) as write:
            yield write

    def describe(self, options: SquashfsOptions) -> dict[str, str]:
        program = run.find("tar2sqfs", package=_PACKAGE)
        found = {"tool": "tar2sqfs", "version": version_of([program, "--version"], rb"tar2sqfs \(squashfs-tools-ng\) (\S+)")}
        library = library_version(program, options.compression)
        return found if library is None else {**found, "library": library}


def _arguments(program: str, options: SquashfsOptions, output: Path) -> list[str]:
    extra = _XZ_EXTRA if options.compression == "xz" else f"level={options.effective_level}"
    return [
        program,
        "--quiet",
        # Without it an entry that it does not understand is left out, with a warning and exit code 0.
        "--no-skip",
        "--compressor",
        options.compression,
        *(() if options.compression == "lz4" else ("--comp-extra", extra)),
        "--block-size",
        str(options.block_size_bytes),
        "--dev-block-size",
        "4096",
        "--num-jobs",
        str(options.effective_jobs),
        # The default time is also the superblock's. Directories that the stream implies do not occur.
        "--defaults",
        f"uid=0,gid=0,mode=0755,mtime={options.epoch}",
        # Absolute: a name that begins with "-" must not become an option.
        str(output.absolute()),
    ]
