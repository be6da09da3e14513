"""Connections to servers: opened through proxies and TLS, kept for the next request, and cut when somebody gives up.

Sockets are opened here and handed to ``http.client``, so that every one is known and :meth:`Connections.abort` can end a
transfer that waits in another thread.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from shiplap.core.registry.failures import Broken, RegistryFailed, ServerFailed, Unreachable, connection_failed, exchange_failed
from shiplap.core.registry.patience import Patience
from shiplap.core.registry.proxies import Proxy, proxy_for

# One answer's lines between two pieces of its body; http.client itself takes 100 headers.
_MAX_LINES = 1000

TlsOf: TypeAlias = Callable[["Server"], ssl.SSLContext]


@dataclass(frozen=True, slots=True)
class Server:
    """``scheme`` is http or https."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """``host[:port]``, without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    @property
    def where(self) -> str:
        """For messages, always with the port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True)
class Connection:
    """One connection.

    ``is_absolute``: requests go to a proxy and name the whole address. ``is_used``: it has served before. ``ends``: the server
    closes it after this answer.
    """

    http: http.client.HTTPConnection
    server: Server
    proxy: Proxy | None
    is_absolute: bool
    is_used: bool = False
    ends: bool = False


class Connections:
    """The connections of one client. Thread-safe; one connection serves one request at a time."""

    def __init__(self, environment: Mapping[str, str], patience: Patience, tls_of: TlsOf) -> None:
        self._environment = environment
        self.patience = patience
        self._tls_of = tls_of
        self._guard = threading.Lock()
        self._idle: dict[Server, list[Connection]] = {}
        self._sockets: set[socket.socket] = set()
        self._ended = threading.Event()

    def take(self, server: Server) -> Connection:
        """An idle connection, or a new one. Raises RegistryFailed (its subclasses)."""
        with self._guard:
            idle = self._idle.get(server)
            if idle:
                return idle.pop()
        return self._opened(server)

    def give(self, connection: Connection) -> None:
        """Back for the next request; the answer of the last has been read to its end."""
        with self._guard:
            if connection.http.sock is not None and not connection.ends and not self._ended.is_set():
                connection.is_used = True
                self._idle.setdefault(connection.server, []).append(connection)
                return
        self.close(connection)

    def close(self, connection: Connection) -> None:
        """End this connection."""
        with self._guard:
            held = connection.http.sock
            if held is not None:
                self._sockets.discard(held)
            connection.http.close()

    def wait(self, seconds: float) -> None:
        """Sleep, unless everything is aborted; raises Broken then."""
        if self._ended.wait(seconds):
            raise _given_up()

    def abort(self) -> None:
        """Cut everything, in every thread; nothing is opened any more."""
        self._ended.set()
        with self._guard:
            for one in self._sockets:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it had ended by itself

    def end(self) -> None:
        """Abort, and close what is idle."""
        self.abort()
        with self._guard:
            for idle in self._idle.values():
                for connection in idle:
                    connection.http.close()
            self._idle.clear()

    def _opened(self, server: Server) -> Connection:
        proxy = proxy_for(server.scheme, server.host, server.port, self._environment)
        host, port = (server.host, server.port) if proxy is None else (proxy.host, proxy.port)
        where = server.where if proxy is None else f"the proxy {host}:{port}"
        context = self._tls_of(server) if server.scheme == "https" else None
        held: socket.socket | None = None
        try:
            held = self._dialled(host, port, where)
            if context is not None:
                if proxy is not None:
                    _tunnel(held, server, proxy)
                plain = held
                try:
                    held = context.wrap_socket(plain, server_hostname=server.host)
                except (OSError, ValueError) as error:
                    if not isinstance(error, OSError):  # a failed verification is both
                        raise Unreachable(f"{server.where} is not a host name that TLS allows") from error
                    raise connection_failed(error, server.where) from error
                finally:
                    self._replace(plain, held)
        except BaseException:
            if held is not None:
                self._replace(held, None)
                held.close()
            raise
        held.settimeout(self.patience.silence_seconds)
        connection = http.client.HTTPConnection(host, port)
        connection.response_class = _Response
        connection.auto_open = 0
        connection.sock = held
        return Connection(connection, server, proxy, is_absolute=proxy is not None and server.scheme == "http")

    def _replace(self, old: socket.socket, new: socket.socket | None) -> None:
        with self._guard:
            self._sockets.discard(old)
            if new is not None:
                self._sockets.add(new)

    def _dialled(self, host: str, port: int, where: str) -> socket.socket:
        """A socket connected to the first address that takes it."""
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # a label of a name may be too long for IDNA
            raise connection_failed(
                error if isinstance(error, OSError) else socket.gaierror(socket.EAI_NONAME, "not a host name"), where
            ) from error
        failed: OSError = OSError("it has no address")
        for family, kind, protocol, _, address in addresses:
            try:
                held = socket.socket(family, kind, protocol)
            except OSError as error:  # no IPv6 here
                failed = error
                continue
            with self._guard:
                self._sockets.add(held)
            try:
                if self._ended.is_set():
                    raise _given_up()
                held.settimeout(self.patience.connect_seconds)
                held.connect(address)
                held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return held
            except BaseException as error:
                self._replace(held, None)
                held.close()
                if not isinstance(error, OSError):
                    raise
                failed = error
        raise connection_failed(failed, where) from failed


class _Lines(io.BufferedReader):
    """Ends a server that sends lines for ever: interim answers (100 Continue) and trailers have no limit in ``http.client``."""

    _lines = 0

    def readline(self, size: int | None = -1) -> bytes:
        self._lines += 1
        if self._lines > _MAX_LINES:
            raise http.client.LineTooLong("headers without end")
        return super().readline(-1 if size is None else size)

    def read(self, size: int | None = -1) -> bytes:
        self._lines = 0
        return super().read(size)

    def read1(self, size: int = -1) -> bytes:
        self._lines = 0
        return super().read1(size)


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp = _Lines(self.fp.detach())


def _tunnel(held: socket.socket, server: Server, proxy: Proxy) -> None:
    """CONNECT through the proxy (RFC 9110, section 9.3.6)."""
    where = f"the proxy {proxy.host}:{proxy.port}"
    target = f"{server.where}"
    authorization = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    try:
        held.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n".encode("ascii"))
        answer = _Response(held, method="CONNECT")
        answer.begin()
        status = answer.status
        answer.close()
    except (OSError, http.client.HTTPException) as error:
        raise exchange_failed(error, where) from error
    if status != 200:
        hint = "give its user: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT" if status == 407 else None
        raise ServerFailed(f"{where} does not connect to {target}: it answers {status}", hint=hint, may_pass=status in (502, 503, 504))


def _given_up() -> RegistryFailed:
    given_up = Broken("the transfer was given up")
    given_up.may_pass = False
    return given_up
