"""A firmware for Podman and its target kit, run beside the real engine in a private root as on a device."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from engines.podman import STORAGE
from engines.privateroot import PrivateRoot
from engines.targetkit import Firmware

# What the kernel of a build machine may not allow; a device says none of it.
_MACHINE = (
    b'[engine]\ncgroup_manager="cgroupfs"\nevents_logger="none"\n'
    b'[containers]\ncgroups="disabled"\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\n'
)
NETWORK = "--network=none"


class PodmanDevice:
    """A private root with the firmware's files in their places and its store mounted, podman with no options but the kit's configuration.

    ``graphroot``: a folder of the host instead of the device's own; ``mounted``: whether the store is.
    """

    def __init__(
        self, workdir: Path, made: Firmware, *, base: Path = Path("/"), graphroot: Path | None = None, mounted: bool = True
    ) -> None:
        self.made = made
        mounts = made.mounts if mounted and (made.out / "store.squashfs").exists() else []
        self.root = PrivateRoot(workdir, base=base, mounts=mounts, binds=[graphroot] if graphroot else [], tmpfs=[STORAGE])

    def __enter__(self) -> Self:
        self.root.__enter__()
        try:
            # crun refuses a mix of control group versions, which some machines have; it needs none of them here.
            self.root.run(["sh", "-c", "umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup"])
            for folder in ("etc", "usr/sbin", "usr/lib"):
                self.root.run(["cp", "-a", f"{self.made.root}/{folder}/.", f"/{folder}/"])
            self.root.run(["sh", "-c", "mkdir -p /etc/containers; cat > /etc/containers/containers.conf"], input=_MACHINE)
        except BaseException:
            self.root.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.root.close()

    def kit(self, shell: Sequence[str], *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        # Another distribution's root has its own sh, and no BusyBox.
        shell = shell if self.root.base == Path("/") else ["sh"]
        return self.root.run([*shell, "/usr/sbin/shiplap-target", *words], check=check)

    def podman(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return self.root.run(["podman", *words], check=check)

    def run(self, *words: str, check: bool = True) -> str:
        """The output of ``podman run`` without a network."""
        return self.podman("run", NETWORK, *words, check=check).stdout.decode()

    def images(self) -> dict[str, str]:
        """Name → image ID."""
        listed = self.podman("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.Id}}").stdout.decode()
        return dict(line.split() for line in listed.splitlines())

    def containers(self) -> dict[str, str]:
        """Name → container ID."""
        listed = self.podman("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}").stdout.decode()
        return dict(line.split() for line in listed.splitlines())
