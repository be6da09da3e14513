"""The one door to the docker SDK, which is imported only here and only when an engine is asked.

Docker's API over a unix socket or TCP, with TLS or without; Podman's service speaks the same. The SDK gets the
address and the certificates from :mod:`shiplap.core.engine.endpoint`: its own reading of the environment knows no contexts.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from shiplap.core.engine.endpoint import PODMAN_SOCKET, Endpoint
from shiplap.core.entries import CHUNK_BYTES
from shiplap.core.errors import OutsideFailure, ProgramMissing
from shiplap.core.jsontext import JsonInvalid, JsonObject, elements, member, required, shown

# Docker 1.12; what the SDK can still speak.
_OLDEST_API = (1, 24)
_QUESTION_SECONDS = 60
# Docker writes the whole image to its own disk before it sends the first byte.
_EXPORT_SECONDS = 1800
_TAIL_BYTES = 4096
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")


class EngineUnreachable(OutsideFailure):
    """Nobody answers at the engine's address, or whoever does will not talk to us."""


class EngineFailed(OutsideFailure):
    """The engine answered with an error, or stopped in the middle of its answer."""


class SdkMissing(ProgramMissing):
    """The Python package ``docker`` is not installed."""


@dataclass(frozen=True, slots=True)
class EngineImage:
    """What an engine says of an image; nothing of it is proven.

    ``identifier``: ``sha256:…`` of the config, or of a manifest or index where the engine keeps its images in containerd.
    ``tags``: as the engine writes them. ``size_bytes``: an estimate, 0 for none.
    """

    identifier: str
    tags: tuple[str, ...]
    layers: int
    size_bytes: int


class Engine:
    """A running engine. ``title``: for messages, ``Docker at unix:///var/run/docker.sock``."""

    def __init__(self, client: Any, endpoint: Endpoint) -> None:
        self._client = client
        self._endpoint = endpoint
        self.name = endpoint.engine
        self.title = f"{endpoint.engine} at {endpoint.address}"

    def inspect(self, name: str) -> EngineImage | None:
        """The image that the engine means by ``name``, None where it has none. Raises EngineFailed."""
        import docker.errors

        what = f"what {self.title} says of {shown(name)}"
        with _failures(self._endpoint):
            try:
                said = self._client.inspect_image(name)
            except docker.errors.NotFound:
                return None
        if not isinstance(said, dict):
            raise JsonInvalid(f"{what} is no object")
        rootfs = member(said, "RootFS", dict, what=what) or {}
        return EngineImage(
            identifier=_identifier(required(said, "Id", str, what=what), what),
            tags=_texts(said, "RepoTags", what),
            layers=len(member(rootfs, "Layers", list, what=what) or ()),
            size_bytes=member(said, "Size", int, what=what) or 0,
        )

    def tags(self) -> list[str]:
        """Every name the engine has, sorted."""
        what = f"the list of images of {self.title}"
        with _failures(self._endpoint):
            said = self._client.images()
        if not isinstance(said, list):
            raise JsonInvalid(f"{what} is no array")
        return sorted({tag for one in elements(said, dict, what=what) for tag in _texts(one, "RepoTags", what)})

    def export(self, identifier: str) -> Iterator[bytes]:
        """The image as ``docker save`` writes it, piece by piece. Raises EngineFailed when it breaks off."""
        with _failures(self._endpoint, while_sending=True):
            # Not get_image(): that one waits for ever for an engine that has gone silent.
            url = f"{self._client.base_url}/v{self._client.api_version}/images/{identifier}/get"
            response = self._client.get(url, stream=True, timeout=_EXPORT_SECONDS)
            with response:
                if response.status_code != 200:
                    raise EngineFailed(f"{self.title} does not give the image {identifier[:19]}: {_explanation(response)}")
                tail, passed_bytes = b"", 0
                for piece in response.iter_content(CHUNK_BYTES):
                    tail = (tail + piece)[-_TAIL_BYTES:]
                    passed_bytes += len(piece)
                    yield piece
                # Older HTTP libraries take what they get; an end that comes too early in chunks they all notice.
                promised = response.headers.get("Content-Length", str(passed_bytes))
                if promised != str(passed_bytes):
                    raise EngineFailed(f"{self.title} broke off while it sent the image: {passed_bytes} of {promised} bytes came")
        _require_no_error(tail, self.title)


@contextmanager
def connected(endpoint: Endpoint) -> Iterator[Engine]:
    """The engine at ``endpoint``; raises SdkMissing, EngineUnreachable, EngineFailed."""
    sdk = _sdk(endpoint.engine)
    _knock(endpoint)
    with _failures(endpoint):
        # Which version of the API? The SDK would ask with whatever the environment says of proxies and authorities.
        with _client(sdk, endpoint, ".".join(map(str, _OLDEST_API))) as client:
            said = client.version(api_version=False)
        version = said.get("ApiVersion") if isinstance(said, dict) else None
        numbers = _version(version)
        if numbers is None:
            raise EngineFailed(f"{endpoint.engine} at {endpoint.address}: what answers there is no container engine")
        if numbers < _OLDEST_API:
            oldest = ".".join(map(str, _OLDEST_API))
            raise EngineFailed(
                f"{endpoint.engine} at {endpoint.address} speaks version {version} of Docker's API, at least {oldest} is needed",
                hint="save the image there and build from the file: docker save -o image.tar NAME",
            )
    with _client(sdk, endpoint, ".".join(map(str, numbers))) as client:
        yield Engine(client, endpoint)


def _sdk(engine: str) -> Any:
    try:
        import docker
        import docker.errors
        import docker.tls
    except ImportError as error:
        program = engine.lower()
        raise SdkMissing(
            f"reading images from {engine} needs the Python package docker: {error}",
            hint=f"pip install 'shiplap[docker]' (Debian: apt-get install python3-docker), or {program} save -o image.tar NAME",
        ) from error
    return docker


@contextmanager
def _client(sdk: Any, endpoint: Endpoint, version: str) -> Iterator[Any]:
    tls: Any = False
    certificates = endpoint.tls
    if certificates is not None:
        pair = (str(certificates.certificate), str(certificates.key)) if certificates.certificate else None
        authorities = str(certificates.authorities) if certificates.authorities else None
        tls = sdk.tls.TLSConfig(client_cert=pair, ca_cert=authorities, verify=certificates.verify)
        if not certificates.verify:
            from urllib3.exceptions import InsecureRequestWarning

            warnings.simplefilter("ignore", InsecureRequestWarning)  # it was asked for
    client = sdk.APIClient(base_url=endpoint.address, version=version, timeout=_QUESTION_SECONDS, tls=tls)
    # REQUESTS_CA_BUNDLE is stronger than our authorities otherwise, and ~/.netrc is none of an engine's business.
    client.trust_env = False
    try:
        yield client
    finally:
        client.close()


def _knock(endpoint: Endpoint) -> None:
    """The unix socket, tried plainly: the SDK would wrap the reason four times."""
    path = endpoint.socket
    if path is None:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            knocking.settimeout(_QUESTION_SECONDS)
            knocking.connect(path)
    except OSError as error:
        raise _unreachable(endpoint, error) from error


def _unreachable(endpoint: Endpoint, error: OSError) -> EngineUnreachable:
    where = f"{endpoint.engine} at {endpoint.address} ({endpoint.origin})"
    why = error.strerror or str(error)
    podman = endpoint.engine == "Podman"
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = (
            "run the service as yourself (systemctl --user start podman.socket), or shiplap with sudo"
            if podman
            else "your user has to be in the group docker (sudo usermod -aG docker USER, then log in again), or run shiplap with sudo"
        )
        return EngineUnreachable(f"you may not talk to {where}: {why}", hint=hint)
    if podman and endpoint.socket is not None:
        start = "systemctl start podman.socket" if endpoint.socket == PODMAN_SOCKET else "systemctl --user start podman.socket"
        hint = f"{start}, or podman system service --time=0 unix://{endpoint.socket} &, or name another socket with CONTAINER_HOST"
    else:
        hint = "start it (systemctl start docker), or name another with DOCKER_HOST or DOCKER_CONTEXT"
    return EngineUnreachable(f"{where} is not running: {why}", hint=hint)


@contextmanager
def _failures(endpoint: Endpoint, *, while_sending: bool = False) -> Iterator[None]:
    """What the SDK and its HTTP library raise, in our words."""
    import docker.errors
    import requests.exceptions
    import urllib3.exceptions

    title = f"{endpoint.engine} at {endpoint.address}"
    try:
        yield
    except docker.errors.TLSParameterError as error:
        raise EngineUnreachable(f"{title}: its certificates cannot be used: {error}") from error
    except docker.errors.APIError as error:
        raise EngineFailed(f"{title} answers: {shown(str(error.explanation or error))}") from error
    except requests.exceptions.SSLError as error:
        _raise_tls(title, error)
    except requests.exceptions.Timeout as error:
        raise EngineUnreachable(f"{title} does not answer in time") from error
    # The exceptions of requests are OSErrors; the last two are how the SDK stumbles over answers that no engine gives.
    except (docker.errors.DockerException, urllib3.exceptions.HTTPError, OSError, ValueError, TypeError, KeyError) as error:
        if while_sending:
            raise EngineFailed(
                f"{title} broke off while it sent the image: {shown(_reason(error))}", hint="look into the engine's log, then try again"
            ) from error
        cause = _os_error(error)
        if cause is not None:
            raise _unreachable(endpoint, cause) from error
        raise EngineUnreachable(f"{title} cannot be asked: {shown(_reason(error))}") from error


def _raise_tls(title: str, error: Exception) -> NoReturn:
    raise EngineUnreachable(
        f"{title}: no trust could be established (TLS): {shown(_reason(error))}",
        hint="DOCKER_CERT_PATH names the folder of ca.pem, cert.pem and key.pem; a context has its own",
    ) from error


def _reason(error: BaseException) -> str:
    """The innermost text: what lies around it are the layers of the HTTP library."""
    seen = error
    while True:
        inner = getattr(seen, "reason", None) or next((one for one in seen.args if isinstance(one, BaseException)), None)
        if not isinstance(inner, BaseException):
            return str(seen) or type(seen).__name__
        seen = inner


def _os_error(error: BaseException | None) -> OSError | None:
    """The system's own error among causes and arguments, where it has a number."""
    pending, seen = [error], 0
    while pending and seen < 50:
        one = pending.pop()
        seen += 1
        if one is None:
            continue
        if isinstance(one, OSError) and one.errno is not None:
            return one
        pending += [argument for argument in one.args if isinstance(argument, BaseException)]
        pending += [one.__cause__, one.__context__, reason if isinstance(reason := getattr(one, "reason", None), BaseException) else None]
    return None


def _require_no_error(tail: bytes, title: str) -> None:
    """Docker writes an error that comes late into the stream itself, behind half a tar."""
    at = tail.rfind(b'{"errorDetail"')
    if at < 0:
        return
    try:
        said: JsonObject = json.loads(tail[at:])
    except ValueError:
        return  # a file of the image's that says so
    if isinstance(said, dict) and isinstance(said.get("error"), str):
        raise EngineFailed(f"{title} broke off while it sent the image: {shown(said['error'])}", hint="look into the engine's log")


def _explanation(response: Any) -> str:
    raw = response.raw.read(_TAIL_BYTES, decode_content=True)
    try:
        said = json.loads(raw)["message"]
    except (ValueError, KeyError, TypeError):
        said = raw.decode("utf-8", "replace").strip() or f"HTTP {response.status_code}"
    return shown(str(said))


def _texts(holder: JsonObject, key: str, what: str) -> tuple[str, ...]:
    return tuple(elements(member(holder, key, list, what=what) or (), str, what=f"{key!r} of {what}"))


def _identifier(text: str, what: str) -> str:
    """Podman's older versions leave the algorithm out."""
    digest = text if text.startswith("sha256:") else f"sha256:{text}"
    if not _DIGEST.fullmatch(digest):
        raise JsonInvalid(f"{what}: '{shown(text)}' is no image ID")
    return digest


def _version(text: object) -> tuple[int, int] | None:
    major, _, minor = text.partition(".") if isinstance(text, str) else ("", "", "")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() and len(major + minor) < 9 else None
