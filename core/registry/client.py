"""Manifests and blobs of one repository, wherever they are: the cache, download mirrors, registry mirrors, the registry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ssl import SSLContext
from typing import TYPE_CHECKING, Protocol, TypeVar

from shiplap.core.blobs import BlobCorrupt
from shiplap.core.cache import Cache, Partial
from shiplap.core.jsontext import shown
from shiplap.core.progress import SILENT
from shiplap.core.reference import Reference
from shiplap.core.registry.authfile import credentials_for
from shiplap.core.registry.authorization import Authorization, refusal
from shiplap.core.registry.certificates import certificate_folder, tls_context
from shiplap.core.registry.connections import Connections, Server
from shiplap.core.registry.endpoints import Endpoint, endpoints
from shiplap.core.registry.exchange import Answer, AnswerTooLarge, parse_url, send
from shiplap.core.registry.failures import NotARegistry, NotInRegistry, RegistryFailed, ServerFailed, TlsFailed, Unreachable, said
from shiplap.core.registry.patience import Patience

if TYPE_CHECKING:
    from shiplap.core.sources.access import Access

T = TypeVar("T")

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
# All of them at once: a registry that may choose must never convert, or the digests are another image's.
ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))


@dataclass(frozen=True, slots=True)
class Received:
    """A manifest or index. ``media_type``: what the registry says, lower case, perhaps empty; ``digest``: of ``raw``, computed."""

    raw: bytes
    media_type: str
    digest: str


class Advancing(Protocol):
    """Called with the number of bytes that came in."""

    def __call__(self, amount_bytes: int) -> object: ...


class EndpointClient:
    """Speaks to one endpoint. Thread-safe."""

    def __init__(self, endpoint: Endpoint, environment: Mapping[str, str], patience: Patience) -> None:
        self.endpoint = endpoint
        self._environment = environment
        self._contexts: dict[bool, SSLContext] = {}
        self.connections = Connections(environment, patience, self._tls_of)
        self._login = f"--authfile {endpoint.authfile} {endpoint.visible_host}" if endpoint.authfile else endpoint.visible_host
        self._authorization = Authorization(
            self.connections,
            lambda: credentials_for(endpoint.name, endpoint.authfile, environment),
            login=self._login,
            allow_plain=not endpoint.tls_verify,
        )
        self._server: Server | None = None
        self._https, _ = parse_url(f"https://{endpoint.host}/", "the reference")

    @property
    def where(self) -> str:
        """``host/repository`` as the user knows it."""
        return self.endpoint.name

    def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Any answer but 401, 403, 429 and 5xx; raises RegistryFailed (its subclasses)."""
        server = self._reached()
        scope = f"repository:{self.endpoint.repository}:pull"
        target = f"/v2/{self.endpoint.repository}/{path}"
        shown_header = self._authorization.header(scope)
        for last in (False, False, True):
            sent = {**headers, "Authorization": shown_header} if shown_header else dict(headers)
            answer = send(self.connections, server, target, sent, allow_plain=not self.endpoint.tls_verify)
            if answer.moved and answer.status in (401, 403):
                answer.close()
                raise ServerFailed(f"{answer.where}, to which {self.endpoint.host} redirects, answers {answer.status}", may_pass=True)
            if answer.status == 401 and not last:
                try:
                    header = self._authorization.answer_to(answer, server, scope, shown_header)
                except BaseException:
                    answer.close()
                    raise
                if header is not None:
                    answer.errors()  # reads it to its end
                    shown_header = header
                    continue
            if answer.status in (401, 403):
                raise refusal(answer, self._authorization.credentials, self.where, login=self._login)
            return answer
        raise AssertionError("the last turn returns or raises")

    def _tls_of(self, server: Server) -> SSLContext:
        """The client's own certificate is for the registry, not for where it redirects."""
        is_own = (server.host, server.port) == (self._https.host, self._https.port)
        context = self._contexts.get(is_own)
        if context is None:
            folder = certificate_folder(self.endpoint.visible_host, self.endpoint.cert_dir, self._environment)
            context = self._contexts[is_own] = tls_context(folder, verify=self.endpoint.tls_verify, own_certificate=is_own)
        return context

    def _reached(self) -> Server:
        """With ``tls_verify`` off a registry may speak plain HTTP: whatever answers first, TLS before plain."""
        if self._server is None:
            if self.endpoint.tls_verify:
                self._server = self._https
            else:
                try:
                    self.connections.give(self.connections.take(self._https))
                    self._server = self._https
                except (TlsFailed, Unreachable) as error:
                    plain = parse_url(f"http://{self.endpoint.host}/", "the reference")[0]
                    try:
                        self.connections.give(self.connections.take(plain))
                    except RegistryFailed:
                        raise error from None
                    self._server = plain
        return self._server


class RegistryClient:
    """One repository. Every failure of a mirror leads to the next place; what fails at the registry itself is raised."""

    def __init__(
        self,
        places: tuple[Endpoint, ...],
        *,
        cache: Cache,
        environment: Mapping[str, str],
        patience: Patience,
        note: Callable[[str], object] = SILENT.note,
    ) -> None:
        self._clients = [EndpointClient(place, environment, patience) for place in places]
        self._cache = cache
        self._patience = patience
        self._note = note

    @property
    def name(self) -> str:
        return self._clients[-1].where

    def manifest(self, wanted: str, *, limit_bytes: int, size_bytes: int | None = None) -> Received:
        """The manifest or index under the tag or digest ``wanted``.

        ``size_bytes``: what a descriptor promises. Raises RegistryFailed (its subclasses), and BlobCorrupt for bytes that are not
        what ``wanted`` says: a registry's own Docker-Content-Digest is not believed.
        """

        def asked(client: EndpointClient) -> Received:
            return self._patience.persist(lambda: _manifest(client, wanted, limit_bytes, size_bytes), client.connections.wait)

        return self._anywhere(wanted, asked)

    def blob(self, digest: str, size_bytes: int, advance: Advancing = lambda amount_bytes: None) -> None:
        """Bring a blob into the cache, from where it broke off before; nothing is done when it is there.

        Raises RegistryFailed (its subclasses), BlobCorrupt, and what the cache raises.
        """
        if not self._cache.has(digest, size_bytes):
            self._anywhere(digest, lambda client: self._fetched(client, digest, size_bytes, advance))

    def abort(self) -> None:
        """End every transfer, in whichever thread."""
        for client in self._clients:
            client.connections.abort()

    def end(self) -> None:
        for client in self._clients:
            client.connections.end()

    def _anywhere(self, wanted: str, ask: Callable[[EndpointClient], T]) -> T:
        for mirror in self._clients[:-1]:
            if mirror.endpoint.serves(wanted):
                try:
                    return ask(mirror)
                except (RegistryFailed, BlobCorrupt, AnswerTooLarge) as error:
                    self._note(f"the mirror {mirror.where} is of no use: {error.message}")
        return ask(self._clients[-1])

    def _fetched(self, client: EndpointClient, digest: str, size_bytes: int, advance: Advancing) -> None:
        failed, restarted, is_first = 0, False, True
        while True:
            with self._cache.partial(digest, size_bytes) as partial:
                if partial is None:
                    return
                began_bytes = partial.offset_bytes
                if is_first:
                    advance(began_bytes)
                    is_first = False
                try:
                    _transfer(client, partial, digest, size_bytes, advance)
                    return
                except BlobCorrupt as error:
                    if not began_bytes or restarted:
                        raise BlobCorrupt(f"{client.where}: {error.message}", hint=_WRONG) from error
                    # What an earlier run left may have been damaged; this is not yet the server's fault.
                    restarted = True
                    pause = 0.0
                except RegistryFailed as error:
                    if partial.offset_bytes - began_bytes >= self._patience.progress_bytes:
                        failed = 0
                    failed += 1
                    pause = self._patience.pause(error, failed)
            client.connections.wait(pause)


@contextmanager
def open_registry(reference: Reference, access: Access, *, patience: Patience | None = None) -> Iterator[RegistryClient]:
    """A client for the repository of ``reference``; connects when it is first asked. ``access`` has a cache."""
    assert access.cache is not None, "what a registry sends goes into a cache"
    places = endpoints(reference, access.registries, access.default_registry, access.environment)
    client = RegistryClient(
        places, cache=access.cache, environment=access.environment, patience=patience or Patience(), note=access.progress.note
    )
    try:
        yield client
    finally:
        client.end()


def _manifest(client: EndpointClient, wanted: str, limit_bytes: int, size_bytes: int | None) -> Received:
    answer = client.get(f"manifests/{wanted}", {"Accept": ACCEPT})
    separator = "@" if ":" in wanted else ":"
    what = f"{client.where}{separator}{wanted}"
    if answer.status == 404:
        raise _absent(answer, what)
    if answer.status != 200:
        raise ServerFailed(f"{answer.where} answers {answer.status} for {what}{said(answer.errors())}")
    media_type = answer.media_type
    if media_type in ("text/html", "application/xhtml+xml"):
        answer.close()
        raise NotARegistry(
            f"{answer.where} is not a registry: it answers with a web page", hint="is the host right? a login page may be in the way"
        )
    bound_bytes = limit_bytes if size_bytes is None else min(limit_bytes, size_bytes)
    raw = answer.document(bound_bytes, f"the manifest of {what}")
    algorithm = wanted.partition(":")[0] if ":" in wanted else "sha256"
    digest = f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
    if ":" in wanted and digest != wanted:
        raise BlobCorrupt(f"{client.where} sends a manifest with the digest {digest} instead of {wanted}", hint=_WRONG)
    return Received(raw, media_type, digest)


def _absent(answer: Answer, what: str) -> RegistryFailed:
    is_page = answer.media_type in ("text/html", "application/xhtml+xml")
    where, reasons = answer.where, answer.errors()
    if is_page and not reasons:
        return NotARegistry(f"{where} has no {what}, and answers with a web page: it may be no registry (404)", hint="is the host right?")
    codes = {code for code, _ in reasons}
    hint = "is the name of the repository right?" if "NAME_UNKNOWN" in codes else "are name and tag right?"
    return NotInRegistry(f"{where} has no {shown(what)} (404){said(reasons)}", hint=hint)


def _transfer(client: EndpointClient, partial: Partial, digest: str, size_bytes: int, advance: Advancing) -> None:
    """One try to bring in what is missing of a blob. Raises RegistryFailed and BlobCorrupt."""
    offset_bytes = partial.offset_bytes
    if not 0 < offset_bytes == size_bytes:
        answer = client.get(f"blobs/{digest}", {"Range": f"bytes={offset_bytes}-"} if offset_bytes else {})
        try:
            if answer.status == 404:
                raise _absent(answer, f"blob {digest} in {client.where}")
            if answer.status == 416:
                partial.restart()
                raise ServerFailed(f"{answer.where} cannot continue the blob {digest}", may_pass=True)
            if answer.status == 206 and answer.header("Content-Range").startswith(f"bytes {offset_bytes}-"):
                expected_bytes = size_bytes - offset_bytes
            elif answer.status == 200:
                partial.restart()
                expected_bytes = size_bytes
            else:
                partial.restart()
                raise ServerFailed(
                    f"{answer.where} answers {answer.status} for the blob {digest}{said(answer.errors())}", may_pass=answer.status == 206
                )
            if answer.length_bytes not in (None, expected_bytes):
                raise BlobCorrupt(f"the blob {digest} would have {answer.length_bytes} bytes instead of {expected_bytes}")
            for piece in answer.chunks():
                partial.write(piece)
                advance(len(piece))
        finally:
            answer.close()
    partial.finish()


_WRONG = "the registry is damaged or not to be trusted; nothing of it was kept"
