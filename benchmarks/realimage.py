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
    """A docker-archive named ``bench:1``."""
    tars = layer_tars(folder, size_bytes, layers)
    path = docker_archive(folder / "bench.tar", [ImageSpec([tar.read_bytes() for tar in tars], tags=["bench:1"])])
    for tar in tars:
        tar.unlink()
    return path
