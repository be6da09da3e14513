"""Whose credentials are taken: containers-auth.json(5), Docker's config.json, helpers; and nothing of them is ever shown."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from registryserver import authfile
from shiplap.core.errors import Refused
from shiplap.core.registry.authfile import Credentials, CredentialsUnusable, HelperFailed, auth_files, credentials_for

HUB = "https://index.docker.io/v1/"


def found(name: str, file: Path, **environment: str) -> str | None:
    """``user:password`` for the repository."""
    credentials = credentials_for(name, file, environment)
    return None if credentials is None else f"{credentials.username}:{credentials.password}"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a.org", "a.org/team/app"),
        ("a.org/team", "a.org/team/app"),
        ("a.org/team/app", "a.org/team/app"),
        ("a.org:5000", "a.org:5000/app"),
        ("https://a.org", "a.org/app"),
        ("https://a.org/v1/", "a.org/app"),
        ("http://a.org/v2/", "a.org/app"),
        ("docker.io", "docker.io/library/app"),
        (HUB, "docker.io/library/app"),
        ("index.docker.io", "docker.io/library/app"),
        ("https://registry-1.docker.io/v2/", "docker.io/library/app"),
    ],
)
def test_a_key_that_fits_is_found(tmp_path: Path, key: str, name: str) -> None:
    assert found(name, authfile(tmp_path / "auth.json", {key: "user:pass:word", "b.org": "no:no"})) == "user:pass:word"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a.org/tea", "a.org/team/app"),
        ("a.org/team/app/x", "a.org/team/app"),
        ("a.org:443", "a.org/app"),
        ("xa.org", "a.org/app"),
        ("a.org/", "a.org/app"),
    ],
)
def test_a_key_that_does_not_fit_is_not(tmp_path: Path, key: str, name: str) -> None:
    assert found(name, authfile(tmp_path / "auth.json", {key: "user:password"})) is None


def test_the_longest_key_counts_and_exact_ones_before_addresses(tmp_path: Path) -> None:
    keys = ("https://a.org/v1/", "a.org", "a.org/team", "a.org/team/app")
    for count in range(1, len(keys) + 1):
        assert (
            found("a.org/team/app", authfile(tmp_path / "auth.json", {key: f"{key}:x" for key in keys[:count]})) == f"{keys[count - 1]}:x"
        )


def test_the_files_are_read_in_skopeos_order_and_a_named_one_alone(tmp_path: Path) -> None:
    environment = {"HOME": "/h", "XDG_RUNTIME_DIR": "/r"}
    in_order = ["/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json", "/h/.dockercfg"]
    assert [str(one.path) for one in auth_files(None, environment)] == in_order
    moved = {**environment, "XDG_CONFIG_HOME": "/c", "DOCKER_CONFIG": "/d"}
    assert [str(one.path) for one in auth_files(None, moved)][1:3] == ["/c/containers/auth.json", "/d/config.json"]
    assert [str(one.path) for one in auth_files(None, {**moved, "REGISTRY_AUTH_FILE": "/named"})] == ["/named"]
    assert [str(one.path) for one in auth_files(Path("/option"), {**moved, "REGISTRY_AUTH_FILE": "/named"})] == ["/option"]
    with pytest.raises(CredentialsUnusable, match="does not exist"):
        credentials_for("a.org/app", tmp_path / "absent", {})
    assert credentials_for("a.org/app", None, {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}) is None


def test_the_oldest_file_is_one_mapping_of_addresses(tmp_path: Path) -> None:
    auth = base64.b64encode(b"user:password").decode()
    (tmp_path / ".dockercfg").write_text(json.dumps({"https://a.org/v1/": {"auth": auth, "email": "x"}}))
    credentials = credentials_for("a.org/app", None, {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert credentials is not None and (credentials.username, credentials.password) == ("user", "password")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"username": "u", "password": "p"}, ("u", "p", "", "")),
        ({"auth": base64.b64encode(b"u:p\0\0").decode()}, ("u", "p", "", "")),
        ({"auth": base64.b64encode(b"u:").decode(), "identitytoken": "t"}, ("u", "", "t", "")),
        ({"registrytoken": "t"}, ("", "", "", "t")),
    ],
)
def test_an_entry_holds_a_password_or_a_token(tmp_path: Path, entry: dict[str, Any], expected: tuple[str, ...]) -> None:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {"a.org": entry}}))
    one = credentials_for("a.org/app", path, {})
    assert one is not None and (one.username, one.password, one.identity_token, one.registry_token) == expected


def test_an_empty_entry_leaves_it_to_the_store(tmp_path: Path) -> None:
    helper(tmp_path, "store", 'echo \'{"Username": "u", "Secret": "s"}\'')
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {"a.org": {}}, "credsStore": "store"}))
    assert found("a.org/app", path, PATH=str(tmp_path)) == "u:s"


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"auths": []}', '{"auths": {"a.org": 1}}', '{"auths": {"a.org": {"auth": 1}}}', '{"auths": {"a.org": {"auth": "%"}}}',
     '{"auths": {"a.org": {"auth": "c2VjcmV0"}}}', '{"credHelpers": {"a.org": "../evil"}}', '{"credsStore": "a b"}',
     '{"auths": {"a.org": {"registrytoken": "secret\\r\\nHost: b"}}}',
     '{"auths": {"a.org": {"username": "u", "password": "secret\\ud800"}}}'],
)  # fmt: skip
def test_a_file_that_is_wrong_is_refused_without_its_secrets(tmp_path: Path, text: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(text)
    with pytest.raises(Refused) as caught:
        credentials_for("a.org/app", path, {"PATH": str(tmp_path)})
    assert str(path) in caught.value.message and "secret" not in caught.value.message and "c2VjcmV0" not in caught.value.message


def test_secrets_are_in_no_repr() -> None:
    text = repr(Credentials("user", "a file", "secret1", "secret2", "secret3"))
    assert "secret" not in text and "user" in text


# --- helpers


def helper(folder: Path, name: str, script: str) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def with_helper(tmp_path: Path, name: str, script: str, **environment: str) -> Credentials | None:
    helper(tmp_path, "test", script)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credsStore": "test"}))
    return credentials_for(name, path, {"PATH": f"{tmp_path}:/usr/bin:/bin", **environment})


def test_a_helper_gets_the_host_and_docker_hub_under_its_old_address(tmp_path: Path) -> None:
    script = """read server || :; echo "{\\"Username\\": \\"$1\\", \\"Secret\\": \\"$server\\"}" """
    for name, server in (("a.org:5000/team/app", "a.org:5000"), ("docker.io/library/app", HUB)):
        one = with_helper(tmp_path, name, script)
        assert one is not None and (one.username, one.password) == ("get", server)


def test_a_helper_may_give_an_identity_token(tmp_path: Path) -> None:
    one = with_helper(tmp_path, "a.org/app", """echo '{"Username": "<token>", "Secret": "t"}'""")
    assert one is not None and (one.username, one.password, one.identity_token) == ("", "", "t")


def test_a_helper_without_credentials_means_nobody_and_one_that_fails_is_told(tmp_path: Path) -> None:
    assert with_helper(tmp_path, "a.org/app", "echo 'credentials not found in native keychain'; exit 1") is None
    with pytest.raises(HelperFailed, match="exit code 5") as caught:
        with_helper(tmp_path, "a.org/app", "echo secret; exit 5")
    assert "secret" not in caught.value.message
