"""What a file is, is told by its bytes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from layertar import build, item
from shiplap.audit import thingkinds as kinds
from shiplap.core.errors import Refused

FILES = {
    "a SquashFS": (b"hsqs" + bytes(92), kinds.SQUASHFS),
    "a tar": (build([item("f", data=b"x")]), kinds.TAR),
    "a tar without magic": (build([item("f", data=b"x", dialect="v7")]), kinds.TAR),
    "an empty tar": (bytes(1024), kinds.TAR),
    "zeros": (bytes(5000), kinds.FILE),
    "a disk image that begins with zeros": (bytes(1024) + b"ext4" * 100, kinds.FILE),
    "an EROFS": (bytes(1024) + bytes.fromhex("e2e1f5e0") + bytes(500), kinds.EROFS),
    "gzip": (gzip.compress(b"x"), kinds.COMPRESSED),
    "a hash tree": (b"verity\0\0" + bytes(600), kinds.VERITY),
    "JSON": (b' \n{"a": 1}', kinds.JSON),
    "text": (b"hello\n", kinds.FILE),
    "nothing": (b"", kinds.FILE),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_its_first_bytes_say(name: str, tmp_path: Path) -> None:
    data, kind = FILES[name]
    (tmp_path / "store.tar").write_bytes(data)
    assert kinds.kind_of(str(tmp_path / "store.tar")) == kind


def test_folders_and_sources_are_told_apart(tmp_path: Path) -> None:
    assert kinds.kind_of(str(tmp_path)) == kinds.FOLDER
    (tmp_path / "oci-layout").touch()
    assert kinds.kind_of(str(tmp_path)) == kinds.LAYOUT
    assert kinds.kind_of("docker-archive:absent.tar") == kinds.SOURCE and kinds.kind_of("docker://app") == kinds.SOURCE


@pytest.mark.parametrize("name", ["absent", "/dev/null", "absent/below"])
def test_what_is_neither_is_refused(name: str) -> None:
    with pytest.raises(Refused, match=name):
        kinds.kind_of(name)
