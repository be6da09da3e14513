"""The snippets inside the programs that they are for: genimage, RAUC, SWUpdate, Mender.

None of them is in every installation: `SHIPLAP_REQUIRE=snippet-tools` demands them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commandline import shiplap_command
from firmwares import BASE, store_folder
from requirement import SEARCH_PATH, missing

FILES = ("rootfs.squashfs", "rootfs.verity", "store.squashfs", "store.verity")


def program(name: str) -> str:
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        missing("snippet-tools", f"{name} is not installed")
    assert found is not None
    return found


def run(words: Sequence[Any], **options: Any) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": SEARCH_PATH, "LC_ALL": "C"}, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a firmware, its snippets and its store, beside each other."""
    work = tmp_path_factory.mktemp("firmware")
    store = store_folder(work / "store", placement="partition")
    (work / "base.tar").write_bytes(BASE)
    out = work / "out"
    done = shiplap_command("rootfs", "--base", str(work / "base.tar"), "--store", str(store), "-o", str(out), "--placement", "partition",
                           "--disk", "--data-size", "2M", "--compression", "none")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for path in (*store.glob("store.*"), *out.glob("boot/*")):
        shutil.copy(path, out)
    return out


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throwaway key, PEM, and beside it its certificate."""
    path = tmp_path_factory.mktemp("key") / "key.pem"
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=board", "-days", "2", "-keyout", path,
         "-addext", "extendedKeyUsage=emailProtection,codeSigning", "-out", path.with_suffix(".crt")])  # fmt: skip
    return path


def partitions(disk: Path) -> list[dict[str, Any]]:
    table = json.loads(run([program("sfdisk"), "-J", disk]))["partitiontable"]
    return [{key: value for key, value in one.items() if key != "node"} for one in table["partitions"]]


def test_genimage_makes_the_disk_image_s_partitions_with_the_same_content(firmware: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    run([program("genimage"), "--config", firmware / "genimage.cfg", "--inputpath", firmware, "--outputpath", tmp_path / "out",
         "--rootpath", tmp_path / "root", "--tmppath", tmp_path / "tmp"])  # fmt: skip
    made, ours = tmp_path / "out/disk.img", firmware / "disk.img"
    assert partitions(made) == partitions(ours)
    one, other = made.read_bytes(), ours.read_bytes()
    for part in partitions(ours):
        place = slice(part["start"] * 512, (part["start"] + part["size"]) * 512)
        assert one[place] == other[place], part["name"]


def test_rauc_makes_and_checks_a_bundle_with_every_image_and_its_hook(firmware: Path, key: Path, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    for name, file in zip(("root", "root-verity", "store", "store-verity"), FILES, strict=True):
        shutil.copy(firmware / file, content / f"{name}.img")
    shutil.copy(firmware / "rauc-manifest.raucm", content / "manifest.raucm")
    shutil.copy(firmware / "rauc-hook", content)
    (content / "rauc-hook").chmod(0o755)
    run([program("rauc"), "bundle", "--cert", key.with_suffix(".crt"), "--key", key, content, tmp_path / "fw.raucb"])
    conf = (firmware / "rauc-system.conf").read_text().replace("/etc/rauc/keyring.pem", str(key.with_suffix(".crt")))
    (tmp_path / "system.conf").write_text(conf)
    words = [program("rauc"), "--conf", tmp_path / "system.conf", "--output-format=json", "info", tmp_path / "fw.raucb"]
    said = json.loads(next(line for line in run(words).splitlines() if line.startswith("{")))
    assert said["compatible"] == "BOARD"
    images = {name: image for one in said["images"] for name, image in one.items()}
    assert {name: image["filename"] for name, image in images.items()} == {
        "rootfs": "root.img", "rootverity": "root-verity.img", "store": "store.img", "storeverity": "store-verity.img"}  # fmt: skip
    assert all(image["hooks"] == ["post-install"] for image in images.values())


@pytest.mark.parametrize("slot", ["a", "b"])
def test_swupdate_takes_the_description_and_the_sum_of_every_file(firmware: Path, key: Path, tmp_path: Path, slot: str) -> None:
    names = ["sw-description", "sw-description.sig", *FILES, "swupdate-switch"]
    for name in names[:1] + names[2:]:
        shutil.copy(firmware / name, tmp_path)

    def check() -> subprocess.CompletedProcess[str]:
        # Debian's takes signed descriptions only.
        run(["openssl", "cms", "-sign", "-in", tmp_path / "sw-description", "-out", tmp_path / "sw-description.sig",
             "-signer", key.with_suffix(".crt"), "-inkey", key, "-outform", "DER", "-nosmimecap", "-binary"])  # fmt: skip
        packed = subprocess.run(
            [program("cpio"), "-o", "-H", "crc"], input="\n".join(names).encode(), cwd=tmp_path, capture_output=True, check=True
        )
        (tmp_path / "fw.swu").write_bytes(packed.stdout)
        words = [program("swupdate"), "-v", "-c", "-i", tmp_path / "fw.swu", "-e", f"stable,copy-{slot}", "-H", "board:1.0",
                 "-k", key.with_suffix(".crt")]  # fmt: skip
        return subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)

    done = check()
    assert "SWUPDATE successful" in done.stdout + done.stderr, done.stdout[-3000:]
    image = bytearray((tmp_path / "store.squashfs").read_bytes())
    image[-1] ^= 1
    (tmp_path / "store.squashfs").write_bytes(image)
    done = check()
    assert "SWUPDATE successful" not in done.stdout + done.stderr


def test_mender_makes_an_artifact_for_the_module_with_the_files_that_it_reads(firmware: Path, tmp_path: Path) -> None:
    module = (firmware / "mender-module").read_text()
    payload = next(line for line in module.splitlines() if line.startswith("# Payload")).partition(": ")[2].split()
    artifact = tmp_path / "fw.mender"
    files = [word for name in payload for word in ("-f", firmware / name)]
    run([program("mender-artifact"), "write", "module-image", "-T", "shiplap-firmware", "-t", "BOARD", "-n", "one", "-o", artifact, *files])
    assert "validated successfully" in run([program("mender-artifact"), "validate", artifact])
    said = run([program("mender-artifact"), "read", artifact])
    assert [line.split()[1] for line in said.splitlines() if line.strip().startswith("name:")] == payload
