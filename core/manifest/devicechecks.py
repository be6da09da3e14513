"""What a schema cannot say about the device's keys of a manifest. Yields ``(path, message)``, as :mod:`checks` does."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

from shiplap.core.errors import Refused
from shiplap.core.manifest.device import DATA_ROOT_KEYS, DEFAULT_DATA_ROOTS, DEFAULT_INIT, hidden_store_reasons, kept_in_data_root
from shiplap.core.manifest.problems import quoted
from shiplap.core.manifest.schema import join
from shiplap.core.manifest.sizes import parse_size
from shiplap.core.reference import parse_reference

Finding = tuple[str, str]
Data = dict[str, Any]

# The scripts on the device pass these paths on unquoted, one word each.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+@:=-]*")
_CHOICES = "write `data-root: {persistence: volatile}` (gone at every restart) or `persistence: persistent` (on a writable partition)"
_IMAGES = ("squashfs", "erofs")
_OUR_LABELS = "io.shiplap."


def device_findings(data: Data, outputs: Sequence[str]) -> Iterator[Finding]:
    """Everything wrong with the device's keys. ``outputs``: what the build writes, defaults decided."""
    yield from _data_root(data)
    yield from _sealing(data, outputs)
    yield from _engine_config(data)
    yield from _quadlet(data)
    yield from _containers(data, outputs)


def _below(path: str, folder: str) -> bool:
    return posixpath.normpath(path) == folder or path.startswith(folder.rstrip("/") + "/")


def _data_root(data: Data) -> Iterator[Finding]:
    settings = data["data-root"]
    persistence, volumes = settings.get("persistence"), settings.get("volumes-path")
    path = settings.get("path", DEFAULT_DATA_ROOTS[data["engine"]])
    if settings.get("size") is not None:
        if persistence == "persistent":
            yield "data-root.size", "is the size of a volatile data-root's tmpfs; a persistent one has its partition's"
        elif _size_or_none(settings["size"]) is None:
            yield "data-root.size", f"{quoted(settings['size'])} is out of range"
    if _below(path, data["store-path"]):
        yield "data-root.path", f"{quoted(path)} lies in the store-path {data['store-path']}, which is read-only"
    if volumes is not None and _below(volumes, path):
        yield "data-root.volumes-path", f"{quoted(volumes)} lies in the data-root: choose a folder outside of it"
    if persistence is not None:
        return
    for index, container in enumerate(data["containers"]):
        named = [one for one in (container or {}).get("volumes") or () if one is not None and kept_in_data_root(one)]
        if named:
            yield (
                "data-root",
                f"container {container.get('name', index)} has the volume {quoted(named[0])}, so say where it is kept: {_CHOICES}",
            )
            return


def _sealing(data: Data, outputs: Sequence[str]) -> Iterator[Finding]:
    settings = data["verity"]
    check, seal = settings.get("check", "lazy"), settings.get("seal", "auto")
    on_corruption, placement = settings.get("on-corruption", "eio"), data.get("placement")
    if data["mode"] == "archive":
        if check == "full":
            yield "verity.check", "an archive has no hash tree: use `check: sha256`"
        if seal == "always":
            yield "verity.seal", "an archive cannot be sealed: its root file system can, and `check: sha256` compares its hash"
        if placement != "file":
            yield "placement", f"an archive is a file in the root file system: `{placement}` is for store mode"
        return
    if placement == "tree":
        yield from _unpacked(settings, outputs)
        return
    has_tree = "verity" in outputs
    if check == "sha256" and seal == "always":
        yield "verity.seal", "`check: sha256` is for kernels without dm-verity, and `seal: always` needs dm-verity"
    if seal == "always" and not has_tree:
        yield "verity.seal", "`seal: always` needs the hash tree: add `verity` to `outputs`"
    sealed = has_tree and seal != "never" and check != "sha256"
    if check == "full" and not sealed:
        yield "verity.check", "`check: full` reads the whole store against its hash tree, and this one is not sealed: use `check: sha256`"
    if on_corruption != "eio" and not sealed:
        yield "verity.on-corruption", f"{quoted(on_corruption)} is dm-verity's, and this store is not sealed"
    if placement == "partition" and not has_tree and set(_IMAGES) & set(outputs):
        yield "placement", "a store partition is found by its root hash: add `verity` to `outputs`"


def _unpacked(verity: Data, outputs: Sequence[str]) -> Iterator[Finding]:
    """A store that is part of the root file system is verified with it, and in no other way."""
    if "erofs" in outputs:
        yield "placement", "a store is unpacked into the root file system from its SquashFS: use `squashfs` instead of `erofs`"
    for key, usual in (("check", ("lazy",)), ("on-corruption", ("eio",)), ("seal", ("auto", "never"))):
        if verity.get(key, usual[0]) not in usual:
            yield (
                join("verity", key),
                f"{quoted(verity[key])} is for a store image; `placement: tree` is verified with its root file system",
            )


def _engine_config(data: Data) -> Iterator[Finding]:
    """What the manifest's own keys decide: in daemon.json at the top, in Podman's storage.conf in the table ``storage``."""
    said, where = data["engine-config"], "engine-config"
    path = data["data-root"].get("path", DEFAULT_DATA_ROOTS[data["engine"]])
    if data["engine"] == "docker":
        ours = {"storage-driver": ("driver", data.get("driver") or "overlay2"), **dict.fromkeys(DATA_ROOT_KEYS, ("data-root.path", path))}
    else:
        said, where = said.get("storage", {}), join(where, "storage")
        ours = {"driver": ("driver", "overlay"), "graphroot": ("data-root.path", path)}
        if not isinstance(said, dict):
            yield where, "is a table of storage.conf: write `storage: {KEY: VALUE}`"
            return
    for key, (manifest_key, value) in ours.items():
        if said.get(key) is not None and value is not None and said[key] != value:
            yield join(where, key), f"{quoted(said[key])} is at odds with `{manifest_key}`, which is {value}; leave it out here"
    if (data["engine"], data["mode"]) == ("docker", "store"):
        for keys, reason in hidden_store_reasons(said):
            yield reduce(join, keys, where), f"{reason}: leave it out, or use `mode: archive`"


def _quadlet(data: Data) -> Iterator[Finding]:
    target = data["target"]
    if not target.get("quadlet"):
        return
    if data["engine"] != "podman":
        yield "target.quadlet", "Quadlet is Podman's: `engine: podman`"
    elif "systemd" not in target.get("init", DEFAULT_INIT):
        yield "target.quadlet", "Quadlet makes systemd's units, and `target.init` has no systemd"
    for index, one in enumerate(data["containers"]):
        for number, volume in enumerate((one or {}).get("volumes") or ()):
            if volume is not None and ":" not in volume:
                path = join(join(join("containers", index), "volumes"), number)
                yield path, f"{quoted(volume)}: Quadlet removes volumes without a name whenever the container stops; write NAME:{volume}"


def _containers(data: Data, outputs: Sequence[str]) -> Iterator[Finding]:
    containers = data["containers"]
    if containers and data["mode"] == "store" and not set(_IMAGES) & set(outputs):
        yield "containers", "the target kit starts them from a store image: add `squashfs` to `outputs`"
    known = _known_images(data)
    first: dict[str, int] = {}
    for index, one in enumerate(containers):
        if one is None:
            continue
        path, name = join("containers", index), one.get("name")
        if name is not None and first.setdefault(name, index) != index:
            yield join(path, "name"), f"containers[{first[name]}] is called {quoted(name)} already"
        yield from _image(one, path, known)
        yield from _words(one, path)
    yield from _order(containers, first)


def _known_images(data: Data) -> set[str] | None:
    """Full references of the manifest's images; None where not all could be read."""
    try:
        return {str(parse_reference(image["ref"])) for image in data.get("images") or ()}
    except (Refused, KeyError, TypeError):
        return None


def _image(one: Data, path: str, known: set[str] | None) -> Iterator[Finding]:
    text = one.get("image")
    if text is None:
        return
    try:
        reference = str(parse_reference(text))
    except Refused as error:
        yield join(path, "image"), error.message
        return
    # Without images of its own the manifest's default is checked against what the command line names, when that is known.
    if known and reference not in known:
        yield join(path, "image"), f"{quoted(text)} is none of the manifest's `images`: {', '.join(sorted(known)[:5])}"


def _words(one: Data, path: str) -> Iterator[Finding]:
    yield from _ports(one, path)
    if (health := one.get("health")) is not None:
        yield from _health(health, join(path, "health"))
    for name in one.get("labels") or {}:
        if "=" in name or name.startswith(_OUR_LABELS):
            yield join(join(path, "labels"), name), f"{quoted(name)} cannot be a label: no `=`, and `{_OUR_LABELS}` is the target kit's"
    for name in one.get("env") or {}:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name):
            yield join(join(path, "env"), name), f"{quoted(name)} is no name of an environment variable"
    for index, word in enumerate(one.get("wait-for") or ()):
        if word is not None and not _PLAIN_PATH.fullmatch(word):
            yield join(join(path, "wait-for"), index), f"{quoted(word)} is no absolute path without spaces and special characters"
    if one.get("memory") is not None and _size_or_none(one["memory"]) is None:
        yield join(path, "memory"), f"{quoted(one['memory'])} is out of range"


def _ports(one: Data, path: str) -> Iterator[Finding]:
    ports, network = one.get("ports") or (), one.get("network")
    if ports and network in ("none", "host"):
        yield join(path, "ports"), f"ports are published from a bridge, and `network` is {network}"
    for index, port in enumerate(ports):
        if port is not None and not _is_published(port):
            yield (
                join(join(path, "ports"), index),
                f"{quoted(port)}: a port is 1 to 65535, two ranges are of one length, an address is an IP address",
            )


def _is_published(port: str) -> bool:
    """Whether the numbers of ``[[IP:]HOST:]CONTAINER[/protocol]`` can be: the schema has seen the form."""
    address, _, ends = port.partition("/")[0].rpartition("]") if port.startswith("[") else ("", "", port.partition("/")[0])
    numbers = ends.split(":")
    if address or len(numbers) == 3:
        try:
            ipaddress.ip_address(address[1:] or numbers[0])
        except ValueError:
            return False
    ranges = [tuple(int(number) for number in part.split("-")) for part in numbers[-2:] if part]
    sound = all(0 < one[0] <= one[-1] < 65536 for one in ranges)
    return sound and len({one[-1] - one[0] for one in ranges}) == 1


def _health(health: Data, path: str) -> Iterator[Finding]:
    if "cmd" not in health and "disable" not in health:
        yield join(path, "cmd"), "the key `cmd` is missing"
    if "disable" in health and len(health) > 1:
        yield join(path, "disable"), "without a health check there is nothing else to say about it"


def _order(containers: Sequence[Data | None], first: dict[str, int]) -> Iterator[Finding]:
    """Unknown names and circles in ``after:``."""
    waits = {name: [one for one in (containers[index] or {}).get("after") or () if one is not None] for name, index in first.items()}
    for name, before in waits.items():
        for one in before:
            if one not in waits:
                yield join(join("containers", first[name]), "after"), f"there is no container {quoted(one)}"
    left = dict(waits)
    while ready := [name for name, before in left.items() if not any(one in left for one in before)]:
        for name in ready:
            del left[name]
    if left:
        name = min(left, key=lambda one: first[one])
        yield join(join("containers", first[name]), "after"), f"containers wait for each other: {', '.join(sorted(left))}"


def _size_or_none(value: int | float | str) -> int | None:
    try:
        return parse_size(int(value) if isinstance(value, float) else value)
    except Refused:
        return None
