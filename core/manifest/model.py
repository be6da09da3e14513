"""The manifest as the rest of the program sees it: every default decided, every size in bytes.

Leaf module: values only. Reading and checking is :mod:`shiplap.core.manifest.reading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shiplap.core.limits import Limits
from shiplap.core.manifest.device import DeviceSettings
from shiplap.core.platform import Platform
from shiplap.core.reference import Reference
from shiplap.core.registry.settings import RegistrySettings

DEFAULT_NAME = "shiplap.yaml"


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image that was asked for.

    ``ref``: the name on the device; None (command line only): the names that the source has.
    ``source``: where it comes from, as it was written. ``digest``: of the index or of the platform's manifest.
    ``config_digest``: the image ID. ``line``: in the manifest, 0 for the command line.
    """

    ref: Reference | None
    source: str
    digest: str | None = None
    config_digest: str | None = None
    license: str | None = None
    allow_foreign_elf: tuple[str, ...] = ()
    allow_lost_xattrs: tuple[str, ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True)
class SquashfsSettings:
    """``level``: None where the compression has none. ``allow_tool``: versions accepted although known to be faulty."""

    tool: str
    compression: str
    level: int | None
    block_size_bytes: int
    whiteouts: str
    allow_tool: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErofsSettings:
    """``level``: None where the compression has none."""

    compression: str
    level: int | None
    cluster_size_bytes: int


@dataclass(frozen=True, slots=True)
class VeritySettings:
    """The hash tree, and what the device does with it."""

    hash: str
    fec_roots: int
    check: str
    on_corruption: str
    seal: str


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """``level`` 0: the compressor's own default."""

    compression: str
    level: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that this release can build. See the design's section 5 for each key.

    ``written``: what was written, as JSON, so that options can be laid over it before defaults are decided;
    no part of the identity. ``registries``: by ``host[:port]``; relative paths in them begin at the manifest's folder.
    """

    version: int
    name: str
    platform: Platform | None
    epoch: int | None
    security_version: int | None
    images: tuple[ImageRequest, ...]
    mode: str
    engine: str
    driver: str
    outputs: tuple[str, ...]
    store_path: str
    squashfs: SquashfsSettings
    erofs: ErofsSettings
    verity: VeritySettings
    archive: ArchiveSettings
    budget_store_image_bytes: int | None
    limits: Limits
    device: DeviceSettings
    registries: Mapping[str, RegistrySettings] = field(default_factory=dict, hash=False)
    written: str = field(default="{}", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Overrides:
    """Options of the command line that are stronger than the manifest; None: not given.

    ``images`` replaces the manifest's images.
    """

    platform: str | None = None
    epoch: int | None = None
    mode: str | None = None
    engine: str | None = None
    driver: str | None = None
    outputs: tuple[str, ...] | None = None
    store_path: str | None = None
    placement: str | None = None
    images: tuple[ImageRequest, ...] | None = None
