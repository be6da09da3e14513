"""Where an engine is looked for: Docker's and Podman's own rules, from environment and configuration files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engines.dockercontexts import put_context
from shiplap.core.engine.endpoint import Certificates, Endpoint, EndpointInvalid, docker_endpoint, podman_endpoint
from shiplap.core.errors import Refused


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("unix:///run/other.sock", "unix:///run/other.sock"),
        ("/run/other.sock", "unix:///run/other.sock"),
        ("unix://", "unix:///var/run/docker.sock"),
        ("tcp://build.example:2375", "tcp://build.example:2375"),
        ("tcp://build.example", "tcp://build.example:2375"),
        ("build.example:99", "tcp://build.example:99"),
        ("tcp://:2375", "tcp://127.0.0.1:2375"),
        ("tcp://[::1]:2375", "tcp://[::1]:2375"),
        ("tcp://10.0.0.1:2375/proxy/", "tcp://10.0.0.1:2375/proxy"),
    ],
)
def test_docker_host_is_written_in_several_ways(host: str, address: str) -> None:
    assert docker_endpoint({"DOCKER_HOST": host}) == Endpoint("Docker", address, "DOCKER_HOST")


def test_without_anything_it_is_the_default_socket(tmp_path: Path) -> None:
    assert docker_endpoint({"HOME": str(tmp_path)}).address == "unix:///var/run/docker.sock"


@pytest.mark.parametrize("host", ["npipe:////./pipe/docker", "fd://", "tcp://a b", "tcp://host:port", "tcp://-?/", "http2://x"])
def test_an_address_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(EndpointInvalid, match="DOCKER_HOST is"):
        docker_endpoint({"DOCKER_HOST": host})


@pytest.mark.parametrize(("variable", "find"), [("DOCKER_HOST", docker_endpoint), ("CONTAINER_HOST", podman_endpoint)])
def test_ssh_is_refused_with_the_command_that_brings_the_socket_here(variable: str, find: object) -> None:
    assert callable(find)
    with pytest.raises(EndpointInvalid, match="does not speak ssh") as caught:
        find({variable: "ssh://me@board"})
    assert "ssh -nNT -L /tmp/engine.sock:" in str(caught.value.hint)
    assert f"{variable}=unix:///tmp/engine.sock" in str(caught.value.hint)


def put_certificates(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("ca.pem", "cert.pem", "key.pem"):
        (folder / name).write_text(name)
    return folder


def test_tls_is_asked_for_by_docker_tls_verify(tmp_path: Path) -> None:
    folder = put_certificates(tmp_path / "certs")
    environment = {"DOCKER_HOST": "tcp://b", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
    wanted = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem", verify=True)
    assert docker_endpoint(environment) == Endpoint("Docker", "tcp://b:2376", "DOCKER_HOST", wanted)
    # As for `docker`: the path alone asks for nothing, and an empty word neither.
    assert docker_endpoint({**environment, "DOCKER_TLS_VERIFY": ""}).tls is None
    unverified = docker_endpoint({**environment, "DOCKER_TLS_VERIFY": "", "DOCKER_TLS": "1"}).tls
    assert unverified is not None and not unverified.verify


def test_without_a_path_the_certificates_are_dockers_own(tmp_path: Path) -> None:
    put_certificates(tmp_path / ".docker")
    tls = docker_endpoint({"HOME": str(tmp_path), "DOCKER_HOST": "tcp://b", "DOCKER_TLS_VERIFY": "1"}).tls
    assert tls is not None and tls.authorities == tmp_path / ".docker/ca.pem"


def test_a_unix_socket_needs_no_certificates(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": "unix:///x", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path / "absent")}
    assert docker_endpoint(environment).tls is None


@pytest.mark.parametrize(("names", "what"), [(("cert.pem", "key.pem"), "no ca.pem"), (("ca.pem", "cert.pem"), "no key.pem")])
def test_incomplete_certificates_are_named(tmp_path: Path, names: tuple[str, ...], what: str) -> None:
    folder = put_certificates(tmp_path, *names)
    with pytest.raises(EndpointInvalid, match=what):
        docker_endpoint({"DOCKER_HOST": "tcp://b", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)})


def test_a_context_comes_from_the_variable_or_the_configuration(tmp_path: Path) -> None:
    put_context(tmp_path, "board", "tcp://board:2375")
    put_context(tmp_path, "farm", "unix:///run/farm.sock")
    (tmp_path / "config.json").write_text('{"currentContext": "farm", "auths": {}}')
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    assert docker_endpoint(environment).address == "unix:///run/farm.sock"
    assert docker_endpoint(environment | {"DOCKER_CONTEXT": "board"}).address == "tcp://board:2375"
    assert docker_endpoint(environment | {"DOCKER_CONTEXT": "default"}).address == "unix:///var/run/docker.sock"
    # As for `docker`, the host is stronger than both.
    assert docker_endpoint(environment | {"DOCKER_CONTEXT": "board", "DOCKER_HOST": "tcp://h:1"}).address == "tcp://h:1"


def test_a_context_has_its_own_certificates_and_none_of_the_environment(tmp_path: Path) -> None:
    put_context(tmp_path, "safe", "tcp://safe", material=("ca.pem", "cert.pem", "key.pem"))
    put_context(tmp_path, "open", "tcp://open", skip=True)
    put_context(tmp_path, "plain", "tcp://plain")
    environment = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/nowhere"}
    safe, loose, plain = (docker_endpoint(environment | {"DOCKER_CONTEXT": name}) for name in ("safe", "open", "plain"))
    assert safe.address == "tcp://safe:2376"
    assert safe.tls is not None and safe.tls.verify and safe.tls.key is not None and safe.tls.key.read_text() == "key.pem"
    assert loose.tls == Certificates(None, None, None, verify=False)
    assert (plain.address, plain.tls) == ("tcp://plain:2375", None)


def test_an_unknown_context_and_broken_files_are_refused(tmp_path: Path) -> None:
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    with pytest.raises(EndpointInvalid, match="names the context 'x', which does not exist"):
        docker_endpoint(environment | {"DOCKER_CONTEXT": "x"})
    put_context(tmp_path, "empty", "")
    with pytest.raises(EndpointInvalid, match="no address"):
        docker_endpoint(environment | {"DOCKER_CONTEXT": "empty"})
    for broken in ("{", "[]", '{"currentContext": 5}'):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(Refused):
            docker_endpoint(environment)


def test_podmans_socket_is_that_of_the_variable_or_of_the_user(tmp_path: Path) -> None:
    assert podman_endpoint({"CONTAINER_HOST": "unix:///x"}).address == "unix:///x"
    assert podman_endpoint({"CONTAINER_HOST": "tcp://h:8080"}).address == "tcp://h:8080"
    found = podman_endpoint({"XDG_RUNTIME_DIR": str(tmp_path)}).address
    assert found == ("unix:///run/podman/podman.sock" if os.geteuid() == 0 else f"unix://{tmp_path}/podman/podman.sock")


def test_a_connection_of_podman_that_is_not_read_is_not_passed_over() -> None:
    with pytest.raises(EndpointInvalid, match="CONTAINER_CONNECTION"):
        podman_endpoint({"CONTAINER_CONNECTION": "board"})
