"""Writes a ``shiplap.yaml``: for people to go on with, or a resolved one in full. The same bytes for the same input."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import yaml
from shiplap.core.errors import Refused
from shiplap.core.manifest.model import Manifest
from shiplap.core.manifest.reading import parse_manifest, to_data

# Plain in YAML 1.1 and 1.2 alike and never anything but text: it begins with a letter or `/`, has a `/` or `:` in it that
# makes it no word, and no `: `, ` #`, quote or bracket.
_PLAIN = re.compile(r"(?=.*[/:])[A-Za-z/][A-Za-z0-9/._:@+-]*[A-Za-z0-9/_+-]")


class NotWritable(Refused):
    """A text that no YAML file can hold."""


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """One item of ``images:``; ``comments`` stand above it."""

    ref: str
    source: str | None = None
    digest: str | None = None
    config_digest: str | None = None
    comments: tuple[str, ...] = ()


def manifest_text(images: Sequence[WrittenImage], *, heading: Sequence[str], platform: str | None = None) -> bytes:
    """The manifest's bytes, which the reader of manifests has taken. Raises NotWritable, and ManifestError for what it refuses."""
    lines = [_comment(line) for line in heading]
    lines += ["version: 1"]
    if platform is not None:
        lines += [f"platform: {_scalar(platform)}"]
    lines += ["images:"]
    for image in images:
        lines += [f"  {_comment(line)}" for line in image.comments]
        keys = {"ref": image.ref, "from": image.source, "digest": image.digest, "config-digest": image.config_digest}
        said = [f"{key}: {_scalar(value)}" for key, value in keys.items() if value is not None]
        lines += [("  - " if number == 0 else "    ") + line for number, line in enumerate(said)]
    text = ("\n".join(lines) + "\n").encode()
    parse_manifest(text, "the new manifest")
    return text


def resolved_text(manifest: Manifest) -> str:
    """``manifest`` with every default written out; reading it again gives an equal one."""
    text: str = yaml.safe_dump(to_data(manifest), sort_keys=False, allow_unicode=True, width=1000)
    return text


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotWritable(f"{text!a} cannot be written into a manifest: it is not UTF-8", hint="rename it") from None
    # A JSON string is a double-quoted YAML scalar; control characters are escaped in both.
    return json.dumps(text)


def _comment(text: str) -> str:
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return f"# {shown}".rstrip()
