"""Output folders with an EROFS: what is verified, what is said to be left out, and what damage is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from archives import docker_archive
from commandline import shiplap_command
from erofsimages import use_new_erofs_utils, use_program
from shiplap.audit.inspection import inspect_thing
from shiplap.audit.links import BrokenLink
from shiplap.audit.verify import Verification, verify_thing
from shiplap.core.errors import ProgramMissing, ShiplapError
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT
from shiplap.core.run import find
from shiplap.rootfs.erofs.superblock import crc32c
from shiplap.rootfs.sinks.erofs import ErofsOptions, open_erofs
from shiplap.verity.identity import erofs_uuid
from storeimages import EPOCH, IMAGES, identity, stored_images, streams
from tampering import entries_of, rewrite, seal, write_sums


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_new_erofs_utils(monkeypatch)
    source = f"docker-archive:{docker_archive(tmp_path / 'images.tar', IMAGES)}"
    words = ["build", source, "-o", str(tmp_path / "out"), "--output", "erofs,verity", "--source-date-epoch", str(EPOCH)]
    done = shiplap_command(*words)
    assert done.returncode == 0, done.stderr
    return tmp_path / "out"


def verified(thing: Path, root_hash: str | None = None) -> tuple[dict[str, str], dict[str, str]]:
    verification = Verification(Limits(), SILENT)
    verify_thing(thing, root_hash, verification)
    assert verification.held is not None and len(verification.held.images) == len(IMAGES), "what a lock is held against"
    return dict(verification.links), dict(verification.unchecked)


def test_a_build_with_erofs_holds_as_far_as_it_can_be_read(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {
        "SHA256SUMS",
        "record.json",
        "sbom.cdx.json",
        "sbom.spdx.json",
        "store.erofs",
        "store.json",
        "store.roothash",
        "store.verity",
        "target.tar",
    }
    held, unchecked = verified(out)
    assert list(held) == ["checksums", "root hash", "configs", "EROFS", "contents"]
    assert list(unchecked) == ["layers and tree"]
    done = shiplap_command("verify", str(out), "--json")
    assert json.loads(done.stdout)["unchecked"][0]["link"] == "layers and tree"
    assert "as far as it was checked" in shiplap_command("verify", str(out)).stdout


def test_the_identity_says_erofs_and_the_record_names_the_tool(out: Path) -> None:
    document = json.loads((out / "store.json").read_bytes())
    assert document["erofs"] == {"cluster-size": 65536, "compression": "lz4hc", "level": 12}
    assert "squashfs" not in document
    (tool,) = json.loads((out / "record.json").read_bytes())["tools"]
    assert (tool["tool"], tool["compression"], tool["level"]) == ("mkfs.erofs", "lz4hc", "12")


def test_two_builds_are_equal(out: Path, tmp_path: Path) -> None:
    words = ["build", f"docker-archive:{tmp_path / 'images.tar'}", "-o", str(tmp_path / "again"), "--output", "erofs,verity", "-j", "1"]
    done = shiplap_command(*words, "--source-date-epoch", str(EPOCH), env={"TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "5"})
    assert done.returncode == 0, done.stderr
    for path in out.iterdir():
        if path.name not in ("record.json", "SHA256SUMS"):  # these tell where the epoch came from, too
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_a_single_image_is_held_against_a_root_hash_without_anything_beside_it(out: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(out / "store.erofs", tmp_path / "alone"))
    root_hash = (out / "store.roothash").read_text().strip()
    assert "a tree built again" in verified(alone, root_hash)[0]["root hash"]
    with pytest.raises(BrokenLink, match="has root hash"):
        verified(alone, "0" * 64)


def test_inspect_reads_images_and_layers(out: Path) -> None:
    (found,) = inspect_thing(str(out), None, Limits())
    assert found.kind == "store image"
    assert dict(found.facts)["filesystem"] == "erofs"
    assert [len(image.layers) for image in found.images] == [2, 4]


def test_damage_is_named(out: Path) -> None:
    image = out / "store.erofs"
    whole = image.read_bytes()

    def fault(data: bytes) -> str:
        image.write_bytes(data)
        seal(image, (out / "store.json").read_bytes())
        write_sums(out)
        with pytest.raises(BrokenLink) as caught:
            verified(out)
        return caught.value.message

    assert "another checksum" in fault(whole[:1072] + b"\xff" + whole[1073:])
    assert "cut short" in fault(whole[:-4096])
    layer = bytearray(whole)
    layer[-6000:-2000] = bytes(4000)
    image.write_bytes(layer)
    with pytest.raises(BrokenLink, match="sha256"):
        verified(out)


def test_a_damaged_block_of_contents_is_found_although_the_root_hash_is_its_own(out: Path) -> None:
    image = out / "store.erofs"
    whole = image.read_bytes()
    # Behind the superblock come the contents of files, then inodes.
    image.write_bytes(whole[:4096] + bytes(4096) + whole[8192:])
    seal(image, (out / "store.json").read_bytes())
    write_sums(out)
    with pytest.raises(BrokenLink, match=r"store\.erofs: .*fsck\.erofs"):
        verified(out)


@pytest.mark.parametrize(("offset", "what"), [(1024 + 24, "time 1700000001"), (1024 + 48, "UUID (?!00)01")], ids=["time", "UUID"])
def test_a_superblock_that_is_not_store_jsons_is_found(offset: int, what: str, out: Path) -> None:
    image = out / "store.erofs"
    block = bytearray(image.read_bytes())
    block[offset] = 1
    block[1028:1032] = bytes(4)
    block[1028:1032] = crc32c(bytes(block[1024:4096])).to_bytes(4, "little")
    image.write_bytes(block)
    seal(image, (out / "store.json").read_bytes())
    write_sums(out)
    with pytest.raises(BrokenLink, match=rf"{what}.*not those of store\.json"):
        verified(out)


def test_files_that_the_program_reads_otherwise_are_refused(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find("dump.erofs", package="")
    use_program("dump.erofs", f'case "$*" in *--cat*) {real} "$@" | head -c 9;; *) exec {real} "$@";; esac', tmp_path / "bin", monkeypatch)
    with pytest.raises(BrokenLink, match=r"store.json has 9 bytes instead of \d{4}"):
        verified(out)
    use_program("dump.erofs", f'{real} "$@" | sed "s/^Size: [0-9]*/Size: 99999999/"', tmp_path / "bin", monkeypatch)
    with pytest.raises(BrokenLink, match=r"store.json has 99999999 bytes, more than the 16777216 it may have"):
        verified(out)


def test_another_store_json_beside_the_image_is_found(out: Path) -> None:
    store_json = out / "store.json"
    store_json.write_bytes(store_json.read_bytes().replace(b'"mode":"store"', b'"mode":"stare"'))
    write_sums(out)
    with pytest.raises(BrokenLink, match=r"its store\.json differs from the one beside it"):
        verified(out)


def test_a_config_that_is_not_what_its_digest_says_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_new_erofs_utils(monkeypatch)
    with stored_images(tmp_path) as images:
        store = identity(images)
        entries = entries_of(streams(store)[0])
    config = next(path for path in entries if "imagedb/content/sha256/" in path)
    rewrite(entries, config, lambda data: data.replace(b"/bin/app", b"/bin/apq"))
    image = tmp_path / "store.erofs"
    with open_erofs(ErofsOptions(erofs_uuid(store.to_json()), epoch=EPOCH), image) as put:
        for entry in entries.values():
            put(entry)
    seal(image, store.to_json())
    with pytest.raises(BrokenLink, match=r"[0-9a-f]{12}"):
        verified(image, image.with_suffix(".roothash").read_text().strip())


def test_an_fsck_without_the_compression_is_not_taken_for_damage(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find("fsck.erofs", package="")
    use_program("fsck.erofs", f'{real} "$@" | sed "s/algorithms: .*/algorithms: deflate/"', tmp_path / "bin", monkeypatch)
    held, unchecked = verified(out)
    assert "contents" not in held
    assert unchecked["contents"] == "the fsck.erofs here was built without lz4hc"


def test_without_the_programs_less_is_checked_and_that_is_said(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dump.erofs", "fsck.erofs"):
        use_program(name, "echo old", tmp_path / "bin", monkeypatch)
    held, unchecked = verified(out)
    assert "EROFS" in held and "configs" not in held
    assert list(unchecked) == ["configs", "contents", "layers and tree"]
    (out / "store.json").unlink()
    with pytest.raises(ProgramMissing, match=r"dump.erofs here is too old"):
        verified(out / "store.erofs")
    with pytest.raises(ShiplapError):
        inspect_thing(str(out / "store.erofs"), None, Limits())
