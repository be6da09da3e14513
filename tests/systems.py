"""Where tests take programs and their libraries from: this system, or packages of another architecture, unpacked in a folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")
_LINKED = re.compile(r"\(NEEDED\) +Shared library: \[(.+)\]|Requesting program interpreter: (/.+)\]")


class System(Protocol):
    """``program``: its file. ``libraries``: name in the system, which begins with a slash, → file."""

    def program(self, name: str) -> Path: ...

    def libraries(self, program: Path) -> dict[str, Path]: ...

    def busybox_applets(self) -> list[str]: ...


class ThisSystem:
    """The machine that the tests run on."""

    def program(self, name: str) -> Path:
        """Also where only root has it in PATH."""
        found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))
        assert found is not None, f"{name} is not installed"
        return Path(found)

    def libraries(self, program: Path) -> dict[str, Path]:
        """With the loader, as ldd names them."""
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        return {word: Path(word).resolve() for line in said.splitlines() for word in line.split() if word.startswith("/")}

    def busybox_applets(self) -> list[str]:
        return subprocess.run([self.program("busybox"), "--list"], capture_output=True, text=True, check=True).stdout.split()


HERE = ThisSystem()


@dataclass(frozen=True)
class UnpackedSystem:
    """Debian packages below ``root``. Nothing of them can run here: what they need is read from their ELF files."""

    root: Path

    def program(self, name: str) -> Path:
        for folder in _FOLDERS:
            if (self.root / folder / name).exists():
                return self.root / folder / name
        raise AssertionError(f"{self.root} has no {name}")

    def libraries(self, program: Path) -> dict[str, Path]:
        found: dict[str, Path] = {}
        waiting = [program]
        while waiting:
            said = subprocess.run(["readelf", "-dlW", waiting.pop().resolve()], capture_output=True, text=True, check=True).stdout
            for name, interpreter in _LINKED.findall(said):
                path = self.root / interpreter[1:] if interpreter else self._library(name)
                place = f"/{path.relative_to(self.root)}"
                if place not in found:
                    found[place] = path.resolve()
                    waiting.append(path)
        return dict(sorted(found.items()))

    def _library(self, name: str) -> Path:
        for folder in ("lib", "usr/lib"):
            for path in sorted((*(self.root / folder).glob(f"*-linux-*/{name}"), *(self.root / folder).glob(name))):
                return path
        raise AssertionError(f"{self.root} has no library {name}")

    def busybox_applets(self) -> list[str]:
        """The table of names in the program: sorted, each with a NUL, an empty one behind the last."""
        data = self.program("busybox").read_bytes()
        start = data.index(b"\0[\0[[\0") + 1
        return data[start : data.index(b"\0\0", start)].decode().split("\0")
