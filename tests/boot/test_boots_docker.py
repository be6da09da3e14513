"""Docker on real machines: both modes, both persistences, file systems, init systems, updates. By name only: SHIPLAP_REQUIRE=boots."""

from __future__ import annotations

import pytest
from boot.cases import requires_boots, said_everything
from boot.debianguest import debian_root
from boot.firmware import REPORT, Bench, Firmware, images, oci_digest
from boot.machine import Console, Disk

pytestmark = requires_boots

RUN_BY_EVERY_NAME = f"""\
run() {{ docker run --rm --network none "$2" /bin/sh -c 'cat /data/keep' 2>&1 | sed "s/^/$1 /"; }}
run TAG app:1
run DIGEST app@{oci_digest(images("one")[0])}
run ID {images("one")[0].config_digest}
"""
PERSISTENT = {"path": "/var/lib/docker", "persistence": "persistent"}
VOLATILE = {"path": "/var/lib/docker", "persistence": "volatile"}


def ran_by_every_name(console: Console) -> bool:
    return [console.value(key) for key in ("TAG", "DIGEST", "ID")] == ["kept"] * 3


def test_a_volatile_store_runs_by_tag_digest_and_id_with_no_network(bench: Bench) -> None:
    console = bench.firmware(**{"data-root": VOLATILE}).boot(REPORT + RUN_BY_EVERY_NAME)
    assert said_everything(console)
    assert ran_by_every_name(console)


@pytest.mark.parametrize(("filesystem", "kernel"), [("ext4", "linux-image-cloud-amd64"), ("f2fs", "linux-image-amd64")])
def test_on_a_persistent_data_root_an_unchanged_second_boot_writes_nothing(bench: Bench, filesystem: str, kernel: str) -> None:
    firmware = bench.firmware(**{"data-root": PERSISTENT})
    disk = bench.data_disk(filesystem)
    first = firmware.boot(REPORT + RUN_BY_EVERY_NAME, disks=[disk], kernel=bench.kernel(kernel))
    assert said_everything(first)
    assert ran_by_every_name(first)
    assert f" {filesystem} rw" in next(line for line in first.after("MOUNT") if "/var/lib/docker" in line)
    assert "belongs to store" in first
    assert int(first.value("SECTORS S59shiplap-store")) > 0  # the counter counts
    second = firmware.boot(REPORT + RUN_BY_EVERY_NAME, disks=[disk], kernel=bench.kernel(kernel))
    assert said_everything(second)
    assert ran_by_every_name(second)
    assert second.value("SECTORS S59shiplap-store") == "0"
    assert "repaired" not in second and "belongs to store" not in second


def test_a_volatile_archive_is_loaded_at_each_boot(bench: Bench) -> None:
    firmware = bench.firmware(mode="archive", **{"data-root": VOLATILE})
    for _ in range(2):
        console = firmware.boot(REPORT)
        assert said_everything(console)
        assert "shiplap: loaded /usr/share/shiplap/images.tar, because" in console


def test_a_persistent_archive_is_loaded_once_and_again_when_the_storage_was_wiped(bench: Bench) -> None:
    firmware = bench.firmware(mode="archive", **{"data-root": PERSISTENT})
    disk = bench.data_disk()
    first = firmware.boot(REPORT, disks=[disk])
    assert said_everything(first)
    assert "shiplap: loaded" in first
    second = firmware.boot(REPORT, disks=[disk])
    assert said_everything(second)
    assert "shiplap: loaded" not in second
    assert second.value("SECTORS S59shiplap-store") == "0"
    wiped = firmware.boot(REPORT, disks=[disk], before='mkfs.ext4 -q -F "$(disk data)" && mount "$(disk data)" /var/lib/docker\n')
    assert said_everything(wiped)
    assert "shiplap: loaded" in wiped


# --- update and rollback ---------------------------------------------------------------------------------------------

MAKE_OWN = """\
docker create --name exported --network none app:1 >/dev/null
docker export exported | docker import --change 'CMD ["/bin/cat", "/data/keep"]' --change 'ENV PATH=/bin' - alone:1 >/dev/null
docker rm exported >/dev/null
docker commit check ontop:1 >/dev/null
docker create --name based --network none old:1 /bin/sh >/dev/null && docker commit based lost:1 >/dev/null
docker volume create keep >/dev/null && echo precious >/var/lib/docker/volumes/keep/_data/file
docker create --name mine --network none -v keep:/keep alone:1 /bin/cat /keep/file >/dev/null
sync
"""
ASK_OWN = """\
for image in alone:1 ontop:1 lost:1 old:1 app:1; do
    docker image inspect "$image" >/dev/null 2>&1 && echo "HAS $image" || echo "LACKS $image"
done
echo "ALONE $(docker run --rm --network none alone:1 2>&1 | tail -n 1)"
echo "ONTOP $(docker run --rm --network none ontop:1 /bin/cat /data/keep 2>&1 | tail -n 1)"
echo "OLD $(docker run --rm --network none old:1 /bin/cat /srv/old 2>&1 | tail -n 1)"
echo "APP $(docker run --rm --network none app:1 /bin/cat /srv/second 2>&1 | tail -n 1)"
echo "MINE $(docker start -a mine 2>&1 | tail -n 1)"
"""


def users_own_is_kept(console: Console) -> bool:
    return [console.value(key) for key in ("ALONE", "ONTOP", "MINE")] == ["kept", "kept", "precious"]


def test_a_firmware_update_and_a_rollback_keep_what_the_user_made(bench: Bench) -> None:
    older, newer = (bench.firmware(name, **{"data-root": PERSISTENT}) for name in ("one", "two"))
    disk = bench.data_disk()
    assert said_everything(older.boot(REPORT + MAKE_OWN, disks=[disk]))

    updated = newer.boot(REPORT + ASK_OWN, disks=[disk])
    assert said_everything(updated)
    assert users_own_is_kept(updated)
    assert updated.value("APP") == "2"
    assert "LACKS old:1" in updated and "LACKS lost:1" in updated
    assert "lost:1 is gone with another firmware's layers" in updated
    assert "container check has another definition: made again" in updated

    back = older.boot(REPORT + ASK_OWN, disks=[disk])
    assert said_everything(back)
    assert users_own_is_kept(back)
    assert back.value("OLD") == "o"
    assert "No such file" in back.value("APP")
    settled = older.boot(REPORT, disks=[disk])
    assert settled.value("SECTORS S59shiplap-store") == "0"


# --- systemd ---------------------------------------------------------------------------------------------------------

NO_BRIDGE = {"bridge": "none", "iptables": False, "ip6tables": False}
SYSTEMD = {"target": {"init": ["systemd"]}, "engine-config": NO_BRIDGE}


# With `quiet` the kit's words are in the kernel's log and not on the console.
KERNEL_LOG = "dmesg | sed -n 's/.*shiplap: /LOG /p'\n"


def systemd_boot(firmware: Firmware, after: str, disks: tuple[Disk, ...] = (), before: str = ":\n") -> Console:
    # AppArmor's parser is not in this root; the word is what a kernel without it is like.
    return firmware.boot(after, before=before, words="apparmor=0", disks=disks)


def test_systemd_with_a_persistent_data_root_in_fstab(bench: Bench) -> None:
    base = bench.base("systemd docker data", lambda: debian_root(data_disk=True))
    firmware = bench.firmware(base=base, **SYSTEMD, **{"data-root": PERSISTENT})
    disk = bench.data_disk()
    for boot in ("first", "second"):
        console = systemd_boot(firmware, REPORT + KERNEL_LOG, (disk,))
        assert said_everything(console)
        assert any("belongs to store" in line for line in console.after("LOG")) == (boot == "first")


def test_systemd_starts_no_engine_when_the_data_partition_is_not_there(bench: Bench) -> None:
    base = bench.base("systemd docker data", lambda: debian_root(data_disk=True))
    console = systemd_boot(bench.firmware(base=base, **SYSTEMD, **{"data-root": PERSISTENT}), SYSTEMD_STATE)
    assert console.value("DOCKER") == "inactive"
    assert console.value("PROCESS") == "none"


SYSTEMD_STATE = """\
echo "STATUS $(shiplap-target status 2>&1)"
echo "DOCKER $(systemctl is-active docker.service)"
echo "SOCKET $(systemctl is-active docker.socket)"
echo "STORE $(systemctl is-active shiplap-store.service)"
systemctl start docker.service >/dev/null 2>&1
echo "BYHAND $(systemctl is-active docker.service)"
echo "PROCESS $(pidof dockerd || echo none)"
"""
