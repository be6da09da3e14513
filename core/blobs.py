"""The files of a source, wherever they lie, and blobs made of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from shiplap.core.entries import FileSlice
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.jsontext import shown

DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
FETCH_AGAIN = "the source is corrupt or was tampered with; fetch it again"
_BLOB_PATH = re.compile(r"blobs/(?:sha256/[a-f0-9]{64}|sha512/[a-f0-9]{128})")


class SourceInvalidContent(Refused):
    """A source whose files do not make images: missing, malformed or contradictory."""


class BlobCorrupt(Refused):
    """Stored bytes that are not those their digest or size promises."""


class Files(Protocol):
    """A folder of files: an OCI directory, or the members of an archive."""

    @property
    def label(self) -> str:
        """Its name for messages, without host folders."""
        ...

    @property
    def remedy(self) -> str:
        """What to do when a blob of it is not what its digest promises; :data:`FETCH_AGAIN` for most."""
        ...

    def size_bytes(self, path: str) -> int | None:
        """Size of the regular file at ``path``, None when there is none. Raises Refused for what is no regular file."""
        ...

    def slice(self, path: str) -> FileSlice:
        """The file at ``path``, which exists; valid while the source is open."""
        ...

    def release(self, path: str) -> None:
        """Give back what :meth:`slice` holds for ``path``; its slices become invalid."""
        ...

    def is_ambiguous(self, path: str) -> bool:
        """Whether several files claim to be ``path``."""
        ...


def blob_path(digest: str) -> str:
    """Where an OCI layout keeps the blob (image-layout.md, "Blobs")."""
    return "blobs/" + digest.replace(":", "/")


def promised_digest(path: str) -> str | None:
    """The digest that a path of the form ``blobs/<algorithm>/<hex>`` promises for its content."""
    return path.removeprefix("blobs/").replace("/", ":") if _BLOB_PATH.fullmatch(path) else None


def read(files: Files, path: str, *, limit_bytes: int, digest: str | None = None, size_bytes: int | None = None) -> bytes:
    """A small file in memory, with digest and size verified where they are given."""
    where = f"{shown(path)} in {files.label}"
    actual_bytes = files.size_bytes(path)
    if actual_bytes is None:
        raise SourceInvalidContent(f"{files.label} has no {shown(path)}", hint="the source is incomplete; fetch it again")
    if actual_bytes > limit_bytes:
        raise SourceInvalidContent(f"{where} has {actual_bytes} bytes, more than the {limit_bytes} allowed for metadata")
    if files.is_ambiguous(path):
        raise SourceInvalidContent(
            f"{where} is there twice: some tools would read the first, others the last", hint="write the archive again"
        )
    try:
        return b"".join(StoredBlob(files, path, actual_bytes if size_bytes is None else size_bytes, digest, None).chunks())
    finally:
        files.release(path)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob in a file of the source (:class:`shiplap.core.image.Blob`)."""

    files: Files
    path: str
    size_bytes: int
    digest: str | None
    media_type: str | None

    @property
    def location(self) -> str:
        return f"{shown(self.path)} in {self.files.label}"

    def chunks(self) -> Iterator[bytes]:
        """Yield the stored bytes; raises BlobCorrupt, and OutsideFailure when reading fails."""
        stored = self.files.slice(self.path)
        if stored.size_bytes != self.size_bytes:
            raise BlobCorrupt(f"{self.location} has {stored.size_bytes} bytes instead of {self.size_bytes}", hint=self.files.remedy)
        hasher = hashlib.new(self.digest.partition(":")[0]) if self.digest else None
        try:
            for piece in stored.chunks():
                if hasher is not None:
                    hasher.update(piece)
                yield piece
        except EOFError as error:
            raise BlobCorrupt(f"{self.location} became shorter while it was read") from error
        except OSError as error:
            raise OutsideFailure(f"cannot read {self.location}: {error.strerror}") from error
        if hasher is not None and self.digest != f"{hasher.name}:{hasher.hexdigest()}":
            raise BlobCorrupt(
                f"{self.location} has the digest {hasher.name}:{hasher.hexdigest()} instead of {self.digest}", hint=self.files.remedy
            )

    def slice(self) -> FileSlice | None:
        """The stored bytes, unverified, where they lie."""
        stored = self.files.slice(self.path)
        if stored.size_bytes != self.size_bytes:
            raise BlobCorrupt(f"{self.location} has {stored.size_bytes} bytes instead of {self.size_bytes}", hint=self.files.remedy)
        return stored
