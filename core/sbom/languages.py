"""Packages that languages' own tools installed: Python's METADATA and Node's package.json.

Formats: "Core metadata specifications" and PEP 503 (normalised names) of Python packaging; package.json of the npm documentation.
"""

from __future__ import annotations

import re

from shiplap.core.jsontext import JsonInvalid, parse_object
from shiplap.core.sbom.distributions import RecordInvalid, stanzas, text_of
from shiplap.core.sbom.software import Software


def python_package(raw: bytes) -> Software:
    """Of ``*.dist-info/METADATA`` or ``*.egg-info/PKG-INFO``, whose header lines end at the first empty one. Raises RecordInvalid."""
    fields = next(stanzas(raw), {})
    name = re.sub(r"[-_.]+", "-", text_of(fields.get("Name", ""), "name")).lower()
    # License may hold a whole licence's text; then it is of no use here.
    licence = fields.get("License-Expression") or fields.get("License", "")
    licence = "" if len(licence) > 200 or not licence.isprintable() or licence.upper() == "UNKNOWN" else licence
    return Software("pypi", name, text_of(fields.get("Version", ""), "version"), licence=licence)


_NPM_NAME = re.compile(r"(@[A-Za-z0-9._~-]+/)?[A-Za-z0-9._~-]+")


def node_package(raw: bytes) -> Software | None:
    """Of ``node_modules/NAME/package.json``; None for one that names no package. Raises RecordInvalid."""
    try:
        document = parse_object(raw, what="package.json", limit_bytes=len(raw))
    except JsonInvalid:
        raise RecordInvalid("it is not JSON") from None
    name, version = document.get("name"), document.get("version")
    if name is None or version is None:
        return None  # a folder's own settings ({"type": "module"}), no package
    if not isinstance(name, str) or not isinstance(version, str) or not _NPM_NAME.fullmatch(name):
        raise RecordInvalid("its name is no name")
    licence = document.get("license")
    if isinstance(licence, dict):
        licence = licence.get("type")
    if not isinstance(licence, str) or len(licence) > 200 or not licence.isprintable():
        licence = ""
    return Software("npm", text_of(name, "name").lower(), text_of(version, "version"), licence=licence.strip())
