"""Podman's storage.conf: what the store demands, the manifest's engine-config and a base's own file, as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from hypothesis import given
from hypothesis import strategies as st
from shiplap.core.entries import Bytes, Entry, FileSlice, Kind
from shiplap.core.progress import SILENT
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry
from shiplap.rootfs.baseconfig import merged_with_base
from shiplap.rootfs.basetree import BaseTree
from shiplap.rootfs.target.settings import DataRoot, TargetRefused, TargetSettings
from shiplap.rootfs.target.storageconf import merged_storage_conf, storage_conf, toml_text
from storeimages import APP, BASE

SETTINGS = TargetSettings(
    mode="store", engine="podman", driver="overlay", store_id="1" * 64, store_path="/usr/share/shiplap", images=(),
    data_root=DataRoot("/var/lib/containers/storage"),
)  # fmt: skip
PLAIN = b"""\
# Written by shiplap build; belongs to the store image of the same build.
[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
[storage.options]
additionalimagestores = ["/usr/share/shiplap/store"]
"""


def test_the_whole_file() -> None:
    assert storage_conf(SETTINGS) == PLAIN
    assert b"additionalimagestores" not in storage_conf(replace(SETTINGS, mode="archive"))


def test_engine_config_is_in_it_and_what_is_at_odds_is_named() -> None:
    asked = {"storage": {"runroot": "/run/x", "options": {"additionalimagestores": ["/opt/store"], "overlay": {"mountopt": "nodev"}}}}
    written = tomllib.loads(storage_conf(replace(SETTINGS, engine_config=asked)).decode())
    assert written["storage"]["runroot"] == "/run/x"
    assert written["storage"]["options"] == {
        "additionalimagestores": ["/usr/share/shiplap/store", "/opt/store"],
        "overlay": {"mountopt": "nodev"},
    }
    with pytest.raises(TargetRefused, match=r'engine-config sets storage.driver to "vfs", the store needs "overlay"'):
        storage_conf(replace(SETTINGS, engine_config={"storage": {"driver": "vfs"}}))
    with pytest.raises(TargetRefused, match=r"storage.x is None, which the file cannot say"):
        storage_conf(replace(SETTINGS, engine_config={"storage": {"x": None}}))


def test_a_base_s_own_file_is_merged_and_a_vendor_s_gives_way() -> None:
    own = b'[storage]\ndriver = "overlay"\ngraphroot = "/other"\n[storage.options]\nadditionalimagestores = ["/opt/store"]\n'
    with pytest.raises(TargetRefused, match=r'the base root file system sets storage.graphroot to "/other"'):
        merged_storage_conf(own, PLAIN, False)
    merged = tomllib.loads(merged_storage_conf(own, PLAIN, True).decode())
    assert merged["storage"]["graphroot"] == "/var/lib/containers/storage"
    assert merged["storage"]["options"]["additionalimagestores"] == ["/usr/share/shiplap/store", "/opt/store"]
    with pytest.raises(TargetRefused, match="is not TOML"):
        merged_storage_conf(b"[storage", PLAIN, False)
    with pytest.raises(TargetRefused, match="cannot say"):
        merged_storage_conf(b"[storage]\nsince = 2024-01-01\n", PLAIN, False)


def base_tree(tmp_path: Path, files: dict[str, bytes]) -> Iterator[BaseTree]:
    pieces: list[bytes] = []
    for name, content in files.items():
        write_entry(Entry(name.encode(), Kind.REGULAR, 0o644, content=Bytes(content)), pieces.append)
    (tmp_path / "base.tar").write_bytes(b"".join(pieces) + END_OF_ARCHIVE)
    tree = BaseTree("base.tar", 0, 1000)
    with (tmp_path / "base.tar").open("rb") as file:
        tree.read(FileSlice(file.fileno(), 0, (tmp_path / "base.tar").stat().st_size, "base.tar"))
        yield tree


@pytest.mark.parametrize("place", ["etc/containers/storage.conf", "usr/share/containers/storage.conf"])
def test_the_base_s_file_is_found_where_podman_would_read_it(tmp_path: Path, place: str) -> None:
    entry = Entry(b"etc/containers/storage.conf", Kind.REGULAR, 0o644, content=Bytes(PLAIN))
    for tree in base_tree(tmp_path, {place: b"[storage]\ntransient_store = true\n"}):
        merged = merged_with_base(tree, entry, SILENT, {})
        assert merged.content is not None
        assert tomllib.loads(b"".join(merged.content.chunks()).decode())["storage"]["transient_store"] is True
        tree.put(merged)
    for tree in base_tree(tmp_path, {"etc/other": b""}):
        assert merged_with_base(tree, entry, SILENT, {}) is entry


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
VALUES = st.recursive(
    st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_written_is_read_again(data: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(data)) == data


def test_a_build_for_podman_writes_the_kit_for_podman(tmp_path: Path) -> None:
    import tarfile

    archive = docker_archive(tmp_path / "images.tar", [ImageSpec([BASE, APP], ["app:1"])])
    done = shiplap_command("build", "--engine", "podman", f"docker-archive:{archive}", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "out/target.tar") as tar:
        names = set(tar.getnames())
        conf = tar.extractfile("etc/containers/storage.conf")
        assert conf is not None and conf.read() == PLAIN
    assert {"usr/lib/shiplap/podman.sh", "etc/containers/networks", "var/lib/containers/storage"} <= names
    assert (
        not {"usr/lib/shiplap/overlay2.sh", "usr/lib/shiplap/references.sh", "etc/docker/daemon.json", "etc/uci-defaults/50-shiplap"}
        & names
    )
    needs = "usr/lib/systemd/system/{}.d/10-shiplap.conf"
    assert {needs.format(unit) for unit in ("podman.service", "podman.socket", "podman-restart.service", "podman-kube@.service")} <= names
