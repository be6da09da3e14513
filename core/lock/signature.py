"""Is the image signed, at lock time: by a given key (sigstore's attached signatures), and what is pinned of the answer.

``cosign sign --key`` stores signatures in the image's own repository, under the tag ``sha256-<hex>.sig`` of the digest
that is signed: an OCI manifest whose layers are the signed statements ("simple signing": which digest, under which name),
each with the signature in an annotation (cosign, specs/SIGNATURE_SPEC.md). The arithmetic is OpenSSL's. Transparency logs
and certificates are not looked at: a key that was given is all that is trusted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from shiplap.core import run as programs
from shiplap.core.blobs import DIGEST, blob_path, read
from shiplap.core.cache import Cache
from shiplap.core.errors import Refused
from shiplap.core.image import Image
from shiplap.core.jsontext import elements, member, parse_object, required, shown
from shiplap.core.limits import Limits
from shiplap.core.lock.model import LockedImage
from shiplap.core.reference import Reference, ReferenceInvalid, parse_reference
from shiplap.core.registry.client import RegistryClient, open_registry
from shiplap.core.registry.failures import NotInRegistry
from shiplap.core.sources import Access, OfflineRefused, SourceSpec
from shiplap.core.sources.registry import resolve
from shiplap.core.sources.selection import NotInSource

Signature = tuple[tuple[str, str], ...]
"""What a lock keeps of a check: sorted pairs."""

SIMPLE_SIGNING_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
_STATEMENT_TYPE = "cosign container image signature"
_MANIFEST_LIMIT_BYTES = 1 << 20
_PAYLOAD_LIMIT_BYTES = 64 << 10
_MAX_SIGNATURES = 100
_KEY_LIMIT_BYTES = 64 << 10
# The OID of Ed25519 (RFC 8410) in DER; such keys sign the message itself, the others its SHA-256.
_ED25519 = bytes.fromhex("06032b6570")
_UNSIGNED = "only images of a registry can be checked: signatures are kept there, beside the image"


class SignatureRefused(Refused):
    """No signature that the key or the policy accepts."""


class KeyInvalid(Refused):
    """A file that is no public key."""


class SignatureStore(Protocol):
    """Where an image's repository keeps signatures."""

    def manifest(self, tag: str) -> bytes | None:
        """The manifest under ``tag``, None when there is none."""
        ...

    def blob(self, digest: str, size_bytes: int) -> bytes:
        """A small blob, verified."""
        ...


@dataclass(frozen=True, slots=True)
class PublicKey:
    """``der``: the SubjectPublicKeyInfo."""

    der: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key in its standard form, whatever file it came in."""
        return "sha256:" + hashlib.sha256(self.der).hexdigest()

    def accepts(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` of ``message`` was made with this key. Raises ProgramMissing."""
        with tempfile.TemporaryDirectory(prefix="shiplap-") as folder:
            files = {"key": self.der, "signature": signature, "message": message}
            paths = {name: Path(folder, name) for name in files}
            for name, data in files.items():
                paths[name].write_bytes(data)
            how: list[str | Path]
            if _ED25519 in self.der[:16]:
                how = ["pkeyutl", "-verify", "-pubin", "-inkey", paths["key"], "-keyform", "DER", "-rawin"]
                how += ["-sigfile", paths["signature"], "-in", paths["message"]]
            else:
                how = ["dgst", "-sha256", "-verify", paths["key"], "-keyform", "DER", "-signature", paths["signature"], paths["message"]]
            return programs.run([_openssl(), *how], allowed=(0, 1)).returncode == 0


def load_key(path: Path) -> PublicKey:
    """A public key in PEM, as ``cosign generate-key-pair`` and ``openssl pkey -pubout`` write it. Raises KeyInvalid."""
    try:
        with path.open("rb") as file:
            raw = file.read(_KEY_LIMIT_BYTES + 1)
    except OSError as error:
        raise KeyInvalid(f"cannot read the key {path}: {error.strerror}") from error
    done = programs.run([_openssl(), "pkey", "-pubin", "-outform", "DER"], stdin=raw[:_KEY_LIMIT_BYTES], allowed=(0, 1))
    if done.returncode or not done.stdout or len(raw) > _KEY_LIMIT_BYTES:
        hint = "the private key stays where it is: give the public one, cosign.pub" if b"PRIVATE KEY" in raw else None
        raise KeyInvalid(f"{path} is no public key in PEM", hint=hint or "it begins with -----BEGIN PUBLIC KEY-----")
    return PublicKey(done.stdout)


def check_signature(
    store: SignatureStore, key: PublicKey, digests: Sequence[str], *, what: str, identity: Reference | None = None
) -> Signature:
    """Proof that one of ``digests`` (the platform's manifest, its index) is signed with ``key``, as a lock keeps it.

    ``identity``: the name that the signed statement must give the image; a statement without a tag speaks of all of the
    repository. ``what`` names the image in messages. Raises SignatureRefused with the reason of every signature that
    was looked at, JsonInvalid and what ``store`` raises.
    """
    reasons: list[str] = []
    for digest in digests:
        tag = f"{digest.replace(':', '-')}.sig"
        raw = store.manifest(tag)
        if raw is None:
            continue
        for number, (payload, signature) in enumerate(_signatures(store, raw, f"{what}, {tag}"), 1):
            if not key.accepts(signature, payload):
                reasons.append(f"signature {number} of {digest[:19]}… was not made with this key, or it was changed since")
                continue
            named, reason = _statement(payload, digest, identity, what)
            if reason is None:
                pairs = {"kind": "sigstore-key", "key": key.fingerprint, "digest": digest, "identity": named}
                return tuple(sorted(pairs.items()))
            reasons.append(f"signature {number} of {digest[:19]}… {reason}")
        reasons = reasons or [f"{tag} holds no signature"]
    if not reasons:
        raise SignatureRefused(
            f"{what} is not signed: its repository has no {' or '.join(digest.replace(':', '-') + '.sig' for digest in digests)}",
            hint="`cosign sign --key` stores it there; signatures in other forms are not read, `--policy` may know them",
        )
    raise SignatureRefused(f"{what} has no signature by the key {key.fingerprint[:19]}…: {'; '.join(reasons[:5])}", hint=_DISTRUST)


_DISTRUST = "is it the right key? if so, do not trust the image"


def _signatures(store: SignatureStore, raw: bytes, what: str) -> Iterator[tuple[bytes, bytes]]:
    """Statement and signature of every layer of a signature's manifest."""
    document = parse_object(raw, what=what, limit_bytes=_MANIFEST_LIMIT_BYTES)
    layers = elements(member(document, "layers", list, what=what) or (), dict, what=f"'layers' of {what}")
    if len(layers) > _MAX_SIGNATURES:
        raise SignatureRefused(f"{what} has more than {_MAX_SIGNATURES} signatures")
    for layer in layers:
        if member(layer, "mediaType", str, what=what) != SIMPLE_SIGNING_TYPE:
            continue
        digest, size_bytes = required(layer, "digest", str, what=what), required(layer, "size", int, what=what)
        if not DIGEST.fullmatch(digest) or size_bytes > _PAYLOAD_LIMIT_BYTES:
            raise SignatureRefused(f"{what} describes a statement that is none: {shown(digest)} of {size_bytes} bytes")
        annotations = member(layer, "annotations", dict, what=what) or {}
        try:
            signature = base64.b64decode(required(annotations, SIGNATURE_ANNOTATION, str, what=what), validate=True)
        except (binascii.Error, ValueError):
            raise SignatureRefused(f"{what} has a signature that is not base64") from None
        yield store.blob(digest, size_bytes), signature


def _statement(payload: bytes, digest: str, identity: Reference | None, what: str) -> tuple[str, str | None]:
    """The name that a statement with a good signature gives, and why it does not count, or None."""
    where = f"the signed statement of {what}"
    document = parse_object(payload, what=where, limit_bytes=_PAYLOAD_LIMIT_BYTES)
    critical = required(document, "critical", dict, what=where)
    kind = required(critical, "type", str, what=where)
    signed = required(required(critical, "image", dict, what=where), "docker-manifest-digest", str, what=where)
    named = required(required(critical, "identity", dict, what=where), "docker-reference", str, what=where)
    if kind != _STATEMENT_TYPE:
        return named, f"is a '{shown(kind)}', not a {_STATEMENT_TYPE!r}"
    if signed != digest:
        return named, f"speaks of another image, {shown(signed)}"
    if identity is not None and not _is_meant(named, identity):
        return named, f"calls it {shown(named)}, not {identity}"
    return named, None


def _is_meant(named: str, identity: Reference) -> bool:
    try:
        found = parse_reference(named, default_tag=False)
    except ReferenceInvalid:
        return False
    return found.name == identity.name and found.tag in (None, identity.tag)


class RegistrySignatures:
    """The signatures beside the images of one repository; statements are kept in the cache like every blob."""

    def __init__(self, client: RegistryClient, cache: Cache) -> None:
        self._client = client
        self._cache = cache

    def manifest(self, tag: str) -> bytes | None:
        try:
            return self._client.manifest(tag, limit_bytes=_MANIFEST_LIMIT_BYTES).raw
        except NotInRegistry:
            return None

    def blob(self, digest: str, size_bytes: int) -> bytes:
        self._client.blob(digest, size_bytes)
        with self._cache.files() as files:
            return read(files, blob_path(digest), limit_bytes=_PAYLOAD_LIMIT_BYTES, digest=digest, size_bytes=size_bytes)


def signed_reference(locked: LockedImage, image: Image, spec: SourceSpec, access: Access) -> Reference:
    """The image in its registry, for a check of its signature. ``image``: what is locked, as it was found there.

    Raises SignatureRefused where there is none, or where the manifest that is locked is not the one that was found: what is
    signed is a manifest, and what the lock says of one that nobody has seen proves nothing. Raises OfflineRefused.
    """
    if spec.transport != "docker" or locked.manifest is None:
        raise SignatureRefused(f"{locked.ref}: {spec.public_text} has no signature to check", hint=_UNSIGNED)
    if access.offline:
        raise OfflineRefused(f"--offline: the signature of {locked.ref} cannot be checked", hint=_UNSIGNED)
    if image.manifest_digest != locked.manifest.digest:
        raise SignatureRefused(
            f"{locked.ref}: {spec.public_text} has not the manifest {locked.manifest.digest} that is locked: its signature says nothing",
            hint="`shiplap lock --update` pins what is there now",
        )
    return parse_reference(spec.location)


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """A check for :class:`shiplap.core.lock.updating.Wishes`. ``identity``: the statement must also name the image as the source does."""

    key: PublicKey
    access: Access
    identity: bool = False

    def __call__(self, locked: LockedImage, image: Image, spec: SourceSpec) -> Signature:
        reference = signed_reference(locked, image, spec, self.access)
        assert locked.manifest is not None and self.access.cache is not None
        digests = [locked.manifest.digest]
        if locked.index and (image.index_digest == locked.index or self._leads_to(locked.index, locked, reference, spec)):
            digests.append(locked.index)
        identity = reference if self.identity else None
        with open_registry(reference, self.access) as client:
            return check_signature(
                RegistrySignatures(client, self.access.cache), self.key, digests, what=locked.ref.familiar, identity=identity
            )

    def _leads_to(self, index: str, locked: LockedImage, reference: Reference, spec: SourceSpec) -> bool:
        """Whether the locked index really names the locked manifest: a signed one beside another manifest proves nothing."""
        assert locked.manifest is not None
        pinned = replace(spec, location=f"{reference.name}@{index}")
        try:
            resolved = resolve(pinned, platform=locked.platform, limits=Limits(), access=self.access)
        except (NotInRegistry, NotInSource):
            return False
        if resolved.manifest.digest != locked.manifest.digest:
            raise SignatureRefused(
                f"{locked.ref}: the index {index} in the lock leads to {resolved.manifest.digest}, not to {locked.manifest.digest}",
                hint="somebody changed the lock: `shiplap lock --update` pins what is there now",
            )
        return True


def _openssl() -> str:
    return programs.find("openssl", package="openssl")
