"""Signatures by a key, as ``cosign sign --key`` attaches them: what is accepted, and why everything else is not."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from shiplap.core.errors import ProgramMissing, Refused
from shiplap.core.lock.signature import KeyInvalid, SignatureRefused, check_signature, load_key
from shiplap.core.reference import parse_reference
from signing import ALGORITHMS, make_key, sha256, sign, signature_manifest, signature_tag, statement

IMAGE, INDEX, OTHER = ("sha256:" + letter * 64 for letter in "abc")
NAME = "registry.example/acme/app"


class Store:
    """A repository's signatures, in memory."""

    def __init__(self, signed: Mapping[str, Mapping[bytes, bytes]], **changes: Any) -> None:
        self.tags = {signature_tag(digest): signature_manifest(pairs, **changes) for digest, pairs in signed.items()}
        self.blobs = {sha256(payload): payload for pairs in signed.values() for payload in pairs}

    def manifest(self, tag: str) -> bytes | None:
        return self.tags.get(tag)

    def blob(self, digest: str, size_bytes: int) -> bytes:
        return self.blobs[digest]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_key(folder, "key")
    make_key(folder, "other")
    return folder


def signed_by(keys: Path, *payloads: bytes, name: str = "key") -> dict[bytes, bytes]:
    return {payload: sign(keys / f"{name}.key", payload) for payload in payloads}


def checked(keys: Path, store: Store, *digests: str, identity: str | None = None) -> dict[str, str]:
    wanted = None if identity is None else parse_reference(identity)
    return dict(check_signature(store, load_key(keys / "key.pub"), digests or (IMAGE,), what="app:1", identity=wanted))


def refusal(keys: Path, store: Store, *digests: str, identity: str | None = None) -> str:
    with pytest.raises(SignatureRefused) as caught:
        checked(keys, store, *digests, identity=identity)
    return caught.value.message


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_by_the_key_is_accepted_and_a_changed_statement_is_not(tmp_path: Path, algorithm: str) -> None:
    make_key(tmp_path, "key", algorithm)
    payload = statement(IMAGE, NAME)
    pairs = signed_by(tmp_path, payload)
    found = checked(tmp_path, Store({IMAGE: pairs}))
    assert found == {"kind": "sigstore-key", "key": load_key(tmp_path / "key.pub").fingerprint, "digest": IMAGE, "identity": NAME}
    changed = {statement(IMAGE, NAME + "x"): pairs[payload]}
    assert "was not made with this key, or it was changed since" in refusal(tmp_path, Store({IMAGE: changed}))


def test_what_is_pinned_is_sorted_pairs(keys: Path) -> None:
    pairs = check_signature(Store({IMAGE: signed_by(keys, statement(IMAGE, NAME))}), load_key(keys / "key.pub"), [IMAGE], what="app:1")
    assert list(pairs) == sorted(pairs)


def test_the_fingerprint_is_that_of_the_key_and_not_of_its_file(keys: Path, tmp_path: Path) -> None:
    text = (keys / "key.pub").read_text()
    (tmp_path / "commented.pub").write_text("a comment before it\n" + text + "\n\n")
    assert (
        load_key(tmp_path / "commented.pub").fingerprint
        == load_key(keys / "key.pub").fingerprint
        != load_key(keys / "other.pub").fingerprint
    )


def test_an_image_without_a_signature_is_refused(keys: Path) -> None:
    message = refusal(keys, Store({OTHER: signed_by(keys, statement(OTHER, NAME))}), IMAGE, INDEX)
    assert message == f"app:1 is not signed: its repository has no {signature_tag(IMAGE)} or {signature_tag(INDEX)}"


def test_a_signature_by_another_key_is_refused(keys: Path) -> None:
    message = refusal(keys, Store({IMAGE: signed_by(keys, statement(IMAGE, NAME), name="other")}))
    fingerprint = load_key(keys / "key.pub").fingerprint
    assert message.startswith(
        f"app:1 has no signature by the key {fingerprint[:19]}…: signature 1 of {IMAGE[:19]}… was not made with this key"
    )


def test_a_good_signature_of_another_image_under_this_ones_tag_is_refused(keys: Path) -> None:
    assert f"speaks of another image, {OTHER}" in refusal(keys, Store({IMAGE: signed_by(keys, statement(OTHER, NAME))}))


def test_a_statement_of_another_kind_is_refused(keys: Path) -> None:
    payload = statement(IMAGE, NAME, type="atomic container signature")
    assert "not a 'cosign container image signature'" in refusal(keys, Store({IMAGE: signed_by(keys, payload)}))


def test_one_good_signature_among_several_is_enough(keys: Path) -> None:
    foreign = signed_by(keys, statement(IMAGE, "elsewhere.example/x"), name="other")
    wrong = signed_by(keys, statement(OTHER, NAME))
    good = signed_by(keys, statement(IMAGE, NAME))
    assert checked(keys, Store({IMAGE: {**foreign, **wrong, **good}}))["identity"] == NAME


def test_a_signature_of_the_index_counts_when_the_platforms_manifest_has_none(keys: Path) -> None:
    """``cosign sign`` signs what a tag means; ``--recursive`` also what the index holds."""
    index_signed = Store({INDEX: signed_by(keys, statement(INDEX, NAME))})
    assert checked(keys, index_signed, IMAGE, INDEX)["digest"] == INDEX
    both = Store({IMAGE: signed_by(keys, statement(IMAGE, NAME)), INDEX: signed_by(keys, statement(INDEX, NAME))})
    assert checked(keys, both, IMAGE, INDEX)["digest"] == IMAGE
    foreign = Store({IMAGE: signed_by(keys, statement(IMAGE, NAME), name="other"), INDEX: signed_by(keys, statement(INDEX, NAME))})
    assert checked(keys, foreign, IMAGE, INDEX)["digest"] == INDEX


@pytest.mark.parametrize(
    ("named", "identity", "is_meant"),
    [
        (NAME, NAME + ":1", True),
        (NAME + ":1", NAME + ":1", True),
        (NAME + ":2", NAME + ":1", False),
        (NAME + "x", NAME + ":1", False),
        ("docker.io/library/app", "app:1", True),
        ("index.docker.io/library/app", "app:1", True),
        ("", NAME, False),
        ("Not A Reference", NAME, False),
    ],
)
def test_the_name_in_the_statement_counts_when_it_is_asked_for(keys: Path, named: str, identity: str, is_meant: bool) -> None:
    store = Store({IMAGE: signed_by(keys, statement(IMAGE, named))})
    assert checked(keys, store)["identity"] == named
    if is_meant:
        assert checked(keys, store, identity=identity)["identity"] == named
    else:
        assert "calls it" in refusal(keys, store, identity=identity)


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": {}},
        {"annotations": {"dev.cosignproject.cosign/signature": "not base64!"}},
        {"annotations": {"dev.cosignproject.cosign/signature": 5}},
        {"digest": "sha256:../../../etc/passwd"},
        {"size": 1 << 40},
        {"size": -1},
        {"mediaType": 5},
        {"annotations": []},
    ],
)
def test_signatures_that_are_not_what_they_should_be_are_refused(keys: Path, changes: dict[str, Any]) -> None:
    store = Store({IMAGE: signed_by(keys, statement(IMAGE, NAME))}, **changes)
    with pytest.raises(Refused):
        checked(keys, store)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"layers": 5}', b'{"layers": [5]}', b"\xff", b'{"layers": []}', json.dumps({"layers": [{}] * 101}).encode()],
)
def test_manifests_that_are_not_what_they_should_be_are_refused(keys: Path, raw: bytes) -> None:
    store = Store({})
    store.tags[signature_tag(IMAGE)] = raw
    with pytest.raises(Refused):
        checked(keys, store)


@pytest.mark.parametrize(
    "payload", [b"", b"null", b"{}", b'{"critical": {}}', b'{"critical": {"type": 5, "image": {}, "identity": {}}}', b"\0" * 100]
)
def test_signed_nonsense_is_refused(keys: Path, payload: bytes) -> None:
    with pytest.raises(Refused):
        checked(keys, Store({IMAGE: signed_by(keys, payload)}))


def test_layers_that_are_no_signatures_are_passed_over(keys: Path) -> None:
    store = Store({IMAGE: signed_by(keys, statement(IMAGE, NAME))}, mediaType="application/vnd.oci.image.layer.v1.tar")
    assert f"{signature_tag(IMAGE)} holds no signature" in refusal(keys, store)


def test_a_good_signature_with_letters_that_are_no_base64_is_refused(keys: Path) -> None:
    pairs = signed_by(keys, statement(IMAGE, NAME))
    text = base64.b64encode(*pairs.values()).decode()
    store = Store({IMAGE: pairs}, annotations={"dev.cosignproject.cosign/signature": f"{text[:8]}!{text[8:]}"})
    assert "is not base64" in refusal(keys, store)


def test_files_that_are_no_public_key_are_refused(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyInvalid, match=r"cannot read the key .*absent: No such file"):
        load_key(tmp_path / "absent")
    with pytest.raises(KeyInvalid, match="is no public key in PEM") as caught:
        load_key(keys / "key.key")
    assert "the private key stays where it is" in str(caught.value.hint)
    for content in (
        b"",
        b"nonsense",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        (keys / "key.pub").read_bytes() + bytes(70_000),
    ):
        (tmp_path / "key.pub").write_bytes(content)
        with pytest.raises(KeyInvalid, match="is no public key in PEM"):
            load_key(tmp_path / "key.pub")


def test_without_openssl_the_message_says_what_to_install(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ProgramMissing, match="openssl is not installed"):
        load_key(keys / "key.pub")
