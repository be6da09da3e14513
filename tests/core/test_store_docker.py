"""What lies in a store: the engine's small files, the two streams, and the bytes that never change."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec
from images import X, file
from layertar import build
from memorytar import headers
from requirement import require
from shiplap.core.entries import Entry, FileSlice, Kind
from shiplap.core.image import chain_ids
from shiplap.core.layer.tree import Inode, LayerTree
from shiplap.core.reference import parse_reference
from shiplap.core.store.docker import link_name
from shiplap.core.store.model import StoredImage, unique_layers
from shiplap.core.store.overlay2 import DataRootWriter, SealedStoreWriter
from shiplap.core.store.squashfssink import SQUASHFS_IDS_MAX, TooManyOwners, TooManyXattrs
from shiplap.core.tar.records import END_OF_ARCHIVE
from shiplap.rootfs.sinks import SquashfsOptions, open_sink
from shiplap.rootfs.sinks.tar2sqfs import Tar2sqfs
from shiplap.rootfs.squashfs.reader import SquashfsReader
from storeimages import APP_IMAGE, DATA_IMAGE, DIGEST, EPOCH, IMAGES, identity, records_to, sealed_writer, stored_images, streams, write

GOLDEN = {
    "store.json": "2ccccc69e98503bd9c515737d337f5546b7b4201aaa55d876a6f0a4e24fd4b74",
    "store image's stream": "bdbe2510d2bb237e06e718042aeebcb623f4d472e6a65925c808c83674f19a57",
    "store.tar": "caa99ff04a2c47c6e7e619ec31d5a1f484a5969fcbee9248a8cf480327ccd77e",
}


# The same with digests of blobs, as a lock pins them.
GOLDEN_WITH_BLOBS = {
    "store.json": "0208087fbb1c772f0ed242f76568403a4a535a629d6006ee3aeb180d12806b99",
    "store image's stream": "d22ddb16696a4d5e25e0a1e00a3c6773778d342c2f1cf3dc13b096935d1b481c",
    "store.tar": "ed1cbc1dafb08aabfce41ec54de3ed282e2fd09f41d5eb8893ed165b8ed5a837",
}


def with_blobs(images: tuple[StoredImage, ...]) -> tuple[StoredImage, ...]:
    """Every layer of the first image is some registry's blob, one layer of the second is another's, the rest is not pinned."""
    app, data = images
    digests = [f"sha256:{hashlib.sha256(diff_id.encode()).hexdigest()}" for diff_id in app.image.diff_ids]
    other = [None] * len(data.image.layers)
    return replace(app, blobs=tuple(digests)), replace(data, blobs=("sha512:" + "ab" * 64, *other[1:]))


def with_digest(images: tuple[StoredImage, ...]) -> tuple[StoredImage, ...]:
    app, data = images
    return replace(app, references=(*app.references, parse_reference(f"app@{DIGEST}"))), data


@pytest.fixture
def both(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Members of both streams by name: the store image's, store.tar's."""
    with stored_images(tmp_path) as images:
        sealed, data_root = streams(identity(with_digest(images)))
    return members(sealed), members(data_root)


def test_blobs_that_are_pinned_are_mapped_to_diffids_and_nothing_else_changes(tmp_path: Path) -> None:
    with stored_images(tmp_path) as images:
        plain = [members(one) for one in streams(identity(images))]
        locked = with_blobs(images)
        mapped = [members(one) for one in streams(identity(locked))]
    app, data = locked
    expected = {str(blob): diff_id for blob, diff_id in zip(app.blobs, app.image.diff_ids, strict=True)}
    expected[str(data.blobs[0])] = data.image.diff_ids[0]
    for before, after, home in zip(plain, mapped, ("skeleton/", "./"), strict=True):
        below = f"{home}image/overlay2/distribution"
        new = {name.removeprefix("./"): after[name] for name in after.keys() - before.keys()}
        below = below.removeprefix("./")
        assert {name: oct(info.mode) for name, (info, _) in new.items() if info.isdir()} == {
            below: "0o700",
            f"{below}/diffid-by-digest": "0o755",
            f"{below}/diffid-by-digest/sha256": "0o755",
            f"{below}/diffid-by-digest/sha512": "0o755",
        }
        files = {name: (oct(info.mode), info.mtime, content) for name, (info, content) in new.items() if info.isfile()}
        assert files == {
            f"{below}/diffid-by-digest/{blob.replace(':', '/')}": ("0o644", EPOCH, diff_id.encode()) for blob, diff_id in expected.items()
        }
        same = {name for name in before if name != "store.json"}
        assert all(before[name][1] == after[name][1] for name in same) and not before.keys() - after.keys()
    document = json.loads(identity(locked).to_json())
    assert {layer["diffID"]: layer["blob"] for image in document["images"] for layer in image["layers"] if "blob" in layer} == {
        diff_id: blob for blob, diff_id in expected.items()
    }


def test_the_bytes_with_blobs_never_change(tmp_path: Path) -> None:
    with stored_images(tmp_path) as images:
        store = identity(with_blobs(images))
        sealed, data_root = streams(store)
    made = {"store.json": store.to_json(), "store image's stream": sealed, "store.tar": data_root}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in made.items()} == GOLDEN_WITH_BLOBS


def members(tar: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    found: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as opened:
        for one in opened:
            data = opened.extractfile(one) if one.isreg() else None
            assert one.name not in found
            found[one.name] = (one, data.read() if data else b"")
    return found


def test_the_bytes_of_format_1_never_change(tmp_path: Path) -> None:
    with stored_images(tmp_path) as images:
        store = identity(with_digest(images))
        sealed, data_root = streams(store)
        made = {"store.json": store.to_json(), "store image's stream": sealed, "store.tar": data_root}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in made.items()} == GOLDEN


def test_a_writer_alone_writes_the_same_as_beside_the_other(tmp_path: Path) -> None:
    with stored_images(tmp_path) as images:
        store = identity(images)
        sealed, data_root = streams(store)
        alone: list[bytes] = []
        write(store, [sealed_writer(store, alone)])
        assert b"".join(alone) + END_OF_ARCHIVE == sealed
        alone.clear()
        write(store, [DataRootWriter(store, records_to(alone))])
        assert b"".join(alone) + END_OF_ARCHIVE == data_root


# --- the engine's files

APP_CHAIN = [chain.partition(":")[2] for chain in chain_ids(tuple(APP_IMAGE.diff_ids))]
DATA_CHAIN = [chain.partition(":")[2] for chain in chain_ids(tuple(DATA_IMAGE.diff_ids))]
LAYERDB = "image/overlay2/layerdb/sha256"


def test_repositories_know_tags_and_the_digests_that_were_named(both: Any) -> None:
    repositories = json.loads(both[1]["image/overlay2/repositories.json"][1])["Repositories"]
    assert repositories == {
        "app": {"app:1": APP_IMAGE.config_digest, f"app@{DIGEST}": APP_IMAGE.config_digest},
        "data": {"data:latest": DATA_IMAGE.config_digest},
        "reg.example:5000/me/data": {"reg.example:5000/me/data:2": DATA_IMAGE.config_digest},
    }
    assert both[0]["skeleton/image/overlay2/repositories.json"][1] == both[1]["image/overlay2/repositories.json"][1]


def test_configs_are_kept_byte_for_byte(both: Any) -> None:
    for image in IMAGES:
        info, data = both[1][f"image/overlay2/imagedb/content/sha256/{image.config_digest[7:]}"]
        assert (data, info.mode) == (image.config_bytes, 0o600)


def test_a_layer_s_record_is_what_the_engine_writes(both: Any) -> None:
    base, app = APP_CHAIN
    text = {name: data.decode() for name, (_, data) in both[1].items() if name.startswith(f"{LAYERDB}/{app}/") and not name.endswith(".gz")}
    assert text == {
        f"{LAYERDB}/{app}/cache-id": app,
        f"{LAYERDB}/{app}/diff": APP_IMAGE.diff_ids[1],
        f"{LAYERDB}/{app}/parent": f"sha256:{base}",
        f"{LAYERDB}/{app}/size": str(3 * 70_000 + len("root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:\n")),
    }
    assert f"{LAYERDB}/{base}/parent" not in both[1]


def test_tar_split_data_gives_the_layer_s_lines(both: Any) -> None:
    for layer, digest in ((APP_CHAIN[1], APP_IMAGE.layers[1]), (DATA_CHAIN[2], DATA_IMAGE.layers[2])):
        data = both[1][f"{LAYERDB}/{layer}/tar-split.json.gz"][1]
        assert both[0][f"layers/{layer}.tar-split.json.gz"][1] == data
        lines = [json.loads(line) for line in gzip.decompress(data).splitlines()]
        raw = b"".join(base64.b64decode(line["payload"]) for line in lines if line["type"] == 2)
        assert len(raw) + sum(line.get("size", 0) for line in lines if line["type"] == 1) == len(digest)


def test_a_layer_s_directory_is_what_overlay2_expects(both: Any) -> None:
    base, empty, data, _ = DATA_CHAIN
    links = {chain: link_name(f"sha256:{chain}") for chain in (*APP_CHAIN, *DATA_CHAIN)}
    for chain, link in links.items():
        assert both[1][f"overlay2/{chain}/link"][1].decode() == link
        assert both[1][f"overlay2/l/{link}"][0].linkname == f"../{chain}/diff"
        assert (f"overlay2/{chain}/work" in both[1]) == (chain != base)
        # Without it the engine would mount the layer writable, which a layer in a read-only image cannot be.
        assert both[0][f"skeleton/overlay2/{chain}/committed"][1] == both[1][f"overlay2/{chain}/committed"][1] == b""
    assert both[1][f"overlay2/{data}/lower"][1].decode() == f"l/{links[empty]}:l/{links[base]}"
    assert f"overlay2/{base}/lower" not in both[1]


def test_modes_and_owners_are_the_engine_s(both: Any) -> None:
    modes = {
        ".": 0o710,
        "image": 0o700,
        "image/overlay2/layerdb/sha256": 0o755,
        "image/overlay2/repositories.json": 0o600,
        f"{LAYERDB}/{APP_CHAIN[1]}": 0o700,
        f"{LAYERDB}/{APP_CHAIN[1]}/size": 0o644,
        "overlay2": 0o710,
        "overlay2/l": 0o700,
        f"overlay2/{APP_CHAIN[1]}": 0o710,
        f"overlay2/{APP_CHAIN[1]}/diff": 0o755,
        f"overlay2/{APP_CHAIN[1]}/work": 0o700,
        f"overlay2/{APP_CHAIN[0]}/committed": 0o600,
    }
    for name, mode in modes.items():
        info = both[1][name][0]
        assert (name, info.mode, info.uid, info.gid, info.mtime) == (name, mode, 0, 0, EPOCH)
        if not name.startswith("overlay2/") or "diff" not in name:
            sealed = both[0]["skeleton" if name == "." else f"skeleton/{name}"][0]
            assert (sealed.mode, sealed.uid, sealed.gid, sealed.mtime) == (mode, 0, 0, EPOCH)


def test_the_skeleton_links_to_where_the_device_mounts_the_image(tmp_path: Path) -> None:
    with stored_images(tmp_path) as images:
        sealed, _ = streams(identity(images, store_path="/opt/x"))
    found = members(sealed)
    for chain in {*APP_CHAIN, *DATA_CHAIN}:
        assert found[f"skeleton/overlay2/{chain}/diff"][0].linkname == f"/opt/x/store/layers/{chain}"
        assert found[f"skeleton/{LAYERDB}/{chain}/tar-split.json.gz"][0].linkname == f"/opt/x/store/layers/{chain}.tar-split.json.gz"


def test_the_store_image_holds_nothing_but_layers_skeleton_and_store_json(both: Any) -> None:
    assert {name.partition("/")[0] for name in both[0]} == {".", "layers", "skeleton", "store.json"}
    assert {name.partition("/")[0] for name in both[1]} == {".", "image", "overlay2"}


def test_shared_layers_are_there_once_and_a_layer_above_another_stack_is_another_layer(tmp_path: Path) -> None:
    with stored_images(tmp_path) as images:
        layers = unique_layers(images)
    assert [layer.hex for layer in layers] == [*APP_CHAIN, *DATA_CHAIN[1:]]
    assert DATA_IMAGE.diff_ids[1] == DATA_IMAGE.diff_ids[3] and DATA_CHAIN[1] != DATA_CHAIN[3]
    assert layers[4].ancestors == tuple(f"sha256:{chain}" for chain in reversed(DATA_CHAIN[:3]))


def test_parents_come_before_children_and_link_targets_before_links(both: Any) -> None:
    for found in both:
        names = list(found)
        seen: set[str] = {"."}
        for name in names:
            assert (name.rpartition("/")[0] or ".") in seen, name
            if found[name][0].islnk():
                assert found[name][0].linkname in seen
            seen.add(name)


def test_the_layers_trees_are_the_same_in_both_but_for_what_squashfs_cannot_keep(both: Any) -> None:
    sealed, data_root = both
    for chain in {*APP_CHAIN, *DATA_CHAIN}:
        one = {
            name.removeprefix(f"layers/{chain}"): value
            for name, value in sealed.items()
            if name.startswith(f"layers/{chain}") and ".tar-split" not in name
        }
        other = {
            name.removeprefix(f"overlay2/{chain}/diff"): value
            for name, value in data_root.items()
            if name.startswith(f"overlay2/{chain}/diff")
        }
        assert one.keys() == other.keys()
        for name, (info, data) in one.items():
            twin, same = other[name]
            assert (info.type, info.mode, info.uid, info.gid, data) == (twin.type, twin.mode, twin.uid, twin.gid, same)
            assert info.mtime == int(twin.mtime)
    assert data_root[f"overlay2/{APP_CHAIN[0]}/diff/etc/passwd"][0].pax_headers["mtime"] == "1600000000.123456789"


# --- limits


def test_times_beyond_32_bits_are_clamped_with_one_note_in_the_image_and_kept_in_the_tar(tmp_path: Path) -> None:
    late = ImageSpec([build([file("a", mtime=(1 << 32) - 1), file("b", mtime=1 << 32), file("c", mtime=1 << 33)])], tags=["late:1"])
    notes: list[str] = []
    with stored_images(tmp_path, [late]) as images:
        sealed, data_root = streams(identity(images), notes=notes)
    times = [[one.mtime_epoch for one in headers(tar) if one.name.rpartition(b"/")[2] in (b"a", b"b", b"c")] for tar in (sealed, data_root)]
    assert times == [[(1 << 32) - 1] * 3, [(1 << 32) - 1, 1 << 32, 1 << 33]]
    assert notes == ["2 times beyond 2106 do not fit SquashFS's 32 bits and became 2106-02-07"]


def test_more_owners_than_a_squashfs_can_count_are_refused(tmp_path: Path) -> None:
    root = Inode(Kind.DIRECTORY, 0o755, 0, 0, 0)
    assert root.children is not None
    for number in range(SQUASHFS_IDS_MAX // 2):  # every entry brings two ids; 0 is there already
        root.children[b"%d" % number] = Inode(Kind.FIFO, 0o644, 2 * number + 1, 2 * number + 2, 0)
    with stored_images(tmp_path) as images:
        store, stored = identity(images), unique_layers(images)[0]
        writer = SealedStoreWriter(store, lambda data: None, lambda message: None)
        writer.tree(stored, LayerTree(root), FileSlice(-1, 0, 0))
        root.children = {b"last": Inode(Kind.FIFO, 0o644, 1_000_000, 0, 0)}
        with pytest.raises(TooManyOwners, match="more than 65535 different owners"):
            writer.tree(stored, LayerTree(root), FileSlice(-1, 0, 0))
        DataRootWriter(store, lambda data: None).tree(stored, LayerTree(root), FileSlice(-1, 0, 0))  # a tar holds any number


def test_more_xattrs_than_a_squashfs_tool_takes_are_refused(tmp_path: Path) -> None:
    require("tar2sqfs")
    fits = {X + "user.a": b"v" * 60_000, **{f"{X}user.{n}": b"1" for n in range(100)}}
    name = "d/" * 50 + "f"
    for pax, says in (
        (fits, ""),
        ({**fits, X + "user.b": b"v" * 6000}, f"entry '{name}': .* bytes of xattrs are more than SquashFS tools take"),
    ):
        spec = ImageSpec([build([file(name, pax=pax)])], tags=["x:1"])
        with stored_images(tmp_path, [spec]) as images:
            store = identity(images)
            if says:
                with pytest.raises(TooManyXattrs, match=f"docker.io/library/x:1, layer 0 .*{says}"):
                    streams(store)
            else:
                sealed, _ = streams(store)
                with Tar2sqfs().open(SquashfsOptions(tool="tar2sqfs", level=1), tmp_path / "image") as sink:
                    sink(sealed)


@pytest.mark.parametrize("tool", ["builtin", "tar2sqfs"])
def test_the_largest_number_of_owners_can_be_read_back(tmp_path: Path, tool: str) -> None:
    if tool != "builtin":
        require(tool)
    entries = [Entry(b"", Kind.DIRECTORY, 0o755)]
    for number in range(SQUASHFS_IDS_MAX // 2):
        folder, rest = divmod(number, 256)  # tar2sqfs is slow with very many names in one directory
        if not rest:
            entries.append(Entry(b"%03d" % folder, Kind.DIRECTORY, 0o755))
        entries.append(Entry(b"%03d/%03d" % (folder, rest), Kind.FIFO, 0o644, 2 * number + 1, 2 * number + 2))
    with open_sink(SquashfsOptions(tool=tool, level=1), tmp_path / "image") as add:
        for entry in entries:
            add(entry)
    with SquashfsReader.open(tmp_path / "image") as reader:
        assert reader.superblock.id_count == SQUASHFS_IDS_MAX
        last = reader.find(entries[-1].path)
    assert last is not None and (last.uid, last.gid) == (SQUASHFS_IDS_MAX - 2, SQUASHFS_IDS_MAX - 1)
