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
from shiplap.core.imageform import EROFS_LEVELS, SQUASHFS_LEVELS
from shiplap.core.manifest.sizes import parse_size
from shiplap.core.output import Stage, sha256_file, staged_output
from shiplap.core.store.identity import canonical_json, choose_epoch
from shiplap.core.version import VERSION
from shiplap.rootfs.basetar import open_base_tar
from shiplap.rootfs.basetree import BaseTree
from shiplap.rootfs.bootsnippets import BootSettings
from shiplap.rootfs.bootsnippets.kernel import systemd_cmdline
from shiplap.rootfs.efi.unified import Stub, check_machine, read_stub
from shiplap.rootfs.firmware import (
    ROOT_ARTIFACTS,
    BootFiles,
    DiskPlan,
    boot_settings,
    disk_partitions,
    ingredient,
    with_signature,
    write_boot_partition,
    write_disk_image,
    write_snippets,
)
from shiplap.rootfs.gpt import Placed
from shiplap.rootfs.kitinroot import is_sealed_by_root
from shiplap.rootfs.provision.image import write_provision_image
from shiplap.rootfs.sinks import SquashfsOptions, check_options
from shiplap.rootfs.sinks.erofs import ErofsOptions, check_erofs_options
from shiplap.rootfs.storefolder import StoreFolder, read_store_folder
from shiplap.rootfs.storeimage import describe_form
from shiplap.rootfs.wholeroot import IMAGES, PLACEMENTS, RootPlan, RootResult, check_kit, check_placement, read_base, write_root
from shiplap.verity.discoverable import NotDiscoverable, partition_types
from shiplap.verity.identity import content_uuid

NAME = "rootfs"
SUMMARY = "base root file system + store + target kit → one sealed root, boot snippets, a disk image"
EXAMPLES = """\
shiplap rootfs --base rootfs.tar --store shiplap-out -o firmware                            the store image as a file in the root
shiplap rootfs --base rootfs.tar.zst --store shiplap-out --placement partition --disk -o firmware    root and store as partitions
shiplap rootfs --base rootfs.tar --store shiplap-out --disk --data-size 64M -o firmware     with an empty writable partition
shiplap rootfs --base rootfs.tar --store shiplap-out --provision --kernel bzImage --initrd initrd.img --append console=ttyS0 -o firmware
                                                                                            a medium that installs the disk
"""
DEFAULT_OUT = "shiplap-rootfs"
_COMMAND_LINE_BYTES = 900  # some for the board's own words


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", metavar="FILE", required=True, help="the base root file system: a tar, compressed or not")
    parser.add_argument("--store", metavar="DIR", required=True, help="the output folder of `shiplap build`")
    parser.add_argument("-o", "--out", metavar="OUT", default=DEFAULT_OUT, help="the output folder (default %(default)s)")
    parser.add_argument("--placement", choices=PLACEMENTS, default="file", help="where the store lies (default %(default)s)")
    parser.add_argument("--filesystem", choices=tuple(IMAGES), default="squashfs", help="of the root (default %(default)s)")
    compressions = tuple(dict.fromkeys((*SQUASHFS_LEVELS, *EROFS_LEVELS)))
    parser.add_argument("--compression", choices=compressions, help="of the root's image (default zstd; lz4hc for EROFS)")
    parser.add_argument("--level", type=int, metavar="N", help="its level (default: the compression's, 15 for zstd)")
    parser.add_argument("--block-size", type=_size, metavar="SIZE", help="of SquashFS (default 128K); of EROFS the cluster (default 64K)")
    parser.add_argument("--max-size", type=_size, metavar="SIZE", help="refuse a root image that is larger")
    parser.add_argument("--disk", action="store_true", help="also write disk.img: a GPT disk with every partition in its place")
    parser.add_argument("--data-size", type=_size, metavar="SIZE", help="with an empty, writable partition of that size at its end")
    parser.add_argument("--slots", type=int, choices=(1, 2), default=1, help="2: also empty partitions for the first update")
    parser.add_argument("--root-size", type=_size, metavar="SIZE", help="of the root's partition in each slot (default: the image's)")
    parser.add_argument("--store-size", type=_size, metavar="SIZE", help="of the store's, likewise")
    parser.add_argument("--signature", metavar="FILE", help="a signature of the root hash, attached later; with --certificate")
    parser.add_argument("--certificate", metavar="FILE", help="of who made it, PEM")
    parser.add_argument("--provision", action="store_true", help="also write provision.iso: a medium that installs the disk")
    parser.add_argument(
        "--kernel", metavar="FILE", help="what the medium, or with --efi-stub the disk, boots; base:/PATH for one of the base"
    )
    parser.add_argument(
        "--initrd", metavar="FILE", help="its initramfs, which has drivers and a shell for the installer, too; or base:/PATH"
    )
    parser.add_argument("--append", metavar="WORDS", default="", help="words for the kernel's command line, such as console=ttyS0")
    parser.add_argument("--efi-stub", metavar="FILE", help="make medium and disk bootable by UEFI, with this stub of systemd's")
    parser.add_argument("--source-date-epoch", type=epoch, metavar="N", help="the time of everything that shiplap itself writes")
    parser.add_argument("--jobs", "-j", type=jobs, metavar="N", help="processors to use (default all); changes no byte")
    add_limit_option(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    out, folder = Path(arguments.out), Path(arguments.store)
    _check_usage(arguments)
    if out.resolve() == folder.resolve():
        raise UsageError(f"{out} is the store's own folder", hint="give the root file system another one with -o")
    progress, limits = console.progress, limits_of(arguments)
    stub = read_stub(Path(arguments.efi_stub)) if arguments.efi_stub else None
    with progress.task(f"check {folder}") as task:
        store = read_store_folder(folder, task.advance)
    check_placement(store, arguments.placement)
    check_kit(store, arguments.placement)
    if stub is not None:
        check_machine(stub, store.platform.architecture)
    if arguments.disk or arguments.provision:
        partition_types(store.platform.architecture)
    if store.kit is None:
        console.note(f"{folder} has no target.tar: nothing in the root file system mounts or seeds the store")
    # The store's own epoch stands for that of the newest image, which it usually is.
    epoch, origin = choose_epoch(arguments.source_date_epoch, None, os.environ, ())
    if origin == "default":
        epoch, origin = store.epoch, "store"
    with ExitStack() as stack:
        base = stack.enter_context(open_base_tar(Path(arguments.base), limits.layer_bytes))
        stage = stack.enter_context(staged_output(out, ROOT_ARTIFACTS))
        base_sum = _sum_of_base(base)
        plan = RootPlan(store, arguments.placement, _form(arguments, epoch, base_sum, store), limits, arguments.max_size)
        what = Path(arguments.base).name
        tree = read_base(plan, base, what, progress)
        boot = _boot_files(arguments, tree, stub)
        result = write_root(plan, tree, what, stage, progress, arguments.jobs)
        settings = boot_settings(result, stage, store, plan.placement, _disk_plan(arguments))
        if arguments.signature:
            settings = with_signature(settings, Path(arguments.signature), Path(arguments.certificate), stage)
        if boot is not None and boot.stub is not None:
            settings = write_boot_partition(settings, boot, epoch, stage, progress)
        _snippets(settings, stage, console)
        placed = write_disk_image(settings, stage, store, progress) if arguments.disk else ()
        if arguments.provision:
            assert boot is not None
            write_provision_image(settings, disk_partitions(settings, stage, store), boot, epoch, stage, progress)
        made = _Made(plan, result, (epoch, origin), placed)
        outputs = {name: _sum(stage, name, console) for name in stage.names()}
        stage.write("record.json", made.record((base_sum, base.size_bytes), outputs))
        outputs["record.json"] = _sum(stage, "record.json", console)
        stage.publish({name: digest for name, (digest, _) in outputs.items()})
    console.result(made.data(arguments.out, outputs), made.text(arguments.out, outputs))
    return 0


def _disk_plan(arguments: argparse.Namespace) -> DiskPlan:
    return DiskPlan(arguments.data_size or 0, arguments.slots, arguments.root_size or 0, arguments.store_size or 0)


def _check_usage(arguments: argparse.Namespace) -> None:
    """Options that mean nothing without others."""
    for option in ("data_size", "slots", "root_size", "store_size"):
        if getattr(arguments, option) not in (None, 1) and not (arguments.disk or arguments.provision):
            raise UsageError(f"--{option.replace('_', '-')} is for the disk image", hint="add --disk or --provision")
    if arguments.store_size is not None and arguments.placement != "partition":
        raise UsageError("--store-size is for a store in partitions of its own", hint="add --placement partition")
    if bool(arguments.signature) != bool(arguments.certificate):
        raise UsageError("--signature and --certificate belong together", hint="give both, or neither")
    if (arguments.provision or arguments.efi_stub) and not (arguments.kernel and arguments.initrd):
        option = "--provision" if arguments.provision else "--efi-stub"
        raise UsageError(f"{option} needs what is booted", hint="give --kernel FILE and --initrd FILE")
    if (arguments.kernel or arguments.initrd or arguments.append) and not (arguments.provision or arguments.efi_stub):
        raise UsageError("--kernel, --initrd and --append are for what boots", hint="add --provision or --efi-stub FILE")
    if not arguments.append.isprintable():
        raise UsageError("--append takes words for the kernel's command line, on one line")
    if arguments.efi_stub and not (arguments.disk or arguments.provision):
        raise UsageError("--efi-stub is for images that boot", hint="add --disk or --provision")


def _boot_files(arguments: argparse.Namespace, base: BaseTree, stub: Stub | None) -> BootFiles | None:
    if not arguments.kernel:
        return None
    return BootFiles(ingredient(arguments.kernel, "kernel", base), ingredient(arguments.initrd, "initramfs", base), arguments.append, stub)


def _form(arguments: argparse.Namespace, epoch: int, base_sum: str, store: StoreFolder) -> SquashfsOptions | ErofsOptions:
    """How the root's image is written. Raises SquashfsOptionsError, ErofsOptionsError."""
    options = {"level": arguments.level, "epoch": epoch, "jobs": arguments.jobs}
    if arguments.compression:
        options["compression"] = arguments.compression
    if arguments.filesystem == "squashfs":
        if arguments.block_size:
            options["block_size_bytes"] = arguments.block_size
        squashfs = SquashfsOptions(**options)
        check_options(squashfs)
        return squashfs
    if arguments.block_size:
        options["cluster_bytes"] = arguments.block_size
    # No two roots have the same one, and the tree's own comes from the image.
    uuid = content_uuid(f"erofs root {base_sum} {arguments.placement} {epoch} {sorted(store.sums.items())}")
    erofs = ErofsOptions(uuid, **options)
    check_erofs_options(erofs)
    return erofs


def _sum_of_base(base: FileSlice) -> str:
    hasher = sha256()
    for piece in base.chunks():
        hasher.update(piece)
    return hasher.hexdigest()


def _snippets(settings: BootSettings, stage: Stage, console: Console) -> None:
    try:
        write_snippets(settings, stage)
        size_bytes = len(systemd_cmdline(settings))
        if settings.signature is not None and size_bytes > _COMMAND_LINE_BYTES:
            console.note(f"with the signature the kernel's command line has {size_bytes} bytes: 32-bit ARM takes 1024, most others 2048")
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

    def record(self, base: tuple[str, int], outputs: dict[str, tuple[str, int]]) -> bytes:
        """``record.json``: no clock, no host name, no path of this machine. ``base``: sha256 and size in bytes."""
        store: StoreFolder = self.plan.store
        document = {
            "shiplap": VERSION,
            "kind": "rootfs",
            "base": {"sha256": base[0], "size_bytes": base[1]},
            "store": {
                "platform": str(store.platform),
                "store-path": store.store_path,
                "sealed-by-root": is_sealed_by_root(store, self.plan.placement),
                "sha256": store.sums,
            },
            "epoch": {"value": self.epoch[0], "from": self.epoch[1]},
            "options": {"placement": self.plan.placement, "disk": bool(self.placed), "partitions": self._partitions()},
            "tools": [describe_form(self.plan.form)],
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
