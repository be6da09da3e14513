"""Platforms: ``os/arch[/variant]`` (OCI image specification, "platform"; containerd's platform rules)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shiplap.core.errors import Refused

_PART = re.compile(r"[A-Za-z0-9_.-]+")

# containerd/platforms normalises what people and `uname -m` write.
_ARCH = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
# arm64/v8 and amd64/v1 are the same platforms as arm64 and amd64; arm alone means arm/v7.
_SAME = {("arm64", "v8"): "", ("arm64", "8"): "", ("amd64", "v1"): "", ("arm", ""): "v7"}


class PlatformError(Refused):
    """A platform string that is none."""


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """A normalised platform; ``str()`` gives ``os/arch[/variant]``."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def normalised(self) -> Platform:
        """The form to compare with: ``arm64/v8`` equals ``arm64``, ``arm`` equals ``arm/v7``."""
        arch, implied = _ARCH.get(self.architecture.lower(), (self.architecture.lower(), ""))
        variant = (self.variant or implied).lower()
        if variant.isdigit():
            variant = "v" + variant
        return Platform(self.os.lower(), arch, _SAME.get((arch, variant), variant))

    def matches(self, other: Platform) -> bool:
        return self.normalised == other.normalised


def parse_platform(text: str) -> Platform:
    """Parse ``os/arch[/variant]``; raises PlatformError."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(_PART.fullmatch(part) for part in parts):
        raise PlatformError(f"{text!r} is not a platform", hint="write os/arch or os/arch/variant, for example linux/arm64 or linux/arm/v7")
    return Platform(*parts)
