"""A signature of the root hash, made elsewhere: checked, and as the partition of the Discoverable Partitions Specification.

What is signed are the hash's hex digits without a newline, as the kernel compares them (Documentation/admin-guide/device-mapper/verity,
``root_hash_sig_key_desc``): a detached PKCS#7 signature in DER, as `openssl smime -sign -nocerts -noattr -binary -outform der` makes it.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import tempfile
from base64 import b64encode
from pathlib import Path

from shiplap.core import run
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.rootfs.bootsnippets.settings import RootSignature
from shiplap.verity.identity import content_uuid

_SMALL_BYTES = 1 << 20


class SignatureRefused(Refused):
    """A signature that is not one of this root hash by that certificate."""


def checked_signature(signature: Path, certificate: Path, root_hash: str) -> tuple[bytes, bytes]:
    """The signature and the content of its partition. ``certificate``: of who signed, PEM.

    Raises SignatureRefused; ProgramMissing without openssl.
    """
    der, pem = _small(signature, "signature"), _small(certificate, "certificate")
    begin, end = pem.find(b"-----BEGIN CERTIFICATE-----"), pem.find(b"-----END CERTIFICATE-----")
    if not 0 <= begin < end:
        raise SignatureRefused(f"{certificate} is no certificate in PEM", hint="openssl x509 -inform der -in FILE -out FILE.pem")
    openssl = run.find("openssl", package="openssl")
    with tempfile.NamedTemporaryFile(prefix="shiplap-roothash-") as content:
        content.write(root_hash.encode())
        content.flush()
        command = (openssl, "cms", "-verify", "-binary", "-inform", "DER", "-in", signature, "-content", content.name)
        try:
            run.run([*command, "-certfile", certificate, "-noverify", "-out", "/dev/null"])
        except OutsideFailure as error:
            raise SignatureRefused(
                f"{signature} is no signature of the root hash {root_hash} by {certificate}: {error.message}",
                hint=f"printf %s {root_hash} | openssl smime -sign -nocerts -noattr -binary -inkey KEY -signer {certificate} -outform der",
            ) from error
    first = pem[begin:end].decode("ascii", "replace") + "-----END CERTIFICATE-----\n"
    try:
        fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
    except ValueError as error:
        raise SignatureRefused(f"{certificate} is no certificate in PEM") from error
    document = {"certificateFingerprint": fingerprint, "rootHash": root_hash, "signature": b64encode(der).decode()}
    return der, json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def root_signature(der: bytes, partition: bytes, file: str, root_hash: str) -> RootSignature:
    """``file``: the artifact with the partition's content."""
    uuid = content_uuid(f"signature {root_hash} {hashlib.sha256(partition).hexdigest()}")
    return RootSignature(der, uuid, len(partition), file)


def _small(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_SMALL_BYTES + 1)
    except OSError as error:
        raise SignatureRefused(f"cannot read the {what} {path}: {error.strerror}") from error
    if not 0 < len(data) <= _SMALL_BYTES:
        raise SignatureRefused(f"the {what} {path} is empty or larger than 1 MiB")
    return data
