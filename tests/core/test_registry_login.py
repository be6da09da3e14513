"""Being allowed to pull: passwords and tokens that a real registry verifies, TLS of our own, and who is told what when it fails."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, oci_files, oci_layout
from faultyproxy import Fault, running_proxy
from layertar import item, layer
from openedsources import layer_tars
from registryserver import (
    PASSWORD,
    USER,
    Authority,
    Registry,
    authfile,
    htpasswd_auth,
    make_authority,
    push,
    running_registry,
    skopeo_copy,
)
from requirement import require
from shiplap.core.cache import Cache
from shiplap.core.errors import ProgramMissing
from shiplap.core.image import Image
from shiplap.core.limits import Limits
from shiplap.core.reference import parse_reference
from shiplap.core.registry.authorization import parse_challenges
from shiplap.core.registry.certificates import CertificatesUnusable
from shiplap.core.registry.client import open_registry
from shiplap.core.registry.failures import LoginNeeded, RegistryFailed, ServerFailed, TlsFailed
from shiplap.core.registry.patience import Patience
from shiplap.core.registry.settings import RegistrySettings
from shiplap.core.sources import Access, open_images, parse_source
from tokenserver import IDENTITY_TOKEN, TokenServer, running_token_server

TARS = [layer([item(f"file{number}", data=b"content")]) for number in range(3)]
APP = ImageSpec(TARS, ["app:1"])
LOGIN, WRONG = f"{USER}:{PASSWORD}", f"{USER}:wrong"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with running_token_server(tmp_path_factory.mktemp("tokens")) as running:
        yield running


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Registry]:
    """TLS and a password file."""
    folder = tmp_path_factory.mktemp("basic")
    with running_registry(folder, tls=authority, auth=htpasswd_auth(folder)) as running:
        pushed(running, folder, "team/app:1")
        yield running


@pytest.fixture(scope="module")
def bearer(tmp_path_factory: pytest.TempPathFactory, tokens: TokenServer) -> Iterator[Registry]:
    """Plain HTTP and a token server, where anybody may pull open/app."""
    folder = tmp_path_factory.mktemp("bearer")
    tokens.public.add("open/app")
    with running_registry(folder, auth=tokens.auth) as running:
        for name in ("open/app:1", "secret/app:1"):
            pushed(running, folder, name)
        yield running


@pytest.fixture(autouse=True)
def nothing_asked(tokens: TokenServer) -> None:
    tokens.asked.clear()
    tokens.lies.clear()


def pushed(registry: Registry, folder: Path, name: str) -> None:
    layout = oci_layout(folder / "layouts" / name.partition(":")[0], [APP])
    skopeo_copy(f"oci:{layout}:app:1", f"docker://{registry.address}/{name}", f"--dest-creds={LOGIN}")


def access_to(tmp_path: Path, **settings: Any) -> Access:
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin", **settings.pop("environment", {})}
    return Access(cache=Cache(tmp_path / "cache"), default_registry=RegistrySettings(**settings), environment=environment)


@contextmanager
def opened(name: str, access: Access) -> Iterator[Image]:
    with open_images(parse_source(f"docker://{name}"), platform=None, limits=Limits(), access=access) as images:
        (image,) = images
        assert layer_tars(image) == TARS
        yield image


def failure(name: str, access: Access) -> RegistryFailed:
    with pytest.raises(RegistryFailed) as caught, opened(name, access):
        pass
    said = f"{caught.value.message} {caught.value.hint}"
    assert PASSWORD not in said and IDENTITY_TOKEN not in said and "d3Jvbmc" not in said
    return caught.value


# --- passwords


def test_a_password_from_a_file_opens_a_registry_with_tls(basic: Registry, authority: Authority, tmp_path: Path) -> None:
    certificates = only_authority(authority, tmp_path)
    auth = authfile(tmp_path / "auth.json", {basic.address: LOGIN})
    with opened(f"{basic.address}/team/app:1", access_to(tmp_path, cert_dir=certificates, authfile=auth)):
        pass


def test_the_files_and_the_keys_of_skopeo_and_docker_are_looked_into(basic: Registry, tmp_path: Path) -> None:
    wrong, places = "ci:wrong", (".docker/config.json", "xdg/containers/auth.json", "run/containers/auth.json")
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    name = f"{basic.address}/team/app:1"
    for place in places:  # from the weakest to the strongest
        authfile(tmp_path / place, {basic.address: LOGIN})
        with opened(name, access_to(tmp_path, tls_verify=False, environment=environment)):
            pass
        for path in (tmp_path / "cache").rglob("*"):
            if path.is_file():
                path.unlink()
        authfile(tmp_path / place, {basic.address: wrong})
    assert "run/containers/auth.json" in failure(name, access_to(tmp_path, tls_verify=False, environment=environment)).message
    # A repository's own key is stronger than its registry's.
    authfile(tmp_path / places[-1], {basic.address: wrong, f"{basic.address}/team": wrong, f"{basic.address}/team/app": LOGIN})
    with opened(name, access_to(tmp_path, tls_verify=False, environment=environment)):
        pass


@pytest.mark.parametrize(
    "entries",
    [
        {"HOST": LOGIN},
        {"HOST": WRONG, "HOST/team": LOGIN},
        {"HOST/team/app": WRONG, "HOST/team": LOGIN},
        {"HOST/team/app": LOGIN, "HOST": WRONG},
        {"HOST/tea": LOGIN},
        {"https://HOST": LOGIN},
        {"https://HOST/v1/": LOGIN},
        {"http://HOST/v2/": LOGIN},
        {"https://HOST/v1/": LOGIN, "HOST": WRONG},
        {"https://HOST/v1/": WRONG, "HOST": LOGIN},
        {"HOST/": LOGIN},
        {},
    ],
)
def test_skopeo_takes_the_same_entry_of_a_file(basic: Registry, tmp_path: Path, entries: dict[str, str]) -> None:
    require("skopeo")
    name = f"{basic.address}/team/app:1"
    auth = authfile(tmp_path / "auth.json", {key.replace("HOST", basic.address): login for key, login in entries.items()})
    words = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"--authfile={auth}", f"docker://{name}"]
    theirs = subprocess.run(words, capture_output=True, check=False).returncode == 0
    try:
        with opened(name, access_to(tmp_path, tls_verify=False, authfile=auth)):
            ours = True
    except LoginNeeded:
        ours = False
    assert ours == theirs


def test_a_wrong_password_names_the_user_and_the_file_and_nobody_is_asked_to_log_in(basic: Registry, tmp_path: Path) -> None:
    name = f"{basic.address}/team/app:1"
    error = failure(name, access_to(tmp_path, tls_verify=False))
    assert isinstance(error, LoginNeeded) and "not logged in (401)" in error.message and f"skopeo login {basic.address}" in str(error.hint)
    auth = authfile(tmp_path / "auth.json", {basic.address: "ci:wrong"})
    error = failure(name, access_to(tmp_path, tls_verify=False, authfile=auth))
    assert isinstance(error, LoginNeeded) and f"does not accept user 'ci' of {auth} ({basic.address}) (401)" in error.message


def test_a_credential_helper_is_asked_as_docker_asks_it(basic: Registry, tmp_path: Path) -> None:
    helper = tmp_path / "bin/docker-credential-test"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": basic.address, "Username": USER, "Secret": PASSWORD})
    helper.write_text(
        f'#!/bin/sh\nread server || :\n[ "$1:$server:$SECRET_AGENT" = "get:{basic.address}:here" ] || exit 3\necho \'{answer}\'\n'
    )
    helper.chmod(0o755)
    name, environment = f"{basic.address}/team/app:1", {"SECRET_AGENT": "here"}
    for number, more in enumerate(({"credHelpers": {basic.address: "test"}}, {"credsStore": "test"})):
        folder = tmp_path / str(number)
        auth = authfile(folder / "auth.json", {}, **more)
        access = Access(
            cache=Cache(folder / "cache"),
            default_registry=RegistrySettings(tls_verify=False, authfile=auth),
            environment={"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin", **environment},
        )
        with opened(name, access):
            pass
    error_access = access_to(tmp_path, tls_verify=False, authfile=authfile(tmp_path / "auth.json", {}, credsStore="absent"))
    with pytest.raises(ProgramMissing, match="docker-credential-absent"), opened(name, error_access):
        pass


# --- tokens


def test_anybody_gets_a_token_for_what_is_public_and_one_serves_for_all_blobs(
    bearer: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    with opened(f"{bearer.address}/open/app:1", access_to(tmp_path, tls_verify=False)):
        pass
    assert tokens.asked == [("GET", {"service": "test registry", "scope": "repository:open/app:pull"}, "")]


def test_what_is_not_public_needs_a_user(bearer: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    name = f"{bearer.address}/secret/app:1"
    error = failure(name, access_to(tmp_path / "a", tls_verify=False))
    assert isinstance(error, LoginNeeded) and "not logged in" in error.message
    empty = authfile(tmp_path / "empty.json", {})
    hint = str(failure(name, access_to(tmp_path / "a", tls_verify=False, authfile=empty)).hint)
    assert hint.startswith(f"log in: skopeo login --authfile {empty} {bearer.address};")
    auth = authfile(tmp_path / "auth.json", {bearer.address: LOGIN})
    tokens.asked.clear()
    with opened(name, access_to(tmp_path / "b", tls_verify=False, authfile=auth)):
        pass
    assert tokens.asked == [("GET", {"account": USER, "service": "test registry", "scope": "repository:secret/app:pull"}, USER)]
    error = failure(name, access_to(tmp_path / "c", tls_verify=False, authfile=authfile(auth, {bearer.address: "ci:wrong"})))
    assert isinstance(error, LoginNeeded) and f"user 'ci' of {auth}" in error.message
    # Who refused is the token server; where one logs in is the registry.
    assert str(error.hint).startswith(f"log in again: skopeo login --authfile {auth} {bearer.address};")


def test_an_identity_token_is_exchanged(bearer: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {bearer.address: {"identitytoken": IDENTITY_TOKEN}}}))
    with opened(f"{bearer.address}/secret/app:1", access_to(tmp_path, tls_verify=False, authfile=auth)):
        pass
    ((method, fields, who),) = tokens.asked
    assert (method, who) == ("POST", USER)
    assert fields["grant_type"] == "refresh_token" and fields["scope"] == "repository:secret/app:pull"


def test_a_token_that_expired_is_fetched_again(bearer: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    tokens.lifetime_seconds = -100  # the registry allows a minute of difference between clocks
    access = access_to(tmp_path, tls_verify=False)
    expired = parse_reference(f"{bearer.address}/open/app:1")
    with open_registry(expired, access, patience=Patience(attempts=1)) as client:
        error = None
        try:
            client.manifest("1", limit_bytes=1 << 20)
        except LoginNeeded as caught:
            error = caught
        assert error is not None and len(tokens.asked) == 2  # one more try, then it is told
        tokens.lifetime_seconds = 300
        assert client.manifest("1", limit_bytes=1 << 20).digest.startswith("sha256:")


def test_a_token_server_that_fails_is_named(bearer: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    name = f"{bearer.address}/open/app:1"
    tokens.lies[:] = [(200, b'{"token": ""}')]
    error = failure(name, access_to(tmp_path, tls_verify=False))
    assert isinstance(error, ServerFailed) and "holds no token" in error.message
    tokens.lies[:] = [(200, b"<html>")]
    assert "is not JSON" in failure(name, access_to(tmp_path, tls_verify=False)).message


def test_a_token_is_not_asked_for_over_plain_http_when_the_registry_has_tls(
    tmp_path: Path, authority: Authority, tokens: TokenServer
) -> None:
    with running_registry(tmp_path / "r", tls=authority, auth=tokens.auth) as running:
        error = failure(f"{running.address}/open/app:1", access_to(tmp_path, cert_dir=only_authority(authority, tmp_path)))
    assert "over plain HTTP" in error.message and tokens.asked == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.example.org/token",service="registry, \\"main\\"",scope="repository:a:pull,push"',
            [("bearer", {"realm": "https://auth.example.org/token", "service": 'registry, "main"', "scope": "repository:a:pull,push"})],
        ),
        ('Basic realm="x", Bearer realm=y', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("BEARER Realm = abc", [("bearer", {"realm": "abc"})]),
        ("", []),
        ('="', []),
        ('Bearer realm="unterminated', [("bearer", {})]),
    ],
)
def test_challenges_are_read(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(one.scheme, one.parameters) for one in parse_challenges(header)] == expected


# --- TLS


def only_authority(authority: Authority, tmp_path: Path, *more: str) -> Path:
    folder = tmp_path / "certificates"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ca.crt", *more):
        (folder / name).write_bytes(authority.path(name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Registry]:
    """TLS, and only for clients with a certificate."""
    folder = tmp_path_factory.mktemp("sealed")
    with running_registry(folder, tls=authority, client_authority=authority.certificate) as running:
        storage = running.storage
        with running_registry(folder / "door") as door:  # the same blobs without TLS, to put something in
            push(door.address, "app", oci_files([APP]))
            (door.storage / "docker").rename(storage / "docker") if storage.exists() else door.storage.rename(storage)
        yield running


def test_an_unknown_authority_is_refused_with_what_to_do(basic: Registry, tmp_path: Path) -> None:
    error = failure(f"{basic.address}/team/app:1", access_to(tmp_path))
    assert isinstance(error, TlsFailed) and "not trusted" in error.message and "--cert-dir" in str(error.hint)


def test_a_certificate_for_another_name_is_refused(bearer: Registry, authority: Authority, tmp_path: Path) -> None:
    with running_proxy(bearer.address, tls=(authority.path("other.crt"), authority.path("other.key"))) as proxy:
        error = failure(f"{proxy.address}/open/app:1", access_to(tmp_path, cert_dir=only_authority(authority, tmp_path)))
    assert isinstance(error, TlsFailed) and "IP address mismatch" in error.message


def test_the_users_certs_d_is_found_by_host_and_port(basic: Registry, authority: Authority, tmp_path: Path) -> None:
    folder = tmp_path / ".config/containers/certs.d" / basic.address
    folder.mkdir(parents=True)
    (folder / "own.crt").write_bytes(authority.certificate.read_bytes())
    auth = authfile(tmp_path / "auth.json", {basic.address: LOGIN})
    with opened(f"{basic.address}/team/app:1", access_to(tmp_path, authfile=auth)):
        pass


def test_a_client_certificate_is_shown(sealed: Registry, authority: Authority, tmp_path: Path) -> None:
    name = f"{sealed.address}/app"
    with_key = only_authority(authority, tmp_path / "with", "client.cert", "client.key")
    with opened(name, access_to(tmp_path, cert_dir=with_key)):
        pass
    error = failure(name, access_to(tmp_path / "other", cert_dir=only_authority(authority, tmp_path / "without")))
    assert isinstance(error, TlsFailed), error
    assert "client certificate" in str(error.hint)


def test_a_folder_of_certificates_that_is_wrong_is_refused(basic: Registry, authority: Authority, tmp_path: Path) -> None:
    name = f"{basic.address}/team/app:1"
    lonely = only_authority(authority, tmp_path / "lonely", "client.cert")
    broken = only_authority(authority, tmp_path / "broken")
    (broken / "ca.crt").write_text("no certificate\n")
    for folder, said in ((lonely, "without its key"), (broken, "cannot use"), (tmp_path / "absent", "is not a folder")):
        with pytest.raises(CertificatesUnusable, match=said), opened(name, access_to(tmp_path, cert_dir=folder)):
            pass


def test_plain_http_needs_to_be_allowed(bearer: Registry, tmp_path: Path) -> None:
    error = failure(f"{bearer.address}/open/app:1", access_to(tmp_path))
    assert isinstance(error, TlsFailed) and "tls-verify" in str(error.hint)


def test_a_registry_with_tls_is_not_left_for_plain_http(bearer: Registry, authority: Authority, tmp_path: Path) -> None:
    keys = (authority.path("server.crt"), authority.path("server.key"))
    location = {"Location": f"http://{bearer.address}/v2/open/app/manifests/1"}
    with running_proxy(bearer.address, tls=keys) as proxy:
        proxy.faults.append(Fault("/manifests/", times=0, status=307, headers=location))
        error = failure(f"{proxy.address}/open/app:1", access_to(tmp_path, cert_dir=only_authority(authority, tmp_path)))
        assert isinstance(error, ServerFailed) and f"redirects to plain HTTP ({bearer.address})" in error.message
