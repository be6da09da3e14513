"""Whole output folders, images and archives: each artifact is held against the others, and damage is named."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from images import file
from layertar import build
from requirement import require
from shiplap.audit.links import BrokenLink
from shiplap.audit.verify import NotVerifiable
from shiplap.core.errors import ShiplapError
from shiplap.core.output import SUMS_NAME
from storeimages import EPOCH, IMAGES
from tampering import Form, Made, entries_of, rewrite, seal, verify, write_image, write_sums

NAMES = [
    "record.json",
    "sbom.cdx.json",
    "sbom.spdx.json",
    "store.json",
    "store.roothash",
    "store.squashfs",
    "store.tar",
    "store.verity",
    "target.tar",
]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes."""
    require("tar2sqfs")
    folder = tmp_path_factory.mktemp("fresh")
    source = f"docker-archive:{docker_archive(folder / 'images.tar', IMAGES)}"
    words = ["build", source, "-o", str(folder / "out"), "--output", "squashfs,verity,tar", "--source-date-epoch", str(EPOCH)]
    assert shiplap_command(*words).returncode == 0
    return folder / "out"


@pytest.fixture
def out(fresh: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fresh, tmp_path / "out"))


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def broken(thing: Path, root_hash: str | None = None) -> str:
    with pytest.raises(BrokenLink) as caught:
        verify(thing, root_hash)
    return caught.value.message


def root_hash(out: Path) -> str:
    return (out / "store.roothash").read_text().strip()


# --- what holds


def test_a_fresh_build_holds(out: Path) -> None:
    links = verify(out)
    assert [link for link, _ in links] == [
        "checksums",
        "root hash",
        "SquashFS",
        "configs",
        "layers",
        "tree",
        "tar",
        "configs",
        "layers",
        "tree",
    ]
    assert links[0][1] == f"{len(NAMES)} files are as {SUMS_NAME} says"
    assert links[1][1] == f"{root_hash(out)} through store.verity"
    assert verify(out, root_hash(out)) == links


def test_an_image_alone_holds_with_and_without_its_tree(out: Path) -> None:
    image = out / "store.squashfs"
    assert [link for link, _ in verify(image)] == ["SquashFS", "configs", "layers", "tree"]
    assert verify(image, root_hash(out))[0] == ("root hash", f"{root_hash(out)} through store.verity")
    (out / "store.verity").unlink()
    assert verify(image, root_hash(out))[0] == ("root hash", f"{root_hash(out)}, from a tree built again")


def test_a_tar_holds_with_its_store_json_beside_it(out: Path) -> None:
    assert [link for link, _ in verify(out / "store.tar")] == ["tar", "configs", "layers", "tree"]
    (out / "store.json").unlink()
    with pytest.raises(NotVerifiable, match=r"needs its store\.json beside it"):
        verify(out / "store.tar")


def test_a_signature_beside_the_artifacts_is_no_difference(out: Path) -> None:
    (out / "store.roothash.p7s").write_bytes(b"signature")
    (out / "notes.txt").write_bytes(b"foreign")
    verify(out)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_an_archive_build_holds_and_its_damage_is_found(tmp_path: Path, compression: str) -> None:
    source = docker_archive(tmp_path / "images.tar", IMAGES)
    images = f"images: [{{ref: app:1, from: 'docker-archive:{source.name}:app:1'}}]"
    (tmp_path / "shiplap.yaml").write_text(f"version: 1\nmode: archive\narchive: {{compression: {compression}}}\n{images}\n")
    out = tmp_path / "out"
    assert shiplap_command("build", "-f", str(tmp_path / "shiplap.yaml"), "-o", str(out)).returncode == 0
    assert [link for link, _ in verify(out)] == ["checksums", "configs", "store.json", "layers"]
    (archive,) = out.glob("images.tar*")
    verify(archive)
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    assert archive.name in broken(archive)
    assert f"{archive.name} has sha256" in broken(out)
    write_sums(out)
    assert archive.name in broken(out)


def test_an_archive_with_another_image_than_store_json_says_is_found(tmp_path: Path) -> None:
    for name in ("one", "two"):
        image = ImageSpec([build([file("f", name.encode())])], tags=["app:1"])
        source = docker_archive(tmp_path / f"{name}.tar", [image])
        assert shiplap_command("build", "--mode", "archive", f"docker-archive:{source}", "-o", str(tmp_path / name)).returncode == 0
    shutil.copy(tmp_path / "two/images.tar", tmp_path / "one/images.tar")
    write_sums(tmp_path / "one")
    assert "store.json lists other images, names or layers than images.tar" in broken(tmp_path / "one")


ARCHIVED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another name": (lambda d: d["images"][0].update(references=["docker.io/library/x:1"]), "lists other images, names or layers"),
    "another layer": (lambda d: d["images"][0]["layers"][0].update(chainID="sha256:" + "0" * 64), "lists other images, names or layers"),
    "an image too many": (lambda d: d["images"].append({**d["images"][0], "config": "x"}), "lists other images, names or layers"),
    "half a surrogate": (lambda d: d.update(evil="\ud800"), "lacks a key or holds another type"),
    "images that are none": (lambda d: d.update(images=[5]), "lacks a key or holds another type"),
    "a config that is a list": (lambda d: d["images"][0].update(config=[]), "lacks a key or holds another type"),
}


@pytest.mark.parametrize("case", ARCHIVED)
def test_a_store_json_that_does_not_fit_its_archive_is_found(tmp_path: Path, case: str) -> None:
    change, says = ARCHIVED[case]
    source = docker_archive(tmp_path / "images.tar", IMAGES)
    assert shiplap_command("build", "--mode", "archive", f"docker-archive:{source}", "-o", str(tmp_path / "out")).returncode == 0
    document = json.loads((tmp_path / "out/store.json").read_text())
    change(document)
    (tmp_path / "out/store.json").write_text(json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n")
    write_sums(tmp_path / "out")
    assert says in broken(tmp_path / "out")


# --- what does not


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_byte_of_any_artifact_is_found(out: Path, name: str) -> None:
    flip(out / name, (out / name).stat().st_size // 2)
    assert f"{name} has sha256 " in broken(out)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_artifact_is_found(out: Path, name: str) -> None:
    (out / name).unlink()
    assert f"{name} is missing" in broken(out)


def test_an_artifact_that_no_sum_covers_is_found(out: Path) -> None:
    (out / "images.tar").write_bytes(b"stale")
    assert f"images.tar is not in {SUMS_NAME}" in broken(out)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "junk\n",
        "0" * 64 + "  ../../etc/passwd\n",
        "0" * 64 + "  /etc/passwd\n",
        "0" * 63 + "  store.tar\n",
        ("0" * 64 + "  store.tar\n") * 2,
    ],
)
def test_sums_that_are_none_are_found(out: Path, text: str) -> None:
    (out / SUMS_NAME).write_text(text)
    assert SUMS_NAME in broken(out)


def test_a_folder_without_sums_is_incomplete(out: Path) -> None:
    (out / SUMS_NAME).unlink()
    assert f"has no {SUMS_NAME}: it is incomplete" in broken(out)


def test_a_changed_data_block_is_named_even_with_new_sums(out: Path) -> None:
    flip(out / "store.squashfs", 5000)
    write_sums(out)
    assert "does not hold against its root hash: data block 1 (byte 4096) has another digest, 1 bad in all" in broken(out)


def test_a_changed_hash_tree_is_found_even_with_new_sums(out: Path) -> None:
    flip(out / "store.verity", 4096 + 7)
    write_sums(out)
    assert "does not hold against its root hash" in broken(out)


def test_another_root_hash_is_found(out: Path) -> None:
    trusted = root_hash(out)
    assert "--root-hash is" in broken(out, "0" * 64)
    assert "root hash" in broken(out / "store.squashfs", "0" * 64)
    (out / "store.verity").unlink()
    assert f"has root hash {trusted} (sha256, salt from store.json), expected {'0' * 64}" in broken(out / "store.squashfs", "0" * 64)
    (out / "store.roothash").write_text("0" * 64 + "\n")
    write_sums(out)
    assert "root hash" in broken(out)


@pytest.mark.parametrize("text", ["", "xyz\n", "0" * 63, "0" * 128, "é\n", "\0" * 64])
def test_a_root_hash_that_is_none_is_found(out: Path, text: str) -> None:
    (out / "store.roothash").write_text(text)
    write_sums(out)
    with pytest.raises(ShiplapError):
        verify(out)


def test_a_store_json_that_differs_from_the_one_inside_is_found(out: Path) -> None:
    (out / "store.json").write_bytes((out / "store.json").read_bytes().replace(b'"app:1"', b'"app:2"').replace(b"app:1", b"app:2"))
    write_sums(out)
    assert "its store.json differs from the one beside it" in broken(out)


def test_an_image_without_store_json_is_found(made: Made, tmp_path: Path) -> None:
    require("tar2sqfs")
    form = Form(tmp_path, made.store_json, made.sealed, image=True)
    form.write()
    del form.entries["store.json"]
    write_image(form.entries.values(), tmp_path / "store.squashfs", epoch=EPOCH)
    write_sums(tmp_path)
    assert "store.squashfs: it has no store.json inside" in broken(tmp_path)
    with pytest.raises(NotVerifiable, match=r"has no file store\.json"):
        verify(tmp_path / "store.squashfs")


def test_an_image_that_was_rebuilt_and_sealed_again_is_found_in_its_tree(out: Path, made: Made) -> None:
    entries = entries_of(made.sealed)
    path = next(name for name in entries if name.endswith("/etc/passwd"))
    rewrite(entries, path, lambda text: text.replace(b"x:0:0", b"x:0:1"))
    rewrite(entries, "store.json", lambda text: (out / "store.json").read_bytes())
    write_image(entries.values(), out / "store.squashfs", epoch=EPOCH)
    seal(out / "store.squashfs", (out / "store.json").read_bytes())
    write_sums(out)
    assert path.rpartition("/")[2] in broken(out)


def test_another_file_under_an_artifact_s_name_is_found(out: Path) -> None:
    (out / "store.squashfs").write_bytes(b"hsqs" + bytes(8192 - 4))
    for name in ("store.verity", "store.roothash"):
        (out / name).unlink()
    write_sums(out)
    assert "store.squashfs" in broken(out)
    shutil.copy(out / "store.tar", out / "store.squashfs")
    write_sums(out)
    assert "store.squashfs" in broken(out)


@pytest.mark.parametrize("name", ["nothing", "text", "empty", "folder"])
def test_what_is_nothing_of_ours_cannot_be_verified(tmp_path: Path, name: str) -> None:
    (tmp_path / "text").write_bytes(b"hello " * 500)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / SUMS_NAME).write_bytes(b"")
    with pytest.raises(NotVerifiable):
        verify(tmp_path / name)


def test_a_root_hash_for_what_has_no_tree_is_refused(out: Path) -> None:
    with pytest.raises(NotVerifiable, match="has no hash tree to hold against --root-hash"):
        verify(out / "store.tar", "0" * 64)
    for name in ("store.squashfs", "store.verity", "store.roothash"):
        (out / name).unlink()
    write_sums(out)
    with pytest.raises(NotVerifiable, match="has no store image to hold against --root-hash"):
        verify(out, "0" * 64)


# --- hostile images


def test_a_damaged_image_raises_nothing_but_our_own_errors(out: Path) -> None:
    chance = random.Random(5)
    image = out / "store.squashfs"
    whole = image.read_bytes()
    found = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3, 10])):
            at = chance.choice([chance.randrange(96), chance.randrange(len(data)), len(data) - 1 - chance.randrange(3000)])
            data[at] = chance.randrange(256)
        image.write_bytes(data)
        try:
            verify(image)
        except ShiplapError as error:
            found += 1
            assert error.message.isprintable()
    assert found > 100


def test_an_image_that_is_cut_anywhere_is_found(out: Path) -> None:
    image = out / "store.squashfs"
    whole = image.read_bytes()
    used = int.from_bytes(whole[40:48], "little")
    for length in [*range(0, 96, 13), *range(96, used, 2500), used - 1]:
        image.write_bytes(whole[:length])
        with pytest.raises(ShiplapError):
            verify(image)
