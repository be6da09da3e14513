"""The package databases of distributions: dpkg's status, apk's installed, and os-release.

Formats: deb-control(5) and dpkg's ``status``; apk_package(5) of apk-tools, "installed database"; os-release(5).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from shiplap.core.sbom.software import OperatingSystem, Software

TEXT_MAX = 500
"""Characters of a name, a version, a licence; what has more is no such thing."""


class RecordInvalid(Exception):
    """One record that makes no sense; the others are read."""


def text_of(value: str, what: str, *, needed: bool = True) -> str:
    """``value`` when it can stand in a document. Raises RecordInvalid."""
    value = value.strip()
    if len(value) > TEXT_MAX or not value.isprintable() or (needed and (not value or " " in value)):
        raise RecordInvalid(f"its {what} is no {what}")
    return value


# A hostile database may have any number of other keys.
_KEYS = frozenset(
    ("Package", "Status", "Version", "Architecture", "Source", "P", "V", "A", "L", "o", "Name", "License", "License-Expression")
)


def stanzas(raw: bytes) -> Iterator[dict[str, str]]:
    """``Key: value`` paragraphs, of them the keys that somebody here reads; the first of several counts.

    Continued lines are left out, nothing here needs them.
    """
    fields: dict[str, str] = {}
    started = False
    for line in io.TextIOWrapper(io.BytesIO(raw), "utf-8", "replace", newline="\n"):
        if not line.strip():
            if started:
                yield fields
            fields, started = {}, False
            continue
        started = True
        key, colon, value = line.partition(":")
        if colon and key in _KEYS:
            fields.setdefault(key, value.strip())
    if started:
        yield fields


def debian_packages(raw: bytes) -> Iterator[Software | RecordInvalid]:
    """Of dpkg's ``status``, or of one file of ``status.d`` (images without dpkg). Those that are not installed are left out."""
    for fields in stanzas(raw):
        status = fields.get("Status")
        if status is not None and status.split()[-1:] != ["installed"]:
            continue
        if "Package" not in fields and status is None:
            continue  # a file of checksums beside one in status.d
        try:
            yield _debian(fields)
        except RecordInvalid as error:
            yield error


def _debian(fields: dict[str, str]) -> Software:
    name, version = text_of(fields.get("Package", ""), "name"), text_of(fields.get("Version", ""), "version")
    source, _, rest = fields.get("Source", "").partition(" ")
    source, source_version = text_of(source, "source", needed=False), text_of(rest.strip().strip("()"), "source version", needed=False)
    differs = source not in ("", name) or source_version not in ("", version)
    return Software(
        "deb",
        name,
        version,
        text_of(fields.get("Architecture", ""), "architecture", needed=False),
        source=(source or name) if differs else "",
        source_version=(source_version or version) if differs else "",
    )


def alpine_packages(raw: bytes) -> Iterator[Software | RecordInvalid]:
    """Of apk's ``installed``."""
    for fields in stanzas(raw):
        try:
            name = text_of(fields.get("P", ""), "name")
            origin = text_of(fields.get("o", ""), "origin", needed=False)
            version = text_of(fields.get("V", ""), "version")
            yield Software(
                "apk",
                name,
                version,
                text_of(fields.get("A", ""), "architecture", needed=False),
                text_of(fields.get("L", ""), "licence", needed=False),
                source=origin if origin != name else "",
                source_version=version if origin not in ("", name) else "",
            )
        except RecordInvalid as error:
            yield error


_ASSIGNMENT = re.compile(r"([A-Z_]+)=(?:\"(.*)\"|'(.*)'|([^\s\"']*))\s*")


def operating_system(raw: bytes) -> OperatingSystem:
    """Of os-release. Raises RecordInvalid where it has no ID."""
    values: dict[str, str] = {}
    for line in io.TextIOWrapper(io.BytesIO(raw), "utf-8", "replace", newline="\n"):
        match = _ASSIGNMENT.fullmatch(line.strip())
        if match is not None and match[1] in ("ID", "VERSION_ID", "PRETTY_NAME"):
            values[match[1]] = next((value for value in match.groups()[1:] if value is not None), "")
    identifier = text_of(values.get("ID", ""), "ID")
    if not re.fullmatch(r"[a-z0-9._-]+", identifier):
        raise RecordInvalid("its ID is no ID")
    version = text_of(values.get("VERSION_ID", ""), "VERSION_ID", needed=False)
    return OperatingSystem(identifier, version, text_of(values.get("PRETTY_NAME", ""), "PRETTY_NAME", needed=False))
