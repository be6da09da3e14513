"""What init systems run of the kit, with stand-ins for its program; and the programs that a device must have."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from archives import ImageSpec
from images import file
from layertar import build
from requirement import require
from seedings import KIT, unpacked_store
from shiplap.core.manifest.device import ContainerSettings
from shiplap.core.reference import parse_reference
from shiplap.rootfs.target.conf import store_conf
from shiplap.rootfs.target.containers import containers_of
from shiplap.rootfs.target.kit import target_files
from shiplap.rootfs.target.settings import DataRoot, TargetSettings
from storeimages import APP, BASE, DATA

REPOSITORY = KIT.parents[2]
IMAGES = (("sha256:" + "c" * 64, "docker.io/library/app:1"),)
SETTINGS = TargetSettings(
    mode="store", engine="docker", driver="overlay2", store_id="1" * 64, store_path="/usr/share/shiplap", images=IMAGES,
    image="/usr/share/shiplap/store.squashfs", root_hash="2" * 64, init=("systemd", "sysv", "procd"),
    containers=containers_of([ContainerSettings("app", parse_reference("app:1"))], IMAGES),
)  # fmt: skip
PODMAN = replace(SETTINGS, engine="podman", driver="overlay", data_root=DataRoot("/var/lib/containers/storage"))
SHELLS = (["dash"], ["busybox", "ash"])


def script(name: str, settings: TargetSettings = SETTINGS) -> str:
    return target_files(settings)[f"etc/init.d/{name}"][1].decode()


def run(shell: list[str], text: str, folder: Path, *words: str, fails: str = "") -> tuple[int, list[str]]:
    """Exit code of a script, and the verbs of the kit that it called. ``fails``: the verb that does."""
    program = folder / "shiplap-target"
    program.write_text(f'#!/bin/sh\necho "$*" >>{folder}/called\n[ "$1" != "{fails}" ]\n')
    program.chmod(0o755)
    (folder / "called").unlink(missing_ok=True)
    (folder / "script").write_text(text.replace("/usr/sbin/shiplap-target", str(program)))
    done = subprocess.run([*shell, folder / "script", *words], capture_output=True, check=False, timeout=20)
    called = folder / "called"
    return done.returncode, called.read_text().splitlines() if called.exists() else []


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_sysv_seeds_before_the_engine_and_loads_and_starts_after_it(shell: list[str], tmp_path: Path) -> None:
    require("shells")
    store, containers = script("S59shiplap-store"), script("S61shiplap-containers")
    for words in ((), ("start",)):  # BusyBox' init and Buildroot's rcS give the word, others not
        assert run(shell, store, tmp_path, *words) == (0, ["seed"])
        assert run(shell, containers, tmp_path, *words) == (0, ["load", "start"])
    assert run(shell, store, tmp_path, "start", fails="seed") == (1, ["seed"])
    assert run(shell, containers, tmp_path, "start", fails="load") == (1, ["load"])  # nothing is started of what was not loaded
    assert run(shell, containers, tmp_path, "status", fails="status") == (1, ["status"])
    for word in ("stop", "restart", "reload"):  # nothing is torn away below a running engine
        assert run(shell, store, tmp_path, word) == run(shell, containers, tmp_path, word) == (0, [])
    assert run(shell, store, tmp_path, "begin")[0] == 2


def test_where_runlevels_are_made_from_headers_the_store_comes_before_the_engine() -> None:
    """insserv makes S01shiplap-store, S02docker, S03shiplap-containers of these; it enables nothing that requires what is not there."""
    assert "\n# X-Start-Before:    docker\n" in script("S59shiplap-store")
    assert "\n# Required-Start:    $local_fs docker\n" in script("S61shiplap-containers")
    assert "docker" not in script("S59shiplap-store", PODMAN) + script("S61shiplap-containers", PODMAN)


PROCD = """\
config_load() { :; }
config_get_bool() { eval "$1=$WANTED"; }
procd_open_instance() { :; }
procd_set_param() { if [ "$1" = command ]; then shift; "$@"; fi; }
procd_close_instance() { :; }
docker() { echo "docker $*" >>"$CALLED"; if [ "$1" = ps ]; then printf 'one\\ntwo\\n'; fi; }
podman() { echo "podman $*" >>"$CALLED"; if [ "$1" = ps ]; then printf 'one\\ntwo\\n'; fi; }
"""


@pytest.mark.parametrize("settings", [SETTINGS, PODMAN], ids=lambda one: str(one.engine))
def test_procd_seeds_loads_starts_and_stops_only_what_is_ours(settings: TargetSettings, tmp_path: Path) -> None:
    require("shells")
    shell = ["busybox", "ash"]
    for name, verb, fails, wanted in (
        ("shiplap-store", "start_service", "", (0, ["seed"])),
        ("shiplap-store", "start_service", "seed", (1, ["seed"])),
        ("shiplap-xcontainers", "start_service", "", (0, ["load", "start"])),
        ("shiplap-xcontainers", "start_service", "load", (0, ["load"])),
    ):
        text = f"WANTED=1\n{PROCD}\n{script(name, settings)}\n{verb}\n"
        assert run(shell, text, tmp_path, fails=fails) == wanted, (name, fails)
    text = f"CALLED={tmp_path}/called\n{PROCD}\n{script('shiplap-xcontainers', settings)}\nstop_service\n"
    engine = settings.engine
    stopped = [f"{engine} ps -q --filter label=io.shiplap.definition", f"{engine} stop one", f"{engine} stop two"]
    assert run(shell, text, tmp_path) == (0, stopped)


def test_shellcheck_finds_nothing_in_the_scripts_that_are_written_for_a_device(tmp_path: Path) -> None:
    require("shellcheck")
    checked = 0
    for settings in (SETTINGS, PODMAN):
        for path, (_, content) in target_files(settings).items():
            if not content.startswith(b"#!/bin/sh") or path == "usr/sbin/shiplap-target":
                continue
            (tmp_path / "script").write_bytes(content)
            # rc.common's variables are read by it, and OpenWrt's ash has `local`.
            leave = ["--shell=dash", "--exclude=SC2034,SC2154"] if b"rc.common" in content else ["--shell=sh"]
            done = subprocess.run(["shellcheck", *leave, tmp_path / "script"], capture_output=True, text=True, check=False)
            assert done.stdout == "", path
            checked += 1
    assert checked == 9


def test_store_conf_has_the_keys_that_the_device_reads_and_no_others() -> None:
    written = [line.partition(b"=")[0].decode() for line in store_conf(SETTINGS).splitlines() if not line.startswith(b"#")]
    text = (KIT / "shiplap-target").read_text()
    start = text.index("    MODE=''")
    read = re.findall(r"([A-Z_0-9]+)=", text[start : text.index('    [ -r "$CONF" ]', start)])
    # `shiplap rootfs` reads SEAL.
    assert sorted(written) == sorted([*read, "SEAL"])
    assert {"SEALED", "ROOT_HASH"} <= set(written)


def stated_programs() -> list[str]:
    """What docs/target.md says that a device must have."""
    text = (REPOSITORY / "docs/target.md").read_text()
    listed = re.search(r"and the applets ([^;]*); ", text.replace("\n", " "))
    assert listed is not None
    return re.findall(r"[a-z0-9]+", re.sub(r"\([^)]*\)", "", listed[1]))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
@pytest.mark.parametrize("driver", ["overlay2", "vfs", "overlay"])
def test_the_programs_that_the_documentation_names_are_all_that_seeding_needs(driver: str, tmp_path: Path) -> None:
    """A first boot, an update and a reset with nothing else in PATH, all of it BusyBox's."""
    require("shells", "mksquashfs")
    names = stated_programs()
    assert len(names) > 20
    path = tmp_path / "path"
    path.mkdir()
    for name in (*names, "mount"):
        (path / name).symlink_to("/usr/bin/busybox")
    (path / "podman").write_text("#!/bin/dash\n")
    options = {"overlay2": (), "vfs": ("--driver", "vfs"), "overlay": ("--engine", "podman")}[driver]
    sets = {
        "one": [ImageSpec([BASE, APP], ["app:1"]), ImageSpec([DATA], ["b:1"])],
        "two": [ImageSpec([BASE, build([file("n", b"")])], ["app:1"])],
    }
    stores = [unpacked_store(tmp_path / name, images, *options) for name, images in sets.items()]
    for store, verb in ((stores[0], "seed"), (stores[1], "seed"), (stores[1], "reset")):
        engine = "podman" if driver == "overlay" else "docker"
        settings = replace(
            SETTINGS, engine=engine, driver=driver, image="/nowhere", root_hash=None, store_path=str(store.parent),
            store_id=subprocess.run(["sha256sum", store / "store.json"], capture_output=True, text=True, check=True).stdout[:64],
            data_root=DataRoot(str(tmp_path / "data"), "persistent"),
        )  # fmt: skip
        (tmp_path / "store.conf").write_bytes(store_conf(settings))
        environment = {"SHIPLAP_CONF": str(tmp_path / "store.conf"), "SHIPLAP_LIB": str(KIT), "SHIPLAP_RUN": str(tmp_path / "run")}
        # dash has fewer commands of its own than BusyBox' ash, so that a missing one shows.
        inside = f"/bin/mount --bind {store} {store}; PATH={path} exec /usr/bin/dash {shlex.quote(str(KIT / 'shiplap-target'))} {verb}"
        done = subprocess.run(["unshare", "--mount", "/bin/sh", "-c", inside], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "not found" not in done.stderr and "usage" not in done.stderr and "invalid option" not in done.stderr, done.stderr
