"""The target kit for Podman, under the shells that devices have, judged by the real engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, docker_archive
from engines import runnable
from engines.installations import Installation
from engines.podmankit import NETWORK, PodmanDevice
from engines.targetkit import SHELLS, STORE, Firmware, firmware
from images import file
from layertar import build
from requirement import require

GRAPHROOT = "/var/lib/containers/storage"
ENDS = ["/bin/sh", "-c", "echo once; /bin/sleep 1; exit 3"]
LOOP = ["/bin/sh", "-c", "while :; do /bin/sleep 1; done"]
PRINT = ["/bin/sh", "-c", 'echo "$0" "$@" "<$A>" "<$B>"', "it's", "a  b", "$HOME", "*"]
DASH, ASH = SHELLS


def container(name: str, args: list[str], **keys: Any) -> dict[str, Any]:
    return {"name": name, "image": "app:1", "args": args, "network": "none", "user": "0"} | keys


def image(name: str, *more: bytes) -> ImageSpec:
    """The runnable image's first layers, and others."""
    first = runnable.image(name)
    return ImageSpec([*first.layers, *more], [name], config=first.config)


ALONE = ImageSpec([runnable.programs_layer()], ["alone:1"], config={"config": {"Cmd": ["/bin/ls", "/"], "Env": ["PATH=/bin"]}})
CHANGED = ImageSpec([runnable.programs_layer(), build([file("new", b"new\n")])], ["app:1"], config=runnable.image("x").config)


def podman_firmware(folder: Path, images: list[ImageSpec], graphroot: Path | str = GRAPHROOT, **keys: Any) -> Firmware:
    persistence = "volatile" if str(graphroot) == GRAPHROOT else "persistent"
    return firmware(folder, images, graphroot, persistence, engine="podman", **keys)


@pytest.fixture
def graphroot(tmp_path: Path) -> Iterator[Path]:
    """A persistent one; layers hold what only root removes."""
    root = tmp_path / "graphroot"
    root.mkdir()
    yield root
    shutil.rmtree(root)


def contents(root: Path) -> dict[str, tuple[int, int]]:
    """Every file with its inode and time of change: what a write of any kind would change."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        found[str(path.relative_to(root))] = (status.st_ino, status.st_ctime_ns)
    return found


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """What the kit itself said: the engine has words of its own."""
    return "\n".join(line for line in done.stderr.decode().splitlines() if line.startswith("shiplap: "))


def test_containers_start_as_defined_and_are_made_again_only_when_something_changed(
    installation: Installation, tmp_path: Path, graphroot: Path
) -> None:
    base = installation.demand("podman")
    loop = container("loop", LOOP, health={"cmd": "true", "interval": "30s"}, restart="always")
    say = container("say", PRINT, after=["loop"], env={"A": "x 'y' \"z\" $Q `id`", "B": "line\nline"})
    gone = container("gone", ["/bin/cat", "/srv/top"])
    old = podman_firmware(tmp_path / "old", [image("app:1")], graphroot, containers=[say, loop, gone])
    other = image("app:1", build([file("new", b"new\n")]))
    new = podman_firmware(tmp_path / "new", [other], graphroot, containers=[say | {"args": ["/bin/cat", "/new"]}, loop])
    with PodmanDevice(tmp_path / "1", old, base=base, graphroot=graphroot) as device:
        assert "not seeded" in said(device.kit(ASH, "status", check=False))
        device.kit(ASH, "seed")
        assert "does not exist" in said(device.kit(ASH, "status", check=False))
        device.podman("create", "--name", "users-own", NETWORK, "app:1")
        started = device.kit(ASH, "start")
        assert "nobody runs its health check" in said(started) and b"healthcheck" not in started.stderr
        assert device.podman("logs", "say").stdout.decode() == "it's a  b $HOME * <x 'y' \"z\" $Q `id`> <line\nline>\n"
        assert device.podman("logs", "gone").stdout == b"top\n"
        first = device.containers()
        device.kit(ASH, "start")
        assert device.containers() == first
        waited = device.kit(ASH, "status", "--wait", "1", check=False)
        assert waited.returncode == 1 and "container say: does not run" in said(waited)
    with PodmanDevice(tmp_path / "cut", old, base=base, graphroot=graphroot) as device:  # it ran when the power went
        device.kit(ASH, "seed")
        device.kit(ASH, "start")
        assert device.containers() == first
        running = device.podman("ps", "--format", "{{.Names}}").stdout.decode().split()
        assert "loop" in running
    with PodmanDevice(tmp_path / "2", new, base=base, graphroot=graphroot) as device:
        device.kit(ASH, "seed")
        told = said(device.kit(ASH, "start"))
        assert "container gone is not part of this firmware: removed" in told
        assert told.count("made again") == 2
        assert device.podman("logs", "say").stdout == b"new\n"
        second = device.containers()
        assert set(second) == {"say", "loop", "users-own"}
        assert second["users-own"] == first["users-own"] and second["loop"] != first["loop"]
        used = device.podman("inspect", "--format", "{{.Image}}", "loop").stdout.decode().strip()
        assert f"sha256:{used}" == (new.root / "etc/shiplap/images").read_text().split()[0]


def test_a_container_that_ends_is_started_again_without_a_daemon(installation: Installation, tmp_path: Path) -> None:
    made = podman_firmware(
        tmp_path / "made", [image("app:1")], containers=[container("ends", ENDS, restart="always")]
    )  # fmt: skip
    with PodmanDevice(tmp_path / "1", made, base=installation.demand("podman")) as device:
        device.kit(DASH, "seed")
        device.kit(DASH, "start")
        device.root.run(
            ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do podman logs ends | grep -c once | grep -qx 1 || exit 0; sleep 1; done; exit 1"]
        )
        assert b"every container runs" in device.kit(DASH, "status", "--wait", "30").stdout
        device.root.run(["sed", "-i", 's,^graphroot.*,graphroot = "/run/elsewhere",', "/etc/containers/storage.conf"])
        for verb in ("start", "status"):
            refused = device.kit(DASH, verb, check=False)
            assert refused.returncode == 1 and "Podman's graphroot is /run/elsewhere instead of" in said(refused)


def test_a_volatile_graphroot_keeps_its_volumes_elsewhere_and_starts_on_a_read_only_etc(installation: Installation, tmp_path: Path) -> None:
    more = {"size": "64M", "volumes-path": str(tmp_path / "volumes")}
    made = podman_firmware(
        tmp_path / "made", [image("app:1")], more=more,
        containers=[container("count", ["/bin/sh", "-c", "echo 1 >> /kept/it; cat /kept/it"], volumes=["kept:/kept"])],
    )  # fmt: skip
    for boot in (1, 2):
        with PodmanDevice(tmp_path / str(boot), made, base=installation.demand("podman")) as device:
            device.root.run(["sh", "-c", "mount --bind /etc /etc && mount -o remount,ro,bind /etc && umount /var/lib/containers"])
            device.kit(DASH, "seed")
            device.kit(DASH, "seed")
            size = device.root.run(["findmnt", "-n", "-o", "SOURCE,SIZE", GRAPHROOT]).stdout.split()
            assert size[-2:] == [b"shiplap-data", b"64M"]
            device.kit(DASH, "start")
            device.podman("wait", "count")
            assert device.podman("logs", "count").stdout == b"1\n" * boot


def test_what_was_built_on_layers_that_go_is_named_and_comes_again(installation: Installation, tmp_path: Path, graphroot: Path) -> None:
    """First boot, second boot that writes nothing, update that drops layers, rollback, prune.

    Podman 4.3 lists no image at all when one lacks a layer; 5 takes an old factory image's record for the new one.
    """
    base = installation.demand("podman")
    old = podman_firmware(tmp_path / "old", [image("app:1"), ALONE], graphroot)
    new = podman_firmware(tmp_path / "new", [CHANGED], graphroot)
    with PodmanDevice(tmp_path / "1", old, base=base, graphroot=graphroot) as device:
        device.kit(DASH, "seed")
        device.run("--name", "mine", "--user", "0", "--volume", "kept:/kept", "app:1", "/bin/sh", "-c", "echo 1 > /kept/it")
        device.podman("commit", "mine", "localhost/user:commit")
        device.podman("save", "-o", str(tmp_path / "user.tar"), "localhost/user:commit")
        device.podman("tag", "app:1", "localhost/user:tag")
        device.run("--name", "other", "alone:1")
        device.podman("commit", "other", "localhost/user:stays")
    with PodmanDevice(tmp_path / "again", old, base=base, graphroot=graphroot) as device:
        # Podman 4 leaves the factory's names out of its own record of a factory image, Podman 5 would miss them there.
        assert said(device.kit(DASH, "seed")) == ""
        before = contents(graphroot)
        assert said(device.kit(DASH, "seed")) == ""
        assert contents(graphroot) == before
    with PodmanDevice(tmp_path / "2", new, base=base, graphroot=graphroot) as device:
        told = said(device.kit(DASH, "seed"))
        assert "image localhost/user:commit is gone" in told and "image localhost/user:tag is gone" in told
        assert "was built on a layer of another firmware and goes with it" in told
        assert "container mine was made of an image that went with another firmware" in told
        assert "container other" not in told and "stays" not in told
        assert set(device.images()) == {"docker.io/library/app:1", "localhost/user:stays"}
        assert device.run("--rm", "app:1", "/bin/cat", "/new") == "new\n"
        device.run("--rm", "localhost/user:stays")
        device.podman("start", "--attach", "other")
        device.podman("load", "-i", str(tmp_path / "user.tar"))
        assert device.run("--rm", "--volume", "kept:/kept", "localhost/user:commit", "/bin/cat", "/kept/it") == "1\n"
    with PodmanDevice(tmp_path / "3", old, base=base, graphroot=graphroot) as device:  # back, as after a failed update
        device.kit(DASH, "seed")
        assert set(device.images()) >= {"docker.io/library/app:1", "docker.io/library/alone:1", "localhost/user:commit"}
        assert "top\n" in device.run("--rm", "app:1", "/bin/cat", "/srv/top")
        device.podman("start", "--attach", "mine")
        assert b"every container runs" in device.kit(DASH, "status").stdout
        device.podman("system", "prune", "--all", "--force", check=False)
        assert {"docker.io/library/app:1", "docker.io/library/alone:1"} <= set(device.images())


def test_nothing_in_the_graphroot_passes_for_the_firmware_s(installation: Installation, tmp_path: Path, graphroot: Path) -> None:
    """The engine looks there first: a name, an image, a layer, its folder, its short link."""
    base = installation.demand("podman")
    made = podman_firmware(tmp_path / "made", [image("app:1")], graphroot)
    evil = ImageSpec(
        [runnable.programs_layer(), build([file("srv/top", b"evil\n"), file("evil", b"")])],
        ["docker.io/library/app:1"],
        config=runnable.image("x").config,
    )
    archive = docker_archive(tmp_path / "evil.tar", [evil])
    same = docker_archive(tmp_path / "same.tar", [image("docker.io/library/app:1")])
    with PodmanDevice(tmp_path / "1", made, base=base, graphroot=graphroot, mounted=False) as device:
        device.root.run(["mkdir", "-p", STORE])
        # Pulled before the firmware shipped it; then something is built on it; then another image takes the name.
        device.podman("load", "-i", str(same))
        device.podman("commit", device.podman("create", NETWORK, "app:1").stdout.decode().strip(), "localhost/user:1")
        device.podman("load", "-i", str(archive))
    layers = [layer["id"] for layer in json.loads((graphroot / "overlay-layers/layers.json").read_text())]
    for layer in layers:
        (graphroot / "overlay" / layer / "diff" / "planted").write_text("evil")
    with PodmanDevice(tmp_path / "2", made, base=base, graphroot=graphroot) as device:
        told = said(device.kit(ASH, "seed"))
        assert "the name docker.io/library/app:1 is the firmware's" in told
        assert told.count("another copy of it is removed") == 3
        assert device.run("--rm", "app:1", "/bin/cat", "/srv/top") == "top\n"
        assert "planted" not in device.run("--rm", "app:1", "/bin/ls", "/")
        assert device.run("--rm", "--user", "0", "localhost/user:1", "/bin/cat", "/srv/top") == "top\n"
        version = device.podman("version", "--format", "{{.Client.Version}}").stdout.decode()
        if not version.startswith(("4.", "5.4.")):  # 5.4 does not look for parents in the additional store (docs/podman.md)
            device.podman("system", "check")
        before = contents(graphroot / "overlay")
        device.root.run(["ln", "-s", "/etc", str(graphroot / "overlay/l" / link(device))])
        factory = device.root.run(["sh", "-c", f"ls {STORE}/overlay | grep -v '^l$' | head -n 1"]).stdout.decode().strip()
        device.root.run(["sh", "-c", f"mkdir -p {graphroot}/overlay/{factory}/diff/bin"])
        told = said(device.kit(ASH, "seed"))
        assert "repaired the link" in told and "another copy of it is removed" in told
        assert contents(graphroot / "overlay").keys() == before.keys()


def link(device: PodmanDevice) -> str:
    return device.root.run(["sh", "-c", f"ls {STORE}/overlay/l | head -n 1"]).stdout.decode().strip()


def test_after_a_failure_no_container_starts(installation: Installation, tmp_path: Path, graphroot: Path) -> None:
    """Not the firmware's, not the user's, not by hand, not by Podman's own service; for lack of a daemon nobody else could refuse."""
    base = installation.demand("podman")
    for where in (GRAPHROOT, graphroot):
        made = podman_firmware(tmp_path / ("volatile" if where == GRAPHROOT else "persistent"), [image("app:1")], where)
        with PodmanDevice(tmp_path / "1", made, base=base, graphroot=Path(where) if where != GRAPHROOT else None) as device:
            device.kit(DASH, "seed")
            device.podman("create", "--name", "mine", NETWORK, "app:1")
            made.change(STORE_ID="0" * 64)
            device.root.run(["cp", str(made.conf), "/etc/shiplap/store.conf"])
            refused = device.kit(DASH, "seed", check=False)
            assert refused.returncode == 1 and "the data-root is made unusable, no container starts" in said(refused)
            for words in (("run", NETWORK, "app:1"), ("start", "mine"), ("ps",), ("load", "-i", "/nowhere")):
                done = device.podman(*words, check=False)
                assert done.returncode and b"read-only file system" in done.stderr, (words, done)
            assert "not mounted" in said(device.kit(DASH, "status", check=False))
    with PodmanDevice(tmp_path / "2", made, base=base, graphroot=graphroot) as device:
        device.root.run(["rm", "/etc/shiplap/store.conf"])  # the graphroot is known from storage.conf then
        assert device.kit(DASH, "seed", check=False).returncode == 1
        assert device.podman("ps", check=False).returncode


def test_podman_loads_an_archive_when_something_is_missing_and_only_then(
    installation: Installation, tmp_path: Path, graphroot: Path
) -> None:
    base = installation.demand("podman")
    say = container("say", ["/bin/cat", "/srv/top"])
    made = podman_firmware(tmp_path / "made", [image("app:1")], graphroot, mode="archive", containers=[say])
    new = podman_firmware(tmp_path / "new", [CHANGED], graphroot, mode="archive", containers=[say | {"args": ["/bin/cat", "/new"]}])
    for one in (made, new):
        one.change(ARCHIVE=str(one.out / "images.tar"))
    with PodmanDevice(tmp_path / "1", made, base=base, graphroot=graphroot) as device:
        device.kit(DASH, "seed")
        assert "loaded" in said(device.kit(DASH, "load"))
        assert said(device.kit(DASH, "load")) == ""
        device.kit(DASH, "start")
        device.podman("wait", "say")
        assert device.podman("logs", "say").stdout == b"top\n"
        assert device.kit(DASH, "status", check=False).returncode == 1  # it has ended
    with PodmanDevice(tmp_path / "2", new, base=base, graphroot=graphroot) as device:  # the same name, another image
        device.kit(DASH, "seed")
        assert "loaded" in said(device.kit(DASH, "load"))
        device.kit(DASH, "start")
        device.podman("wait", "say")
        assert device.podman("logs", "say").stdout == b"new\n"
    for path in graphroot.iterdir():  # the writable storage was wiped
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with PodmanDevice(tmp_path / "3", new, base=base, graphroot=graphroot) as device:
        device.kit(DASH, "seed")
        assert "loaded" in said(device.kit(DASH, "load"))
    volatile = podman_firmware(tmp_path / "volatile", [image("app:1")], mode="archive", containers=[say])
    volatile.change(ARCHIVE=str(volatile.out / "images.tar"))
    with PodmanDevice(tmp_path / "4", volatile, base=base) as device:
        device.kit(DASH, "seed")
        assert "loaded" in said(device.kit(DASH, "load"))


def test_quadlet_says_so_where_podman_has_no_generator(tmp_path: Path) -> None:
    require("podman")
    made = podman_firmware(
        tmp_path / "made", [image("app:1")], containers=[container("loop", LOOP)], target={"init": ["systemd"], "quadlet": True}
    )
    with PodmanDevice(tmp_path / "1", made) as device:
        device.kit(DASH, "seed")
        device.root.run(["mkdir", "-p", "/run/systemd/system"])
        refused = device.kit(DASH, "start", check=False)
        assert refused.returncode == 1 and "Quadlet needs Podman 4.4" in said(refused)
        assert "Quadlet needs Podman 4.4" in said(device.kit(DASH, "status", check=False))
        device.root.run(["rmdir", "/run/systemd/system"])  # another init system: the kit starts them itself
        device.kit(DASH, "start")
        assert b"every container runs" in device.kit(DASH, "status").stdout


def test_what_podman_itself_says_is_told(tmp_path: Path) -> None:
    """Podman wants to write to /var/tmp even to look at an image; on a read-only root that has to be a tmpfs."""
    require("podman")
    made = podman_firmware(tmp_path / "made", [image("app:1")], containers=[container("loop", LOOP)])
    with PodmanDevice(tmp_path / "1", made) as device:
        device.kit(DASH, "seed")
        device.root.run(["mount", "-t", "tmpfs", "-o", "ro", "nothing", "/var/tmp"])
        for verb in ("start", "status"):
            refused = device.root.run(["env", "-u", "TMPDIR", *DASH, "/usr/sbin/shiplap-target", verb], check=False)
            # A newer one may do without.
            assert refused.returncode == 0 or "/var/tmp" in said(refused)
        device.root.run(["umount", "/var/tmp"])
        (line,) = device.root.run(["grep", "", "/etc/shiplap/images"]).stdout.decode().splitlines()
        device.root.run(["sh", "-c", f"echo '{line}x' >/etc/shiplap/images"])
        refused = device.kit(DASH, "status", check=False)
        assert said(refused).endswith("has no image docker.io/library/app:1x of this firmware")
        device.root.run(["rm", "/etc/shiplap/images"])
        refused = device.kit(DASH, "status", check=False)
        assert refused.returncode == 1 and "the configuration in /etc/shiplap cannot be read" in said(refused)
