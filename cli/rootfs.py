"""``shiplap rootfs``: base root file system + store + target kit → a sealed root, boot snippets, a disk image."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from shiplap.cli.arguments import UsageError
from shiplap.cli.console import Console
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.cli.optionvalues import epoch, jobs
from shiplap.cli.quantities import size_text
from shiplap.core.entries import FileSlice
from shiplap.core.errors import Refused
from shiplap.core.imageform import SQUASHFS_LEVELS
from shiplap.core.manifest.sizes import parse_size
from shiplap.core.output import Stage, sha256_file, staged_output
from shiplap.core.store.identity import canonical_json, choose_epoch
from shiplap.core.version import VERSION
from shiplap.rootfs.basetar import open_base_tar
from shiplap.rootfs.bootsnippets import BootSettings
from shiplap.rootfs.firmware import ROOT_ARTIFACTS, boot_settings, write_disk_image, write_snippets
from shiplap.rootfs.gpt import Placed
from shiplap.rootfs.sinks import SquashfsOptions, check_options, describe_tool
from shiplap.rootfs.storefolder import StoreFolder, read_store_folder
from shiplap.rootfs.wholeroot import PLACEMENTS, RootPlan, RootResult, check_kit, check_placement, write_root
from shiplap.verity.discoverable import NotDiscoverable, partition_types

NAME = "rootfs"
SUMMARY = "base root file system + store + target kit → one sealed root, boot snippets, a disk image"
EXAMPLES = """\
shiplap rootfs --base rootfs.tar --store shiplap-out -o firmware                            the store image as a file in the root
shiplap rootfs --base rootfs.tar.zst --store shiplap-out --placement partition --disk -o firmware    root and store as partitions
shiplap rootfs --base rootfs.tar --store shiplap-out --disk --data-size 64M -o firmware     with an empty writable partition
"""
DEFAULT_OUT = "shiplap-rootfs"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", metavar="FILE", required=True, help="the base root file system: a tar, compressed or not")
    parser.add_argument("--store", metavar="DIR", required=True, help="the output folder of `shiplap build`")
    parser.add_argument("-o", "--out", metavar="OUT", default=DEFAULT_OUT, help="the output folder (default %(default)s)")
    parser.add_argument("--placement", choices=PLACEMENTS, default="file", help="where the store lies (default %(default)s)")
    parser.add_argument("--compression", choices=tuple(SQUASHFS_LEVELS), default="zstd", help="of the SquashFS (default %(default)s)")
    parser.add_argument("--level", type=int, metavar="N", help="its level (default: the compression's, 15 for zstd)")
    parser.add_argument("--block-size", type=_size, default=131072, metavar="SIZE", help="its block size (default 128K)")
    parser.add_argument("--max-size", type=_size, metavar="SIZE", help="refuse a rootfs.squashfs that is larger")
    parser.add_argument("--disk", action="store_true", help="also write disk.img: a GPT disk with every partition in its place")
    parser.add_argument("--data-size", type=_size, metavar="SIZE", help="with an empty, writable partition of that size at its end")
    parser.add_argument("--source-date-epoch", type=epoch, metavar="N", help="the time of everything that shiplap itself writes")
    parser.add_argument("--jobs", "-j", type=jobs, metavar="N", help="processors to use (default all); changes no byte")
    add_limit_option(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    out, folder = Path(arguments.out), Path(arguments.store)
    if arguments.data_size is not None and not arguments.disk:
        raise UsageError("--data-size is for the disk image", hint="add --disk")
    if out.resolve() == folder.resolve():
        raise UsageError(f"{out} is the store's own folder", hint="give the root file system another one with -o")
    progress, limits = console.progress, limits_of(arguments)
    with progress.task(f"check {folder}") as task:
        store = read_store_folder(folder, task.advance)
    check_placement(store, arguments.placement)
    check_kit(store, arguments.placement)
    if arguments.disk:
        partition_types(store.platform.architecture)
    if store.kit is None:
        console.note(f"{folder} has no target.tar: nothing in the root file system mounts or seeds the store")
    # The store's own epoch stands for that of the newest image, which it usually is.
    epoch, origin = choose_epoch(arguments.source_date_epoch, None, os.environ, ())
    if origin == "default":
        epoch, origin = store.epoch, "store"
    form = SquashfsOptions(
        compression=arguments.compression,
        level=arguments.level,
        block_size_bytes=arguments.block_size,
        epoch=epoch,
        jobs=arguments.jobs,
    )
    check_options(form)
    plan = RootPlan(store, arguments.placement, form, limits, arguments.max_size)
    with ExitStack() as stack:
        base = stack.enter_context(open_base_tar(Path(arguments.base), limits.layer_bytes))
        stage = stack.enter_context(staged_output(out, ROOT_ARTIFACTS))
        what = Path(arguments.base).name
        result = write_root(plan, base, what, stage, progress, arguments.jobs)
        settings = boot_settings(result, stage, store, plan.placement, arguments.data_size or 0)
        _snippets(settings, stage, console)
        placed = write_disk_image(settings, stage, store, progress) if arguments.disk else ()
        made = _Made(plan, result, (epoch, origin), placed)
        outputs = {name: _sum(stage, name, console) for name in stage.names()}
        stage.write("record.json", made.record(base, outputs))
        outputs["record.json"] = _sum(stage, "record.json", console)
        stage.publish({name: digest for name, (digest, _) in outputs.items()})
    console.result(made.data(arguments.out, outputs), made.text(arguments.out, outputs))
    return 0


def _snippets(settings: BootSettings, stage: Stage, console: Console) -> None:
    try:
        write_snippets(settings, stage)
    except NotDiscoverable as error:
        console.note(f"no boot snippets are written: {error.message}")


def _sum(stage: Stage, name: str, console: Console) -> tuple[str, int]:
    path = stage.path(name)
    with console.progress.task(f"sha256 of {name}", path.stat().st_size) as task:
        return sha256_file(path, task.advance)


@dataclass(frozen=True, slots=True)
class _Made:
    """``epoch``: value and origin. ``placed``: of the disk image, empty without one."""

    plan: RootPlan
    result: RootResult
    epoch: tuple[int, str]
    placed: Sequence[Placed]

    def record(self, base: FileSlice, outputs: dict[str, tuple[str, int]]) -> bytes:
        """``record.json``: no clock, no host name, no path of this machine."""
        hasher = sha256()
        for piece in base.chunks():
            hasher.update(piece)
        store: StoreFolder = self.plan.store
        document = {
            "shiplap": VERSION,
            "kind": "rootfs",
            "base": {"sha256": hasher.hexdigest(), "size_bytes": base.size_bytes},
            "store": {"platform": str(store.platform), "store-path": store.store_path, "sha256": store.sums},
            "epoch": {"value": self.epoch[0], "from": self.epoch[1]},
            "options": {"placement": self.plan.placement, "disk": bool(self.placed), "partitions": self._partitions()},
            "tools": [describe_tool(self.plan.form)],
            "verity": {"hash": "sha256", "root-hash": self.result.root_hash, "padding_bytes": self.result.padding_bytes},
            "outputs": {name: {"sha256": digest, "size_bytes": size_bytes} for name, (digest, size_bytes) in outputs.items()},
        }
        return canonical_json(document)

    def _partitions(self) -> list[dict[str, object]]:
        return [
            {
                "name": one.partition.name,
                "type": one.partition.type_uuid,
                "uuid": one.partition.uuid,
                "offset_bytes": one.offset_bytes,
                "size_bytes": one.size_bytes,
            }
            for one in self.placed
        ]

    def data(self, out: str, outputs: dict[str, tuple[str, int]]) -> dict[str, object]:
        """The object of ``--json``."""
        return {
            "out": out,
            "epoch": self.epoch[0],
            "placement": self.plan.placement,
            "root-hash": self.result.root_hash,
            "partitions": self._partitions(),
            "outputs": {name: {"sha256": digest, "size_bytes": size_bytes} for name, (digest, size_bytes) in outputs.items()},
        }

    def text(self, out: str, outputs: dict[str, tuple[str, int]]) -> str:
        """The same for people; the snippets in one line."""
        lines = [
            f"{out}/{name}  {size_text(size_bytes)}  sha256:{digest}"
            for name, (digest, size_bytes) in sorted(outputs.items())
            if "/" not in name
        ]
        snippets = sum("/" in name for name in outputs)
        if snippets:
            lines.append(f"{out}/boot/  {snippets} snippets for boot loaders, image builders and updaters")
        lines += [f"{one.partition.name}  PARTUUID={one.partition.uuid}  {size_text(one.size_bytes)}" for one in self.placed]
        return "\n".join([*lines, f"root hash  {self.result.root_hash}"])


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except Refused as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.hint}") from None
