"""What was said about how to reach a registry: by the manifest, by options, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.reference import DEFAULT_DOMAIN

_DOCKER_HUB = (DEFAULT_DOMAIN, "index.docker.io", "registry-1.docker.io")


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

    def over(self, weaker: RegistrySettings) -> RegistrySettings:
        """These settings, and those of ``weaker`` where these say nothing."""
        return RegistrySettings(
            tls_verify=weaker.tls_verify if self.tls_verify is None else self.tls_verify,
            cert_dir=self.cert_dir or weaker.cert_dir,
            authfile=self.authfile or weaker.authfile,
            mirrors=self.mirrors or weaker.mirrors,
        )

    def below(self, folder: Path) -> RegistrySettings:
        """The same with relative paths beginning at ``folder``: for those of a manifest, its own folder."""
        cert_dir, authfile = (None if path is None else folder / path for path in (self.cert_dir, self.authfile))
        return RegistrySettings(self.tls_verify, cert_dir, authfile, self.mirrors)


def from_options(authfile: str | None, tls_verify: bool | None, cert_dir: str | None) -> RegistrySettings:
    """The settings of ``--authfile``, ``--tls-verify`` and ``--cert-dir``; None: not given."""
    return RegistrySettings(tls_verify, None if cert_dir is None else Path(cert_dir), None if authfile is None else Path(authfile))


def canonical_host(host: str) -> str:
    """``host[:port]`` by which a registry's settings are found: Docker Hub has several names."""
    lowered = host.lower()
    return DEFAULT_DOMAIN if lowered in _DOCKER_HUB else lowered


def settings_of(host: str, registries: Mapping[str, RegistrySettings], default: RegistrySettings) -> RegistrySettings:
    """What holds for ``host``: the manifest's entry for it, and the options where that says nothing."""
    wanted = canonical_host(host)
    for name, settings in registries.items():
        if canonical_host(name) == wanted:
            return settings.over(default)
    return default
