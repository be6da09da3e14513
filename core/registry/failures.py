"""How talking to a registry can fail, in one place: the client, the tokens and the transfers raise the same errors."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl

from shiplap.core.errors import OutsideFailure
from shiplap.core.jsontext import shown


class RegistryFailed(OutsideFailure):
    """A registry, its token server or the way to them failed.

    ``may_pass``: whether another try can help. ``wait_seconds``: how long the server asked to wait before it.
    """

    def __init__(self, message: str, *, hint: str | None = None, may_pass: bool = False, wait_seconds: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.may_pass = may_pass
        self.wait_seconds = wait_seconds


class Unreachable(RegistryFailed):
    """No connection: unknown name, nothing listens, no route, no answer in time."""


class TlsFailed(RegistryFailed):
    """A connection without trust, or something that speaks no TLS."""


class Broken(RegistryFailed):
    """The connection ended, or went silent, in the middle."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, may_pass=True)


class LoginNeeded(RegistryFailed):
    """401 or 403: no credentials, wrong ones, or ones that may not do this."""


class NotInRegistry(RegistryFailed):
    """404: the name, the tag or the blob is not there."""


class TooManyRequests(RegistryFailed):
    """429: a rate limit."""


class ServerFailed(RegistryFailed):
    """5xx, or an answer that no registry should give."""


class NotARegistry(RegistryFailed):
    """Something answers, but it is no registry."""


_INSECURE = "give its authority with --cert-dir (or a folder in /etc/containers/certs.d); --tls-verify=false trusts anybody"
_PLAIN = "is it an https:// registry? For one with plain HTTP: --tls-verify=false, or registries: {HOST: {tls-verify: false}}"
_BROKEN = "the network or the server broke the connection again and again; what has arrived is kept, try again later"


def connection_failed(error: OSError, where: str) -> RegistryFailed:
    """What an error while connecting means to the user; ``where``: ``host:port``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailed(f"{where} has a certificate that is not trusted: {error.verify_message}", hint=_INSECURE)
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return TlsFailed(
            f"no TLS connection to {where}: {reason}", hint=_PLAIN if "wrong version" in reason or "http request" in reason else None
        )
    if isinstance(error, socket.gaierror):
        passing = error.errno == socket.EAI_AGAIN
        hint = "the name server does not answer: is there a network?" if passing else "is the name right? `--offline` uses the cache only"
        return Unreachable(f"the host name of {where} cannot be resolved: {error.strerror}", hint=hint, may_pass=passing)
    if isinstance(error, TimeoutError):
        return Unreachable(f"{where} does not answer", hint="a firewall or a proxy may be in the way: HTTPS_PROXY, NO_PROXY", may_pass=True)
    if error.errno == errno.ECONNREFUSED:
        return Unreachable(f"{where} refused the connection", hint="nothing listens there: is the port right?", may_pass=True)
    return Unreachable(f"no connection to {where}: {error.strerror or error}", may_pass=True)


def exchange_failed(error: OSError | http.client.HTTPException, where: str) -> RegistryFailed:
    """What an error after connecting means to the user."""
    if isinstance(error, (http.client.BadStatusLine, http.client.LineTooLong, http.client.UnknownProtocol)) and not isinstance(
        error, http.client.RemoteDisconnected
    ):
        return NotARegistry(
            f"{where} does not speak HTTP as a registry does", hint="are host and port right, and is it HTTP that is spoken there?"
        )
    if isinstance(error, TimeoutError):
        return Broken(f"{where} went silent in the middle of an answer", hint=_BROKEN)
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if "certificate" in reason or "alert" in reason:
            return TlsFailed(
                f"{where} ended the TLS connection: {reason}", hint="a client certificate may be wanted: --cert-dir with x.cert and x.key"
            )
    return Broken(f"{where} ended the connection in the middle of an answer", hint=_BROKEN)


def said(errors: list[tuple[str, str]]) -> str:
    """What a registry gave as reasons, for a message."""
    return ": " + "; ".join(shown(f"{code} {message}".strip()) for code, message in errors[:3]) if errors else ""
