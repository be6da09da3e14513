"""A token server as Docker's registries use it: Basic or a refresh token in, a signed JWT out, which docker-registry verifies."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from registryserver import PASSWORD, USER

SERVICE, ISSUER = "test registry", "test issuer"
IDENTITY_TOKEN = "an-identity-token"


@dataclass(slots=True)
class TokenServer:
    """``asked``: every request as (method, fields, who); ``lifetime_seconds``: of the tokens that it gives; ``public``: names
    that anybody may pull; ``lies``: the next answers, in place of tokens."""

    folder: Path
    url: str = ""
    public: set[str] = field(default_factory=set)
    asked: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    lifetime_seconds: int = 300
    lies: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def auth(self) -> dict[str, Any]:
        """The registry's ``auth`` section."""
        bundle = str(self.folder / "token.crt")
        return {"token": {"realm": self.url, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}}

    def token(self, subject: str, access: list[dict[str, Any]]) -> str:
        der = subprocess.run(["openssl", "x509", "-in", "token.crt", "-outform", "DER"], cwd=self.folder, check=True, capture_output=True)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der.stdout).decode()]}
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "exp": now + self.lifetime_seconds,
            "nbf": now - 600,
            "iat": now,
            "jti": "1",
        }
        text = ".".join(_encoded(json.dumps(one).encode()) for one in (header, {**claims, "access": access}))
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", "token.key"], cwd=self.folder, input=text.encode(), check=True, capture_output=True
        )
        return f"{text}.{_encoded(signed.stdout)}"

    def answer(self, method: str, fields: dict[str, str], basic: str) -> tuple[int, bytes]:
        who = ""
        if fields.get("grant_type") == "refresh_token":
            who = USER if fields.get("refresh_token") == IDENTITY_TOKEN else "?"
        elif basic:
            who = USER if basic == f"{USER}:{PASSWORD}" else "?"
        self.asked.append((method, fields, who))
        if self.lies:
            return self.lies.pop(0)
        if who == "?":
            return 401, json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": "wrong credentials"}]}).encode()
        access = []
        if scope := fields.get("scope"):
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            if who or name in self.public:
                access.append({"type": kind, "name": name, "actions": actions.split(",") if who else ["pull"]})
        key = "access_token" if method == "POST" else "token"
        return 200, json.dumps({key: self.token(who, access), "expires_in": self.lifetime_seconds}).encode()


@contextmanager
def running_token_server(folder: Path) -> Iterator[TokenServer]:
    folder.mkdir(parents=True, exist_ok=True)
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "token.key", "-out", "token.crt", "-subj", "/CN=tokens"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    tokens = TokenServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET", urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._answer("POST", self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _answer(self, method: str, query: str) -> None:
            authorization = self.headers.get("Authorization", "")
            basic = base64.b64decode(authorization.removeprefix("Basic ")).decode() if authorization else ""
            status, body = tokens.answer(method, {key: values[0] for key, values in parse_qs(query).items()}, basic)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        tokens.url = f"http://127.0.0.1:{server.server_port}/token"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield tokens
        finally:
            server.shutdown()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
