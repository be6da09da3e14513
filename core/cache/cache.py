"""The cache's folder: ``blobs/sha256/<hex>``, as in an OCI layout, so that any tool can look into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from shiplap.core.blobs import Files


def cache_folder(environment: Mapping[str, str]) -> Path:
    """``SHIPLAP_CACHE``, else ``$XDG_CACHE_HOME/shiplap``, else ``~/.cache/shiplap``."""
    raise NotImplementedError


class Partial(Protocol):
    """A blob on its way in, held by this process alone."""

    @property
    def offset_bytes(self) -> int:
        """What an earlier, broken transfer left: go on from here, or call :meth:`restart`."""
        ...

    def restart(self) -> None:
        """Throw away what is there."""
        ...

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None:
        """Verify size and digest and make the blob visible; raises BlobCorrupt and keeps nothing."""
        ...


class Cache:
    """Made on first use. Safe for several processes at once; what is visible under its digest is complete."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, digest: str, size_bytes: int | None = None) -> bool:
        """Whether the blob is there (and has that size). Looks at no content."""
        raise NotImplementedError

    def files(self) -> AbstractContextManager[Files]:
        """The blobs as the files of a source (``blobs/sha256/<hex>``, see ``blob_path``); unverified slices, so read through StoredBlob."""
        raise NotImplementedError

    def partial(self, digest: str, size_bytes: int | None) -> AbstractContextManager[Partial | None]:
        """Bring a blob in. Waits while another process brings the same one; None when it is there by then.

        Left without ``finish`` the bytes so far stay, for a later try to resume.
        """
        raise NotImplementedError

    def add(self, digest: str, size_bytes: int | None, chunks: Iterable[bytes]) -> None:
        """Bring in a blob that is at hand; nothing is done when it is there already. Raises BlobCorrupt."""
        raise NotImplementedError

    def discard(self, digest: str) -> None:
        """Remove a blob that turned out not to be what its name says."""
        raise NotImplementedError

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Every blob: digest and size in bytes, sorted by digest."""
        raise NotImplementedError
