"""What it costs until a container says its first line, on emulated machines; the tables of docs/boot.md.

    python benchmarks/boot_figures.py [--rounds 1] [--table modes|memory|both]

Needs what the tests of boots need: qemu, docker.io, cryptsetup-bin, busybox, apt for the kernel. The cost is the processor time of the
emulator from the kernel's start to the container's first line, as a multiple of the first row's: an emulated machine's seconds are no
device's, and processor time does not grow with what else this computer does. Bytes are exact: sectors that the kernel counted, and what a
tmpfs holds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import realimage  # noqa: F401  first: it makes the tests' builders importable
from boot.firmware import MOUNT_DATA, Bench, Firmware, container
from boot.machine import Disk

# The container opens a pipe of the machine, which is read at once: no client is asked again and again.
PIPE = "mkdir -p /run/first && mkfifo -m 666 /run/first/line\n"
WAIT = """\
(sleep 240; echo none >/run/first/line) &
read -r line </run/first/line
echo "FIRST $line"
echo "READ $(awk '{ sum += $3 } END { print sum }' /sys/block/vd*/stat)"
sync
echo "PARTITION $(written)"
grep -q '^shiplap-data /var/lib/docker tmpfs' /proc/mounts && echo "TMPFS $(df -k /var/lib/docker | awk 'END { print $(NF - 3) }')"
echo "FREE $(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)"
"""
CHECK = container(args=["/bin/sh", "-c", "echo first >/first/line; exec sleep 1000000"], volumes=["/run/first:/first"])
VOLATILE = {"path": "/var/lib/docker", "persistence": "volatile"}
PERSISTENT = {"path": "/var/lib/docker", "persistence": "persistent"}
SECTOR_BYTES = 512
Figures = dict[str, float]


def boot(firmware: Firmware, disks: list[Disk], memory_mib: int = 640) -> Figures | None:
    """Figures of one boot, or None when the container said nothing."""
    machine = firmware.machine(WAIT, before=PIPE + (MOUNT_DATA if disks else ""), disks=disks, memory_mib=memory_mib)
    with machine.on() as running:
        running.until("\nFIRST ")
        cost = running.processor_seconds() if running.is_on() else 0.0
        console = running.ended()
    if console.value("FIRST") != "first":
        print(console.text[-1500:], file=sys.stderr)
        return None
    tmpfs = console.after("TMPFS")
    return {
        "cost": cost,
        "read": float(console.value("READ")) * SECTOR_BYTES,
        "partition": float(console.value("PARTITION")) * SECTOR_BYTES,
        "tmpfs": float(tmpfs[0]) * 1024 if tmpfs else 0.0,
        "free": float(console.value("FREE")) / 1024,
    }


def kib(value: float) -> str:
    return f"{value / 1024:,.0f}"


def mib(value: float) -> str:
    return f"{value / (1 << 20):.1f}"


def median(runs: list[Figures | None]) -> Figures | None:
    whole = [run for run in runs if run is not None]
    return {key: statistics.median(run[key] for run in whole) for key in whole[0]} if whole and len(whole) == len(runs) else None


def modes(bench: Bench, rounds: int) -> None:
    """Store against archive, volatile and persistent."""
    rows: list[tuple[str, Figures | None]] = []
    for mode in ("store", "archive"):
        for data_root in (VOLATILE, PERSISTENT):
            firmware = bench.firmware(mode=mode, containers=[CHECK], **{"data-root": data_root})
            found: dict[str, list[Figures | None]] = {}
            for _ in range(rounds):
                disks = [bench.data_disk()] if data_root is PERSISTENT else []
                for name in ("first boot", "later boot") if disks else ("each boot",):
                    print(f"{mode} {data_root['persistence']} {name}", file=sys.stderr)
                    found.setdefault(name, []).append(boot(firmware, disks))
            rows += [(f"{mode}, {data_root['persistence']}, {name}", median(runs)) for name, runs in found.items()]
    reference = rows[0][1]
    assert reference is not None, "the first row's container said nothing"
    print("| | cost until the first line | read from the disks, MiB | written to the partition, KiB | held in the tmpfs, KiB |")
    print("|---|---|---|---|---|")
    for name, figures in rows:
        if figures is None:
            print(f"| {name} | no line | | | |")
        else:
            ratio = figures["cost"] / reference["cost"]
            print(f"| {name} | {ratio:.2f} | {mib(figures['read'])} | {kib(figures['partition'])} | {kib(figures['tmpfs'])} |", flush=True)


# (placement, seal) → what is verified by dm-verity.
SEALS = {
    ("file", "never"): "root",
    ("file", "always"): "root, and the store again",
    ("partition", "never"): "root; the store is not",
    ("partition", "always"): "root and store, each once",
}


def memory(bench: Bench, rounds: int) -> None:
    """Guests of 512, 256 and 128 MB; sealed once and twice; file and partition."""
    reference = 0.0
    print("\n| store | sealed | 512 MB | 256 MB | 128 MB |\n|---|---|---|---|---|")
    for (placement, seal), sealed in SEALS.items():
        options: dict[str, Any] = {"placement": placement, "verity": {"seal": seal}}
        extra = ("--placement", "partition", "--disk") if placement == "partition" else ()
        firmware = bench.firmware(rootfs=extra, containers=[CHECK], **{"data-root": VOLATILE}, **options)
        cells = []
        for mebibytes in (512, 256, 128):
            print(f"{placement} {seal} {mebibytes}", file=sys.stderr)
            figures = median([boot(firmware, [], mebibytes) for _ in range(rounds)])
            if figures is None:
                cells.append("no line")
                continue
            reference = reference or figures["cost"]
            cells.append(f"{figures['cost'] / reference:.2f}; {mib(figures['read'])} MiB read; {figures['free']:.0f} MiB free")
        print(f"| {placement} | {sealed} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="boots of each kind; medians are printed")
    parser.add_argument("--table", choices=("modes", "memory", "both"), default="both")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shiplap-boots-") as folder:
        bench = Bench(Path(folder))
        if options.table != "memory":
            modes(bench, options.rounds)
        if options.table != "modes":
            memory(bench, options.rounds)


if __name__ == "__main__":
    main()
