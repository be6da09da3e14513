"""What was found in an image. Values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Software:
    """One package. ``kind``: deb, apk, pypi or npm, as package URLs call it. Texts are printable and bounded.

    ``licence``: what the package's own database says, in whatever words; empty where it says nothing. ``source``,
    ``source_version``: what it was built from, where that is called otherwise or has another version.
    """

    kind: str
    name: str
    version: str
    architecture: str = ""
    licence: str = ""
    source: str = ""
    source_version: str = ""


@dataclass(frozen=True, slots=True)
class OperatingSystem:
    """From os-release: ``identifier`` (``debian``), ``version`` (``12``), ``name`` (``Debian GNU/Linux 12 (bookworm)``)."""

    identifier: str
    version: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ImageContents:
    """``software`` sorted, each once. ``remarks``: what is there and could not be read, one sentence each."""

    system: OperatingSystem | None = None
    software: tuple[Software, ...] = ()
    remarks: tuple[str, ...] = ()
