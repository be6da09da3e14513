"""The options of every verb that opens sources: cache, network, registries."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from shiplap.cli.console import Console
from shiplap.core.cache import Cache, cache_folder
from shiplap.core.registry.settings import RegistrySettings, from_options
from shiplap.core.sources import Access

_WORDS = {"true": True, "false": False}


def add_access_options(parser: argparse.ArgumentParser) -> None:
    """``--cache``, ``--mirror`` and, in skopeo's words, ``--authfile``, ``--tls-verify`` and ``--cert-dir``."""
    group = parser.add_argument_group("sources")
    group.add_argument("--cache", metavar="DIR", help="the cache (default: SHIPLAP_CACHE, else ~/.cache/shiplap)")
    group.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="DIR|URL",
        help="ask this download mirror (files sha256-…) before any registry; repeatable",
    )
    group.add_argument("--authfile", metavar="FILE", help="logins for registries, as `skopeo login` and `docker login` write them")
    group.add_argument(
        "--tls-verify",
        metavar="BOOL",
        type=_bool,
        nargs="?",
        const=True,
        help="false: take any certificate of a registry, and plain HTTP (default: true)",
    )
    group.add_argument("--cert-dir", metavar="DIR", help="a folder with *.crt (authorities), *.cert and *.key (the client's own)")


def access_of(
    arguments: argparse.Namespace, console: Console, registries: Mapping[str, RegistrySettings], folder: Path, *, offline: bool = False
) -> Access:
    """What the options allow. ``registries``: the manifest's, whose relative paths begin at its ``folder``."""
    for place in arguments.mirror:
        if "://" not in place and not Path(place).is_dir():
            console.note(f"the mirror {place} is no folder here, and is not asked")
    return Access(
        cache=cache_of(arguments),
        offline=offline,
        registries={host: settings.below(folder) for host, settings in registries.items()},
        default_registry=from_options(arguments.authfile, arguments.tls_verify, arguments.cert_dir),
        progress=console.progress,
        environment=os.environ,
        download_mirrors=tuple(arguments.mirror),
    )


def cache_of(arguments: argparse.Namespace) -> Cache:
    """The cache that was named, else the user's. Nothing is looked at or made yet."""
    return Cache(Path(arguments.cache) if arguments.cache else cache_folder(os.environ))


def _bool(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return _WORDS[text.lower()]
