"""How sources may be reached: the cache, the network's settings, and what may not be done at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from shiplap.core.cache import Cache
from shiplap.core.cache.mirror import Unreachable
from shiplap.core.errors import Refused
from shiplap.core.progress import SILENT, Progress
from shiplap.core.registry.settings import RegistrySettings


class OfflineRefused(Refused):
    """Something that only the network or an engine has was asked for, and ``--offline`` forbids to ask them."""


@dataclass(frozen=True, slots=True)
class Access:
    """The surroundings of a source. Nothing in here decides a byte of what comes out.

    ``cache``: None where nothing may be kept; registries need one. ``registries``: by ``host[:port]``.
    ``default_registry``: the command line's ``--tls-verify``, ``--cert-dir`` and ``--authfile``, for every registry that
    ``registries`` says nothing of; a key that is set there is stronger. ``environment``: DOCKER_HOST,
    REGISTRY_AUTH_FILE and their like. ``download_mirrors``: folders and URLs of flat mirrors (:mod:`shiplap.core.cache.mirror`),
    asked for a registry's blobs before the registry. ``unreachable``: those of them that were given up in this run.
    """

    cache: Cache | None = None
    offline: bool = False
    registries: Mapping[str, RegistrySettings] = field(default_factory=dict)
    default_registry: RegistrySettings = field(default_factory=RegistrySettings)
    progress: Progress = SILENT
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    download_mirrors: tuple[str, ...] = ()
    unreachable: Unreachable = field(default_factory=Unreachable, compare=False)
