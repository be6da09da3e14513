"""``shiplap fetch``: the cache gets every blob of the lock; afterwards ``build --offline`` works."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from shiplap.cli.access import access_of, add_access_options
from shiplap.cli.console import Console
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.cli.quantities import count_text
from shiplap.core.cache import Cache
from shiplap.core.cache.export import Exported, export
from shiplap.core.collect import source_spec
from shiplap.core.errors import Refused
from shiplap.core.fetch import Fetched, cached_of, fetch_lock
from shiplap.core.lock import Lock, LockedImage
from shiplap.core.lock.document import load_lock, lock_path
from shiplap.core.manifest import DEFAULT_NAME, ImageRequest, Manifest, load_manifest
from shiplap.core.platform import parse_platform
from shiplap.core.reference import Reference
from shiplap.core.sources import SourceSpec

NAME = "fetch"
SUMMARY = "fill the cache with every blob of the lock, for builds without network"
EXAMPLES = """\
shiplap fetch && shiplap build --locked --offline    the network in one step, the build in another
shiplap fetch --export downloads                     the blobs also as files sha256-…, a download mirror
shiplap fetch --mirror https://mirror.example/dl     ask a mirror first; it need not be trusted
shiplap fetch --lock shiplap.lock.yaml --cache DIR   the lock is enough, no manifest is needed
"""


class NothingToFetch(Refused):
    """The lock pins nothing for the platform that was asked for."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", metavar="FILE", help=f"the manifest (default {DEFAULT_NAME}, when there is one)")
    parser.add_argument("--lock", metavar="LOCK", help="the lock (default: beside the manifest, shiplap.lock.yaml)")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="only what the lock pins for this platform")
    parser.add_argument("--mirror-only", action="store_true", help="ask nobody but the mirrors: no registry and no engine")
    parser.add_argument("--export", metavar="DIR", help="write the blobs into DIR as well, as files sha256-…")
    add_limit_option(parser)
    add_access_options(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    path = Path(arguments.lock) if arguments.lock else lock_path(Path(arguments.file or DEFAULT_NAME))
    lock = _of_platform(load_lock(path), arguments.platform, path)
    manifest_path = _manifest_path(arguments)
    manifest = load_manifest(manifest_path) if manifest_path else None
    folder = manifest_path.parent if manifest_path else path.parent
    access = access_of(arguments, console, manifest.registries if manifest else {}, folder)
    cache = access.cache
    assert cache is not None, "access_of gives one"
    requests = _requests(manifest)

    def source_of(image: LockedImage) -> SourceSpec:
        request = requests.get(image.ref) or ImageRequest(image.ref, image.source, line=1)
        return source_spec(replace(request, digest=None), folder)

    limits = limits_of(arguments, manifest.limits if manifest else None)
    fetched = fetch_lock(lock, source_of, limits=limits, access=access, mirrors_only=arguments.mirror_only)
    exported = None
    if arguments.export is not None:
        digests = [digest for image in lock.images for digest in cached_of(image, cache)]
        exported = export(cache, digests, Path(arguments.export), progress=console.progress)
    console.result(_result(fetched, cache, exported), _text(fetched, cache, exported, arguments.export))
    return 0


def _manifest_path(arguments: argparse.Namespace) -> Path | None:
    """The lock is enough: without -f a manifest is used when it lies beside the lock that is used."""
    if arguments.file is not None:
        return Path(arguments.file)
    default = Path(DEFAULT_NAME)
    return default if arguments.lock is None and default.exists() else None


def _requests(manifest: Manifest | None) -> Mapping[Reference, ImageRequest]:
    return {request.ref: request for request in manifest.images if request.ref is not None} if manifest else {}


def _of_platform(lock: Lock, text: str | None, path: Path) -> Lock:
    if text is None:
        return lock
    platform = parse_platform(text)
    images = tuple(image for image in lock.images if image.platform.matches(platform))
    if not images:
        have = ", ".join(sorted({str(image.platform) for image in lock.images}))
        raise NothingToFetch(f"{path} pins nothing for {platform}; it pins {have}", hint="`shiplap lock --platform` locks for another")
    return replace(lock, images=images)


def _result(fetched: tuple[Fetched, ...], cache: Cache, exported: Exported | None) -> dict[str, object]:
    result: dict[str, object] = {
        "cache": str(cache.root),
        "images": [
            {"ref": str(one.image.ref), "from": one.came_from, "new": list(one.new), "blobs": list(cached_of(one.image, cache))}
            for one in fetched
        ],
    }
    if exported is not None:
        result["exported"] = {"new": list(exported.new), "present": list(exported.present)}
    return result


def _text(fetched: tuple[Fetched, ...], cache: Cache, exported: Exported | None, folder: str | None) -> str:
    lines = []
    for one in fetched:
        what = "nothing to fetch" if one.came_from == "cache" else f"{count_text(len(one.new), 'new blob')} from its {one.came_from}"
        lines.append(f"{one.image.ref.familiar}  {what}")
    lines.append(f"{cache.root} has everything that the lock pins")
    if exported is not None:
        lines.append(f"{folder}: {count_text(len(exported.new), 'file')} new, {len(exported.present)} there already")
    return "\n".join(lines)
