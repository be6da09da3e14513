"""Platforms: ``os/arch[/variant]`` (OCI image specification, "platform"; containerd's platform rules)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
_SAME = {("arm64", "v8"): "", ("arm64", "v8.0"): "", ("arm64", "v9.0"): "v9", ("amd64", "v1"): "", ("arm", ""): "v7"}

_NUMBERED = re.compile(r"v([0-9]{1,2})")
_ARM64 = re.compile(r"v([89])(?:\.([0-9]))?")
# An Armv9.x has everything of Armv8.(x+5), and v8.9 is the last of those.
_V9_IS_V8_PLUS, _LAST_V8_MINOR = 5, 9


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
        if variant[:1].isdigit():
            variant = "v" + variant
        return Platform(self.os.lower(), arch, _SAME.get((arch, variant), variant))

    def matches(self, other: Platform) -> bool:
        return self.normalised == other.normalised

    @property
    def accepted(self) -> tuple[Platform, ...]:
        """The platforms whose images a device of this platform takes, itself first, then by falling worth; normalised.

        The order is that of containerd's ``platforms.Only``, which Docker's pull uses as well: ``arm/v7`` takes v7, v6,
        v5; ``arm64/v8.2`` takes v8.2, v8.1, v8; ``arm64/v9`` takes v9, then v8.5 down to v8; ``amd64/v3`` takes v3, v2,
        v1. Only also takes 386 for amd64 and arm for arm64; here another architecture is asked for by its own name,
        because a store that was declared for one must not turn out to hold the other.
        """
        own = self.normalised
        return (own, *(replace(own, variant=variant).normalised for variant in _lesser_variants(own.architecture, own.variant)))

    def accepts(self, other: Platform) -> bool:
        """Whether a device of this platform takes an image for ``other``."""
        return other.normalised in self.accepted


def best_match(wanted: Platform, available: Sequence[Platform | None]) -> int | None:
    """Position of the best of ``available`` for ``wanted``: exact first, then by falling worth, the first of equals.

    None when nothing suits; what is None itself (a descriptor without a platform) never does.
    """
    ranks = {platform: rank for rank, platform in enumerate(wanted.accepted)}
    suitable = [(ranks[one.normalised], position) for position, one in enumerate(available) if one and one.normalised in ranks]
    return min(suitable)[1] if suitable else None


def _lesser_variants(architecture: str, variant: str) -> Iterator[str]:
    """Normalised ``variant``'s predecessors that run on it, newest first; nothing for a variant of an unknown form."""
    if architecture == "arm64":
        if match := _ARM64.fullmatch(variant or "v8"):
            major, minor = int(match[1]), int(match[2] or 0)
            yield from (f"v{major}.{lesser}" for lesser in range(minor - 1, -1, -1))
            if major == 9:
                yield from (f"v8.{lesser}" for lesser in range(min(minor + _V9_IS_V8_PLUS, _LAST_V8_MINOR), -1, -1))
    elif match := _NUMBERED.fullmatch(variant):
        first = {"arm": 5, "amd64": 1}.get(architecture)
        if first is not None:
            yield from (f"v{lesser}" for lesser in range(int(match[1]) - 1, first - 1, -1))


def parse_platform(text: str) -> Platform:
    """Parse ``os/arch[/variant]``; raises PlatformError."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(_PART.fullmatch(part) for part in parts):
        raise PlatformError(f"{text!r} is not a platform", hint="write os/arch or os/arch/variant, for example linux/arm64 or linux/arm/v7")
    return Platform(*parts)
