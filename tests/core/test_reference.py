"""References: Docker's grammar, familiar and full forms."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requirement import require
from shiplap.core.errors import ShiplapError
from shiplap.core.reference import Reference, ReferenceInvalid, parse_reference

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"

FULL = {
    "app": "docker.io/library/app:latest",
    "app:1.0": "docker.io/library/app:1.0",
    "acme/app": "docker.io/acme/app:latest",
    "docker.io/app": "docker.io/library/app:latest",
    "index.docker.io/app:2": "docker.io/library/app:2",
    "index.docker.io/acme/app": "docker.io/acme/app:latest",
    "localhost/app": "localhost/app:latest",
    "localhost:5000/app:1": "localhost:5000/app:1",
    "host:5000/acme/app": "host:5000/acme/app:latest",
    "127.0.0.1:5000/app": "127.0.0.1:5000/app:latest",
    "registry.example/a/b/c:v1": "registry.example/a/b/c:v1",
    "[2001:db8::1]:5000/app": "[2001:db8::1]:5000/app:latest",
    "app:5000": "docker.io/library/app:5000",
    "host.example:5000": "docker.io/library/host.example:5000",
    f"app@{DIGEST}": f"docker.io/library/app@{DIGEST}",
    f"app:1@{DIGEST}": f"docker.io/library/app:1@{DIGEST}",
    f"docker.io/{HEX}": f"docker.io/library/{HEX}:latest",
    "a__b/c--d.e_f": "docker.io/a__b/c--d.e_f:latest",
    "app:Tag_with.every-Thing": "docker.io/library/app:Tag_with.every-Thing",
    "registry.example/" + "a" * 238: "registry.example/" + "a" * 238 + ":latest",
    "app:" + "t" * 128: "docker.io/library/app:" + "t" * 128,
}

REFUSED = [
    "",
    ":tag",
    f"@{DIGEST}",
    HEX,
    "App",
    "App:1",
    "acme/App",
    "Acme/app",
    "-app",
    "app-",
    "_app",
    "a..b",
    "a___b",
    "a._b",
    "app:",
    "app:-tag",
    "app:.tag",
    "app:a b",
    "app:" + "t" * 129,
    "app@",
    "app@sha256:abc",
    f"app@sha256:{HEX.upper()}",
    f"app@md5:{HEX[:32]}",
    f"app@{DIGEST}:tag",
    "acme//app",
    "/app",
    "app/",
    "host:port/app",
    "https://host/app",
    "host_name:5000/app",
    "-host.example/app",
    "[fe80::1%eth0]:5000/app",
    "app\n",
    "app:1\n",
    "äpp",
    "app:１",
    "../app",
    "./app.tar",
    "registry.example/" + "a" * 239,
    "x" * 5000,
]


@pytest.mark.parametrize("text", FULL, ids=lambda text: text[:40])
def test_a_familiar_reference_becomes_its_full_form(text: str) -> None:
    assert str(parse_reference(text)) == FULL[text]


@pytest.mark.parametrize("text", FULL, ids=lambda text: text[:40])
def test_a_full_form_and_a_familiar_form_parse_to_the_same_reference(text: str) -> None:
    reference = parse_reference(text)
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:40]))
def test_what_docker_refuses_is_refused(text: str) -> None:
    with pytest.raises(ReferenceInvalid):
        parse_reference(text)


def test_the_default_tag_is_added_only_when_asked_for_and_needed() -> None:
    assert parse_reference("app", default_tag=False).tag is None
    assert parse_reference("app").tag == "latest"
    assert parse_reference(f"app@{DIGEST}").tag is None


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("docker.io/library/app", "app"),
        ("docker.io/acme/app", "acme/app"),
        ("docker.io/library/a/b", "library/a/b"),
        ("registry.example/library/app", "registry.example/library/app"),
        ("localhost/app", "localhost/app"),
    ],
)
def test_familiar_names_leave_out_what_docker_leaves_out(text: str, familiar: str) -> None:
    assert parse_reference(text).familiar_name == familiar


def test_the_parts_of_a_reference_are_available() -> None:
    reference = parse_reference(f"host:5000/acme/app:1@{DIGEST}")
    assert reference == Reference("host:5000", "acme/app", "1", DIGEST)
    assert reference.name == "host:5000/acme/app"


def test_an_upper_case_name_is_explained() -> None:
    with pytest.raises(ReferenceInvalid, match="lower case"):
        parse_reference("acme/App:1")


def test_an_image_id_is_explained() -> None:
    with pytest.raises(ReferenceInvalid, match="image ID"):
        parse_reference(HEX)


@pytest.mark.parametrize("text", ["a" * 1024, "a-" * 511, "a." * 511 + "/", "a/" * 511, "A-" * 300 + "/a", "a" * 500 + "!" + "b" * 500])
def test_no_text_takes_long_to_refuse(text: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(ReferenceInvalid):
        parse_reference(text)
    assert time.perf_counter() - begin < 1


@given(st.text(alphabet="abzAZ019._-:/@[]", max_size=40) | st.text(max_size=20))
@example("a" * 64)
def test_any_text_is_parsed_to_a_stable_reference_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ShiplapError:
        return
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference
    assert str(reference).isascii()


def test_skopeo_accepts_and_refuses_the_same_references(tmp_path: Path) -> None:
    require("skopeo")
    # skopeo 1.9 predates IPv6 registries and puts no digests into archives.
    texts = [text for text in [*FULL, *REFUSED] if "@" not in text and "[" not in text and text]
    for text in texts:
        said = subprocess.run(
            ["skopeo", "inspect", f"docker-archive:{tmp_path}/absent.tar:{text}"], capture_output=True, text=True, check=False
        ).stderr
        understood = "no such file" in said
        try:
            parse_reference(text)
        except ReferenceInvalid:
            assert not understood, text
        else:
            assert understood, (text, said)
