"""podman as a device configures it: its storage in ``storage.conf``, with read-only stores beside the graphroot."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from engines.podman import STORAGE, Podman

CONFIGURATION = "/etc/containers/storage.conf"


class DevicePodman(Podman):
    """``stores``: paths inside for ``additionalimagestores``. ``graphroot``: a directory of the host below ``workdir`` instead of tmpfs."""

    def __init__(
        self,
        workdir: Path,
        *,
        base: Path = Path("/"),
        binds: Sequence[Path] = (),
        mounts: Sequence[tuple[Path, str]] = (),
        stores: Sequence[str] = (),
        graphroot: Path | None = None,
    ) -> None:
        super().__init__(workdir, base=base, binds=binds, mounts=mounts)
        self.graphroot = graphroot.resolve() if graphroot else Path(STORAGE, "storage")
        self._stores = tuple(stores)

    def __enter__(self) -> DevicePodman:
        super().__enter__()
        quoted = ", ".join(f'"{one}"' for one in self._stores)
        text = (
            f'[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "{self.graphroot}"\n'
            f"[storage.options]\nadditionalimagestores = [{quoted}]\n"
        )
        self.root.run(["sh", "-c", f"mkdir -p /etc/containers; cat > {CONFIGURATION}"], input=text.encode())
        return self

    def podman(self, *arguments: str | os.PathLike[str], check: bool = True, timeout: float = 120.0) -> subprocess.CompletedProcess[bytes]:
        return self.root.run(["podman", "--cgroup-manager=cgroupfs", "--events-backend=none", *arguments], check=check, timeout=timeout)
