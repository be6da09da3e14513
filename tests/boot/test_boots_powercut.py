"""The power goes: at random moments of first boots, and at any place in the order of writes; the next boot has the factory's images whole.

By name only: SHIPLAP_REQUIRE=boots. SHIPLAP_BOOT_SEED chooses other moments; what was chosen is printed.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import time
from pathlib import Path

from boot.cases import requires_boots, said_everything
from boot.firmware import MOUNT_DATA, REPORT, Bench, Firmware
from boot.logwrites import read_log
from boot.machine import Disk

pytestmark = requires_boots

SEED = int(os.environ.get("SHIPLAP_BOOT_SEED", "1"))
CUTS, PREFIXES, WHOLE_BOOT_PREFIXES = 20, 24, 4
DISK_MIB = 64
PERSISTENT = {"path": "/var/lib/docker", "persistence": "persistent"}
SEED_ONLY = MOUNT_DATA + "shiplap-target seed\nsync\npoweroff -f\nsleep 60\n"
# Every file and link of the skeleton against the data-root. The engine is left out: this boot takes a quarter of the time.
COMPARE = (
    MOUNT_DATA
    + """\
shiplap-target seed || echo "REFUSED"
cd /usr/share/shiplap/store/skeleton
find . -type f | while read -r name; do cmp -s "$name" "/var/lib/docker/$name" || echo "DIFFERS $name"; done
find . -type l | while read -r name; do [ "$(readlink "$name")" = "$(readlink "/var/lib/docker/$name")" ] || echo "DIFFERS $name"; done
echo
echo "COMPARED $(find . | wc -l)"
sync
poweroff -f
sleep 60
"""
)


def is_whole(firmware: Firmware, disk: Disk) -> bool:
    console = firmware.boot(before=COMPARE, disks=[disk])
    assert int(console.value("COMPARED")) > 20
    assert "DIFFERS" not in console and "REFUSED" not in console, console.text
    return True


def copied(disk: Disk, to: Path) -> Disk:
    shutil.copyfile(disk.path, to)
    return dataclasses.replace(disk, path=to)


def test_after_a_power_cut_at_any_moment_of_a_first_boot_the_factory_is_whole(bench: Bench, tmp_path: Path) -> None:
    firmware = bench.firmware(**{"data-root": PERSISTENT})
    empty = bench.data_disk(mebibytes=DISK_MIB)
    with firmware.machine(REPORT, disks=[copied(empty, tmp_path / "uncut")]).on() as machine:
        machine.until("UPTIME S59shiplap-store")
        begun = machine.seconds
        assert said_everything(machine.ended())
        lasts = machine.seconds - begun
    chance = random.Random(SEED)
    for number in range(CUTS):
        moment = chance.uniform(0, lasts)
        print(f"seed {SEED}, cut {number}: {moment:.2f} of {lasts:.2f} s after the kit begins")
        disk = copied(empty, tmp_path / "cut")
        with firmware.machine(REPORT, disks=[disk]).on() as machine:
            machine.until("UPTIME S59shiplap-store")
            deadline = time.monotonic() + moment
            while machine.is_on() and time.monotonic() < deadline:
                time.sleep(0.01)
            machine.cut_power()
        if number % 5 == 4:
            assert said_everything(firmware.boot(REPORT, disks=[disk]))
        assert is_whole(firmware, disk)


def logged_boot(firmware: Firmware, empty: Disk, folder: Path, before: str = "", after: str = "") -> Path:
    log = folder / "log"
    with log.open("wb") as file:
        file.truncate(512 << 20)
    firmware.boot(after, before=before, disks=[dataclasses.replace(copied(empty, folder / "logged"), log=log)])
    return log


def test_from_any_prefix_of_the_writes_of_seeding_the_factory_is_whole(bench: Bench, tmp_path: Path) -> None:
    """In turn: all writes up to there; only what was flushed; and of the rest what chance has kept."""
    firmware = bench.firmware(**{"data-root": PERSISTENT})
    empty = bench.data_disk(mebibytes=DISK_MIB)
    log = read_log(logged_boot(firmware, empty, tmp_path, before=SEED_ONLY))
    total = len(log.requests)
    assert sum(one.is_write for one in log.requests) > PREFIXES
    chance = random.Random(SEED)
    for number in range(PREFIXES):
        count = total * (number + 1) // PREFIXES
        wanted = [list(range(count)), log.flushed(count), log.survivors(count, chance)][number % 3]
        print(f"seed {SEED}, prefix {number}: {len(wanted)} of the first {count} of {total} requests")
        disk = Disk(log.disk_at(empty.path, wanted, tmp_path / "prefix"), "data", writable=True)
        assert is_whole(firmware, disk)


def test_from_prefixes_of_a_whole_first_boot_the_container_runs(bench: Bench, tmp_path: Path) -> None:
    firmware = bench.firmware(**{"data-root": PERSISTENT})
    empty = bench.data_disk(mebibytes=DISK_MIB)
    log = read_log(logged_boot(firmware, empty, tmp_path, after=REPORT))
    chance = random.Random(SEED)
    for _ in range(WHOLE_BOOT_PREFIXES):
        count = chance.randrange(len(log.requests))
        print(f"seed {SEED}, what is left of the first {count} of {len(log.requests)} requests")
        disk = Disk(log.disk_at(empty.path, log.survivors(count, chance), tmp_path / "prefix"), "data", writable=True)
        assert said_everything(firmware.boot(REPORT, disks=[disk]))
