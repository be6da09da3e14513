"""The hash tree against ``veritysetup format`` and against bare sha256, side by side, as ratios.

    python benchmarks/hash_tree.py [--mebibytes 1024] [--rounds 5]

Every round runs each way once, one after the other, on the same file in the page cache; the best round of each
way counts, because other load on the machine only ever adds. Wall and CPU seconds are of whole processes,
start of the interpreter included.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SALT, UUID = "5a" * 32, "fa7ba89a-7b0d-4d53-8e5c-2c6d6b7c1f10"
RAW = """
import hashlib, sys
state, buffer = hashlib.sha256(), bytearray(1 << 20)
with open(sys.argv[1], "rb", buffering=0) as file:
    while count := file.readinto(buffer):
        state.update(memoryview(buffer)[:count])
"""


def ways(data: Path, folder: Path) -> dict[str, list[str]]:
    """What is measured: name -> command. Each writes its own hash file, which is removed before."""
    shiplap = [sys.executable, "-m", "shiplap.cli", "-q", "verity"]
    given = [f"--salt={SALT}", f"--uuid={UUID}"]
    found = {
        "raw sha256, one process": [sys.executable, "-c", RAW, str(data)],
        "shiplap, one process": [*shiplap, "format", *given, "--jobs=1", str(data), str(folder / "one")],
        "shiplap, all cores": [*shiplap, "format", *given, str(data), str(folder / "all")],
    }
    program = shutil.which("veritysetup", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        print("veritysetup is not installed: left out", file=sys.stderr)
    else:
        found["veritysetup format"] = [program, "format", *given, str(data), str(folder / "tool")]
    return found


def measure(argv: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".ns")}
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=environment)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shiplap-hash-tree-") as name:
        folder = Path(name)
        data = folder / "data"
        piece = random.Random(1)
        with data.open("wb") as file:
            for _ in range(arguments.mebibytes):
                file.write(piece.randbytes(1 << 20))
        commands = ways(data, folder)
        runs: dict[str, list[tuple[float, float]]] = {way: [] for way in commands}
        for _ in range(arguments.rounds):
            for way, argv in commands.items():
                for tree in ("one", "all", "tool"):
                    (folder / tree).unlink(missing_ok=True)
                runs[way].append(measure(argv))
        report(runs, arguments.mebibytes)


def report(runs: dict[str, list[tuple[float, float]]], mebibytes: int) -> None:
    """A table: best wall and CPU seconds, each also as a ratio to veritysetup where there is one, else to raw sha256."""
    best = {way: (min(wall for wall, _ in times), min(cpu for _, cpu in times)) for way, times in runs.items()}
    base = "veritysetup format" if "veritysetup format" in best else "raw sha256, one process"
    print(
        f"{mebibytes} MiB, {len(os.sched_getaffinity(0))} cores, best of {len(runs[base])}; load {os.getloadavg()[0]:.1f}; ratios to {base}"
    )
    for way, (wall, cpu) in best.items():
        worst = max(seconds for seconds, _ in runs[way])
        print(f"{way:<26} wall {wall:6.2f} s ({wall / best[base][0]:.2f}; worst {worst:.2f})  cpu {cpu:6.2f} s ({cpu / best[base][1]:.2f})")


if __name__ == "__main__":
    main()
