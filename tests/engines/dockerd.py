"""The real dockerd in a private root: ``with Dockerd(workdir) as engine: engine.docker("load", "-i", archive)``."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engines.privateroot import PrivateRoot

SOCKET = "/run/shiplap-docker.sock"
PID_FILE = "/run/shiplap-docker.pid"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
VOLATILE = "/var/lib/docker"


class DockerdError(AssertionError):
    """The daemon did not start or did not stop; the message ends with the tail of its log."""


class Dockerd:
    """One dockerd with its own data-root, exec-root, containerd and socket.

    ``data_root``: a directory of the host below ``workdir`` (default ``workdir/data-root``), left in place afterwards.
    ``volatile``: a fresh tmpfs at /var/lib/docker inside the namespace instead, gone afterwards.
    ``mounts``: (SquashFS file, mount point) pairs. ``base``: root of another distribution (newer engines).
    Entering the context starts nothing but the namespace when ``start`` is off: seed the data-root with
    ``run_in_namespace``, then call :meth:`start`.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        data_root: Path | None = None,
        volatile: bool = False,
        mounts: Sequence[tuple[Path, str]] = (),
        binds: Sequence[Path] = (),
        base: Path = Path("/"),
        options: Sequence[str] = (),
        start: bool = True,
    ) -> None:
        self.workdir = workdir.resolve()
        self.data_root = Path(VOLATILE) if volatile else (data_root or self.workdir / "data-root").resolve()
        self.root = PrivateRoot(self.workdir, base=base, mounts=mounts, binds=binds, tmpfs=[VOLATILE] if volatile else [])
        self.log = self.workdir / "dockerd.log"
        self._volatile = volatile
        self._options = tuple(options)
        self._start = start
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if not self._volatile:
            self.data_root.mkdir(parents=True, exist_ok=True)
        self.root.__enter__()
        try:
            if self._start:
                self.start()
        except BaseException:
            self.root.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.root.close()
            if self._daemon is not None:
                self._daemon.wait()

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        argv = [
            "dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--exec-opt", "native.cgroupdriver=cgroupfs",
            f"--cgroup-parent=/{self.root.cgroup}", "--data-root", str(self.data_root), "--exec-root", "/run/shiplap-docker",
            "--pidfile", PID_FILE, "--host", f"unix://{SOCKET}", *self._options,
        ]  # fmt: skip
        self._daemon = self.root.spawn(argv, self.log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._daemon.poll() is not None:
                raise DockerdError(f"dockerd ended with {self._daemon.returncode}:\n{self.log_tail()}")
            if self.root.run(["test", "-S", SOCKET], check=False).returncode == 0 and not self.docker("version", check=False).returncode:
                return
            if time.monotonic() > deadline:
                raise DockerdError(f"dockerd did not answer within {START_SECONDS:.0f} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the daemon in order, so that its data-root is complete on disk."""
        if self._daemon is None or self._daemon.poll() is not None:
            return
        self.root.run(["sh", "-c", f"kill -TERM $(cat {PID_FILE})"])
        try:
            self._daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise DockerdError(f"dockerd did not stop within {STOP_SECONDS:.0f} s:\n{self.log_tail()}") from None

    def kill(self) -> None:
        """End the daemon as a power cut does."""
        assert self._daemon is not None
        self.root.run(["sh", "-c", f"kill -KILL $(cat {PID_FILE})"])
        self._daemon.wait(STOP_SECONDS)

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def docker(
        self, *arguments: str | os.PathLike[str], input: bytes | None = None, timeout: float = 120.0, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the docker client of the engine's own package against it. Paths below the temporary directory or ``workdir`` are visible."""
        # /usr/bin/docker by path: a newer client elsewhere in PATH would rather speak for itself.
        return self.root.run(["/usr/bin/docker", "--host", f"unix://{SOCKET}", *arguments], input=input, timeout=timeout, check=check,
                             env={"DOCKER_CONFIG": "/run/shiplap-docker-config"})  # fmt: skip

    def run_in_namespace(
        self, argv: Sequence[str | os.PathLike[str]], *, input: bytes | None = None, timeout: float = 120.0, check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
        return self.root.run(argv, input=input, timeout=timeout, check=check, env=env)

    def seed(self, skeleton: str) -> None:
        """Copy a store image's skeleton (a path inside the namespace) into the data-root, as a device does at boot."""
        self.run_in_namespace(["cp", "-a", f"{skeleton}/.", f"{self.data_root}/"])

    def image_id(self, reference: str) -> str:
        return self.docker("image", "inspect", "--format", "{{.Id}}", reference).stdout.decode().strip()

    def images(self) -> list[dict[str, Any]]:
        """What ``docker images`` lists, one object for each line."""
        listed = self.docker("images", "--no-trunc", "--digests", "--format", "{{json .}}").stdout
        return [json.loads(line) for line in listed.splitlines()]

    @property
    def version(self) -> str:
        return self.docker("version", "--format", "{{.Server.Version}}").stdout.decode().strip()
