"""SquashFS sinks: an entry stream goes in, an image comes out. A new tool is one module and one line here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.core.errors import OutsideFailure
from shiplap.rootfs.sinks.builtin import Builtin
from shiplap.rootfs.sinks.imagefile import fresh_image
from shiplap.rootfs.sinks.mksquashfs import Mksquashfs
from shiplap.rootfs.sinks.options import Add, Advance, Sink, SquashfsOptions, SquashfsOptionsError, check_options
from shiplap.rootfs.sinks.tar2sqfs import Tar2sqfs
from shiplap.rootfs.sinks.tarfed import TarFed
from shiplap.rootfs.squashfs.file import SquashfsError, open_image_file
from shiplap.rootfs.squashfs.superblock import read_superblock

__all__ = ["TOOLS", "Add", "SquashfsOptions", "SquashfsOptionsError", "check_options", "describe_tool", "open_sink"]

TOOLS: dict[str, Sink] = {"builtin": Builtin(), "tar2sqfs": TarFed(Tar2sqfs()), "mksquashfs": TarFed(Mksquashfs())}


def _no_progress(amount_bytes: int) -> None:
    pass


@contextmanager
def open_sink(options: SquashfsOptions, output: Path, advance: Advance = _no_progress) -> Iterator[Add]:
    """Yield a function that takes one entry after another; ``output`` must not exist yet.

    Leaving the context finishes the image and syncs it to disk. When the body or the tool fails, ``output`` is
    gone afterwards. The caller has clamped times to 32 bits. Raises SquashfsOptionsError, ProgramMissing,
    Refused for what SquashFS cannot hold, and OutsideFailure, with the words of a tool.
    """
    sink = _sink(options)
    with fresh_image(output):
        with sink.open(options, output, advance) as add:
            yield add
        _check_image(options, output)


def describe_tool(options: SquashfsOptions) -> dict[str, str]:
    """What beside the stream decides the bytes, for record.json: all values are text.

    Keys: tool, version, compression, level (absent where there is none), block-size, and library (file name
    of the compressor's shared library) where it can be told. Raises as ``open_sink`` does.
    """
    found = _sink(options).describe(options)
    found["compression"] = options.compression
    if options.effective_level is not None:
        found["level"] = str(options.effective_level)
    found["block-size"] = str(options.block_size_bytes)
    return found


def _sink(options: SquashfsOptions) -> Sink:
    check_options(options)
    if options.tool not in TOOLS:
        raise SquashfsOptionsError(f"{options.tool!r} is no SquashFS tool that shiplap knows", hint="write one of " + ", ".join(TOOLS))
    return TOOLS[options.tool]


def _check_image(options: SquashfsOptions, output: Path) -> None:
    """What the tool left must be an image, and the one that was asked for.

    Seen: with 65,536 different owners both tools end well and leave an image that counts 0 of them
    (16 bits in the superblock), which nothing can mount.
    """
    try:
        with open_image_file(output) as file:
            made = read_superblock(file)
    except SquashfsError as error:
        raise OutsideFailure(f"{options.tool} ended well but left an image that cannot be read: {error.message}") from error
    # Every SquashFS names a compressor.
    compression = "gzip" if options.compression == "none" else options.compression
    asked = (compression, options.block_size_bytes, options.epoch)
    if (made.compressor, made.block_size_bytes, made.mtime_epoch) != asked:
        raise OutsideFailure(
            f"{options.tool} did not follow its options: the image has {made.compressor}, blocks of {made.block_size_bytes} bytes"
            f" and the time {made.mtime_epoch}, asked for were {options.compression}, {options.block_size_bytes} and {options.epoch}"
        )
