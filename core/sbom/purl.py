"""Package URLs (ECMA-427, "purl"): one name for a package that vulnerability databases know."""

from __future__ import annotations

import re
from urllib.parse import quote

from shiplap.core.reference import Reference
from shiplap.core.sbom.software import OperatingSystem, Software

# The distribution's own name where os-release says nothing; a package of dpkg or apk always has a namespace.
_NAMESPACE = {"deb": "debian", "apk": "alpine"}


def package_url(package: Software, system: OperatingSystem | None) -> str:
    """``pkg:deb/debian/openssl@3.0.11-1~deb12u2?arch=amd64&distro=debian-12``.

    ``upstream``: the source package, as syft writes and grype reads it; no part of the specification.
    """
    namespace = (system.identifier if system else _NAMESPACE[package.kind]) if package.kind in _NAMESPACE else ""
    name = package.name
    if package.kind == "npm" and name.startswith("@"):
        namespace, _, name = name.partition("/")
    distro = f"{system.identifier}-{system.version}" if system and system.version and package.kind in _NAMESPACE else ""
    upstream = package.source
    if package.source_version not in ("", package.version):
        upstream += f"@{package.source_version}"
    path = "/".join(_escaped(part) for part in (namespace, name) if part)
    qualifiers = {"arch": package.architecture, "distro": distro, "upstream": upstream}
    return f"pkg:{package.kind}/{path}@{_escaped(package.version)}{_qualifiers(qualifiers)}"


def image_url(reference: Reference, architecture: str) -> str | None:
    """``pkg:oci/redis@sha256:…?arch=arm64&repository_url=docker.io/library/redis``; None without a manifest digest."""
    if reference.digest is None:
        return None
    name = reference.path.rpartition("/")[2].lower()
    qualifiers = {"arch": architecture, "repository_url": f"{reference.domain}/{reference.path}"}
    return f"pkg:oci/{_escaped(name)}@{_escaped(reference.digest)}{_qualifiers(qualifiers)}"


def _qualifiers(values: dict[str, str]) -> str:
    said = "&".join(f"{key}={_escaped(value, '/')}" for key, value in sorted(values.items()) if value)
    return f"?{said}" if said else ""


def _escaped(text: str, plain: str = "") -> str:
    # The specification leaves the colon as it is everywhere, and unreserved characters (RFC 3986).
    return re.sub("%3A", ":", quote(text, safe=plain + "~"))
