"""The makefiles under GNU make, with our own stand-in for Buildroot's macros, and the real fakeroot and mksquashfs.

What Buildroot does to a root file system happens here, too: everything belongs to root, every time is changed, /run and /tmp are emptied.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import ImageSpec, oci_files
from buildroot.pseudofiles import entries
from buildroot.realtree import library_path
from buildroot.treeconfigs import golden_configs
from commandline import IMPORT_ROOT, shiplap_command
from images import CAPABILITY, X, directory, file, hardlink
from layertar import build
from registryserver import push, running_registry
from requirement import require
from shiplap.adapters.buildroot import render
from squashfsimages import mksquashfs_for_tar

STUB = Path(__file__).parents[2] / "buildroot/stub.mk"
SYMBOLS = {
    "BR2_PACKAGE_SHIPLAP_IMAGES": "y",
    "BR2_PACKAGE_SHIPLAP_IMAGES_MANIFEST": '"$(BR2_EXTERNAL_SHIPLAP_GATEWAY_PATH)/package/shiplap-images/shiplap.yaml"',
    "BR2_PACKAGE_SHIPLAP_IMAGES_FORMAT_STORE_DOCKER": "y",
    "BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_IMAGE_FILE": "y",
    "BR2_PACKAGE_SHIPLAP_IMAGES_PATH": '"/usr/share/shiplap"',
    "BR2_TARGET_ROOTFS_SQUASHFS_PAD": "y",
    "BR2_TARGET_ROOTFS_SQUASHFS_VERITY": "y",
    "BR2_TARGET_ROOTFS_SQUASHFS_VERITY_HASH": '"sha256"',
}


def image() -> ImageSpec:
    """What a careless build system loses: owners, capabilities, a removed file, an opaque folder."""
    base = build(
        [
            directory("bin"),
            file("bin/ping", b"ping" * 300, mode=0o755, uid=7, gid=8, pax={f"{X}security.capability": CAPABILITY}),
            # An engine gives the file what the link's header says, too.
            hardlink("bin/ping6", "bin/ping", mode=0o755, uid=7, gid=8, pax={f"{X}security.capability": CAPABILITY}),
            file("a name", b"with a space"),
            file("gone", b"1"),
            directory("old"),
            file("old/a", b"a"),
        ]
    )
    top = build([file(".wh.gone"), directory("old"), file("old/.wh..wh..opq"), file("old/b", b"b", uid=1234)])
    return ImageSpec([base, top], ["app:1"])


@dataclass
class Site:
    """A registry with the image, its manifest and lock, and the plain command line's result."""

    folder: Path
    manifest: Path
    external: Path
    plain: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require("buildroot-tools", "registry", "mksquashfs")
    folder = tmp_path_factory.mktemp("site")
    with running_registry(folder / "registry") as registry:
        push(registry.address, "team/app", oci_files([image()]))
        manifest = folder / "shiplap.yaml"
        data = {
            "version": 1,
            "name": "gateway",
            "platform": "linux/amd64",
            "images": [{"ref": "app:1", "from": f"docker://{registry.address}/team/app:latest", "license": "MIT"}],
            "registries": {registry.address: {"tls-verify": False}},
        }
        manifest.write_text(json.dumps(data))
        cache = {"SHIPLAP_CACHE": str(folder / "cache")}
        for words in (["lock"], ["build", "--locked", "-o", "plain"], ["generate", "buildroot", "-o", "external"]):
            done = shiplap_command("-C", str(folder), *words, env=cache)
            assert done.returncode == 0, done.stderr
        yield Site(folder, manifest, folder / "external", folder / "plain")


def output_folder(folder: Path, symbols: dict[str, str]) -> Path:
    """What the stand-in expects of O=."""
    (folder / "host/bin").mkdir(parents=True)
    for name in ("run", "tmp", "etc", "var/lib"):
        (folder / "skeleton" / name).mkdir(parents=True)
    (folder / "skeleton/tmp/left").write_text("left")
    python = folder / "host/bin/python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={IMPORT_ROOT} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for program in ("veritysetup", "unsquashfs"):
        found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if found is not None:
            (folder / "host/bin" / program).symlink_to(found)
    (folder / "host/lib").mkdir()
    (folder / "host/lib/libarchive.so").symlink_to(library_path("libarchive.so"))
    (folder / ".config").write_text("".join(f"{name}={value}\n" for name, value in symbols.items() if value != "n"))
    return folder


def make(out: Path, external: Path, *words: str, name: str = "SHIPLAP_GATEWAY", code: int = 0) -> str:
    variables = [f"O={out}", f"EXTERNAL={external}", f"EXTERNAL_NAME={name}"]
    if not any(word.startswith("MKSQUASHFS=") for word in words):
        variables.append("MKSQUASHFS=mksquashfs")
    # hardlink-or-copy is Buildroot's; its folder is where make runs.
    place = out / "top"
    (place / "support/scripts").mkdir(parents=True, exist_ok=True)
    script = place / "support/scripts/hardlink-or-copy"
    script.write_text('#!/bin/sh\ncp "$1" "$2/"\n')
    script.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "SHIPLAP_CACHE")}
    env["HOME"] = str(out)
    done = subprocess.run(["make", "-f", STUB, *variables, *words], cwd=place, env=env, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == code, said[-4000:]
    return said


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unpacked(image: Path, folder: Path) -> Path:
    subprocess.run(["unsquashfs", "-no-progress", "-quiet", "-no-xattrs", "-d", folder, image], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def built(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with the default placement, for a device with systemd."""
    out = output_folder(tmp_path_factory.mktemp("built"), {**SYMBOLS, "BR2_INIT_SYSTEMD": "y"})
    make(out, site.external)
    return out


def test_the_store_arrives_as_it_is_and_its_bytes_are_those_of_the_plain_command_line(site: Site, built: Path, tmp_path: Path) -> None:
    root = unpacked(built / "images/rootfs.squashfs", tmp_path / "root")
    for name in ("store.squashfs", "store.verity", "store.roothash"):
        assert digest(root / "usr/share/shiplap" / name) == digest(site.plain / name)
    assert (built / "images/shiplap-images/SHA256SUMS").read_text() == (site.plain / "SHA256SUMS").read_text()
    done = shiplap_command("verify", str(built / "images/shiplap-images"), "--lock", str(site.folder / "shiplap.lock.yaml"))
    assert done.returncode == 0, done.stderr


def test_the_kit_is_there_with_the_files_of_the_init_system_that_is_there(site: Site, built: Path, tmp_path: Path) -> None:
    root = unpacked(built / "images/rootfs.squashfs", tmp_path / "root")
    assert os.access(root / "usr/sbin/shiplap-target", os.X_OK)
    assert (root / "usr/lib/systemd/system/shiplap-store.service").is_file() and not (root / "etc/init.d").exists()
    assert (root / "usr/lib/systemd/system/multi-user.target.wants/shiplap-containers.service").is_symlink()
    out = output_folder(tmp_path / "busybox", {**SYMBOLS, "BR2_INIT_BUSYBOX": "y"})
    make(out, site.external)
    root = unpacked(out / "images/rootfs.squashfs", tmp_path / "root2")
    assert sorted(path.name for path in (root / "etc/init.d").iterdir()) == ["S59shiplap-store", "S61shiplap-containers"]
    assert not (root / "usr/lib/systemd").exists() and not list((root / "tmp").iterdir())


def test_the_hash_tree_is_byte_for_byte_that_of_veritysetup(built: Path, tmp_path: Path) -> None:
    require("veritysetup")
    image = built / "images/rootfs.squashfs"
    root_hash = (built / "images/rootfs.squashfs.roothash").read_text().strip()
    table = (built / "images/rootfs.squashfs.dm-table").read_text().split()
    dumped = subprocess.run(["/sbin/veritysetup", "dump", f"{image}.verity"], capture_output=True, text=True, check=True).stdout
    uuid = dumped.partition("UUID:")[2].split()[0]
    again = ["/sbin/veritysetup", "format", "--salt", table[-1], "--uuid", uuid, image, tmp_path / "tree"]
    said = subprocess.run([str(word) for word in again], capture_output=True, text=True, check=True).stdout
    assert said.partition("Root hash:")[2].split()[0] == root_hash == table[-2]
    assert (tmp_path / "tree").read_bytes() == Path(f"{image}.verity").read_bytes()
    assert table[:9] == ["0", str(image.stat().st_size // 512), "verity", "1", "DATA_DEVICE", "HASH_DEVICE", "4096", "4096", table[8]]


def test_a_second_run_fetches_and_builds_nothing(site: Site, built: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in (built / "build").rglob(".stamp_*")}
    make(built, site.external)
    assert {path: path.stat().st_mtime_ns for path in (built / "build").rglob(".stamp_*")} == stamps and len(stamps) == 4


def test_another_option_is_another_version_and_the_former_files_go(site: Site, tmp_path: Path) -> None:
    out = output_folder(tmp_path / "out", {**SYMBOLS, "BR2_INIT_BUSYBOX": "y"})
    make(out, site.external)
    changed = {**SYMBOLS, "BR2_PACKAGE_SHIPLAP_IMAGES_FORMAT_STORE_DOCKER": "n", "BR2_PACKAGE_SHIPLAP_IMAGES_FORMAT_ARCHIVE": "y"}
    (out / ".config").write_text("".join(f"{name}={value}\n" for name, value in changed.items() if value != "n"))
    make(out, site.external)
    assert len(list((out / "build").glob("shiplap-images-*"))) == 2
    there = sorted(path.name for path in (out / "target/usr/share/shiplap").iterdir())
    assert [name for name in there if name != "store"] == ["images.tar"]


def test_the_download_folder_is_a_mirror_and_only_it_is_asked_when_that_is_the_wish(site: Site, built: Path, tmp_path: Path) -> None:
    primary = tmp_path / "primary"
    shutil.copytree(built / "dl", primary, ignore=shutil.ignore_patterns(".cache"))
    out = output_folder(tmp_path / "out", SYMBOLS)
    only = [f"BR2_PRIMARY_SITE=file://{primary}", "BR2_PRIMARY_SITE_ONLY=y", "source"]
    blobs = sorted(path.name for path in (primary / "shiplap-images").glob("sha256-*"))
    # One folder for each package, or all in one: Buildroot looks at both.
    (primary / "shiplap-images" / blobs[0]).rename(primary / blobs[0])
    make(out, site.external, *only)
    fetched = {path.name for path in (out / "dl/shiplap-images").glob("sha256-*")}
    assert fetched and fetched <= set(blobs)
    (primary / blobs[0]).unlink()
    for name in fetched:
        (primary / "shiplap-images" / name).unlink(missing_ok=True)
    out = output_folder(tmp_path / "again", SYMBOLS)
    assert "the mirrors have not got" in make(out, site.external, *only, code=2)
    out = output_folder(tmp_path / "registry", SYMBOLS)
    make(out, site.external, f"BR2_PRIMARY_SITE=file://{primary}", "source")


def test_a_store_that_is_too_large_stops_the_build(site: Site, tmp_path: Path) -> None:
    out = output_folder(tmp_path / "out", {**SYMBOLS, "BR2_PACKAGE_SHIPLAP_IMAGES_MAX_SIZE": '"1K"'})
    said = make(out, site.external, code=2)
    assert "store.squashfs has" in said and "BR2_PACKAGE_SHIPLAP_IMAGES_MAX_SIZE allows 1K" in said
    out = output_folder(tmp_path / "no-number", {**SYMBOLS, "BR2_PACKAGE_SHIPLAP_IMAGES_MAX_SIZE": '"64 MB"'})
    assert "numfmt" in make(out, site.external, code=2), "a limit that is none must not pass for no limit"


def test_with_the_package_off_nothing_runs(site: Site, tmp_path: Path) -> None:
    out = output_folder(tmp_path / "out", {"BR2_TARGET_ROOTFS_SQUASHFS_PAD": "y"})
    said = make(out, site.external)
    assert "shiplap" not in said.replace(str(out), "").replace(str(site.external), "")
    assert sorted(path.name for path in (out / "images").iterdir()) == ["rootfs.squashfs"]


@pytest.mark.parametrize(
    ("symbols", "words", "complaint"),
    [
        ({"BR2_PACKAGE_SHIPLAP_IMAGES_PATH": '"/var/lib/shiplap"'}, (), "choose another folder"),
        ({"BR2_PACKAGE_SHIPLAP_IMAGES_PATH": '"/tmp"'}, (), "choose another folder"),
        ({"BR2_PACKAGE_SHIPLAP_IMAGES_PATH": '"usr/share"'}, (), "write an absolute path"),
        ({"BR2_PACKAGE_SHIPLAP_IMAGES_MANIFEST": '"/nowhere/app.yaml"'}, (), "there is no lock /nowhere/app.lock.yaml"),
        ({}, ("DOCKER_ENGINE_VERSION=19.03.15",), "tested with docker 20.10 to 28, this is 19.03.15: choose the archive"),
        ({"BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_ROOTFS_TREE": "y"}, ("SQUASHFS_VERSION=4.5.1",), "mksquashfs 4.5.1 cannot take"),
        ({"BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_ROOTFS_TREE": "y"}, ("EXTRA_ROOTFS=rootfs-ext2",), "switch off rootfs-ext2"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_built(
    site: Site, tmp_path: Path, symbols: dict[str, str], words: tuple[str, ...], complaint: str
) -> None:
    out = output_folder(tmp_path / "out", {**SYMBOLS, **symbols})
    assert complaint in make(out, site.external, *words, code=2)
    assert not (out / "build").exists()


def test_an_unpacked_store_keeps_owners_capabilities_and_marks(site: Site, tmp_path: Path) -> None:
    newer = mksquashfs_for_tar()
    unsquashfs = newer.with_name("unsquashfs")
    out = output_folder(tmp_path / "out", {**SYMBOLS, "BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_ROOTFS_TREE": "y"})
    (out / "host/bin/unsquashfs").unlink()
    (out / "host/bin/unsquashfs").symlink_to(unsquashfs)
    make(out, site.external, f"MKSQUASHFS={newer}")
    stored = entries(unsquashfs, site.plain / "store.squashfs")
    assert any("x security.capability" in line for line in stored) and any(" 7 8 " in line for line in stored)
    assert any(" C " in line for line in stored) and any("trusted.overlay.opaque" in line for line in stored)
    assert entries(unsquashfs, out / "images/rootfs.squashfs", "usr/share/shiplap/store/") == stored


def test_partitions_are_named_by_the_root_hash(site: Site, tmp_path: Path) -> None:
    out = output_folder(tmp_path / "out", {**SYMBOLS, "BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_PARTITION": "y"})
    make(out, site.external)
    root_hash = (out / "images/shiplap-images/store.roothash").read_text().strip()
    parts = [root_hash[begin : begin + 32] for begin in (0, 32)]
    uuids = [f"{one[:8]}-{one[8:12]}-{one[12:16]}-{one[16:20]}-{one[20:]}" for one in parts]
    text = (out / "images/shiplap-images/genimage.cfg").read_text()
    assert [line.split('"')[1] for line in text.splitlines() if "partition-uuid" in line] == uuids
    assert f"PARTUUID={uuids[0]}" in (out / "target/etc/shiplap/store.conf").read_text()
    assert sorted(path.name for path in (out / "target/usr/share/shiplap").iterdir()) == ["store"]


def test_a_busybox_without_an_applet_that_the_kit_needs_stops_the_build(site: Site, tmp_path: Path) -> None:
    out = output_folder(tmp_path / "out", SYMBOLS)
    (out / "skeleton/bin").mkdir()
    (out / "skeleton/bin/busybox").touch()
    assert "set CONFIG_STAT and CONFIG_FEATURE_STAT_FORMAT" in make(out, site.external, code=2)
    (out / "skeleton/bin/stat").touch()
    make(out, site.external)


def test_legal_info_has_a_row_for_each_image(site: Site, built: Path) -> None:
    make(built, site.external, "shiplap-images-legal-info")
    rows = (built / "legal-info/manifest.csv").read_text()
    assert rows.startswith('"docker.io/library/app:1","sha256:') and '"MIT","image-licenses.txt"' in rows
    assert list((built / "legal-info/licenses").glob("shiplap-images-*/image-licenses.txt"))


def test_the_kernel_is_asked_for_what_the_store_needs(site: Site, built: Path) -> None:
    make(built, site.external, "kernel-fixups")
    asked = {line.partition("=")[0] for line in (built / "kernel.config").read_text().splitlines()}
    wanted = ("SQUASHFS", "SQUASHFS_XATTR", "SQUASHFS_ZSTD", "OVERLAY_FS", "BLK_DEV_LOOP", "BLK_DEV_DM", "DM_VERITY", "DM_INIT")
    assert {f"CONFIG_{name}" for name in wanted} <= asked


def test_a_prebuilt_store_is_unpacked_and_its_root_sealed_without_shiplap(site: Site, tmp_path: Path) -> None:
    require("veritysetup")
    external = tmp_path / "external"
    done = shiplap_command("generate", "buildroot", "-f", str(site.manifest), "-o", str(external), "--prebuilt", str(site.plain))
    assert done.returncode == 0, done.stderr
    out = output_folder(tmp_path / "out", SYMBOLS)
    (out / "host/bin/python3").unlink()
    make(out, external)
    image = out / "images/rootfs.squashfs"
    assert digest(out / "target/usr/share/shiplap/store.squashfs") == digest(site.plain / "store.squashfs")
    root_hash = tmp_path / "hash"
    done = shiplap_command("verity", "format", "--root-hash-file", str(root_hash), str(image), str(tmp_path / "tree"))
    assert done.returncode == 0, done.stderr
    assert Path(f"{image}.roothash").read_text() == root_hash.read_text()
    assert Path(f"{image}.verity").read_bytes() == (tmp_path / "tree").read_bytes()


@pytest.mark.parametrize("size_bytes", [4096, 65536, 131072, 4096 * 300])
def test_veritysetup_with_derived_salt_and_uuid_makes_the_tree_of_shiplap(tmp_path: Path, size_bytes: int) -> None:
    require("veritysetup", "shellcheck")
    script = tmp_path / "verity-format"
    script.write_text(render(golden_configs()["prebuilt"])["fs/squashfs/verity-format"])
    subprocess.run(["shellcheck", script], check=True)
    image = tmp_path / "image"
    image.write_bytes(bytes(number * 7 % 251 for number in range(size_bytes)))
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:/sbin:/usr/sbin"}
    subprocess.run(["dash", script, image, "sha256", "", ""], check=True, env=env)
    done = shiplap_command("--json", "verity", "format", str(image), str(tmp_path / "tree"))
    told = json.loads(done.stdout)
    assert (tmp_path / "image.verity").read_bytes() == (tmp_path / "tree").read_bytes()
    assert (tmp_path / "image.roothash").read_text() == told["root_hash"] + "\n"
    assert (tmp_path / "image.dm-table").read_text() == told["table"] + "\n"
    image.write_bytes(b"x" * 4097)
    done = subprocess.run(["dash", script, image, "sha256", "", ""], check=False, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "no multiple of 4096" in done.stderr
