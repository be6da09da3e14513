"""From images to a finished, sealed store: the layers go once through the store writers into the sink of the
store image (SquashFS or EROFS) and ``store.tar``, then the hash tree is laid over the store image.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from shiplap.core.elfaudit import ElfAudit
from shiplap.core.elfreport import ElfReport
from shiplap.core.errors import OutsideFailure
from shiplap.core.layer.sight import LayerAudit
from shiplap.core.limits import Limits
from shiplap.core.output import Stage
from shiplap.core.progress import Meter, Progress
from shiplap.core.store.forms import form_of
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.writer import StoreWriter, write_store
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry
from shiplap.rootfs.budget import over_budget
from shiplap.rootfs.sinks import SquashfsOptions, describe_tool, open_sink
from shiplap.rootfs.sinks.erofs import ErofsOptions, describe_erofs, open_erofs
from shiplap.rootfs.sinks.options import Add, Advance
from shiplap.rootfs.storecosts import StoreCosts, store_costs
from shiplap.verity.format import format_file
from shiplap.verity.identity import pad_file, store_image_salt, uuid_for_salt
from shiplap.verity.parameters import VerityParameters

STORE_OUTPUTS = ("squashfs", "erofs", "verity", "tar")
_ANY_NUMBER = 1 << 32  # of entries: the image is our own
IMAGE_NAMES = {"squashfs": "store.squashfs", "erofs": "store.erofs"}
"""The store image's name, by output."""


@dataclass(frozen=True, slots=True)
class StorePlan:
    """What to make of a store. ``outputs``: some of STORE_OUTPUTS; ``verity`` needs ``squashfs`` or ``erofs``, which exclude each other.

    ``form``: how the store image is written, if it is.
    ``verity_hash``: sha1, sha256, sha384 or sha512. ``salt``: None for the one derived from the store's
    identity, empty for none. ``uuid``: None for the one derived from the salt.
    ``budget_bytes``: largest store image allowed. ``jobs``: processors to use, None for all.
    """

    identity: StoreIdentity
    outputs: tuple[str, ...]
    form: SquashfsOptions | ErofsOptions
    limits: Limits
    verity_hash: str = "sha256"
    salt: bytes | None = None
    uuid: str | None = None
    budget_bytes: int | None = None
    jobs: int | None = None

    @property
    def image_name(self) -> str | None:
        """``store.squashfs`` or ``store.erofs``, or None where no image is asked for."""
        return next((name for output, name in IMAGE_NAMES.items() if output in self.outputs), None)


@dataclass(frozen=True, slots=True)
class StoreResult:
    """``layer_sizes``: by chainID, as the engine counts. ``root_hash``: hex, or None without verity.

    ``costs``: of the SquashFS store image, where there is one. ``elf``: where an audit was asked for.
    """

    layer_sizes: dict[str, int]
    root_hash: str | None
    padding_bytes: int
    costs: StoreCosts | None = None
    elf: ElfReport | None = None


def write_store_artifacts(
    plan: StorePlan, stage: Stage, progress: Progress, audit: ElfAudit | None = None, others: Sequence[LayerAudit] = ()
) -> StoreResult:
    """Write ``store.*`` into the stage. ``audit`` and ``others`` look at every layer on the way; what ``audit`` refuses is not finished.

    Raises what reading the images raises (Refused), ProgramMissing for a missing tool,
    OutsideFailure when a tool or the disk fails, ForeignElf, OverBudget.
    """
    meter = Meter(progress)
    form = form_of(plan.identity)
    store_json = plan.identity.to_json()
    stage.write("store.json", store_json)
    with ExitStack() as stack:
        writers: list[StoreWriter] = []
        if plan.image_name is not None:
            stack.enter_context(_room_named(plan.form.tool, stage))
            put = stack.enter_context(open_form_sink(plan.form, stage.path(plan.image_name), meter.advance))
            writers.append(form.image(plan.identity, put, progress.note))
        if "tar" in plan.outputs:
            write = meter.counting(stack.enter_context(stage.writer("store.tar")))
            writers.append(form.tar(plan.identity, lambda entry: write_entry(entry, write)))
        audits = (*((audit,) if audit is not None else ()), *others)
        sizes = write_store(plan.identity, writers, form.unpacking(plan.identity), plan.limits, progress, meter, audits)
        if "tar" in plan.outputs:
            write(END_OF_ARCHIVE)
        elf = audit.conclude(progress.note) if audit is not None else None
        if plan.image_name is not None:
            # Leaving the context waits for the tool to compress what it still holds.
            with progress.task(f"finish {plan.image_name}"):
                stack.close()
    if plan.image_name is None:
        return StoreResult(sizes, None, 0, elf=elf)
    image = stage.path(plan.image_name)
    costs = None
    if "squashfs" in plan.outputs:
        with progress.task(f"sizes in {plan.image_name}"):
            costs = store_costs(image, plan.identity.images, form=form, entry_limit=_ANY_NUMBER)
    size_bytes = image.stat().st_size
    if plan.budget_bytes is not None and size_bytes > plan.budget_bytes:
        raise over_budget(plan.image_name, size_bytes, plan.budget_bytes, plan.identity.images, costs, sizes)
    made = StoreResult(sizes, None, 0, costs, elf)
    return _seal(plan, store_json, image, stage, progress, made) if "verity" in plan.outputs else made


def describe_form(form: SquashfsOptions | ErofsOptions) -> dict[str, str]:
    """What beside the stream decides the image's bytes, for record.json. Raises as opening the sink does."""
    return describe_erofs(form) if isinstance(form, ErofsOptions) else describe_tool(form)


def open_form_sink(form: SquashfsOptions | ErofsOptions, output: Path, advance: Advance) -> AbstractContextManager[Add]:
    """The sink of either file system. As ``open_sink`` and ``open_erofs``."""
    return open_erofs(form, output, advance) if isinstance(form, ErofsOptions) else open_sink(form, output, advance)


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


def _seal(plan: StorePlan, store_json: bytes, image: Path, stage: Stage, progress: Progress, made: StoreResult) -> StoreResult:
    salt = store_image_salt(store_json) if plan.salt is None else plan.salt
    # The UUID comes from the identity even where the salt was chosen otherwise.
    uuid = plan.uuid or uuid_for_salt(salt or store_image_salt(store_json))
    parameters = VerityParameters(hash_name=plan.verity_hash, salt=salt, uuid=uuid)
    padding_bytes = pad_file(image, parameters.data_block_bytes)
    size_bytes = image.stat().st_size
    with progress.task(f"hash tree of {image.name}", size_bytes) as task:
        root_hash = format_file(image, stage.path("store.verity"), parameters, jobs=plan.jobs, advance=task.advance)
    stage.write("store.roothash", root_hash.encode() + b"\n")
    return replace(made, root_hash=root_hash, padding_bytes=padding_bytes)
