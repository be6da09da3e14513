"""What an adapter has to know: a manifest, its lock, and where the tool and, in prebuilt mode, the artifacts come from. Values only."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shiplap.core.lock.model import Lock, LockedImage
from shiplap.core.manifest.model import Manifest
from shiplap.core.platform import Platform
from shiplap.core.reference import Reference
from shiplap.core.sources.spec import parse_source

_SPECIAL = re.compile(r"[^A-Za-z0-9._+:/@-]")


@dataclass(frozen=True, slots=True)
class AdapterImage:
    """One image. ``license``: an SPDX expression, as the manifest states it. ``source``: where the lock found it."""

    reference: Reference
    source: str
    locked: LockedImage
    license: str

    @property
    def is_in_registry(self) -> bool:
        """Whether every build machine can fetch it: files and engines are of one machine only."""
        return parse_source(self.source).transport == "docker"

    @property
    def stated_source(self) -> str:
        """``source`` to be read by people: no folder of this machine, no character that a makefile or a shell takes for its own."""
        return _SPECIAL.sub("_", parse_source(self.source).public_text)


@dataclass(frozen=True, slots=True)
class HostTool:
    """shiplap's own source as one archive (:mod:`shiplap.adapters.sourcearchive`); it unpacks to ``shiplap-<version>/``.

    ``url``: where the build system fetches it; None: the generated tree carries it.
    """

    version: str
    file_name: str
    sha256: str
    size_bytes: int
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PrebuiltFile:
    """An artifact of the bundle, by its name in the output folder. ``sha256``: hex."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Prebuilt:
    """A finished build as one archive (:mod:`shiplap.adapters.bundle`); it unpacks to ``<name>-<version>/``.

    ``root_hash``: of the store image, hex; None where it is not sealed. ``url``: as in :class:`HostTool`.
    """

    file_name: str
    sha256: str
    size_bytes: int
    files: tuple[PrebuiltFile, ...]
    root_hash: str | None = None
    url: str | None = None

    def has(self, name: str) -> bool:
        return any(file.name == name for file in self.files)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """All that decides the generated files.

    ``name``: the manifest's, ``[a-z0-9][a-z0-9._+-]*``. ``version``: of the generated package. ``manifest_text``: the resolved
    manifest, every default written out; ``lock_text``: the lock's bytes. ``maintainer``: ``Name <address>``.
    ``prebuilt`` None: the build system calls shiplap itself.
    """

    name: str
    version: str
    platform: Platform
    manifest: Manifest
    manifest_text: str
    lock: Lock
    lock_text: str
    images: tuple[AdapterImage, ...]
    maintainer: str
    host_tool: HostTool
    prebuilt: Prebuilt | None = None

    @property
    def symbol(self) -> str:
        """The name as a part of symbols in Kconfig and make: capitals, digits, underscores."""
        return "".join(letter if letter.isalnum() else "_" for letter in self.name.upper())

    @property
    def epoch(self) -> int:
        """Seconds: the lock's."""
        return self.lock.epoch

    @property
    def artifact(self) -> str:
        """The file that the device gets: the store image, or the archive."""
        if self.manifest.mode == "archive":
            suffix = {"none": "", "gzip": ".gz", "xz": ".xz", "zstd": ".zst"}[self.manifest.archive.compression]
            return f"images.tar{suffix}"
        return "store.erofs" if "erofs" in self.manifest.outputs else "store.squashfs"
