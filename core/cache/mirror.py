"""Download mirrors: a folder, or a web server's, with one file per artifact, named ``sha256-<hex>``.

What :mod:`shiplap.core.cache.export` fills is one, and so is any DL_DIR, BR2_DL_DIR or ``dl/`` that was exported into. Mirrors
are not trusted: what comes from them is verified like everything else that enters the cache.
"""

from __future__ import annotations

import base64
import errno
import http.client
import os
import re
import stat
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shiplap.core.blobs import BlobCorrupt
from shiplap.core.cache.cache import Cache
from shiplap.core.cache.partial import Partial
from shiplap.core.entries import CHUNK_BYTES
from shiplap.core.errors import Refused
from shiplap.core.jsontext import shown
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT, Progress
from shiplap.core.version import VERSION

_SILENCE_SECONDS = 60
_ATTEMPTS = 4
_LIMIT_BYTES = Limits().layer_bytes
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class MirrorInvalid(Refused):
    """A mirror that is neither a folder nor an http(s) URL."""


class _Interrupted(Exception):
    """A transfer ended early; what came so far is kept."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a mirror sends: bytes from ``offset`` on; ``missing_bytes`` tells, at their end, what was announced and did not come."""

    file: IO[bytes]
    offset: int
    missing_bytes: Callable[[], int]


class _Mirror:
    """A folder of artifacts, here or on a web server."""

    label: str

    def answer(self, name: str, offset: int) -> AbstractContextManager[_Answer | None]:
        """The file ``name`` from ``offset`` on, or from its beginning; None when it is not there. Raises OSError, HTTPException."""
        raise NotImplementedError


def flat_name(digest: str) -> str:
    """The name of a blob in a mirror: ``sha256-<hex>``."""
    return digest.replace(":", "-")


def fetch_from(
    mirrors: Sequence[str],
    cache: Cache,
    digest: str,
    size_bytes: int | None,
    *,
    limit_bytes: int = _LIMIT_BYTES,
    progress: Progress = SILENT,
) -> bool:
    """Bring the blob in from the first of ``mirrors`` that has it; False when none had it.

    ``mirrors``: folders and http(s) URLs of folders, asked in order. A wrong file, a server that does not answer and a
    transfer that keeps breaking are noted on ``progress``, and the next one is asked. ``size_bytes`` None: not known; then
    no more than ``limit_bytes`` are taken from anybody. Nothing is asked when the blob is there already. Raises
    MirrorInvalid, and what the cache raises.
    """
    known = [_mirror(text) for text in mirrors]
    if cache.has(digest, size_bytes):
        return True
    for mirror in known:
        try:
            with progress.task(f"{digest[:19]} from {mirror.label}", size_bytes) as task:
                if _bring(mirror, cache, digest, size_bytes, limit_bytes, task.advance):
                    return True
        except BlobCorrupt as error:
            progress.note(f"{mirror.label} has a wrong {flat_name(digest)}: {error.message}")
        except (OSError, http.client.HTTPException, _Interrupted) as error:
            progress.note(f"{mirror.label}: cannot get {flat_name(digest)}: {_reason(error)}")
    return False


def _bring(mirror: _Mirror, cache: Cache, digest: str, size_bytes: int | None, limit_bytes: int, advance: Callable[[int], object]) -> bool:
    """Whether the mirror had it. A transfer that breaks goes on where it broke; a resumed blob that is wrong starts over."""
    last: Exception | None = None
    for _ in range(_ATTEMPTS):
        with cache.partial(digest, size_bytes) as partial:
            if partial is None:
                return True
            resumed = partial.offset_bytes > 0
            try:
                if resumed and partial.offset_bytes == size_bytes:
                    partial.finish()  # all had come; something ended the process then
                    return True
                return _copy(mirror, partial, digest, limit_bytes, advance)
            except BlobCorrupt:
                if not resumed:
                    raise
            except _Interrupted as error:
                last = error
    assert last is not None, "a blob that is not resumed is not tried again for being wrong"
    raise last


def _copy(mirror: _Mirror, partial: Partial, digest: str, limit_bytes: int, advance: Callable[[int], object]) -> bool:
    with mirror.answer(flat_name(digest), partial.offset_bytes) as answer:
        if answer is None:
            return False
        if answer.offset != partial.offset_bytes:
            partial.restart()
        while True:
            try:
                piece = answer.file.read(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise _Interrupted(_reason(error)) from error
            if not piece:
                break
            if partial.offset_bytes + len(piece) > limit_bytes:
                partial.restart()
                raise BlobCorrupt(f"{digest} has more than {limit_bytes} bytes")
            partial.write(piece)
            advance(len(piece))
        if missing_bytes := answer.missing_bytes():
            raise _Interrupted(f"the connection ended {missing_bytes} bytes early")
        partial.finish()
    return True


def _mirror(text: str) -> _Mirror:
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme in ("http", "https"):
        try:
            return _Web(text)
        except ValueError:  # its text may quote a password
            raise MirrorInvalid(
                f"'{_public(text)}' is no mirror that could be asked", hint="write http://[USER:PASSWORD@]HOST[:PORT]/PATH"
            ) from None
    if scheme == "file":
        return _Folder(urllib.parse.unquote(urllib.parse.urlsplit(text).path))
    if scheme or not text:
        raise MirrorInvalid(f"'{_public(text)}' is no mirror that could be asked", hint="name a folder, or an http:// or https:// URL")
    return _Folder(text)


def _public(text: str) -> str:
    """A URL for a message, without user and password."""
    scheme, separator, rest = text.partition("://")
    return shown(scheme + separator + rest.rpartition("@")[2])


class _Folder(_Mirror):
    def __init__(self, path: str) -> None:
        self.label = shown(path)
        self._path = Path(path)

    @contextmanager
    def answer(self, name: str, offset: int) -> Iterator[_Answer | None]:
        try:
            # Another's folder may hold a fifo of that name.
            descriptor = os.open(self._path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        with open(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            file.seek(offset)
            yield _Answer(file, offset, lambda: 0)


class _Web(_Mirror):
    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        self._url = parts._replace(netloc=host)
        self._user = urllib.parse.unquote(user)
        self.label = shown(urllib.parse.urlunsplit(self._url._replace(query="")))

    @contextmanager
    def answer(self, name: str, offset: int) -> Iterator[_Answer | None]:
        try:
            response = self._open(name, offset)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and offset:  # what is there is as long as what they have, or longer
                    response = self._open(name, 0)
                elif error.code in (404, 410):
                    yield None
                    return
                else:
                    raise
        with response:
            yield _Answer(response, _begins(response, offset), lambda: response.length or 0)

    def _open(self, name: str, offset: int) -> http.client.HTTPResponse:
        url = urllib.parse.urlunsplit(self._url._replace(path=f"{self._url.path.rstrip('/')}/{name}"))
        # identity: the digest is that of the bytes as they lie there.
        request = urllib.request.Request(url, headers={"User-Agent": f"shiplap/{VERSION}", "Accept-Encoding": "identity"})  # noqa: S310
        if self._user:
            request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(self._user.encode()).decode()}")
        if offset:
            request.add_header("Range", f"bytes={offset}-")
        try:
            response = _web().open(request, timeout=_SILENCE_SECONDS)
        except ValueError as error:
            raise OSError(errno.EPROTO, f"the server sends us to no valid address: {error}") from error
        assert isinstance(response, http.client.HTTPResponse)
        return response


def _begins(response: http.client.HTTPResponse, offset: int) -> int:
    """Where what comes begins: a server may ignore that only the rest was asked for."""
    if response.status != 206:
        return 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != offset:
        raise OSError(errno.EPROTO, "the server sent another part than the one asked for")
    return offset


def _web() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS through the environment's proxies; a redirection to anything else is refused."""
    web = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        web.add_handler(handler)
    return web


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {shown(str(error.reason))}"
    if isinstance(error, urllib.error.URLError):
        return _reason(error.reason) if isinstance(error.reason, Exception) else shown(str(error.reason))
    strerror = error.strerror if isinstance(error, OSError) else None
    return shown(strerror or str(error) or type(error).__name__)
