"""Images of a stated size from this machine's own files: real content, real sizes, several layers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from archives import ImageSpec, docker_archive  # noqa: E402

FOLDERS = ("usr/bin", "usr/lib", "usr/share", "usr/sbin", "usr/include", "usr/local")


def file_list(limit_bytes: int) -> list[str]:
    """Files of this machine, sorted, until ``limit_bytes`` are reached; as often again as needed, under other names."""
    found: list[str] = []
    total = 0
    for folder in FOLDERS:
        for parent, folders, names in os.walk(f"/{folder}"):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(parent, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    total += os.path.getsize(path)
                    found.append(path[1:])
                    if total >= limit_bytes:
                        return found
    return found


def layer_tars(folder: Path, size_bytes: int, layers: int) -> list[Path]:
    """Uncompressed layer tars of ``size_bytes`` altogether."""
    files = file_list(size_bytes)
    tars = []
    for number in range(layers):
        listing, tar = folder / f"list{number}", folder / f"layer{number}.tar"
        listing.write_text("\n".join(files[number::layers]) + "\n")
        command = ["tar", "--numeric-owner", "--hard-dereference", "--verbatim-files-from", "-C", "/", "-cf", tar, "-T", listing]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        tars.append(tar)
    return tars


def archive(folder: Path, size_bytes: int, layers: int) -> Path:
    """A docker-archive named ``bench:1``.

    Made by a process of its own: a child starts as a copy of its parent, and the kernel counts a large parent's memory as
    the child's peak.
    """
    path = folder / "bench.tar"
    subprocess.run([sys.executable, __file__, folder, path, str(size_bytes), str(layers)], check=True)
    return path


def main(folder: Path, path: Path, size_bytes: int, layers: int) -> None:
    tars = layer_tars(folder, size_bytes, layers)
    docker_archive(path, [ImageSpec([tar.read_bytes() for tar in tars], tags=["bench:1"])])
    for tar in tars:
        tar.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
