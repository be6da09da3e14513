"""Proxies from the environment, by the rules of Go's programs (golang.org/x/net/http/httpproxy), so that what works for
skopeo and docker works here."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from shiplap.core.errors import Refused


class ProxyUnusable(Refused):
    """A proxy variable that names nothing we can use."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """``authorization``: the value of Proxy-Authorization, a secret."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


def proxy_for(scheme: str, host: str, port: int, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for ``scheme://host:port``, None for a direct connection. Raises ProxyUnusable.

    ``HTTPS_PROXY`` or ``HTTP_PROXY`` by the scheme, ``NO_PROXY``; lower case counts when upper case is not set. This machine
    itself is never asked through a proxy.
    """
    name = "HTTPS_PROXY" if scheme == "https" else "HTTP_PROXY"
    value = _variable(name, environment)
    if not value or _is_direct(host.lower().rstrip("."), port, _variable("NO_PROXY", environment)):
        return None
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        proxy_port = parts.port or 80
    except ValueError:
        parts, proxy_port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname or not proxy_port:
        # The value may hold a password, so it is not shown, and neither is Python's error, which may quote it.
        raise ProxyUnusable(
            f"{name} names no http:// proxy",
            hint=f"write {name}=http://HOST:PORT; https:// and socks proxies are not supported",
        ) from None
    authorization = None
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(secret.encode()).decode("ascii")
    return Proxy(parts.hostname, proxy_port, authorization)


def _variable(name: str, environment: Mapping[str, str]) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _is_direct(host: str, port: int, no_proxy: str) -> bool:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for one in (part.strip().lower() for part in no_proxy.split(",")):
        if one == "*":
            return True
        if address is not None and "/" in one:
            try:
                if address in ipaddress.ip_network(one, strict=False):
                    return True
            except (ValueError, TypeError):
                pass
            continue
        name, _, only_port = one.rpartition(":") if one.count(":") == 1 else (one, "", "")
        if not name or (only_port and only_port != str(port)):
            continue
        name = name.removeprefix("*")
        if address is not None:
            if name.strip("[]") == str(address):
                return True
        elif (host == name and not name.startswith(".")) or host.endswith("." + name.removeprefix(".")):
            return True
    return False
