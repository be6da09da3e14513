"""What the target kit has to know of a build, beside the store itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shiplap.core.errors import Refused


class TargetRefused(Refused):
    """Settings of the device that do not fit together."""


@dataclass(frozen=True, slots=True)
class DataRoot:
    """The engine's writable folder. ``size``: of a volatile one's tmpfs, in mount(8)'s words, None for the kernel's half of memory."""

    path: str = "/var/lib/docker"
    persistence: str = "volatile"
    size: str | None = None
    volumes_path: str | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """A container that the device starts. ``image``: config digest; ``options``: for ``create``, ``args``: for the program in it.

    ``wait_for``: paths that must exist first, ``after``: containers that start first.
    """

    name: str
    image: str
    reference: str
    options: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    wait_for: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """``store_id``: sha256 of store.json, hex. ``image``, ``tree``, ``archive``: where the device finds them: a path, or
    ``PARTUUID=…``; ``image`` is empty where the store lies unpacked at its mount point. ``root_hash`` None: not sealed.
    ``seal``: what the manifest says of that, for whoever builds the root file system. ``canary``: its image, empty where the store
    needs none. ``sha256``, ``image_bytes``: of the store image or the archive; hex.
    ``images``: (config digest, name) pairs: full references of a store, what ``docker load`` brings of an archive.
    ``engine_config``: for daemon.json or storage.conf. ``quadlet``: under systemd the containers are units of Podman's generator.
    """

    mode: str
    engine: str
    driver: str
    store_id: str
    store_path: str
    images: tuple[tuple[str, str], ...]
    data_root: DataRoot = DataRoot()
    image: str = ""
    tree: str = ""
    archive: str = ""
    root_hash: str | None = None
    sha256: str = ""
    image_bytes: int = 0
    check: str = "lazy"
    on_corruption: str = "eio"
    seal: str = "auto"
    canary: bytes = b""
    filesystem: str = "squashfs"
    init: tuple[str, ...] = ("systemd", "sysv")
    containers: tuple[Container, ...] = ()
    quadlet: bool = False
    engine_config: Mapping[str, Any] = field(default_factory=dict)
    engine_timeout_seconds: int = 60
