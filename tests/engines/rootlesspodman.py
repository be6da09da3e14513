"""Podman of an ordinary user, with the service on the socket where systemd would put it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engines.privateroot import PrivateRoot, tool
from requirement import missing

USER = 4242
START_SECONDS = 30.0
_OPTIONS = ("--storage-driver=vfs", "--events-backend=none", "--cgroup-manager=cgroupfs")


@contextmanager
def rootless_podman(folder: Path, archive: Path) -> Iterator[dict[str, str]]:
    """``archive`` loaded by user USER, who has everything below ``folder``/home; yields his environment (HOME, XDG_RUNTIME_DIR).

    ``folder`` can be looked into by everybody. The user exists only inside the private root.
    """
    if tool("newuidmap") is None:
        missing("podman", "newuidmap is not installed (Debian: uidmap)")
    home = folder / "home"
    (home / "run/podman").mkdir(parents=True)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", str(home)], check=True)
    variables = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")}
    as_user = [
        "setpriv",
        f"--reuid={USER}",
        f"--regid={USER}",
        "--clear-groups",
        "env",
        *(f"{key}={value}" for key, value in variables.items()),
    ]
    listens, log = home / "run/podman/podman.sock", folder / "service.log"
    with PrivateRoot(folder / "private", binds=[folder]) as root:
        root.run(
            ["sh", "-c", 'echo "tester:x:$1:$1::$2:/bin/sh" >>/etc/passwd; echo "tester:x:$1:" >>/etc/group; '
             "for file in /etc/subuid /etc/subgid; do echo tester:200000:65536 >>$file; done", "sh", str(USER), str(home)],
        )  # fmt: skip
        if root.run([*as_user, "unshare", "--user", "--map-root-user", "true"], check=False).returncode:
            pytest.skip("ordinary users may have no user namespace here")
        root.run([*as_user, "podman", *_OPTIONS, "load", "--input", archive])
        service = root.spawn([*as_user, "podman", *_OPTIONS, "system", "service", "--time=0", f"unix://{listens}"], log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not listens.is_socket():
                if service.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"podman's service did not start:\n{log.read_text()}")
                time.sleep(0.05)
            assert os.stat(listens).st_uid == USER
            yield variables
        finally:
            service.kill()
            service.wait()
