"""Image references in the grammar of distribution/reference, as every engine reads them.

``app`` is what people write (the familiar form), ``docker.io/library/app:latest`` what is meant (the
full form). What Docker refuses is refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from shiplap.core.errors import Refused

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_NAME = 255  # with the domain; newer versions count the path only

# Go's \w, \d and [[:xdigit:]] are ASCII; so is everything here.
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_HOST_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_FULL = re.compile(rf"(?P<domain>{_HOST})/(?P<path>{_PATH})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
# go-digest knows these algorithms and refuses others, as well as upper case hex.
_KNOWN_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}")
# Bounds the work of the expressions above; the longest valid reference is shorter.
_MAX_TEXT = 600


class ReferenceInvalid(Refused):
    """A text that is no image reference."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A full image reference; ``str()`` gives ``domain/path[:tag][@digest]``."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as Docker shows and stores it: ``docker.io/`` and ``docker.io/library/`` stripped."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        official = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in official else official

    @property
    def familiar(self) -> str:
        """The whole reference with the familiar name."""
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix


def parse_reference(text: str, *, default_tag: bool = True) -> Reference:
    """Parse a familiar or full reference; raises ReferenceInvalid.

    With ``default_tag`` a reference that has neither tag nor digest gets ``latest``.
    """
    if not text:
        raise ReferenceInvalid("an image reference is empty", hint="write name:tag, for example app:1.0")
    if len(text) > _MAX_TEXT:
        raise ReferenceInvalid(f"an image reference of {len(text)} characters is too long: {text[:60]!r}…")
    if _IDENTIFIER.fullmatch(text):
        raise ReferenceInvalid(
            f"{text!r} is not an image reference: 64 hexadecimal digits are an image ID", hint="write name:tag or name@sha256:…"
        )
    domain, rest = _split_domain(text)
    match = _FULL.fullmatch(f"{domain}/{rest}")
    if match is None:
        raise _invalid(text, domain, rest)
    reference = Reference(match["domain"], match["path"], match["tag"], match["digest"])
    if len(reference.name) > _MAX_NAME:
        raise ReferenceInvalid(f"the repository name of {text!r} has more than {_MAX_NAME} characters")
    if reference.digest is not None and not _KNOWN_DIGEST.fullmatch(reference.digest):
        raise ReferenceInvalid(f"{text!r} has an invalid digest", hint="a digest is sha256: and 64 lower case hexadecimal digits")
    if default_tag and reference.tag is None and reference.digest is None:
        return replace(reference, tag=DEFAULT_TAG)
    return reference


def _split_domain(text: str) -> tuple[str, str]:
    """Domain and the rest; a first component without ``.`` or ``:`` that is not ``localhost`` is no domain."""
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, _OFFICIAL + text
    if first == _LEGACY_DOMAIN:
        first = DEFAULT_DOMAIN
    elif first != "localhost" and "." not in first and ":" not in first:
        first, rest = DEFAULT_DOMAIN, text
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = _OFFICIAL + rest
    return first, rest


def _invalid(text: str, domain: str, rest: str) -> ReferenceInvalid:
    name = rest.partition(":")[0].partition("@")[0]
    if name != name.lower() and _FULL.fullmatch(f"{domain}/{rest.replace(name, name.lower(), 1)}"):
        return ReferenceInvalid(f"{text!r} is not an image reference: the repository name must be lower case")
    return ReferenceInvalid(
        f"{text!r} is not an image reference", hint="write [registry[:port]/]name[:tag][@sha256:…], for example docker.io/library/app:1.0"
    )
