"""One request and its answer: headers, redirects, statuses. What it means to be logged in stands in ``authorization``."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from shiplap.core.entries import CHUNK_BYTES
from shiplap.core.errors import Refused
from shiplap.core.jsontext import parse_object, shown
from shiplap.core.registry.connections import Connection, Connections, Server
from shiplap.core.registry.failures import Broken, NotARegistry, RegistryFailed, ServerFailed, TooManyRequests, exchange_failed
from shiplap.core.version import VERSION

_SLOW = "the network or the server is overloaded; what has arrived is kept, try again later"
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_MAX_ERROR_BYTES = 64 << 10
_MAX_DRAINED_BYTES = 64 << 10
# Characters that a URL in a header may not have; http.client refuses them with an error of its own.
_UNSAFE = re.compile(r"[^\x21-\x7e]")


class AnswerTooLarge(Refused):
    """A document with more bytes than a document may have."""


@dataclass(slots=True)
class Answer:
    """An answer whose body is still to come. ``moved``: a redirect led to another server than was asked."""

    connections: Connections
    connection: Connection
    http: http.client.HTTPResponse
    moved: bool
    is_done: bool = False

    @property
    def status(self) -> int:
        return self.http.status

    @property
    def where(self) -> str:
        return self.connection.server.where

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters; empty without one."""
        return (self.http.getheader("Content-Type") or "").partition(";")[0].strip().lower()

    @property
    def length_bytes(self) -> int | None:
        """The Content-Length, None where the server says none."""
        text = self.http.getheader("Content-Length") or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    def header(self, name: str) -> str:
        return self.http.getheader(name) or ""

    def chunks(self) -> Iterator[bytes]:
        """The body; raises Broken when it ends before its announced length. The connection goes back, or ends."""
        left = self.length_bytes if not self.http.chunked else None
        patience, since, came_bytes = self.connections.patience, time.monotonic(), 0
        try:
            while piece := self.http.read1(CHUNK_BYTES):
                came_bytes += len(piece)
                if came_bytes >= patience.least_bytes:
                    since, came_bytes = time.monotonic(), 0
                elif time.monotonic() - since > patience.silence_seconds:
                    raise Broken(f"{self.where} sends less than {patience.least_bytes} bytes in {patience.silence_seconds:g} s", hint=_SLOW)
                if left is not None:
                    left -= len(piece)
                yield piece
            if left:
                raise Broken(f"{self.where} ended the connection {left} bytes before the end of an answer", hint="try again later")
            self.http.read()  # so that http.client knows the end, too
        except (OSError, http.client.HTTPException) as error:
            raise exchange_failed(error, self.where) from error
        finally:
            self.close()

    def document(self, limit_bytes: int, what: str) -> bytes:
        """The whole body, at most ``limit_bytes``; raises AnswerTooLarge."""
        parts: list[bytes] = []
        size_bytes = 0
        try:
            for piece in self.chunks():
                size_bytes += len(piece)
                if size_bytes > limit_bytes:
                    raise AnswerTooLarge(f"{what} from {self.where} has more than the {limit_bytes} bytes allowed for metadata")
                parts.append(piece)
        finally:
            self.close()
        return b"".join(parts)

    def close(self) -> None:
        """Done with it: what was read to its end can serve the next request. Once is enough, more do nothing."""
        if self.is_done:
            return
        self.is_done = True
        if self.http.isclosed():
            self.connections.give(self.connection)
        else:
            self.connections.close(self.connection)
            self.http.close()

    def errors(self) -> list[tuple[str, str]]:
        """Code and message of every error that the body names (distribution-spec, "Error Codes"); closes the answer."""
        try:
            document = parse_object(self.document(_MAX_ERROR_BYTES, "an error"), what="an error", limit_bytes=_MAX_ERROR_BYTES)
        except (Refused, RegistryFailed):
            return []
        listed = document.get("errors")
        found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        return [(str(one.get("code") or ""), str(one.get("message") or "")) for one in found]


def parse_url(url: str, what: str) -> tuple[Server, str]:
    """The server and the target (path and query) of an absolute address; raises NotARegistry naming ``what`` gave it."""
    try:
        parts: SplitResult = urlsplit(
            _UNSAFE.sub(lambda match: "".join(f"%{octet:02X}" for octet in match[0].encode("utf-8", "replace")), url)
        )
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotARegistry(f"{what} names '{shown(url)}', which is no http address")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Server(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)), target


def send(
    connections: Connections,
    server: Server,
    target: str,
    headers: Mapping[str, str],
    *,
    body: bytes | None = None,
    allow_plain: bool = False,
) -> Answer:
    """One request, redirects followed; the answer's status is any but 429 and 5xx. Raises RegistryFailed (its subclasses).

    Authorization goes to ``server`` only. A redirect from https to http is refused unless ``allow_plain``.
    """
    asked, moved = server, False
    for _ in range(_MAX_REDIRECTS + 1):
        sent = {name: value for name, value in headers.items() if not moved or name.lower() != "authorization"}
        answer = Answer(connections, *_exchanged(connections, server, target, sent, body), moved)
        if answer.status not in _REDIRECTS or body is not None:
            _refuse_failures(answer)
            return answer
        location = answer.header("Location")
        _drain(answer)
        next_server, target = _redirected(server, target, location)
        if next_server.scheme == "http" and server.scheme == "https" and not allow_plain:
            raise ServerFailed(f"{server.where} redirects to plain HTTP ({next_server.where})", hint="--tls-verify=false would allow it")
        moved = moved or next_server != asked
        server = next_server
    raise ServerFailed(f"{asked.where} redirects again and again")


def _redirected(server: Server, target: str, location: str) -> tuple[Server, str]:
    what = f"a redirect of {server.where}"
    try:
        url = urljoin(f"{server.scheme}://{server.netloc}{target}", location)
    except ValueError:
        raise NotARegistry(f"{what} names '{shown(location)}', which is no http address") from None
    return parse_url(url, what)


def _exchanged(
    connections: Connections, server: Server, target: str, headers: Mapping[str, str], body: bytes | None
) -> tuple[Connection, http.client.HTTPResponse]:
    """A request on an idle connection that the server has closed meanwhile is sent again on a new one."""
    while True:
        connection = connections.take(server)
        try:
            return connection, _answered(connection, target, headers, body)
        except (OSError, http.client.HTTPException) as error:
            connections.close(connection)
            if connection.is_used and isinstance(error, (ConnectionError, http.client.RemoteDisconnected)):
                continue
            raise exchange_failed(error, server.where) from error
        except BaseException:
            connections.close(connection)
            raise


def _answered(connection: Connection, target: str, headers: Mapping[str, str], body: bytes | None) -> http.client.HTTPResponse:
    server = connection.server
    url = f"http://{server.netloc}{target}" if connection.is_absolute else target
    client = connection.http
    client.putrequest("GET" if body is None else "POST", url, skip_host=True, skip_accept_encoding=True)
    client.putheader("Host", server.netloc)
    client.putheader("User-Agent", f"shiplap/{VERSION}")
    client.putheader("Accept-Encoding", "identity")
    if connection.is_absolute and connection.proxy is not None and connection.proxy.authorization:
        client.putheader("Proxy-Authorization", connection.proxy.authorization)
    for name, value in headers.items():
        client.putheader(name, value)
    if body is not None:
        client.putheader("Content-Length", str(len(body)))
    client.endheaders(body)
    held = client.sock
    answer = client.getresponse()
    # http.client lets go of the socket of an answer that ends with the connection; abort() has to find it still.
    if client.sock is None:
        client.sock = held
        connection.ends = True
    return answer


def _refuse_failures(answer: Answer) -> None:
    status = answer.status
    if status == 429:
        wait = _retry_after(answer)
        reason = answer.errors()
        text = f": {shown(reason[0][1])}" if reason and reason[0][1] else ""
        raise TooManyRequests(
            f"{answer.where} allows no more requests for now (429){text}",
            hint="log in for a higher limit, name a mirror in `registries:`, or try again later",
            may_pass=True,
            wait_seconds=wait,
        )
    if status >= 500 or status < 200:
        wait = _retry_after(answer)
        _drain(answer)
        raise ServerFailed(
            f"{answer.where} answers {status} {shown(answer.http.reason or '')}".rstrip(),
            hint="try again later",
            may_pass=True,
            wait_seconds=wait,
        )


def _retry_after(answer: Answer) -> float | None:
    """Seconds; the form with a date is passed over: it would need this machine's clock to be right."""
    text = answer.header("Retry-After").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def _drain(answer: Answer) -> None:
    """Read a body that nobody wants, so that the connection can be used again; a long one costs the connection."""
    try:
        if (answer.length_bytes or 0) <= _MAX_DRAINED_BYTES:
            answer.document(_MAX_DRAINED_BYTES, "an answer")
    except (Refused, RegistryFailed):
        pass
    finally:
        answer.close()
