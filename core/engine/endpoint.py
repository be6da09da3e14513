"""Where an engine listens, found as its own command line finds it.

Docker (docker/cli, ``cli/command/cli.go``): DOCKER_HOST, else the context that DOCKER_CONTEXT or ``currentContext`` in
``config.json`` names, else ``/var/run/docker.sock``; DOCKER_TLS_VERIFY, DOCKER_TLS and DOCKER_CERT_PATH belong to
DOCKER_HOST, a context has certificates of its own. Podman (podman-remote(1)): CONTAINER_HOST, else the service's
socket of this user, else root's.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.errors import Refused
from shiplap.core.jsontext import JsonObject, member, parse_object, shown

DOCKER_SOCKET = "/var/run/docker.sock"
PODMAN_SOCKET = "/run/podman/podman.sock"
_PORT, _TLS_PORT = 2375, 2376
_CONFIG_LIMIT_BYTES = 4 << 20
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\])?(?::\d{1,5})?")
_CERTIFICATES = ("ca.pem", "cert.pem", "key.pem")


class EndpointInvalid(Refused):
    """What names the engine's address is wrong, or names a way that is not supported."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """TLS material; None where there is none. ``verify``: whether the engine's own certificate is checked."""

    authorities: Path | None
    certificate: Path | None
    key: Path | None
    verify: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine's address. ``engine``: Docker or Podman. ``address``: ``unix:///…`` or ``tcp://host:port[/path]``.

    ``origin``: what named it, for messages.
    """

    engine: str
    address: str
    origin: str
    tls: Certificates | None = None

    @property
    def socket(self) -> str | None:
        """The path of a unix socket."""
        return self.address.removeprefix("unix://") if self.address.startswith("unix://") else None


def docker_endpoint(environment: Mapping[str, str]) -> Endpoint:
    """Where ``docker`` would connect to; raises EndpointInvalid."""
    folder = Path(environment.get("DOCKER_CONFIG") or Path(_home(environment), ".docker"))
    host = environment.get("DOCKER_HOST", "").strip()
    if not host:
        name, origin = _context_name(environment, folder)
        if name != "default":
            return _context(name, origin, folder)
    verify = bool(environment.get("DOCKER_TLS_VERIFY"))
    wants_tls = verify or bool(environment.get("DOCKER_TLS"))
    if not host:
        host, origin = (f"tcp://localhost:{_TLS_PORT}", "DOCKER_TLS_VERIFY") if wants_tls else (DOCKER_SOCKET, "the default socket")
    else:
        origin = "DOCKER_HOST"
    tls = None
    if wants_tls and not host.startswith(("unix://", "/", "ssh://")):
        tls = _certificates(Path(environment.get("DOCKER_CERT_PATH") or folder), verify=verify)
    return _endpoint("Docker", host, origin, tls)


def podman_endpoint(environment: Mapping[str, str]) -> Endpoint:
    """Where Podman's service listens; raises EndpointInvalid.

    Of the usual sockets the user's own comes before root's, as ``podman --remote`` has it; which one is there decides.
    """
    host = environment.get("CONTAINER_HOST", "").strip()
    if host:
        return _endpoint("Podman", host, "CONTAINER_HOST", None)
    if environment.get("CONTAINER_CONNECTION"):
        raise EndpointInvalid(
            "CONTAINER_CONNECTION names a connection of Podman, which shiplap does not read",
            hint="set CONTAINER_HOST to its address: podman system connection list",
        )
    # Where systemd's podman.socket puts it.
    own = f"{environment.get('XDG_RUNTIME_DIR') or f'/run/user/{os.geteuid()}'}/podman/podman.sock"
    sockets = [PODMAN_SOCKET] if os.geteuid() == 0 else [own, PODMAN_SOCKET]
    found = next((one for one in sockets if Path(one).exists()), sockets[0])
    return Endpoint("Podman", f"unix://{found}", "the default socket")


def _home(environment: Mapping[str, str]) -> str:
    return environment.get("HOME") or str(Path.home())


def _endpoint(engine: str, host: str, origin: str, tls: Certificates | None) -> Endpoint:
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
    if scheme == "unix":
        return Endpoint(engine, f"unix://{rest or DOCKER_SOCKET}", origin)
    if scheme in ("tcp", "http", "https"):
        authority, slash, path = rest.partition("/")
        if not _AUTHORITY.fullmatch(authority):
            raise EndpointInvalid(f"{origin} is not an address: {shown(host)}", hint="write unix:///PATH or tcp://HOST:PORT")
        if not re.search(r":\d+$", authority):
            authority += f":{_TLS_PORT if tls else _PORT}"
        if authority.startswith(":"):
            authority = "127.0.0.1" + authority
        if scheme == "https" and tls is None:
            tls = Certificates(None, None, None, verify=True)
        return Endpoint(engine, f"tcp://{authority}{slash}{path}".rstrip("/"), origin, tls)
    if scheme == "ssh":
        remote = PODMAN_SOCKET if engine == "Podman" else DOCKER_SOCKET
        variable = "CONTAINER_HOST" if engine == "Podman" else "DOCKER_HOST"
        raise EndpointInvalid(
            f"{origin} is {shown(host)}: shiplap does not speak ssh",
            hint=f"let ssh bring the socket here: ssh -nNT -L /tmp/engine.sock:{remote} HOST, then {variable}=unix:///tmp/engine.sock",
        )
    raise EndpointInvalid(f"{origin} is {shown(host)}: shiplap knows no {shown(scheme)}://", hint="write unix:///PATH or tcp://HOST:PORT")


def _certificates(folder: Path, *, verify: bool) -> Certificates:
    """``ca.pem``, ``cert.pem`` and ``key.pem`` of a folder, as far as they are there; raises EndpointInvalid."""
    authorities, certificate, key = (path if path.is_file() else None for path in (folder / name for name in _CERTIFICATES))
    if (certificate is None) != (key is None):
        absent = "cert.pem" if certificate is None else "key.pem"
        raise EndpointInvalid(f"{folder} has no {absent}, and one without the other is of no use")
    if verify and authorities is None:
        raise EndpointInvalid(
            f"DOCKER_TLS_VERIFY is set, but {folder} has no ca.pem to check the engine by",
            hint="DOCKER_CERT_PATH names the folder of ca.pem, cert.pem and key.pem",
        )
    return Certificates(authorities, certificate, key, verify)


def _context_name(environment: Mapping[str, str], folder: Path) -> tuple[str, str]:
    name = environment.get("DOCKER_CONTEXT", "")
    if name:
        return name, "DOCKER_CONTEXT"
    path = folder / "config.json"
    config = _read_json(path)
    current = None if config is None else member(config, "currentContext", str, what=str(path))
    return current or "default", str(path)


def _context(name: str, origin: str, folder: Path) -> Endpoint:
    """The endpoint of a stored context (docker/cli, ``cli/context/store``): its folder is the hash of its name."""
    known = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    where = f"the docker context {shown(name)}"
    path = folder / "contexts" / "meta" / known / "meta.json"
    meta = _read_json(path)
    if meta is None:
        raise EndpointInvalid(f"{origin} names the context '{shown(name)}', which does not exist", hint="docker context ls shows them all")
    endpoints = member(meta, "Endpoints", dict, what=where) or {}
    docker = member(endpoints, "docker", dict, what=f"'Endpoints' of {where}") or {}
    host = member(docker, "Host", str, what=where)
    if not host:
        raise EndpointInvalid(f"{where} has no address of a Docker engine")
    skip = bool(member(docker, "SkipTLSVerify", bool, what=where))
    material = folder / "contexts" / "tls" / known / "docker"
    tls = None
    if skip or material.is_dir():
        found = _certificates(material, verify=False)
        tls = Certificates(found.authorities, found.certificate, found.key, verify=not skip)
    return _endpoint("Docker", host, where, tls)


def _read_json(path: Path) -> JsonObject | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_CONFIG_LIMIT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise EndpointInvalid(f"cannot read {path}: {error.strerror}") from error
    return parse_object(raw, what=str(path), limit_bytes=_CONFIG_LIMIT_BYTES)
