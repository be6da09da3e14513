"""The generated tree in a real Buildroot, compiling nothing that is not Buildroot's own or ours; only by name:

    SHIPLAP_BUILDROOT=/path/to/buildroot SHIPLAP_REQUIRE=buildroot python -m pytest tests/adapters/buildroot/test_real_buildroot.py

Half a minute for the first build, a few seconds for each further one. As root everything runs as an unprivileged user.
Needs PyPI (or pip's mirror), rsync, bc, cpio, unzip, file, wget, fakeroot, mksquashfs, docker-registry.
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
from archives import oci_files
from boot.cases import said_everything
from boot.firmware import REPORT, Bench, container
from boot.guest import case_disk
from boot.machine import Disk, Machine
from buildroot.pseudofiles import entries
from buildroot.realtree import RealTree
from buildroot.targetfiles import target_files
from commandline import folder_for_everybody, shiplap_command
from engines import runnable
from registryserver import push, running_registry
from requirement import missing
from squashfsimages import mksquashfs_for_tar

NOBODY = 65534
# The machine has no iptables.
ENGINE = {"bridge": "none", "iptables": False, "ip6tables": False, "exec-opts": ["native.cgroupdriver=cgroupfs"]}


@dataclass
class Real:
    """``tree``: Buildroot and the generated tree; ``plain``: the output folder of the plain command line."""

    tree: RealTree
    manifest: Path
    plain: Path

    def images(self, out: str) -> Path:
        return self.tree.folder / out / "images"


def built_packages(said: str) -> list[str]:
    """The packages whose build step ran."""
    return [line.split()[1] for line in said.splitlines() if ">>> " in line and "Building" in line]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    named = os.environ.get("SHIPLAP_BUILDROOT")
    if not named:
        missing("buildroot", "SHIPLAP_BUILDROOT names a checkout of Buildroot")
    with folder_for_everybody() as folder, running_registry(folder / "registry") as registry:
        push(registry.address, "team/app", oci_files([runnable.image("app:1")]))
        manifest = folder / "shiplap.yaml"
        data = {
            "version": 1,
            "name": "gateway",
            "platform": "linux/amd64",
            "images": [{"ref": "app:1", "from": f"docker://{registry.address}/team/app:latest", "license": "Apache-2.0"}],
            "registries": {registry.address: {"tls-verify": False}},
            "engine-config": ENGINE,
            "containers": [container()],
        }
        manifest.write_text(json.dumps(data))
        cache = {"SHIPLAP_CACHE": str(folder / "cache")}
        for words in (["lock"], ["build", "--locked", "-o", "plain"]):
            done = shiplap_command("-C", str(folder), *words, env=cache)
            assert done.returncode == 0, done.stderr
        work = folder / "work"
        work.mkdir(mode=0o755)
        user = NOBODY if os.geteuid() == 0 else None
        if user is not None:
            os.chown(work, user, user)
        tools = {name: mksquashfs_for_tar().with_name(name) for name in ("mksquashfs", "unsquashfs")}
        tree = RealTree(Path(str(named)), folder / "external", work, user, tools=tools)
        done = shiplap_command("generate", "buildroot", "-f", str(manifest), "-o", str(tree.external))
        assert done.returncode == 0, done.stderr
        yield Real(tree, manifest, folder / "plain")


@pytest.fixture(scope="module")
def built(real: Real) -> Real:
    """The first build: fetched by ``make source``, built without a network."""
    real.tree.configure("first")
    real.tree.make("first", "source")
    real.tree.make("first", offline=True)
    return real


def test_buildroots_own_check_of_packages_is_silent(real: Real) -> None:
    files = [path for path in real.tree.external.rglob("*") if path.is_file() and path.suffix != ".tar" and not path.name.startswith(".")]
    check = [sys.executable, "utils/check-package", "-b", *map(str, files)]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(check, cwd=real.tree.checkout, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert "0 warnings generated" in done.stderr


def test_the_root_file_system_has_the_store_and_a_hash_tree_over_it(built: Real, tmp_path: Path) -> None:
    image = built.images("first") / "rootfs.squashfs"
    root_hash = (image.with_name("rootfs.squashfs.roothash")).read_text().strip()
    subprocess.run(["veritysetup", "verify", image, f"{image}.verity", root_hash], check=True)
    assert root_hash in image.with_name("rootfs.squashfs.dm-table").read_text()
    subprocess.run(["unsquashfs", "-no-progress", "-quiet", "-no-xattrs", "-d", tmp_path / "root", image], check=True)
    root = tmp_path / "root"
    assert digest(root / "usr/share/shiplap/store.squashfs") == digest(built.plain / "store.squashfs")
    assert digest(root / "usr/share/shiplap/store.verity") == digest(built.plain / "store.verity")
    assert os.access(root / "usr/sbin/shiplap-target", os.X_OK)
    assert (root / "etc/shiplap/store.conf").is_file() and (root / "usr/share/shiplap/store").is_dir()
    assert not (root / "etc/init.d").exists() and not (root / "usr/lib/systemd").exists()  # BR2_INIT_NONE


def test_the_result_is_that_of_the_plain_command_line_and_verifies(built: Real) -> None:
    folder = built.images("first") / "shiplap-images"
    assert (folder / "SHA256SUMS").read_text() == (built.plain / "SHA256SUMS").read_text()
    done = shiplap_command("verify", str(folder), "--lock", str(built.manifest.with_suffix("")) + ".lock.yaml")
    assert done.returncode == 0, done.stderr


def test_legal_info_names_each_image_and_its_licence(built: Real) -> None:
    said = built.tree.make("first", "legal-info")
    folder = built.tree.folder / "first/legal-info"
    rows = [line for line in (folder / "manifest.csv").read_text().splitlines() if "app:1" in line]
    assert rows and '"Apache-2.0"' in rows[0], said[-2000:]
    assert list(folder.glob("licenses/shiplap-images-*/image-licenses.txt")) and list(
        folder.glob("licenses/shiplap-images-*/sbom.spdx.json")
    )
    assert '"python-shiplap"' in (folder / "host-manifest.csv").read_text()


def blobs_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("sha256-*"))


def test_a_second_run_builds_nothing_again_and_a_rebuild_only_what_it_names(built: Real) -> None:
    assert built_packages(built.tree.make("first", offline=True)) == []
    assert built_packages(built.tree.make("first", "shiplap-images-rebuild", offline=True)) == ["shiplap-images"]


def test_another_lock_is_another_build_and_nothing_else_is_built(built: Real) -> None:
    lock = built.tree.external / "package/shiplap-images/shiplap.lock.yaml"
    before = lock.read_text()
    lock.write_text(f"{before}\n")
    try:
        assert built_packages(built.tree.make("first", offline=True)) == ["shiplap-images"]
    finally:
        lock.write_text(before)
    assert built_packages(built.tree.make("first", offline=True)) == []


def test_the_download_folder_is_a_mirror_for_machines_without_a_network(built: Real) -> None:
    downloads, primary = built.tree.folder / "dl/shiplap-images", built.tree.folder.parent / "primary"
    shutil.copytree(built.tree.folder / "dl", primary, ignore=shutil.ignore_patterns(".cache"))
    site = {"BR2_PRIMARY_SITE": f"file://{primary}", "BR2_PRIMARY_SITE_ONLY": "y"}
    shutil.rmtree(downloads)
    built.tree.make("first", "shiplap-images-dirclean", offline=True)
    built.tree.make("first", "shiplap-images-source", offline=True, **site)
    assert set(blobs_of(downloads)) <= set(blobs_of(primary / "shiplap-images")) and len(blobs_of(downloads)) == 4
    (primary / "shiplap-images" / blobs_of(downloads)[0]).unlink()
    lost = blobs_of(downloads)[0]
    shutil.rmtree(downloads)
    built.tree.make("first", "shiplap-images-dirclean", offline=True)
    # The registry would answer, and may not be asked.
    said = built.tree.make("first", "shiplap-images-source", code=2, **site)
    assert f"the mirrors have not got {lost.replace('-', ':')}" in said
    built.tree.make("first", "shiplap-images-source", BR2_BACKUP_SITE="")
    assert lost in blobs_of(downloads)


def test_two_build_folders_with_per_package_directories_give_the_same_bytes(built: Real) -> None:
    for out in ("one", "two/deeper"):
        built.tree.configure(out, REPRODUCIBLE="y", PER_PACKAGE_DIRECTORIES="y")
        built.tree.make(out, "-j4", offline=True)
    names = ("rootfs.squashfs", "rootfs.squashfs.verity", "rootfs.squashfs.roothash", "shiplap-images/SHA256SUMS")
    assert [digest(built.images("one") / name) for name in names] == [digest(built.images("two/deeper") / name) for name in names]
    assert digest(built.images("one") / "shiplap-images/store.squashfs") == digest(built.plain / "store.squashfs")
    assert digest(built.images("one") / "shiplap-images/store.json") == digest(built.plain / "store.json")


def test_with_the_package_off_nothing_of_ours_runs(built: Real) -> None:
    built.tree.configure("off", PACKAGE_SHIPLAP_IMAGES="n", TARGET_ROOTFS_SQUASHFS_VERITY="n")
    said = built.tree.make("off", offline=True)
    assert ">>> shiplap" not in said and "python-shiplap" not in said and "shiplap.cli" not in said
    assert sorted(path.name for path in built.images("off").iterdir()) == ["rootfs.squashfs"]


def test_an_unpacked_store_keeps_every_field_in_the_root_file_system(built: Real) -> None:
    built.tree.configure("first", PACKAGE_SHIPLAP_IMAGES_PLACEMENT_ROOTFS_TREE="y", REPRODUCIBLE="y")
    built.tree.make("first", offline=True)
    unsquashfs = built.tree.tools["unsquashfs"]
    stored = entries(unsquashfs, built.images("first") / "shiplap-images/store.squashfs")
    assert len(stored) > 20
    assert entries(unsquashfs, built.images("first") / "rootfs.squashfs", "usr/share/shiplap/store/") == stored


def test_partitions_get_their_names_from_the_root_hash(built: Real, tmp_path: Path) -> None:
    built.tree.configure("first", PACKAGE_SHIPLAP_IMAGES_PLACEMENT_PARTITION="y")
    built.tree.make("first", offline=True)
    images = built.images("first")
    root_hash = (images / "shiplap-images/store.roothash").read_text().strip()
    snippet = (images / "shiplap-images/genimage.cfg").read_text()
    assert root_hash[:8] in snippet and root_hash[32:40] in snippet
    layout = 'image disk.img {\n\thdimage { partition-table-type = "gpt" }\n\tinclude("shiplap-images/genimage.cfg")\n}\n'
    (tmp_path / "genimage.cfg").write_text(layout)
    if shutil.which("genimage"):
        (tmp_path / "none").mkdir()
        words = ["genimage", "--config", "genimage.cfg", "--inputpath", images, "--includepath", f".:{images}", "--outputpath", "out"]
        subprocess.run([*words, "--tmppath", "tmp", "--rootpath", "none"], cwd=tmp_path, check=True, capture_output=True)
        told = subprocess.run(["sfdisk", "--json", tmp_path / "out/disk.img"], capture_output=True, check=True).stdout
        uuids = [one["uuid"].replace("-", "").lower() for one in json.loads(told)["partitiontable"]["partitions"]]
        assert uuids == [root_hash[:32], root_hash[32:]]


def test_an_archive_comes_out_as_well_and_its_size_is_limited(built: Real) -> None:
    built.tree.configure("first", PACKAGE_SHIPLAP_IMAGES_FORMAT_ARCHIVE="y", PACKAGE_SHIPLAP_IMAGES_MAX_SIZE='"64M"')
    built.tree.make("first", offline=True)
    assert (built.images("first") / "shiplap-images/images.tar").is_file()
    built.tree.configure("first", PACKAGE_SHIPLAP_IMAGES_FORMAT_ARCHIVE="y", PACKAGE_SHIPLAP_IMAGES_MAX_SIZE='"1K"')
    said = built.tree.make("first", "shiplap-images-rebuild", code=2, offline=True)
    assert "BR2_PACKAGE_SHIPLAP_IMAGES_MAX_SIZE allows 1K" in said


def test_paths_that_do_not_last_and_formats_that_do_not_fit_are_refused(built: Real) -> None:
    built.tree.choose("first", PACKAGE_SHIPLAP_IMAGES_PATH='"/var/lib/shiplap"')
    assert "choose another folder" in built.tree.make("first", code=2)
    built.tree.choose("first", PACKAGE_SHIPLAP_IMAGES_PLACEMENT_ROOTFS_TREE="y", TARGET_ROOTFS_TAR="y")
    assert "only a squashfs keeps the store unpacked; switch off rootfs-tar" in built.tree.make("first", code=2)


def test_a_prebuilt_store_needs_no_shiplap_and_seals_the_same_root(built: Real) -> None:
    external = built.tree.external.with_name("prebuilt")
    done = shiplap_command("generate", "buildroot", "-f", str(built.manifest), "-o", str(external), "--prebuilt", str(built.plain))
    assert done.returncode == 0, done.stderr
    folder = built.tree.folder.with_name("prebuilt-work")
    folder.mkdir(mode=0o755)
    if built.tree.user is not None:
        os.chown(folder, built.tree.user, built.tree.user)
    tree = RealTree(built.tree.checkout, external, folder, built.tree.user, tools=built.tree.tools)
    tree.configure("out")
    tree.make("out", offline=True)
    image = folder / "out/images/rootfs.squashfs"
    assert not list((folder / "out/build").glob("host-python*"))
    assert digest(folder / "out/images/shiplap-images/store.squashfs") == digest(built.plain / "store.squashfs")
    shutil.copy(image, folder / "copy")
    words = ["--root-hash-file", str(folder / "copy.roothash"), str(folder / "copy"), str(folder / "copy.verity")]
    done = shiplap_command("verity", "format", *words)
    assert done.returncode == 0, done.stderr
    assert (folder / "copy.roothash").read_text() == (folder / "out/images/rootfs.squashfs.roothash").read_text()
    assert digest(folder / "copy.verity") == digest(folder / "out/images/rootfs.squashfs.verity")


def test_the_image_boots_to_the_running_container(built: Real, bench: Bench) -> None:
    """Buildroot's skeleton, inittab, init scripts and S60dockerd; BusyBox, Docker, veritysetup and the kernel are Debian's."""
    folder = built.tree.folder.with_name("machine-work")
    folder.mkdir(mode=0o755)
    if built.tree.user is not None:
        os.chown(folder, built.tree.user, built.tree.user)
    checkout = built.tree.checkout
    tree = RealTree(checkout, built.tree.external, folder, built.tree.user, target=target_files(checkout), tools=built.tree.tools)
    place = tree.configure(
        "out",
        INIT_NONE="n",
        INIT_BUSYBOX="y",
        PACKAGE_BUSYBOX="y",
        ROOTFS_MERGED_USR="y",
        TARGET_GENERIC_GETTY_PORT='"console"',
        TARGET_GENERIC_REMOUNT_ROOTFS_RW="n",
    )
    shutil.copytree(built.tree.folder / "dl", folder / "dl", dirs_exist_ok=True)
    tree.make("out", BR2_DL_DIR=str(folder / "dl"))
    assert "CONFIG_STAT=y" in next((place / "build").glob("busybox-*/.config")).read_text()
    images = place / "images"
    kernel, initrd = bench.kernel()
    disks = [
        Disk(images / "rootfs.squashfs", "root"),
        Disk(images / "rootfs.squashfs.verity", "tree"),
        case_disk(folder / "case.tar", "", REPORT),
    ]
    root_hash = (images / "rootfs.squashfs.roothash").read_text().strip()
    console = Machine(kernel, initrd, disks, append=f"case.roothash={root_hash}").run()
    assert said_everything(console)
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console
    assert "MOUNT shiplap-data /var/lib/docker tmpfs" in console
