"""What a user writes to name a source: skopeo's transports.

``docker-archive:FILE[:REF]``, ``oci:DIR[:REF]``, ``oci-archive:FILE[:REF]``, and ``docker-root:DIR[:REF]``, which
skopeo does not have. REF is a reference, ``@N`` (the N-th image, counted from 0, as in skopeo) or ``@sha256:…`` (of the
manifest, the index or the config). As in skopeo a path ends at its first colon. ``docker-daemon:`` and ``podman:`` name an
image as the engine does. A name without transport means ``docker://``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import PurePath

from shiplap.core.errors import Refused
from shiplap.core.reference import Reference, ReferenceInvalid, parse_reference

FILE_TRANSPORTS = ("docker-archive", "docker-root", "oci", "oci-archive")
TRANSPORTS = (*FILE_TRANSPORTS, "docker-daemon", "podman")
"""What is a transport when it stands before a colon; ``docker`` is one only as ``docker://``."""
# Further transports of skopeo, so that they are not taken for image names.
_FOREIGN = ("containers-storage", "dir", "ostree", "sif", "tarball", "atomic")
# How alike a name and a transport are when it is a slip of the keyboard, and no image of Docker Hub.
_ALMOST_SURE = 0.85
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
# Annotations of OCI layouts may hold names that are no references ("v1+build").
_LAYOUT_NAME = re.compile(r"[A-Za-z0-9]+(?:(?:--|[-._:@+/])[A-Za-z0-9]+)*")


class SourceInvalid(Refused):
    """A text that names no source."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source as the user wrote it.

    ``location``: path of the file or folder, or the image's name for engines and registries.
    ``reference``: REF as written, or None. ``text``: all of it.
    """

    transport: str
    location: str
    reference: str | None
    text: str

    @property
    def public_text(self) -> str:
        """The source without the folders of this machine, for records and messages."""
        if self.transport not in FILE_TRANSPORTS:
            return self.text
        ref = "" if self.reference is None else f":{self.reference}"
        return f"{self.transport}:{self.base_name}{ref}"

    @property
    def digest(self) -> str | None:
        """The digest by which the source itself names the image (a manifest's, an index' or a config's), None without one."""
        named = (self.reference or "") if self.transport in FILE_TRANSPORTS else self.location
        digest = named.rpartition("@")[2]
        return digest if _DIGEST.fullmatch(digest) else None

    @property
    def base_name(self) -> str:
        return PurePath(self.location).name or self.location


@dataclass(frozen=True, slots=True)
class Selector:
    """What REF selects: a position, a digest, or a name (with a digest perhaps)."""

    text: str
    position: int | None = None
    digest: str | None = None
    reference: Reference | None = None

    def matches_name(self, names: tuple[str, ...], references: tuple[str, ...]) -> bool:
        """Whether the name part fits one of the source's own ``names`` or full ``references``."""
        if self.text in names:
            return True
        wanted = self.reference
        if wanted is None:
            return False
        if wanted.tag is None:  # name@digest: any tag of that name
            return any(parse_reference(one).name == wanted.name for one in references)
        return str(Reference(wanted.domain, wanted.path, wanted.tag)) in references


def parse_source(text: str) -> SourceSpec:
    """Parse what the user wrote; raises SourceInvalid and ReferenceInvalid. Looks at no file."""
    prefix, colon, rest = text.partition(":")
    if colon and prefix in FILE_TRANSPORTS:
        location, colon, reference = rest.partition(":")
        if not location:
            raise SourceInvalid(f"{text!r} names no file", hint=f"write {prefix}:PATH or {prefix}:PATH:REF")
        if colon:
            parse_selector(reference, text, transport=prefix)
        return SourceSpec(prefix, location, reference if colon else None, text)
    if text.startswith("docker://"):
        return SourceSpec("docker", str(parse_reference(text.removeprefix("docker://"))), None, text)
    if colon and prefix in TRANSPORTS:
        if not rest:
            raise SourceInvalid(f"{text!r} names no image", hint=f"write {prefix}:NAME:TAG")
        return SourceSpec(prefix, rest, None, text)
    if colon and prefix in _FOREIGN:
        raise SourceInvalid(f"{text!r}: shiplap cannot read {prefix}:", hint=f"copy it first: skopeo copy {text} oci:images:NAME")
    try:
        location = str(parse_reference(text))
    except ReferenceInvalid as error:
        raise SourceInvalid(f"{text!r} is neither a source nor an image name", hint=_meant(text, prefix if colon else "", rest)) from error
    close = difflib.get_close_matches(prefix, TRANSPORTS, 1, _ALMOST_SURE) if colon else []
    if close:
        raise SourceInvalid(
            f"{text!r}: shiplap knows no {prefix}:", hint=f"did you mean {close[0]}:? An image of that name is docker://{text}"
        )
    return SourceSpec("docker", location, None, text)


def _meant(text: str, prefix: str, rest: str) -> str:
    """A hint for ``text``, which is no source; ``prefix``: what stands before its first colon."""
    if prefix in ("docker", "http", "https") and rest.strip("/"):
        return f"a registry's image is docker://{rest.strip('/')}, with the plain name of the registry"
    close = difflib.get_close_matches(prefix, TRANSPORTS, 1) if prefix else []
    if not close and _is_name(text.lower()):
        return f"the name of a repository is lower case: {text.lower()}; for a file write docker-archive:FILE"
    return f"did you mean {close[0]}:?" if close else "for a file write docker-archive:FILE or oci-archive:FILE, for a folder oci:DIR"


def _is_name(text: str) -> bool:
    try:
        parse_reference(text)
    except ReferenceInvalid:
        return False
    return True


def parse_selector(reference: str | None, text: str, *, transport: str) -> Selector | None:
    """What REF of the source ``text`` selects, None where there is none; raises SourceInvalid.

    Only OCI layouts have names that are no references.
    """
    if reference is None:
        return None
    if reference.startswith("@"):
        pinned = reference[1:]
        if _DIGEST.fullmatch(pinned):
            return Selector(reference, digest=pinned)
        if pinned.isascii() and pinned.isdigit() and len(pinned) < 10:
            return Selector(reference, position=int(pinned))
        raise SourceInvalid(f"{text!r}: {reference!r} is neither @N nor @sha256:…", hint="@0 is the first image")
    try:
        parsed = parse_reference(reference)
    except ReferenceInvalid as error:
        if transport in ("oci", "oci-archive") and _LAYOUT_NAME.fullmatch(reference):
            return Selector(reference)
        raise SourceInvalid(
            f"{text!r}: {reference!r} is not an image reference",
            hint="a path ends at its first colon: rename a file with colons, or link to it",
        ) from error
    return Selector(reference, digest=parsed.digest, reference=parsed)
