"""``shiplap verify``: the whole chain of a build, 0 when it holds, 1 with the first broken link."""

from __future__ import annotations

import argparse
from pathlib import Path

from shiplap.audit.verify import Verification, verify_against_lock, verify_thing
from shiplap.cli.console import Console
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.core.lock.document import load_lock

NAME = "verify"
SUMMARY = "prove that an output folder, store image or archive holds exactly what it says"
EXAMPLES = """\
shiplap verify shiplap-out                                  every artifact of a build, against each other
shiplap verify store.squashfs --root-hash 0e351a27222b…     a store image from a device, against a root hash you trust
shiplap verify shiplap-out --lock shiplap.lock.yaml         the images too are the ones that are pinned
shiplap verify shiplap-out --json                           the links that held, as JSON
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("thing", metavar="THING", help="an output folder, store.squashfs, store.erofs, store.tar or images.tar")
    parser.add_argument("--root-hash", metavar="HEX", help="the root hash to trust; without it the one in the folder")
    parser.add_argument("--lock", metavar="LOCK", help="hold the images against this lock: configs, diffIDs, references, manifests")
    add_limit_option(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    lock = None if arguments.lock is None else load_lock(Path(arguments.lock))
    verification = Verification(limits_of(arguments), console.progress)
    verify_thing(Path(arguments.thing), arguments.root_hash, verification)
    if lock is not None:
        verify_against_lock(lock, arguments.lock, verification)
    links = [{"link": link, "detail": detail} for link, detail in verification.links]
    unchecked = [{"link": link, "detail": detail} for link, detail in verification.unchecked]
    lines = [f"{link}: {detail}" for link, detail in verification.links]
    lines += [f"NOT CHECKED, {link}: {detail}" for link, detail in verification.unchecked]
    lines.append(f"{arguments.thing} holds" + (" as far as it was checked" if unchecked else ""))
    console.result({"thing": arguments.thing, "holds": True, "links": links, "unchecked": unchecked}, "\n".join(lines))
    return 0
