"""Real bitbake, real packages, real images, on the checkouts that SHIPLAP_OE_CORE and SHIPLAP_BITBAKE name; some minutes.

SHIPLAP_REQUIRE=oe SHIPLAP_OE_CORE=… SHIPLAP_BITBAKE=… python -m pytest tests/adapters/yocto/test_yocto_checkout.py
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import ImageSpec, oci_files
from commandline import folder_for_everybody, shiplap_command
from images import X, directory, fifo, file, hardlink, pax
from layertar import build, pax_record
from locks import write_manifest
from oecheckout import Checkout, Rig, checkout, rerun_tasks
from registryserver import push, running_registry
from requirement import SEARCH_PATH, require
from yoctoproduct import sums_of

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
BASE = build(
    [
        directory("bin"),
        file("bin/app", b"app" * 70000),
        file("bin/su", b"suid", mode=0o4755),
        directory("etc", uid=65534, gid=65534),  # the builder's own uid
        file("etc/a", b"a", uid=65534, gid=65534),
        hardlink("etc/b", "etc/a", uid=65534, gid=65534),
        fifo("etc/fifo"),
        directory("gone"),
        file("gone/x", b"x"),
        directory("opaque"),
        file("opaque/y", b"y"),
        pax(pax_record(X + "security.capability", CAPABILITY)),
        file("bin/ping", b"ping"),
    ]
)
TOP = build([file("app", b"app" * 700), file(".wh.gone"), directory("opaque"), file("opaque/.wh..wh..opq"), file("opaque/z", b"z")])


def top_of(number: int) -> ImageSpec:
    """Another image for each number, all with the same base."""
    return ImageSpec([BASE, build([file("number", b"%d" % number)])], tags=["1"])


@dataclass(frozen=True, slots=True)
class Product:
    """A manifest, its lock, its build by the plain command line, and its layer, all in ``folder``."""

    folder: Path
    registry: str

    @property
    def layer(self) -> Path:
        return self.folder / "meta-gateway"

    @property
    def sums(self) -> dict[str, str]:
        return sums_of(self.folder / "out")

    def shiplap(self, *words: str) -> str:
        done = shiplap_command("-C", str(self.folder), *words, env={"SHIPLAP_CACHE": str(self.folder / "cache")})
        assert done.returncode == 0, done.stderr
        return done.stdout

    def generate(self, *options: str) -> None:
        """The layer anew; ``yocto-check-layer`` and nobody read it."""
        self.shiplap("generate", "yocto", "-o", "meta-gateway", "--maintainer", "Jo Doe <jo@example.com>", "--force", *options)

    def lock_and_build(self) -> None:
        self.shiplap("lock", "--update")
        self.shiplap("build", "--locked", "-o", "out")


def sha256(path: Path) -> str:
    return subprocess.run(["sha256sum"], stdin=path.open("rb"), capture_output=True, check=True, text=True).stdout.split()[0]


def members_of(tar: Path) -> str:
    """Everything that a tar says of its files, and their content."""
    listed = subprocess.run(["tar", "--numeric-owner", "--full-time", "-tvf", tar], capture_output=True, text=True, check=True).stdout
    data = subprocess.run(["tar", "-xOf", tar], capture_output=True, check=True).stdout
    return f"{listed}{hashlib.sha256(data).hexdigest()}"


def product(folder: Path, registry: str, **manifest: object) -> Product:
    made = Product(folder, registry)
    images = [
        {"ref": "app:1", "from": f"docker://{registry}/team/app:latest", "license": "Apache-2.0 AND (MIT OR GPL-2.0-only)"},
        {"ref": "db:2", "from": f"docker://{registry}/team/db:latest", "license": "LicenseRef-Acme"},
    ]
    settings = {"name": "gateway", "platform": "linux/amd64", "registries": {registry: {"tls-verify": False}}, **manifest}
    folder.mkdir(exist_ok=True)
    write_manifest(folder, images, **settings)
    made.lock_and_build()
    made.generate()
    return made


@dataclass(slots=True)
class Bench:
    """What the tests share: a rig around one product, whose images lie in a registry until somebody stops it."""

    rig: Rig
    product: Product
    registry: ExitStack


@pytest.fixture(scope="module")
def tools() -> Checkout:
    return checkout()


@pytest.fixture(scope="module")
def bench(tools: Checkout) -> Iterator[Bench]:
    require("registry", "veritysetup", "mksquashfs")
    with folder_for_everybody() as folder, ExitStack() as stack:
        registry = stack.enter_context(running_registry(folder / "registry"))
        push(registry.address, "team/app", oci_files([ImageSpec([BASE, TOP], tags=["1"])]))
        push(registry.address, "team/db", oci_files([top_of(1)]))
        made = product(folder / "file", registry.address)
        yield Bench(Rig(tools, folder, made.layer, {"LICENSE_FLAGS_ACCEPTED": "LicenseRef-Acme"}), made, stack)


@pytest.fixture(scope="module")
def first(bench: Bench) -> Path:
    """The folder of a whole build that fetched from the registry; everything later may take what it left."""
    build = bench.rig.build("first", sstate="sstate")
    said = build.run("bitbake", "gateway-image")
    assert not re.findall(r"^(?:ERROR|WARNING): (?!No bb files in default)(.*)$", said, re.M), said
    return build.folder


def test_the_store_is_the_one_of_the_plain_command_line_to_the_byte(bench: Bench, first: Path) -> None:
    deployed = first / "tmp/deploy/images/qemux86-64/gateway-store"
    # record.json names where blobs came from; everything else is the images' alone.
    assert {**sums_of(deployed), "record.json": ""} == {**bench.product.sums, "record.json": ""}
    bench.product.shiplap("verify", str(deployed), "--lock", "shiplap.lock.yaml")


def test_downloads_have_the_names_that_shiplap_mirrors_have(bench: Bench, first: Path) -> None:
    names = sorted(path.name for path in (bench.rig.folder / "downloads").iterdir() if path.name.startswith("sha256-"))
    blobs = [name for name in names if not name.endswith((".done", ".lock"))]
    assert len(blobs) == 5 and all(f"{name}.done" in names for name in blobs)
    bench.product.shiplap(
        "build", "--locked", "--offline", "--cache", "other", "--mirror", str(bench.rig.folder / "downloads"), "-o", "again"
    )
    assert sums_of(bench.product.folder / "again")["store.squashfs"] == bench.product.sums["store.squashfs"]


def test_root_file_systems_have_the_store_and_the_kit(bench: Bench, first: Path) -> None:
    image = bench.rig.build("first", sstate="sstate").image
    stored = bench.product.sums["store.squashfs"]
    for kind, command in (
        ("squashfs", ["unsquashfs", "-cat", str(image("squashfs")), "usr/share/shiplap/store.squashfs"]),
        ("tar", ["tar", "-xOf", str(image("tar")), "./usr/share/shiplap/store.squashfs"]),
    ):
        data = subprocess.run(command, capture_output=True, check=True).stdout
        assert subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout.split()[0].decode() == stored, kind
    listed = subprocess.run(["tar", "--numeric-owner", "-tvf", str(image("tar"))], capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in listed.splitlines()} == {"0/0"}
    for path in (
        "./etc/init.d/shiplap-store",
        "./etc/rc5.d/S19shiplap-store -> ../init.d/shiplap-store",
        "./etc/rc5.d/S21shiplap-containers -> ../init.d/shiplap-containers",
        "./usr/lib/systemd/system/shiplap-store.service",
        "./usr/sbin/shiplap-target",
        "./etc/shiplap/store.conf",
        "./usr/share/shiplap/store/",
    ):
        assert f" {path}\n" in listed, path


def test_the_root_file_system_is_sealed(bench: Bench, first: Path) -> None:
    image = bench.rig.build("first", sstate="sstate").image
    root_hash = image("squashfs.roothash").read_text().strip()
    subprocess.run(["veritysetup", "verify", image("squashfs"), image("squashfs.shiplapverity"), root_hash], check=True)
    assert image("squashfs").stat().st_size % 4096 == 0


def test_licences_of_images_are_in_the_manifest_and_have_to_be_accepted(bench: Bench, first: Path) -> None:
    found = next((first / "tmp/deploy/licenses").rglob("license.manifest")).read_text()
    entry = next(part for part in found.split("\n\n") if "PACKAGE NAME: gateway-store\n" in part)
    assert re.search(r"LICENSE: .*Apache-2.0.*LicenseRef-Acme", entry)
    said = bench.rig.build("unaccepted", LICENSE_FLAGS_ACCEPTED="").run("bitbake", "-n", "gateway-store", check=False)
    assert "LicenseRef-Acme" in said and "gateway-store" in said


def test_another_build_folder_offline_from_a_mirror_gives_equal_bytes(bench: Bench, first: Path) -> None:
    """Other TMPDIR, no sstate, an empty DL_DIR, no network; times and users of the first build do not come back."""
    build = bench.rig.build(
        "a-longer-name-for-the-second",
        downloads="empty",
        BB_NO_NETWORK="1",
        PREMIRRORS=f".*://.*/.* file://{bench.rig.folder}/downloads/",
        BB_NUMBER_THREADS="1",
        PARALLEL_MAKE="-j 1",
    )
    build.run("bitbake", "gateway-image")
    before = bench.rig.build("first", sstate="sstate").image
    for kind in ("squashfs", "squashfs.shiplapverity", "squashfs.roothash"):
        assert sha256(build.image(kind)) == sha256(before(kind)), kind
    # The tars of scarthgap have the times of the last access in them.
    assert members_of(build.image("tar")) == members_of(before("tar"))
    assert sums_of(build.deployed / "gateway-store") == sums_of(first / "tmp/deploy/images/qemux86-64/gateway-store")


def test_without_network_and_mirror_the_message_names_the_blob(bench: Bench, first: Path) -> None:
    said = bench.rig.build("nothing", downloads="nothing-there", BB_NO_NETWORK="1").run(
        "bitbake", "-c", "fetch", "gateway-store", check=False
    )
    assert re.search(r"NetworkAccess.*digest=sha256-", said), said


def test_nothing_is_built_again_for_another_tune_epoch_mirror_or_number_of_processors(bench: Bench, first: Path) -> None:
    settings = {
        "PARALLEL_MAKE": "-j 7",
        "SOURCE_DATE_EPOCH": "12345",
        "PREMIRRORS": f".*://.*/.* file://{bench.rig.folder}/downloads/",
        "SHIPLAP_AUTHFILE": "/nowhere",
    }
    bench.rig.build("first", sstate="sstate").run("bitbake", "gateway-store")
    assert rerun_tasks(bench.rig.build("first", sstate="sstate", **settings).run("bitbake", "gateway-store")) == 0
    # From sstate, in another folder: what is made again is nothing of the store but the deploying.
    other = bench.rig.build("from-sstate", sstate="sstate", DEFAULTTUNE="core2-64")
    other.run("bitbake", "gateway-store")
    orders = [path.read_text() for path in other.folder.rglob("gateway-store/*/temp/log.task_order")]
    assert not re.findall(r" (do_fetch|do_compile|do_install|do_package) ", "".join(orders))


def test_a_machine_that_cannot_run_the_images_is_told(bench: Bench, first: Path) -> None:
    said = bench.rig.build("arm", MACHINE="qemuarm64").run("bitbake", "-n", "gateway-store", check=False)
    assert "incompatible with host aarch64" in said


@pytest.mark.parametrize("kind", ["rpm", "ipk"])
def test_other_package_formats_keep_the_store(bench: Bench, first: Path, kind: str) -> None:
    if kind == "ipk" and shutil.which("opkg-build") is None:
        pytest.skip("no opkg-build here")
    build = bench.rig.build(f"packages-{kind}", sstate="sstate", PACKAGE_CLASSES=f"package_{kind}")
    build.run("bitbake", "-c", f"package_write_{kind}", "gateway-store")
    package = next((build.folder).rglob(f"gateway-store[-_]2*.{kind}"))
    text = "cpio -i --to-stdout --quiet ./usr/share/shiplap/store.squashfs"
    command = (
        f"rpm2cpio {package} | {text}"
        if kind == "rpm"
        else f"dpkg-deb --fsys-tarfile {package} | tar -xO ./usr/share/shiplap/store.squashfs"
    )
    data = subprocess.run(command, shell=True, capture_output=True, check=True).stdout
    assert (
        subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout.split()[0].decode()
        == bench.product.sums["store.squashfs"]
    )


def test_debian_packages_and_shared_state_keep_the_store(bench: Bench, first: Path) -> None:
    package = next((first / "tmp/deploy/deb").rglob("gateway-store_2*.deb"))
    state = next((bench.rig.folder / "sstate").rglob("*gateway-store*deploy.tar.zst"))
    for command in (
        f"dpkg-deb --fsys-tarfile {package} | tar -xO ./usr/share/shiplap/store.squashfs",
        f"zstd -dcq {state} | tar -xO --wildcards '*/store.squashfs'",
    ):
        data = subprocess.run(command, shell=True, capture_output=True, check=True).stdout
        found = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout.split()[0].decode()
        assert found == bench.product.sums["store.squashfs"], command


def test_a_tree_keeps_owners_marks_and_capabilities(bench: Bench, first: Path) -> None:
    made = product(bench.rig.folder / "tree", bench.product.registry, placement="tree")
    rig = Rig(bench.rig.checkout, bench.rig.folder, made.layer, bench.rig.settings)
    build = rig.build("tree-build", sstate="sstate", RIG_FSTYPES="squashfs")
    build.run("bitbake", "gateway-image")
    (bench.rig.folder / "whole.tar").unlink(missing_ok=True)
    made.shiplap("extract", str(build.image("squashfs")), "usr/share/shiplap/store", "-o", str(bench.rig.folder / "whole.tar"))
    listed = subprocess.run(
        ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-tvvf", bench.rig.folder / "whole.tar"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for entry in (
        r"-rwsr-xr-x\S*\s+0/0 .*/bin/su",
        r"-\S+\s+65534/65534 .*/etc/a",
        r"h\S+\s+65534/65534 .*/etc/b link to .*/etc/a",
        r"p\S+\s+0/0 .*/etc/fifo",
        r"c\S+\s+0/0 +0,0 .*/gone",  # a whiteout
    ):
        assert re.search(f"^{entry}$", listed, re.M), f"{entry}\n{listed}"
    assert "trusted.overlay.opaque" in listed and "security.capability" in listed, listed


def test_a_disk_image_has_the_store_in_partitions_that_its_root_hash_names(bench: Bench, first: Path) -> None:
    if not (bench.rig.checkout.core / "scripts/wic").exists() and shutil.which("wic") is None:
        pytest.skip("this OE-Core has wic in a repository of its own")
    writer = bench.rig.checkout.core / "scripts/lib/wic/plugins/imager/direct.py"
    told = subprocess.run(["sfdisk", "--help"], capture_output=True, text=True, check=True, env={**os.environ, "PATH": SEARCH_PATH}).stdout
    if writer.exists() and "sfdisk --sector-size" in writer.read_text() and "--sector-size" not in told:
        pytest.skip("this OE-Core's wic wants a newer sfdisk than this system's")
    made = product(bench.rig.folder / "partition", bench.product.registry, placement="partition")
    rig = Rig(bench.rig.checkout, bench.rig.folder, made.layer, bench.rig.settings)
    build = rig.build("partition-build", sstate="sstate", RIG_FSTYPES="wic")
    build.run("bitbake", "gateway-image")
    root_hash = (made.folder / "out/store.roothash").read_text().strip()
    disk = build.image("wic").read_bytes()
    assert disk[512:520] == b"EFI PART"
    entries = [disk[start : start + 128] for start in range(1024, 1024 + 128 * 128, 128)]
    found = {str(uuid.UUID(bytes_le=one[16:32])): struct.unpack("<QQ", one[32:48]) for one in entries if any(one[:16])}
    for name, half in (("store.squashfs", root_hash[:32]), ("store.verity", root_hash[-32:])):
        begin, end = found[str(uuid.UUID(half))]
        data = (made.folder / "out" / name).read_bytes()
        assert disk[begin * 512 : (end + 1) * 512].startswith(data), name


def test_an_image_beyond_its_limit_is_an_error(bench: Bench, first: Path) -> None:
    build = bench.rig.build("limit", sstate="sstate", **{"SHIPLAP_MAX_BYTES[squashfs]": "4096"})
    said = build.run("bitbake", "gateway-image", check=False)
    assert "SHIPLAP_MAX_BYTES[squashfs] allows 4096" in said


def test_the_layer_passes_the_check_of_the_yocto_project(bench: Bench, first: Path) -> None:
    copy = bench.rig.folder / "meta-checked"
    shutil.copytree(bench.product.layer, copy)
    build = bench.rig.build("check", layers=False)
    said = build.run("yocto-check-layer", str(copy), "--no-auto-dependency")
    assert "meta-checked ... PASS" in said, said[-4000:]


def test_a_finished_build_can_be_embedded_without_shiplap(bench: Bench, first: Path) -> None:
    made = Product(bench.rig.folder / "prebuilt", bench.product.registry)
    shutil.copytree(bench.product.folder, made.folder, ignore=shutil.ignore_patterns("meta-gateway", "cache"))
    made.generate("--prebuilt", "out")
    rig = Rig(bench.rig.checkout, bench.rig.folder, made.layer, bench.rig.settings)
    build = rig.build("prebuilt-build", downloads="none", BB_NO_NETWORK="1", RIG_FSTYPES="squashfs")
    build.run("bitbake", "gateway-image")
    assert sums_of(build.deployed / "gateway-store") == made.sums
    data = subprocess.run(
        ["unsquashfs", "-cat", str(build.image("squashfs")), "usr/share/shiplap/store.squashfs"], capture_output=True
    ).stdout
    assert subprocess.run(["sha256sum"], input=data, capture_output=True).stdout.split()[0].decode() == made.sums["store.squashfs"]


def test_a_changed_digest_builds_the_store_again_and_nothing_else(bench: Bench, first: Path) -> None:
    """The last one: the product is another one afterwards."""
    push(bench.product.registry, "team/db", oci_files([top_of(2)]))
    bench.product.lock_and_build()
    bench.product.generate()
    build = bench.rig.build("first", sstate="sstate")
    said = build.run("bitbake", "-n", "gateway-store")
    recipes = set(re.findall(r"Running (?:setscene )?(?:noexec )?task \d+ of \d+ \((\S+):do_\w+\)", said))
    assert {Path(recipe.rpartition(":")[2]).name.partition("_")[0] for recipe in recipes} == {"gateway-store"}
    build.run("bitbake", "gateway-store")
    deployed = sums_of(build.deployed / "gateway-store")
    assert deployed["store.squashfs"] == bench.product.sums["store.squashfs"]
    record = json.loads((build.deployed / "gateway-store/record.json").read_text())
    assert record and os.path.exists(build.deployed / "gateway-store/sbom.spdx.json")
