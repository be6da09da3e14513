"""From images to a finished, sealed store: the layers go once through the store writers into the
SquashFS sink and ``store.tar``, then the hash tree is laid over the store image.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.limits import Limits
from shiplap.core.output import Stage
from shiplap.core.progress import Meter, Progress
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.writer import DataRootWriter, SealedStoreWriter, StoreWriter, write_store
from shiplap.rootfs.sinks import SquashfsOptions, open_sink
from shiplap.verity.format import format_file
from shiplap.verity.identity import pad_file, store_image_salt, uuid_for_salt
from shiplap.verity.parameters import VerityParameters

STORE_OUTPUTS = ("squashfs", "verity", "tar")


class OverBudget(Refused):
    """The store image is larger than the manifest allows."""


@dataclass(frozen=True, slots=True)
class StorePlan:
    """What to make of a store. ``outputs``: some of STORE_OUTPUTS; ``verity`` needs ``squashfs``.

    ``verity_hash``: sha1, sha256, sha384 or sha512. ``salt``: None for the one derived from the store's
    identity, empty for none. ``uuid``: None for the one derived from the salt.
    ``budget_bytes``: largest store image allowed. ``jobs``: processors to use, None for all.
    """

    identity: StoreIdentity
    outputs: tuple[str, ...]
    squashfs: SquashfsOptions
    limits: Limits
    verity_hash: str = "sha256"
    salt: bytes | None = None
    uuid: str | None = None
    budget_bytes: int | None = None
    jobs: int | None = None


@dataclass(frozen=True, slots=True)
class StoreResult:
    """``layer_sizes``: by chainID, as the engine counts. ``root_hash``: hex, or None without verity."""

    layer_sizes: dict[str, int]
    root_hash: str | None
    padding_bytes: int


def write_store_artifacts(plan: StorePlan, stage: Stage, progress: Progress) -> StoreResult:
    """Write ``store.*`` into the stage.

    Raises what reading the images raises (Refused), ProgramMissing for a missing SquashFS tool,
    OutsideFailure when a tool or the disk fails, OverBudget.
    """
    meter = Meter(progress)
    store_json = plan.identity.to_json()
    stage.write("store.json", store_json)
    with ExitStack() as stack:
        writers: list[StoreWriter] = []
        if "squashfs" in plan.outputs:
            stack.enter_context(_room_named(plan.squashfs.tool, stage))
            put = stack.enter_context(open_sink(plan.squashfs, stage.path("store.squashfs"), meter.advance))
            writers.append(SealedStoreWriter(plan.identity, put, progress.note))
        if "tar" in plan.outputs:
            write = stack.enter_context(stage.writer("store.tar"))
            writers.append(DataRootWriter(plan.identity, meter.counting(write)))
        sizes = write_store(plan.identity, writers, plan.limits, progress, meter)
        if "squashfs" in plan.outputs:
            # Leaving the context waits for the tool to compress what it still holds.
            with progress.task("finish store.squashfs"):
                stack.close()
    if "squashfs" not in plan.outputs:
        return StoreResult(sizes, None, 0)
    image = stage.path("store.squashfs")
    if plan.budget_bytes is not None and image.stat().st_size > plan.budget_bytes:
        raise OverBudget(
            f"store.squashfs has {image.stat().st_size} bytes, the budget is {plan.budget_bytes}",
            hint="raise `budget: {store-image: …}` or embed less; `shiplap inspect` says what each layer holds",
        )
    if "verity" not in plan.outputs:
        return StoreResult(sizes, None, 0)
    return _seal(plan, store_json, image, stage, progress, sizes)


@contextmanager
def _room_named(tool: str, stage: Stage) -> Iterator[None]:
    """Tools that meet a full disk may say no more than "I/O error" (tar2sqfs), and take their file away again."""
    try:
        yield
    except OutsideFailure as failure:
        if failure.hint is None and failure.message.startswith(tool):
            free_bytes = shutil.disk_usage(stage.folder).free
            hint = f"{free_bytes >> 20} MiB are free in {stage.out}; if that is too little, give another folder with -o"
            raise OutsideFailure(failure.message, hint=hint) from failure
        raise


def _seal(plan: StorePlan, store_json: bytes, image: Path, stage: Stage, progress: Progress, sizes: dict[str, int]) -> StoreResult:
    salt = store_image_salt(store_json) if plan.salt is None else plan.salt
    # The UUID comes from the identity even where the salt was chosen otherwise.
    uuid = plan.uuid or uuid_for_salt(salt or store_image_salt(store_json))
    parameters = VerityParameters(hash_name=plan.verity_hash, salt=salt, uuid=uuid)
    padding_bytes = pad_file(image, parameters.data_block_bytes)
    size_bytes = image.stat().st_size
    with progress.task("hash tree of store.squashfs", size_bytes) as task:
        root_hash = format_file(image, stage.path("store.verity"), parameters, jobs=plan.jobs, advance=task.advance)
    stage.write("store.roothash", root_hash.encode() + b"\n")
    return StoreResult(sizes, root_hash, padding_bytes)
