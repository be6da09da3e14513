"""What the ELF audit found, and how it is said: the refusal, the record, the allowances."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from shiplap.core.elfplatform import Expectation
from shiplap.core.entries import printable
from shiplap.core.errors import Refused
from shiplap.core.platform import Platform

_SHOWN = 10
_LISTED = 100  # in record.json and `inspect --json`
_PLAIN_YAML = re.compile(r"/[A-Za-z0-9_./+-]*")


class ForeignElf(Refused):
    """An image holds programs that do not run on the declared platform."""


class Allowances:
    """Paths and folders that may hold foreign programs, and which of them were needed."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(dict.fromkeys(texts))
        self._paths = [_spelled(text) for text in self._texts]
        self._used: set[int] = set()

    def allows(self, path: bytes) -> bool:
        """Whether ``path`` (as Entry.path writes it) or a folder above it is allowed. Remembers which ones were needed."""
        shown = "/" + printable(path)
        matching = [number for number, allowed in enumerate(self._paths) if shown == allowed or shown.startswith(allowed.rstrip("/") + "/")]
        self._used.update(matching)
        return bool(matching)

    def unused(self) -> list[str]:
        """What allowed nothing, as it was written."""
        return [text for number, text in enumerate(self._texts) if number not in self._used]


def _spelled(text: str) -> str:
    """An allowance in the form in which messages show paths, so that what a message shows can be written down."""
    parts = printable(os.fsencode(text)).split("/")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


@dataclass(frozen=True, slots=True)
class ForeignProgram:
    """``path``: its first visible name that nothing allows. ``layer``: index in the image. ``reason``: may be empty."""

    path: bytes
    layer: int
    diff_id: str
    found: str
    reason: str
    allowed: bool

    @property
    def shown(self) -> str:
        return "/" + printable(self.path)

    def to_data(self) -> dict[str, object]:
        return {"path": self.shown, "layer": self.layer, "diffID": self.diff_id, "found": self.found, "allowed": self.allowed}


@dataclass(frozen=True, slots=True)
class ImagePrograms:
    """The visible programs of one image. ``counted``: (architecture, number), sorted. ``foreign``: by layer and path."""

    label: str
    config: str
    counted: tuple[tuple[str, int], ...]
    foreign: tuple[ForeignProgram, ...]
    unreadable: tuple[bytes, ...]

    @property
    def refused(self) -> tuple[ForeignProgram, ...]:
        return tuple(one for one in self.foreign if not one.allowed)

    def to_data(self) -> dict[str, object]:
        """For record.json and ``inspect --json``; the first hundred foreign ones by name."""
        return {
            "config": self.config,
            "programs": dict(self.counted),
            "foreign": len(self.foreign),
            "foreign-programs": [one.to_data() for one in self.foreign[:_LISTED]],
            "unreadable": len(self.unreadable),
        }


@dataclass(frozen=True, slots=True)
class ElfReport:
    """The judgement of a build's images. ``expected``: None for an architecture that is not known."""

    platform: Platform
    expected: Expectation | None
    images: tuple[ImagePrograms, ...]
    notes: tuple[str, ...]

    def to_data(self) -> dict[str, object]:
        return {"platform": str(self.platform), "images": [image.to_data() for image in self.images]}

    def require_fit(self) -> None:
        """Raises ForeignElf naming image, layer, path, what was found and expected, and what to write to allow it."""
        refused = [(image, one) for image in self.images for one in image.refused]
        if not refused:
            return
        lines = [
            f"{image.label}, layer {one.layer} ({one.diff_id[:19]}): {one.shown} is {one.found}, expected is {self.expected}"
            + (f"; {one.reason}" if one.reason else "")
            for image, one in refused[:_SHOWN]
        ]
        if len(refused) > _SHOWN:
            lines.append(f"and {len(refused) - _SHOWN} more")
        heading = f"{len(refused)} program{'s do' if len(refused) > 1 else ' does'} not run on {self.platform}"
        raise ForeignElf("\n  ".join([heading, *lines]), hint="\n".join(self._advice()))

    def _advice(self) -> list[str]:
        lines = []
        images = [image for image in self.images if image.refused]
        for image in images:
            total = sum(number for _, number in image.counted)
            if 2 * len(image.refused) > total:
                lines.append(f"{image.label} seems to be for another platform ({len(image.refused)} of its {total} programs)")
        hard = self.expected is not None and (self.expected.architecture, self.expected.float_abi) == ("arm", "hard")
        if hard and any(one.found.endswith("soft float)") for image in images for one in image.refused):
            # Configs of soft-float images often name no variant, and arm alone means v7.
            lines.append("an image for soft float is one for linux/arm/v5: where the device is that, say so with `platform:`")
        lines.append("take the image for the right platform; or, where such programs are meant to be there, write into shiplap.yaml")
        for image in images:
            lines += [f"at {image.label}:", "    allow-foreign-elf:"]
            lines += [f"      - {_yaml(path)}" for path in _few_paths(image.refused)]
        options = sorted({path for image in images for path in _few_paths(image.refused)})
        lines.append("or build with " + " ".join(f"--allow-foreign-elf {_word(path)}" for path in options))
        return lines


def _few_paths(programs: Iterable[ForeignProgram]) -> list[str]:
    """The programs' paths, or the folders that hold them where there are many."""
    paths = {one.shown for one in programs}
    while len(paths) > _SHOWN:
        paths = {path.rpartition("/")[0] or "/" for path in paths}
    return sorted(paths)


def _yaml(path: str) -> str:
    return path if _PLAIN_YAML.fullmatch(path) else json.dumps(path, ensure_ascii=False)


def _word(path: str) -> str:
    return path if _PLAIN_YAML.fullmatch(path) else "'" + path.replace("'", "'\\''") + "'"
