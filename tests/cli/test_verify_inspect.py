"""``shiplap verify`` and ``shiplap inspect``: exit codes, text and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from archives import docker_archive, oci_files
from commandline import shiplap_command
from registryserver import push, running_registry
from requirement import require
from shiplap.core.cache import Cache
from storeimages import APP_IMAGE, IMAGES


@pytest.fixture
def out(tmp_path: Path) -> Path:
    require("tar2sqfs")
    source = f"docker-archive:{docker_archive(tmp_path / 'images.tar', IMAGES)}"
    assert shiplap_command("build", source, "-o", str(tmp_path / "out"), "--output", "squashfs,verity,tar").returncode == 0
    return tmp_path / "out"


def test_what_holds_is_exit_0_with_its_links(out: Path) -> None:
    done = shiplap_command("verify", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"{out} holds"
    data = json.loads(shiplap_command("verify", "--json", str(out)).stdout)
    assert data["holds"] is True and data["thing"] == str(out)
    assert [one["link"] for one in data["links"]][:3] == ["checksums", "root hash", "SquashFS"]
    assert done.stdout.splitlines()[:-1] == [f"{one['link']}: {one['detail']}" for one in data["links"]]


def test_what_does_not_hold_is_exit_1_with_the_first_broken_link(out: Path) -> None:
    image = bytearray((out / "store.squashfs").read_bytes())
    image[5000] ^= 1
    (out / "store.squashfs").write_bytes(image)
    done = shiplap_command("verify", str(out))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {out}/store.squashfs has sha256 ")
    error = json.loads(shiplap_command("verify", "--json", str(out)).stderr)["error"]
    assert error["exit"] == 1
    trusted = (out / "store.roothash").read_text().strip()
    done = shiplap_command("verify", str(out / "store.squashfs"), "--root-hash", trusted)
    assert done.returncode == 1 and "data block 1 (byte 4096)" in done.stderr


def test_what_cannot_be_verified_is_exit_2(tmp_path: Path) -> None:
    for words in ([str(tmp_path / "absent")], [str(tmp_path), "--lock", "x"]):
        done = shiplap_command("verify", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")


def test_names_in_a_hostile_store_reach_the_terminal_escaped(out: Path, tmp_path: Path) -> None:
    data = (out / "store.tar").read_bytes()
    evil = data.replace(b"overlay2/l/\0", b"overlay2/\x1b[2J\0"[:12].ljust(12, b"\0"))
    (tmp_path / "store.tar").write_bytes(evil)
    (tmp_path / "store.json").write_bytes((out / "store.json").read_bytes())
    done = shiplap_command("verify", str(tmp_path / "store.tar"))
    assert done.returncode == 1
    assert "\x1b" not in done.stderr


def test_inspection_says_images_layers_and_sharing(out: Path) -> None:
    done = shiplap_command("inspect", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    assert "docker.io/library/app:1" in done.stdout and f"config {APP_IMAGE.config_digest}" in done.stdout
    assert "in 2 images" in done.stdout and "sharing saves" in done.stdout
    things = json.loads(shiplap_command("inspect", "--json", str(out)).stdout)["things"]
    assert [thing["kind"] for thing in things] == ["store image", "store.tar"]
    assert {image["config"] for image in things[0]["images"]} == {image.config_digest for image in IMAGES}


def test_an_image_in_a_registry_is_inspected_with_the_options_of_the_other_verbs(tmp_path: Path) -> None:
    files = oci_files([APP_IMAGE])
    index = files["index.json"]
    assert isinstance(index, bytes)
    digest = json.loads(index)["manifests"][0]["digest"]
    with running_registry(tmp_path / "registry") as registry:
        push(registry.address, "app", files, {"1": digest})
        words = ["inspect", f"docker://{registry.address}/app:1", "--cache", str(tmp_path / "cache"), "--json"]
        assert shiplap_command(*words).returncode == 1  # plain HTTP
        plain = shiplap_command(*words, "--tls-verify=false")
        layers = {blob for blob, _ in Cache(tmp_path / "cache").blobs()} - {digest, APP_IMAGE.config_digest}
        done = shiplap_command(*words, "--elf", "--tls-verify=false")
    assert (done.returncode, done.stderr) == (0, "")
    (thing,) = json.loads(done.stdout)["things"]
    assert layers == set(), "without --elf the metadata are enough"
    assert json.loads(plain.stdout)["things"] == [{**thing, "elf-audit": []}]
    assert (thing["kind"], thing["transport"], len(thing["elf-audit"])) == ("source", "docker", 1)
    assert [(image["config"], image["manifest"]) for image in thing["images"]] == [(APP_IMAGE.config_digest, digest)]


def test_what_cannot_be_inspected_is_exit_2(tmp_path: Path) -> None:
    done = shiplap_command("inspect", str(tmp_path / "absent"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not exist, and is no source" in done.stderr
