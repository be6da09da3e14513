"""A Compose file as a way to write ``containers:``: a stated subset (docs/compose.md), anything else is a problem with its place.

compose.json holds the keys that are read, with their types; :mod:`composeservice` translates them. What a Compose file
would mean elsewhere and a device cannot do is refused, never passed over.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shiplap.core.manifest.composeservice import KEYS, Surroundings, container_data
from shiplap.core.manifest.document import Bounds, Listing, Mapping, Node, Scalar, Unreadable, compose
from shiplap.core.manifest.problems import Problem, quoted
from shiplap.core.manifest.schema import Schema, did_you_mean, join, place_of, sound_data, validate

COMPOSE_BOUNDS = Bounds(what="a Compose file", least="`services:` with one service")

_ELSEWHERE = "not supported; docs/compose.md lists the keys that are"
_SHIPPED = "the images are those of the manifest"
_REASONS = {
    "build": "a store has finished images: name one in `image`, and list it in the manifest's `images`",
    "deploy": "is for swarms; write `mem_limit`, `cpus`, `pids_limit`, `restart`",
    "networks": "the engine's networks are `network_mode`: none, host, bridge",
    "links": "the engine's bridge has no names; use `network_mode: host`, or a published port",
    "privileged": "not supported: name what it needs in `devices`, `cap_add`, `security_opt`",
    "platform": "is the manifest's `platform`",
    "pull_policy": f"{_SHIPPED}, nothing is pulled",
    "expose": "has no effect; leave it out, or use `ports`",
    "extends": "not supported: one file describes everything",
    "include": "not supported: one file describes everything",
    "profiles": "not supported: every service of the file is started",
    "secrets": "not supported: mount a file of the device in `volumes`",
    "configs": "not supported: mount a file of the device in `volumes`",
}


@dataclass(frozen=True, slots=True)
class ComposeFile:
    """What was read: ``containers`` as data in the manifest's own form, each of the service of its place in ``services``."""

    name: str
    node: Node
    services: tuple[str, ...]
    containers: tuple[dict[str, Any], ...]

    def located(self, problem: Problem) -> Problem:
        """A problem of the manifest's ``containers`` as one of this file."""
        if problem.path == "containers":
            return replace(problem, path="compose")
        index, _, below = problem.path.removeprefix("containers").removeprefix("[").partition("].")
        if not problem.path.startswith("containers[") or not below:
            return problem
        key = below.partition(".")[0].partition("[")[0]
        path = join(join("services", self.services[int(index)]), KEYS.get(key, key))
        line, column = place_of(self.node, path)
        return replace(problem, path=path, line=line, column=column, file=self.name)


def parse_compose(raw: bytes, name: str, problems: list[Problem]) -> ComposeFile | None:
    """Read the bytes of a Compose file; None where ``problems`` got some, each with ``name`` as its file."""
    found: list[Problem] = []
    read = _parse(raw, name, found)
    problems += [replace(problem, file=name) for problem in found]
    return None if found else read


def _parse(raw: bytes, name: str, found: list[Problem]) -> ComposeFile | None:
    try:
        node = _interpolated(compose(raw, found, COMPOSE_BOUNDS), "", found)
    except Unreadable:
        return None
    unclear = {(problem.line, problem.column) for problem in found}
    schema = _schema()
    node = _without_extensions(node)
    unsound = [*validate(node, schema), *_unknown_keys(node, schema)]
    found += [problem for problem in unsound if (problem.line, problem.column) not in unclear]
    if not isinstance(node, Mapping):
        return None
    sound = sound_data(node, "", {problem.path for problem in (*found, *unsound)})
    services = {key: value for key, value in sound.get("services", {}).items() if isinstance(value, dict)}
    written = {key: _keys(node.entries["services"], key) for key in services}
    if not services and not unsound:
        found.append(Problem("services", *place_of(node, "services"), "has no service"))
    around = Surroundings(
        volumes={key: (value or {}).get("name", key) for key, value in (sound.get("volumes") or {}).items()} | _missing(node, sound),
        containers={key: str(value.get("container_name", key)) for key, value in services.items()},
    )
    containers = []
    for key, service in services.items():

        def say(path: str, message: str, above: str = join("services", key)) -> None:
            place = f"{above}.{path}" if path else above
            found.append(Problem(place, *place_of(node, place), message))

        containers.append(container_data(key, service, written[key], around, say))
    return ComposeFile(name, node, tuple(services), tuple(containers))


def _missing(node: Mapping, sound: dict[str, Any]) -> dict[str, None]:
    """Volumes with a problem: they are declared all the same."""
    written = node.entries.get("volumes")
    return {key: None for key in written.entries if key not in (sound.get("volumes") or {})} if isinstance(written, Mapping) else {}


def _keys(services: Node, name: str) -> frozenset[str]:
    service = services.entries[name] if isinstance(services, Mapping) else services
    return frozenset(service.entries) if isinstance(service, Mapping) else frozenset()


def _unknown_keys(node: Node, schema: Schema) -> Iterator[Problem]:
    """Keys at the top and of services that compose.json does not have."""
    if not isinstance(node, Mapping):
        return
    yield from _unknown(node, schema, "")
    services = node.entries.get("services")
    for name, service in services.entries.items() if isinstance(services, Mapping) else ():
        if isinstance(service, Mapping):
            yield from _unknown(service, schema["properties"]["services"]["additionalProperties"], join("services", name))


def _unknown(node: Mapping, schema: Schema, path: str) -> Iterator[Problem]:
    for key in node.entries:
        if key not in schema["properties"]:
            why = _REASONS.get(key, f"{quoted(key)} is {_ELSEWHERE}{did_you_mean(key, schema['properties'], '_')}")
            yield Problem(join(path, key), *node.keys[key], why)


def _without_extensions(node: Node) -> Node:
    """Without ``x-…``, which the Compose Specification leaves to others: at the top and in services."""
    if not isinstance(node, Mapping):
        return node
    entries = {key: value for key, value in node.entries.items() if not key.startswith("x-")}
    services = entries.get("services")
    if isinstance(services, Mapping):
        plain = {
            name: replace(one, entries={key: value for key, value in one.entries.items() if not key.startswith("x-")})
            if isinstance(one, Mapping)
            else one
            for name, one in services.entries.items()
        }
        entries["services"] = replace(services, entries=plain)
    return replace(node, entries=entries)


def _interpolated(node: Node, path: str, found: list[Problem]) -> Node:
    """``$$`` is a dollar sign; ``$NAME`` would be a variable of the shell that runs Compose."""
    if isinstance(node, Mapping):
        entries = {key: _interpolated(value, join(path, key), found) for key, value in node.entries.items()}
        return replace(node, entries=entries)
    if isinstance(node, Listing):
        return replace(node, items=tuple(_interpolated(item, join(path, index), found) for index, item in enumerate(node.items)))
    return _dollars(node, path, found)


def _dollars(node: Scalar, path: str, found: list[Problem]) -> Scalar:
    if not isinstance(node.value, str) or "$" not in node.value:
        return node
    if "$" in node.value.replace("$$", ""):
        message = f"{quoted(node.value)}: variables are not replaced, a build has no shell's; write the value, and $$ for a dollar sign"
        found.append(Problem(path, node.line, node.column, message))
    return replace(node, value=node.value.replace("$$", "$"))


@functools.cache
def _schema() -> Schema:
    loaded: Schema = json.loads(Path(__file__).with_name("compose.json").read_text(encoding="utf-8"))
    return loaded
