"""The target kit's mounting: the canary of a store with extended attributes, and a store that lies unpacked in the root file system."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import ImageSpec
from engines import runnable
from engines.dockerd import Dockerd
from engines.privateroot import PrivateRoot
from engines.targetkit import SHELLS, STORE, Firmware, firmware, kit
from requirement import require
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.rootfs.sinks import SquashfsOptions, open_sink

DATA_ROOT = "/var/lib/docker"
IMAGE = runnable.image("app:1")
"""It has an opaque directory and a file capability."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    return firmware(tmp_path_factory.mktemp("firmware") / "file", [IMAGE], DATA_ROOT, "volatile", squashfs={"level": 1})


@dataclass(frozen=True)
class Device:
    """A private root with a kit of its own and no engine."""

    root: PrivateRoot
    firmware: Firmware
    shell: Sequence[str]

    def kit(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        environment = {
            "SHIPLAP_CONF": str(self.firmware.conf),
            "SHIPLAP_LIB": str(self.firmware.root / "usr/lib/shiplap"),
            "SHIPLAP_RUN": "/run/shiplap",
        }
        return self.root.run([*self.shell, self.firmware.root / "usr/sbin/shiplap-target", *words], env=environment, check=check)

    def mounts(self) -> list[str]:
        """What is mounted and has to do with us, by place."""
        table = self.root.run(["cat", "/proc/self/mounts"]).stdout.decode()
        return sorted(line.split()[1] for line in table.splitlines() if "shiplap" in line and "private-root" not in line)

    def loops(self) -> int:
        """Loop devices of files of ours."""
        return self.root.run(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"]).stdout.count(str(self.firmware.root).encode())


@contextmanager
def a_device(folder: Path, made: Firmware, shell: Sequence[str], **values: str) -> Iterator[Device]:
    """``values``: other values in store.conf. The firmware itself stays as it is."""
    copy = Firmware(made.out, folder / "root")
    subprocess.run(["cp", "-a", made.root, copy.root], check=True)
    copy.change(**({"IMAGE": str(made.out / "store.squashfs")} | values))
    with PrivateRoot(folder / "work", binds=[made.out, folder], tmpfs=[DATA_ROOT]) as root:
        root.run(["sh", "-c", f"umount {DATA_ROOT}; mkdir -p {STORE} {DATA_ROOT}"])
        yield Device(root, copy, shell)


def unmarked(path: Path) -> None:
    """The canary as a kernel without CONFIG_SQUASHFS_XATTR sees it."""
    path.unlink()
    names = ("", "lower", "lower/folder", "lower/folder/hidden", "upper", "upper/folder", "upper/folder/shown")
    with open_sink(SquashfsOptions(), path) as put:
        for name in names:
            is_file = name.endswith(("hidden", "shown"))
            kind, content = (Kind.REGULAR, Bytes(b"")) if is_file else (Kind.DIRECTORY, None)
            put(Entry(name.encode(), kind, 0o755, content=content))


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_kernel_that_sees_attributes_mounts_the_store_and_leaves_nothing_of_the_canary(
    made: Firmware, tmp_path: Path, shell: list[str]
) -> None:
    with a_device(tmp_path, made, shell) as device:
        device.kit("mount")
        assert device.mounts() == [STORE]
        assert device.loops() == 0
        # Once it is mounted nobody looks again: a canary that is gone is not missed.
        (device.firmware.root / "usr/lib/shiplap/canary.squashfs").unlink()
        assert device.kit("mount").stderr == b""


CANARIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a kernel without attributes": (unmarked, "this kernel's SquashFS has no extended attributes (CONFIG_SQUASHFS_XATTR)"),
    "a canary that cannot be mounted": (lambda path: path.write_bytes(bytes(8192)), "this kernel cannot mount"),
    "no canary": (lambda path: path.unlink(), "this kernel cannot mount"),
}


@pytest.mark.parametrize(("name", "shell"), [*((name, SHELLS[0]) for name in CANARIES), (next(iter(CANARIES)), SHELLS[1])])
def test_otherwise_nothing_is_mounted_and_the_data_root_is_covered(made: Firmware, tmp_path: Path, name: str, shell: list[str]) -> None:
    change, message = CANARIES[name]
    with a_device(tmp_path, made, shell) as device:
        change(device.firmware.root / "usr/lib/shiplap/canary.squashfs")
        done = device.kit("seed", check=False)
        assert done.returncode == 1
        assert message in done.stderr.decode()
        assert device.mounts() == [DATA_ROOT]
        assert device.loops() == 0


def test_what_a_cut_off_try_left_mounted_goes(made: Firmware, tmp_path: Path) -> None:
    with a_device(tmp_path, made, SHELLS[0]) as device:
        canary = device.firmware.root / "usr/lib/shiplap/canary.squashfs"
        for place in ("canary", "canary-view"):
            device.root.run(["sh", "-c", f"mkdir -p /run/shiplap/{place}; mount -o ro,loop {canary} /run/shiplap/{place}"])
        device.kit("mount")
        assert device.mounts() == [STORE]


def test_a_partition_on_a_kernel_without_loop_devices_is_mounted_all_the_same(made: Firmware, tmp_path: Path) -> None:
    with a_device(tmp_path, made, SHELLS[0], IMAGE="/dev/store") as device:
        loop = device.root.run(["losetup", "--find", "--show", "--read-only", made.out / "store.squashfs"]).stdout.decode().strip()
        try:
            number = device.root.run(["stat", "-c", "%r", loop]).stdout.decode().strip()
            script = f"mount -t tmpfs t /dev; mknod /dev/null c 1 3; mknod /dev/store b {int(number) >> 8} {int(number) & 255}"
            device.root.run(["sh", "-c", script])
            said = device.kit("mount").stderr
            assert b"this kernel has no loop devices" in said
            assert device.mounts() == [STORE]
        finally:
            device.root.run(["sh", "-c", f"umount {STORE} /dev; losetup --detach {loop}"])


def test_a_store_without_attributes_has_no_canary(tmp_path: Path) -> None:
    plain = firmware(tmp_path / "plain", [ImageSpec([runnable.programs_layer()], ["app:1"])], DATA_ROOT, "volatile", squashfs={"level": 1})
    assert "CANARY=no" in plain.conf.read_text()
    assert [path.name for path in (plain.root / "usr/lib/shiplap").iterdir() if "canary" in path.name] == []


# --- placement: tree -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    return firmware(
        tmp_path_factory.mktemp("firmware") / "tree",
        [IMAGE],
        DATA_ROOT,
        "volatile",
        placement="tree",
        squashfs={"level": 1},
        containers=[{"name": "app", "image": "app:1", "args": ["/bin/sleep", "600"], "network": "none"}],
    )


def lay_out(engine: Dockerd, made: Firmware, *, canary: bool = True) -> None:
    """What `shiplap rootfs` makes of the store and the canary, on a tmpfs instead of a sealed root file system."""
    script = f"mkdir -p {STORE} && mount -t tmpfs root {STORE[:-6]} && unsquashfs -quiet -no-progress -d {STORE} {made.out}/store.squashfs"
    engine.run_in_namespace(["sh", "-c", script])
    if canary:
        library = made.root / "usr/lib/shiplap"
        engine.run_in_namespace(["unsquashfs", "-quiet", "-no-progress", "-force", "-d", f"{library}/canary", f"{library}/canary.squashfs"])


@pytest.mark.parametrize("shell", SHELLS[1:], ids=" ".join)
def test_an_unpacked_store_is_seeded_started_and_reported(unpacked: Firmware, tmp_path: Path, shell: list[str]) -> None:
    require("docker", "mksquashfs")
    with Dockerd(tmp_path, volatile=True, binds=[unpacked.out.parent], start=False) as engine:
        engine.run_in_namespace(["umount", DATA_ROOT])
        assert b"says nothing" not in kit(engine, shell, unpacked, "status", check=False).stderr
        assert kit(engine, shell, unpacked, "status", check=False).stderr == b"shiplap: the store is not mounted\n"
        lay_out(engine, unpacked)
        assert b"is part of the root file system" in kit(engine, shell, unpacked, "verify").stderr
        kit(engine, shell, unpacked, "seed")
        engine.start()
        kit(engine, shell, unpacked, "start")
        kit(engine, shell, unpacked, "status", "--wait", "5")
        said = set(engine.docker("run", "--rm", "--network", "none", "app:1").stdout.decode().splitlines())
        engine.docker("rm", "--force", "app")
        assert runnable.expected_lines() <= said
        assert not runnable.hidden_lines() & said
        places = [line.split()[1] for line in engine.run_in_namespace(["cat", "/proc/self/mounts"]).stdout.decode().splitlines()]
        assert STORE not in places and not any("canary" in place for place in places)


def test_an_unpacked_store_that_is_another_is_refused(unpacked: Firmware, tmp_path: Path) -> None:
    require("mksquashfs")
    with Dockerd(tmp_path, volatile=True, binds=[unpacked.out.parent], start=False) as engine:
        engine.run_in_namespace(["umount", DATA_ROOT])
        lay_out(engine, unpacked)
        engine.run_in_namespace(["sh", "-c", f"echo >> {STORE}/store.json"])
        done = kit(engine, SHELLS[0], unpacked, "seed", check=False)
        assert done.returncode == 1 and b"this firmware belongs to" in done.stderr
        assert engine.run_in_namespace(["ls", DATA_ROOT]).stdout == b""


def test_an_unpacked_store_on_overlayfs_is_refused(unpacked: Firmware, tmp_path: Path) -> None:
    """The private root's own root file system is one."""
    with Dockerd(tmp_path, volatile=True, binds=[unpacked.out.parent], start=False) as engine:
        engine.run_in_namespace(["sh", "-c", f"umount {DATA_ROOT}; mkdir -p {STORE}; cp {unpacked.out}/store.json {STORE}/"])
        done = kit(engine, SHELLS[0], unpacked, "seed", check=False)
        assert done.returncode == 1 and b"lies on overlayfs" in done.stderr


def test_the_canary_of_an_unpacked_store_is_unpacked_beside_it(unpacked: Firmware, tmp_path: Path) -> None:
    """A root file system that lost the attributes of one has lost those of the other."""
    require("mksquashfs")
    with Dockerd(tmp_path, volatile=True, binds=[unpacked.out.parent], start=False) as engine:
        engine.run_in_namespace(["umount", DATA_ROOT])
        lay_out(engine, unpacked)
        mark = unpacked.root / "usr/lib/shiplap/canary/upper/folder"
        engine.run_in_namespace(["setfattr", "--remove", "trusted.overlay.opaque", mark])
        done = kit(engine, SHELLS[0], unpacked, "seed", check=False)
        assert done.returncode == 1 and b"has no extended attributes" in done.stderr
    # Whoever unpacked the store by other means may have no canary; then nothing is asked.
    subprocess.run(["rm", "-rf", unpacked.root / "usr/lib/shiplap/canary"], check=True)
    with Dockerd(tmp_path / "again", volatile=True, binds=[unpacked.out.parent], start=False) as engine:
        engine.run_in_namespace(["umount", DATA_ROOT])
        lay_out(engine, unpacked, canary=False)
        kit(engine, SHELLS[0], unpacked, "seed")


def test_the_record_says_how_the_device_opens_the_store(made: Firmware, unpacked: Firmware) -> None:
    said = [json.loads((one.out / "record.json").read_text())["options"]["target"] for one in (made, unpacked)]
    assert [(one["placement"], one["sealed"]) for one in said] == [("file", False), ("tree", False)]
    assert "IMAGE=''" in unpacked.conf.read_text() and "SEALED=no" in unpacked.conf.read_text()
