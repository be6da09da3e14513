"""``shiplap build`` against what people do today, and the whole chain against bare tar2sqfs, as ratios.

    python benchmarks/store_build.py [--mebibytes 300] [--layers 6] [--rounds 3] [--levels 3 9 15]

Ways to a store on disk: a daemon (start, ``docker load``, stop, tar of the data-root), skopeo and umoci, and
``shiplap build --output tar``. Then the whole chain (archive to sealed SquashFS) against tar2sqfs alone on the finished
tar stream that it would get. Needs root for the daemon and for umoci.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import realimage  # first: it makes the tests' builders importable
from engines.dockerd import Dockerd
from measuring import SHIPLAP, Run, environment, measured, ratios, rounds, timed

MANIFEST = """\
version: 1
name: bench
epoch: 0
images:
  - {{ ref: "bench:1", from: "docker-archive:{archive}" }}
squashfs: {{ tool: tar2sqfs, level: {level} }}
"""


def daemon(folder: Path, archive: Path) -> Run:
    work = folder / "daemon"

    def load() -> None:
        with Dockerd(work, binds=[archive.parent]) as engine:
            engine.docker("load", "-i", str(archive), timeout=600)
        subprocess.run(
            ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", work / "data-root", "-cf", folder / "d.tar", "."], check=True
        )

    run = timed(load)
    shutil.rmtree(work)
    return run


def umoci(folder: Path, archive: Path) -> Run:
    layout, bundle = folder / "layout", folder / "bundle"

    def unpack() -> None:
        copy = ["skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{archive}", f"oci:{layout}:bench"]
        subprocess.run(copy, check=True)
        subprocess.run(["umoci", "unpack", "--image", f"{layout}:bench", bundle], check=True, stderr=subprocess.DEVNULL)

    run = timed(unpack)
    shutil.rmtree(layout)
    shutil.rmtree(bundle)
    return run


def shiplap(folder: Path, *arguments: str) -> Run:
    out = folder / "out"
    run = measured([*SHIPLAP, "build", "-o", str(out), *arguments])
    shutil.rmtree(out)
    return run


def bare(folder: Path, stream: Path, level: int) -> Run:
    image = folder / "bare.squashfs"
    run = measured(["tar2sqfs", "-q", "-c", "zstd", "-X", f"level={level}", "-f", str(image)], stdin=stream)
    image.unlink()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=300)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--levels", type=int, nargs="*", default=[3, 9, 15])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shiplap-bench-") as name:
        folder = Path(name)
        archive = realimage.archive(folder, arguments.mebibytes << 20, arguments.layers)
        source = f"docker-archive:{archive}"
        ways: dict[str, Callable[[], Run]] = {
            "shiplap build --output tar": lambda: shiplap(folder, "--output", "tar", source),
            "dockerd: start, load, stop, tar": lambda: daemon(folder, archive),
            "skopeo copy + umoci unpack": lambda: umoci(folder, archive),
        }
        print(ratios(rounds(ways, arguments.rounds), "shiplap build --output tar"))
        stream = folder / "stream.tar"
        # The stream that tar2sqfs gets: the layers' trees as the store has them.
        command = [*SHIPLAP, "build", "-o", folder / "s", "--output", "tar", source]
        subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
        shutil.move(folder / "s" / "store.tar", stream)
        for level in arguments.levels:
            manifest = folder / f"level{level}.yaml"
            manifest.write_text(MANIFEST.format(archive=archive, level=level))
            at_level: dict[str, Callable[[], Run]] = {
                f"tar2sqfs alone, level {level}": lambda level=level: bare(folder, stream, level),  # type: ignore[misc]
                f"shiplap build, level {level}": lambda manifest=manifest: shiplap(folder, "-f", str(manifest)),  # type: ignore[misc]
            }
            print(ratios(rounds(at_level, arguments.rounds), f"tar2sqfs alone, level {level}"))


if __name__ == "__main__":
    main()
