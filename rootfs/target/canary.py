"""The canary: a SquashFS by which a device finds out whether its kernel sees the extended attributes of one (``files/canary.sh``)."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.layer.tree import OPAQUE
from shiplap.rootfs.sinks import SquashfsOptions, open_sink
from shiplap.rootfs.squashfs.file import open_image_file
from shiplap.rootfs.squashfs.superblock import read_superblock

CANARY_NAME = "canary.squashfs"


def needs_canary(image: Path) -> bool:
    """Whether the SquashFS ``image`` has any extended attributes: file capabilities, opaque directories."""
    with open_image_file(image) as file:
        return read_superblock(file).xattr_table is not None


def canary_image(form: SquashfsOptions) -> bytes:
    """Two layers, written as the store image was. Raises what the sink raises."""
    epoch = form.epoch
    entries = [
        Entry(b"", Kind.DIRECTORY, 0o755, mtime_epoch=epoch),
        Entry(b"lower", Kind.DIRECTORY, 0o755, mtime_epoch=epoch),
        Entry(b"lower/folder", Kind.DIRECTORY, 0o755, mtime_epoch=epoch),
        Entry(b"lower/folder/hidden", Kind.REGULAR, 0o644, mtime_epoch=epoch, content=Bytes(b"")),
        Entry(b"upper", Kind.DIRECTORY, 0o755, mtime_epoch=epoch),
        Entry(b"upper/folder", Kind.DIRECTORY, 0o755, mtime_epoch=epoch, xattrs=(OPAQUE,)),
        Entry(b"upper/folder/shown", Kind.REGULAR, 0o644, mtime_epoch=epoch, content=Bytes(b"")),
    ]
    with tempfile.TemporaryDirectory(prefix="shiplap-canary-") as folder:
        path = Path(folder) / CANARY_NAME
        with open_sink(replace(form, jobs=1), path) as put:
            for entry in entries:
                put(entry)
        return path.read_bytes()
