"""``shiplap rootfs`` and the kit of a real build: ``seal: auto`` inside a sealed root, and the canary beside an unpacked store."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from archives import docker_archive
from commandline import shiplap_command
from firmwares import BASE
from shiplap.core.entries import Entry
from shiplap.rootfs.squashfs.reader import SquashfsReader
from shiplap.rootfs.target.conf import TargetRefused, conf_values, is_left_to_root, left_to_root
from storeimages import DATA_IMAGE

STORE = "usr/share/shiplap"
CONF = "etc/shiplap/store.conf"
SEALED = ["store", "store.roothash", "store.squashfs", "store.verity"]


def build(folder: Path, **keys: Any) -> Path:
    """A build whose store has an opaque directory and a capability."""
    archive = docker_archive(folder / "images.tar", [DATA_IMAGE])
    manifest = {"version": 1, "images": [{"ref": "data:1", "from": f"docker-archive:{archive}:data:latest"}], "squashfs": {"level": 1}}
    (folder / "shiplap.yaml").write_text(json.dumps(manifest | keys))
    done = shiplap_command("build", "-f", str(folder / "shiplap.yaml"), "-o", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder / "out"


def rootfs(folder: Path, store: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "base.tar").write_bytes(BASE)
    done = shiplap_command(
        "rootfs", "--base", str(folder / "base.tar"), "--store", str(store), "-o", str(folder / "fw"), "--compression", "none", *words
    )
    assert done.returncode == 0, done.stderr
    return done


def conf(image: Path) -> dict[str, str]:
    with SquashfsReader.open(image) as reader:
        return conf_values(reader.read(CONF.encode(), 1 << 20))


def names(image: Path, folder: str) -> list[str]:
    with SquashfsReader.open(image) as reader:
        return sorted(entry.path.decode().rpartition("/")[2] for entry in reader.children(folder.encode()))


def kit_conf(out: Path) -> bytes:
    return subprocess.run(["tar", "-xOf", out / "target.tar", CONF], capture_output=True, check=True).stdout


def test_inside_a_sealed_root_the_store_is_not_sealed_once_more(tmp_path: Path) -> None:
    out = build(tmp_path)
    before = conf_values(kit_conf(out))
    assert (before["SEAL"], before["SEALED"], before["ROOT_HASH"]) == ("auto", "yes", (out / "store.roothash").read_text().strip())
    done = rootfs(tmp_path, out)
    image = tmp_path / "fw/rootfs.squashfs"
    assert "is sealed by the root file system around it" in done.stderr
    found = conf(image)
    assert (found["SEALED"], found["ROOT_HASH"], found["VERITY"]) == ("no", "", "")
    # Nothing else changes, and neither tree nor hash takes room in the root.
    assert {key for key in before if before[key] != found[key]} == {"SEALED", "ROOT_HASH", "VERITY"}
    assert found.keys() == before.keys()
    assert names(image, STORE) == ["store", "store.squashfs"]
    assert json.loads((tmp_path / "fw/record.json").read_text())["store"]["sealed-by-root"] is True


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"verity": {"seal": "always"}}, ()),
        ({"verity": {"check": "full"}}, ()),
        ({"verity": {"on-corruption": "restart"}}, ()),
    ],
)
def test_what_asks_for_dm_verity_gets_it(tmp_path: Path, keys: dict[str, Any], words: tuple[str, ...]) -> None:
    out = build(tmp_path, **keys)
    rootfs(tmp_path, out, *words)
    image = tmp_path / "fw/rootfs.squashfs"
    assert conf(image) == conf_values(kit_conf(out))
    assert conf(image)["SEALED"] == "yes"
    assert names(image, STORE) == SEALED
    assert json.loads((tmp_path / "fw/record.json").read_text())["store"]["sealed-by-root"] is False


def test_a_partition_of_its_own_stays_sealed(tmp_path: Path) -> None:
    out = build(tmp_path, placement="partition")
    rootfs(tmp_path, out, "--placement", "partition")
    assert conf(tmp_path / "fw/rootfs.squashfs") == conf_values(kit_conf(out))
    assert conf(tmp_path / "fw/rootfs.squashfs")["SEALED"] == "yes"


def test_beside_an_unpacked_store_lies_the_canary(tmp_path: Path) -> None:
    out = build(tmp_path, placement="tree")
    rootfs(tmp_path, out, "--placement", "tree")
    image = tmp_path / "fw/rootfs.squashfs"
    assert (conf(image)["IMAGE"], conf(image)["SEALED"], conf(image)["CANARY"]) == ("", "no", "yes")
    assert [name for name in names(image, "usr/lib/shiplap") if "canary" in name] == ["canary", "canary.sh"]
    with SquashfsReader.open(image) as reader:
        canary = reader.find(b"usr/lib/shiplap/canary/upper/folder")
        store_json = reader.read(f"{STORE}/store/store.json".encode(), 1 << 20)
        assert any(entry.xattrs for entry in reader.entries(f"{STORE}/store/layers".encode()))
    assert isinstance(canary, Entry) and canary.xattrs == ((b"trusted.overlay.opaque", b"y"),)
    assert store_json == (out / "store.json").read_bytes()


def test_a_conf_is_changed_in_three_lines_only(tmp_path: Path) -> None:
    text = kit_conf(build(tmp_path))
    assert is_left_to_root(text) and not is_left_to_root(left_to_root(text))
    lines, changed = text.splitlines(), left_to_root(text).splitlines()
    assert [new for old, new in zip(lines, changed, strict=True) if old != new] == [b"VERITY=''", b"SEALED=no", b"ROOT_HASH=''"]
    # A kit of an earlier release says nothing of `seal`, and stays as it is.
    assert not is_left_to_root(b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"SEAL=")))
    assert shlex.split(changed[-1].decode())
    with pytest.raises(TargetRefused, match="none that shiplap has written"):
        conf_values(b"IMAGE='/x\n")
