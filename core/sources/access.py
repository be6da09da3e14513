"""How sources may be reached: the cache, the network's settings, and what may not be done at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shiplap.core.cache import Cache
from shiplap.core.errors import Refused
from shiplap.core.progress import SILENT, Progress


class OfflineRefused(Refused):
    """Something that only the network or an engine has was asked for, and ``--offline`` forbids to ask them."""


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """What the manifest's ``registries:`` says of one registry; None: not said.

    ``tls_verify`` False also allows plain HTTP, as in skopeo. ``cert_dir``: a folder with ``*.crt`` (authorities),
    ``*.cert`` and ``*.key`` (the client's own), as in containers-certs.d(5). ``authfile``: as in
    containers-auth.json(5). ``mirrors``: ``host[:port][/prefix]``, asked in order before the registry itself.
    """

    tls_verify: bool | None = None
    cert_dir: Path | None = None
    authfile: Path | None = None
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """The surroundings of a source. Nothing in here decides a byte of what comes out.

    ``cache``: None where nothing may be kept; registries need one. ``registries``: by ``host[:port]``.
    ``default_registry``: the command line's ``--tls-verify``, ``--cert-dir`` and ``--authfile``, for every registry that
    ``registries`` says nothing of; a key that is set there is stronger. ``environment``: DOCKER_HOST,
    REGISTRY_AUTH_FILE and their like.
    """

    cache: Cache | None = None
    offline: bool = False
    registries: Mapping[str, RegistrySettings] = field(default_factory=dict)
    default_registry: RegistrySettings = RegistrySettings()
    progress: Progress = SILENT
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
