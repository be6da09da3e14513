"""Whole processes, measured side by side: every round runs each way once, and ratios come from one run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPLAP = (sys.executable, "-m", "shiplap.cli", "--progress", "quiet")


@dataclass(frozen=True)
class Run:
    """Seconds of wall and of processor time (children included), peak resident memory of the largest process in bytes."""

    wall: float
    cpu: float
    peak_bytes: int


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / ".ns")}


def measured(argv: Sequence[str | os.PathLike[str]], *, stdin: Path | None = None) -> Run:
    """Run a program to its end; raises when it fails."""
    start = time.perf_counter()
    with (stdin or Path(os.devnull)).open("rb") as source:
        process = subprocess.Popen(argv, stdin=source, stdout=subprocess.DEVNULL, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv[0]} ended with {process.returncode}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def timed(call: Callable[[], object]) -> Run:
    """Something that is more than one program: wall time only."""
    start = time.perf_counter()
    call()
    return Run(time.perf_counter() - start, 0.0, 0)


def rounds(ways: Mapping[str, Callable[[], Run]], count: int) -> dict[str, list[Run]]:
    """Each way once a round, in turn."""
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for number in range(count):
        for name, way in ways.items():
            print(f"round {number + 1}/{count}: {name}", file=sys.stderr)
            runs[name].append(way())
    return runs


def ratios(runs: Mapping[str, Sequence[Run]], reference: str) -> str:
    """A table of medians as multiples of ``reference``; the machine's own seconds are left out on purpose."""
    lines = [f"{'way':44} {'wall':>7} {'cpu':>7} {'peak':>9}"]
    base = runs[reference]
    for name, found in runs.items():
        wall = statistics.median(run.wall for run in found) / statistics.median(run.wall for run in base)
        base_cpu = statistics.median(run.cpu for run in base)
        cpu = statistics.median(run.cpu for run in found) / base_cpu if base_cpu and found[0].cpu else 0
        peak = max(run.peak_bytes for run in found) >> 20
        lines.append(f"{name:44} {wall:6.2f}x {f'{cpu:6.2f}x' if cpu else '      –'} {f'{peak} MiB' if peak else '–':>9}")
    return "\n".join(lines)
