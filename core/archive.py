"""Archive mode: ``images.tar``, one deterministic archive that ``docker load`` takes.

Members, in this order: ``blobs/sha256/<config>`` of every image, ``blobs/sha256/<diffID>`` of every layer
(uncompressed, each once), both sorted, then ``manifest.json`` with images sorted by config and references
full and sorted. Mode 0644, owner 0:0, time = the epoch, no directories, two zero blocks at the end. The
same images, references and epoch give the same bytes, whatever source and compression they came in.
docs/archive.md has the reasons and what each engine was seen to accept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from shiplap.core.entries import Bytes, Content, Entry, Kind
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.image import Image, Layer
from shiplap.core.layer.sight import LayerAudit
from shiplap.core.layer.spool import uncompressed_layer
from shiplap.core.libarchive import (
    COMPRESSIONS,
    USTAR_MEMBER_LIMIT_BYTES,
    USTAR_TIME_LIMIT_EPOCH,
    Ustar,
    compression_record,
    compressor,
    ustar,
)
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT, Progress
from shiplap.core.reference import parse_reference
from shiplap.core.tar.records import write_entry

ARCHIVE_COMPRESSIONS = ("none", "gzip", "zstd", "xz")


class ArchiveRefused(Refused):
    """Images or options that no archive can carry."""


@dataclass(frozen=True, slots=True)
class ArchiveImage:
    """An image and the full references (``docker.io/library/app:1``) that the device shall know it by."""

    image: Image
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Archive:
    """What was written.

    ``layers``: (diffID, size in bytes), sorted, each once. ``size_bytes`` and ``sha256`` (hex) are those
    of the uncompressed tar, which is what identity is promised for. ``compression``: for record.json.
    ``notes``: what the archive could not carry, a sentence each.
    """

    layers: tuple[tuple[str, int], ...]
    size_bytes: int
    sha256: str
    compression: dict[str, str | int]
    notes: tuple[str, ...]


def archive_name(compression: str = "none") -> str:
    """Name of the artifact: ``images.tar``, ``images.tar.zst``…"""
    return "images.tar" + COMPRESSIONS[compression].suffix


def write_images_tar(
    images: Sequence[ArchiveImage],
    write: Callable[[bytes], object],
    *,
    epoch: int,
    limits: Limits,
    compression: str = "none",
    level: int = 0,
    progress: Progress = SILENT,
    audits: Sequence[LayerAudit] = (),
) -> Archive:
    """Write ``images`` to ``write``, in the order and form that the module's text says.

    The order of ``images`` changes nothing; one config given twice is one image with all its references.
    Every layer is verified before its first byte is written. ``level`` 0 is the compressor's default. ``audits`` look at every
    layer on the way.

    Raises ArchiveRefused (no image, one reference for two images, an epoch outside 0 to 2³³ − 1, an
    unknown compression or level), what ``uncompressed_layer`` raises for a hostile image or a full TMPDIR,
    OutsideFailure when ``write`` raises an OSError. The caller drops what was written when this raises.
    """
    _check_options(epoch, compression, level)
    planned = _plan(images)
    layers = _unique_layers(planned)
    name = archive_name(compression)
    sizes: dict[str, int] = {}
    with ExitStack() as stack:
        output = _guarded(write, name)
        if compression != "none":
            output = stack.enter_context(compressor(compression, level, output)).write
        tally = _Tally(output)
        with ustar(tally.write) as tar:
            for config_digest in sorted(planned):
                _add(tar, tally.write, _blob_path(config_digest), Bytes(planned[config_digest].image.config), epoch)
            for number, diff_id in enumerate(sorted(layers), 1):
                image, layer = layers[diff_id]
                with (
                    progress.task(f"{name}: layer {number}/{len(layers)}") as task,
                    uncompressed_layer(image, layer, limits, task.advance) as content,
                ):
                    sizes[diff_id] = content.size_bytes
                    for audit in audits:
                        audit.tar(diff_id, content, f"{image.label}, layer {layer.index} ({diff_id[:19]})", limits.entries)
                    _add(tar, tally.write, _blob_path(diff_id), content, epoch)
            _add(tar, tally.write, "manifest.json", Bytes(_manifest(planned)), epoch)
    notes = _notes(images, planned)
    for note in notes:
        progress.note(note)
    return Archive(tuple(sizes.items()), tally.size_bytes, tally.hasher.hexdigest(), compression_record(compression, level), notes)


class _Tally:
    """Counts and hashes what passes."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.size_bytes = 0
        self.hasher = hashlib.sha256()
        self._write = write

    def write(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        self.hasher.update(piece)
        self._write(piece)


def _guarded(write: Callable[[bytes], object], name: str) -> Callable[[bytes], object]:
    """``write`` with an OSError of its own told from one of the sources and the spool."""

    def guarded(piece: bytes) -> None:
        try:
            write(piece)
        except OSError as error:
            raise OutsideFailure(f"cannot write {name}: {error.strerror or error}", hint="look at the disk of the output folder") from error

    return guarded


def _check_options(epoch: int, compression: str, level: int) -> None:
    if not 0 <= epoch < USTAR_TIME_LIMIT_EPOCH:
        raise ArchiveRefused(f"the epoch {epoch} is outside 0 to {USTAR_TIME_LIMIT_EPOCH - 1}, the times that an archive can carry")
    if compression not in ARCHIVE_COMPRESSIONS:
        raise ArchiveRefused(f"archive compression {compression!r} is not one of {', '.join(ARCHIVE_COMPRESSIONS)}")
    levels = COMPRESSIONS[compression].levels
    if level and level not in levels:
        known = f"has levels {levels[0]} to {levels[-1]}" if levels else "has no levels"
        raise ArchiveRefused(f"archive compression {compression} {known}, not {level}", hint="0 is the compressor's default")


@dataclass(slots=True)
class _Planned:
    """One image of the archive; ``tags`` collects the references that an archive can carry."""

    image: Image
    tags: set[str]


def _plan(images: Sequence[ArchiveImage]) -> dict[str, _Planned]:
    """The images by config digest."""
    if not images:
        raise ArchiveRefused("there is no image to put into the archive")
    planned: dict[str, _Planned] = {}
    owner: dict[str, str] = {}
    for one in images:
        digest = one.image.config_digest
        place = planned.setdefault(digest, _Planned(one.image, set()))
        for reference in map(parse_reference, one.references):
            if reference.tag is None:
                continue
            tag = f"{reference.name}:{reference.tag}"
            if owner.setdefault(tag, digest) != digest:
                first, second = sorted((owner[tag], digest))
                raise ArchiveRefused(
                    f"{tag} names two images, {first} and {second}", hint="give each image of one archive a reference of its own"
                )
            place.tags.add(tag)
    return planned


def _notes(images: Sequence[ArchiveImage], planned: dict[str, _Planned]) -> tuple[str, ...]:
    digests = {name for one in images for name in one.references if "@" in name}
    lost = [f"{name}: an archive cannot carry a digest reference, the engine forgets it on load; store mode keeps it" for name in digests]
    nameless = [
        f"{digest}: no tag in the archive, the engine will know the image by its ID only" for digest in planned if not planned[digest].tags
    ]
    return (*sorted(lost), *sorted(nameless))


def _unique_layers(planned: dict[str, _Planned]) -> dict[str, tuple[Image, Layer]]:
    """Every diffID once, with the image and layer to read it from; all that have it have the same bytes."""
    layers: dict[str, tuple[Image, Layer]] = {}
    for digest in sorted(planned):
        image = planned[digest].image
        for layer in image.layers:
            layers.setdefault(layer.diff_id, (image, layer))
    return layers


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _manifest(planned: dict[str, _Planned]) -> bytes:
    """``manifest.json`` as ``docker load`` reads it: sorted keys, no spaces, final newline."""
    items = [
        {
            "Config": _blob_path(digest),
            "Layers": [_blob_path(diff_id) for diff_id in planned[digest].image.diff_ids],
            # null for none, as `docker save` of an ID writes it
            "RepoTags": sorted(planned[digest].tags) or None,
        }
        for digest in sorted(planned)
    ]
    return json.dumps(items, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _add(tar: Ustar, write: Callable[[bytes], object], path: str, content: Content, epoch: int) -> None:
    entry = Entry(path.encode(), Kind.REGULAR, 0o644, mtime_epoch=epoch, content=content)
    if content.size_bytes < USTAR_MEMBER_LIMIT_BYTES:
        tar.add(entry)
    else:
        # ustar has no room for the size. The decision is the member's own, so it needs no other layer's size;
        # `tar` holds nothing back, so the record with its pax header lands between its neighbours.
        write_entry(entry, write)
