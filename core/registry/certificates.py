"""Whom to trust, and with what to prove who we are: containers-certs.d(5)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from shiplap.core.errors import Refused
from shiplap.core.registry.folders import home_folder

_SYSTEM = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


class CertificatesUnusable(Refused):
    """A folder of certificates that cannot be used as it is."""


def certificate_folder(host: str, cert_dir: Path | None, environment: Mapping[str, str]) -> Path | None:
    """The folder for ``host`` (with the port as it is written): ``cert_dir``, else the first ``certs.d/HOST`` that exists.

    Looked for in ``~/.config/containers``, ``/etc/containers`` and ``/etc/docker``, as by skopeo. Raises CertificatesUnusable
    for a ``cert_dir`` that is no folder.
    """
    if cert_dir is not None:
        if not cert_dir.is_dir():
            raise CertificatesUnusable(f"{cert_dir} is not a folder of certificates", hint="it holds *.crt, or *.cert with *.key")
        return cert_dir
    home = home_folder(environment)
    own = [] if home is None else [home / ".config/containers/certs.d"]
    for folder in [*own, *_SYSTEM]:
        try:
            if (folder / host).is_dir():
                return folder / host
        except OSError:
            continue  # not ours to read: skopeo goes on as well
    return None


def tls_context(folder: Path | None, *, verify: bool, own_certificate: bool) -> ssl.SSLContext:
    """A context that trusts the system's authorities and the ``*.crt`` of ``folder``.

    With ``own_certificate`` the ``*.cert`` there (with the ``*.key`` of the same name) are shown to a server that
    asks: to the registry itself, not to where it redirects. ``verify`` False trusts anybody. SSL_CERT_FILE and SSL_CERT_DIR
    work as everywhere with OpenSSL. Raises CertificatesUnusable.
    """
    if verify:
        context = ssl.create_default_context()
        # Python 3.13 began to refuse authorities without a key usage extension, which many companies' own ones lack and skopeo takes.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in () if folder is None else _files(folder):
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(cafile=path)
            elif path.suffix == ".cert":
                key = path.with_suffix(".key")
                if not key.is_file():
                    raise CertificatesUnusable(
                        f"{path} is a client certificate without its key {key.name}", hint="an authority's certificate is named *.crt"
                    )
                if own_certificate:
                    # The empty password: an encrypted key must not ask on the terminal.
                    context.load_cert_chain(path, key, password="")
            elif path.suffix == ".key" and not path.with_suffix(".cert").is_file():
                raise CertificatesUnusable(f"{path} is a key without its certificate {path.with_suffix('.cert').name}")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "an encrypted key cannot be used"
            raise CertificatesUnusable(f"cannot use {path}: {reason}", hint="certificates and keys are PEM files") from error
    return context


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise CertificatesUnusable(f"cannot read the certificates in {folder}: {error.strerror}") from error
