"""Benches for machines of other architectures: everything of the guest from Debian's packages for it, unpacked."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boot.firmware import Bench, Firmware
from boot.guest import busybox_root
from boot.machine import Board, Kernel
from requirement import missing
from systems import System, UnpackedSystem

SYSTEM = ("busybox-static", "cryptsetup-bin", "util-linux", "e2fsprogs", "coreutils", "dash")
ENGINES = {"docker": ("docker.io",), "podman": ("podman", "conmon", "crun")}
# For `before`: an emulated engine may take longer to answer than the minute that the kit gives it.
PATIENT = """\
cp -a /etc/shiplap /run/etc-shiplap
sed -i 's/^TIMEOUT=.*/TIMEOUT=300/' /run/etc-shiplap/store.conf
mount -o bind /run/etc-shiplap /etc/shiplap
"""
# dockerd gives up when its containerd has not come within 15 seconds; a supervisor would start it again.
_DOCKERD = """\
#!/bin/sh
ulimit -n 4096
until dockerd --bridge=none --iptables=false --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs --data-root /var/lib/docker \\
    -H unix:///var/run/docker.sock; do sleep 1; done >/var/log/dockerd.log 2>&1 &
"""


@dataclass(frozen=True)
class Architecture:
    """``name``: dpkg's. ``machine``: qemu's words for a board with that processor."""

    name: str
    platform: str
    kernel: str
    qemu: str
    machine: tuple[str, ...]


ARM64 = Architecture("arm64", "linux/arm64", "linux-image-cloud-arm64", "qemu-system-aarch64", ("-M", "virt", "-cpu", "cortex-a57"))
# This kernel has no LPAE: it sees nothing above 4 GiB.
ARMHF = Architecture("armhf", "linux/arm/v7", "linux-image-armmp", "qemu-system-arm", ("-M", "virt,highmem=off", "-cpu", "cortex-a15"))


def _fetched(script: str, name: str, *arguments: str) -> Path:
    """What a ``get_`` script makes, kept between runs. SHIPLAP_BOOT_FOREIGN names another place for it."""
    folder = Path(os.environ.get("SHIPLAP_BOOT_FOREIGN") or tempfile.gettempdir()) / name
    done = subprocess.run(["sh", Path(__file__).with_name(script), folder, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        missing("boots", f"{script}: {done.stderr.strip()[-2000:]}")
    return folder


def arm_tools() -> Path:
    """A folder with qemu's ARM machines, U-Boot for them, and U-Boot's tools."""
    return _fetched("get_arm_tools", "shiplap-arm-tools")


@dataclass
class ForeignBench(Bench):
    """``folder``: what get_foreign has made."""

    folder: Path = field(default_factory=Path)

    def firmware(self, of: str = "one", /, base: Path | None = None, rootfs: Sequence[str] = (), **manifest: Any) -> Firmware:
        return super().firmware(of, base or self.docker(), rootfs, **manifest)

    def docker(self) -> Path:
        """The base with BusyBox and Docker."""
        files = {"etc/init.d/S60dockerd": (0o755, _DOCKERD.encode())}
        return self.base("busybox docker patient", lambda: busybox_root(files=files, system=self.system))

    def unpacked_kernel(self, package: str) -> Kernel:
        """That of the architecture, whatever is asked for."""
        return Kernel(self.folder / "kernel")


def foreign_bench(work: Path, architecture: Architecture, engine: str = "docker") -> ForeignBench:
    """``engine``: docker, or podman, which needs a base of its own."""
    name = f"shiplap-{architecture.name}-{engine}"
    folder = _fetched("get_foreign", name, architecture.name, architecture.kernel, *SYSTEM, *ENGINES[engine])
    qemu = (str(arm_tools() / "usr/bin" / architecture.qemu), *architecture.machine)
    system: System = UnpackedSystem(folder / "root")
    return ForeignBench(work, Board(qemu, "ttyAMA0"), system, architecture.platform, folder=folder)
