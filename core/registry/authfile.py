"""Which user: containers-auth.json(5), Docker's config.json and the credential helpers of both.

Looked up as skopeo does, in files in order and in each from the repository's own name up to its host; what Docker has
besides (``credsStore``) is honoured as well. Nothing here puts a secret into a message or a ``repr``.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shiplap.core.errors import OutsideFailure, ProgramMissing, Refused
from shiplap.core.jsontext import JsonObject, member, parse_object, shown
from shiplap.core.reference import DEFAULT_DOMAIN
from shiplap.core.registry.folders import config_folder, home_folder
from shiplap.core.registry.settings import canonical_host
from shiplap.core.run import run

_MAX_FILE_BYTES = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_NO_HEADER = re.compile(r"[^\x21-\x7e]")
_TOKEN_USER = "<token>"  # noqa: S105 - the name by which a helper says that the secret is an identity token
# Docker stores and asks for Docker Hub under the address of its old index.
_HUB_KEY = "https://index.docker.io/v1/"


class CredentialsUnusable(Refused):
    """A file of credentials that cannot be read, or is not what it should be."""


class HelperFailed(OutsideFailure):
    """A credential helper failed."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """One user. ``origin``: the file (and helper) it comes from, for messages.

    ``identity_token``: to be exchanged for access tokens (OAuth2 refresh token); ``registry_token``: to be shown as it is.
    """

    username: str
    origin: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def who(self) -> str:
        """For messages: ``user 'ci' of ~/.docker/config.json``."""
        return f"user '{shown(self.username)}' of {self.origin}" if self.username else f"the token of {self.origin}"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


@dataclass(frozen=True, slots=True)
class AuthFile:
    """``required``: it was named, so it has to be there. ``legacy``: ``~/.dockercfg``, one mapping of hosts."""

    path: Path
    required: bool = False
    legacy: bool = False


def auth_files(authfile: Path | None, environment: Mapping[str, str]) -> tuple[AuthFile, ...]:
    """The files to look into, in order. One that was named (option, manifest, REGISTRY_AUTH_FILE) is the only one."""
    named = authfile or (Path(value) if (value := environment.get("REGISTRY_AUTH_FILE")) else None)
    if named is not None:
        return (AuthFile(named, required=True),)
    runtime = environment.get("XDG_RUNTIME_DIR")
    files = [AuthFile(Path(runtime, "containers/auth.json") if runtime else Path(f"/run/containers/{os.getuid()}/auth.json"))]
    config, home = config_folder(environment), home_folder(environment)
    if config is not None:
        files.append(AuthFile(config / "containers/auth.json"))
    if docker := environment.get("DOCKER_CONFIG"):
        files.append(AuthFile(Path(docker, "config.json")))
    elif home is not None:
        files.append(AuthFile(home / ".docker/config.json"))
    if home is not None:
        files.append(AuthFile(home / ".dockercfg", legacy=True))
    return tuple(files)


def credentials_for(name: str, authfile: Path | None, environment: Mapping[str, str]) -> Credentials | None:
    """The user for the repository ``name`` (``host[:port]/path``), None for nobody.

    Raises CredentialsUnusable, HelperFailed and ProgramMissing (a helper that is not installed).
    """
    for file in auth_files(authfile, environment):
        document = _document(file)
        if document is None:
            continue
        found = _in_file(document, file, name, environment)
        if found is not None:
            return found
    return None


def _document(file: AuthFile) -> JsonObject | None:
    try:
        with file.path.open("rb") as opened:
            raw = opened.read(_MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if file.required:
            raise CredentialsUnusable(f"the file of credentials {file.path} does not exist", hint="`skopeo login` writes one") from error
        return None
    except PermissionError as error:
        if file.required or not str(file.path).startswith("/run/"):
            raise CredentialsUnusable(f"cannot read the credentials in {file.path}: {error.strerror}") from error
        return None  # another user's /run/containers
    except OSError as error:
        raise CredentialsUnusable(f"cannot read the credentials in {file.path}: {error.strerror}") from error
    document = parse_object(raw or b"{}", what=str(file.path), limit_bytes=_MAX_FILE_BYTES)
    return {"auths": document} if file.legacy else document


def _in_file(document: JsonObject, file: AuthFile, name: str, environment: Mapping[str, str]) -> Credentials | None:
    what = str(file.path)
    host = name.partition("/")[0]
    helpers = member(document, "credHelpers", dict, what=what) or {}
    for key in _host_keys(host):
        helper = helpers.get(key)
        if isinstance(helper, str) and helper:
            return _from_helper(helper, host, file, environment)
    auths = member(document, "auths", dict, what=what) or {}
    for key in _matching(auths, name, legacy=file.legacy):
        found = _entry(auths[key], f"{what} ({shown(key)})")
        if found is not None:
            return found
    store = member(document, "credsStore", str, what=what)
    return _from_helper(store, host, file, environment) if store else None


def _host_keys(host: str) -> tuple[str, ...]:
    return (host, "index.docker.io", _HUB_KEY) if canonical_host(host) == DEFAULT_DOMAIN else (host,)


def _matching(auths: JsonObject, name: str, *, legacy: bool) -> Iterator[str]:
    """Keys of ``auths`` for ``name``: the longest first, then those that are addresses (``https://HOST/v1/``)."""
    host = name.partition("/")[0]
    parts = name.split("/")
    exact = [host] if legacy else ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    yield from (key for key in exact if key in auths)
    wanted = canonical_host(host)
    yield from (key for key in auths if key not in exact and _host_of_key(key, legacy=legacy) == wanted)


def _host_of_key(key: str, *, legacy: bool) -> str:
    stripped = key.removeprefix("http://").removeprefix("https://")
    if legacy or stripped != key:
        stripped = stripped.partition("/")[0]
    return canonical_host(stripped)


def _entry(entry: object, what: str) -> Credentials | None:
    """One entry of ``auths``; None for an empty one, which says only that a helper has it."""
    if not isinstance(entry, dict):
        raise CredentialsUnusable(f"{what}: the entry is not an object")
    texts = {}
    for key in ("auth", "username", "password", "identitytoken", "registrytoken"):
        value = entry.get(key, "")
        if not isinstance(value, str):
            raise CredentialsUnusable(f"{what}: {key!r} is not a text")
        texts[key] = _encodable(value, f"{what}: {key!r}")
    if _NO_HEADER.search(texts["registrytoken"]):
        raise CredentialsUnusable(f"{what}: 'registrytoken' has characters that no token has")
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        try:
            decoded = base64.b64decode(texts["auth"], validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            raise CredentialsUnusable(f"{what}: 'auth' is not the base64 of USER:PASSWORD", hint="log in again: skopeo login") from None
        username, colon, password = decoded.partition(":")
        if not colon:
            raise CredentialsUnusable(f"{what}: 'auth' is not the base64 of USER:PASSWORD", hint="log in again: skopeo login")
        password = password.rstrip("\0")
    if not (username or texts["identitytoken"] or texts["registrytoken"]):
        return None
    return Credentials(username, what, password, texts["identitytoken"], texts["registrytoken"])


def _encodable(text: str, what: str) -> str:
    """JSON can escape half a character, which nobody can send."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CredentialsUnusable(f"{what} is not Unicode") from None
    return text


def _from_helper(helper: str, host: str, file: AuthFile, environment: Mapping[str, str]) -> Credentials | None:
    """Ask ``docker-credential-HELPER get``, as docker-credential-helpers defines it."""
    program = f"docker-credential-{helper}"
    origin = f"{program} ({file.path})"
    if not _HELPER.fullmatch(helper):
        raise CredentialsUnusable(f"{file.path}: '{shown(helper)}' names no credential helper")
    path = shutil.which(program, path=environment.get("PATH", os.defpath))
    if path is None:
        raise ProgramMissing(f"{program} is not installed, and {file.path} keeps the credentials for {host} in it")
    server = _HUB_KEY if canonical_host(host) == DEFAULT_DOMAIN else host
    # Helpers live on the caller's environment: agents, sessions, cloud profiles.
    done = run([path, "get"], allowed=range(-64, 256), stdin=server.encode(), extra_env=environment)
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode:
        if "credentials not found" in text:
            return None
        raise HelperFailed(
            f"{origin} has no credentials for {host}: exit code {done.returncode}",
            hint=f"try it: echo {server} | {program} get",
        )
    answer = parse_object(done.stdout, what=f"the answer of {program}", limit_bytes=_MAX_FILE_BYTES)
    username, secret = (
        _encodable(member(answer, key, str, what=f"the answer of {program}") or "", f"{origin}: {key!r}") for key in ("Username", "Secret")
    )
    if username == _TOKEN_USER:
        return Credentials("", origin, identity_token=secret)
    return Credentials(username, origin, secret) if username or secret else None
