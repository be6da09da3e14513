"""The SquashFS tools against each other on the same entries, as ratios to tar2sqfs: time, memory, size, and reading when mounted.

    python benchmarks/squashfs_tools.py [--mebibytes 300] [--rounds 3] [--with zstd:3 zstd:15 xz] [--block-size 131072] [--read]

Every way is a process of its own that reads a layer's tar from the page cache and writes an image: ``builtin`` straight
from the entries, the others through records and a pipe. ``--read`` mounts the images (as root, in a mount namespace of
its own) and reads all files in order, 4 KiB at random places, and random small files whole.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import realimage
from measuring import ROOT, Run, environment, measured, ratios, rounds

sys.path.insert(0, str(ROOT / ".ns"))

from shiplap.core.entries import Entry, FileSlice
from shiplap.core.layer.unpack import unpack_layer
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry
from shiplap.rootfs.sinks import SquashfsOptions, open_sink

TOOLS = ("tar2sqfs", "builtin", "mksquashfs")
PICKED = 3000


def entries(tar: Path) -> Iterator[Entry]:
    with tar.open("rb") as file:
        whole = FileSlice(file.fileno(), 0, tar.stat().st_size, str(tar))
        tree, _ = unpack_layer(whole, where=str(tar), epoch=0, entries_max=10_000_000, note=lambda _: None)
        for entry in tree.stream(b"", whole):
            yield replace(entry, mtime_nanoseconds=0) if entry.mtime_nanoseconds else entry


def pack(tool: str, compression: str, level: int | None, block_size_bytes: int, tar: Path, image: Path) -> None:
    options = SquashfsOptions(tool, compression, level, block_size_bytes)
    if tool != "mksquashfs":
        with open_sink(options, image) as add:
            for entry in entries(tar):
                add(entry)
        return
    # Directly: the sink refuses versions before 4.6, which are good enough to be measured.
    argv = ["mksquashfs", "-", str(image), "-tar", "-comp", compression, "-b", str(block_size_bytes)]
    argv += ["-no-exports", "-tailends", "-noappend", "-quiet", "-no-progress", "-mem", "512M"]
    argv += [] if options.effective_level is None else ["-Xcompression-level", str(options.effective_level)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    for entry in entries(tar):
        write_entry(entry, process.stdin.write)
    process.stdin.write(END_OF_ARCHIVE)
    process.stdin.close()
    if process.wait():
        raise SystemExit("mksquashfs failed")


def read(image: Path, mount_point: Path) -> None:
    """Print the seconds of the three ways to read, the best of three fresh mounts each."""
    image.read_bytes()  # into the page cache: the disk is not what is measured

    def mounted(work: Callable[[], None]) -> float:
        best = float("inf")
        for _ in range(3):
            subprocess.run(["mount", "-t", "squashfs", "-o", "ro,loop", image, mount_point], check=True)
            start = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - start)
            subprocess.run(["umount", mount_point], check=True)
        return best

    files: list[tuple[str, int]] = []

    def walk() -> None:
        files.clear()
        for parent, folders, names in os.walk(mount_point):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(parent, name)
                if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path):
                    files.append((path, os.path.getsize(path)))

    walked = mounted(walk)
    rng = random.Random(1)
    places = [(path, rng.randrange(size)) for path, size in rng.sample(files, min(PICKED, len(files)))]
    small = [path for path, size in files if size < 65536]
    small = rng.sample(small, min(PICKED, len(small)))

    def in_order() -> None:
        for path, _ in files:
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass

    def at_random() -> None:
        for path, place in places:
            descriptor = os.open(path, os.O_RDONLY)
            os.pread(descriptor, 4096, place)
            os.close(descriptor)

    def whole_small_ones() -> None:
        for path in small:
            with open(path, "rb", buffering=0) as file:
                file.read(65536)

    print(walked, *(mounted(work) for work in (in_order, at_random, whole_small_ones)))


def compare(tar: Path, folder: Path, compression: str, level: int | None, block_size_bytes: int, count: int, *, reading: bool) -> None:
    images = {tool: folder / tool for tool in TOOLS}
    sizes: dict[str, int] = {}

    def way(tool: str) -> Run:
        images[tool].unlink(missing_ok=True)
        given = [tool, compression, str(level or "-"), str(block_size_bytes), str(tar), str(images[tool])]
        run = measured([sys.executable, __file__, "--pack", *given])
        sizes[tool] = images[tool].stat().st_size
        return run

    title = f"{compression} {level or ''} in blocks of {block_size_bytes >> 10}K"
    print(f"\n{title}\n{ratios(rounds({tool: lambda tool=tool: way(tool) for tool in TOOLS}, count), 'tar2sqfs')}")  # type: ignore[misc]
    print("size: " + ", ".join(f"{tool} {sizes[tool] / sizes['tar2sqfs']:.4f}x" for tool in TOOLS))
    if not reading:
        return
    found: dict[str, list[list[float]]] = {tool: [] for tool in TOOLS}
    mount_point = folder / "mounted"
    mount_point.mkdir(exist_ok=True)
    for _ in range(count):
        for tool in TOOLS:
            argv = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, "--read-image", images[tool], mount_point]
            done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment())
            found[tool].append([float(word) for word in done.stdout.split()])
    best = {tool: [min(column) for column in zip(*rows, strict=True)] for tool, rows in found.items()}
    for number, what in enumerate(("walk", "all in order", f"{PICKED} x 4 KiB at random", f"{PICKED} small files")):
        print(f"read, {what}: " + ", ".join(f"{tool} {best[tool][number] / best['tar2sqfs'][number]:.2f}x" for tool in TOOLS))


def main() -> None:
    if sys.argv[1:2] == ["--pack"]:
        tool, compression, level, block_size, tar, image = sys.argv[2:]
        pack(tool, compression, None if level == "-" else int(level), int(block_size), Path(tar), Path(image))
        return
    if sys.argv[1:2] == ["--read-image"]:
        read(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--with", dest="compressions", nargs="*", default=["zstd:3", "zstd:15", "xz"], metavar="NAME[:LEVEL]")
    parser.add_argument("--block-size", type=int, default=131072)
    parser.add_argument("--read", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shiplap-bench-") as name:
        folder = Path(name)
        tar = realimage.layer_tars(folder, arguments.mebibytes << 20, 1)[0]
        for text in arguments.compressions:
            compression, _, level = text.partition(":")
            number = int(level) if level else None
            compare(tar, folder, compression, number, arguments.block_size, arguments.rounds, reading=arguments.read)


if __name__ == "__main__":
    main()
