"""Keys, and signatures as ``cosign sign --key`` attaches them, made with openssl."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registryserver import push

ALGORITHMS = {
    "P-256": ("EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    "P-384": ("EC", "-pkeyopt", "ec_paramgen_curve:secp384r1"),
    "RSA": ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "Ed25519": ("ED25519",),
}
EMPTY_CONFIG = b"{}"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def make_key(folder: Path, name: str = "key", algorithm: str = "P-256") -> Path:
    """``name``.key and ``name``.pub in ``folder``; returns the private one."""
    folder.mkdir(exist_ok=True)
    private = folder / f"{name}.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", *ALGORITHMS[algorithm], "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", private.with_suffix(".pub")], check=True, capture_output=True)
    return private


def statement(digest: str, reference: str, **critical: Any) -> bytes:
    """What cosign signs."""
    body = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
        **critical,
    }
    return json.dumps({"critical": body, "optional": None}).encode()


def sign(private: Path, message: bytes) -> bytes:
    is_ed25519 = "ED25519" in subprocess.run(["openssl", "pkey", "-in", private, "-noout", "-text"], capture_output=True, text=True).stdout
    source = private.with_suffix(".message")
    source.write_bytes(message)
    how = ["pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", source] if is_ed25519 else ["dgst", "-sha256", "-sign", private, source]
    return subprocess.run(["openssl", *how], check=True, capture_output=True).stdout


def signature_manifest(signed: Mapping[bytes, bytes] | list[tuple[bytes, bytes]], **changes: Any) -> bytes:
    """The manifest under the tag: one layer for each statement, with its signature; ``changes`` go into every layer."""
    pairs = signed.items() if isinstance(signed, Mapping) else signed
    layers = [
        {
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "size": len(payload),
            "digest": sha256(payload),
            "annotations": {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()},
            **changes,
        }
        for payload, signature in pairs
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(EMPTY_CONFIG), "digest": sha256(EMPTY_CONFIG)},
        "layers": layers,
    }
    return json.dumps(manifest).encode()


def signature_tag(digest: str) -> str:
    return digest.replace(":", "-") + ".sig"


def attach(address: str, repository: str, digest: str, *signed: tuple[bytes, bytes]) -> None:
    """Push signatures of ``digest`` into a plain registry, as cosign does."""
    manifest = signature_manifest(list(signed))
    files = {f"blobs/sha256/{sha256(blob)[7:]}": blob for blob in (EMPTY_CONFIG, *(payload for payload, _ in signed), manifest)}
    files["index.json"] = json.dumps({"manifests": [{"digest": sha256(manifest)}]}).encode()
    push(address, repository, files, {signature_tag(digest): sha256(manifest)})
