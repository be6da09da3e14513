"""Records of package databases: read as their programs write them, whatever else is in them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shiplap.core.reference import parse_reference
from shiplap.core.sbom.distributions import RecordInvalid, alpine_packages, debian_packages, operating_system
from shiplap.core.sbom.languages import node_package, python_package
from shiplap.core.sbom.purl import image_url, package_url
from shiplap.core.sbom.software import OperatingSystem, Software

STATUS = b"""Package: libssl3
Status: install ok installed
Priority: optional
Maintainer: Someone <someone@example.org>
Architecture: amd64
Source: openssl
Version: 3.0.11-1~deb12u2
Description: Secure Sockets Layer toolkit
 Package: not-a-package
 .
 more

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: all

Package: binnmu
Status: install ok installed
Architecture: arm64
Source: binnmu (1.0-2)
Version: 1:1.0-2+b1

Package: half
Status: install ok half-installed
Version: 1

Package: bad name
Status: install ok installed
Version: 2

Package: noversion
Status: install ok installed
"""


def test_dpkg_s_status_has_what_is_installed_with_its_source() -> None:
    read = list(debian_packages(STATUS))
    assert [one for one in read if isinstance(one, Software)] == [
        Software("deb", "libssl3", "3.0.11-1~deb12u2", "amd64", source="openssl", source_version="3.0.11-1~deb12u2"),
        Software("deb", "binnmu", "1:1.0-2+b1", "arm64", source="binnmu", source_version="1.0-2"),
    ]
    assert [str(one) for one in read if isinstance(one, RecordInvalid)] == ["its name is no name", "its version is no version"]


def test_images_without_dpkg_have_one_file_for_each_package_and_no_status() -> None:
    assert list(debian_packages(b"Package: base-files\nVersion: 12.4\nArchitecture: amd64\n")) == [
        Software("deb", "base-files", "12.4", "amd64")
    ]
    assert list(debian_packages(b"Package: a\nVersion: 1\nVersion: 2\nPackage: b\n")) == [Software("deb", "a", "1")], "the first counts"
    assert list(debian_packages(b"d41d8cd98f00b204e9800998ecf8427e  usr/share/doc/x\n")) == []


def test_apk_s_database_has_licences_and_origins() -> None:
    raw = b"C:Q1abc=\nP:ssl_client\nV:1.36.1-r15\nA:x86_64\nT:EXternal ssl_client\nL:GPL-2.0-only\no:busybox\nF:usr\nR:x\n\n"
    raw += b"P:musl\nV:1.2.4\nA:x86_64\nL:MIT\no:musl\n\nV:1\n"
    read = list(alpine_packages(raw))
    assert read[:2] == [
        Software("apk", "ssl_client", "1.36.1-r15", "x86_64", "GPL-2.0-only", "busybox", "1.36.1-r15"),
        Software("apk", "musl", "1.2.4", "x86_64", "MIT"),
    ]
    assert isinstance(read[2], RecordInvalid)


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"Name: Foo_Bar.baz\nVersion: 1.0\nLicense: MIT\n\nName: no\n", Software("pypi", "foo-bar-baz", "1.0", licence="MIT")),
        (b"Name: a\r\nVersion: 1\r\nLicense-Expression: MIT OR ISC\r\nLicense: x\r\n", Software("pypi", "a", "1", licence="MIT OR ISC")),
        (b"Name: a\nVersion: 1\nLicense: UNKNOWN\n", Software("pypi", "a", "1")),
        (b"Name: a\nVersion: 1\nLicense: " + b"x" * 300 + b"\n", Software("pypi", "a", "1")),
    ],
)  # fmt: skip
def test_python_metadata(raw: bytes, wanted: Software) -> None:
    assert python_package(raw) == wanted


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ({"name": "left-pad", "version": "1.3.0", "license": "WTFPL"}, Software("npm", "left-pad", "1.3.0", licence="WTFPL")),
        ({"name": "@a/B", "version": "1.0.0-rc.1+x", "license": {"type": "MIT"}}, Software("npm", "@a/b", "1.0.0-rc.1+x", licence="MIT")),
        ({"name": "a", "version": "1", "license": ["MIT"]}, Software("npm", "a", "1")),
        ({"type": "module"}, None),
        ({"name": "a"}, None),
    ],
)
def test_node_packages(document: object, wanted: Software | None) -> None:
    assert node_package(json.dumps(document).encode()) == wanted


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"name": 1, "version": "1"}', b'{"name": "a b", "version": "1"}', b'{"name": "a", "version": "\\u0007"}',
            b'{"name": "a", "version": "\\ud800"}', b"[" * 5000, b'{"name": "a", "version": "' + b"9" * 600 + b'"}']
)  # fmt: skip
def test_a_broken_package_json_is_one_broken_record(raw: bytes) -> None:
    with pytest.raises(RecordInvalid):
        node_package(raw)


def test_os_release_is_read_as_a_shell_would() -> None:
    raw = b"# comment\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID='12'\nID_LIKE=x y\n"
    assert operating_system(raw) == OperatingSystem("debian", "12", "Debian GNU/Linux 12 (bookworm)")
    assert operating_system(b"ID=wolfi\n") == OperatingSystem("wolfi")
    for broken in (b"", b"ID=\n", b'ID="a b"\n', b"ID=A/B\n", b'ID=a\nVERSION_ID="1 2\x07"\n'):
        with pytest.raises(RecordInvalid):
            operating_system(broken)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"Package: a\n", b"Version: 1\n", b"\n", b"P:x\n", b"V:\x00\n", b" x\n", b"ID=a\n"])).map(b"".join)
)
def test_whatever_the_bytes_every_record_is_read_or_said_to_be_broken(raw: bytes) -> None:
    for record in [*debian_packages(raw), *alpine_packages(raw)]:
        if isinstance(record, Software):
            assert all(text.isprintable() and len(text) <= 500 for text in (record.name, record.version, record.licence, record.source))
    for reader in (operating_system, python_package, node_package):
        try:
            reader(raw)
        except RecordInvalid as error:
            assert str(error).isprintable()


DEBIAN = OperatingSystem("debian", "12")


@pytest.mark.parametrize(
    ("software", "system", "url"),
    [
        (Software("deb", "libstdc++6", "1:12.2.0-14+b1", "amd64", source="gcc-12", source_version="12.2.0-14"), DEBIAN,
         "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bb1?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14"),
        (Software("deb", "a", "1~rc1"), None, "pkg:deb/debian/a@1~rc1"),
        (Software("apk", "musl", "1.2.4-r2", "x86_64"), OperatingSystem("alpine", "3.19.1"),
         "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.19.1"),
        (Software("pypi", "foo-bar", "1.0"), DEBIAN, "pkg:pypi/foo-bar@1.0"),
        (Software("npm", "@scope/name", "1.0.0+x"), DEBIAN, "pkg:npm/%40scope/name@1.0.0%2Bx"),
        (Software("deb", "a/b?c#d", "1 2%", "x&y"), DEBIAN, "pkg:deb/debian/a%2Fb%3Fc%23d@1%202%25?arch=x%26y&distro=debian-12"),
    ],
)  # fmt: skip
def test_package_urls_are_spelled_as_the_specification_says(software: Software, system: OperatingSystem | None, url: str) -> None:
    assert package_url(software, system) == url


def test_an_image_has_a_package_url_when_its_manifest_digest_is_known() -> None:
    digest = "sha256:" + "a" * 64
    assert image_url(parse_reference("redis:7"), "arm64") is None
    assert image_url(parse_reference(f"redis@{digest}"), "arm64") == (
        f"pkg:oci/redis@{digest}?arch=arm64&repository_url=docker.io/library/redis"
    )
