"""A whole root file system: base tar + target kit + store → one sealed SquashFS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.entries import Entry, FileSlice, Kind, PathContent
from shiplap.core.limits import Limits
from shiplap.core.progress import Meter, Progress
from shiplap.core.store.squashfssink import as_squashfs_keeps
from shiplap.rootfs.basetree import BaseTree
from shiplap.rootfs.sinks import SquashfsOptions, open_sink
from shiplap.verity.format import format_file
from shiplap.verity.identity import file_salt, pad_file, uuid_for_salt
from shiplap.verity.parameters import VerityParameters


@dataclass(frozen=True, slots=True)
class RootResult:
    """``root_hash``: hex. ``replaced``: paths of the base that the kit's files replaced."""

    root_hash: str
    size_bytes: int
    padding_bytes: int
    replaced: tuple[bytes, ...]


def file_entries(folder: str, files: Sequence[Path], epoch: int) -> Iterable[Entry]:
    """Files of the output folder as entries below ``folder`` (an absolute path on the device)."""
    for path in files:
        name = f"{folder.strip('/')}/{path.name}".encode()
        yield Entry(name, Kind.REGULAR, 0o644, mtime_epoch=epoch, content=PathContent(path, path.stat().st_size))


def compose(base: FileSlice, what: str, additions: Iterable[Entry], epoch: int, limits: Limits) -> BaseTree:
    """The base with ``additions`` in it. Raises RootRefused and TarCorrupt."""
    tree = BaseTree(what, epoch)
    tree.read(base, limits.entries)
    for entry in additions:
        tree.put(entry)
    return tree


def write_root(tree: BaseTree, options: SquashfsOptions, image: Path, hash_file: Path, jobs: int | None, progress: Progress) -> RootResult:
    """``image`` and its tree; both must not exist yet. The salt comes from the image (DESIGN: "of any other file")."""
    meter = Meter(progress)
    with meter.task(f"pack {image.name}"), open_sink(options, image, meter.advance) as put:
        for entry in tree.entries():
            put(as_squashfs_keeps(entry))
    size_bytes = image.stat().st_size
    padding_bytes = pad_file(image, 4096)
    salt = file_salt(image)
    parameters = VerityParameters(salt=salt, uuid=uuid_for_salt(salt))
    with progress.task(f"hash tree of {image.name}", image.stat().st_size) as task:
        root_hash = format_file(image, hash_file, parameters, jobs=jobs, advance=task.advance)
    return RootResult(root_hash, size_bytes, padding_bytes, tuple(tree.replaced))
