"""The generated layer in the real BitBake library: it parses, fetches from a real registry, builds, installs under pseudo, deploys."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import ImageSpec, oci_files
from commandline import folder_for_everybody, shiplap_command
from images import directory, file
from layertar import build
from registryserver import Registry, authfile, htpasswd_auth, make_authority, push, running_registry
from requirement import require
from standincore import StandIn
from yoctoproduct import Product, need, sums_of

BASE = build([directory("bin"), file("bin/app", b"app" * 50000), file("bin/su", b"x", mode=0o4755)])
APP = ImageSpec([BASE, build([file("app", b"app" * 700)])], tags=["1"])
DB = ImageSpec([BASE, build([file("db", b"db" * 300)])], tags=["1"])
STORE, IMAGE, TOOL = "gateway-store_*.bb", "gateway-image.bb", "shiplap_*.bb"


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    need()
    with folder_for_everybody() as folder, running_registry(folder / "registry") as registry:
        push(registry.address, "team/app", oci_files([APP]))
        push(registry.address, "team/db", oci_files([DB]))
        made = Product(folder / "product", registry)
        made.folder.mkdir()
        made.write(registry.address)
        made.shiplap("lock")
        made.shiplap("build", "--locked", "-o", "out")
        made.generate()
        yield made


@pytest.fixture(scope="module")
def built(product: Product) -> Iterator[StandIn]:
    """After do_fetch, do_unpack, do_compile."""
    with folder_for_everybody() as folder:
        stand_in = StandIn(folder, product.folder / "meta")
        answer = stand_in.run(STORE, ["task", "do_fetch"], ["task", "do_unpack"], ["task", "do_compile"])
        assert answer.error is None, answer.said
        yield stand_in


@pytest.fixture
def empty(product: Product) -> Iterator[StandIn]:
    with folder_for_everybody() as folder:
        yield StandIn(folder, product.folder / "meta")


def test_the_store_is_the_one_of_the_plain_command_line_to_the_byte(product: Product, built: StandIn) -> None:
    assert sums_of(built.work("gateway-store") / "build/out") == sums_of(product.folder / "out")


def test_blobs_lie_in_the_download_folder_under_the_names_of_shiplaps_mirrors(product: Product, built: StandIn) -> None:
    names = {path.name for path in (built.folder / "downloads").iterdir()}
    blobs = {name for name in names if re.fullmatch(r"sha256-[0-9a-f]{64}", name)}
    assert len(blobs) == 5 and {f"{name}.done" for name in blobs} <= names
    product.shiplap("build", "--locked", "--offline", "--cache", "other", "--mirror", str(built.folder / "downloads"), "-o", "again")
    assert sums_of(product.folder / "again")["store.squashfs"] == sums_of(product.folder / "out")["store.squashfs"]


def test_what_was_fetched_is_not_asked_for_again(product: Product, built: StandIn) -> None:
    before = len(product.registry.requests())
    assert built.run(STORE, ["task", "do_fetch"]).error is None
    assert len(product.registry.requests()) == before


def test_a_mirror_serves_without_network(product: Product, built: StandIn, empty: StandIn) -> None:
    mirror = {"BB_NO_NETWORK": "1", "PREMIRRORS": f".*://.*/.* file://{built.folder}/downloads/"}
    before = len(product.registry.requests())
    assert empty.run(STORE, ["task", "do_fetch"], **mirror).error is None
    assert len(product.registry.requests()) == before
    (empty.folder / "downloads").rename(empty.folder / "gone")
    answer = empty.run(STORE, ["task", "do_fetch"], BB_NO_NETWORK="1")
    assert answer.error is not None and "BB_NO_NETWORK" in answer.said and "digest=sha256-" in answer.said


def blob_of(stand_in: StandIn) -> str:
    values = stand_in.run(STORE, ["value", "SRC_URI"]).values
    largest = max(re.findall(r"digest=(\S+?);size=(\d+)", values[0]), key=lambda one: int(one[1]))
    return str(largest[0])


def test_a_mirror_with_wrong_bytes_is_noticed_and_the_registry_asked(product: Product, built: StandIn, empty: StandIn) -> None:
    name = blob_of(built)
    shutil.copytree(built.folder / "downloads", empty.folder / "mirror", symlinks=True)
    (empty.folder / "mirror" / name).write_bytes(b"something else")
    answer = empty.run(STORE, ["task", "do_fetch"], PREMIRRORS=f".*://.*/.* file://{empty.folder}/mirror/")
    assert answer.error is None and "Checksum" in answer.said
    assert (empty.folder / "downloads" / name).read_bytes() == (built.folder / "downloads" / name).read_bytes()


def test_wrong_bytes_of_a_registry_never_get_the_blobs_name(product: Product, built: StandIn, empty: StandIn) -> None:
    name = blob_of(built)
    stored = product.registry.blob_file(name.replace("-", ":", 1))
    good = stored.read_bytes()
    stored.write_bytes(bytes(len(good)))
    try:
        answer = empty.run(STORE, ["task", "do_fetch"])
    finally:
        stored.write_bytes(good)
    assert answer.error is not None and "another digest than" in answer.said
    assert not list((empty.folder / "downloads").glob(f"{name}*[!k]")) or not (empty.folder / "downloads" / name).exists()


def test_a_broken_transfer_goes_on_where_it_ended(product: Product, built: StandIn, empty: StandIn) -> None:
    name = blob_of(built)
    whole = (built.folder / "downloads" / name).read_bytes()
    (empty.folder / "downloads").mkdir()
    (empty.folder / "downloads" / f"{name}.shiplap-part").write_bytes(whole[:100])
    assert empty.run(STORE, ["task", "do_fetch"]).error is None
    assert (empty.folder / "downloads" / name).read_bytes() == whole
    # A beginning that is wrong is found out, and thrown away.
    (empty.folder / "downloads").rename(empty.folder / "first")
    (empty.folder / "downloads").mkdir()
    (empty.folder / "downloads" / f"{name}.shiplap-part").write_bytes(b"\0" * 100)
    assert empty.run(STORE, ["task", "do_fetch"]).error is not None
    assert empty.run(STORE, ["task", "do_fetch"]).error is None
    assert (empty.folder / "downloads" / name).read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("oci://127.0.0.1:1/a", "shiplap lock && shiplap generate yocto"),
        ("oci://127.0.0.1:1/a;digest=sha256:00", "write sha256-<64 hexadecimal digits>"),
        ("oci://127.0.0.1:1/A b;digest=sha256-" + "0" * 64, "write oci://HOST"),
        ("oci://127.0.0.1:1/a;digest=sha256-" + "0" * 64 + ";size=many", "write a number of bytes"),
    ],
)
def test_a_line_that_is_wrong_says_how_it_should_be(empty: StandIn, line: str, said: str) -> None:
    words = ["python", f"bb.fetch2.FetchData('{line}', d).localpath"]
    answer = empty.run(STORE, words)
    assert answer.error is not None and said in answer.error + answer.said


@pytest.fixture(scope="module")
def guarded(product: Product) -> Iterator[tuple[Registry, Path]]:
    """A registry with TLS and a password; and the folder of its authority. Its storage is the other one's."""
    with folder_for_everybody() as folder:
        authority = make_authority(folder / "tls")
        os.symlink(product.registry.storage, folder / "storage")
        with running_registry(folder, tls=authority, auth=htpasswd_auth(folder)) as registry:
            yield registry, folder


def fetch_words(registry: Registry, blob: str) -> list[str]:
    url = f"oci://{registry.address}/team/app;digest={blob}"
    return ["python", f"bb.fetch2.Fetch(['{url}'], d).download()"]


def test_logins_and_authorities_are_those_of_the_user(built: StandIn, empty: StandIn, guarded: tuple[Registry, Path]) -> None:
    registry, folder = guarded
    words = fetch_words(registry, blob_of(built))
    trusted = {"SSL_CERT_FILE": str(folder / "tls/ca.crt")}
    assert "certificate" in (empty.run(STORE, words).said or "")
    assert "log in" in empty.run(STORE, words, env=trusted).said
    login = authfile(folder / "auth.json", {registry.address: "ci:right: horse"})
    login.chmod(0o644)
    for settings, env in (({"SHIPLAP_AUTHFILE": str(login)}, trusted), ({}, {**trusted, "REGISTRY_AUTH_FILE": str(login)})):
        shutil.rmtree(empty.folder / "downloads", ignore_errors=True)
        answer = empty.run(STORE, words, env=env, **settings)
        assert answer.error is None, answer.said


def test_a_credential_helper_is_asked(built: StandIn, empty: StandIn, guarded: tuple[Registry, Path]) -> None:
    registry, folder = guarded
    helper = empty.folder / "bin/docker-credential-mine"
    helper.write_text('#!/bin/sh\necho \'{"Username": "ci", "Secret": "right: horse"}\'\n')
    helper.chmod(0o755)
    (empty.folder / ".docker").mkdir()
    (empty.folder / ".docker/config.json").write_text(json.dumps({"credHelpers": {registry.address: "mine"}}))
    answer = empty.run(STORE, fetch_words(registry, blob_of(built)), env={"SSL_CERT_FILE": str(folder / "tls/ca.crt")})
    assert answer.error is None, answer.said


def test_a_changed_digest_changes_what_is_fetched_and_no_place_time_or_processor_does(product: Product, built: StandIn) -> None:
    first = built.run(STORE, ["hashes"]).values[0]
    settings = {
        "DL_DIR": "${TOPDIR}/elsewhere",
        "PARALLEL_MAKE": "-j 9",
        "SOURCE_DATE_EPOCH": "1",
        "SHIPLAP_AUTHFILE": "/somewhere",
        "PREMIRRORS": ".*://.*/.* file:///nowhere/",
    }
    assert built.run(STORE, ["hashes"], **settings).values[0] == first
    recipe = next(built.layer.rglob(STORE))
    text = recipe.read_text()
    try:
        recipe.write_text(text.replace(blob_of(built), "sha256-" + "0" * 64))
        other = built.run(STORE, ["hashes"]).values[0]
    finally:
        recipe.write_text(text)
    assert {name for name in first if first[name] != other[name]} == {"do_fetch", "do_unpack"}, "what follows them runs because they ran"


def installed(stand_in: StandIn, **settings: str) -> dict[str, str]:
    """do_install under pseudo: path → owner, group and mode, as pseudo says; links with their target."""
    shutil.rmtree(stand_in.folder / "pseudo", ignore_errors=True)
    shutil.rmtree(stand_in.work("gateway-store") / "image", ignore_errors=True)
    command = "find ${D} -mindepth 1 -printf '%P %u:%g %m %l|'"
    step = ["python", f'__import__("subprocess").check_output(d.expand("{command}"), shell=True, text=True)']
    answer = stand_in.run(STORE, ["task", "do_install"], step, pseudo=True, **settings)
    assert answer.error is None, answer.said
    return {line.partition(" ")[0]: line.partition(" ")[2].strip() for line in answer.values[-1].split("|") if line}


def test_the_kit_is_installed_for_the_init_systems_of_the_distribution(built: StandIn) -> None:
    both = installed(built)
    assert both["usr/share/shiplap/store.squashfs"] == "root:root 644"
    assert both["usr/sbin/shiplap-target"] == "root:root 755"
    assert both["etc/init.d/shiplap-store"] == "root:root 755"
    assert both["etc/rc5.d/S19shiplap-store"].endswith("../init.d/shiplap-store")
    assert both["etc/rc2.d/S21shiplap-containers"].endswith("../init.d/shiplap-containers")
    assert "usr/lib/systemd/system/shiplap-store.service" in both and "etc/shiplap/store.conf" in both
    systemd = installed(built, DISTRO_FEATURES="systemd")
    assert "lib/systemd/system/shiplap-store.service" in systemd and not any(
        "init.d" in path or "usr/lib/systemd" in path for path in systemd
    )
    sysv = installed(built, DISTRO_FEATURES="sysvinit usrmerge")
    assert not any("systemd" in path for path in sysv) and "etc/init.d/shiplap-containers" in sysv


def test_everything_is_deployed_beside_each_other(product: Product, built: StandIn) -> None:
    assert built.run(STORE, ["task", "do_deploy"]).error is None
    deployed = built.work("gateway-store") / "deploy-gateway-store/gateway-store"
    assert sums_of(deployed) == sums_of(product.folder / "out") and (deployed / "sbom.spdx.json").is_file()
    done = shiplap_command("verify", str(deployed), "--lock", str(product.folder / "shiplap.lock.yaml"))
    assert done.returncode == 0, done.stderr


def test_licences_are_in_the_words_of_the_release(built: StandIn) -> None:
    older = "Apache-2.0 & (MIT | GPL-2.0-only-with-Classpath-exception-2.0)"
    words = (
        ["value", "LICENSE"],
        ["value", "LICENSE:gateway-store"],
        ["flag", "NO_GENERIC_LICENSE", "GPL-2.0-only-with-Classpath-exception-2.0"],
    )
    values = built.run(STORE, *words).values
    assert (
        values[0] == f"MIT & ({older}) & LicenseRef-Acme"
        and values[1] == f"({older}) & LicenseRef-Acme"
        and values[2] == "image-licenses.txt"
    )
    module = built.folder / "core/lib/oe/spdx_license.py"
    module.touch()
    try:
        newer = built.run(STORE, ["value", "LICENSE"]).values[0]
    finally:
        module.unlink()
    assert newer == "MIT AND (Apache-2.0 AND (MIT OR GPL-2.0-only WITH Classpath-exception-2.0)) AND LicenseRef-Acme"


def test_packages_of_other_layers_are_recommended_where_these_are(built: StandIn) -> None:
    words = ["value", "RRECOMMENDS:gateway-store-runtime"]
    assert built.run(STORE, words).values[0].split() == []
    some = built.run(STORE, words, BBFILE_COLLECTIONS="core virtualization-layer openembedded-layer").values[0]
    assert some.split() == ["docker", "cryptsetup"]


@pytest.fixture(scope="module")
def deployed(product: Product, built: StandIn) -> Path:
    """What an image finds in DEPLOY_DIR_IMAGE."""
    folder = built.folder / "tmp/deploy/images/some-machine"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(product.folder / "out", folder / "gateway-store")
    return folder


def test_an_image_is_held_against_the_deployed_store(built: StandIn, deployed: Path) -> None:
    rootfs = built.work("gateway-image") / "rootfs/usr/share/shiplap"
    rootfs.mkdir(parents=True, exist_ok=True)
    answer = built.run(IMAGE, ["flag", "do_rootfs", "depends"], ["value", "IMAGE_QA_COMMANDS"], ["function", "shiplap_check_stores"])
    assert answer.values[0].split() == ["gateway-store:do_deploy"] and "shiplap_check_stores" in answer.values[1]
    assert "not installed: add it to IMAGE_INSTALL" in f"{answer.error} {answer.said}"
    shutil.copy(deployed / "gateway-store/store.squashfs", rootfs)
    assert built.run(IMAGE, ["function", "shiplap_check_stores"]).error is None
    with (rootfs / "store.squashfs").open("r+b") as file:
        file.write(b"x")
    answer = built.run(IMAGE, ["function", "shiplap_check_stores"])
    assert "is not the deployed one" in f"{answer.error} {answer.said}"
    (rootfs / "store.squashfs").unlink()


def test_an_image_beyond_its_limit_is_an_error(built: StandIn) -> None:
    folder = built.work("gateway-image") / "deploy-image"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gateway-image.squashfs").write_bytes(bytes(4097))
    assert built.run(IMAGE, ["function", "shiplap_check_sizes"], **{"SHIPLAP_MAX_BYTES[squashfs]": "4097"}).error is None
    answer = built.run(IMAGE, ["function", "shiplap_check_sizes"], **{"SHIPLAP_MAX_BYTES[squashfs]": "4096"})
    assert "4097 bytes, SHIPLAP_MAX_BYTES[squashfs] allows 4096" in f"{answer.error} {answer.said}"


def test_partitions_have_the_uuids_of_the_root_hash(product: Product, built: StandIn, deployed: Path) -> None:
    root_hash = (product.folder / "out/store.roothash").read_text().strip()
    steps = [["python", f"shiplap_partition(d, 'gateway-store', '{what}')"] for what in ("data", "hash")]
    data, tree = built.run(IMAGE, *steps).values
    assert f"{deployed}/gateway-store/store.squashfs" in data and root_hash[:32] in data.replace("-", "")
    assert f"{deployed}/gateway-store/store.verity" in tree and root_hash[-32:] in tree.replace("-", "")
    assert "0" * 12 in built.run(IMAGE, steps[0], DEPLOY_DIR_IMAGE="/nowhere").values[0], "`bitbake -e` before the first build"


def test_an_image_is_sealed_by_its_conversion(built: StandIn) -> None:
    require("veritysetup")
    image = built.work("gateway-image") / "temp/gateway-image.squashfs"  # where the stand-in runs functions
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(b"squashfs" * 700)
    command = ["value", "CONVERSION_CMD:shiplapverity"]
    said = built.run(IMAGE, command, ["value", "CONVERSIONTYPES"]).values
    assert said[0].startswith("shiplap_seal gateway-image.") and said[1].split() == ["gz", "shiplapverity"]
    step = ["python", f"(d.setVar('seal_it', '    shiplap_seal {image.name}\\n'), d.setVarFlag('seal_it', 'func', '1'))"]
    assert (answer := built.run(IMAGE, step, ["function", "seal_it"])).error is None, answer.said
    root_hash = Path(f"{image}.roothash").read_text().strip()
    subprocess.run(["veritysetup", "verify", image, f"{image}.shiplapverity", root_hash], check=True)


def test_a_tree_is_unpacked_with_owners_and_marks_under_pseudo(product: Product) -> None:
    product.write(product.registry.address, placement="tree")
    layer = product.generate("meta-tree")
    product.write(product.registry.address)
    with folder_for_everybody() as folder:
        stand_in = StandIn(folder, layer)
        tasks = [["task", f"do_{name}"] for name in ("fetch", "unpack", "compile", "deploy")]
        assert (answer := stand_in.run(STORE, *tasks)).error is None, answer.said
        images = folder / "tmp/deploy/images/some-machine"
        images.mkdir(parents=True)
        shutil.copytree(stand_in.work("gateway-store") / "deploy-gateway-store/gateway-store", images / "gateway-store")
        shutil.rmtree(folder / "pseudo", ignore_errors=True)
        look = "find ${IMAGE_ROOTFS} -path '*/bin/su' -printf '%u %m'"
        listed = ["python", f'__import__("subprocess").check_output(d.expand("{look}"), shell=True, text=True)']
        make = ["python", "bb.utils.mkdirhier(d.getVar('IMAGE_ROOTFS'))"]
        answer = stand_in.run(IMAGE, make, ["function", "shiplap_unpack_trees"], listed, ["function", "shiplap_check_stores"], pseudo=True)
        assert answer.error is None, answer.said
        assert answer.values[2] == "root 4755"


def test_a_prebuilt_layer_checks_its_files_and_deploys_them(product: Product) -> None:
    layer = product.generate("meta-prebuilt", "--prebuilt", "out")
    with folder_for_everybody() as folder:
        stand_in = StandIn(folder, layer)
        tasks = [["task", f"do_{name}"] for name in ("fetch", "unpack", "compile", "deploy")]
        assert (answer := stand_in.run(STORE, *tasks, BB_NO_NETWORK="1")).error is None, answer.said
        deployed = stand_in.work("gateway-store") / "deploy-gateway-store/gateway-store"
        assert sums_of(deployed) == sums_of(product.folder / "out")
        store = next((folder / "tmp").rglob("sources/*/store.squashfs"))
        store.write_bytes(b"another")
        answer = stand_in.run(STORE, ["task", "do_compile"])
        assert answer.error is not None and "store.squashfs: FAILED" in answer.said


def test_the_host_tool_parses_as_native_and_for_the_target(built: StandIn) -> None:
    values = built.run(TOOL, ["value", "SRC_URI"], ["value", "BBCLASSEXTEND"], ["value", "PV"], ["task", "do_fetch"]).values
    assert values[0] == "file://shiplap-0.1.0.tar" and values[1] == "native nativesdk" and values[2] == "0.1.0"


def test_a_helper_that_has_nothing_and_an_old_login_are_understood(built: StandIn) -> None:
    auth = base64.b64encode(b"me:secret").decode()
    path = built.folder / "logins.json"
    path.write_text(json.dumps({"credsStore": "absent", "auths": {"example.org": {"auth": auth}, "other": {"identitytoken": "t"}}}))
    make = "__import__('shiplap_bb.ocifetch').ocifetch._Registry.__new__(__import__('shiplap_bb.ocifetch').ocifetch._Registry)"
    values = []
    for host in ("example.org", "other", "x"):
        ask = f"(setattr(r, '_login_file', '{path}'), setattr(r, '_logged_in_as', ('{host}',)), r._login())[-1]"
        values += built.run(STORE, ["python", f"(lambda r: {ask})({make})"]).values
    assert values == ["('me', 'secret')", "('<token>', 't')", "(None, None)"]
