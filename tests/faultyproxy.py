"""A server between a client and a real registry, which answers wrongly where it is told to: cut, late, other bytes, other words.

Also an ordinary HTTP proxy (absolute addresses and CONNECT), to see whether one is used.
"""

from __future__ import annotations

import http.client
import re
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to an answer whose target fits ``path``; ``times``: how often (0: always).

    ``status``, ``headers``, ``body``: said in place of the registry. ``cut_after``: the connection ends after so many bytes of the body.
    ``flip``: this byte of the body is another. ``silence``: no byte of the body, for so many seconds. ``drip``: seconds before each
    single byte of it. ``no_ranges``: the registry never hears of ranges. ``dead``: the connection ends without an answer. ``more``:
    bytes after the body, with the length to match.
    """

    path: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    flip: int | None = None
    silence: float = 0
    drip: float = 0
    no_ranges: bool = False
    dead: bool = False
    more: bytes = b""


@dataclass(slots=True)
class FaultyProxy:
    """``asked``: every request as (method, target, headers). ``upstream``: where everything goes, whatever a request names."""

    upstream: str
    address: str = ""
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def targets(self, pattern: str = "") -> list[str]:
        return [target for _, target, _ in self.asked if re.search(pattern, target)]

    def ranges(self) -> list[str]:
        return [headers["Range"] for _, _, headers in self.asked if "Range" in headers]

    def fault_for(self, target: str) -> Fault | None:
        with self.guard:
            for number, fault in enumerate(self.faults):
                if re.search(fault.path, target) and (not fault.times or self.counts.get(number, 0) < fault.times):
                    self.counts[number] = self.counts.get(number, 0) + 1
                    return fault
        return None


@contextmanager
def running_proxy(upstream: str, *, tls: tuple[Path, Path] | None = None) -> Iterator[FaultyProxy]:
    """In front of the registry at ``upstream`` (host:port, plain HTTP); ``tls``: certificate and key to speak TLS with."""
    proxy = FaultyProxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            proxy.asked.append(("GET", self.path, dict(self.headers)))
            fault = proxy.fault_for(self.path)
            if fault is not None and fault.dead:
                self.close_connection = True
                return
            if fault is not None and fault.status:
                self._send(fault.status, {"Content-Length": str(len(fault.body)), **fault.headers}, fault.body, fault)
                return
            status, headers, body = self._upstream(fault)
            if fault is not None and fault.flip is not None:
                body = body[: fault.flip] + bytes([body[fault.flip] ^ 1]) + body[fault.flip + 1 :]
            if fault is not None and fault.more:
                body += fault.more
                headers["Content-Length"] = str(len(body))
            if fault is not None:
                headers.update(fault.headers)
            self._send(status, headers, body, fault)

        def do_CONNECT(self) -> None:
            proxy.asked.append(("CONNECT", self.path, dict(self.headers)))
            host, _, port = proxy.upstream.rpartition(":")
            with socket.create_connection((host, int(port))) as other:
                self.send_response(200)
                self.end_headers()
                _pump(self.connection, other)
            self.close_connection = True

        def _upstream(self, fault: Fault | None) -> tuple[int, dict[str, str], bytes]:
            parts = urlsplit(self.path)
            dropped = {"host", "range"} if fault is not None and fault.no_ranges else {"host"}
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            connection = http.client.HTTPConnection(proxy.upstream, timeout=30)
            try:
                connection.request(
                    "GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers={**headers, "Host": proxy.address}
                )
                answer = connection.getresponse()
                return answer.status, dict(answer.getheaders()), answer.read()
            finally:
                connection.close()

        def _send(self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if fault is not None and fault.cut_after is not None:
                body = body[: fault.cut_after]
                self.close_connection = True
            if fault is not None and fault.silence:
                proxy.ended.wait(fault.silence)
                self.close_connection = True
                return
            if fault is not None and fault.drip:
                for octet in body:
                    proxy.ended.wait(fault.drip)
                    self.wfile.write(bytes([octet]))
                return
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):
                pass  # the client went away; that is what many tests do

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        proxy.address = f"127.0.0.1:{server.server_port}"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            server.shutdown()


def _pump(one: socket.socket, other: socket.socket) -> None:
    while True:
        for ready in select.select([one, other], [], [], 30)[0]:
            data = ready.recv(65536)
            if not data:
                return
            (other if ready is one else one).sendall(data)
