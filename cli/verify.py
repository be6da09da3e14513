"""``shiplap verify``: the whole chain of a build, 0 when it holds, 1 with the first broken link."""

from __future__ import annotations

import argparse
from pathlib import Path

from shiplap.audit.verify import Verification, verify_thing
from shiplap.cli.console import Console
from shiplap.core.errors import Refused
from shiplap.core.limits import Limits

NAME = "verify"
SUMMARY = "prove that an output folder, store image or archive holds exactly what it says"
EXAMPLES = """\
shiplap verify shiplap-out                                  every artifact of a build, against each other
shiplap verify store.squashfs --root-hash 0e351a27222b…     a store image from a device, against a root hash you trust
shiplap verify shiplap-out --json                           the links that held, as JSON
"""


class LockNotImplemented(Refused):
    """Verification against a lock is not in this release."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("thing", metavar="THING", help="an output folder, store.squashfs, store.tar or images.tar")
    parser.add_argument("--root-hash", metavar="HEX", help="the root hash to trust; without it the one in the folder")
    parser.add_argument("--lock", metavar="LOCK", help="hold the images against a lock file (not in this release)")


def run(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.lock is not None:
        raise LockNotImplemented(
            "--lock: lock files are not in this release", hint="compare the config digests of `shiplap inspect --json`"
        )
    verification = Verification(Limits(), console.progress)
    verify_thing(Path(arguments.thing), arguments.root_hash, verification)
    links = [{"link": link, "detail": detail} for link, detail in verification.links]
    text = "\n".join(f"{link}: {detail}" for link, detail in verification.links)
    console.result({"thing": arguments.thing, "holds": True, "links": links}, f"{text}\n{arguments.thing} holds")
    return 0
