"""``shiplap extract``: entries of a SquashFS, tar, store or image as a canonical tar, a list, or files."""

from __future__ import annotations

import argparse
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.audit.extractfolder import extract_to_folder
from shiplap.audit.extraction import ExtractOptions, open_entries
from shiplap.cli.access import access_of, add_access_options
from shiplap.cli.console import Console
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.cli.quantities import count_text
from shiplap.core.entries import Entry, Kind, printable
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.platform import parse_platform
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry
from shiplap.verity.area import fresh_file

NAME = "extract"
SUMMARY = "entries of a SquashFS, tar, store or image as a canonical tar, without root or mount"
EXAMPLES = """\
shiplap extract rootfs.squashfs -o rootfs.tar           any SquashFS 4.0, with owners, devices and attributes
shiplap extract rootfs.squashfs etc/passwd | tar xO     one file, to standard output
shiplap extract shiplap-out --image redis:7 -o root.tar the root file system that a container of the image sees
shiplap extract docker-archive:app.tar --list           the same of an archive, as a list
shiplap extract rootfs.squashfs etc --to unpacked       real files in a new folder
"""
_TYPE = {
    Kind.REGULAR: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.HARDLINK: stat.S_IFREG,
}


class ExtractRefused(Refused):
    """Options that do not go together."""


def configure(parser: argparse.ArgumentParser) -> None:
    thing = "a SquashFS, tar or store, an output folder, an archive of images, an OCI layout, or a source"
    parser.add_argument("thing", metavar="THING", help=thing)
    parser.add_argument("paths", metavar="PATH", nargs="*", help="only what is at and below these paths")
    parser.add_argument("-o", "--out", metavar="FILE.tar", default="-", help="the tar to write; - (the default) is standard output")
    parser.add_argument("--to", metavar="DIR", help="make files in the new folder DIR instead of a tar")
    parser.add_argument("--list", action="store_true", help="list the entries instead")
    parser.add_argument(
        "--image", metavar="REF", help="the root file system of this image (reference or config digest) of a store, archive or source"
    )
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="which platform of a source with several")
    add_limit_option(parser)
    add_access_options(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    if sum((arguments.list, arguments.to is not None, arguments.out != "-")) > 1:
        raise ExtractRefused("--list, --to and -o exclude each other")
    platform = parse_platform(arguments.platform) if arguments.platform else None
    options = ExtractOptions(limits_of(arguments), console.progress, arguments.image, platform, access_of(arguments, console, {}, Path()))
    with open_entries(arguments.thing, arguments.paths, options) as entries:
        if arguments.list:
            _list(entries, console)
        elif arguments.to is not None:
            made = extract_to_folder(entries, Path(arguments.to), console.note)
            console.result({"to": arguments.to, "entries": made}, f"{count_text(made, 'entry')} in {arguments.to}")
        elif arguments.out == "-":
            if console.json:
                raise ExtractRefused("--json and a tar on standard output exclude each other", hint="write the tar to a file with -o")
            write = console.raw()
            _write_tar(entries, write)
            write(b"")  # flush
        else:
            _to_file(entries, Path(arguments.out), console)
    return 0


def _write_tar(entries: Iterator[Entry], write: Callable[[bytes], object]) -> int:
    count = 0
    for entry in entries:
        write_entry(entry, write)
        count += 1
    write(END_OF_ARCHIVE)
    return count


def _to_file(entries: Iterator[Entry], path: Path, console: Console) -> None:
    hasher = hashlib.sha256()
    size_bytes = 0
    with fresh_file(path) as descriptor, _buffered(descriptor, path) as put:

        def write(data: bytes) -> None:
            nonlocal size_bytes
            hasher.update(data)
            size_bytes += len(data)
            put(data)

        count = _write_tar(entries, write)
    data: dict[str, object] = {"out": str(path), "entries": count, "size_bytes": size_bytes, "sha256": hasher.hexdigest()}
    console.result(data, f"{path}  {count_text(count, 'entry')}  sha256:{hasher.hexdigest()}")


@contextmanager
def _buffered(descriptor: int, path: Path) -> Iterator[Callable[[bytes], object]]:
    with os.fdopen(os.dup(descriptor), "wb", buffering=1 << 20) as file:

        def put(data: bytes) -> None:
            with _failing(path):
                file.write(data)

        yield put
        with _failing(path):
            file.flush()


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutsideFailure(f"cannot write {path}: {error.strerror}", hint="make room, or name another file with -o") from error


def _list(entries: Iterator[Entry], console: Console) -> None:
    if console.json:
        console.result({"entries": [_data(entry) for entry in entries]}, "")
    else:
        console.result({}, "\n".join(_line(entry) for entry in entries))


def _data(entry: Entry) -> dict[str, object]:
    data: dict[str, object] = {
        "path": printable(entry.path) or "/",
        "type": entry.kind.value,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_epoch": entry.mtime_epoch,
    }
    if entry.content is not None:
        data["size_bytes"] = entry.content.size_bytes
    if entry.link:
        data["link"] = printable(entry.link)
    if entry.kind in (Kind.CHARACTER, Kind.BLOCK):
        data["device"] = list(entry.device)
    if entry.xattrs:
        data["xattrs"] = {printable(name): value.hex() for name, value in entry.xattrs}
    return data


def _line(entry: Entry) -> str:
    mode = stat.filemode(_TYPE[entry.kind] | entry.mode)
    if entry.kind in (Kind.CHARACTER, Kind.BLOCK):
        size = f"{entry.device[0]},{entry.device[1]}"
    else:
        size = str(entry.content.size_bytes if entry.content is not None else 0)
    try:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.mtime_epoch))
    except (OverflowError, ValueError, OSError):
        when = str(entry.mtime_epoch)
    target = {Kind.SYMLINK: " -> ", Kind.HARDLINK: " link to "}.get(entry.kind, "")
    return f"{mode} {entry.uid}/{entry.gid} {size:>11} {when} {printable(entry.path) or '.'}{target}{printable(entry.link)}"
