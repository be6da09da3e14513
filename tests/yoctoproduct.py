"""A product for the BitBake library's tests: two images in a registry, their manifest, lock and build, and the layer that is generated."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from commandline import shiplap_command
from locks import write_manifest
from registryserver import Registry
from requirement import missing, require


def need() -> None:
    if importlib.util.find_spec("bb") is None:
        missing("yocto-tools", "there is no BitBake library: pip install bitbake-setup")
    require("yocto-tools", "registry")


@dataclass(slots=True)
class Product:
    """A registry with two images; ``folder`` has their manifest, lock, build (``out``) and layer (``meta``)."""

    folder: Path
    registry: Registry

    def shiplap(self, *words: str) -> None:
        done = shiplap_command("-C", str(self.folder), *words, env={"SHIPLAP_CACHE": str(self.folder / "cache")})
        assert done.returncode == 0, done.stderr

    def write(self, registry: str, **manifest: object) -> None:
        images = [
            {"ref": f"{name}:1", "from": f"docker://{registry}/team/{name}:latest", "license": text}
            for name, text in (("app", "Apache-2.0 AND (MIT OR GPL-2.0-only WITH Classpath-exception-2.0)"), ("db", "LicenseRef-Acme"))
        ]
        write_manifest(
            self.folder, images, name="gateway", platform="linux/amd64", registries={registry: {"tls-verify": False}}, **manifest
        )

    def generate(self, layer: str = "meta", *options: str) -> Path:
        self.shiplap("generate", "yocto", "-o", layer, "--force", *options)
        return self.folder / layer


def sums_of(folder: Path) -> dict[str, str]:
    return {name: digest for digest, name in (line.split() for line in (folder / "SHA256SUMS").read_text().splitlines())}
