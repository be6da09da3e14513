"""Finds the packages in images while their layers are read anyway: package databases are files with known names.

As in the ELF audit, only what is visible in the final image counts, and the order of the layers does not matter. A record or a
database that cannot be read becomes a remark; nothing here stops a build but numbers that no device has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from shiplap.core.entries import Content, FileSlice, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.sight import Hidden, TarReading, hashes_of, is_hidden
from shiplap.core.layer.tree import OPAQUE, LayerTree
from shiplap.core.sbom.distributions import RecordInvalid, alpine_packages, debian_packages, operating_system
from shiplap.core.sbom.languages import node_package, python_package
from shiplap.core.sbom.software import ImageContents, OperatingSystem, Software
from shiplap.core.store.model import StoredImage
from shiplap.core.tar.reader import TarCorrupt
from shiplap.core.tar.skim import Skimmed

PACKAGES_MAX = 100_000
CHARACTERS_MAX = 16 << 20
"""Different packages that are remembered over all layers, and what they say; the rest is left out, and told."""

DATABASES_MAX = 200_000
NAMES_MAX_BYTES = 64 << 20
READ_MAX_BYTES = 512 << 20
"""Files that are looked into over all layers, what their names take, and their sizes."""

REMARKS_MAX = 50
"""Of one image."""

ENTRIES_MAX = 32_000_000
"""Paths of upper layers that are remembered, eight bytes each."""

DATABASE_MAX_BYTES = 32 << 20
FILE_MAX_BYTES = 1 << 20
_HEAD_BYTES = 64 << 10  # of Python's METADATA, whose rest is a README

_RPM = ("Packages", "Packages.db", "rpmdb.sqlite")
_FIXED = {
    b"var/lib/dpkg/status": "dpkg",
    b"lib/apk/db/installed": "apk",
    b"usr/lib/apk/db/installed": "apk",
    b"etc/os-release": "os-release",
    b"usr/lib/os-release": "os-release",
    b"var/lib/pacman/local/ALPM_DB_VERSION": "pacman",
    **{f"{folder}/{name}".encode(): "rpm" for folder in ("var/lib/rpm", "usr/lib/sysimage/rpm") for name in _RPM},
}
_UNREAD = ("rpm", "pacman")
_PATTERNS = (
    (re.compile(rb"var/lib/dpkg/status\.d/[^/]+(?<!\.md5sums)"), "dpkg"),
    (re.compile(rb"(?:.*/)?(?:[^/]+\.dist-info/METADATA|[^/]+\.egg-info(?:/PKG-INFO)?)", re.DOTALL), "python"),
    (re.compile(rb"(?:.*/)?node_modules/(?:@[^/]+/)?[^/@]+/package\.json", re.DOTALL), "node"),
)
# Most paths are none of these, which one call finds out.
_ENDINGS = (b"/METADATA", b"/PKG-INFO", b".egg-info", b"/package.json", b"/status", b"/installed", b"/os-release", b"/ALPM_DB_VERSION")
_ALL_ENDINGS = (*_ENDINGS, *(f"/{name}".encode() for name in _RPM))
_FOLDER = b"var/lib/dpkg/status.d/"


class CollectionImpossible(Refused):
    """More files than any device has."""


@dataclass(frozen=True, slots=True)
class _Database:
    """One file with all its names in its layer, and what it says."""

    names: tuple[bytes, ...]
    kind: str
    software: tuple[Software, ...] = ()
    system: OperatingSystem | None = None
    broken: int = 0
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class _Layer:
    databases: tuple[_Database, ...]
    hidden: Hidden
    remark: str | None = None


class PackageCollection:
    """Takes each layer once (``tree`` or ``tar``, whichever form it has), then ``contents`` tells what an image has."""

    def __init__(self, images: Sequence[StoredImage]) -> None:
        self._layers: dict[str, _Layer] = {}
        self._known: dict[Software, Software] = {}
        self._characters = self._hidden_count = self._database_count = self._names_bytes = self._read_bytes = 0
        # A base layer has nothing below it to hide.
        self._uppers = {layer.diff_id for stored in images for layer in stored.image.layers if layer.index}

    def tree(self, diff_id: str, tree: LayerTree, tar: FileSlice) -> None:
        """Look at a layer as the layer rules made it of ``tar``."""
        if diff_id in self._layers:
            return
        hidden = Hidden() if diff_id in self._uppers else None
        files: dict[int, tuple[list[bytes], Content]] = {}
        for path, inode in tree.walk():
            if hidden is not None:
                hidden.add(path, merges=inode.kind is Kind.DIRECTORY and not (inode.xattrs and OPAQUE[0] in inode.xattrs))
            if (path.endswith(_ALL_ENDINGS) or path.startswith(_FOLDER)) and inode.kind is Kind.REGULAR:
                content = FileSlice(tar.descriptor, tar.offset + inode.offset, inode.size_bytes, tar.name)
                files.setdefault(id(inode), ([], content))[0].append(path)
        self._take(diff_id, files.values(), hidden, None)

    def tar(self, diff_id: str, tar: FileSlice, where: str, entries_max: int) -> None:
        """Look at a layer of which only the tar is there. One that cannot be read to its end is for the engine to refuse."""
        if diff_id in self._layers:
            return
        reading = TarReading(tar, diff_id in self._uppers, _wants)
        remark = None
        try:
            reading.read(where, entries_max)
        except TarCorrupt as error:
            remark = error.message
        self._take(diff_id, reading.files.values(), reading.hidden, remark)

    def contents(self, stored: StoredImage) -> ImageContents:
        """Of an image whose layers have all been taken."""
        visible = list(self._visible(stored))
        # os-release(5): /etc goes before /usr/lib.
        systems = sorted((name, one.system) for name, one in visible if one.system is not None)
        software = {package for _, one in visible for package in one.software}
        remarks = {remark for layer in stored.image.layers if (remark := self._layers[layer.diff_id].remark) is not None}
        for name, one in visible:
            path = f"/{printable(name)}"
            if one.kind in _UNREAD:
                remarks.add(f"the {one.kind} database {path} is not read: its packages are missing here")
            if one.broken:
                remarks.add(f"{path}: {one.broken} record{'s' if one.broken > 1 else ''} left out, {one.remark}")
            elif one.remark is not None:
                remarks.add(f"{path} is not read: {one.remark}")
        said = sorted(remarks)
        if len(said) > REMARKS_MAX:
            said = [*said[:REMARKS_MAX], f"and {len(said) - REMARKS_MAX} more such remarks"]
        return ImageContents(systems[0][1] if systems else None, tuple(sorted(software)), tuple(said))

    def _remembered(self, software: Iterable[Software]) -> tuple[Software, ...]:
        """The packages, each of them once over all layers: a layer that changes a database has most of them again."""
        kept = []
        for package in software:
            known = self._known.get(package)
            if known is None:
                if len(self._known) >= PACKAGES_MAX or self._characters >= CHARACTERS_MAX:
                    continue
                self._known[package] = known = package
                self._characters += sum(len(getattr(package, name)) for name in Software.__dataclass_fields__)
            kept.append(known)
        return tuple(kept)

    def _has_room(self, names: Sequence[bytes], size_bytes: int) -> bool:
        self._database_count += 1
        self._names_bytes += sum(map(len, names))
        self._read_bytes += size_bytes if size_bytes <= DATABASE_MAX_BYTES else 0
        return self._database_count <= DATABASES_MAX and self._names_bytes <= NAMES_MAX_BYTES and self._read_bytes <= READ_MAX_BYTES

    def _visible(self, stored: StoredImage) -> Iterator[tuple[bytes, _Database]]:
        """Each database that is seen in the image, with its first visible name."""
        layers = [self._layers[layer.diff_id] for layer in stored.image.layers]
        interesting = hashes_of(name for layer in layers for one in layer.databases for name in one.names)
        hidden_all: set[int] = set()
        hidden_files: set[int] = set()
        for layer in reversed(layers):
            for one in layer.databases:
                # Of several names in an image each counts as what it is called.
                for name in one.names:
                    if not is_hidden(name, hidden_all, hidden_files) and _kind(name) == one.kind:
                        yield name, one
                        break
            hides_all, hides_files = layer.hidden.among(interesting)
            hidden_all |= hides_all
            hidden_files |= hides_files

    def _take(self, diff_id: str, files: Iterable[tuple[list[bytes], Content]], hidden: Hidden | None, remark: str | None) -> None:
        databases = []
        for names, content in files:
            kinds = {kind for name in names if (kind := _kind(name)) is not None}
            if kinds and not self._has_room(names, content.size_bytes):
                remark = f"more than {DATABASES_MAX} package databases in this store, or {READ_MAX_BYTES} bytes: the others are left out"
                break
            for kind in sorted(kinds):
                one = _read(tuple(names), kind, content)
                kept = self._remembered(one.software)
                if len(kept) < len(one.software):
                    remark = (
                        f"more than {PACKAGES_MAX} packages in this store, or {CHARACTERS_MAX} characters of them: the others are left out"
                    )
                databases.append(replace(one, software=kept))
        self._hidden_count += len(hidden or ())
        if self._hidden_count > ENTRIES_MAX:
            raise CollectionImpossible(f"the images hold more than {ENTRIES_MAX} files in upper layers")
        self._layers[diff_id] = _Layer(tuple(databases), hidden or Hidden(), remark)


def _wants(header: Skimmed) -> bool:
    name = header.name
    return name.endswith(_ALL_ENDINGS) or _FOLDER in name


def _kind(path: bytes) -> str | None:
    if (fixed := _FIXED.get(path)) is not None:
        return fixed
    return next((kind for pattern, kind in _PATTERNS if pattern.fullmatch(path)), None)


_Reader = Callable[[bytes], Iterable[Software | RecordInvalid]]
_DATABASES: dict[str, _Reader] = {"dpkg": debian_packages, "apk": alpine_packages}


def _read(names: tuple[bytes, ...], kind: str, content: Content) -> _Database:
    if kind in _UNREAD:
        return _Database(names, kind)
    most = DATABASE_MAX_BYTES if kind in _DATABASES else FILE_MAX_BYTES
    if content.size_bytes > most:
        return _Database(names, kind, remark=f"it has {content.size_bytes} bytes")
    raw = _bytes(content, _HEAD_BYTES if kind == "python" else most)
    try:
        if kind == "os-release":
            return _Database(names, kind, system=operating_system(raw))
        if kind in _DATABASES:
            return _database(names, kind, _DATABASES[kind](raw))
        package = python_package(raw) if kind == "python" else node_package(raw)
    except RecordInvalid as error:
        return _Database(names, kind, remark=str(error))
    return _Database(names, kind, () if package is None else (package,))


def _database(names: tuple[bytes, ...], kind: str, records: Iterable[Software | RecordInvalid]) -> _Database:
    software: list[Software] = []
    broken, first = 0, ""
    for record in records:
        if isinstance(record, RecordInvalid):
            broken, first = broken + 1, first or f"of the first {record}"
        elif len(software) <= PACKAGES_MAX:
            software.append(record)
    return _Database(names, kind, tuple(software), broken=broken, remark=first or None)


def _bytes(content: Content, most: int) -> bytes:
    pieces = []
    for piece in content.chunks():
        pieces.append(piece[:most])
        most -= len(pieces[-1])
        if not most:
            break
    return b"".join(pieces)
