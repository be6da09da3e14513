"""What the store in an output folder asks of a kernel: from record.json, and from the store image itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shiplap.core.errors import Refused
from shiplap.core.jsontext import JsonObject, member, parse_object
from shiplap.rootfs.kernelcheck import StoreNeeds
from shiplap.rootfs.squashfs.file import open_image_file
from shiplap.rootfs.squashfs.superblock import read_superblock

_RECORD_MAX_BYTES = 64 << 20
SIGNATURE = "store.roothash.p7s"
"""The signature of the root hash, in the store's folder."""


class NoStoreFolder(Refused):
    """A folder that ``shiplap build`` has not written, or not with what a device needs."""


def needs_of_store(folder: Path) -> StoreNeeds:
    """Of the build in ``folder``. Raises NoStoreFolder, JsonInvalid and SquashfsError."""
    path = folder / "record.json"
    try:
        with path.open("rb") as file:
            raw = file.read(_RECORD_MAX_BYTES + 1)
    except OSError as error:
        raise NoStoreFolder(f"cannot read {path}: {error.strerror}", hint="name a folder that `shiplap build` has written") from error
    record = parse_object(raw, what=str(path), limit_bytes=_RECORD_MAX_BYTES)
    what = f"{path}, options"
    options = member(record, "options", dict, what=str(path)) or {}
    target = member(options, "target", dict, what=what)
    if target is None:
        raise NoStoreFolder(
            f"{folder} has no target.tar: this build wrote no store image and no archive", hint="build with `outputs: [squashfs, verity]`"
        )
    seal = member(record, "verity", dict, what=str(path)) or {}
    where = f"{what}, target"
    sealed = bool(member(target, "sealed", bool, what=where))
    needs = StoreNeeds(
        engine=member(options, "engine", str, what=what) or "docker",
        persistence=member(target, "persistence", str, what=where) or "volatile",
        placement=member(target, "placement", str, what=where) or "file",
        sealed=sealed,
        # Attached after the build, so that no record says it.
        signed=sealed and (folder / SIGNATURE).is_file(),
        bridge=member(target, "bridge", bool, what=where) is not False,
        verity_hash=member(seal, "hash", str, what=str(path)) or "sha256",
        filesystem="none",
        has_xattrs=False,
    )
    return _with_image(needs, folder, options, what)


def _with_image(needs: StoreNeeds, folder: Path, options: JsonObject, what: str) -> StoreNeeds:
    erofs = member(options, "erofs", dict, what=what)
    if erofs is not None:
        # Whether an EROFS has attributes stands in its inodes; nearly every store has a capability or an opaque directory.
        return replace(needs, filesystem="erofs", compression=member(erofs, "compression", str, what=what) or "none", has_xattrs=True)
    if member(options, "squashfs", dict, what=what) is None:
        return needs
    with open_image_file(folder / "store.squashfs") as file:
        superblock = read_superblock(file)
    return replace(needs, filesystem="squashfs", compression=superblock.compressor, has_xattrs=superblock.xattr_table is not None)
