"""Manifest bytes → :class:`Manifest`, with options laid over it; and back into data for ``shiplap config``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from shiplap.core.errors import Refused
from shiplap.core.imageform import EROFS_LEVELS, SQUASHFS_LEVELS, Levels
from shiplap.core.limits import Limits
from shiplap.core.manifest.checks import DRIVERS, OUTPUTS, findings
from shiplap.core.manifest.composefile import COMPOSE_BOUNDS, ComposeFile, parse_compose
from shiplap.core.manifest.devicereading import device_data, device_settings
from shiplap.core.manifest.document import (
    MANIFEST_BOUNDS,
    Listing,
    Mapping,
    Node,
    Scalar,
    Unreadable,
    compose,
    node_of,
    plain,
    read_bounded,
)
from shiplap.core.manifest.model import ArchiveSettings, ErofsSettings, ImageRequest, Manifest, Overrides, SquashfsSettings, VeritySettings
from shiplap.core.manifest.problems import ManifestError, Problem, quoted
from shiplap.core.manifest.schema import place_of, sound_data, validate, with_defaults
from shiplap.core.manifest.sizes import format_size, parse_size
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference
from shiplap.core.registry.settings import RegistrySettings
from shiplap.core.sbom.expression import licence_expression

Data = dict[str, Any]

_SCHEMA_HINT = "`shiplap schema` prints the schema; an editor that knows it shows these mistakes while you type"
_COMPOSE_HINT = "docs/compose.md says what of a Compose file describes containers of a device"
# Which option an overridden key came from, for messages.
_OPTIONS = {
    "platform": "--platform",
    "epoch": "--source-date-epoch",
    "mode": "--mode",
    "engine": "--engine",
    "driver": "--driver",
    "outputs": "--output",
    "store-path": "--store-path",
    "placement": "--placement",
}


class ManifestUnreadable(Refused):
    """The manifest's file is not there or cannot be read."""


def load_manifest(path: Path) -> Manifest:
    """Read and check the manifest at ``path``. Raises ManifestUnreadable and ManifestError."""
    try:
        raw = read_bounded(path, MANIFEST_BOUNDS)
    except OSError as error:
        hint = "name it with -f; `shiplap schema` tells what one holds" if isinstance(error, FileNotFoundError) else None
        raise ManifestUnreadable(f"cannot read the manifest {path}: {error.strerror}", hint=hint) from error
    if raw is None:
        raise ManifestUnreadable(f"{path} is not a regular file")
    return parse_manifest(raw, str(path), path.parent)


def parse_manifest(text: bytes, name: str, folder: Path = Path()) -> Manifest:
    """Check the bytes of a manifest; ``name`` stands for it in messages. Raises ManifestError with all problems.

    ``folder``: where the path of a Compose file begins, the manifest's own.
    """
    problems: list[Problem] = []
    try:
        node = compose(text, problems)
    except Unreadable:
        raise ManifestError(name, problems) from None
    # A value that YAML itself leaves unclear needs one message, not a second one about its type.
    unclear = {(problem.line, problem.column) for problem in problems}
    described = None
    if isinstance(node, Mapping) and "compose" in node.entries:
        node, described = _with_compose(node, folder, problems)
    found = validate(node)
    manifest = _manifest(node, found)
    problems += [problem for problem in found if (problem.line, problem.column) not in unclear or not problem.line]
    if described is not None:
        problems = [described.located(problem) for problem in problems]
    if problems or manifest is None:
        in_compose = any(problem.file for problem in problems)
        raise ManifestError(name, problems, hint=_COMPOSE_HINT if in_compose else _SCHEMA_HINT)
    return manifest


def _with_compose(node: Mapping, folder: Path, problems: list[Problem]) -> tuple[Mapping, ComposeFile | None]:
    """The manifest with ``containers`` instead of ``compose``; without either where the Compose file has problems."""
    key, asked = node.keys["compose"], node.entries["compose"]
    if not (isinstance(asked, Scalar) and isinstance(asked.value, str) and asked.value):
        return node, None  # the schema says so
    entries = {name: value for name, value in node.entries.items() if name != "compose"}
    if "containers" in entries:
        problems.append(Problem("compose", *key, "describes the containers as `containers` does: choose one of the two"))
        return replace(node, entries=entries), None
    described = None
    path = folder / asked.value
    try:
        raw = read_bounded(path, COMPOSE_BOUNDS)
    except OSError as error:
        problems.append(Problem("compose", asked.line, asked.column, f"cannot read {quoted(path)}: {error.strerror}"))
    except ValueError:
        pass  # a NUL in the path, which reading the manifest has told
    else:
        if raw is None:
            problems.append(Problem("compose", asked.line, asked.column, f"{quoted(path)} is not a regular file"))
        else:
            described = parse_compose(raw, str(path), problems)
    entries["containers"] = Listing(tuple(node_of(one) for one in described.containers) if described else (), asked.line, asked.column)
    return replace(node, entries=entries), described


def defaults() -> Manifest:
    """A manifest with nothing but defaults and no images: for use without a file, see :func:`resolve`."""
    manifest = _manifest(node_of({"version": 1, "images": []}), [])
    assert manifest is not None
    return manifest


def resolve(manifest: Manifest, overrides: Overrides) -> Manifest:
    """``manifest`` with the options of the command line laid over it, before defaults are decided.

    So ``mode`` from an option brings its own default outputs, unless the manifest names outputs.
    Raises ManifestError for options that do not fit, with the option as the path.
    """
    given: Data = {"platform": overrides.platform, "epoch": overrides.epoch, "mode": overrides.mode, "engine": overrides.engine}
    given |= {"driver": overrides.driver, "outputs": overrides.outputs and list(overrides.outputs), "store-path": overrides.store_path}
    given |= {"placement": overrides.placement}
    data: Data = json.loads(manifest.written)
    data.update({key: value for key, value in given.items() if value is not None})
    node = node_of(data)
    problems = [problem for problem in validate(node) if problem.path != "images"]
    resolved = _manifest(node, problems)
    if problems or resolved is None:
        named = [_as_option(problem, given) for problem in problems]
        raise ManifestError("the command line", named, hint="options are stronger than the manifest, and both have to fit together")
    # Options say nothing about single images; the manifest's own keep their lines.
    images = manifest.images if overrides.images is None else overrides.images
    return dataclasses.replace(resolved, images=images, written=json.dumps(data))


def _as_option(problem: Problem, given: dict[str, Any]) -> Problem:
    for key, option in _OPTIONS.items():
        if given[key] is not None and (problem.path == key or problem.path.startswith(f"{key}[")):
            return dataclasses.replace(problem, path=option)
    return problem


def _manifest(node: Node, problems: list[Problem]) -> Manifest | None:
    """Check what the schema cannot, and build; None when there are ``problems``, old or new."""
    if not isinstance(node, Mapping):
        return None
    sound = sound_data(node, "", {problem.path for problem in problems})
    data = with_defaults(sound)
    for path, message in findings(data):
        line, column = place_of(node, path)
        problems.append(Problem(path, line, column, message))
    if problems:
        return None
    return _build(data, node)


def _build(data: Data, node: Mapping) -> Manifest:
    squashfs, erofs, verity, archive, limits = (data[key] for key in ("squashfs", "erofs", "verity", "archive", "limits"))
    budget = data["budget"].get("store-image")
    nodes = node.entries.get("images")
    lines = [item.line for item in nodes.items] if isinstance(nodes, Listing) else []
    return Manifest(
        version=int(data["version"]),
        name=data["name"],
        platform=parse_platform(data["platform"]) if "platform" in data else None,
        epoch=_whole(data.get("epoch")),
        security_version=_whole(data.get("security-version")),
        images=tuple(_image(image, line) for image, line in zip(data["images"], lines, strict=True)),
        mode=data["mode"],
        engine=data["engine"],
        driver=data.get("driver", DRIVERS[data["engine"]][0]),
        outputs=tuple(data.get("outputs", OUTPUTS[data["mode"]])),
        store_path=data["store-path"],
        squashfs=SquashfsSettings(
            tool=squashfs["tool"],
            compression=squashfs["compression"],
            level=_level(squashfs, SQUASHFS_LEVELS),
            block_size_bytes=_size(squashfs["block-size"]),
            whiteouts=squashfs["whiteouts"],
            allow_tool=tuple(squashfs["allow-tool"]),
        ),
        erofs=ErofsSettings(erofs["compression"], _level(erofs, EROFS_LEVELS), _size(erofs["cluster-size"])),
        verity=VeritySettings(verity["hash"], int(verity["fec-roots"]), verity["check"], verity["on-corruption"], verity["seal"]),
        archive=ArchiveSettings(archive["compression"], int(archive["level"])),
        budget_store_image_bytes=None if budget is None else _size(budget),
        limits=Limits(
            layer_bytes=_size(limits["layer-bytes"]), entries=int(limits["entries"]), metadata_bytes=_size(limits["metadata-bytes"])
        ),
        device=device_settings(data),
        registries={host: _registry(settings) for host, settings in data["registries"].items()},
        written=json.dumps(plain(node)),
    )


def _image(image: Data, line: int) -> ImageRequest:
    return ImageRequest(
        ref=parse_reference(image["ref"]),
        source=image.get("from", f"docker://{image['ref']}"),
        digest=image.get("digest"),
        config_digest=image.get("config-digest"),
        license=licence_expression(image["license"]) if "license" in image else None,
        allow_foreign_elf=tuple(image["allow-foreign-elf"]),
        allow_lost_xattrs=tuple(image["allow-lost-xattrs"]),
        line=line,
    )


def _level(settings: Data, levels: dict[str, Levels]) -> int | None:
    """The level that was written, or the compression's default."""
    default = levels[settings["compression"]]
    return _whole(settings.get("level", default[0] if default else None))


def _registry(settings: Data) -> RegistrySettings:
    cert_dir, authfile = (None if (text := settings.get(key)) is None else Path(text) for key in ("cert-dir", "authfile"))
    return RegistrySettings(settings.get("tls-verify"), cert_dir, authfile, tuple(settings["mirrors"]))


def _whole(value: int | float | None) -> int | None:
    return None if value is None else int(value)


def _size(value: int | float | str) -> int:
    return parse_size(int(value) if isinstance(value, float) else value)


def to_data(manifest: Manifest) -> Data:
    """``manifest`` as data in the manifest's own keys, every default written out; reading it again gives an equal one."""
    squashfs, verity, limits = manifest.squashfs, manifest.verity, manifest.limits
    data: Data = {
        "version": manifest.version,
        "name": manifest.name,
        "platform": str(manifest.platform) if manifest.platform else None,
        "epoch": manifest.epoch,
        "security-version": manifest.security_version,
        "images": [_image_data(image) for image in manifest.images],
        "mode": manifest.mode,
        "engine": manifest.engine,
        "driver": manifest.driver,
        "outputs": list(manifest.outputs),
        "store-path": manifest.store_path,
        "squashfs": {
            "tool": squashfs.tool,
            "allow-tool": list(squashfs.allow_tool),
            "compression": squashfs.compression,
            "level": squashfs.level,
            "block-size": format_size(squashfs.block_size_bytes),
            "whiteouts": squashfs.whiteouts,
        },
        "erofs": {
            "compression": manifest.erofs.compression,
            "level": manifest.erofs.level,
            "cluster-size": format_size(manifest.erofs.cluster_size_bytes),
        },
        "verity": {
            "hash": verity.hash,
            "fec-roots": verity.fec_roots,
            "check": verity.check,
            "on-corruption": verity.on_corruption,
            "seal": verity.seal,
        },
        "archive": {"compression": manifest.archive.compression, "level": manifest.archive.level},
        "budget": {"store-image": manifest.budget_store_image_bytes and format_size(manifest.budget_store_image_bytes)},
        "limits": {
            "layer-bytes": format_size(limits.layer_bytes),
            "entries": limits.entries,
            "metadata-bytes": format_size(limits.metadata_bytes),
        },
    }
    data |= device_data(manifest.device)
    data["registries"] = {host: _registry_data(settings) for host, settings in manifest.registries.items()}
    cleaned: Data = _without_absent(data)
    return cleaned


def _registry_data(settings: RegistrySettings) -> Data:
    return {
        "tls-verify": settings.tls_verify,
        "cert-dir": settings.cert_dir and str(settings.cert_dir),
        "authfile": settings.authfile and str(settings.authfile),
        "mirrors": list(settings.mirrors),
    }


def _image_data(image: ImageRequest) -> Data:
    return {
        "ref": str(image.ref) if image.ref else None,
        "from": image.source,
        "digest": image.digest,
        "config-digest": image.config_digest,
        "license": image.license,
        "allow-foreign-elf": list(image.allow_foreign_elf),
        "allow-lost-xattrs": list(image.allow_lost_xattrs),
    }


def _without_absent(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_absent(one) for key, one in value.items() if one is not None}
    return [_without_absent(one) for one in value] if isinstance(value, list) else value
