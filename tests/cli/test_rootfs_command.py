"""``shiplap rootfs``: what is in the root, where the store lies, what is refused, and what veritysetup says of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commandline import shiplap_command
from firmwares import BASE, BASE_ITEMS, OS_RELEASE, add_kit, store_folder
from images import directory, file
from layertar import TarItem, build
from requirement import SEARCH_PATH, require
from shiplap.core.entries import Entry, Kind
from shiplap.rootfs.squashfs.reader import SquashfsReader
from shiplap.verity.discoverable import partition_uuids

FAST = ("--compression", "none", "--progress", "quiet")
STORE = b"usr/share/shiplap"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    return {
        "file": store_folder(folder / "file"),
        "partition": store_folder(folder / "partition", placement="partition"),
        "tree": store_folder(folder / "tree", placement="tree"),
        "no kit": store_folder(folder / "nokit", kit=False),
        "archive": store_folder(folder / "archive", "--mode", "archive"),
        "unsealed": store_folder(folder / "unsealed", "--output", "squashfs", kit=False),
    }


def rootfs(tmp_path: Path, store: Path, *words: str, base: bytes = BASE, **options: Any) -> subprocess.CompletedProcess[str]:
    (tmp_path / "base.tar").write_bytes(base)
    arguments = ("rootfs", "--base", str(tmp_path / "base.tar"), "--store", str(store), "-o", str(tmp_path / "fw"), *FAST, *words)
    return shiplap_command(*arguments, **options)


def made(tmp_path: Path, store: Path, *words: str, **options: Any) -> Path:
    done = rootfs(tmp_path, store, *words, **options)
    assert done.returncode == 0, done.stderr
    return tmp_path / "fw"


def entries(image: Path) -> dict[bytes, Entry]:
    with SquashfsReader.open(image) as reader:
        return {entry.path: entry for entry in reader.entries()}


def read(image: Path, path: bytes) -> bytes:
    with SquashfsReader.open(image) as reader:
        return reader.read(path, 1 << 24)


def test_the_base_the_store_and_the_kit_are_in_the_root(stores: dict[str, Path], tmp_path: Path) -> None:
    image = made(tmp_path, stores["file"]) / "rootfs.squashfs"
    found = entries(image)
    assert read(image, b"etc/os-release") == OS_RELEASE
    assert (found[b"usr/bin/sh"].mtime_epoch, found[b"usr/bin/ash"].link or found[b"usr/bin/sh"].link) == (1500000001, b"usr/bin/ash")
    assert found[b"usr/bin/ping"].xattrs and found[b"dev/console"].device == (5, 1)
    assert found[b"bin"].kind is Kind.SYMLINK
    for name in ("store.squashfs", "store.verity", "store.roothash"):
        assert read(image, STORE + b"/" + name.encode()) == (stores["file"] / name).read_bytes()
    assert found[STORE + b"/store"].kind is Kind.DIRECTORY
    assert found[b"usr/sbin/shiplap-target"].mode == 0o755
    assert b"STORE_PATH=/usr/share/shiplap" in read(image, b"etc/shiplap/store.conf")


def test_in_a_merged_usr_the_kit_lands_behind_the_links(stores: dict[str, Path], tmp_path: Path) -> None:
    found = entries(made(tmp_path, stores["file"]) / "rootfs.squashfs")
    assert found[b"lib"].kind is Kind.SYMLINK
    assert b"usr/lib/systemd/system/shiplap-store.service" in found


def test_in_a_partition_the_store_is_not_in_the_root(stores: dict[str, Path], tmp_path: Path) -> None:
    out = made(tmp_path, stores["partition"], "--placement", "partition")
    found = entries(out / "rootfs.squashfs")
    assert [path for path in found if path.startswith(STORE + b"/")] == [STORE + b"/store"]
    assert f"STORE_HASH={(stores['partition'] / 'store.roothash').read_text()}" in (out / "boot/partitions.env").read_text()


@pytest.mark.parametrize(("placement", "seal", "goes"), [("file", "always", True), ("file", "auto", False), ("partition", "auto", True)])
def test_a_signature_of_the_store_goes_into_the_root_where_the_device_opens_the_store_by_itself(
    tmp_path: Path, placement: str, seal: str, goes: bool
) -> None:
    """The target kit reads it there, also when image and tree have partitions."""
    sealed = {"root_hash": "1" * 64, "tree": "x", "seal": seal}
    store = store_folder(tmp_path / "store", placement=placement, **sealed)
    (store / "store.roothash.p7s").write_bytes(b"\x30\x82 a signature")
    image = made(tmp_path, store, "--placement", placement) / "rootfs.squashfs"
    path = STORE + b"/store.roothash.p7s"
    assert (path in entries(image)) is goes
    if goes:
        assert read(image, path) == b"\x30\x82 a signature"


@pytest.mark.parametrize("content", [b"", bytes(32768)], ids=["empty", "longer than a key of the kernel's ring"])
def test_what_the_kernel_could_not_take_as_a_signature_is_refused(tmp_path: Path, content: bytes) -> None:
    store = store_folder(tmp_path / "store", placement="partition")
    (store / "store.roothash.p7s").write_bytes(content)
    done = rootfs(tmp_path, store, "--placement", "partition")
    assert done.returncode == 2
    assert "store.roothash.p7s is no signature: a file of 1 to 32767 bytes is one" in done.stderr


def test_as_a_tree_the_store_is_unpacked_with_all_that_it_holds(stores: dict[str, Path], tmp_path: Path) -> None:
    found = entries(made(tmp_path, stores["tree"], "--placement", "tree") / "rootfs.squashfs")
    wanted = entries(stores["tree"] / "store.squashfs")
    prefix = STORE + b"/store"
    for path, entry in wanted.items():
        mine = found[prefix + b"/" + path if path else prefix]
        assert (mine.mode, mine.uid, mine.gid, mine.mtime_epoch, mine.xattrs, mine.device) == (
            entry.mode, entry.uid, entry.gid, entry.mtime_epoch, entry.xattrs, entry.device), path  # fmt: skip
        if entry.kind is not Kind.HARDLINK and mine.kind is not Kind.HARDLINK:
            assert (mine.kind, mine.link) == (entry.kind, entry.link)
    assert any(entry.kind is Kind.CHARACTER and entry.device == (0, 0) for path, entry in found.items() if path.startswith(prefix))
    assert len([path for path in found if path.startswith(prefix)]) == len(wanted)


def test_an_archive_is_placed_as_a_file(stores: dict[str, Path], tmp_path: Path) -> None:
    image = made(tmp_path, stores["archive"]) / "rootfs.squashfs"
    assert read(image, STORE + b"/images.tar") == (stores["archive"] / "images.tar").read_bytes()


def test_the_hash_tree_is_veritysetup_s_own(stores: dict[str, Path], tmp_path: Path) -> None:
    require("veritysetup")
    out = made(tmp_path, stores["file"])
    root_hash = (out / "rootfs.roothash").read_text().strip()
    command = ["veritysetup", "verify", out / "rootfs.squashfs", out / "rootfs.verity", root_hash]
    subprocess.run(command, check=True, env={"PATH": SEARCH_PATH})
    done = shiplap_command("verity", "verify", str(out / "rootfs.squashfs"), str(out / "rootfs.verity"), root_hash)
    assert done.returncode == 0, done.stderr


def test_the_partitions_of_the_disk_hold_against_their_uuids(stores: dict[str, Path], tmp_path: Path) -> None:
    require("veritysetup")
    done = rootfs(tmp_path, stores["partition"], "--placement", "partition", "--disk", "--data-size", "3M", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    places = {one["name"]: one for one in result["partitions"]}
    assert list(places) == ["root-a", "root-verity-a", "store-a", "store-verity-a", "data"]
    disk = tmp_path / "fw/disk.img"
    for role, root_hash in (("root", result["root-hash"]), ("store", (stores["partition"] / "store.roothash").read_text().strip())):
        data, tree = places[f"{role}-a"], places[f"{role}-verity-a"]
        assert (data["uuid"], tree["uuid"]) == partition_uuids(root_hash)
        for name, place in (("data", data), ("tree", tree)):
            with disk.open("rb") as file, (tmp_path / name).open("wb") as part:
                file.seek(place["offset_bytes"])
                part.write(file.read(place["size_bytes"]))
        subprocess.run(["veritysetup", "verify", tmp_path / "data", tmp_path / "tree", root_hash], check=True, env={"PATH": SEARCH_PATH})
    sfdisk = shutil.which("sfdisk", path=SEARCH_PATH)
    if sfdisk is not None:
        said = json.loads(subprocess.run([sfdisk, "-J", disk], capture_output=True, check=True).stdout)["partitiontable"]
        assert [(one["name"], one["uuid"].lower(), one["start"] * 512) for one in said["partitions"]] == [
            (one["name"], one["uuid"], one["offset_bytes"]) for one in result["partitions"]
        ]


def test_the_sums_cover_everything_and_a_second_run_replaces_the_first(stores: dict[str, Path], tmp_path: Path) -> None:
    out = made(tmp_path, stores["file"], "--disk")
    (out / "mine.txt").write_text("foreign")
    (out / "boot/mine.cfg").write_text("foreign")
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=out, check=True)
    made(tmp_path, stores["file"])
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=out, check=True)
    listed = {line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert there == listed | {"SHA256SUMS", "mine.txt", "boot/mine.cfg"}
    assert "disk.img" not in there
    assert "boot/grub.cfg" in there


def test_json_and_record_say_the_same_without_paths(stores: dict[str, Path], tmp_path: Path) -> None:
    done = rootfs(tmp_path, stores["file"], "--json")
    result = json.loads(done.stdout)
    record_text = (tmp_path / "fw/record.json").read_text()
    record = json.loads(record_text)
    assert str(tmp_path) not in record_text
    assert record["verity"]["root-hash"] == result["root-hash"] == (tmp_path / "fw/rootfs.roothash").read_text().strip()
    assert record["base"] == {"sha256": hashlib.sha256(BASE).hexdigest(), "size_bytes": len(BASE)}
    assert record["outputs"].items() <= result["outputs"].items()
    assert result["outputs"].keys() - record["outputs"].keys() == {"record.json"}


EPOCHS = [((), {}, 1700000000, "store"), ((), {"SOURCE_DATE_EPOCH": "1600000000"}, 1600000000, "SOURCE_DATE_EPOCH"),
          (("--source-date-epoch", "5"), {"SOURCE_DATE_EPOCH": "1600000000"}, 5, "command line")]  # fmt: skip


@pytest.mark.parametrize(("words", "env", "value", "origin"), EPOCHS)
def test_the_epoch_is_of_what_we_write_and_the_base_keeps_its_times(
    stores: dict[str, Path], tmp_path: Path, words: tuple[str, ...], env: dict[str, str], value: int, origin: str
) -> None:
    out = made(tmp_path, stores["file"], *words, env=env)
    found = entries(out / "rootfs.squashfs")
    assert found[STORE + b"/store.squashfs"].mtime_epoch == value
    assert found[b"etc/os-release"].mtime_epoch == 1500000002
    assert json.loads((out / "record.json").read_text())["epoch"] == {"value": value, "from": origin}


def test_files_of_the_base_that_ours_replace_are_named(stores: dict[str, Path], tmp_path: Path) -> None:
    base = build([*BASE_ITEMS, file("etc/shiplap/store.conf", b"old")])
    done = rootfs(tmp_path, stores["file"], base=base)
    assert done.returncode == 0
    assert "base.tar: /etc/shiplap/store.conf replaced by ours" in done.stderr


def test_the_engine_s_configuration_is_merged(stores: dict[str, Path], tmp_path: Path) -> None:
    base = build([*BASE_ITEMS, file("etc/docker/daemon.json", b'{"log-driver":"local"}')])
    done = rootfs(tmp_path, stores["file"], base=base)
    assert "daemon.json has the keys of the base's own file and the target kit's" in done.stderr
    assert "replaced by ours" not in done.stderr
    image = tmp_path / "fw/rootfs.squashfs"
    assert json.loads(read(image, b"etc/docker/daemon.json")) == {"log-driver": "local", "storage-driver": "overlay2"}
    for theirs, words in ((b'{"storage-driver":"vfs"}', "sets storage-driver"), (b"{", "daemon.json of the base")):
        done = rootfs(tmp_path, stores["file"], base=build([*BASE_ITEMS, file("etc/docker/daemon.json", theirs)]))
        assert done.returncode == 2
        assert words in done.stderr


def test_a_store_at_the_root_of_everything_is_refused(stores: dict[str, Path], tmp_path: Path) -> None:
    for path in ("/", "relative", "/a/../b"):
        copy = tmp_path / "copy"
        shutil.copytree(stores["no kit"], copy)
        text = (copy / "store.json").read_text().replace("/usr/share/shiplap", path)
        (copy / "store.json").write_text(text)
        subprocess.run("sha256sum store.* >SHA256SUMS", shell=True, cwd=copy, check=True)
        assert "names the store path" in refused(tmp_path, copy)
        shutil.rmtree(copy)


def test_without_a_kit_a_note_says_so(stores: dict[str, Path], tmp_path: Path) -> None:
    done = rootfs(tmp_path, stores["no kit"])
    assert done.returncode == 0
    assert "has no target.tar" in done.stderr


def refused(tmp_path: Path, store: Path, *words: str, base: bytes = BASE) -> str:
    done = rootfs(tmp_path, store, *words, base=base)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert not (tmp_path / "fw/SHA256SUMS").exists()
    return done.stderr


@pytest.mark.parametrize(
    ("store", "words", "said"),
    [
        ("archive", ("--placement", "partition"), "an archive cannot be placed as a partition"),
        ("unsealed", ("--placement", "partition"), "the store is not sealed"),
        ("file", ("--placement", "partition"), "the target kit looks for the store at /usr/share/shiplap/store.squashfs"),
        ("partition", (), "the target kit looks for the store at PARTUUID="),
        ("file", ("--placement", "tree"), "build the store with `placement: tree`"),
        ("file", ("--max-size", "64K"), "65536 are allowed"),
        ("file", ("--data-size", "1M"), "add --disk"),
        ("file", ("--level", "7"), "none has no level"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    stores: dict[str, Path], tmp_path: Path, store: str, words: tuple[str, ...], said: str
) -> None:
    assert said in refused(tmp_path, stores[store], *words)


def test_a_store_folder_that_is_not_what_it_says_is_refused(stores: dict[str, Path], tmp_path: Path) -> None:
    assert "no finished build" in refused(tmp_path, tmp_path)
    assert "the store's own folder" in rootfs(tmp_path, stores["file"], "-o", str(stores["file"])).stderr
    for name in ("store.squashfs", "store.verity", "store.roothash", "store.json", "target.tar"):
        copy = tmp_path / "copy"
        shutil.copytree(stores["file"], copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        assert f"copy/{name} is not what SHA256SUMS says" in refused(tmp_path, copy)
        (copy / name).unlink()
        assert f"cannot read {copy / name}" in refused(tmp_path, copy)
        shutil.rmtree(copy)


HOSTILE: dict[str, list[TarItem]] = {
    "leaves the root file system": [file("../../etc/passwd", b"x")],
    "the base has a directory there": [directory("usr/share/shiplap/store.squashfs")],
    "on the way to it is a regular file": [file("usr/share/shiplap", b"x")],
}


@pytest.mark.parametrize("said", HOSTILE)
def test_a_hostile_base_is_one_clear_error(stores: dict[str, Path], tmp_path: Path, said: str) -> None:
    assert said in refused(tmp_path, stores["file"], base=build(HOSTILE[said]))
    assert "Traceback" not in rootfs(tmp_path, stores["file"], base=build(HOSTILE[said])).stderr


@pytest.mark.parametrize(
    ("placement", "image"), [("file", "/elsewhere/store.squashfs"), ("partition", "PARTUUID=00000000-0000-0000-0000-000000000000")]
)
def test_a_kit_that_looks_elsewhere_is_refused(stores: dict[str, Path], tmp_path: Path, placement: str, image: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(stores["no kit"], copy)
    add_kit(copy, placement, image=image)
    assert f"looks for the store at {image}" in refused(tmp_path, copy, "--placement", placement)
