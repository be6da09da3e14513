"""The real podman in a private root: ``with Podman(workdir) as engine: engine.podman("load", "--input", archive)``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from engines.privateroot import PrivateRoot

STORAGE = "/var/lib/containers"
# The kernel of a build machine may not allow raising these, and podman otherwise tries.
RUN_OPTIONS = ("--rm", "--network=none", "--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")


class Podman:
    """podman with an empty storage of its own on tmpfs, gone afterwards; ``base`` is the root of another distribution."""

    def __init__(
        self, workdir: Path, *, binds: Sequence[Path] = (), mounts: Sequence[tuple[Path, str]] = (), base: Path = Path("/")
    ) -> None:
        self.root = PrivateRoot(workdir, base=base, binds=binds, mounts=mounts, tmpfs=[STORAGE])

    def __enter__(self) -> Self:
        self.root.__enter__()
        try:
            # crun refuses a mix of control group versions, which some machines have; it needs none of them here.
            self.root.run(["sh", "-c", "umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup"])
        except BaseException:
            self.root.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.root.close()

    def podman(self, *arguments: str | os.PathLike[str], check: bool = True, timeout: float = 120.0) -> subprocess.CompletedProcess[bytes]:
        options = (
            f"--root={STORAGE}/storage",
            "--runroot=/run/containers",
            "--storage-driver=overlay",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
        )
        return self.root.run(["podman", *options, *arguments], check=check, timeout=timeout)

    def run(self, image: str, *command: str) -> subprocess.CompletedProcess[bytes]:
        """``podman run`` without control groups and without a network."""
        return self.podman("run", *RUN_OPTIONS, image, *command)

    @property
    def version(self) -> str:
        return self.podman("version", "--format", "{{.Client.Version}}").stdout.decode().strip()
