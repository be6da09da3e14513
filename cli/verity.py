"""``shiplap verity``: the hash tree of any file, in veritysetup's words."""

from __future__ import annotations

import argparse
import os
import shlex
import uuid as uuids
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shiplap.cli.console import Console
from shiplap.core.errors import Refused
from shiplap.verity.area import fresh_file, write_at
from shiplap.verity.data import opened, padded
from shiplap.verity.fec import check_fec, write_fec
from shiplap.verity.format import VerityParameters, format_file, planned_tree
from shiplap.verity.identity import file_salt, uuid_for_salt
from shiplap.verity.kernel import create_argument, dm_table, open_command
from shiplap.verity.parameters import DIGEST_BYTES
from shiplap.verity.superblock import Superblock
from shiplap.verity.tree import Tree, lay_out
from shiplap.verity.verify import BAD_BLOCKS_MAX, BadBlock, covering_tree, read_superblock, verify_file

NAME = "verity"
SUMMARY = "make, check or show the dm-verity hash tree of a file; without root or device-mapper"
EXAMPLES = """
  shiplap verity format rootfs.squashfs rootfs.verity --root-hash-file rootfs.roothash
  shiplap verity verify rootfs.squashfs rootfs.verity --root-hash-file rootfs.roothash
  shiplap verity format --pad rootfs.squashfs rootfs.squashfs --hash-offset 52428800     the tree behind the data
  shiplap verity dump rootfs.verity
"""

_SHOWN_BAD_BLOCKS = 10
_ROOT_HASH_FILE_MAX_BYTES = 4096
_NIL_UUID = str(uuids.UUID(int=0))
# Parameters of VerityParameters that have an option, with the option's destination.
_GIVEN = {
    "hash_name": "hash",
    "data_block_bytes": "data_block_size",
    "hash_block_bytes": "hash_block_size",
    "hash_type": "format",
    "salt": "salt",
    "uuid": "uuid",
}


class UnfitArguments(Refused):
    """Arguments that do not go together."""


class _RootHashFile(argparse.Action):
    """The option that stands for the positional ROOT_HASH."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, values)
        for action in parser._actions:
            if action.dest == "root_hash":
                action.required = False


def configure(parser: argparse.ArgumentParser) -> None:
    """``format``, ``verify`` and ``dump``, each with veritysetup's options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")

    make = actions.add_parser("format", description="Write the hash tree of DATA into HASH and print the root hash.", help="make a tree")
    _add_files(make)
    _add_parameters(make)
    make.add_argument("--pad", action="store_true", help="first extend DATA with zeros to whole data blocks")
    make.add_argument("--root-hash-file", type=Path, metavar="FILE", help="also write the root hash there, with a newline")
    make.add_argument("--fec-device", type=Path, metavar="FILE", help="also write error correction data there (by veritysetup)")
    make.add_argument("--fec-roots", type=int, metavar="N", help="its parity bytes, 2 to 24 (default: 2)")

    check = actions.add_parser(
        "verify",
        description="Check DATA and its hash tree against the root hash: exit code 0 when it holds, 1 when not, naming the bad blocks.",
        help="check data against a tree",
    )
    _add_files(check)
    # Not nargs="?": before Python 3.13 that would no longer take a root hash that follows an option.
    check.add_argument("root_hash", metavar="ROOT_HASH", help="hex digits; not with --root-hash-file")
    check.add_argument("--root-hash-file", type=Path, metavar="FILE", action=_RootHashFile, help="read the root hash there instead")
    _add_parameters(check)

    show = actions.add_parser("dump", description="Print the superblock of HASH.", help="show a superblock")
    show.add_argument("hash_file", type=Path, metavar="HASH", help="file with the hash tree")
    show.add_argument("--hash-offset", type=_count, default=0, metavar="BYTES", help="where its hash area starts")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Do one action."""
    action = {"format": _format, "verify": _verify, "dump": _dump}[arguments.action]
    return action(arguments, console)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="file to protect")
    parser.add_argument("hash_file", type=Path, metavar="HASH", help="file with the hash tree; may be DATA, with --hash-offset")


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--salt", type=_salt, metavar="HEX", help="salt, - for none (default: from the content)")
    parser.add_argument("--uuid", type=_uuid, help="UUID in the superblock (default: from the salt)")
    parser.add_argument("--hash", choices=tuple(DIGEST_BYTES), help="hash (default: sha256)")
    parser.add_argument("--data-block-size", type=_count, metavar="BYTES", help="512 to 524288 (default: 4096)")
    parser.add_argument("--hash-block-size", type=_count, metavar="BYTES", help="512 to 524288 (default: 4096)")
    parser.add_argument("--data-blocks", type=_count, metavar="N", help="cover the first N data blocks only (default: all)")
    parser.add_argument("--hash-offset", type=_count, default=0, metavar="BYTES", help="where in HASH the hash area starts (default: 0)")
    parser.add_argument("--no-superblock", action="store_true", help="the tree alone; its parameters are kept elsewhere")
    parser.add_argument("--format", type=int, choices=(0, 1), help="hash type: 1, or 0 for the original Chrome OS (default: 1)")
    parser.add_argument("--jobs", type=_positive, metavar="N", help="processes to hash with (default: one for each core)")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _positive(text: str) -> int:
    if (value := _count(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1 is needed")
    return value


def _salt(text: str) -> bytes:
    try:
        return b"" if text == "-" else bytes.fromhex(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither hex digits nor -") from None


def _uuid(text: str) -> str:
    try:
        return str(uuids.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a UUID") from None


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The parameters that the command line names."""
    named = {parameter: getattr(arguments, option) for parameter, option in _GIVEN.items()}
    return {parameter: value for parameter, value in named.items() if value is not None}


# --- format -----------------------------------------------------------------------------------------------------


def _format(arguments: argparse.Namespace, console: Console) -> int:
    data, hash_file = arguments.data, arguments.hash_file
    _check_outputs(arguments)
    # Everything that does not depend on the content is checked before a byte changes.
    block_bytes = _parameters(arguments, salt=b"").data_block_bytes
    if arguments.pad and arguments.data_blocks is not None:
        raise UnfitArguments("--pad and --data-blocks exclude each other")
    with padded(data, block_bytes) if arguments.pad else nullcontext(0) as added_bytes:
        parameters = _parameters(arguments, salt=file_salt(data))
        tree = planned_tree(data, parameters, hash_offset_bytes=arguments.hash_offset, data_blocks=arguments.data_blocks)
        if arguments.fec_device is not None:
            check_fec(tree, arguments.fec_roots)
        with console.progress.task(f"hashing {data.name}", tree.data_bytes) as task:
            root_hash = format_file(
                data,
                hash_file,
                parameters,
                hash_offset_bytes=arguments.hash_offset,
                data_blocks=arguments.data_blocks,
                jobs=arguments.jobs,
                advance=task.advance,
            )
    if arguments.fec_device is not None:
        with console.progress.task(f"error correction for {data.name}"):
            write_fec(data, arguments.fec_device, tree, root_hash, arguments.fec_roots)
    if arguments.root_hash_file is not None:
        with fresh_file(arguments.root_hash_file) as descriptor:
            write_at(descriptor, f"{root_hash}\n".encode(), 0, arguments.root_hash_file)
    if added_bytes:
        console.note(f"{data} was extended with {added_bytes} zero bytes")
    console.result(*_format_result(tree, root_hash, data, hash_file, added_bytes))
    return 0


def _parameters(arguments: argparse.Namespace, *, salt: bytes) -> VerityParameters:
    """The parameters to format with; ``salt`` is the one from the content."""
    given = {"salt": salt} | _given(arguments)
    given.setdefault("uuid", uuid_for_salt(given["salt"]))
    return VerityParameters(superblock=not arguments.no_superblock, **given)


def _check_outputs(arguments: argparse.Namespace) -> None:
    """No output may replace an input or another output; only the tree may go behind the data."""
    if (arguments.fec_device is None) != (arguments.fec_roots is None):
        if arguments.fec_device is None:
            raise UnfitArguments("--fec-roots needs --fec-device, the file for the error correction data")
        arguments.fec_roots = 2
    outputs = {"HASH": arguments.hash_file, "--root-hash-file": arguments.root_hash_file, "--fec-device": arguments.fec_device}
    seen = {os.path.realpath(arguments.data): "DATA"}
    for name, path in outputs.items():
        if path is None:
            continue
        other = seen.setdefault(os.path.realpath(path), name)
        if other != name and (other, name) != ("DATA", "HASH"):
            raise UnfitArguments(f"{other} and {name} are both {path}")


def _format_result(tree: Tree, root_hash: str, data: Path, hash_file: Path, added_bytes: int) -> tuple[dict[str, object], str]:
    devices = {
        "data_device": "DATA_DEVICE",
        "hash_device": "DATA_DEVICE" if hash_file.exists() and data.samefile(hash_file) else "HASH_DEVICE",
    }
    command = shlex.join(open_command(tree, root_hash, name="NAME", **devices))
    boot = create_argument(tree, root_hash, name="NAME", **devices)
    result = _fields(tree) | {
        "root_hash": root_hash,
        "padded_bytes": added_bytes,
        "table": dm_table(tree, root_hash, **devices),
        "open": command,
        "boot": boot,
    }
    text = f"{_table(tree)}\nRoot hash:        {root_hash}\nOpen:             {command}\nKernel:           {boot}"
    return result, text


# --- verify -----------------------------------------------------------------------------------------------------


def _verify(arguments: argparse.Namespace, console: Console) -> int:
    root_hash = _root_hash(arguments)
    data, hash_file = arguments.data, arguments.hash_file
    where: dict[str, Any] = {
        "parameters": _expected(arguments),
        "hash_offset_bytes": arguments.hash_offset,
        "data_blocks": arguments.data_blocks,
    }
    tree = covering_tree(data, hash_file, **where)
    with console.progress.task(f"verifying {data.name}", tree.data_bytes) as task:
        bad = verify_file(data, hash_file, root_hash, **where, jobs=arguments.jobs, advance=task.advance)
    result = {
        "holds": not bad,
        "root_hash": root_hash,
        "data_blocks": tree.data_blocks,
        "bad_blocks": [asdict(block) for block in bad],
        "more": len(bad) == BAD_BLOCKS_MAX,
    }
    console.result(result, _verdict(data, hash_file, tree, bad))
    return 1 if bad else 0


def _expected(arguments: argparse.Namespace) -> VerityParameters | None:
    """The parameters to verify with: without a superblock what is given, else what the superblock must agree with."""
    given = _given(arguments)
    if arguments.no_superblock:
        if "salt" not in given:
            raise UnfitArguments("without a superblock the salt is not known", hint="--salt HEX, or --salt - for none")
        return VerityParameters(superblock=False, **({"uuid": _NIL_UUID} | given))
    return replace(read_superblock(arguments.hash_file, arguments.hash_offset).parameters, **given) if given else None


def _root_hash(arguments: argparse.Namespace) -> str:
    if arguments.root_hash_file is None:
        return str(arguments.root_hash).lower()
    if arguments.root_hash is not None:
        raise UnfitArguments("exactly one root hash is needed", hint="as the last argument, or with --root-hash-file FILE")
    with opened(arguments.root_hash_file) as file:
        text = os.pread(file.descriptor, _ROOT_HASH_FILE_MAX_BYTES, 0)
    return text.decode("ascii", "replace").strip().lower()


def _verdict(data: Path, hash_file: Path, tree: Tree, bad: Sequence[BadBlock]) -> str:
    if not bad:
        return f"{data} holds: {tree.data_blocks} data blocks are what the root hash says"
    lines = [f"{data} does not hold:", *(f"  {_sentence(block, data, hash_file)}" for block in bad[:_SHOWN_BAD_BLOCKS])]
    if len(bad) > _SHOWN_BAD_BLOCKS:
        more = len(bad) - _SHOWN_BAD_BLOCKS
        lines.append(f"  and {'at least ' if len(bad) == BAD_BLOCKS_MAX else ''}{more} more")
    return "\n".join(lines)


def _sentence(block: BadBlock, data: Path, hash_file: Path) -> str:
    if block.kind == "root":
        return f"{hash_file}: the tree (or its salt) belongs to another root hash"
    file, what = (data, "data block") if block.kind == "data" else (hash_file, f"hash block of level {block.level}, number")
    how = "and all that follow are missing" if block.missing else "differs"
    return f"{file}: {what} {block.index} (at byte {block.offset_bytes}) {how}"


# --- dump -------------------------------------------------------------------------------------------------------


def _dump(arguments: argparse.Namespace, console: Console) -> int:
    superblock: Superblock = read_superblock(arguments.hash_file, arguments.hash_offset)
    tree = lay_out(superblock.parameters, superblock.data_blocks, arguments.hash_offset)
    console.result(_fields(tree), _table(tree))
    return 0


def _fields(tree: Tree) -> dict[str, object]:
    parameters = tree.parameters
    return {
        "uuid": parameters.uuid if parameters.superblock else None,
        "hash_type": parameters.hash_type,
        "hash": parameters.hash_name,
        "salt": parameters.salt.hex(),
        "data_blocks": tree.data_blocks,
        "data_block_size": parameters.data_block_bytes,
        "hash_blocks": tree.hash_blocks,
        "hash_block_size": parameters.hash_block_bytes,
        "levels": len(tree.levels),
        "superblock": parameters.superblock,
        "hash_offset": tree.area_offset_bytes,
        "tree_offset": tree.tree_offset_bytes,
        "hash_end": tree.end_bytes,
    }


def _table(tree: Tree) -> str:
    parameters = tree.parameters
    rows = {
        "UUID": parameters.uuid if parameters.superblock else "-",
        "Hash type": parameters.hash_type,
        "Data blocks": tree.data_blocks,
        "Data block size": parameters.data_block_bytes,
        "Hash blocks": tree.hash_blocks,
        "Hash block size": parameters.hash_block_bytes,
        "Hash algorithm": parameters.hash_name,
        "Salt": parameters.salt.hex() or "-",
    }
    return "\n".join(f"{name + ':':<17} {value}" for name, value in rows.items())
