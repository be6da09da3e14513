"""Signature checks against a real registry: by a key, and by a policy with skopeo (GPG in a lookaside folder, sigstore attached)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import ImageSpec, oci_layout
from layertar import item, layer
from registryserver import Registry, running_registry, skopeo_copy
from requirement import require
from shiplap.core.blobs import BlobCorrupt
from shiplap.core.cache import Cache
from shiplap.core.errors import OutsideFailure
from shiplap.core.image import Image
from shiplap.core.limits import Limits
from shiplap.core.lock.model import LockedImage, LockedLayer, LockedManifest
from shiplap.core.lock.signature import KeyCheck, Signature, SignatureRefused, load_key
from shiplap.core.lock.signaturepolicy import PolicyCheck, PolicyInvalid, _platform_options
from shiplap.core.platform import Platform, parse_platform
from shiplap.core.reference import parse_reference
from shiplap.core.registry.settings import RegistrySettings
from shiplap.core.sources import Access, OfflineRefused, parse_source
from shiplap.core.sources.registry import resolve
from signing import attach, make_key, sha256, sign, statement

LAYER = layer([item("app", data=b"application" * 1000)])
PLATFORM = parse_platform("linux/arm/v7")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_key(folder, "key")
    make_key(folder, "other")
    return folder


@pytest.fixture
def access(tmp_path: Path) -> Access:
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    return Access(cache=Cache(tmp_path / "cache"), default_registry=RegistrySettings(tls_verify=False), environment=environment)


def pushed(registry: Registry, folder: Path, name: str, access: Access, *options: str) -> tuple[LockedImage, str]:
    """An image in the registry, as the lock pins it, and its source."""
    oci_layout(folder / name, [ImageSpec([LAYER, layer([item(name)])], ["app"], platform=str(PLATFORM))])
    where = f"docker://{registry.address}/{name}:1"
    skopeo_copy(f"oci:{folder / name}:app", where, *options)
    found = resolve(parse_source(where), platform=None, limits=Limits(), access=access)
    manifest = LockedManifest(found.manifest.digest, len(found.manifest.raw), found.manifest.media_type)
    layers = tuple(LockedLayer(one.diff_id, one.digest, one.size_bytes, one.media_type) for one in found.layers)
    reference = parse_reference(f"{registry.address}/{name}:1")
    return LockedImage(reference, where, found.platform, found.config_digest, len(found.config), layers, manifest=manifest), where


def run_check(check: KeyCheck | PolicyCheck, locked: LockedImage, source: str) -> dict[str, str]:
    manifest = locked.manifest.digest if locked.manifest else None
    image = Image(b"", locked.config, (), (), locked.platform, source, manifest_digest=manifest)
    found: Signature = check(locked, image, parse_source(source))
    assert list(found) == sorted(found)
    return dict(found)


def signed(keys: Path, name: str, digest: str, reference: str) -> tuple[bytes, bytes]:
    payload = statement(digest, reference)
    return payload, sign(keys / f"{name}.key", payload)


# --- by a key


def test_an_image_that_was_signed_by_the_key_is_accepted(registry: Registry, tmp_path: Path, keys: Path, access: Access) -> None:
    locked, source = pushed(registry, tmp_path, "signed", access)
    assert locked.manifest is not None
    digest, name = locked.manifest.digest, f"{registry.address}/signed"
    attach(registry.address, "signed", digest, signed(keys, "other", digest, name), signed(keys, "key", digest, name))
    key = load_key(keys / "key.pub")
    expected = {"kind": "sigstore-key", "key": key.fingerprint, "digest": digest, "identity": name}
    assert run_check(KeyCheck(key, access), locked, source) == expected
    assert run_check(KeyCheck(key, access, identity=True), locked, source) == expected
    make_key(tmp_path / "third", "key")
    with pytest.raises(SignatureRefused, match=r"signature 2 of .* was not made with this key"):
        run_check(KeyCheck(load_key(tmp_path / "third" / "key.pub"), access), locked, source)


def test_an_image_that_nobody_signed_is_refused(registry: Registry, tmp_path: Path, keys: Path, access: Access) -> None:
    locked, source = pushed(registry, tmp_path, "unsigned", access)
    with pytest.raises(SignatureRefused, match=r"unsigned:1 is not signed: its repository has no sha256-[0-9a-f]{64}\.sig"):
        run_check(KeyCheck(load_key(keys / "key.pub"), access), locked, source)


def test_a_signature_that_was_copied_from_another_image_is_refused(registry: Registry, tmp_path: Path, keys: Path, access: Access) -> None:
    good, _ = pushed(registry, tmp_path, "good", access)
    bad, source = pushed(registry, tmp_path, "bad", access)
    assert good.manifest is not None and bad.manifest is not None
    attach(registry.address, "bad", bad.manifest.digest, signed(keys, "key", good.manifest.digest, f"{registry.address}/bad"))
    with pytest.raises(SignatureRefused, match="speaks of another image"):
        run_check(KeyCheck(load_key(keys / "key.pub"), access), bad, source)


def test_a_signature_for_another_name_counts_unless_the_name_is_asked_for(
    registry: Registry, tmp_path: Path, keys: Path, access: Access
) -> None:
    """A copy in a mirror keeps the name that was signed."""
    locked, source = pushed(registry, tmp_path, "copy", access)
    assert locked.manifest is not None
    attach(registry.address, "copy", locked.manifest.digest, signed(keys, "key", locked.manifest.digest, "registry.example/original"))
    key = load_key(keys / "key.pub")
    assert run_check(KeyCheck(key, access), locked, source)["identity"] == "registry.example/original"
    with pytest.raises(SignatureRefused, match=r"calls it registry.example/original, not 127"):
        run_check(KeyCheck(key, access, identity=True), locked, source)


def test_a_statement_that_the_registry_changed_is_refused(registry: Registry, tmp_path: Path, keys: Path, access: Access) -> None:
    locked, source = pushed(registry, tmp_path, "changed", access)
    assert locked.manifest is not None
    payload, signature = signed(keys, "key", locked.manifest.digest, f"{registry.address}/changed")
    attach(registry.address, "changed", locked.manifest.digest, (payload, signature))
    stored = registry.blob_file(sha256(payload))
    stored.write_bytes(payload.replace(b"changed", b"Changed"))
    with pytest.raises(BlobCorrupt, match="came instead of"):
        run_check(KeyCheck(load_key(keys / "key.pub"), access), locked, source)


def test_only_what_a_registry_has_can_be_checked_and_never_offline(registry: Registry, tmp_path: Path, keys: Path, access: Access) -> None:
    locked, source = pushed(registry, tmp_path, "offline", access)
    key = load_key(keys / "key.pub")
    offline = Access(cache=access.cache, offline=True)
    for check in (KeyCheck(key, offline), PolicyCheck(tmp_path / "policy.json", offline)):
        with pytest.raises(OfflineRefused, match="cannot be checked"):
            run_check(check, locked, source)
    for check in (KeyCheck(key, access), PolicyCheck(tmp_path / "policy.json", access)):
        with pytest.raises(SignatureRefused, match=r"oci:.* has no signature to check"):
            run_check(check, locked, f"oci:{tmp_path / 'offline'}:app")


# --- by a policy


class Gpg:
    """A key ring with one key; skopeo signs into a lookaside folder with it."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("gpg") is None:
            pytest.skip("gpg is not installed")
        self.home = folder / "gnupg"
        self.home.mkdir(mode=0o700)
        self.env = {**os.environ, "GNUPGHOME": str(self.home)}
        self._run("--quick-gen-key", "--passphrase", "", "signer@example.org", "rsa2048", "sign", "never")
        self.fingerprint = next(line.split(":")[9] for line in self._run("--with-colons", "-k").splitlines() if line.startswith("fpr"))
        self.public = folder / "signer.asc"
        self.public.write_text(self._run("--armor", "--export"))

    def _run(self, *words: str) -> str:
        return subprocess.run(
            ["gpg", "--batch", "--pinentry-mode", "loopback", *words], env=self.env, check=True, capture_output=True, text=True
        ).stdout

    def stop(self) -> None:
        subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=self.env, check=False)


@pytest.fixture
def gpg() -> Iterator[Gpg]:
    # The agent's socket lies in there, and such a path may not be long.
    folder = Path(subprocess.run(["mktemp", "-d", "/tmp/sl-gpg.XXXXXX"], check=True, capture_output=True, text=True).stdout.strip())
    found = Gpg(folder)
    try:
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder)


def policy_file(path: Path, requirement: dict[str, object]) -> Path:
    path.write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"docker": {"": [requirement]}}}))
    return path


def lookaside_folder(folder: Path, **settings: object) -> Path:
    folder.mkdir()
    (folder / "default.yaml").write_text(json.dumps({"default-docker": settings}))
    return folder


def test_a_policy_with_a_gpg_key_decides(registry: Registry, tmp_path: Path, access: Access, gpg: Gpg) -> None:
    require("skopeo")
    signatures = (tmp_path / "signatures").as_uri()
    lookaside = lookaside_folder(tmp_path / "registries.d", **{"lookaside": signatures, "lookaside-staging": signatures})
    by_gpg = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(gpg.public)}
    policy = policy_file(tmp_path / "policy.json", by_gpg)
    locked, source = pushed(registry, tmp_path, "gpg", access)
    check = PolicyCheck(policy, access, lookaside)
    with pytest.raises(SignatureRefused, match=r"gpg:1 is not signed as .*policy.json demands: .*no signature"):
        run_check(check, locked, source)
    words = [
        "skopeo",
        "--insecure-policy",
        "--registries.d",
        str(lookaside),
        "copy",
        "-q",
        "--dest-tls-verify=false",
        "--sign-by",
        gpg.fingerprint,
    ]
    subprocess.run([*words, f"oci:{tmp_path / 'gpg'}:app", source], env=gpg.env, check=True, capture_output=True)
    assert locked.manifest is not None
    assert run_check(check, locked, source) == {
        "kind": "policy",
        "policy": sha256(policy.read_bytes()),
        "digest": locked.manifest.digest,
        "identity": f"{registry.address}/gpg",
    }
    # Tampered with, and by nobody of the policy's.
    (signature,) = (tmp_path / "signatures").rglob("signature-1")
    whole = signature.read_bytes()
    signature.write_bytes(whole[:-20] + bytes(20))
    with pytest.raises((SignatureRefused, PolicyInvalid)):
        run_check(check, locked, source)
    signature.write_bytes(whole)
    (tmp_path / "stranger").mkdir()
    other = policy_file(tmp_path / "other.json", {**by_gpg, "keyPath": str(tmp_path / "empty.asc")})
    (tmp_path / "empty.asc").write_bytes(b"")
    with pytest.raises(SignatureRefused):
        run_check(PolicyCheck(other, access, lookaside), locked, source)


def test_a_policy_with_a_sigstore_key_decides_or_says_that_this_skopeo_cannot(
    registry: Registry, tmp_path: Path, keys: Path, access: Access
) -> None:
    """Debian 12's skopeo is built without it; tests/engines/test_signature_podman.py asks newer builds of the library."""
    require("skopeo")
    lookaside = lookaside_folder(tmp_path / "registries.d", **{"use-sigstore-attachments": True})
    locked, source = pushed(registry, tmp_path, "both", access)
    assert locked.manifest is not None
    attach(registry.address, "both", locked.manifest.digest, signed(keys, "key", locked.manifest.digest, f"{registry.address}/both"))
    by_key = {"type": "sigstoreSigned", "keyPath": str(keys / "key.pub"), "signedIdentity": {"type": "matchRepository"}}
    check = PolicyCheck(policy_file(tmp_path / "policy.json", by_key), access, lookaside)
    try:
        assert run_check(check, locked, source)["digest"] == locked.manifest.digest
    except PolicyInvalid as error:
        assert "this skopeo was built without sigstore" in error.message
        assert "give the public key itself" in str(error.hint)
    other = policy_file(tmp_path / "other.json", {**by_key, "keyPath": str(keys / "other.pub")})
    with pytest.raises((SignatureRefused, PolicyInvalid)):
        run_check(PolicyCheck(other, access, lookaside), locked, source)


def test_policies_that_reject_or_are_none_and_registries_that_are_gone(registry: Registry, tmp_path: Path, access: Access) -> None:
    require("skopeo")
    locked, source = pushed(registry, tmp_path, "policies", access)
    with pytest.raises(SignatureRefused, match=r"not signed as .* demands"):
        run_check(PolicyCheck(policy_file(tmp_path / "reject.json", {"type": "reject"}), access), locked, source)
    anything = policy_file(tmp_path / "any.json", {"type": "insecureAcceptAnything"})
    assert run_check(PolicyCheck(anything, access), locked, source)["kind"] == "policy"
    for text, message in (
        ("{", "is not JSON"),
        ("{}", "cannot use the policy"),
        ('{"default": [{"type": "odd"}]}', "cannot use the policy"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(Exception, match=message) as caught:
            run_check(PolicyCheck(tmp_path / "bad.json", access), locked, source)
        assert type(caught.value).__name__ in ("PolicyInvalid", "JsonInvalid")
    with pytest.raises(PolicyInvalid, match="cannot read the policy"):
        run_check(PolicyCheck(tmp_path / "absent.json", access), locked, source)
    with pytest.raises(OutsideFailure, match=r"skopeo cannot check the signature: .*refused"):
        run_check(PolicyCheck(anything, access), locked, "docker://127.0.0.1:1/policies:1")


def test_nothing_of_the_check_stays_in_tmpdir(registry: Registry, tmp_path: Path, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    require("skopeo")
    locked, source = pushed(registry, tmp_path, "tidy", access)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    run_check(PolicyCheck(policy_file(tmp_path / "any.json", {"type": "insecureAcceptAnything"}), access), locked, source)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_platform_without_variant_is_asked_for_as_such() -> None:
    assert _platform_options(Platform("linux", "arm64", "v8")) == ["--override-os", "linux", "--override-arch", "arm64"]
    assert _platform_options(PLATFORM)[-2:] == ["--override-variant", "v7"]
