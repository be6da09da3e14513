"""What lies on the provisioning medium, and what the installer in the initramfs knows of it."""

from __future__ import annotations

import hashlib
import shlex
import uuid as uuids
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from shiplap.core.entries import Content, PathContent
from shiplap.rootfs.bootsnippets.layouts import DATA
from shiplap.rootfs.gpt import ALIGNMENT_BYTES, Placed, disk_size_bytes, tables
from shiplap.rootfs.provision.cpio import ALIGNMENT_BYTES as ARCHIVE_ALIGNMENT_BYTES
from shiplap.rootfs.provision.cpio import newc_archive
from shiplap.rootfs.provision.iso9660 import MediumFile, offsets

FOLDER = "shiplap"
WORDS = f"rdinit=/{FOLDER}/install"
"""What the kernel's command line must have."""
_CONTENTS = {"install": 0o755, "disk.sh": 0o644}


@dataclass(frozen=True, slots=True)
class Installation:
    """What a medium installs. ``volume``: the medium's own name, which the installer looks for; it follows from the content.

    ``archive``: the installer as an initramfs archive. ``files``: the content of the partitions, in their order on the medium.
    """

    volume: str
    archive: bytes
    files: tuple[MediumFile, ...]


def plan_installation(
    placed: Sequence[Placed], disk_uuid: str, title: str, epoch: int, advance: Callable[[int], object] = lambda amount_bytes: None
) -> Installation:
    """The installation of a disk with the partitions ``placed``, of which those with content are written, as far as it goes.
    The writable one is the last, and named ``data``.

    ``title``: what the installer says that it installs. ``advance``: told numbers of bytes hashed. Raises MediumRefused.
    """
    filled = [one for one in placed if one.partition.content is not None]
    files = tuple(_file(number, one) for number, one in enumerate(filled, 1))
    places = offsets(files)
    lines = []
    for one, file, start in zip(filled, files, places, strict=False):
        written_bytes = -(-file.content.size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        mebibytes = f"{_mib(start)} {_mib(one.offset_bytes)} {_mib(written_bytes)}"
        lines.append(f"{one.partition.name} {mebibytes} {_sum(file.content, written_bytes, advance)}\n")
    payload = "".join(lines).encode()
    table, _ = tables(placed, disk_uuid, disk_size_bytes(placed))
    fixed = [one for one in placed if one.partition.name != DATA]
    writable = placed[-1] if len(fixed) < len(placed) else None
    values = {
        "TITLE": title,
        "END_MIB": str(_mib(fixed[-1].offset_bytes + fixed[-1].size_bytes)),
        "DATA_UUID": uuids.UUID(writable.partition.uuid).bytes_le.hex() if writable else "",
        "DATA_ENTRY": str(len(placed) - 1) if writable else "",
        "DATA_MIB": str(_mib(writable.size_bytes)) if writable else "0",
    }
    identity = hashlib.sha256(payload + table + repr(sorted(values.items())).encode()).hexdigest()
    values["MEDIUM"] = f"SHIPLAP_{identity[:16].upper()}"
    conf = "".join(f"{key}={shlex.quote(value)}\n" for key, value in sorted(values.items())).encode()
    source = resources.files("shiplap.rootfs.provision") / "files"
    contents = {f"{FOLDER}/{name}": (mode, (source / name).read_bytes()) for name, mode in _CONTENTS.items()}
    contents |= {f"{FOLDER}/{name}": (0o644, data) for name, data in (("payload", payload), ("provision.conf", conf), ("table", table))}
    return Installation(values["MEDIUM"], newc_archive(contents, epoch), files)


def joined_initramfs(initrd: Content, archive: bytes) -> Iterator[bytes]:
    """The board's initramfs with one more archive behind it."""
    yield from initrd.chunks()
    yield bytes(-initrd.size_bytes % ARCHIVE_ALIGNMENT_BYTES)
    yield archive


def _file(number: int, placed: Placed) -> MediumFile:
    path = placed.partition.content
    assert path is not None
    return MediumFile(f"PART{number}.IMG", PathContent(path, path.stat().st_size))


def _mib(size_bytes: int) -> int:
    assert size_bytes % ALIGNMENT_BYTES == 0
    return size_bytes // ALIGNMENT_BYTES


def _sum(content: Content, size_bytes: int, advance: Callable[[int], object]) -> str:
    """sha256 of whole MiB: the content, then zeros, as it lies on the medium and is written."""
    hasher = hashlib.sha256()
    for piece in content.chunks():
        hasher.update(piece)
        advance(len(piece))
    left = size_bytes - content.size_bytes
    assert 0 <= left < ALIGNMENT_BYTES
    hasher.update(bytes(left))
    return hasher.hexdigest()
