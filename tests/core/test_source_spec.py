"""How sources are written: skopeo's transports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shiplap.core.errors import Refused
from shiplap.core.sources import OPENERS, TRANSPORTS, parse_source
from shiplap.core.sources.spec import SourceInvalid, SourceSpec, parse_selector

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "transport", "location", "reference"),
    [
        ("docker-archive:app.tar", "docker-archive", "app.tar", None),
        ("docker-archive:/a/b c/app.tar:app:1", "docker-archive", "/a/b c/app.tar", "app:1"),
        ("docker-archive:app.tar:localhost:5000/app:1", "docker-archive", "app.tar", "localhost:5000/app:1"),
        ("docker-archive:app.tar:@2", "docker-archive", "app.tar", "@2"),
        (f"docker-archive:app.tar:app@sha256:{HEX}", "docker-archive", "app.tar", f"app@sha256:{HEX}"),
        ("oci:layout", "oci", "layout", None),
        ("oci:layout:latest", "oci", "layout", "latest"),
        ("oci:layout:v1.0+build", "oci", "layout", "v1.0+build"),
        (f"oci:layout:@sha256:{HEX}", "oci", "layout", f"@sha256:{HEX}"),
        ("oci-archive:a.tar:@0", "oci-archive", "a.tar", "@0"),
        ("docker://app", "docker", "docker.io/library/app:latest", None),
        ("docker://host:5000/app:1", "docker", "host:5000/app:1", None),
        ("app", "docker", "docker.io/library/app:latest", None),
        ("docker:dind", "docker", "docker.io/library/docker:dind", None),
        (f"acme/app@sha256:{HEX}", "docker", f"docker.io/acme/app@sha256:{HEX}", None),
        ("docker-daemon:app:1", "docker-daemon", "app:1", None),
        (f"docker-daemon:sha256:{HEX}", "docker-daemon", f"sha256:{HEX}", None),
        ("podman:localhost/app", "podman", "localhost/app", None),
    ],
)
def test_a_source_is_taken_apart(text: str, transport: str, location: str, reference: str | None) -> None:
    assert parse_source(text) == SourceSpec(transport, location, reference, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "docker-archive:",
        "oci::app:1",
        "docker-archive:app.tar:",
        "oci:layout:",
        "docker-archive:app.tar:@",
        "docker-archive:app.tar:@-1",
        "docker-archive:app.tar:@x",
        "docker-archive:app.tar:@sha256:abc",
        "docker-archive:app.tar:@99999999999999999999",
        "docker-archive:/a:b/app.tar:app:1",
        "docker-archive:app.tar:v1+build",
        "oci:layout:a//b",
        "oci:layout:-x",
        "docker://",
        "docker://App",
        "podman:",
        "dir:folder",
        "containers-storage:app",
        "./app.tar",
        "/images/app.tar",
    ],
)
def test_what_names_no_source_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        parse_source(text)


def test_a_misspelt_transport_gets_a_suggestion() -> None:
    with pytest.raises(SourceInvalid) as caught:
        parse_source("docker-archve:/tmp/app.tar")
    assert caught.value.hint == "did you mean docker-archive:?"


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (f"redis:7@sha256:{HEX}", f"sha256:{HEX}"),
        (f"docker-daemon:app@sha256:{HEX}", f"sha256:{HEX}"),
        (f"podman:sha256:{HEX}", f"sha256:{HEX}"),
        (f"oci:layout:@sha256:{HEX}", f"sha256:{HEX}"),
        (f"docker-archive:a.tar:app:1@sha256:{HEX}", f"sha256:{HEX}"),
        (f"oci:sha256-{HEX}", None),
        (f"oci:a@sha256:{HEX}", None),
        ("redis:7", None),
        ("docker-daemon:app:1", None),
        ("docker-archive:a.tar:@0", None),
    ],
)
def test_a_source_may_name_the_image_by_its_digest(text: str, digest: str | None) -> None:
    assert parse_source(text).digest == digest


def test_a_misspelt_transport_is_no_image_of_docker_hub() -> None:
    with pytest.raises(SourceInvalid) as caught:
        parse_source("dockr-archive:app.tar")
    assert caught.value.hint == "did you mean docker-archive:? An image of that name is docker://dockr-archive:app.tar"
    assert parse_source("docker://dockr-archive:app.tar").location == "docker.io/library/dockr-archive:app.tar"
    assert parse_source("docker:24").location == "docker.io/library/docker:24"


@pytest.mark.parametrize("text", ["docker:app:1", "https://registry.example.org/app:1", "docker:/app"])
def test_an_address_gets_the_way_to_write_a_registrys_image(text: str) -> None:
    with pytest.raises(SourceInvalid) as caught:
        parse_source(text)
    assert f"docker://{text.partition(':')[2].strip('/')}" in str(caught.value.hint)


def test_upper_case_gets_the_lower() -> None:
    with pytest.raises(SourceInvalid) as caught:
        parse_source("registry.example.org:5000/Team/app:1")
    assert "registry.example.org:5000/team/app:1" in str(caught.value.hint)


def test_a_bare_file_name_gets_the_transport_to_write() -> None:
    with pytest.raises(SourceInvalid) as caught:
        parse_source("./app.tar")
    assert "docker-archive:FILE" in str(caught.value.hint)


def test_every_transport_has_an_opener() -> None:
    assert sorted(OPENERS) == sorted(("docker", *TRANSPORTS))


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("docker-archive:/home/me/app.tar", "docker-archive:app.tar"),
        ("oci:../layouts/app/:app:1", "oci:app:app:1"),
        ("oci:.", "oci:."),
        ("oci:/", "oci:/"),
        ("app:1", "app:1"),
    ],
)
def test_the_public_text_has_no_folder_of_this_machine(text: str, public: str) -> None:
    assert parse_source(text).public_text == public


def test_selectors_tell_positions_digests_and_names_apart() -> None:
    position, digest, name, tag = (
        parse_selector(ref, "x", transport="oci") for ref in ("@3", f"@sha256:{HEX}", f"app:1@sha256:{HEX}", "v1+x")
    )
    assert position is not None and digest is not None and name is not None and tag is not None
    assert (position.position, position.digest) == (3, None)
    assert (digest.position, digest.digest, digest.reference) == (None, f"sha256:{HEX}", None)
    assert name.digest == f"sha256:{HEX}" and name.reference is not None
    assert (tag.text, tag.reference, tag.digest) == ("v1+x", None, None)
    assert parse_selector(None, "x", transport="oci") is None


@given(st.text(max_size=60) | st.text(alphabet="docker-archive:oci@0123/.sha256", max_size=40))
def test_any_text_is_a_source_or_refused(text: str) -> None:
    try:
        spec = parse_source(text)
    except Refused:
        return
    assert spec.text == text
