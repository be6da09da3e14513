"""The lock's file: one text for one lock, read back exactly, and every mistake in it told with its place."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from locks import OCI_MANIFEST, digest_of, full_lock
from shiplap.core.errors import Refused
from shiplap.core.lock import Lock, LockedImage, LockedLayer, LockedManifest
from shiplap.core.lock.document import (
    LOCK_BOUNDS,
    LockInvalid,
    LockTooLarge,
    LockUnreadable,
    _schema,
    load_lock,
    lock_path,
    parse_lock,
    write_lock,
)
from shiplap.core.manifest.schema import ANNOTATIONS, CHECKED
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference

GOLDEN = "e43534be96242d46b896e75249aad42cdca69972267c534b6c8cdd0378721b92"


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(LockInvalid) as caught:
        parse_lock(text.encode() if isinstance(text, str) else text, "x.lock.yaml")
    return [f"{one.line}: {one.path}: {one.message}" for one in caught.value.problems]


def text_of(lock: Lock | None = None) -> str:
    return write_lock(lock or full_lock()).decode()


# --- one text


def test_a_lock_is_written_in_one_way_with_a_header() -> None:
    text = text_of()
    lines = text.splitlines()
    assert lines[0].startswith("# Written by `shiplap lock`")
    assert lines[1:8] == [
        "version: 1",
        "store-format: 1",
        "epoch: 1714564800",
        "images:",
        "  - ref: docker.io/library/app:1",
        "    from: docker://registry.example/app:1",
        "    platform: linux/arm64/v8",
    ]
    assert '    from: "docker-archive:some folder/saved.tar"' in lines
    assert "    manifest: unknown" in lines, "what no source said is said to be unknown"
    assert lines[-2:] == ["    layers:", f"      - diff-id: {digest_of('layer 0')}"]
    assert '      "yes": "no"' in lines, "a signature's own words are never taken for true or false"
    assert '      "key": "the key\'s name: \\xfcn\\xef"' in lines
    folded = lines[lines.index("      bytes: >-") + 1]
    assert folded.startswith("        ") and len(folded) == 8 + 76


def test_the_bytes_of_a_lock_never_change() -> None:
    assert hashlib.sha256(write_lock(full_lock())).hexdigest() == GOLDEN


def test_what_is_written_is_read_back() -> None:
    lock = full_lock()
    assert parse_lock(write_lock(lock), "x") == lock
    assert write_lock(parse_lock(write_lock(lock), "x")) == write_lock(lock)


def test_another_yaml_reader_reads_the_same_values() -> None:
    data = yaml.safe_load(write_lock(full_lock()))
    assert data["images"][0]["signature"] == {"key": "the key's name: ünï", "yes": "no"}
    assert data["images"][1]["from"] == "docker-archive:some folder/saved.tar"
    assert list(data["images"][0]) == ["ref", "from", "platform", "created", "index", "manifest", "config", "layers", "signature"]


_TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cn"), blacklist_characters="\x7f"), min_size=1, max_size=40)
_DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)
_SIZES = st.integers(0, 2**53 - 1)
_LAYERS = st.one_of(
    st.builds(LockedLayer, _DIGESTS), st.builds(LockedLayer, _DIGESTS, _DIGESTS, _SIZES, _TEXT.filter(lambda text: len(text) < 200))
)
_IMAGES = st.builds(
    LockedImage,
    ref=st.from_regex(r"[a-z]{1,9}:[a-z0-9]{1,5}", fullmatch=True).map(parse_reference),
    source=_TEXT,
    platform=st.sampled_from(["linux/amd64", "linux/arm/v7"]).map(parse_platform),
    config=_DIGESTS,
    config_size_bytes=_SIZES,
    layers=st.lists(_LAYERS, max_size=3).map(tuple),
    created_epoch=st.none() | st.integers(-62135596800, 253402300799),
    index=st.none(),
    manifest=st.none() | st.builds(LockedManifest, _DIGESTS, st.integers(0, 4 << 20), _TEXT),
    signature=st.none() | st.dictionaries(_TEXT, _TEXT, max_size=3).map(lambda pairs: tuple(sorted(pairs.items()))),
)
_LOCKS = st.builds(
    Lock,
    store_format=st.just(1),
    epoch=st.integers(0, 2**32 - 1),
    images=st.lists(_IMAGES, min_size=1, max_size=3, unique_by=lambda image: image.ref).map(tuple),
)


@settings(deadline=None, max_examples=150)
@given(_LOCKS)
def test_any_lock_is_read_back(lock: Lock) -> None:
    raw = write_lock(lock)
    assert raw.isascii() and parse_lock(raw, "x") == lock


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 3000), st.integers(0, 60), st.binary(max_size=12))
def test_a_damaged_lock_is_refused_or_means_something(at: int, cut: int, instead: bytes) -> None:
    raw = write_lock(full_lock())
    try:
        parse_lock(raw[:at] + instead + raw[at + cut :], "x")
    except LockInvalid as error:
        assert error.problems and len(error.message) < 20_000


def test_a_lock_that_nobody_could_read_again_is_not_written() -> None:
    layers = tuple(LockedLayer(digest_of(str(n)), digest_of(f"b{n}"), n, OCI_MANIFEST) for n in range(125))
    image = dataclasses.replace(full_lock().images[1], layers=layers)
    images = tuple(dataclasses.replace(image, ref=parse_reference(f"app:{n}")) for n in range(400))
    with pytest.raises(LockTooLarge, match=str(LOCK_BOUNDS.document_bytes)):
        write_lock(Lock(1, 0, images))


def test_the_largest_usual_lock_is_read() -> None:
    layers = tuple(LockedLayer(digest_of(str(n)), digest_of(f"b{n}"), n, OCI_MANIFEST) for n in range(125))
    image = dataclasses.replace(full_lock().images[1], layers=layers)
    lock = Lock(1, 0, tuple(dataclasses.replace(image, ref=parse_reference(f"app:{n}")) for n in range(4)))
    assert parse_lock(write_lock(lock), "x") == lock


# --- mistakes


def test_every_mistake_is_told_at_once_with_its_line() -> None:
    text = (
        "version: 2\nstore-format: one\nepoch: -1\nimages:\n"
        "  - ref: app:1\n    form: docker://app\n    platform: linux/amd64\n    manifest: unknowable\n"
        "    config: {digest: sha256:12, size: 1}\n    layers: [{diff-id: 7}]\n"
    )
    assert problems(text) == [
        "1: version: must be 1, not `2`: this release reads version 1",
        "2: store-format: must be a whole number, not `one`",
        "3: epoch: `-1` is less than 0",
        "5: images[0].from: the key `from` is missing",
        "6: images[0].form: unknown key `form`; did you mean `from`?",
        "8: images[0].manifest: `unknowable` is not one of unknown; did you mean `unknown`?",
        "9: images[0].config.digest: `sha256:12`: a config's digest is sha256: and 64 lower case hexadecimal digits",
        '10: images[0].layers[0].diff-id: must be text, not `7`: put it in quotes, "7"',
    ]


def replaced(old: str, new: str) -> list[str]:
    text = text_of()
    assert old in text
    return problems(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ref: docker.io/library/app:1", "ref: app:1", "images[0].ref: not in full form: write docker.io/library/app:1"),
        ("ref: docker.io/library/app:1", "ref: UPPER:1", "images[0].ref: 'UPPER:1' is not an image reference"),
        ("ref: docker.io/me/saved:2", "ref: docker.io/library/app:1", "images[1].ref: the same reference as that of images[0]"),
        ("platform: linux/arm64/v8", "platform: arm64", "images[0].platform: 'arm64' is not a platform"),
        ("store-format: 1", "store-format: 2", "store-format: the lock is for store format 2, this release writes 1"),
        ("        size: 100\n", "", "`blob`, `size` and `media-type` belong together"),
        ("bytes: >-\n        eyJ", "bytes: >-\n        !yJ", "images[0].manifest.bytes: not base64"),
        ("bytes: >-\n        eyJ", "bytes: >-\n        eyK", "not the manifest that is pinned"),
        ("epoch: 1714564800", "epoch: 2024-05-01", "a date in YAML 1.1"),
        ("version: 1", "version: 1\nversion: 1", "stands here a second time"),
        ("version: 1", "version: 1\n<<<<<<< HEAD", "not YAML"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(old: str, new: str, message: str) -> None:
    found = replaced(old, new)
    assert any(message in one for one in found), found
    assert all(int(one.partition(":")[0]) > 0 for one in found)


def test_manifest_bytes_must_name_the_config_and_the_layers_of_the_lock() -> None:
    lock = full_lock()
    app = lock.images[0]
    other = dataclasses.replace(app, config=digest_of("another config"))
    (one,) = problems(write_lock(dataclasses.replace(lock, images=(other,))))
    assert "the manifest names another config or other layers than the lock" in one
    fewer = dataclasses.replace(app, layers=app.layers[:1])
    assert "names another config" in problems(write_lock(dataclasses.replace(lock, images=(fewer,))))[0]


def test_an_index_without_a_manifest_is_no_pin() -> None:
    image = dataclasses.replace(full_lock().images[1], index=digest_of("index"))
    assert problems(write_lock(Lock(1, 0, (image,)))) == ["9: images[0].index: an index without a manifest"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "lock",
        "images: &a [*a]",
        "a: &a [1]\nb: &b [*a,*a]\n" + "c: [*b]\n",
        "version: 1\n---\nversion: 1",
        "\0",
        b"\xff\xfe",
        "{" * 500,
    ],
)
def test_what_is_no_lock_is_refused(text: str | bytes) -> None:
    assert problems(text)


def test_a_lock_that_is_too_large_is_refused_unread() -> None:
    assert problems(b"#" * (LOCK_BOUNDS.document_bytes + 1)) == [
        f"1: : the file has {LOCK_BOUNDS.document_bytes + 1} bytes, more than the {LOCK_BOUNDS.document_bytes} a lock may have"
    ]


# --- files


def test_the_lock_lies_beside_its_manifest() -> None:
    assert lock_path(Path("shiplap.yaml")) == Path("shiplap.lock.yaml")
    assert lock_path(Path("../products/gateway.yaml")) == Path("../products/gateway.lock.yaml")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockUnreadable, match="No such file") as caught:
        load_lock(tmp_path / "x")
    assert "`shiplap lock` writes it" in str(caught.value.hint)
    with pytest.raises(LockUnreadable, match=r"not a regular file|Is a directory"):
        load_lock(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LockUnreadable, match="not a regular file"):
        load_lock(tmp_path / "pipe")


def test_the_schema_uses_only_what_the_validator_knows() -> None:
    def check(schema: Any) -> None:
        assert set(schema) <= (CHECKED | ANNOTATIONS) - {"$ref"}, schema
        for below in schema.get("properties", {}).values():
            check(below)
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                check(schema[key])

    check(_schema())
    assert issubclass(LockInvalid, Refused)
