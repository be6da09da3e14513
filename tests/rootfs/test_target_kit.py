"""target.tar: what is in it, byte for byte the same, and scripts that the shells of devices read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from requirement import require
from shiplap.core.manifest.device import ContainerSettings, Health
from shiplap.core.reference import parse_reference
from shiplap.rootfs.target.conf import container_file, daemon_json, merge_config, store_conf
from shiplap.rootfs.target.containers import containers_of
from shiplap.rootfs.target.kit import target_files, target_tar
from shiplap.rootfs.target.settings import DataRoot, TargetRefused, TargetSettings
from shiplap.verity.discoverable import partition_uuids
from storeimages import APP, BASE

KIT = Path(__file__).resolve().parents[2] / "rootfs/target/files"
SCRIPTS = ("shiplap-target", "seed.sh", "references.sh", "overlay2.sh", "podman.sh", "vfs.sh", "engine.sh", "canary.sh")
KIT_BYTES_MAX = 48 << 10  # small: what a device of 8 MB of flash does not notice
CONFIG = "sha256:" + "c" * 64
IMAGES = ((CONFIG, "docker.io/library/app:1"),)
SETTINGS = TargetSettings(
    mode="store",
    engine="docker",
    driver="overlay2",
    store_id="1" * 64,
    store_path="/usr/share/shiplap",
    images=IMAGES,
    image="/usr/share/shiplap/store.squashfs",
    tree="/usr/share/shiplap/store.verity",
    root_hash="2" * 64,
    sha256="3" * 64,
    image_bytes=8192,
    init=("systemd", "sysv", "procd"),
)
PODMAN = replace(SETTINGS, engine="podman", driver="overlay", data_root=DataRoot("/var/lib/containers/storage"))
VFS = replace(SETTINGS, driver="vfs")
APP_CONTAINER = ContainerSettings("app", parse_reference("app:1"))


def one(**keys: object) -> tuple[str, ...]:
    return containers_of([replace(APP_CONTAINER, **keys)], IMAGES)[0].options  # type: ignore[arg-type]


def sourced(shell: list[str], text: bytes, then: str) -> str:
    done = subprocess.run([*shell, "-c", text.decode() + then], capture_output=True, check=True)
    return done.stdout.decode()


def conf_of(tar_path: Path) -> str:
    with tarfile.open(tar_path) as tar:
        file = tar.extractfile("etc/shiplap/store.conf")
        assert file is not None
        return file.read().decode()


SHELLS = (["dash"], ["busybox", "ash"], ["bash", "--posix"])


def test_shellcheck_finds_nothing() -> None:
    require("shellcheck")
    done = subprocess.run(
        ["shellcheck", "--shell=sh", "--severity=style", "--external-sources", *(f"rootfs/target/files/{name}" for name in SCRIPTS)],
        cwd=KIT.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_every_script_is_read_by_the_shells_of_devices(shell: list[str]) -> None:
    require("shells")
    for settings, count in ((SETTINGS, 11), (PODMAN, 9), (VFS, 11)):
        files = target_files(replace(settings, containers=containers_of([APP_CONTAINER], IMAGES), canary=b"an image"))
        scripts = [content for path, (mode, content) in files.items() if content.startswith(b"#!/bin/sh") or path.endswith(".sh")]
        assert len(scripts) == count
        for script in scripts:
            subprocess.run([*shell, "-n"], input=script, check=True, capture_output=True)


@pytest.mark.parametrize("settings", [SETTINGS, PODMAN, VFS], ids=lambda one: f"{one.engine} {one.driver}")
def test_the_kit_is_small(settings: TargetSettings) -> None:
    assert sum(len(content) for _, content in target_files(settings).values()) < KIT_BYTES_MAX


def test_the_tar_is_the_same_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "images.tar", [ImageSpec([BASE, APP], ["app:1"])])
    manifest = {
        "version": 1,
        "images": [{"ref": "app:1", "from": f"docker-archive:{archive}"}],
        "containers": [{"name": "app", "image": "app:1"}],
    }
    (tmp_path / "shiplap.yaml").write_text(json.dumps(manifest))
    digests = set()
    for number, environment in enumerate(({"TZ": "Asia/Tokyo", "LC_ALL": "C"}, {"TZ": "UTC", "LC_ALL": "de_DE.UTF-8"})):
        old = os.umask(0o077 if number else 0o022)
        try:
            done = shiplap_command("build", "-f", str(tmp_path / "shiplap.yaml"), "-o", str(tmp_path / f"out{number}"), env=environment)
        finally:
            os.umask(old)
        assert done.returncode == 0, done.stderr
        digests.add(hashlib.sha256((tmp_path / f"out{number}/target.tar").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_keys_of_the_device_change_no_byte_of_the_store(tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "images.tar", [ImageSpec([BASE, APP], ["app:1"])])
    plain = {"version": 1, "images": [{"ref": "app:1", "from": f"docker-archive:{archive}"}]}
    rich = plain | {
        "data-root": {"path": "/data/docker", "persistence": "persistent", "volumes-path": "/data/volumes"},
        "containers": [{"name": "app", "image": "app:1"}],
        "target": {"init": ["procd"]},
        "engine-config": {"log-driver": "local"},
        "placement": "partition",
        "verity": {"check": "full", "on-corruption": "restart", "seal": "always"},
    }
    outs = []
    for name, manifest in (("plain", plain), ("rich", rich)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(manifest))
        assert shiplap_command("build", "-f", str(tmp_path / f"{name}.yaml"), "-o", str(tmp_path / name)).returncode == 0
        outs.append(tmp_path / name)
    for artifact in ("store.squashfs", "store.json", "store.verity", "store.roothash"):
        assert (outs[0] / artifact).read_bytes() == (outs[1] / artifact).read_bytes()
    assert (outs[0] / "target.tar").read_bytes() != (outs[1] / "target.tar").read_bytes()
    conf = conf_of(outs[1] / "target.tar")
    values = dict(shlex.split(line)[0].split("=", 1) for line in conf.splitlines()[1:])
    root_hash = (outs[1] / "store.roothash").read_text().strip()
    assert values["IMAGE"].removeprefix("PARTUUID=").replace("-", "") == root_hash[:32]
    assert values["VERITY"].removeprefix("PARTUUID=").replace("-", "") == root_hash[32:]
    assert (values["SEALED"], values["ROOT_HASH"], values["CHECK"], values["ON_CORRUPTION"]) == ("yes", root_hash, "full", "restart")
    assert values["STORE_ID"] == hashlib.sha256((outs[1] / "store.json").read_bytes()).hexdigest()
    assert values["SHA256"] == hashlib.sha256((outs[1] / "store.squashfs").read_bytes()).hexdigest()
    assert int(values["IMAGE_BYTES"]) == (outs[1] / "store.squashfs").stat().st_size
    record = json.loads((outs[1] / "record.json").read_text())["options"]["target"]
    assert (record["sealed"], record["quadlet"], record["placement"], record["persistence"], record["containers"]) == (
        True,
        False,
        "partition",
        "persistent",
        ["app"],
    )


def test_seal_never_and_sha256_leave_the_store_unsealed(tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "images.tar", [ImageSpec([BASE, APP], ["app:1"])])
    for keys in ({"seal": "never"}, {"check": "sha256"}):
        manifest = {"version": 1, "images": [{"ref": "app:1", "from": f"docker-archive:{archive}"}], "verity": keys}
        (tmp_path / "shiplap.yaml").write_text(json.dumps(manifest))
        assert shiplap_command("build", "-f", str(tmp_path / "shiplap.yaml"), "-o", str(tmp_path / "out")).returncode == 0
        conf = conf_of(tmp_path / "out/target.tar")
        assert "SEALED=no\nROOT_HASH=''\n" in conf
        assert (tmp_path / "out/store.verity").exists()  # another root file system may seal it


def test_a_store_tar_alone_has_no_kit_and_a_container_of_the_command_line_s_images_is_checked(tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "images.tar", [ImageSpec([BASE, APP], ["other:1"])])
    assert shiplap_command("build", f"docker-archive:{archive}", "--output", "tar", "-o", str(tmp_path / "tar")).returncode == 0
    assert not (tmp_path / "tar/target.tar").exists()
    manifest = {"version": 1, "images": [{"ref": "app:1"}], "containers": [{"name": "app", "image": "app:1"}]}
    (tmp_path / "shiplap.yaml").write_text(json.dumps(manifest))
    done = shiplap_command("build", "-f", str(tmp_path / "shiplap.yaml"), f"docker-archive:{archive}", "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "container app: docker.io/library/app:1 is not in this store" in done.stderr


def test_what_is_in_the_tar_has_the_modes_and_places_of_a_root_file_system() -> None:
    with tarfile.open(fileobj=io.BytesIO(target_tar(SETTINGS, 5))) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == sorted(members, key=lambda name: name.split("/"))
    assert {member.uid for member in members.values()} == {0} and {member.mtime for member in members.values()} == {5}
    assert members["usr/sbin/shiplap-target"].mode == 0o755
    assert members["usr/share/shiplap/store"].isdir() and members["var/lib/docker"].isdir()
    wants = members["usr/lib/systemd/system/multi-user.target.wants/shiplap-containers.service"]
    assert (wants.issym(), wants.linkname) == (True, "../shiplap-containers.service")
    assert members["etc/rc.d/S21shiplap-store"].linkname == "../init.d/shiplap-store"
    for name in members:
        assert "/" not in name or name.rpartition("/")[0] in members


def test_systemd_starts_no_engine_without_the_store() -> None:
    files = {path: content.decode() for path, (_, content) in target_files(SETTINGS).items()}
    for unit in ("docker.service", "docker.socket"):
        needs = files[f"usr/lib/systemd/system/{unit}.d/10-shiplap.conf"]
        assert "Requires=shiplap-store.service" in needs and "After=shiplap-store.service" in needs
    store = files["usr/lib/systemd/system/shiplap-store.service"]
    assert "Before=docker.service docker.socket" in store
    # docker.socket comes before basic.target: a store that waited for it would be a circle, which systemd cuts somewhere.
    assert "DefaultDependencies=no" in store


def test_systemd_starts_none_of_podman_s_units_without_the_store() -> None:
    files = {path: content.decode() for path, (_, content) in target_files(PODMAN).items()}
    for unit in ("podman.service", "podman.socket", "podman-auto-update.service", "podman-kube@.service", "podman-restart.service"):
        needs = files[f"usr/lib/systemd/system/{unit}.d/10-shiplap.conf"]
        assert "Requires=shiplap-store.service" in needs and "After=shiplap-store.service" in needs
    # What it starts again must not be a former firmware's definition.
    assert "After=shiplap-store.service shiplap-containers.service" in needs


def unit_folder(folder: Path, settings: TargetSettings) -> Path:
    """Our units beside an engine's, as Debian's package enables them."""
    units, engine = "usr/lib/systemd/system/", settings.engine
    texts = {
        f"{engine}.service": f"[Unit]\nAfter={engine}.socket\nRequires={engine}.socket\n[Service]\nExecStart=/bin/true\n",
        f"{engine}.socket": f"[Socket]\nListenStream=/run/{engine}.sock\n",
    }
    enabled = [("sockets", f"{engine}.socket"), ("multi-user", f"{engine}.service"), ("multi-user", "shiplap-containers.service")]
    if engine == "podman":
        texts["podman-restart.service"] = (
            "[Unit]\nWants=network-online.target\nAfter=network-online.target\n[Service]\nExecStart=/bin/true\n"
        )
        enabled.append(("multi-user", "podman-restart.service"))
    for path, (_, content) in target_files(replace(settings, init=("systemd",))).items():
        if path.startswith(units):
            texts[path.removeprefix(units)] = content.decode().replace("/usr/sbin/shiplap-target", "/bin/true")
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for wants, unit in enabled:
        (folder / f"{wants}.target.wants").mkdir(exist_ok=True)
        (folder / f"{wants}.target.wants" / unit).symlink_to(f"../{unit}")
    return folder


def analyzed(folder: Path) -> str:
    words = ["systemd-analyze", "verify", "--man=no", "multi-user.target"]
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:/usr/lib/systemd/system"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("settings", [SETTINGS, PODMAN], ids=lambda one: str(one.engine))
def test_systemd_finds_no_circle_in_the_order_of_the_units(settings: TargetSettings, tmp_path: Path) -> None:
    require("systemd")
    folder = unit_folder(tmp_path, settings)
    assert [line for line in analyzed(folder).splitlines() if "cycle" in line or "shiplap" in line] == []
    store = folder / "shiplap-store.service"
    store.write_text(store.read_text().replace("DefaultDependencies=no\n", ""))
    assert "cycle" in analyzed(folder)  # so it would be found


def test_openwrt_gets_its_engine_s_configuration_through_uci() -> None:
    files = target_files(replace(SETTINGS, init=("procd",), data_root=DataRoot("/data/docker")))
    assert "etc/docker/daemon.json" not in files
    assert b"set dockerd.globals.data_root='/data/docker'" in files["etc/uci-defaults/50-shiplap"][1]


def test_daemon_json_has_both_and_names_what_is_at_odds() -> None:
    settings = replace(SETTINGS, engine_config={"log-driver": "local"}, data_root=DataRoot("/data/docker"))
    assert json.loads(daemon_json(settings)) == {"data-root": "/data/docker", "log-driver": "local", "storage-driver": "overlay2"}
    with pytest.raises(TargetRefused, match='engine-config sets storage-driver to "vfs", the store needs "overlay2"'):
        daemon_json(replace(SETTINGS, engine_config={"storage-driver": "vfs"}))
    assert merge_config({"a": 1}, {"a": 1, "b": 2}, "x", "y") == {"a": 1, "b": 2}


ODD = ("it's", '"', "$HOME `id` $(id)", "a  b", "*", "-rf", "\\n\\", "line\nline", "ü", "!x", "~")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_no_value_of_a_manifest_means_anything_to_the_shell(shell: list[str]) -> None:
    require("shells")
    container = replace(APP_CONTAINER, args=ODD, env=tuple(("A" * (number + 1), value) for number, value in enumerate(ODD)), volumes=ODD)
    text = container_file(containers_of([container], IMAGES)[0])
    said = sourced(shell, text, '\nengine() { for word in "$@"; do printf "%s\\0" "$word"; done; }\ncreate ID\n').split("\0")
    assert said[: said.index("ID") + 1][-1] == "ID"
    assert tuple(said[said.index("ID") + 1 : -1]) == ODD
    options = said[: said.index("ID")]
    assert [f"--volume={value}" for value in ODD] == [word for word in options if word.startswith("--volume=")]
    assert options[:4:2] == ["create", "app"] and all(word.startswith("--") for word in options[5:])
    settings = replace(SETTINGS, image="/it's $(id)", data_root=DataRoot("/var/lib/docker", size="$(id)"))
    assert sourced(shell, store_conf(settings), '\nprintf %s "$IMAGE|$SIZE"') == "/it's $(id)|$(id)"
    with pytest.raises(TargetRefused, match="cannot have a line break"):
        store_conf(replace(SETTINGS, image="a\nb"))


def test_every_key_of_a_container_becomes_its_option() -> None:
    health = Health("test -e /x", "30s", "5s", 3, "1m")
    assert one(restart="always", network="none", user="999", env_file="/data/e", memory_bytes=1 << 20, cpus="0.5", pids_limit=5) == (
        "--restart=always", "--network=none", "--user=999", "--env-file=/data/e", "--memory=1048576", "--cpus=0.5", "--pids-limit=5"
    )  # fmt: skip
    assert one(health=health) == (
        "--health-cmd=test -e /x", "--health-interval=30s", "--health-timeout=5s", "--health-retries=3", "--health-start-period=1m"
    )  # fmt: skip
    assert one(volumes=("a:/a",), devices=("/dev/x",), tmpfs=("/tmp",), cap_drop=("ALL",), cap_add=("CHOWN",), security_opt=("s",)) == (
        "--volume=a:/a", "--device=/dev/x", "--tmpfs=/tmp", "--cap-drop=ALL", "--cap-add=CHOWN", "--security-opt=s"
    )  # fmt: skip
    assert one(env=(("A", "b"),), read_only=True) == ("--env=A=b", "--read-only")
    assert one(entrypoint="/bin/sh", ports=("8080:80", "[::1]:53:53/udp"), labels=(("org.a", "b c"),)) == (
        "--entrypoint=/bin/sh", "--publish=8080:80", "--publish=[::1]:53:53/udp", "--label=org.a=b c"
    )  # fmt: skip
    assert one(health=Health(None)) == ("--no-healthcheck",)


def test_containers_start_as_written_but_after_what_they_name() -> None:
    def made(name: str, *after: str) -> ContainerSettings:
        return replace(APP_CONTAINER, name=name, after=after)

    order = containers_of([made("a", "c"), made("b"), made("c", "d"), made("d")], IMAGES)
    assert [container.name for container in order] == ["b", "d", "c", "a"]


def test_the_definition_changes_with_everything_that_a_container_is_made_of() -> None:
    def definition(**keys: object) -> bytes:
        text = container_file(containers_of([replace(APP_CONTAINER, **keys)], IMAGES)[0])  # type: ignore[arg-type]
        return next(line for line in text.splitlines() if line.startswith(b"DEFINITION="))

    first = definition()
    assert first == definition(wait_for=("/x",))  # decides when, not what
    for keys in ({"args": ("x",)}, {"user": "1"}, {"env": (("A", "1"),)}, {"read_only": True}, {"volumes": ("a:/a",)}):
        assert definition(**keys) != first
    other = containers_of([APP_CONTAINER], (("sha256:" + "d" * 64, "docker.io/library/app:1"),))[0]
    assert first not in container_file(other).splitlines()


def test_partitions_are_named_by_the_two_ends_of_the_root_hash() -> None:
    digits = "0123456789abcdef0123456789abcdef" + "fedcba9876543210fedcba9876543210"
    assert partition_uuids(digits) == ("01234567-89ab-cdef-0123-456789abcdef", "fedcba98-7654-3210-fedc-ba9876543210")


REPOSITORIES = {
    "app": {"app:1": "sha256:" + "a" * 64, "app:1-x": "sha256:" + "b" * 64, "app@sha256:" + "e" * 64: "sha256:" + "a" * 64},
    "app-x": {"app-x:1": "sha256:" + "a" * 64},
    "app.x/y": {"app.x/y:Z_.9": "sha256:" + "c" * 64},
    "registry.example:5000/a": {"registry.example:5000/a:latest": "sha256:" + "d" * 64},
    "empty": {},
}


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("form", ["as the engine writes it", "with blanks", "empty", "many"])
def test_references_are_read_and_written_as_the_engine_does(shell: list[str], form: str) -> None:
    require("shells")
    names = {} if form == "empty" else dict(REPOSITORIES)
    if form == "many":
        names |= {f"n{number}": {f"n{number}:{tag}": "sha256:" + "a" * 64 for tag in range(20)} for number in range(1000)}
    data = {"Repositories": {name: dict(sorted(one.items())) for name, one in sorted(names.items())}}
    text = json.dumps(data, indent=1) if form == "with blanks" else json.dumps(data, separators=(",", ":"))
    script = f". {KIT}/references.sh; references"
    done = subprocess.run([*shell, "-c", script], input=text.encode(), capture_output=True, check=True)
    lines = sorted(tuple(line.split(" ")) for line in done.stdout.decode().splitlines())
    wanted = sorted((name, reference, digest) for name, one in names.items() for reference, digest in one.items())
    assert lines == wanted
    back = subprocess.run(
        [*shell, "-c", f". {KIT}/references.sh; LC_ALL=C sort -u | to_repositories"],
        input=done.stdout,
        capture_output=True,
        check=True,
    )
    data["Repositories"].pop("empty", None)
    assert back.stdout.decode() == json.dumps(data, separators=(",", ":"))
