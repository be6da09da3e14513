"""The kernel that get_built_kernel makes: it opens a root by dm-mod.create= and trusts one key; signatures by that key and by another."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from boot.firmware import kernel_folder
from boot.machine import Kernel
from requirement import missing


@dataclass(frozen=True)
class Signer:
    """``certificate``, ``key``: PEM."""

    certificate: Path
    key: Path

    def sign(self, root_hash: str) -> bytes:
        """As docs/rootfs.md tells users to."""
        command = ("openssl", "smime", "-sign", "-nocerts", "-noattr", "-binary", "-inkey", self.key, "-signer", self.certificate)
        return subprocess.run((*command, "-outform", "der"), input=root_hash.encode(), capture_output=True, check=True).stdout


def another_signer(folder: Path) -> Signer:
    """A key that no kernel knows."""
    made = Signer(folder / "other.crt", folder / "other.key")
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "8000", "-subj", "/CN=somebody else")
    subprocess.run((*command, "-keyout", made.key, "-out", made.certificate), check=True, capture_output=True)
    return made


def built_kernel(series: str = "6.1") -> tuple[Kernel, Signer]:
    """Beside the other kernels, see :func:`boot.firmware.kernel_folder`; minutes, the first time."""
    folder = kernel_folder(f"-built-{series}")
    script = Path(__file__).with_name("get_built_kernel")
    done = subprocess.run(["sh", script, folder, series], capture_output=True, text=True, check=False)
    if done.returncode:
        missing("boots", f"no kernel could be built: {done.stderr.strip()[-2000:]}")
    return Kernel(folder), Signer(folder / "signer.crt", folder / "signer.key")
