"""A manifest that shiplap writes reads back as what was meant, whatever the names look like."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from shiplap.core.manifest import ManifestError, load_manifest, parse_manifest
from shiplap.core.manifest.writing import NotWritable, WrittenImage, manifest_text

DIGEST = "sha256:" + "1" * 64
WHOLE = b"""\
# What this is.
#
# And how.
version: 1
platform: linux/arm/v7
images:
  - ref: docker.io/library/app:7.10
    from: docker-root:/var/lib/docker:app:7.10
    config-digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
  # why it is here
  - ref: registry.example:5000/acme/app:1
    from: "docker-archive:/with blanks/and #.tar:app:1"
    digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
"""


def test_the_whole_file(tmp_path: Path) -> None:
    images = [
        WrittenImage("docker.io/library/app:7.10", "docker-root:/var/lib/docker:app:7.10", config_digest=DIGEST),
        WrittenImage(
            "registry.example:5000/acme/app:1", "docker-archive:/with blanks/and #.tar:app:1", digest=DIGEST, comments=("why it is here",)
        ),
    ]
    text = manifest_text(images, heading=("What this is.", "", "And how."), platform="linux/arm/v7")
    assert text == WHOLE
    (tmp_path / "shiplap.yaml").write_bytes(text)
    first, second = load_manifest(tmp_path / "shiplap.yaml").images
    assert (str(first.ref), first.source, first.config_digest) == ("docker.io/library/app:7.10", images[0].source, DIGEST)
    assert (second.source, second.digest) == (images[1].source, DIGEST)


@given(st.text(min_size=1, max_size=40))
def test_any_path_comes_back(name: str) -> None:
    source = f"docker-archive:/{name.replace(':', '')}"
    try:
        text = manifest_text([WrittenImage("docker.io/library/app:1", source)], heading=("a heading",))
    except (NotWritable, ManifestError):
        # Lone surrogates, and what the reader of manifests refuses in any file.
        assert not source.isprintable() or any(ord(c) > 0xFFFF for c in source)
        return
    assert parse_manifest(text, "x").images[0].source == source
    assert yaml.safe_load(text)["images"][0]["from"] == source


@pytest.mark.parametrize(
    "source",
    ["7.10", "yes", "null", "0x10", "1e3", "2020-01-01", "12:30"]
    + [f"docker-archive:{path}" for path in ("a #b", " a", "a ", "'", '"', "{", "[a]", "&a", "!x", "a, b", "tab\tname", "ä", "\u2028")],
)
def test_what_yaml_takes_for_something_else_is_quoted(source: str) -> None:
    written = manifest_text([WrittenImage("docker.io/library/app:1", source)], heading=())
    assert parse_manifest(written, "x").images[0].source == source
    assert yaml.safe_load(written)["images"][0]["from"] == source


def test_a_comment_stays_a_comment() -> None:
    text = manifest_text([WrittenImage("docker.io/library/app:1", comments=("a\nversion: 2\u2028",))], heading=("b\nname: x",))
    assert parse_manifest(text, "x").name == "store"
    assert text.count(b"version:") == 2 and b"\\n" in text


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(NotWritable, match="not UTF-8"):
        manifest_text([WrittenImage("docker.io/library/app:1", "docker-archive:/\udcff.tar")], heading=())


def test_what_the_reader_refuses_is_not_written() -> None:
    with pytest.raises(ManifestError):
        manifest_text([WrittenImage("Not A Reference")], heading=())
    with pytest.raises(ManifestError):
        manifest_text([], heading=())
