"""A private root with systemd as process 1: units and generators do there what they do on a device, without a kernel of their own."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from engines.podman import STORAGE
from engines.privateroot import HERE, environment, remove_cgroups
from engines.targetkit import Firmware

SYSTEMD = "usr/lib/systemd/systemd"
START_SECONDS = 30.0

_serial = itertools.count()
_SETUP = """
set -e
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for folder in etc usr/lib usr/sbin; do cp -a "$1/$folder/." "/$folder/"; done
cat > /etc/containers/containers.conf <<TEXT
[engine]
events_logger = "file"
[containers]
pids_limit = 0
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
TEXT
: > /etc/machine-id
mkdir -p /etc/systemd/system "/sys/fs/cgroup/$2"
ln -s /dev/null /etc/systemd/system/systemd-udevd.service
echo $$ > "/sys/fs/cgroup/$2/cgroup.procs"
export container=docker
exec unshare --cgroup sh -c '
    umount -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    exec /usr/lib/systemd/systemd --unit=multi-user.target
'
"""


class SystemdRoot:
    """``with SystemdRoot(workdir, made, base) as device: device.run(["systemctl", "status"])``; nothing of it is left afterwards."""

    def __init__(self, workdir: Path, made: Firmware, base: Path) -> None:
        self.workdir = workdir.resolve()
        self.made = made
        self.base = base
        self.cgroup = f"shiplap-systemd-{os.getpid()}-{next(_serial)}"
        self.log = self.workdir / "console.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: Path | None = None
        self.pid = 0

    def __enter__(self) -> Self:
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._scratch = Path(tempfile.mkdtemp(prefix="systemd-root-", dir=self.workdir))
        words: list[str] = ["--bind", tempfile.gettempdir(), "--tmpfs", STORAGE]
        for image, place in self.made.mounts:
            words += ["--image", str(image), place]
        try:
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child",
                     "--propagation", "unchanged", "sh", str(HERE / "private_root.sh"), str(self.base), str(self._scratch), *words,
                     "--", "sh", "-c", _SETUP, "sh", str(self.made.root), self.cgroup],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(),
                )  # fmt: skip
            self._await()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _await(self) -> None:
        """Until process 1 answers for systemd."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            if children:
                self.pid = int(children[0])
                if self.run(["systemctl", "is-system-running"], check=False).stdout.strip() in (b"running", b"degraded"):
                    return
            time.sleep(0.2)
        raise AssertionError(f"systemd did not come up:\n{self.log.read_text()}")

    def run(self, argv: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[bytes]:
        words = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--wd", "--cgroup", "--", *argv]
        done = subprocess.run(words, capture_output=True, env=environment(), check=False, timeout=120)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)} gave {done.returncode}:\n{(done.stdout[-4000:] + done.stderr[-4000:]).decode()}")
        return done

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        remove_cgroups(self.cgroup)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
