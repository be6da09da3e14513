"""A firmware as ``shiplap build`` makes it, unpacked, and its target kit run beside a real engine in a private root."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from engines.dockerd import SOCKET, Dockerd

STORE = "/usr/share/shiplap/store"
SHELLS = (["dash"], ["busybox", "ash"])
EPOCH = "1700000000"


@dataclass(frozen=True)
class Firmware:
    """``out``: the build's output; ``root``: target.tar, unpacked."""

    out: Path
    root: Path

    @property
    def mounts(self) -> list[tuple[Path, str]]:
        return [(self.out / "store.squashfs", STORE)]

    @property
    def conf(self) -> Path:
        return self.root / "etc/shiplap/store.conf"

    def change(self, **values: str) -> None:
        """Other values in store.conf."""
        text = self.conf.read_text()
        for key, value in values.items():
            text, count = re.subn(rf"(?m)^{key}=.*$", f"{key}='{value}'", text)
            assert count == 1, key
        self.conf.write_text(text)


def firmware(
    folder: Path,
    images: Sequence[ImageSpec],
    data_root: Path | str,
    /,
    persistence: str = "persistent",
    more: dict[str, str] | None = None,
    **keys: Any,
) -> Firmware:
    """Built from a manifest; unsealed unless ``keys`` say otherwise, because the private root mounts the store itself."""
    folder.mkdir(parents=True)
    archive = docker_archive(folder / "images.tar", images)
    references = [reference for image in images for reference in image.tags]
    manifest: dict[str, Any] = {
        "version": 1,
        "images": [{"ref": reference, "from": f"docker-archive:{archive}:{reference}"} for reference in references],
        "data-root": {"path": str(data_root), "persistence": persistence} | (more or {}),
        "verity": {"seal": "never"},
    }
    (folder / "shiplap.yaml").write_text(json.dumps(manifest | {key.replace("_", "-"): value for key, value in keys.items()}))
    out = folder / "out"
    done = shiplap_command("build", "-f", str(folder / "shiplap.yaml"), "-o", str(out), "--source-date-epoch", EPOCH)
    assert done.returncode == 0, done.stderr
    (folder / "root").mkdir()
    subprocess.run(["tar", "-xpf", out / "target.tar", "-C", folder / "root"], check=True)
    return Firmware(out, folder / "root")


def kit(engine: Dockerd, shell: Sequence[str], made: Firmware, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run a verb inside the private root."""
    environment = {
        "SHIPLAP_CONF": str(made.conf),
        "SHIPLAP_LIB": str(made.root / "usr/lib/shiplap"),
        "SHIPLAP_RUN": "/run/shiplap",
        "DOCKER_HOST": f"unix://{SOCKET}",
    }
    return engine.run_in_namespace([*shell, made.root / "usr/sbin/shiplap-target", *words], env=environment, check=check)


def device(folder: Path, made: Firmware, data_root: Path | None = None) -> Dockerd:
    """A private root with the firmware's store mounted; the engine is not started yet."""
    mounts = made.mounts if (made.out / "store.squashfs").exists() else []
    return Dockerd(folder, data_root=data_root, mounts=mounts, start=False)
