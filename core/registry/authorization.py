"""Being allowed: Basic, and the token authentication of Docker's registries (distribution, "auth/token", "auth/oauth").

A registry says with 401 what it wants. Tokens are kept per scope as long as the client lives, and fetched anew when
the registry takes one no longer.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from shiplap.core.errors import Refused
from shiplap.core.jsontext import member, parse_object
from shiplap.core.registry.authfile import Credentials
from shiplap.core.registry.connections import Connections, Server
from shiplap.core.registry.exchange import Answer, parse_url, send
from shiplap.core.registry.failures import LoginNeeded, NotARegistry, ServerFailed, said

_MAX_TOKEN_BYTES = 1 << 20
_CLIENT = "shiplap"
# RFC 9110, section 11.2 and 5.6.6: scheme, then key="quoted" or key=word.
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)(?=\s|$|,)\s*(?![=])")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_SAFE_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to be allowed; ``scheme`` in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header; what cannot be read is passed over."""
    found: list[Challenge] = []
    position = 0
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        parameter = _PARAMETER.match(header, position)
        if parameter is not None and found:
            quoted = parameter[2]
            found[-1].parameters[parameter[1].lower()] = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            position = parameter.end()
        elif scheme is not None and scheme.end() > position:
            found.append(Challenge(scheme[1].lower(), {}))
            position = scheme.end()
        else:
            break
    return found


class Authorization:
    """What is shown to one host. Thread-safe: four blobs that are refused at once fetch one new token.

    ``login``: what one says to `skopeo login` to log in to it, for messages.
    """

    def __init__(self, connections: Connections, credentials: Callable[[], Credentials | None], *, login: str, allow_plain: bool) -> None:
        self._connections = connections
        self._find_credentials = credentials
        self._login = login
        self._allow_plain = allow_plain
        self._guard = threading.Lock()
        self._credentials: Credentials | None = None
        self._asked = False
        self._headers: dict[str, str] = {}

    @property
    def credentials(self) -> Credentials | None:
        """The user, looked up when it is first needed: a helper may have to ask for a key."""
        with self._guard:
            return self._known_credentials()

    def header(self, scope: str) -> str | None:
        """The Authorization header to try for ``scope``."""
        return self._headers.get(scope)

    def answer_to(self, answer: Answer, server: Server, scope: str, refused: str | None) -> str | None:
        """The header that the 401 ``answer`` of ``server`` asks for; None when there is nothing to try.

        ``refused``: the header that was shown. Raises RegistryFailed where the token server fails.
        """
        challenges = {one.scheme: one for one in parse_challenges(answer.header("WWW-Authenticate"))}
        with self._guard:
            known = self._headers.get(scope)
            if known is not None and known != refused:
                return known  # another thread was faster
            header = self._made(challenges, server, scope)
            if header is None or (header == refused and not header.startswith("Bearer ")):
                return None
            self._headers[scope] = header
            return header

    def _known_credentials(self) -> Credentials | None:
        if not self._asked:
            self._credentials = self._find_credentials()
            self._asked = True
        return self._credentials

    def _made(self, challenges: dict[str, Challenge], server: Server, scope: str) -> str | None:
        user = self._known_credentials()
        if user is not None and user.registry_token:
            return f"Bearer {user.registry_token}"
        if "bearer" in challenges:
            return f"Bearer {self._token(challenges['bearer'], server, scope, user)}"
        if "basic" in challenges and user is not None and user.password:
            return user.basic
        return None

    def _token(self, challenge: Challenge, registry: Server, scope: str, user: Credentials | None) -> str:
        realm = challenge.parameters.get("realm", "")
        server, target = parse_url(realm, f"the token authentication of {registry.where}")
        if server.scheme == "http" and registry.scheme == "https" and not self._allow_plain:
            raise NotARegistry(f"{registry.where} wants a token from {server.where} over plain HTTP, where anybody could read it")
        service = challenge.parameters.get("service", "")
        headers: dict[str, str] = {}
        body: bytes | None = None
        fields = [("service", service), ("scope", scope)] if service else [("scope", scope)]
        if user is not None and user.identity_token:
            fields += [("grant_type", "refresh_token"), ("client_id", _CLIENT), ("refresh_token", user.identity_token)]
            body = urlencode(fields).encode("ascii")
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            if user is not None:
                headers["Authorization"] = user.basic
                fields.insert(0, ("account", user.username))
            target += ("&" if "?" in target else "?") + urlencode(fields)
        answer = send(self._connections, server, target, headers, body=body, allow_plain=self._allow_plain)
        if answer.status != 200:
            raise refusal(answer, user, f"a token for {registry.where}", login=self._login)
        return _read_token(answer.document(_MAX_TOKEN_BYTES, "a token"), server)


def _read_token(raw: bytes, server: Server) -> str:
    what = f"the answer of the token server {server.where}"
    try:
        document = parse_object(raw, what=what, limit_bytes=_MAX_TOKEN_BYTES)
        token = member(document, "token", str, what=what) or member(document, "access_token", str, what=what) or ""
    except Refused as error:
        raise ServerFailed(error.message) from None
    if not _SAFE_TOKEN.fullmatch(token):
        raise ServerFailed(f"{what} holds no token")
    return token


def refusal(answer: Answer, user: Credentials | None, what: str, *, login: str) -> LoginNeeded | ServerFailed:
    """The error for an answer that denies ``what``: who asked, and what to do.

    ``login``: the registry as files of credentials name it, behind the option for the file that was named. Who answers may be
    its token server, or have another name.
    """
    status, where = answer.status, answer.where
    reasons = said(answer.errors())
    if status not in (400, 401, 403):
        return ServerFailed(f"{where} answers {status} instead of {what}{reasons}")
    if user is None:
        other = "" if login.startswith("-") else ", or name a file of logins with --authfile"
        how = f"log in: skopeo login {login}{other}"
        return LoginNeeded(
            f"{where} wants a login for {what}, and you are not logged in ({status}){reasons}",
            hint=f"{how}; a wrong name looks the same where names are secret",
        )
    denied = "does not accept" if status == 401 else "denies"
    detail = f"{denied} {user.who}" if status == 401 else f"{denied} {what} to {user.who}"
    return LoginNeeded(f"{where} {detail} ({status}){reasons}", hint=f"log in again: skopeo login {login}; is the name right?")
