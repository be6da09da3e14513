"""Answers that no real engine gives when it is asked to: an API of the stone age, errors in the middle, another image.

A small HTTP server on a unix socket. Everything that a real engine can be brought to do is tested with a real one.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """``body``: JSON, or bytes as they are. ``announced_bytes``: another Content-Length than that of the body."""

    body: Any
    status: int = 200
    announced_bytes: int | None = None


VERSION = {"ApiVersion": "1.41", "Version": "20.10.24", "Os": "linux", "Arch": "amd64"}


@contextmanager
def scripted_engine(socket: Path, answers: Mapping[str, Answer]) -> Iterator[list[str]]:
    """Serves ``answers`` by path, without the version in front; yields the list of what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path[self.path.index("/", 1) :] if self.path.startswith("/v1.") else self.path
            answer = answers.get(path, Answer({"message": f"No such image: {path}"}, 404))
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body) if answer.announced_bytes is None else answer.announced_bytes))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def address_string(self) -> str:
            return "unix"

    with socketserver.ThreadingUnixStreamServer(str(socket), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield asked
        finally:
            server.shutdown()
