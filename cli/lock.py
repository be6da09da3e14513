"""``shiplap lock``: every reference of the manifest resolved to digests, once."""

from __future__ import annotations

import argparse
import errno
import os
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from shiplap.cli.access import access_of, add_access_options
from shiplap.cli.arguments import UsageError
from shiplap.cli.console import Console
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.cli.quantities import count_text
from shiplap.core.errors import Refused
from shiplap.core.lock import Lock
from shiplap.core.lock.difference import LockDifference, lock_difference
from shiplap.core.lock.document import load_lock, lock_path, write_lock
from shiplap.core.lock.signature import KeyCheck, load_key
from shiplap.core.lock.signaturepolicy import PolicyCheck
from shiplap.core.lock.updating import SignatureCheck, Wishes, next_lock
from shiplap.core.manifest import DEFAULT_NAME, Overrides, load_manifest, resolve
from shiplap.core.sources import Access

NAME = "lock"
SUMMARY = "resolve every reference of the manifest to digests, and write them beside it"
EXAMPLES = """\
shiplap lock                       pin what is new in shiplap.yaml, keep what is pinned, drop what is gone
shiplap lock --update redis:7      see what redis:7 means today; without names: all images
shiplap lock --check               exit 1 when the lock is not up to date, for CI
shiplap lock --key cosign.pub      pin only what is signed with this key
shiplap lock --key cosign.pub --allow-unsigned app:1   the same, but for an image of an archive
shiplap lock --policy policy.json  pin only what a signature policy (containers-policy.json) accepts
"""


class LockUnwritable(Refused):
    """The lock cannot be written where it should be."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", metavar="FILE", default=DEFAULT_NAME, help="the manifest (default %(default)s)")
    parser.add_argument("--lock", metavar="LOCK", help="the lock (default: beside the manifest, shiplap.lock.yaml)")
    parser.add_argument("--update", nargs="*", metavar="NAME", help="resolve these images anew, or all of them")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the lock would change")
    parser.add_argument("--manifest-bytes", action="store_true", help="keep the manifests themselves too, not only their digests")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="the device's platform, where a source has several")
    signatures = parser.add_mutually_exclusive_group()
    signatures.add_argument("--policy", metavar="FILE", help="refuse what this containers-policy.json(5) does not accept; asks skopeo")
    signatures.add_argument("--key", metavar="PUB", help="refuse images that are not signed with this key (cosign's signatures); PEM")
    parser.add_argument(
        "--allow-unsigned",
        action="append",
        default=[],
        metavar="NAME",
        help="with --key or --policy: pin this image of an archive, layout or engine, which can have no signature; repeatable",
    )
    parser.add_argument("--signed-name", action="store_true", help="with --key: what is signed must also be the name that is fetched")
    parser.add_argument("--registries.d", dest="lookaside", metavar="DIR", help="with --policy: where signatures lie, as for skopeo")
    add_limit_option(parser)
    add_access_options(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    manifest_path = Path(arguments.file)
    manifest = resolve(load_manifest(manifest_path), Overrides(platform=arguments.platform))
    manifest = replace(manifest, limits=limits_of(arguments, manifest.limits))
    path = Path(arguments.lock) if arguments.lock else lock_path(manifest_path)
    access = access_of(arguments, console, manifest.registries, manifest_path.parent)
    old = load_lock(path) if path.exists() else None
    wishes = Wishes(_update(arguments.update), arguments.manifest_bytes, _signature_check(arguments, access), arguments.allow_unsigned)
    new = next_lock(manifest, old, manifest_path.parent, access, wishes)
    difference = lock_difference(old, new)
    changed = old is None or bool(difference)
    if changed and not arguments.check:
        _write(path, write_lock(new))
    console.result(_result(path, new, difference, changed, arguments.check), _text(path, new, difference, changed, arguments.check))
    return 1 if changed and arguments.check else 0


def _update(names: list[str] | None) -> Collection[str] | None:
    return () if names is None else names or None


def _signature_check(arguments: argparse.Namespace, access: Access) -> SignatureCheck | None:
    if arguments.allow_unsigned and arguments.policy is None and arguments.key is None:
        raise UsageError("--allow-unsigned says something only with --key or --policy")
    if arguments.policy is not None:
        return PolicyCheck(Path(arguments.policy), access, Path(arguments.lookaside) if arguments.lookaside else None)
    return None if arguments.key is None else KeyCheck(load_key(Path(arguments.key)), access, arguments.signed_name)


def _write(path: Path, data: bytes) -> None:
    """Replace the lock in one step; a link stays a link."""
    target = path.resolve()
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        # Its own message would name the temporary file.
        raise LockUnwritable(f"cannot write the lock {path}: {error.strerror}", hint="--lock FILE writes it elsewhere") from error
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _result(path: Path, lock: Lock, difference: LockDifference, changed: bool, check: bool) -> dict[str, object]:
    return {
        "lock": str(path),
        "changed": changed,
        "written": changed and not check,
        "epoch": lock.epoch,
        "images": [str(image.ref) for image in lock.images],
        "difference": difference.data(),
    }


def _text(path: Path, lock: Lock, difference: LockDifference, changed: bool, check: bool) -> str:
    count = count_text(len(lock.images), "image")
    if not changed:
        return f"{path} is up to date: {count}, epoch {lock.epoch}"
    end = f"{path} is not up to date" if check else f"{path} written: {count}, epoch {lock.epoch}"
    return "\n".join(filter(None, (difference.text(), end)))
