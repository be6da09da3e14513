"""Debian's docker-registry on loopback: plain, with TLS, with a password file, or behind a token server; and images in it.

Certificates come from openssl. The token server is our own (``tokenserver.py`` in the registry's words: "auth.token"), with tokens that
the registry really verifies.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from requirement import require

USER, PASSWORD = "ci", "right: horse"
# What `htpasswd -nbB` gives for the two above; bcrypt is the only form that the registry takes.
HTPASSWD = "ci:$2b$05$abcdefghijklmnopqrstuunmmaECox/Mljkl.kVeGP5AKsp17FOlC\n"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with a certificate for 127.0.0.1 and localhost, and one for a client."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def path(self, name: str) -> Path:
        return self.folder / name


def make_authority(folder: Path) -> Authority:
    """Keys and certificates in ``folder``: ca.crt, server.crt/.key, other.crt/.key (for another host), client.cert/.key."""
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=test authority")
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ("other", "subjectAltName=DNS:other.example.org"),
        ("client", "extendedKeyUsage=clientAuth"),
    ):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / f"{name}.ext").write_text(extension + "\n")
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3650", "-extfile", f"{name}.ext")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)
    (folder / "client.crt").rename(folder / "client.cert")
    return Authority(folder)


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry. ``storage``: where its blobs lie, to be damaged. ``log``: what it said, requests included."""

    address: str
    storage: Path
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def requests(self) -> list[str]:
        """Method and target of every request so far."""
        lines = (line.split('"')[1] for line in self.log.read_text(errors="replace").splitlines() if line.count('"') > 1)
        return [line.rpartition(" ")[0] for line in lines if line.startswith(("GET /", "HEAD /", "POST /", "PUT /"))]

    def blob_file(self, digest: str) -> Path:
        name = digest.partition(":")[2]
        return self.storage / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


@contextmanager
def running_registry(
    folder: Path,
    *,
    tls: Authority | None = None,
    client_authority: Path | None = None,
    auth: Mapping[str, Any] | None = None,
    port: int = 0,
) -> Iterator[Registry]:
    """``docker-registry serve`` on a free port; ``auth``: its ``auth`` section. Skips where it is not installed."""
    require("registry")
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{port or free_port()}"
    http: dict[str, Any] = {"addr": address, "secret": "test"}
    if tls is not None:
        http["tls"] = {"certificate": str(tls.path("server.crt")), "key": str(tls.path("server.key"))}
        if client_authority is not None:
            http["tls"]["clientcas"] = [str(client_authority)]
    storage = folder / "storage"
    config = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": False}, "level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": http,
        **({"auth": dict(auth)} if auth else {}),
    }
    (folder / "registry.yml").write_text(json.dumps(config))
    log = folder / "registry.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "registry.yml")],
            stdout=out,
            stderr=out,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        _wait_for(address, process, log)
        yield Registry(address, storage, log, process)
    finally:
        process.kill()
        process.wait()


def htpasswd_auth(folder: Path) -> dict[str, Any]:
    """The ``auth`` section for one user with a password."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(HTPASSWD)
    return {"htpasswd": {"realm": "a test", "path": str(folder / "htpasswd")}}


def authfile(path: Path, entries: Mapping[str, str], **more: Any) -> Path:
    """A file of credentials; ``entries``: key → ``user:password``."""
    auths = {key: {"auth": base64.b64encode(text.encode()).decode()} for key, text in entries.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths, **more}))
    return path


def skopeo_copy(source: str, target: str, *options: str) -> None:
    """``skopeo copy``; the registries of the tests are ours, so their certificates do not matter."""
    require("skopeo")
    words = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"]
    done = subprocess.run([*words, *options, source, target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def push(address: str, name: str, files: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> str:
    """Put every blob of an OCI layout (``archives.oci_files``) into a plain registry, manifests as such; ``tags``: tag → digest of it.

    Without ``tags`` the first entry of index.json becomes ``latest``. Returns the digest of that entry.
    """
    top = json.loads(files["index.json"])["manifests"][0]["digest"]
    wanted = {"latest": top} if tags is None else tags
    connection = http.client.HTTPConnection(address, timeout=30)

    def ask(method: str, target: str, body: bytes = b"", kind: str = "application/octet-stream") -> str:
        connection.request(method, target, body, {"Content-Type": kind})
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status < 300, (method, target, said)
        return answer.getheader("Location") or ""

    manifests: list[tuple[int, str, bytes, str]] = []
    for path, data in files.items():
        if not path.startswith("blobs/"):
            continue
        digest = path.removeprefix("blobs/").replace("/", ":")
        document = _document(data)
        if "mediaType" in document and ("manifests" in document or "layers" in document):
            # Children before their indexes, or the registry does not know them.
            manifests.append((len(_children(files, document)), digest, data, document["mediaType"]))
        else:
            upload = ask("POST", f"/v2/{name}/blobs/uploads/")
            ask("PUT", upload.partition(address)[2] + f"&digest={digest}", data)
    for _, digest, data, kind in sorted(manifests):
        ask("PUT", f"/v2/{name}/manifests/{digest}", data, kind)
        for tag in (tag for tag, one in wanted.items() if one == digest):
            ask("PUT", f"/v2/{name}/manifests/{tag}", data, kind)
    connection.close()
    return str(top)


def _document(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _children(files: Mapping[str, Any], document: dict[str, Any]) -> list[str]:
    """Everything below an index."""
    found = []
    for one in document.get("manifests", ()):
        found.append(one["digest"])
        found += _children(files, _document(files.get("blobs/" + one["digest"].replace(":", "/"), b"")))
    return found
