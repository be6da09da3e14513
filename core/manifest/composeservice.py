"""One service of a Compose file → a container in the manifest's own keys.

The rules are those of the Compose Specification (05-services.md); where an engine's command line cannot say what
Compose means, the value is refused instead of meaning something else. Values come here as compose.json allows them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shiplap.core.manifest.composewords import WordsUnclear, shell_words
from shiplap.core.manifest.devicereading import number_text
from shiplap.core.manifest.problems import quoted
from shiplap.core.manifest.schema import join

Data = dict[str, Any]
Say = Callable[[str, str], None]

# 05-services.md, "Specifying byte values". Powers of 1024, as Compose counts, also where the unit ends in b.
_BYTES = re.compile(r"([1-9][0-9]{0,15})(?:([kmg])b?|b)?")
_SHIFT = {"k": 10, "m": 20, "g": 30}
_MODES = frozenset(("ro", "rw", "z", "Z"))

KEYS = {
    "name": "container_name",
    "args": "command",
    "env": "environment",
    "env-file": "env_file",
    "network": "network_mode",
    "cap-add": "cap_add",
    "cap-drop": "cap_drop",
    "security-opt": "security_opt",
    "read-only": "read_only",
    "memory": "mem_limit",
    "pids-limit": "pids_limit",
    "health": "healthcheck",
    "after": "depends_on",
}
"""A container's key → the service's; the others are called the same."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """``volumes``: key at the top → the volume's name, None where it has a problem. ``containers``: service → container's name."""

    volumes: Mapping[str, str | None]
    containers: Mapping[str, str]


def container_data(name: str, service: Data, written: frozenset[str], around: Surroundings, say: Say) -> Data:
    """The container. ``written``: keys that the service has, sound or not. ``say(path below the service, message)`` for problems."""
    data: Data = {"name": around.containers[name], "image": service.get("image")}
    data |= _program(service, say)
    for key in ("restart", "read_only", "pids_limit", "cap_add", "cap_drop", "security_opt"):
        data[key.replace("_", "-")] = _sound(service.get(key))
    data["user"] = None if "user" not in service else _text(service["user"])
    data["tmpfs"] = [service["tmpfs"]] if isinstance(service.get("tmpfs"), str) else _sound(service.get("tmpfs") or [])
    data["env"] = _pairs(service.get("environment"), "environment", say)
    data["labels"] = _pairs(service.get("labels"), "labels", say)
    data["env-file"] = _env_file(service.get("env_file"), say)
    _mounts(service.get("volumes") or [], around.volumes, data, say)
    data["devices"] = list(_devices(service.get("devices") or [], say))
    data["ports"] = list(_ports(service.get("ports") or []))
    data["memory"] = None if "mem_limit" not in service else _bytes(service["mem_limit"], "mem_limit", say)
    data["cpus"] = None if "cpus" not in service else _cpus(service["cpus"], say)
    data["health"] = None if "healthcheck" not in service else _health(service["healthcheck"], say)
    data["after"] = list(_after(service.get("depends_on") or [], around.containers, say))
    data["network"] = service.get("network_mode")
    if not written & {"network_mode", "networks"} and len(around.containers) > 1:
        say(
            "",
            "say `network_mode`: none, host or bridge; Compose's own network, where services find each other by name, is not there",
        )
    return {key: value for key, value in data.items() if value is not None and value not in ([], {})}


def _sound(value: Any) -> Any:
    """Without the items of a list that have a problem already."""
    return [one for one in value if one is not None] if isinstance(value, list) else value


def _program(service: Data, say: Say) -> Iterator[tuple[str, Any]]:
    """Entrypoint and args. As for the engines, an entrypoint of one's own does away with the image's Cmd."""
    entry, command = (_words(service.get(key), key, say) for key in ("entrypoint", "command"))
    if entry is not None and not (entry and entry[0]):
        say("entrypoint", "is empty: an engine cannot be told to use none; name the program")
    elif command == [] and entry is None:
        say("command", "is empty: an engine would take the image's; leave the key out, or set `entrypoint`")
    if entry:
        yield "entrypoint", entry[0]
    yield "args", [*(entry or [])[1:], *(command or [])]


def _words(value: Any, key: str, say: Say) -> list[str] | None:
    if not isinstance(value, str):
        words: list[str] | None = _sound(value)
        return words
    try:
        return shell_words(value)
    except WordsUnclear as error:
        say(key, f"{error}; write it as a list, one word each")
        return None


def _pairs(value: Any, key: str, say: Say) -> dict[str, str]:
    """``environment`` and ``labels``, as a list or a mapping."""
    pairs: dict[str, str] = {}
    items = [(name, one, join(key, name)) for name, one in value.items()] if isinstance(value, dict) else []
    for index, text in enumerate(value if isinstance(value, list) else []):
        if text is not None:
            name, equals, one = text.partition("=")
            items.append((name, one if equals else None, join(key, index)))
    for name, one, path in items:
        if one is None and key == "environment":
            say(path, f"{quoted(name)} has no value: Compose would take it from the shell, and a build has none; write it down")
        elif not name:
            say(path, "has no name before the `=`")
        elif name in pairs:
            say(path, f"{quoted(name)} is set twice")
        else:
            pairs[name] = _text("" if one is None else one)
    return pairs


def _text(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else number_text(value)


def _env_file(value: Any, say: Say) -> str | None:
    one = value[0] if isinstance(value, list) and value else value
    path = one.get("path") if isinstance(one, dict) else one
    if not isinstance(path, str):
        return None
    if not path.startswith("/"):
        say("env_file", f"{quoted(path)}: the device reads it, by an absolute path; values for the build belong into `environment`")
        return None
    return path


def _mounts(items: list[Any], volumes: Mapping[str, str | None], data: Data, say: Say) -> None:
    """``volumes`` of the service, which on a command line are ``--volume`` and ``--tmpfs``."""
    found: list[str] = []
    for index, item in enumerate(items):
        path = join("volumes", index)

        def problem(message: str, path: str = path) -> None:
            say(path, message)

        if isinstance(item, dict) and item.get("type") == "tmpfs":
            data["tmpfs"] = [*data["tmpfs"], *_tmpfs(item, path, say)]
        elif isinstance(item, dict):
            found += _long_volume(item, volumes, problem)
        elif item is not None:
            found += _short_volume(item, volumes, problem)
    data["volumes"] = found


def _tmpfs(item: Data, path: str, say: Say) -> Iterator[str]:
    if "source" in item or "bind" in item or "volume" in item or not _is_target(item.get("target")):
        say(path, "a tmpfs has an absolute path without `:` as `target`, and no source")
        return
    settings = item.get("tmpfs", {})
    size = None if "size" not in settings else _bytes(settings["size"], join(path, "tmpfs.size"), say)
    words = ["ro"] if item.get("read_only") else []
    words += [] if size is None else [f"size={size}"]
    words += [f"mode={settings['mode']:o}"] if "mode" in settings else []
    yield ":".join([item["target"], *([",".join(words)] if words else [])])


def _short_volume(text: str, volumes: Mapping[str, str | None], say: Callable[[str], None]) -> Iterator[str]:
    parts = text.split(":")
    if len(parts) == 1 and _is_target(text):
        yield text
        return
    modes = parts[2].split(",") if len(parts) == 3 else []
    if len(parts) not in (2, 3) or not _is_target(parts[1]) or not _MODES.issuperset(modes):
        say(f"{quoted(text)} is not [SOURCE:]TARGET[:ro|rw|z|Z], TARGET being an absolute path")
        return
    source = _source(parts[0], volumes, say)
    if source is not None:
        yield ":".join([source, *parts[1:]])


def _long_volume(item: Data, volumes: Mapping[str, str | None], say: Callable[[str], None]) -> Iterator[str]:
    kind, target, source = item.get("type"), item.get("target"), item.get("source")
    if kind is None or target is None:
        return  # said already
    other = {"bind": "volume", "volume": "bind"}[kind]
    if not _is_target(target) or other in item or "tmpfs" in item:
        say(f"a {kind} has an absolute path without `:` as `target`, and settings of its own kind only")
        return
    if source is None and kind == "bind":
        say("a bind has a `source`")
        return
    if source is not None and (kind == "bind") != source.startswith(("/", ".", "~")):
        say(f"{quoted(source)} is {'a volume' if kind == 'bind' else 'a folder'}, and the type {kind}")
        return
    bind, volume = item.get("bind", {}), item.get("volume", {})
    words = ["ro"] if item.get("read_only") else []
    words += [bind[key] for key in ("propagation", "selinux") if key in bind]
    words += ["nocopy"] if volume.get("nocopy") else []
    if source is None:
        if words:
            say("a volume without a name has no settings")
        else:
            yield target
        return
    found = _source(source, volumes, say)
    if found is not None:
        yield ":".join([found, target, *([",".join(words)] if words else [])])


def _is_target(path: Any) -> bool:
    return isinstance(path, str) and path.startswith("/") and ":" not in path


def _source(text: str, volumes: Mapping[str, str | None], say: Callable[[str], None]) -> str | None:
    if text.startswith("/") and ":" not in text:
        return text
    if text.startswith((".", "~")) or "/" in text:
        say(f"{quoted(text)}: a device has no project folder and no home: write an absolute path, or the name of a volume")
    elif text not in volumes:
        say(f"there is no volume {quoted(text)} in `volumes` at the top of the file")
    return volumes.get(text)


def _devices(items: list[Any], say: Say) -> Iterator[str]:
    for index, item in enumerate(items):
        if item is None:
            continue
        text = str(item)
        if isinstance(item, dict):
            source = str(item.get("source", ""))
            text = ":".join([source, str(item.get("target", source)), str(item.get("permissions", "rwm"))])
        parts = text.split(":")
        if (
            len(parts) > 3
            or not all(part.startswith("/") for part in parts[:2])
            or (len(parts) == 3 and not re.fullmatch("[rwm]{1,3}", parts[2]))
        ):
            say(join("devices", index), f"{quoted(text)} is not /dev/SOURCE[:/dev/TARGET[:rwm]]")
        else:
            yield text


def _ports(items: list[Any]) -> Iterator[str]:
    """In the short form, which the manifest's own checks judge."""
    for item in items:
        if isinstance(item, dict):
            if "target" not in item:
                continue
            ip = item.get("host_ip")
            address = "" if ip is None else f"[{ip}]:" if ":" in ip else f"{ip}:"
            published = f"{item['published']}:" if "published" in item else ":" if address else ""
            yield f"{address}{published}{int(item['target'])}/{item.get('protocol', 'tcp')}"
        elif item is not None:
            yield _text(item)


def _bytes(value: str | int | float, path: str, say: Say) -> int | None:
    match = _BYTES.fullmatch(_text(value).lower())
    if match is None:
        say(path, f"{quoted(value)} is not a whole number of bytes, k, m or g (powers of 1024)")
        return None
    return int(match[1]) << _SHIFT.get(match[2], 0)


def _cpus(value: str | int | float, say: Say) -> float | None:
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,9})?", value):
        say("cpus", f"{quoted(value)} is no number of processors, such as 0.5")
        return None
    return float(value)


def _health(value: Data, say: Say) -> Data | None:
    test = value.get("test")
    words = [one for one in test if one is not None] if isinstance(test, list) else ["CMD-SHELL", test] if test is not None else []
    if value.get("disable") or words == ["NONE"]:
        if len(value) > 1:
            say("healthcheck", "is switched off: leave the rest out")
        return {"disable": True}
    if len(words) > 1 and words[0] == "CMD":
        command = shlex.join(words[1:])
    elif len(words) == 2 and words[0] == "CMD-SHELL":
        command = words[1]
    else:
        say(
            "healthcheck.test" if "test" in value else "healthcheck",
            "needs a `test`: [CMD, PROGRAM, …], [CMD-SHELL, LINE], [NONE] or one line of text",
        )
        return None
    return {"cmd": command} | {
        key.replace("_", "-"): value[key] for key in ("interval", "timeout", "retries", "start_period") if key in value
    }


def _after(value: Any, containers: Mapping[str, str], say: Say) -> Iterator[str]:
    for name in value:
        if name is None:
            continue
        if name in containers:
            yield containers[name]
        else:
            say("depends_on", f"there is no service {quoted(name)}")
