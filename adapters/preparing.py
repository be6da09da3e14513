"""From a manifest and its lock to an :class:`AdapterConfig`, with everything checked that no build system could check any more."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

from shiplap.adapters.bundle import Advance, BundleRefused, describe_bundle, read_build
from shiplap.adapters.config import AdapterConfig, AdapterImage, Prebuilt
from shiplap.adapters.sourcearchive import host_tool
from shiplap.core.errors import Refused
from shiplap.core.jsontext import parse_object
from shiplap.core.lock.document import write_lock
from shiplap.core.lock.model import Lock
from shiplap.core.manifest import Manifest
from shiplap.core.manifest.writing import resolved_text
from shiplap.core.platform import Platform, parse_platform

HEADER = "# Written by `shiplap generate`: the manifest with every default. Change your own one and generate again.\n"
DEFAULT_MAINTAINER = "The maintainers of this product <maintainers@example.com>"
# It stands in recipes and Makefiles, in quotes and without: no character that means something in one of them.
_MAINTAINER = re.compile(r"[^<>\"'`$#\\]+ <[^<>@\s\"'`$#\\]+@[^<>@\s\"'`$#\\]+>")
# What Yocto (PV), Buildroot and both package managers of OpenWrt take alike.
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,7}")
# No comma (make) and no star (BitBake's local files). It ends in a file's name, perhaps with a query.
_URL_CHARACTERS = r"[A-Za-z0-9._~:@&+=%\[\]-]"
_URL = re.compile(rf"(https?://{_URL_CHARACTERS}+|file://)(/+{_URL_CHARACTERS}+)+(\?{_URL_CHARACTERS}*)?")
_STORE_JSON_MAX_BYTES = 16 << 20


class GenerateRefused(Refused):
    """A manifest or an option that no build system's files can be made of."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Options of ``shiplap generate``. ``version`` None: the date of the lock's epoch. ``prebuilt``: an output folder."""

    version: str | None = None
    maintainer: str = DEFAULT_MAINTAINER
    prebuilt: Path | None = None
    prebuilt_url: str | None = None
    tool_url: str | None = None


def prepare(manifest: Manifest, lock: Lock, wishes: Wishes, advance: Advance = lambda amount_bytes: None) -> AdapterConfig:
    """Everything together. Raises GenerateRefused, BundleRefused."""
    version = wishes.version or time.strftime("%Y%m%d", time.gmtime(lock.epoch))
    if not _VERSION.fullmatch(version):
        raise GenerateRefused(
            f"--package-version {version!r:.80}: write numbers and dots, which every package manager can compare", hint="for example 1.4.0"
        )
    if not (_MAINTAINER.fullmatch(wishes.maintainer) and wishes.maintainer.isprintable()):
        raise GenerateRefused(f"--maintainer {wishes.maintainer!r:.80}: write `Name <address>`, without quotes, $, # and backslashes")
    for option, url in (("--prebuilt-url", wishes.prebuilt_url), ("--tool-url", wishes.tool_url)):
        if url is not None and not _URL.fullmatch(url):
            raise GenerateRefused(
                f"{option} {url!r:.200}: not an https, http or file URL of a file, or with characters that recipes cannot hold"
            )
    if manifest.mode == "store" and not {"squashfs", "erofs"} & set(manifest.outputs):
        raise GenerateRefused("the device gets a store image, and `outputs` has none", hint="add `squashfs` to `outputs`")
    images = _images(manifest, lock)
    config = AdapterConfig(
        name=manifest.name,
        version=version,
        platform=_platform(manifest, lock),
        manifest=manifest,
        manifest_text=HEADER + resolved_text(manifest),
        lock=lock,
        lock_text=write_lock(lock).decode(),
        images=images,
        maintainer=wishes.maintainer,
        host_tool=host_tool(wishes.tool_url),
    )
    if wishes.prebuilt is not None:
        return replace(config, prebuilt=_prebuilt(wishes.prebuilt, wishes.prebuilt_url, config, advance))
    if wishes.prebuilt_url is not None:
        raise GenerateRefused("--prebuilt-url without --prebuilt", hint="name the output folder of `shiplap build`, too")
    return config


def _prebuilt(out: Path, url: str | None, config: AdapterConfig, advance: Advance) -> Prebuilt:
    files = read_build(out, advance)
    missing = sorted({config.artifact, "store.json", "target.tar"} - {file.name for file in files})
    if missing:
        raise BundleRefused(f"{out} has no {', '.join(missing)}, which the manifest asks for", hint="build again")
    _check_build(out, config.manifest, config.lock)
    return describe_bundle(out, files, f"{config.name}-{config.version}", config.epoch, url)


def _images(manifest: Manifest, lock: Lock) -> tuple[AdapterImage, ...]:
    images, unlicensed = [], []
    for wanted in manifest.images:
        locked = lock.find(wanted.ref) if wanted.ref is not None else None
        if wanted.ref is None or locked is None:
            raise GenerateRefused(f"the lock has no image {wanted.ref or wanted.source}", hint="run `shiplap lock`")
        if wanted.license is None:
            unlicensed.append(str(wanted.ref))
            continue
        images.append(AdapterImage(wanted.ref, locked.source, locked, wanted.license))
    if unlicensed:
        raise GenerateRefused(
            f"no license is stated for {', '.join(unlicensed)}",
            hint="write `license:` (an SPDX expression, or LicenseRef-NAME) for each: build systems ask for it, and it is never guessed",
        )
    return tuple(images)


def _platform(manifest: Manifest, lock: Lock) -> Platform:
    return manifest.platform or lock.images[0].platform


def _check_build(out: Path, manifest: Manifest, lock: Lock) -> None:
    """The build is one of this manifest and lock: other images in a firmware would go unnoticed."""
    try:
        with (out / "store.json").open("rb") as file:
            raw = file.read(_STORE_JSON_MAX_BYTES + 1)
        identity = parse_object(raw, what=f"{out}/store.json", limit_bytes=_STORE_JSON_MAX_BYTES)
        # Digests of a reference, and an image without a tag, have no name of their own here.
        names = {(image["config"], one) for image in identity["images"] for one in ("", *image["references"]) if "@" not in one}
        stated = {key: identity[key] for key in ("mode", "engine", "driver", "store-path", "epoch")}
        stated |= {"platform": str(parse_platform(identity["platform"]).normalised), "security-version": identity.get("security-version")}
    except (OSError, Refused, LookupError, TypeError, AttributeError) as error:
        raise BundleRefused(f"{out} has no readable store.json", hint="build again") from error
    locked = {
        (image.config, one) for image in lock.images for one in ("", *([str(replace(image.ref, digest=None))] if image.ref.tag else []))
    }
    if names != locked:
        raise BundleRefused(f"{out} was built of other images than the lock pins", hint="`shiplap build --locked`, then generate again")
    wanted = {
        "mode": manifest.mode,
        "engine": manifest.engine,
        "driver": manifest.driver,
        "platform": str(_platform(manifest, lock).normalised),
        "store-path": manifest.store_path,
        "epoch": lock.epoch,
        "security-version": manifest.security_version,
    }
    for name, mine in wanted.items():
        if (theirs := stated[name]) != mine:
            raise BundleRefused(
                f"{out} was built with {name} {theirs!r:.80}, the manifest and its lock say {mine!r:.80}", hint="build again"
            )
