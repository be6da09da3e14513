"""containers-registries.conf(5), version 2: what of it decides from where an image is pulled.

Read: ``[[registry]]`` with ``prefix`` (also ``*.example.org``), ``location``, ``insecure``, ``blocked``, ``mirror-by-digest-only`` and
``[[registry.mirror]]`` with ``location``, ``insecure``, ``pull-from-mirror``. Left alone: short names and search registries (a name here
is always a full one), ``credential-helpers``. Version 1 (``[registries.…]``) is passed over: containers' own tools no longer
read it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiplap.core.errors import Refused
from shiplap.core.jsontext import shown
from shiplap.core.registry.folders import config_folder

_SYSTEM = Path("/etc/containers")
_MAX_FILE_BYTES = 1 << 20
_PULLS = ("all", "digest-only", "tag-only")


class RegistriesConfUnusable(Refused):
    """A registries.conf that cannot be read."""


@dataclass(frozen=True, slots=True)
class ConfMirror:
    """``pull``: ``all``, ``digest-only`` or ``tag-only``."""

    location: str
    insecure: bool
    pull: str


@dataclass(frozen=True, slots=True)
class ConfRegistry:
    """One ``[[registry]]``; ``origin``: its file."""

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[ConfMirror, ...]
    origin: Path

    def rest_of(self, name: str) -> str | None:
        """What stands behind the prefix in ``name`` (``host/path``, no tag), None when it does not fit."""
        if self.prefix.startswith("*."):
            host, slash, path = name.partition("/")
            return slash + path if host.partition(":")[0].endswith(self.prefix[1:]) or host.endswith(self.prefix[1:]) else None
        if name == self.prefix:
            return ""
        return name[len(self.prefix) :] if name.startswith(f"{self.prefix}/") else None


def conf_registries(environment: Mapping[str, str]) -> tuple[ConfRegistry, ...]:
    """Every ``[[registry]]``; of several with one prefix the last file counts. Raises RegistriesConfUnusable.

    CONTAINERS_REGISTRIES_CONF names the only file; else the user's file stands for the system's, and the files of both
    ``registries.conf.d`` are read after it, by name.
    """
    found = {entry.prefix: entry for path in _files(environment) for entry in _entries(path)}
    return tuple(found.values())


def conf_registry(name: str, environment: Mapping[str, str]) -> ConfRegistry | None:
    """The entry with the longest prefix that fits ``name``."""
    fitting = [entry for entry in conf_registries(environment) if entry.rest_of(name) is not None]
    return max(fitting, key=lambda entry: (not entry.prefix.startswith("*."), len(entry.prefix)), default=None)


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    named = environment.get("CONTAINERS_REGISTRIES_CONF")
    if named:
        yield Path(named)
        return
    config = config_folder(environment)
    own = None if config is None else config / "containers"
    main = [folder / "registries.conf" for folder in (own, _SYSTEM) if folder is not None]
    yield from [path for path in main if path.is_file()][:1]
    for folder in (_SYSTEM, own):
        if folder is not None:
            yield from sorted((folder / "registries.conf.d").glob("*.conf"))


def _entries(path: Path) -> Iterator[ConfRegistry]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
        if len(raw) > _MAX_FILE_BYTES:
            raise RegistriesConfUnusable(f"{path} is larger than {_MAX_FILE_BYTES} bytes")
        data = tomllib.loads(raw.decode("utf-8"))
    except OSError as error:
        raise RegistriesConfUnusable(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # no TOML, no UTF-8
        raise RegistriesConfUnusable(f"{path} is not TOML: {shown(str(error))}") from error
    for entry in _tables(data, "registry", path):
        prefix, location = _text(entry, "prefix", path), _text(entry, "location", path)
        if not location and not prefix.startswith("*."):
            location = prefix
        if not prefix:
            prefix = location
        if not prefix:
            raise RegistriesConfUnusable(f"{path}: a [[registry]] has neither prefix nor location")
        by_digest = "digest-only" if _flag(entry, "mirror-by-digest-only", path) else ""
        mirrors = tuple(_mirror(one, by_digest, path) for one in _tables(entry, "mirror", path))
        yield ConfRegistry(prefix, location, _flag(entry, "insecure", path), _flag(entry, "blocked", path), mirrors, path)


def _mirror(table: dict[str, Any], by_digest: str, path: Path) -> ConfMirror:
    location, pull = _text(table, "location", path), _text(table, "pull-from-mirror", path) or by_digest or "all"
    if not location or pull not in _PULLS:
        raise RegistriesConfUnusable(f"{path}: a mirror needs a location, and its pull-from-mirror is one of {', '.join(_PULLS)}")
    return ConfMirror(location, _flag(table, "insecure", path), pull)


def _tables(holder: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = holder.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise RegistriesConfUnusable(f"{path}: {key!r} is not a list of tables", hint="write [[registry]] and [[registry.mirror]]")
    return value


def _text(table: dict[str, Any], key: str, path: Path) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise RegistriesConfUnusable(f"{path}: {key!r} is not a text")
    return value.rstrip("/")


def _flag(table: dict[str, Any], key: str, path: Path) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise RegistriesConfUnusable(f"{path}: {key!r} is not true or false")
    return value
