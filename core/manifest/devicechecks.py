"""What a schema cannot say about the device's keys of a manifest. Yields ``(path, message)``, as :mod:`checks` does."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any

from shiplap.core.errors import Refused
from shiplap.core.manifest.device import DEFAULT_DATA_ROOT, kept_in_data_root
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


def device_findings(data: Data, outputs: Sequence[str]) -> Iterator[Finding]:
    """Everything wrong with the device's keys. ``outputs``: what the build writes, defaults decided."""
    if not has_kit(data["engine"], data.get("driver"), data["mode"]):
        yield from _without_kit(data)
        return
    yield from _data_root(data)
    yield from _sealing(data, outputs)
    yield from _engine_config(data)
    yield from _containers(data, outputs)


def has_kit(engine: str, driver: str | None, mode: str) -> bool:
    """Whether there is a target kit for what the build makes. ``driver``: None for the engine's default."""
    return engine == "docker" and (mode == "archive" or driver in (None, "overlay2"))


def _without_kit(data: Data) -> Iterator[Finding]:
    """Keys that only a target kit can obey, and this release has none for the engine or driver."""
    what = f"driver {data['driver']}" if data["engine"] == "docker" else f"engine {data['engine']}"
    root, verity = data["data-root"], data["verity"]
    said = {
        "data-root.path": root.get("path", DEFAULT_DATA_ROOT) != DEFAULT_DATA_ROOT,
        "data-root.persistence": "persistence" in root,
        "data-root.size": "size" in root,
        "data-root.volumes-path": "volumes-path" in root,
        "placement": data.get("placement", "file") == "partition",
        "verity.check": verity.get("check", "lazy") != "lazy",
        "verity.on-corruption": verity.get("on-corruption", "eio") != "eio",
        "verity.seal": verity.get("seal", "auto") != "auto",
        "engine-config": bool(data["engine-config"]),
        "target": bool(data["target"]),
        "containers": bool(data["containers"]),
    }
    yield from ((path, f"not yet implemented for {what} in this release") for path, is_said in said.items() if is_said)


def _below(path: str, folder: str) -> bool:
    return posixpath.normpath(path) == folder or path.startswith(folder.rstrip("/") + "/")


def _data_root(data: Data) -> Iterator[Finding]:
    settings = data["data-root"]
    persistence, volumes, path = settings.get("persistence"), settings.get("volumes-path"), settings.get("path", DEFAULT_DATA_ROOT)
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
            yield "data-root", f"containers[{index}] has the volume {quoted(named[0])}, so say where it is kept: {_CHOICES}"
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
        if placement == "partition":
            yield "placement", "an archive is a file in the root file system: `partition` is for store mode"
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


def _engine_config(data: Data) -> Iterator[Finding]:
    # Docker's default; another engine's is not in daemon.json.
    driver = data.get("driver") or ("overlay2" if data["engine"] == "docker" else None)
    ours = {"storage-driver": driver, "data-root": data["data-root"].get("path")}
    for key, value in ours.items():
        said = data["engine-config"].get(key)
        if said is not None and value is not None and said != value:
            manifest_key = "driver" if key == "storage-driver" else "data-root.path"
            yield join("engine-config", key), f"{quoted(said)} is at odds with `{manifest_key}`, which is {value}; leave it out here"


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
    for name in one.get("env") or {}:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name):
            yield join(join(path, "env"), name), f"{quoted(name)} is no name of an environment variable"
    for index, word in enumerate(one.get("wait-for") or ()):
        if word is not None and not _PLAIN_PATH.fullmatch(word):
            yield join(join(path, "wait-for"), index), f"{quoted(word)} is no absolute path without spaces and special characters"
    if one.get("memory") is not None and _size_or_none(one["memory"]) is None:
        yield join(path, "memory"), f"{quoted(one['memory'])} is out of range"


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
