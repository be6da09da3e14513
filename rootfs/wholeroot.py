"""A whole root file system: base tar + target kit + store → one sealed SquashFS or EROFS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.entries import Entry, FileSlice, Kind, PathContent
from shiplap.core.errors import Refused
from shiplap.core.limits import Limits
from shiplap.core.output import Stage
from shiplap.core.progress import Meter, Progress
from shiplap.core.store.squashfssink import as_squashfs_keeps
from shiplap.rootfs.basetree import BaseTree, RootRefused
from shiplap.rootfs.kitinroot import is_sealed_by_root, put_kit
from shiplap.rootfs.sinks import SquashfsOptions
from shiplap.rootfs.sinks.erofs import ErofsOptions
from shiplap.rootfs.squashfs.reader import SquashfsReader
from shiplap.rootfs.storefolder import StoreFolder, kit_image
from shiplap.rootfs.storeimage import open_form_sink
from shiplap.verity.discoverable import partition_uuids
from shiplap.verity.format import format_file
from shiplap.verity.identity import file_salt, pad_file, uuid_for_salt
from shiplap.verity.parameters import VerityParameters
from shiplap.verity.tree import Tree, lay_out

IMAGES = {"squashfs": "rootfs.squashfs", "erofs": "rootfs.erofs"}
"""File system → name of the image."""
TREE, ROOT_HASH = "rootfs.verity", "rootfs.roothash"
PLACEMENTS = ("file", "partition", "tree")


class RootTooLarge(Refused):
    """The image is larger than was allowed."""


@dataclass(frozen=True, slots=True)
class RootPlan:
    """``placement``: one of PLACEMENTS. ``form``: how the image is written. ``max_size_bytes``: of the image, None for any."""

    store: StoreFolder
    placement: str
    form: SquashfsOptions | ErofsOptions
    limits: Limits
    max_size_bytes: int | None = None

    @property
    def image_name(self) -> str:
        """``rootfs.squashfs`` or ``rootfs.erofs``."""
        return IMAGES["erofs" if isinstance(self.form, ErofsOptions) else "squashfs"]


@dataclass(frozen=True, slots=True)
class RootResult:
    """``image``: its file name. ``root_hash``: hex. ``tree``: layout of the hash tree. ``size_bytes``: of the image, padding included."""

    image: str
    root_hash: str
    tree: Tree
    size_bytes: int
    padding_bytes: int


def check_placement(store: StoreFolder, placement: str) -> None:
    """Raises RootRefused for a store that cannot go where it should."""
    if store.mode == "archive" and placement != "file":
        raise RootRefused(f"an archive cannot be placed as a {placement}: the device loads it from a file", hint="--placement file")
    if placement == "partition" and store.root_hash is None:
        raise RootRefused(
            "the store is not sealed, and its partition is found by its root hash only", hint="build it with `--output squashfs,verity`"
        )
    if placement == "tree" and store.image.name != "store.squashfs":
        raise RootRefused(f"{store.image.name} cannot be unpacked into the root file system", hint="build the store as SquashFS")


def check_kit(store: StoreFolder, placement: str) -> None:
    """The kit has the place of the store in its configuration. Raises RootRefused when it would look elsewhere."""
    if store.kit is None:
        return
    image = kit_image(store.kit)
    partition = f"PARTUUID={partition_uuids(store.root_hash)[0]}" if store.root_hash else None
    fits = {"partition": image == partition, "tree": image == "", "file": image.startswith(f"{store.store_path}/")}
    if not fits[placement]:
        raise RootRefused(
            f"the target kit looks for the store at {image or 'its mount point'}, which is not where --placement {placement} puts it",
            hint="; or ".join(
                [f"give --placement {name}, as the store was built for" for name, does in fits.items() if does]
                + [f"build the store with `placement: {placement}` in the manifest"]
            ),
        )


def read_base(plan: RootPlan, base: FileSlice, what: str, progress: Progress) -> BaseTree:
    """The base's tar as a tree; ``what`` names it in messages. Raises RootRefused, TarCorrupt."""
    tree = BaseTree(what, plan.form.epoch, plan.limits.image_entries)
    with progress.task(f"read {what}"):
        tree.read(base)
    return tree


def write_root(plan: RootPlan, tree: BaseTree, what: str, stage: Stage, progress: Progress, jobs: int | None) -> RootResult:
    """Put store and kit into ``tree``; write image, hash tree and root hash into ``stage``. ``what`` names the base in messages.

    Raises RootRefused, TargetRefused (configurations at odds), RootTooLarge, and what the sink raises.
    """
    check_placement(plan.store, plan.placement)
    check_kit(plan.store, plan.placement)
    image = stage.path(plan.image_name)
    with ExitStack() as stack:
        _add_store(tree, plan, stack)
        put_kit(tree, plan.store, plan.placement, stack, progress)
        _say_notes(tree, progress, what)
        meter = Meter(progress)
        with meter.task(f"pack {image.name}"), open_form_sink(plan.form, image, meter.advance) as put:
            for entry in tree.entries():
                put(as_squashfs_keeps(entry))
    return _seal(plan, image, stage, progress, jobs)


def _add_store(tree: BaseTree, plan: RootPlan, stack: ExitStack) -> None:
    store, epoch = plan.store, plan.form.epoch
    folder = store.store_path.strip("/").encode()
    mount_point = Entry(folder + b"/store", Kind.DIRECTORY, 0o755, mtime_epoch=epoch)
    if plan.placement == "tree":
        reader = stack.enter_context(SquashfsReader.open(store.image, entry_limit=plan.limits.image_entries))
        tree.graft(folder + b"/store", reader.entries())
        return
    tree.put(mount_point)
    if plan.placement == "file":
        placed = store.placed[:1] if is_sealed_by_root(store, plan.placement) else store.placed
    else:
        # The signature has no partition of its own: the device reads it from the root.
        placed = (store.signature,) if store.signature is not None else ()
    for entry in _files(folder, placed, epoch):
        tree.put(entry)


def _files(folder: bytes, files: tuple[Path, ...], epoch: int) -> Iterator[Entry]:
    for path in files:
        content = PathContent(path, path.stat().st_size)
        yield Entry(folder + b"/" + path.name.encode(), Kind.REGULAR, 0o644, mtime_epoch=epoch, content=content)


def _say_notes(tree: BaseTree, progress: Progress, what: str) -> None:
    for paths, said in (
        (tree.replaced, "replaced by ours"),
        (tree.sockets, "left out: a socket"),
        (tree.xattrs_left_out, "some of its extended attributes are left out: the image has user, trusted and security ones only"),
    ):
        for path in paths:
            progress.note(f"{what}: /{path.decode('utf-8', 'backslashreplace').lstrip('/')} {said}")


def _seal(plan: RootPlan, image: Path, stage: Stage, progress: Progress, jobs: int | None) -> RootResult:
    size_bytes = image.stat().st_size
    padding_bytes = pad_file(image, 4096)
    if plan.max_size_bytes is not None and size_bytes + padding_bytes > plan.max_size_bytes:
        raise RootTooLarge(
            f"{image.name} has {size_bytes + padding_bytes} bytes, {plan.max_size_bytes} are allowed",
            hint="raise --max-size, compress harder, or move the store to its own partition with --placement partition",
        )
    salt = file_salt(image)
    parameters = VerityParameters(salt=salt, uuid=uuid_for_salt(salt))
    with progress.task(f"hash tree of {image.name}", size_bytes) as task:
        root_hash = format_file(image, stage.path(TREE), parameters, jobs=jobs, advance=task.advance)
    stage.write(ROOT_HASH, root_hash.encode() + b"\n")
    total = size_bytes + padding_bytes
    return RootResult(image.name, root_hash, lay_out(parameters, total // parameters.data_block_bytes), total, padding_bytes)
