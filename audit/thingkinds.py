"""What a path holds, by its first bytes and the names inside, never by its own name alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shiplap.core.compression import DETECT_BYTES, detect
from shiplap.core.errors import Refused
from shiplap.core.sources import TRANSPORTS, SourceSpec, parse_source
from shiplap.verity.superblock import SIGNATURE

SQUASHFS, TAR, COMPRESSED, VERITY, JSON, EROFS, FILE = "SquashFS", "tar", "compressed file", "verity", "JSON", "EROFS", "file"
FOLDER, LAYOUT, SOURCE = "folder", "OCI layout", "source"
_HEAD_BYTES = 1028
# Two zero blocks, and what GNU tar makes of them.
_EMPTY_TARS_BYTES = (1024, 10240)
_EROFS_MAGIC = bytes.fromhex("e2e1f5e0")
_EROFS_MAGIC_OFFSET = 1024


class ThingUnreadable(Refused):
    """Something that is not there or cannot be read."""


def kind_of(thing: str) -> str:
    """Raises ThingUnreadable."""
    path = Path(thing)
    if is_source(thing):
        return SOURCE
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return LAYOUT if (path / "oci-layout").exists() or (path / "index.json").exists() else FOLDER
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise ThingUnreadable(f"{thing} is neither a file nor a folder")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        hint = "a path, or a source such as docker-archive:FILE or docker://NAME" if isinstance(error, FileNotFoundError) else None
        raise ThingUnreadable(f"cannot read {thing}: {error.strerror}", hint=hint) from error
    return _kind_of_file(head, status.st_size)


def is_source(thing: str) -> bool:
    """Whether ``thing`` is written like a source, and no file is called so."""
    return (thing.partition(":")[0] in TRANSPORTS or thing.startswith("docker://")) and not os.path.lexists(thing)


def source_of(thing: str, kind: str) -> SourceSpec:
    """The source that ``thing`` is, or the images in the folder or file at that path, which may have colons in it."""
    if kind == SOURCE:
        return parse_source(thing)
    transport = "oci" if kind == LAYOUT else "docker-archive"
    return SourceSpec(transport, thing, None, f"{transport}:{thing}")


def _kind_of_file(head: bytes, size_bytes: int) -> str:
    if head.startswith(b"hsqs"):
        return SQUASHFS
    if head.startswith(SIGNATURE):
        return VERITY
    if head[257:262] == b"ustar" or _is_old_header(head[:512]) or (size_bytes in _EMPTY_TARS_BYTES and not any(head)):
        return TAR
    if head[_EROFS_MAGIC_OFFSET : _EROFS_MAGIC_OFFSET + 4] == _EROFS_MAGIC:
        return EROFS
    if detect(head[:DETECT_BYTES]) != "none":
        return COMPRESSED
    if head.lstrip()[:1] in (b"{", b"["):
        return JSON
    return FILE


def _is_old_header(block: bytes) -> bool:
    """A header of a tar without magic (v7): its checksum is all that there is to know it by."""
    field = block[148:156].strip(b" \0")
    if len(block) < 512 or not field or field.strip(b"01234567") or not block[0]:
        return False
    return int(field, 8) == sum(block) - sum(block[148:156]) + 8 * 32
