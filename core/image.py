"""The read-only image model that sources yield and stores, archives and audits read.

Vocabulary as in the OCI image specification (manifest, config, layer, diffID, chainID, platform).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from shiplap.core.entries import FileSlice
from shiplap.core.platform import Platform


class Blob(Protocol):
    """Stored bytes of a layer, perhaps compressed, as the source holds them."""

    @property
    def location(self) -> str:
        """Where it lies, for messages: ``blobs/sha256/… in app.tar``."""
        ...

    @property
    def digest(self) -> str | None:
        """``sha256:…`` of the stored bytes, or None where the source names none (old docker-archives)."""
        ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def media_type(self) -> str | None: ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the stored bytes; size and digest are verified as they pass.

        Raises Refused (a subclass of it) when they do not match, at the latest after the last chunk.
        """
        ...

    def slice(self) -> FileSlice | None:
        """The stored bytes as a range of a local open file, or None. Valid while the source is open."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its position in the image (0 is the base), its identity, its stored bytes."""

    index: int
    diff_id: str
    blob: Blob


@dataclass(frozen=True, slots=True)
class RawManifest:
    """A platform's manifest as the source stores it; ``media_type`` is its own or its descriptor's."""

    raw: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.raw).hexdigest()


@dataclass(frozen=True, slots=True)
class Image:
    """One image for one platform.

    ``config``: the raw bytes; ``config_digest``: ``sha256:…`` of them, the image's identity.
    ``layers``: base first, one for each diffID of the config (a diffID may occur twice).
    ``references``: the full references (``docker.io/library/app:1``) under which the source knows it.
    ``manifest_digest``/``index_digest``: where the source has them and they were verified.
    ``manifest``: the bytes behind ``manifest_digest``, where the source is one that keeps manifests (OCI layouts, registries).
    ``created_epoch``: the config's ``created`` in whole seconds, or None.
    ``source``: the source as the user wrote it, without host paths' directories.
    """

    config: bytes
    config_digest: str
    layers: tuple[Layer, ...]
    references: tuple[str, ...]
    platform: Platform
    source: str
    manifest_digest: str | None = None
    index_digest: str | None = None
    created_epoch: int | None = None
    manifest: RawManifest | None = None

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def label(self) -> str:
        """A short name for messages."""
        return self.references[0] if self.references else self.config_digest[:19]


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """ChainIDs of a stack of layers, base first (OCI image specification, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if chain:
            joined = f"{chain[-1]} {diff_id}".encode()
            chain.append("sha256:" + hashlib.sha256(joined).hexdigest())
        else:
            chain.append(diff_id)
    return tuple(chain)
