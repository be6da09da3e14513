"""``shiplap cache``: what is in the cache, whether it is whole, what may go, and a flat copy of it for other build systems."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

from shiplap.cli.access import cache_of
from shiplap.cli.console import Console
from shiplap.cli.quantities import count_text, size_text
from shiplap.core.cache import Cache
from shiplap.core.cache.collection import Policy, collect
from shiplap.core.cache.export import ExportRefused, export
from shiplap.core.cache.mirror import flat_name
from shiplap.core.cache.verification import verify_all
from shiplap.core.fetch import cached_of
from shiplap.core.lock import DEFAULT_LOCK_NAME, LockedImage
from shiplap.core.lock.document import load_lock
from shiplap.core.lock.opening import cached_digests, missing_blobs
from shiplap.core.manifest.sizes import SizeInvalid, parse_size

NAME = "cache"
SUMMARY = "list, verify and tidy the cache, or export it flat as a download mirror"
EXAMPLES = """
  shiplap cache list
  shiplap cache verify --repair                         read everything again, remove what rotted
  shiplap cache gc --keep */shiplap.lock.yaml           remove what no lock of these names
  shiplap cache gc --max-age 30 --max-size 20G          remove what was used longest ago
  shiplap cache export "$DL_DIR" --lock a.lock.yaml     what these locks need, as files sha256-…
"""
_DAY_SECONDS = 24 * 3600


def configure(parser: argparse.ArgumentParser) -> None:
    """``list``, ``verify``, ``gc``, ``export`` and ``path``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")

    shown = actions.add_parser("list", description="List the blobs by digest, with their sizes.", help="list what is there")

    check = actions.add_parser(
        "verify", description="Read and hash every blob: exit code 0 when all are whole, else 1, naming the others.", help="hash every blob"
    )
    check.add_argument("--repair", action="store_true", help="remove damaged blobs, so that they are fetched again (then exit code 0)")

    tidy = actions.add_parser(
        "gc",
        description="Remove what may go; what a running build uses stays. Without options only stale partial downloads go.",
        help="garbage collection",
    )
    tidy.add_argument("--keep", metavar="LOCK", nargs="+", action="extend", help="locks whose images stay; alone: all else goes")
    tidy.add_argument("--max-age", metavar="DAYS", type=_days, help="what was not used for so many days goes")
    tidy.add_argument("--max-size", metavar="SIZE", type=_size, help="what was used longest ago goes until the rest fits: 20G, 500M")
    tidy.add_argument("--dry-run", action="store_true", help="only say what would go")

    flat = actions.add_parser(
        "export",
        description="Write blobs into DIR as files sha256-<hex>: DL_DIR, BR2_DL_DIR, OpenWrt's dl/, or a web server's folder. "
        "What is there already stays.",
        help="flat copy, which is a download mirror",
    )
    flat.add_argument("folder", type=Path, metavar="DIR", help="the folder; it is made")
    flat.add_argument(
        "--lock", metavar="LOCK", action="append", help=f"export what this lock needs; repeatable (default: {DEFAULT_LOCK_NAME})"
    )
    flat.add_argument("--all", action="store_true", help="export everything")
    flat.add_argument(
        "--link", action="store_true", help="hard links where the file system can: no space, but a file shared with the cache"
    )

    where = actions.add_parser("path", description="Print the cache's folder.", help="print where it is")
    for action in (shown, check, tidy, flat, where):
        action.add_argument("--cache", metavar="CACHE", help="the cache (default: SHIPLAP_CACHE, else ~/.cache/shiplap)")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Do one action."""
    cache = cache_of(arguments)
    action = {"list": _list, "verify": _verify, "gc": _gc, "export": _export, "path": _path}[arguments.action]
    return action(arguments, cache, console)


def _list(arguments: argparse.Namespace, cache: Cache, console: Console) -> int:
    blobs = [(digest, status.st_size, int(status.st_mtime)) for digest, status in cache.statuses()]
    partials = list(cache.partials())
    total_bytes = sum(size_bytes for _, size_bytes, _ in blobs)
    lines = [f"{digest}  {size_text(size_bytes)}" for digest, size_bytes, _ in blobs]
    lines += [f"{digest}  {size_text(size_bytes)} (partial)" for digest, size_bytes in partials]
    lines.append(f"{cache.root}: {count_text(len(blobs), 'blob')}, {size_text(total_bytes)}")
    data: dict[str, object] = {
        "folder": str(cache.root),
        "blobs": [{"digest": digest, "size_bytes": size_bytes, "used_epoch": used} for digest, size_bytes, used in blobs],
        "partials": _sized(partials),
        "size_bytes": total_bytes,
    }
    console.result(data, "\n".join(lines))
    return 0


def _verify(arguments: argparse.Namespace, cache: Cache, console: Console) -> int:
    verified = verify_all(cache, repair=arguments.repair, progress=console.progress)
    for name in verified.odd:
        console.note(f"{name} in the cache is no blob; shiplap leaves it alone")
    lines = [message for _, message in verified.damaged]
    whole = verified.blobs - len(verified.damaged)
    lines.append(f"{cache.root}: {count_text(whole, 'blob')} whole, {len(verified.damaged)} damaged")
    if verified.damaged:
        lines.append(
            "the damaged ones were removed" if arguments.repair else "--repair removes the damaged ones, so that they are fetched again"
        )
    data: dict[str, object] = {
        "folder": str(cache.root),
        "blobs": verified.blobs,
        "size_bytes": verified.size_bytes,
        "damaged": [{"digest": digest, "problem": problem} for digest, problem in verified.damaged],
        "repaired": bool(arguments.repair and verified.damaged),
        "odd": list(verified.odd),
    }
    console.result(data, "\n".join(lines))
    return 1 if verified.damaged and not arguments.repair else 0


def _gc(arguments: argparse.Namespace, cache: Cache, console: Console) -> int:
    keep = None
    if arguments.keep is not None:
        keep = frozenset(digest for path in arguments.keep for image in load_lock(Path(path)).images for digest in _named(image))
    policy = Policy(keep, arguments.max_age, arguments.max_size)
    done = collect(cache, policy, now_epoch=time.time(), dry_run=arguments.dry_run)
    verb = "would go" if arguments.dry_run else "removed"
    lines = [f"{digest}  {size_text(size_bytes)} {verb}" for digest, size_bytes in done.removed]
    lines += [f"{digest}  {size_text(size_bytes)} {verb} (partial)" for digest, size_bytes in done.partials]
    lines += [f"{digest}  stays: a running build uses it" for digest in done.in_use]
    lines.append(
        f"{cache.root}: {size_text(done.freed_bytes)} {'would be ' if arguments.dry_run else ''}freed, "
        f"{count_text(done.left_blobs, 'blob')} of {size_text(done.left_bytes)} left"
    )
    data: dict[str, object] = {
        "folder": str(cache.root),
        "dry_run": arguments.dry_run,
        "removed": _sized(done.removed),
        "partials": _sized(done.partials),
        "in_use": list(done.in_use),
        "freed_bytes": done.freed_bytes,
        "left": {"blobs": done.left_blobs, "size_bytes": done.left_bytes},
    }
    console.result(data, "\n".join(lines))
    return 0


def _export(arguments: argparse.Namespace, cache: Cache, console: Console) -> int:
    if arguments.all:
        digests = [digest for digest, _ in cache.blobs()]
    else:
        digests = []
        for path in arguments.lock or [DEFAULT_LOCK_NAME]:
            for image in load_lock(Path(path)).images:
                digests += _needed(image, cache)
    done = export(cache, digests, arguments.folder, link=arguments.link, progress=console.progress)
    data: dict[str, object] = {
        "folder": str(arguments.folder),
        "new": [flat_name(digest) for digest in done.new],
        "present": [flat_name(digest) for digest in done.present],
    }
    console.result(data, f"{arguments.folder}: {count_text(len(done.new), 'file')} new, {len(done.present)} there already")
    return 0


def _path(arguments: argparse.Namespace, cache: Cache, console: Console) -> int:
    console.result({"folder": str(cache.root)}, str(cache.root))
    return 0


def _named(image: LockedImage) -> set[str]:
    """Every digest under which the cache may hold a part of ``image``."""
    layers = (digest for layer in image.layers for digest, _ in cached_digests(layer))
    return {image.config, *image.manifest_digests, *layers}


def _needed(image: LockedImage, cache: Cache) -> tuple[str, ...]:
    """What a build from the lock needs of the cache, and the manifests where it has them. Raises ExportRefused."""
    missing = missing_blobs(image, cache)
    if missing:
        raise ExportRefused(f"the cache lacks {missing[0]} of {image.ref}", hint="`shiplap fetch` fills the cache from the lock")
    return cached_of(image, cache)


def _sized(blobs: Iterable[tuple[str, int]]) -> list[dict[str, object]]:
    return [{"digest": digest, "size_bytes": size_bytes} for digest, size_bytes in blobs]


def _days(text: str) -> int:
    """Seconds."""
    if not (text.isascii() and text.isdigit()) or len(text) > 6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days")
    return int(text) * _DAY_SECONDS


def _size(text: str) -> int:
    try:
        return 0 if text == "0" else parse_size(text)
    except SizeInvalid as error:
        raise argparse.ArgumentTypeError(f"{error.message}: {error.hint}") from None
