"""The kit's seeding without an engine: a store in a folder, mounted onto itself where the kit expects it, and a data-root."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from powercuts import cut_environment

KIT = Path(__file__).resolve().parents[1] / "rootfs/target/files"


def unpacked_store(folder: Path, images: Sequence[ImageSpec], *words: str) -> Path:
    """What the store image of a build with the options ``words`` holds."""
    folder.mkdir()
    archive = docker_archive(folder / "images.tar", images)
    done = shiplap_command(
        "build", *words, f"docker-archive:{archive}", "-o", str(folder / "out"), "--store-path", "/s", "--source-date-epoch", "1"
    )
    assert done.returncode == 0, done.stderr
    subprocess.run(["unsquashfs", "-q", "-n", "-d", folder / "store", folder / "out/store.squashfs"], check=True, capture_output=True)
    return folder / "store"


def seeded(
    work: Path, store: Path, values: Mapping[str, str], shell: Sequence[str] = ("dash",), awk: str = "mawk", cut_at: int = 0,
    verb: str = "seed",
) -> tuple[int, str]:  # fmt: skip
    """Run ``shiplap-target seed`` (or another ``verb``) in a mount namespace of its own; its exit code and what it said.

    ``values``: of store.conf. ``cut_at``: the power goes at that call of a program of ``work``/cuts (see powercuts.py).
    """
    settings = {
        "FORMAT": "1", "MODE": "store", "SEALED": "no", "PERSISTENCE": "persistent", "IMAGE": "/nowhere", "STORE_PATH": str(store.parent),
        "STORE_ID": hashlib.sha256((store / "store.json").read_bytes()).hexdigest(), **values,
    }  # fmt: skip
    conf = work / "store.conf"
    conf.write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items()))
    awks = work / f"awk-{awk}"
    if not awks.exists():
        awks.mkdir()
        (awks / "awk").symlink_to(f"/usr/bin/{awk}")
    environment = cut_environment(work, cut_at)
    environment |= {
        "PATH": f"{awks}:{environment['PATH']}", "SHIPLAP_CONF": str(conf), "SHIPLAP_LIB": str(KIT), "SHIPLAP_RUN": str(work / "run"),
    }  # fmt: skip
    inside = f"mount --bind {store} {store} && exec {shlex.join(shell)} {KIT}/shiplap-target {verb}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", inside], env=environment, capture_output=True, text=True, check=False)
    if not cut_at:
        assert done.returncode == 0, done.stderr
    return done.returncode, done.stderr
