"""The image config: the one document that is an image's identity.

Read as the engines read it (Go's ``encoding/json`` into Docker's image struct): a config that ``docker
load`` refuses for a wrong type anywhere is refused here, or the store would hold an image that the engine
drops at its start.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shiplap.core.blobs import SourceInvalidContent
from shiplap.core.jsontext import JsonInvalid, JsonObject, elements, member, parse_object, required, shown
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform, PlatformError, parse_platform

_DIFF_ID = re.compile(r"sha256:[a-f0-9]{64}")
# RFC 3339 as Go reads it: capital T and Z, no leap second.
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_OF_400_YEARS = 146097 * 86400
_INT64 = 1 << 63

# Types of Docker's image struct and its container config, all versions from 20.10 on together.
_TEXTS = "list of strings"
_COMMAND = "string or list of strings"
_SET = "object of objects"
_LABELS = "object of strings"
_IMAGE_TYPES = {
    "id": "string",
    "parent": "string",
    "comment": "string",
    "created": "time",
    "container": "string",
    "docker_version": "string",
    "author": "string",
    "architecture": "string",
    "variant": "string",
    "os": "string",
    "os.version": "string",
    "os.features": _TEXTS,
    "Size": "integer",
}
_CONTAINER_TYPES = {
    "Hostname": "string",
    "Domainname": "string",
    "User": "string",
    "AttachStdin": "boolean",
    "AttachStdout": "boolean",
    "AttachStderr": "boolean",
    "ExposedPorts": _SET,
    "Tty": "boolean",
    "OpenStdin": "boolean",
    "StdinOnce": "boolean",
    "Env": _TEXTS,
    "Cmd": _COMMAND,
    "ArgsEscaped": "boolean",
    "Image": "string",
    "Volumes": _SET,
    "WorkingDir": "string",
    "Entrypoint": _COMMAND,
    "NetworkDisabled": "boolean",
    "MacAddress": "string",
    "OnBuild": _TEXTS,
    "Labels": _LABELS,
    "StopSignal": "string",
    "StopTimeout": "integer",
    "Shell": _COMMAND,
}
_HEALTH_TYPES = {
    "Test": _TEXTS,
    "Interval": "integer",
    "Timeout": "integer",
    "StartPeriod": "integer",
    "StartInterval": "integer",
    "Retries": "integer",
}
_HISTORY_TYPES = {"created": "time", "author": "string", "created_by": "string", "comment": "string", "empty_layer": "boolean"}
# What we read ourselves, and so must not be there under a second spelling.
_READ = frozenset(("os", "architecture", "variant", "created", "empty_layer"))


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What the sources need of a config; ``raw`` are its bytes, ``digest`` the ``sha256:…`` of them."""

    raw: bytes
    digest: str
    platform: Platform
    diff_ids: tuple[str, ...]
    created_epoch: int | None


def parse_config(raw: bytes, *, what: str, limits: Limits) -> ImageConfig:
    """Parse and check a config; ``what`` names it in messages. Raises JsonInvalid and SourceInvalidContent.

    An image without layers is accepted, as by ``docker load``.
    """
    config = parse_object(raw, what=what, limit_bytes=limits.metadata_bytes)
    _check_types(config, _IMAGE_TYPES, what)
    for key in ("config", "container_config"):
        container = member(config, key, dict, what=what)
        if container is not None:
            _check_types(container, _CONTAINER_TYPES, f"{key!r} of {what}")
            health = member(container, "Healthcheck", dict, what=what)
            if health is not None:
                _check_types(health, _HEALTH_TYPES, f"'Healthcheck' of {what}")
    diff_ids = _diff_ids(config, what, limits)
    layers = 0
    for one in elements(member(config, "history", list, what=what) or (), dict, what=f"'history' of {what}"):
        _check_types(one, _HISTORY_TYPES, f"'history' of {what}")
        layers += not one.get("empty_layer")
    if layers > len(diff_ids):
        raise SourceInvalidContent(f"{what}: its history has {layers} entries with a layer, its rootfs {len(diff_ids)} layers")
    created = config.get("created")
    return ImageConfig(
        raw,
        "sha256:" + hashlib.sha256(raw).hexdigest(),
        _platform(config, what),
        diff_ids,
        None if created is None else _time(created, what),
    )


def _diff_ids(config: JsonObject, what: str, limits: Limits) -> tuple[str, ...]:
    rootfs = required(config, "rootfs", dict, what=what)
    kind = required(rootfs, "type", str, what=f"'rootfs' of {what}")
    if kind != "layers":
        raise SourceInvalidContent(f"{what}: its rootfs has the type '{shown(kind)}', only 'layers' is known")
    diff_ids = elements(member(rootfs, "diff_ids", list, what=f"'rootfs' of {what}") or (), str, what=f"'diff_ids' of {what}")
    if len(diff_ids) > limits.layers:
        raise SourceInvalidContent(
            f'{what}: the image has {len(diff_ids)} layers, engines take {limits.layers} ("max depth exceeded")',
            hint="build it with fewer layers, or squash it",
        )
    for diff_id in diff_ids:
        if not _DIFF_ID.fullmatch(diff_id):
            raise SourceInvalidContent(f"{what}: '{shown(diff_id)}' is not a diffID", hint="sha256: and 64 lower case hexadecimal digits")
    return tuple(diff_ids)


def _platform(config: JsonObject, what: str) -> Platform:
    parts = [required(config, "os", str, what=what), required(config, "architecture", str, what=what)]
    variant = config.get("variant")
    if variant:
        parts.append(variant)
    try:
        return parse_platform("/".join(parts))
    except PlatformError:
        raise SourceInvalidContent(f"{what}: '{shown('/'.join(parts))}' is not a platform") from None


def _check_types(holder: JsonObject, types: dict[str, str], what: str) -> None:
    folded = {key.casefold(): key for key in types}
    for key, value in holder.items():
        name = folded.get(key.casefold())
        if name is None:
            continue
        if name != key and name in _READ:
            raise JsonInvalid(f"{what} has the key '{shown(key)}', which engines read as {name!r}")
        if types[name] == "time":
            if value is not None:
                _time(value, what)
        elif not _is(value, types[name]):
            raise JsonInvalid(f"{name!r} of {what} is not {_article(types[name])}", hint="docker load refuses this image too")


def _is(value: Any, kind: str) -> bool:
    """Whether Go would decode ``value`` into the type; null always fits."""
    if value is None:
        return True
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64
    if kind in (_TEXTS, _COMMAND):
        if isinstance(value, str):
            return kind == _COMMAND
        return isinstance(value, list) and all(one is None or isinstance(one, str) for one in value)
    inner: type = dict if kind == _SET else str
    return isinstance(value, dict) and all(one is None or isinstance(one, inner) for one in value.values())


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"


def _time(value: Any, what: str) -> int:
    """Seconds since 1970 of an RFC 3339 time, its fraction dropped (towards the past)."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        year, month, day, hour, minute, second, _, offset_hour, offset_minute = (
            int(part) if part and part.isdigit() else 0 for part in match.groups()
        )
        try:
            # Go knows the year 0, Python does not; the calendar repeats after 400 years.
            shifted = datetime(year or 400, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            shifted = None
        if shifted is not None and offset_hour < 24 and offset_minute < 60:
            seconds = (shifted - _EPOCH) // timedelta(seconds=1) - (0 if year else _SECONDS_OF_400_YEARS)
            offset_seconds = offset_hour * 3600 + offset_minute * 60
            return seconds + offset_seconds if match[7] == "-" else seconds - offset_seconds
    raise JsonInvalid(f"{what}: '{shown(str(value))}' is not a time", hint="times are written as 2024-05-01T12:00:00Z")
