"""Certificates for an engine on TCP, under the names that Docker wants them."""

from __future__ import annotations

import shutil
from pathlib import Path

from registryserver import make_authority

_NAMES = {
    "ca.crt": "ca.pem",
    "client.cert": "cert.pem",
    "client.key": "key.pem",
    "server.crt": "server-cert.pem",
    "server.key": "server-key.pem",
}


def make_certificates(folder: Path) -> Path:
    """``ca.pem``, ``cert.pem``, ``key.pem`` of a client (for DOCKER_CERT_PATH), ``server-cert.pem``, ``server-key.pem`` for 127.0.0.1."""
    authority = make_authority(folder)
    for made, wanted in _NAMES.items():
        shutil.copyfile(authority.path(made), folder / wanted)
    return folder
