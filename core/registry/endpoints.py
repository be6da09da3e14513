"""From a name to the places that may have it: mirrors in their order, then the registry itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.errors import Refused
from shiplap.core.jsontext import shown
from shiplap.core.reference import DEFAULT_DOMAIN, Reference, ReferenceInvalid, parse_reference
from shiplap.core.registry.registriesconf import conf_registry
from shiplap.core.registry.settings import RegistrySettings, canonical_host, settings_of

_HUB_HOST = "registry-1.docker.io"  # docker.io is a name in references; nothing answers there


class RegistryBlocked(Refused):
    """registries.conf forbids to pull from there."""


class MirrorInvalid(Refused):
    """A mirror or location that names no repository."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One repository at one host.

    ``host``: ``host[:port]`` to connect to. ``name``: ``host/repository`` as people and files of credentials write it.
    ``pull``: what is asked of a mirror, ``all``, ``digest-only`` or ``tag-only``.
    """

    host: str
    repository: str
    name: str
    tls_verify: bool = True
    cert_dir: Path | None = None
    authfile: Path | None = None
    is_mirror: bool = False
    pull: str = "all"

    @property
    def visible_host(self) -> str:
        """The host as it is written in references: certs.d has docker.io, not where it answers."""
        return self.name.partition("/")[0]

    def serves(self, wanted: str) -> bool:
        """Whether it may be asked for the tag or digest ``wanted``."""
        return self.pull == "all" or (":" in wanted) == (self.pull == "digest-only")


def endpoints(
    reference: Reference, registries: Mapping[str, RegistrySettings], default: RegistrySettings, environment: Mapping[str, str]
) -> tuple[Endpoint, ...]:
    """Where to ask for ``reference``, in order; the registry itself is the last.

    The manifest's ``mirrors`` stand in place of those that registries.conf has for the same registry.
    Raises RegistryBlocked, MirrorInvalid, RegistriesConfUnusable.
    """
    conf = conf_registry(reference.name, environment)
    own = settings_of(reference.domain, registries, default)
    location, insecure = reference.name, False
    found: list[Endpoint] = []

    def add(name: str, insecure: bool, *, is_mirror: bool, pull: str = "all") -> None:
        host, repository = _split(name)
        settings = settings_of(host, registries, default)
        verify = settings.tls_verify if settings.tls_verify is not None else not insecure
        real = _HUB_HOST if canonical_host(host) == DEFAULT_DOMAIN else host
        found.append(Endpoint(real, repository, name, verify, settings.cert_dir, settings.authfile, is_mirror, pull))

    if conf is not None:
        if conf.blocked:
            raise RegistryBlocked(f"{reference.name} may not be pulled: {conf.origin} blocks {conf.prefix}")
        rest = conf.rest_of(reference.name) or ""
        insecure = conf.insecure
        if conf.location:
            location = conf.location + rest
        if not own.mirrors:
            for mirror in conf.mirrors:
                add(mirror.location + rest, mirror.insecure, is_mirror=True, pull=mirror.pull)
    for text in own.mirrors:
        add(f"{text.rstrip('/')}/{reference.path}", False, is_mirror=True)
    add(location, insecure, is_mirror=False)
    return tuple(found)


def is_mirror_location(text: str) -> bool:
    """Whether it is a mirror's ``host[:port][/prefix]`` as the manifest may write it."""
    try:
        _split(f"{text.rstrip('/')}/a/b")
    except MirrorInvalid:
        return False
    return True


def _split(name: str) -> tuple[str, str]:
    host, _, _ = name.partition("/")
    try:
        parsed = parse_reference(name, default_tag=False)
    except ReferenceInvalid:
        parsed = None
    if parsed is None or parsed.tag or parsed.digest or parsed.domain != _domain(host):
        raise MirrorInvalid(f"'{shown(name)}' is no place for images", hint="write host[:port] or host[:port]/prefix, without https://")
    return parsed.domain, parsed.path


def _domain(host: str) -> str:
    """As references have it: ``index.docker.io`` is ``docker.io``."""
    return DEFAULT_DOMAIN if host == "index.docker.io" else host
