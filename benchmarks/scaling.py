"""Time and memory of ``shiplap build`` as images grow: megabytes, layers, files. Ratios to the smallest of each row.

    python benchmarks/scaling.py [--mebibytes 100 300 1000 2000] [--layers 1 25 125] [--level 1]

Time over size should stay flat. Compression is low on purpose: it would hide everything else.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import realimage
from measuring import SHIPLAP, Run, measured

MANIFEST = """\
version: 1
name: bench
epoch: 0
images:
  - {{ ref: "bench:1", from: "docker-archive:{archive}" }}
squashfs: {{ level: {level} }}
"""


def build(folder: Path, archive: Path, level: int) -> Run:
    manifest = folder / "bench.yaml"
    manifest.write_text(MANIFEST.format(archive=archive, level=level))
    run = measured([*SHIPLAP, "build", "-f", str(manifest), "-o", str(folder / "out")])
    shutil.rmtree(folder / "out")
    return run


def row(title: str, runs: list[tuple[int, int, Run]]) -> None:
    """``runs``: (label, bytes of the archive, run)."""
    first = runs[0][2].wall / runs[0][1]
    print(title)
    for label, size_bytes, run in runs:
        print(f"  {label:>6}: time per byte {run.wall / size_bytes / first:5.2f}x, peak memory {run.peak_bytes >> 20} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, nargs="*", default=[100, 300, 1000, 2000])
    parser.add_argument("--layers", type=int, nargs="*", default=[1, 25, 125])
    parser.add_argument("--level", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shiplap-bench-") as name:
        folder = Path(name)
        sizes = []
        for mebibytes in arguments.mebibytes:
            archive = realimage.archive(folder, mebibytes << 20, 4)
            sizes.append((mebibytes, archive.stat().st_size, build(folder, archive, arguments.level)))
            archive.unlink()
        row("MiB in 4 layers", sizes)
        stacks = []
        for layers in arguments.layers:
            archive = realimage.archive(folder, 250 << 20, layers)
            stacks.append((layers, archive.stat().st_size, build(folder, archive, arguments.level)))
            archive.unlink()
        row("layers of 250 MiB", stacks)


if __name__ == "__main__":
    main()
