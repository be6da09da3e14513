"""``images.manifest`` of the Yocto layer: what its lines mean, and what is wrong with which of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shiplap.core.errors import Refused
from shiplap.core.imagesmanifest import LIMIT_BYTES, parse_list
from shiplap.core.manifest import ManifestError

HEX = "0123456789abcdef" * 4
# The list that the layer itself ships.
OF_THE_LAYER = b"busybox 1.32.0 busybox_container\nredis 6-alpine redis_container\nhttpd 2-alpine httpd_container\n"


def names(raw: bytes) -> list[tuple[str, str, str | None]]:
    listed, _ = parse_list(raw, "images.manifest")
    return [(str(one.ref), str(one.pulled), one.digest) for one in listed]


def notes(raw: bytes) -> list[str]:
    return parse_list(raw, "images.manifest")[1]


def problems(raw: bytes) -> list[tuple[int, int, str]]:
    with pytest.raises(ManifestError) as caught:
        parse_list(raw, "images.manifest")
    return [(one.line, one.column, one.message) for one in caught.value.problems]


def test_the_list_of_the_layer_gives_every_name_that_its_recipes_make() -> None:
    found = names(OF_THE_LAYER)
    redis = "docker.io/library/redis:6-alpine"
    assert len(found) == 9
    # What both recipes have; the saved archive's name; and what container-load.sh makes of it on the device.
    assert found[3:6] == [
        (redis, redis, None),
        ("localhost/redis_container:6-alpine", redis, None),
        ("localhost/redis_container:latest", redis, None),
    ]
    assert notes(OF_THE_LAYER) == []


@pytest.mark.parametrize(
    ("line", "ref"),
    [
        (b"redis 7.10", "docker.io/library/redis:7.10"),
        (b"registry.example:5000/acme/app v1", "registry.example:5000/acme/app:v1"),
        (b"  acme/app \t latest  ", "docker.io/acme/app:latest"),
        (b"docker.io/library/redis 7\r", "docker.io/library/redis:7"),
        (b"registry.example/acme/app 1.0_rc-1", "registry.example/acme/app:1.0_rc-1"),
        (f"app sha256:{HEX}".encode(), f"docker.io/library/app@sha256:{HEX}"),
    ],
)
def test_two_words_are_a_name_and_its_version(line: bytes, ref: str) -> None:
    assert names(line) == [(ref, ref, None)]
    assert names(b"# first\n\n" + line + b"\n   \n") == [(ref, ref, None)]


def test_further_words_do_not_count_as_for_the_recipes() -> None:
    assert names(b"redis 7 cache and more words") == names(b"redis 7 cache")
    assert names(b"redis 7 # a comment") == names(b"redis 7")
    assert notes(b"redis 7 # a comment") == []


def test_a_digest_before_the_tag_pins_as_in_the_fork_of_the_layer() -> None:
    digest = f"sha256:{HEX}"
    redis = "docker.io/library/redis:7"
    assert names(f"redis 7 {digest} cache".encode()) == [
        (redis, redis, digest),
        ("localhost/cache:7", redis, digest),
        ("localhost/cache:latest", redis, digest),
    ]
    assert names(f"redis 7 {digest}".encode()) == [(redis, redis, digest)]


def test_the_last_line_needs_no_newline() -> None:
    assert names(OF_THE_LAYER[:-1]) == names(OF_THE_LAYER)


def test_a_container_name_that_can_name_no_image_is_left_out_with_a_note() -> None:
    assert names(b"redis 7 Cache") == names(b"redis 7")
    assert "line 1: `Cache` is no name for an image" in notes(b"redis 7 Cache")[0]


def test_of_two_lines_with_one_tag_the_later_is_latest_as_on_the_device() -> None:
    raw = b"redis 6 cache\nredis 7 cache\n"
    found = {ref: pulled for ref, pulled, _ in names(raw)}
    assert found["localhost/cache:latest"] == "docker.io/library/redis:7"
    assert found["localhost/cache:6"] == "docker.io/library/redis:6"
    assert notes(raw) == ["line 2: localhost/cache:latest is redis:7 from here on, as on the device, not that of line 1"]


def test_a_line_twice_is_one_image_and_a_note() -> None:
    assert names(b"redis 7\nredis 7\n") == names(b"redis 7\n")
    assert notes(b"redis 7\n\nredis 7\n") == ["line 3: redis:7 stands in line 1 already"]


@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        ("redis", 1, "`redis` has no version"),
        ("Redis 7", 1, "lower case"),
        ("redis:6 7", 1, "`redis:6` has a version of its own"),
        (f"redis@sha256:{HEX} 7", 1, "has a version of its own"),
        ("redis 7/8", 7, "`7/8` is no version"),
        ("redis -7", 7, "is no version"),
        ("redis sha256:12", 7, "`sha256:12` is no digest"),
        (f"redis 7 SHA256:{HEX}", 9, "is no digest"),
        (f"redis {'x' * 129}", 7, "is no version"),
        (f"{HEX} 7", 1, "image ID"),
    ],
)
def test_a_wrong_line_is_named_with_its_place(line: str, column: int, said: str) -> None:
    ((found_line, found_column, message),) = problems(f"good 1\n\n{line}\n".encode())
    assert (found_line, found_column) == (3, column)
    assert said in message


def test_every_wrong_line_is_reported_at_once() -> None:
    assert [line for line, _, _ in problems(b"a\nredis 7\nB 1\nc\n\xff 1\n")] == [1, 3, 4, 5]


def test_one_name_for_two_images_is_refused() -> None:
    one, two = f"redis 7 sha256:{HEX}", f"redis 7 sha256:{HEX[::-1]}"
    assert problems(f"{one}\n{two}\n".encode()) == [(2, 1, "redis:7 is another image in line 1 already")]
    assert problems(b"localhost/cache 7\nredis 7 cache\n")[0][2] == "localhost/cache:7 is another image in line 1 already"


def test_an_empty_list_and_a_huge_one_are_refused() -> None:
    assert problems(b"# nothing\n\n")[0][2] == "no image is listed"
    assert "more than" in problems(b"a 1\n" * LIMIT_BYTES)[0][2]


@given(st.binary(max_size=80) | st.text("ab:/@. 1\n#s", max_size=60).map(str.encode))
def test_any_bytes_are_a_list_or_refused(raw: bytes) -> None:
    try:
        listed, _ = parse_list(raw, "images.manifest")
    except Refused:
        return
    assert listed and len({one.ref for one in listed}) == len(listed)
