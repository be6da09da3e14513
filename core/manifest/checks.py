"""What a schema cannot say about a manifest: references, platforms, levels, and keys that do not fit together.

Every check gets the manifest's data, valid by the schema as far as it is there and with defaults filled in, and
yields ``(path, message)``. Nothing raises: all problems are reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shiplap.core.errors import Refused
from shiplap.core.imageform import (
    EROFS_CLUSTER_BYTES,
    EROFS_LEVELS,
    SQUASHFS_BLOCK_BYTES,
    SQUASHFS_LEVELS,
    SQUASHFS_TOOLS_OF,
    is_size,
    level_problem,
)
from shiplap.core.manifest.device import DEFAULT_DATA_ROOTS
from shiplap.core.manifest.devicechecks import device_findings
from shiplap.core.manifest.problems import quoted
from shiplap.core.manifest.schema import join
from shiplap.core.manifest.sizes import parse_size
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference
from shiplap.core.registry.endpoints import is_mirror_location
from shiplap.core.sbom.expression import licence_expression
from shiplap.core.sources.spec import parse_source

Finding = tuple[str, str]
Data = dict[str, Any]

DRIVERS = {"docker": ("overlay2", "vfs", "containerd"), "podman": ("overlay",)}
OUTPUTS = {"store": ("squashfs", "verity"), "archive": ("tar",)}
_POSSIBLE_OUTPUTS = {"store": ("squashfs", "erofs", "verity", "tar"), "archive": ("tar",)}
_ARCHIVE_HIGHEST = {"none": 0, "gzip": 9, "xz": 9, "zstd": 22}

# Where a value other than these would change the outcome, and this release cannot do it yet.
IN_THIS_RELEASE: dict[str, tuple[object, ...]] = {
    "engine": ("docker", "podman"),
    "driver": ("overlay2", "vfs", "overlay"),
    "squashfs.tool": ("builtin", "tar2sqfs", "mksquashfs"),
    "verity.fec-roots": (0,),
}
_OUTPUTS_IN_THIS_RELEASE = ("squashfs", "erofs", "verity", "tar")


def findings(data: Data) -> Iterator[Finding]:
    """Everything wrong with ``data`` that the schema does not see."""
    yield from _platform(data)
    yield from _images(data)
    yield from _registries(data)
    yield from _engine(data)
    yield from _outputs(data)
    yield from _store_path(data)
    yield from _squashfs(data["squashfs"])
    yield from _whiteouts(data)
    yield from _erofs(data["erofs"])
    yield from _archive(data["archive"])
    yield from _sizes(data)
    yield from device_findings(data, data.get("outputs") or OUTPUTS[data["mode"]])
    yield from _not_yet(data)


def value_at(data: Data, path: str) -> Any:
    """The value at a dotted path of keys, or None."""
    value: Any = data
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _platform(data: Data) -> Iterator[Finding]:
    text = data.get("platform")
    if text is None:
        return
    try:
        platform = parse_platform(text)
    except Refused as error:
        yield "platform", _sentence(error)
        return
    if platform.normalised.os != "linux":
        yield "platform", f"{quoted(text)}: only linux images can go into a store"


def _images(data: Data) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, image in enumerate(data.get("images") or ()):
        if image is None:
            continue
        if "from" in image:
            yield from _source(image["from"], join(join("images", index), "from"))
        if image.get("license") is not None:
            yield from _licence(image["license"], join(join("images", index), "license"))
        text = image.get("ref")
        if text is None:
            continue
        path = join(join("images", index), "ref")
        try:
            reference = parse_reference(text)
        except Refused as error:
            yield path, _sentence(error)
            continue
        if str(reference) in seen:
            yield path, f"{quoted(text)} is the same reference as that of images[{seen[str(reference)]}]"
        seen.setdefault(str(reference), index)


def _licence(text: str, path: str) -> Iterator[Finding]:
    try:
        licence_expression(text)
    except Refused as error:
        yield path, _sentence(error)


def _source(text: str, path: str) -> Iterator[Finding]:
    try:
        parse_source(text)
    except Refused as error:
        yield path, _sentence(error)


def _registries(data: Data) -> Iterator[Finding]:
    for host, settings in data["registries"].items():
        path = join("registries", host)
        if "/" in host or not is_mirror_location(host):
            yield path, f"{quoted(host)} is not host[:port] of a registry"
        for index, mirror in enumerate(settings.get("mirrors") or ()):
            if mirror is not None and not is_mirror_location(mirror):
                yield join(join(path, "mirrors"), index), f"{quoted(mirror)} is not host[:port][/prefix] of a mirror"


def _engine(data: Data) -> Iterator[Finding]:
    driver, engine = data.get("driver"), data["engine"]
    if driver is not None and driver not in DRIVERS[engine]:
        yield "driver", f"{quoted(driver)} is no driver of {engine}; it has {', '.join(DRIVERS[engine])}"


def _outputs(data: Data) -> Iterator[Finding]:
    mode, outputs = data["mode"], data.get("outputs") or ()
    possible = _POSSIBLE_OUTPUTS[mode]
    for index, output in enumerate(outputs):
        path = join("outputs", index)
        if output is None:
            continue
        if output not in possible:
            yield path, f"{quoted(output)} does not exist in mode {mode}, which has {', '.join(possible)}"
        elif output not in _OUTPUTS_IN_THIS_RELEASE:
            yield path, _not_yet_message(output)
    if "verity" in outputs and mode == "store" and None not in outputs and not {"squashfs", "erofs"} & set(outputs):
        yield "outputs", "`verity` seals an image: add `squashfs` or `erofs`"
    if "squashfs" in outputs and "erofs" in outputs:
        yield "outputs", "`squashfs` and `erofs` are two forms of the same store: choose one"


def _store_path(data: Data) -> Iterator[Finding]:
    store, root = data["store-path"], data["data-root"].get("path", DEFAULT_DATA_ROOTS[data["engine"]])
    if store == root or store.startswith(root.rstrip("/") + "/"):
        yield "store-path", f"{quoted(store)} lies in the data-root {root}, where the engine would hide or delete it"


def _squashfs(settings: Data) -> Iterator[Finding]:
    level, compression = settings.get("level"), settings["compression"]
    tools = SQUASHFS_TOOLS_OF.get(compression)
    if tools is not None and settings["tool"] not in tools:
        yield "squashfs.compression", f"{settings['tool']} does not write {compression}: use `tool: " + "` or `tool: ".join(tools) + "`"
    problem = level_problem(compression, level, SQUASHFS_LEVELS[compression], "SquashFS")
    if problem is not None:
        yield "squashfs.level", problem
    size_bytes = _size_or_none(settings["block-size"])
    if size_bytes is not None and not is_size(size_bytes, SQUASHFS_BLOCK_BYTES):
        yield "squashfs.block-size", f"{quoted(settings['block-size'])} is not a power of two from 4K to 1M"


def _whiteouts(data: Data) -> Iterator[Finding]:
    if data["mode"] == "archive" or data["squashfs"]["whiteouts"] != "explicit":
        return
    if data.get("driver") == "vfs":
        yield "squashfs.whiteouts", "a vfs store holds whole trees, which hide nothing"
    if "erofs" in (data.get("outputs") or ()):
        yield "squashfs.whiteouts", "an EROFS image keeps its extended attributes: `explicit` is for `squashfs`"


def _erofs(settings: Data) -> Iterator[Finding]:
    compression = settings["compression"]
    problem = level_problem(compression, settings.get("level"), EROFS_LEVELS[compression], "EROFS")
    if problem is not None:
        yield "erofs.level", problem
    size_bytes = _size_or_none(settings["cluster-size"])
    if size_bytes is not None and not is_size(size_bytes, EROFS_CLUSTER_BYTES):
        yield "erofs.cluster-size", f"{quoted(settings['cluster-size'])} is not a power of two from 4K to 1M"


def _archive(settings: Data) -> Iterator[Finding]:
    level, compression = settings["level"], settings["compression"]
    if level > _ARCHIVE_HIGHEST[compression]:
        highest = _ARCHIVE_HIGHEST[compression]
        yield "archive.level", f"{level} is no level of {compression}, which has " + (f"0 to {highest}" if highest else "only 0")


def _sizes(data: Data) -> Iterator[Finding]:
    """Sizes whose spelling is right and whose number is absurd."""
    for section, keys in (("budget", ("store-image",)), ("limits", ("layer-bytes", "metadata-bytes"))):
        for key in keys:
            value = data[section].get(key)
            if value is not None and _size_or_none(value) is None:
                yield join(section, key), f"{quoted(value)} is out of range"


def _not_yet(data: Data) -> Iterator[Finding]:
    for path, possible in IN_THIS_RELEASE.items():
        value = value_at(data, path)
        if path == "driver" and value not in DRIVERS[data["engine"]]:
            continue  # said already, or not given
        if value is not None and value not in possible:
            one = value if isinstance(value, (str, int)) and possible else None
            yield path, _not_yet_message(one)


def _not_yet_message(value: object | None) -> str:
    return "not yet implemented in this release" if value is None else f"{quoted(value)} is not yet implemented in this release"


def _size_or_none(value: int | float | str) -> int | None:
    try:
        return parse_size(int(value) if isinstance(value, float) else value)
    except Refused:
        return None


def _sentence(error: Refused) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message
