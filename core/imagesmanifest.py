"""``images.manifest``: the list of images of the Yocto layer meta-embedded-containers, and what it means here.

One image a line, ``name version tag``, split at blanks as the shell's ``read -r name version tag _`` does. The layer's recipes pull
``name:version``. One of them populates ``/var/lib/docker`` with that name, and ``tag`` is what its container is called; the
other saves the image as ``localhost/tag:version``, and the device names it ``localhost/tag:latest`` and ``name:version`` as well. A
fork writes ``name version sha256:… tag`` and pulls by that digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from shiplap.core.manifest.problems import ManifestError, Problem, quoted
from shiplap.core.reference import Reference, ReferenceInvalid, parse_reference

NAME = "images.manifest"
LIMIT_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_DIGEST_LIKE = re.compile(r"(?i)sha\d+:.*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# What a shell splits at; nothing else is a blank to it.
_BLANKS = re.compile(r"[ \t]+")


@dataclass(frozen=True, slots=True)
class ListedImage:
    """``ref``: a name on the device; ``pulled``: what is pulled for it. ``digest``: of the manifest or index, where the list has it.

    ``line`` counts from 1. ``why``: of a further name, where it comes from; empty for the image's own.
    """

    ref: Reference
    pulled: Reference
    digest: str | None
    line: int
    why: str = ""


def parse_list(raw: bytes, name: str) -> tuple[list[ListedImage], list[str]]:
    """Names in the order of the lines, and notes on what is not as it was. Raises ManifestError with every wrong line."""
    problems: list[Problem] = []
    notes: list[str] = []
    found: dict[Reference, ListedImage] = {}
    for number, words in _lines(raw, name, problems):
        images = _images(number, words, problems, notes)
        for image in images:
            before = found.setdefault(image.ref, image)
            known, name_of_it = f"line {before.line}", image.ref.familiar
            if before is image:
                continue
            if (before.pulled, before.digest) == (image.pulled, image.digest):
                if not image.why:
                    notes.append(f"line {number}: {name_of_it} stands in {known} already")
            elif before.why and image.why:
                notes.append(f"line {number}: {name_of_it} is {image.pulled.familiar} from here on, as on the device, not that of {known}")
                found[image.ref] = image
            else:
                problems.append(Problem("", number, 1, f"{name_of_it} is another image in {known} already"))
    if not found and not problems:
        problems.append(Problem("", 1, 1, "no image is listed"))
    if problems:
        raise ManifestError(name, problems, hint="a line is: name version [tag], for example: redis 6-alpine redis_container")
    return list(found.values()), notes


def _lines(raw: bytes, name: str, problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
    """Number and words of every line that is neither blank nor a comment."""
    if len(raw) > LIMIT_BYTES:
        raise ManifestError(name, [Problem("", 0, 0, f"it has more than {LIMIT_BYTES} bytes")])
    for number, line in enumerate(raw.split(b"\n"), 1):
        try:
            text = line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            problems.append(Problem("", number, error.start + 1, "the line is not UTF-8"))
            continue
        words = [word for word in _BLANKS.split(text) if word]
        if words and not words[0].startswith("#"):
            yield number, words


def _images(number: int, words: list[str], problems: list[Problem], notes: list[str]) -> list[ListedImage]:
    def wrong(word: str, message: str) -> list[ListedImage]:
        column = next(index for index, one in enumerate(words) if one is word)
        problems.append(Problem("", number, 1 + sum(len(one) + 1 for one in words[:column]), message))
        return []

    if len(words) < 2:
        return wrong(words[0], f"{quoted(words[0])} has no version: a line is `name version [tag]`")
    name, version, *rest = words
    try:
        base = parse_reference(name, default_tag=False)
    except ReferenceInvalid as error:
        return wrong(name, error.message)
    if base.tag or base.digest:
        return wrong(name, f"{quoted(name)} has a version of its own; the second word is the version")
    digest = next((word for word in (version, *rest[:1]) if _DIGEST.fullmatch(word)), None)
    odd = next((word for word in (version, *rest[:1]) if _DIGEST_LIKE.fullmatch(word) and word != digest), None)
    if odd is not None:
        return wrong(odd, f"{quoted(odd)} is no digest: write sha256: and 64 lower case hexadecimal digits")
    if version == digest:
        pulled = Reference(base.domain, base.path, None, digest)
        return [ListedImage(pulled, pulled, None, number)]
    if not _TAG.fullmatch(version):
        return wrong(version, f"{quoted(version)} is no version: an image's tag has letters, digits, `_`, `.` and `-`, at most 128")
    own = Reference(base.domain, base.path, version)
    local = next((word for word in rest[: 1 if digest is None else 2] if word != digest and not word.startswith("#")), None)
    images = [ListedImage(own, own, digest, number)]
    if local is not None:
        images += _local(own, digest, local, number, notes, "third" if words[2] is local else "fourth")
    return images


def _local(own: Reference, digest: str | None, local: str, number: int, notes: list[str], which: str) -> list[ListedImage]:
    """The names that the third word, or the fourth behind a digest, gives the image on the device."""
    try:
        base = parse_reference(f"localhost/{local}", default_tag=False)
    except ReferenceInvalid:
        base = None
    if base is None or base.tag or base.digest:
        notes.append(f"line {number}: {quoted(local)} is no name for an image; as a container's name it needs none")
        return []
    return [
        ListedImage(Reference(base.domain, base.path, tag), own, digest, number, f"the {which} word, {local}, of line {number}")
        for tag in dict.fromkeys((own.tag or "latest", "latest"))
    ]
