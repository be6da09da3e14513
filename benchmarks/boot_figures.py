"""Seconds and bytes written from the kernel's start to the container's first line, on emulated machines; the tables of docs/boot.md.

    python benchmarks/boot_figures.py [--rounds 1]

Needs what the tests of boots need: qemu, docker.io, cryptsetup-bin, busybox, apt for the kernel. Times are given as multiples of the first
row: an emulated machine's seconds are no device's. Bytes are exact: sectors written to the data partition, and what a tmpfs holds.
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
(sleep 150; echo none >/run/first/line) &
read -r line </run/first/line
echo "FIRST $line $(cut -d' ' -f1 /proc/uptime)"
sync
echo "PARTITION $(written)"
echo "TMPFS $(df -k /var/lib/docker | awk '$1 == "shiplap-data" { print $3 }')"
echo "FREE $(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)"
"""
CHECK = container(args=["/bin/sh", "-c", "echo first >/first/line; exec sleep 1000000"], volumes=["/run/first:/first"])
VOLATILE = {"path": "/var/lib/docker", "persistence": "volatile"}
PERSISTENT = {"path": "/var/lib/docker", "persistence": "persistent"}


def boot(firmware: Firmware, disks: list[Disk], memory_mib: int = 640) -> dict[str, float] | None:
    """Figures of one boot, or None when the container said nothing."""
    console = firmware.boot(WAIT, before=PIPE + (MOUNT_DATA if disks else ""), disks=disks, memory_mib=memory_mib)
    first = console.after("FIRST first")
    if not first:
        return None
    tmpfs = console.after("TMPFS")
    return {
        "seconds": float(first[0]),
        "partition": float(console.value("PARTITION")) * 512,
        "tmpfs": float(tmpfs[0]) * 1024 if tmpfs else 0.0,
        "free": float(console.value("FREE")) / 1024,
    }


def kib(value: float) -> str:
    return f"{value / 1024:,.0f}"


def modes(bench: Bench, rounds: int) -> None:
    """Store against archive, volatile and persistent."""
    rows: list[tuple[str, dict[str, float] | None]] = []
    for mode in ("store", "archive"):
        for data_root in (VOLATILE, PERSISTENT):
            firmware = bench.firmware(mode=mode, containers=[CHECK], **{"data-root": data_root})
            found: dict[str, list[dict[str, float] | None]] = {}
            for _ in range(rounds):
                disks = [bench.data_disk()] if data_root is PERSISTENT else []
                for name in ("first boot", "later boot") if disks else ("each boot",):
                    print(f"{mode} {data_root['persistence']} {name}", file=sys.stderr)
                    found.setdefault(name, []).append(boot(firmware, disks))
            rows += [(f"{mode}, {data_root['persistence']}, {name}", median(runs)) for name, runs in found.items()]
    reference = rows[0][1]
    assert reference is not None, "the first row's container said nothing"
    print("| | time to the first line | written to the partition, KiB | held in the tmpfs, KiB |\n|---|---|---|---|")
    for name, figures in rows:
        if figures is None:
            print(f"| {name} | no line | | |")
        else:
            ratio = figures["seconds"] / reference["seconds"]
            print(f"| {name} | {ratio:.2f} | {kib(figures['partition'])} | {kib(figures['tmpfs'])} |")


def median(runs: list[dict[str, float] | None]) -> dict[str, float] | None:
    whole = [run for run in runs if run is not None]
    return {key: statistics.median(run[key] for run in whole) for key in whole[0]} if len(whole) == len(runs) else None


def memory(bench: Bench) -> None:
    """Guests of 128, 256 and 512 MB; sealed once and twice; file and partition."""
    reference = 0.0
    print("\n| store | sealed | 512 MB | 256 MB | 128 MB |\n|---|---|---|---|---|")
    for placement in ("file", "partition"):
        for seal in ("never", "always"):
            options: dict[str, Any] = {"placement": placement, "verity": {"seal": seal}}
            extra = ("--placement", "partition", "--disk") if placement == "partition" else ()
            firmware = bench.firmware(rootfs=extra, containers=[CHECK], **{"data-root": VOLATILE}, **options)
            cells = []
            for mebibytes in (512, 256, 128):
                print(f"{placement} {seal} {mebibytes}", file=sys.stderr)
                figures = boot(firmware, [], mebibytes)
                if figures is not None:
                    reference = reference or figures["seconds"]
                cells.append("no" if figures is None else f"{figures['seconds'] / reference:.2f}, {figures['free']:.0f} MiB free")
            with_root = {("file", "never"): "root", ("file", "always"): "root and store", ("partition", "never"): "root; the store is not"}
            sealed = with_root.get((placement, seal), "root and store")
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
            memory(bench)


if __name__ == "__main__":
    main()
