"""Where the kit finds things on a device: OpenWrt's /rom and its missing /run, an environment that leads elsewhere; failures before the
first line of its libraries; and how an init system takes the mounts away again.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import ImageSpec
from engines.privateroot import PrivateRoot
from engines.targetkit import STORE, Firmware, firmware
from requirement import require
from storeimages import APP, BASE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
DATA_ROOT = "/mnt/data/docker"
KIT = "/usr/sbin/shiplap-target"
SHELLS = ("dash", "busybox")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Firmware]:
    require("mksquashfs", "shells")
    folder = tmp_path_factory.mktemp("firmware")
    images = [ImageSpec([BASE, APP], ["app:1"])]
    keys = {"squashfs": {"level": 1}, "target": {"init": ["procd"]}, "containers": [{"name": "app", "image": "app:1"}]}
    return {driver: firmware(folder / driver, images, DATA_ROOT, "volatile", driver=driver, **keys) for driver in ("overlay2", "vfs")}


class Device:
    """A private root with the firmware's files in their places, as a root file system has them, and no engine."""

    def __init__(self, root: PrivateRoot, made: Firmware, shell: str) -> None:
        self.root = root
        # The disk of the machine has no place in it where an overlay's upper directory could lie.
        self.sh(f"mount -t tmpfs data /mnt && ln -sf $(command -v {shell}) /bin/sh && rm -rf {DATA_ROOT} /rom /etc/docker")
        self.sh(f"cp -a {made.root}/. / && cp {made.out}/store.squashfs /usr/share/shiplap/ && mkdir -p {DATA_ROOT}")

    def sh(self, script: str, *, check: bool = True, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        return self.root.run(["sh", "-euc", script], check=check, env=env)

    def kit(self, *words: str, check: bool = True, env: dict[str, str] | None = None) -> str:
        """What it said; run by the kernel, as an init system does it."""
        return self.root.run([KIT, *words], check=check, env=env).stderr.decode()

    def fails(self, *words: str, env: dict[str, str] | None = None) -> str:
        done = self.root.run([KIT, *words], check=False, env=env)
        assert done.returncode != 0, done.stderr
        return done.stderr.decode()

    def mounts(self) -> dict[str, str]:
        """Place → source of what the kit mounted."""
        lines = [line.split() for line in self.root.run(["cat", "/proc/self/mounts"]).stdout.decode().splitlines()]
        places = (STORE, DATA_ROOT, "/run/shiplap/data-root", "/var/run/shiplap/data-root")
        return {line[1]: line[0] for line in lines if line[1] in places}

    def covered(self, data_root: str = DATA_ROOT) -> bool:
        lines = self.root.run(["cat", "/proc/self/mounts"]).stdout.decode().splitlines()
        return any(line.startswith(f"shiplap-refused {data_root} tmpfs ro") for line in lines)

    def backing(self) -> str:
        return (
            self.sh(f"losetup --noheadings --output BACK-FILE $(awk '$2 == \"{STORE}\" {{ print $1 }}' /proc/mounts)")
            .stdout.decode()
            .strip()
        )

    def make_rom(self, options: str = "remount,ro", place: str = "mount -t tmpfs rom /rom") -> None:
        """What the firmware shipped, below /; then somebody writes over it."""
        kit = "/etc/shiplap /usr/lib/shiplap /usr/sbin/shiplap-target /usr/share/shiplap"
        self.sh(f"mkdir /rom; {place}; cp -a --parents {kit} /rom/; {f'mount -o {options} /rom' if options else ''}")


@pytest.fixture
def place(made: dict[str, Firmware], tmp_path: Path) -> Iterator[PrivateRoot]:
    with PrivateRoot(tmp_path / "work", binds=[made["overlay2"].out.parents[1]]) as root:
        yield root


@pytest.fixture
def device(made: dict[str, Firmware], place: PrivateRoot) -> Device:
    """With OpenWrt's shell."""
    return Device(place, made["overlay2"], "busybox")


@pytest.fixture(params=SHELLS)
def each(request: pytest.FixtureRequest, made: dict[str, Firmware], place: PrivateRoot) -> Device:
    """With each shell: they end in different ways."""
    return Device(place, made["overlay2"], request.param)


# --- /rom ------------------------------------------------------------------------------------------------------------


def test_what_the_firmware_shipped_counts_whoever_wrote_over_it(device: Device) -> None:
    device.make_rom()
    device.sh("sed -i 's/^STORE_ID=.*/STORE_ID=evil/; s,^DATA_ROOT=.*,DATA_ROOT=/elsewhere,' /etc/shiplap/store.conf")
    device.sh("echo exit 9 >/usr/lib/shiplap/seed.sh; rm /usr/share/shiplap/store.squashfs; echo evil /evil >/etc/shiplap/images")
    device.kit("verify")
    device.kit("seed")
    assert device.backing() == "/rom/usr/share/shiplap/store.squashfs"
    assert device.mounts() == {STORE: device.mounts()[STORE], DATA_ROOT: "shiplap-data"}


def test_the_program_that_the_firmware_shipped_runs_and_not_a_newer_one_above(device: Device) -> None:
    device.make_rom(options="")
    device.sh(f"printf '#!/bin/sh\\necho the shipped one, $0 $* >&2\\n' >/rom{KIT}; mount -o remount,ro /rom")
    assert device.kit("seed", "x") == f"the shipped one, /rom{KIT} seed x\n"


def test_nothing_above_stands_in_for_a_store_that_is_missing_below(device: Device) -> None:
    device.make_rom(options="")
    device.sh("rm /rom/usr/share/shiplap/store.squashfs; mount -o remount,ro /rom")
    assert "the store image /usr/share/shiplap/store.squashfs is not there" in device.fails("seed")
    assert device.covered()


@pytest.mark.parametrize("rom", ["a folder", "a writable file system"])
def test_a_rom_that_somebody_can_write_is_none(device: Device, rom: str) -> None:
    device.make_rom(options="", place=":" if rom == "a folder" else "mount -t tmpfs rom /rom")
    device.sh("sed -i 's/^STORE_ID=.*/STORE_ID=evil/' /rom/etc/shiplap/store.conf")
    device.kit("mount")
    assert device.backing() == "/usr/share/shiplap/store.squashfs"


def test_an_environment_leads_the_installed_program_nowhere(device: Device) -> None:
    device.sh("mkdir /evil; cp /usr/lib/shiplap/* /evil/; echo 'touch /evil/ran' >/evil/seed.sh; echo 'touch /evil/ran' >/evil/conf")
    device.kit("seed", env={"SHIPLAP_CONF": "/evil/conf", "SHIPLAP_LIB": "/evil", "SHIPLAP_RUN": "/evil/run"})
    assert not {b"ran", b"run"} & set(device.sh("ls /evil").stdout.split())


# --- /run ------------------------------------------------------------------------------------------------------------


def test_without_a_run_that_ends_with_the_boot_the_state_is_in_var_run_also_after_somebody_made_one(device: Device) -> None:
    device.sh("umount /run; rm -rf --one-file-system /run; rm -rf /var/run; mkdir /var/run; mount -t tmpfs tmp /var/run")
    device.kit("seed")
    device.sh("test -e /var/run/shiplap/seeded; test ! -e /run")
    device.sh("mkdir -p /run/containerd")  # Docker's containerd does, on OpenWrt's flash
    assert "not seeded" not in device.fails("status") and "not mounted" not in device.fails("status")
    device.sh("test ! -e /run/shiplap")
    device.kit("unmount")
    assert device.mounts() == {}


def test_containers_are_started_only_after_a_seeding_of_this_boot(device: Device) -> None:
    device.kit("mount")
    assert "was not seeded since the start of the device" in device.fails("start")
    device.kit("seed")
    device.sh("sed -i 's/ .*/ another-boot/' /run/shiplap/seeded")
    assert "was not seeded since the start of the device" in device.fails("start")


# --- failures --------------------------------------------------------------------------------------------------------

BROKEN = {
    "a library is missing": "rm /usr/lib/shiplap/seed.sh",
    "a library was cut off": "echo 'if' >>/usr/lib/shiplap/engine.sh",
    "the driver's library is missing": "rm /usr/lib/shiplap/overlay2.sh",
    "a library ends everything": "echo 'exit 7' >/usr/lib/shiplap/seed.sh",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_kit_with_broken_parts_covers_the_data_root(each: Device, what: str) -> None:
    each.sh(BROKEN[what])
    each.fails("seed")
    assert each.covered()


CONFIGURATIONS = {
    "cut off": 'echo "DATA_ROOT=\'" >/etc/shiplap/store.conf',
    "empty": ": >/etc/shiplap/store.conf",
    "missing": "rm /etc/shiplap/store.conf",
}


@pytest.mark.parametrize("what", CONFIGURATIONS)
def test_without_a_configuration_the_data_roots_of_the_engine_s_own_are_covered(each: Device, what: str) -> None:
    uci = "config globals 'globals'\\n\\toption data_root '/mnt/uci'\\n"
    each.sh(f'mkdir -p /etc/config; printf "{uci}" >/etc/config/dockerd; {CONFIGURATIONS[what]}')
    each.fails("seed")
    assert each.covered("/mnt/uci") and each.covered("/var/lib/docker")


@pytest.mark.parametrize("listener", ["closed", "gone"])
def test_a_failure_that_nobody_listens_to_covers_the_data_root_too(each: Device, listener: str) -> None:
    each.sh("rm /usr/share/shiplap/store.squashfs")
    seed = f"{KIT} seed 2>&-" if listener == "closed" else f"{{ sleep 0.3; {KIT} seed; }} 2>&1 | :; sleep 1"
    each.sh(seed, check=False)
    assert each.covered()


def test_a_second_signal_does_not_stop_the_covering(each: Device) -> None:
    each.sh("printf '#!/bin/sh\\nkill -TERM $PPID; sleep 0.2\\n' >/usr/bin/sha256sum")
    each.sh("printf '#!/bin/sh\\nkill -TERM $PPID; exec /bin/umount \"$@\"\\n' >/usr/local/sbin/umount; chmod +x /usr/local/sbin/umount")
    assert "seed failed (143)" in each.fails("seed")
    assert each.covered()


# --- unmount ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("persistence", ["volatile", "persistent"])
@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_stopping_the_service_takes_every_mount_away(made: dict[str, Firmware], tmp_path: Path, driver: str, persistence: str) -> None:
    with PrivateRoot(tmp_path / "work", binds=[made[driver].out.parents[1]]) as root:
        device = Device(root, made[driver], "busybox")
        device.sh(f"sed -i 's/^PERSISTENCE=.*/PERSISTENCE={persistence}/' /etc/shiplap/store.conf")
        for _ in range(2):
            device.kit("seed")
            assert STORE in device.mounts()
            stop = "pidof() { return 1; }; . /etc/init.d/shiplap-store; stop_service"
            device.sh(stop)
            assert device.mounts() == {}
        device.sh("mv /usr/share/shiplap/store.squashfs /usr/share/shiplap/aside")
        device.fails("seed")
        assert device.covered()
        device.sh(stop)
        assert device.mounts() == {}


def test_a_store_in_use_is_not_torn_away(device: Device) -> None:
    device.kit("seed")
    words = device.root.argv(["sh", "-c", f"cd {STORE}; echo in; read line"])
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"in\n"
        assert f"{STORE} is in use" in device.fails("unmount")
        holder.communicate(b"\n")
    device.kit("unmount")
    assert device.mounts() == {}


def test_the_service_waits_for_the_engine_and_says_so(device: Device) -> None:
    device.kit("seed")
    done = device.sh("pidof() { return 0; }; sleep() { :; }; . /etc/init.d/shiplap-store; stop_service", check=False)
    assert done.returncode != 0 and b"stop it first" in done.stderr
    assert STORE in device.mounts()
