"""A real machine: Debian's kernel, a root file system sealed by our own code, the target kit, a real engine; read on the serial console.

The cases that each run of the tests has; all the others are in test_boots_*.py, by name only: `SHIPLAP_REQUIRE=boots`.
"""

from __future__ import annotations

from boot.cases import said_everything
from boot.debianguest import debian_root
from boot.firmware import REFUSED, REPORT, Bench
from boot.podmanguest import podman_root
from requirement import require
from shiplap.rootfs.kernelcheck import StoreNeeds, Weight, check_kernel, read_config

# What someone does who can change the configuration, or an accident: another root hash.
OTHER_ROOT_HASH = """\
cp -a /etc/shiplap /run/etc-shiplap
sed -i '/^ROOT_HASH=/y/0123456789abcdef/123456789abcdef0/' /run/etc-shiplap/store.conf
mount -o bind /run/etc-shiplap /etc/shiplap
"""


def test_nothing_is_missing_in_the_kernel_that_boots(bench: Bench) -> None:
    path = bench.kernel()[0].config
    found = check_kernel(read_config(path.read_bytes(), str(path)), StoreNeeds())
    assert [one for one in found if one.weight is not Weight.LOOK] == []


def test_a_machine_with_a_sealed_root_and_a_sealed_store_runs_its_container(bench: Bench) -> None:
    console = bench.firmware().boot(REPORT)
    assert "is mounted on /usr/share/shiplap/store" in console
    assert said_everything(console)
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console
    assert "MOUNT shiplap-data /var/lib/docker tmpfs" in console
    assert "FAILED" not in console


def test_a_wrong_root_hash_is_refused_on_the_console_and_nothing_starts(bench: Bench) -> None:
    console = bench.firmware().boot(REFUSED, before=OTHER_ROOT_HASH)
    assert (
        "shiplap: ERROR: cannot mount /usr/share/shiplap/store.squashfs on /usr/share/shiplap/store: it does not hold against root hash"
        in console
    )
    assert "the data-root is made unusable, no container starts" in console
    assert "FAILED /etc/init.d/S59shiplap-store" in console
    assert "MOUNT shiplap-refused /var/lib/docker tmpfs ro" in console
    assert "STATUS shiplap: the store is not mounted" in console
    assert console.value("ENGINE") == "has ended"


def test_systemd_orders_the_store_before_the_engine_of_the_debian_package(bench: Bench) -> None:
    firmware = bench.firmware(
        base=bench.base("systemd docker", debian_root),
        target={"init": ["systemd"]},
        **{"engine-config": {"bridge": "none", "iptables": False, "ip6tables": False}},
    )
    # AppArmor's parser is not in this root; the word is what a kernel without it is like.
    console = firmware.boot(
        REPORT + "echo \"UNITS $(systemctl is-active docker.service shiplap-store.service | tr '\\n' ' ')\"\n", words="apparmor=0"
    )
    assert said_everything(console)
    assert console.value("UNITS") == "active active"
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console


def test_podman_runs_its_container_from_the_mounted_store(bench: Bench) -> None:
    require("podman")
    console = bench.firmware(base=bench.base("busybox podman", podman_root), engine="podman").boot(REPORT)
    assert said_everything(console)
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console


def test_an_unchanged_second_boot_on_ext4_writes_nothing_of_the_kits(bench: Bench) -> None:
    firmware = bench.firmware(**{"data-root": {"path": "/var/lib/docker", "persistence": "persistent"}})
    disk = bench.data_disk()
    first, second = (firmware.boot(REPORT, disks=[disk]) for _ in range(2))
    assert said_everything(first)
    assert int(first.value("SECTORS S59shiplap-store")) > 0  # the counter counts
    assert said_everything(second)
    assert second.value("SECTORS S59shiplap-store") == "0"
