"""Whatever the bytes: a manifest, or one ManifestError with places inside the file. Never anything else, never for long."""

from __future__ import annotations

import random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import SMALLEST, whole
from shiplap.core.errors import ShiplapError
from shiplap.core.manifest import Manifest, ManifestError, SizeInvalid, format_size, parse_manifest, parse_size

WHOLE = yaml.safe_dump(whole(), sort_keys=False).encode()
PIECES = [
    *(b"version: 1\n", b"images:\n", b"  - ref: a:1\n", b"- ", b": ", b"\n", b"  ", b"{", b"}", b"[", b"]", b",", b"&a ", b"*a", b"? "),
    *(
        b"|",
        b">",
        b"'",
        b'"',
        b"#",
        b"%",
        b"@",
        b"!",
        b"!!str ",
        b"<<",
        b"---\n",
        b"...\n",
        b"\t",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\\U",
    ),
    *(b"no", b"010", b"1e9", b"22:22", b"2024-01-01", b"~", b"squashfs: ", b"level: 9\n", b"store-path: /a\n", b"outputs: [tar]\n"),
]


def judged(raw: bytes) -> Manifest | None:
    """Parse ``raw``; anything but a Manifest or a well-formed ManifestError fails the test."""
    try:
        manifest = parse_manifest(raw, "fuzz.yaml")
    except ManifestError as error:
        lines = raw.count(b"\n") + raw.count(b"\r") + raw.count(b"\xc2\x85") + raw.count(b"\xe2\x80") + 2
        assert error.problems
        assert all(1 <= problem.line <= lines and problem.column >= 1 for problem in error.problems)
        assert len(error.message) < 20_000
        return None
    assert isinstance(manifest, Manifest)
    return manifest


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_random_bytes(raw: bytes) -> None:
    judged(raw)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_random_pieces_of_yaml(pieces: list[bytes]) -> None:
    judged(b"".join(pieces))
    judged(SMALLEST + b"".join(pieces))


def test_a_whole_manifest_damaged_at_random_places() -> None:
    rng = random.Random(1)
    survived = 0
    for _ in range(150):
        damaged = bytearray(WHOLE)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(damaged))
            damaged[place : place + rng.randint(0, 3)] = rng.choice(PIECES)
        survived += judged(bytes(damaged)) is not None
    assert 0 < survived < 15  # a digit or a letter more may mean something


def test_a_manifest_cut_off_anywhere() -> None:
    for end in range(len(SMALLEST)):
        judged(SMALLEST[:end])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=12) | st.from_regex(r"[0-9]{1,12}[KMGTkmgt]?(iB|B)?", fullmatch=True))
def test_sizes_parse_or_are_refused_and_print_back_to_the_same_number(text: str) -> None:
    try:
        size_bytes = parse_size(text)
    except ShiplapError:
        return
    assert size_bytes > 0
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1", 1),
        (131072, 131072),
        ("128K", 131072),
        ("128k", 131072),
        ("256M", 256 << 20),
        ("4MiB", 4 << 20),
        ("16G", 16 << 30),
        ("1T", 1 << 40),
    ],
)
def test_suffixes_are_powers_of_1024(text: int | str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "0", "01K", "-1", "1.5G", "1 G", "200MB", "200Mb", "1E", "G", "１K", "99999999999", "9999999999T", 0, -1, 1 << 60]
)
def test_what_is_no_size_is_refused(text: int | str) -> None:
    with pytest.raises(SizeInvalid):
        parse_size(text)


@pytest.mark.parametrize(("size_bytes", "text"), [(1, 1), (1000, 1000), (1024, "1K"), (1536, 1536), (3 << 20, "3M"), (1 << 40, "1T")])
def test_sizes_print_in_the_largest_unit_that_is_exact(size_bytes: int, text: int | str) -> None:
    assert format_size(size_bytes) == text
