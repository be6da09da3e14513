"""The real podman in a private root: ``with Podman(workdir) as engine: engine.podman("load", "--input", archive)``."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from engines.privateroot import PrivateRoot

STORAGE = "/var/lib/containers"
# The kernel of a build machine may not allow raising these, and podman otherwise tries.
RUN_OPTIONS = ("--rm", "--network=none", "--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")

OPTIONS = (
    f"--root={STORAGE}/storage",
    "--runroot=/run/containers",
    "--storage-driver=overlay",
    "--cgroup-manager=cgroupfs",
    "--events-backend=none",
)
START_SECONDS = 30.0


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as knocking:
        return knocking.connect_ex(str(path)) == 0


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

    @contextmanager
    def service(self, path: Path) -> Iterator[None]:
        """``podman system service`` on a unix socket below the temporary directory, until the context ends."""
        process = self.root.spawn(["podman", *OPTIONS, "system", "service", "--time=0", f"unix://{path}"], path.with_suffix(".log"))
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _listens(path):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"podman's service did not start:\n{path.with_suffix('.log').read_text()}")
                time.sleep(0.05)
            yield
        finally:
            process.kill()  # nsenter; the service itself goes with the private root
            process.wait()

    def podman(self, *arguments: str | os.PathLike[str], check: bool = True, timeout: float = 120.0) -> subprocess.CompletedProcess[bytes]:
        return self.root.run(["podman", *OPTIONS, *arguments], check=check, timeout=timeout)

    def run(self, image: str, *command: str) -> subprocess.CompletedProcess[bytes]:
        """``podman run`` without control groups and without a network."""
        return self.podman("run", *RUN_OPTIONS, image, *command)

    @property
    def version(self) -> str:
        return self.podman("version", "--format", "{{.Client.Version}}").stdout.decode().strip()
