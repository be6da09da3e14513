"""An update on a real machine by the snippets of RAUC, SWUpdate and Mender: root and store go into the other slot together.

The updaters themselves are not in the machine: their files are called as they call them, and U-Boot's environment is a folder. By name
only: `SHIPLAP_REQUIRE=boots`.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
from boot.cases import requires_boots, said_everything
from boot.firmware import REPORT, Bench, Firmware
from boot.guest import DOCKER, busybox_root, case_disk
from boot.machine import Console, Disk, Machine
from requirement import require

pytestmark = requires_boots

OPTIONS = ("--placement", "partition", "--disk", "--slots", "2", "--root-size", "128M", "--store-size", "16M")
# What udev and U-Boot's tools would be; /mnt is a disk that outlives the boot.
SURROUNDINGS = """\
mount -t ext4 "$(disk data)" /mnt
mkdir -p /dev/disk/by-partlabel /mnt/env /run/bin
for partition in /sys/class/block/vd*/partition; do
    name=${partition%/partition} name=${name##*/}
    ln -s "/dev/$name" "/dev/disk/by-partlabel/$(sed -n 's/^PARTNAME=//p' "/sys/class/block/$name/uevent")"
done
printf '#!/bin/sh\\ncat /mnt/env/$2\\n' >/run/bin/fw_printenv
printf '#!/bin/sh\\necho "$2" >/mnt/env/$1\\n' >/run/bin/fw_setenv
chmod +x /run/bin/*
PATH=/run/bin:$PATH
slot=/dev/disk/by-partlabel
"""
UPDATES = {
    "mender": """\
echo a >/mnt/env/bootslot
mkdir -p /mnt/mender/files /mnt/mender/tmp && tar -xf "$(disk update)" -C /mnt/mender/files
sh /mnt/mender/files/mender-module ArtifactInstall /mnt/mender 2>/dev/null &&
    echo "UPDATED $(fw_printenv -n bootslot) $(cat /mnt/env/upgrade_available)"
""",
    "rauc": """\
mkdir -p /run/bundle && tar -xf "$(disk update)" -C /run/bundle && cd /run/bundle
install_slot() {
    dd if="$2" of="$slot/$3-b" bs=1M conv=fsync 2>/dev/null &&
        RAUC_SLOT_CLASS=$1 RAUC_SLOT_DEVICE=$slot/$3-b sh rauc-hook slot-post-install
}
install_slot rootfs rootfs.squashfs root && install_slot rootverity rootfs.verity root-verity &&
    install_slot store store.squashfs store && install_slot storeverity store.verity store-verity && echo "UPDATED b 1"
""",
    "swupdate": """\
mkdir -p /run/update && tar -xf "$(disk update)" -C /run/update && cd /run/update
for pair in rootfs.squashfs:root rootfs.verity:root-verity store.squashfs:store store.verity:store-verity; do
    dd if="${pair%:*}" of="$slot/${pair#*:}-b" bs=1M conv=fsync 2>/dev/null
done
sh swupdate-switch postinst b && echo "UPDATED b 1"
""",
}
# After the boot into the other slot. The kit's own verdict is what each of the three asks.
CONFIRM = """\
sh /mnt/mender/files/mender-module ArtifactVerifyReboot /mnt/mender && sh /mnt/mender/files/mender-module ArtifactCommit /mnt/mender &&
    echo "CONFIRMED $(cat /mnt/env/upgrade_available)"
"""


def payload(firmware: Firmware, path: Path) -> Disk:
    """Everything of a firmware that an updater brings."""
    with tarfile.open(path, "w") as tar:
        for name in ("rootfs.squashfs", "rootfs.verity", "rootfs.roothash"):
            tar.add(firmware.root / name, name)
        for name in ("store.squashfs", "store.verity", "store.roothash"):
            tar.add(firmware.out / name, name)
        for name in ("mender-module", "rauc-hook", "swupdate-switch"):
            tar.add(firmware.root / "boot" / name, name)
    return Disk(path, "update")


@pytest.mark.parametrize("updater", UPDATES)
def test_an_update_fills_the_other_slot_that_boots_and_the_old_one_still_does(bench: Bench, tmp_path: Path, updater: str) -> None:
    require("gpt")
    base = bench.base("busybox docker sfdisk", lambda: busybox_root((*DOCKER, "sfdisk")))
    first, second = (bench.firmware(of, base=base, rootfs=OPTIONS, placement="partition") for of in ("one", "two"))
    shutil.copy(first.root / "disk.img", tmp_path / "disk.img")
    disk, state, update = Disk(tmp_path / "disk.img", "disk", writable=True), bench.data_disk(), payload(second, tmp_path / "update.tar")

    def boot(firmware: Firmware, after: str) -> Console:
        words = (firmware.root / "boot/kernel-cmdline.txt").read_text().strip()
        disks = [disk, case_disk(tmp_path / "case.tar", "mkdir -p /mnt\n", f"{SURROUNDINGS}{after}"), state, update]
        return Machine(firmware.kernel, firmware.initrd, disks, append=words, memory_mib=1024).run()

    said = boot(first, UPDATES[updater] + REPORT)
    assert said_everything(said)
    assert said.value("UPDATED") == "b 1"

    # The boot loader takes the words that belong to the slot: nothing else says which one is meant.
    said = boot(
        second, f"fw_setenv bootslot b\n{REPORT}{CONFIRM if updater == 'mender' else ''}docker images -q | wc -l | sed 's/^/IMAGES /'\n"
    )
    assert said_everything(said)
    assert said.value("IMAGES") == "1"
    if updater == "mender":
        assert said.value("CONFIRMED") == "0"
    said = boot(first, f"{REPORT}docker images -q | wc -l | sed 's/^/IMAGES /'\n")
    assert said_everything(said)
    assert said.value("IMAGES") == "2"
