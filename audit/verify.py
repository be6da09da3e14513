"""``verify``: is this output folder, store image or archive what it says it is?

Links in order: checksums → root hash → SquashFS → store.json → layers → configs (:mod:`shiplap.audit.chain`).
The first link that does not hold ends the verification.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shiplap.audit.againstlock import Held, held_by_archive, held_by_store_json, hold_against, unproven_manifests
from shiplap.audit.chain import ChainReport, read_identity, verify_store
from shiplap.audit.erofsview import check_contents, erofs_view
from shiplap.audit.links import BrokenLink
from shiplap.audit.storeview import StoreUnreadable, StoreView, open_image, open_tar_view, read_small
from shiplap.core.errors import ProgramMissing, Refused
from shiplap.core.image import Image, chain_ids
from shiplap.core.jsontext import parse_object
from shiplap.core.layer.spool import uncompressed_layer
from shiplap.core.limits import Limits, PastLimit
from shiplap.core.lock import Lock
from shiplap.core.output import ARTIFACTS, SUMS_NAME, sha256_file
from shiplap.core.progress import Progress
from shiplap.core.sources import open_images, parse_source
from shiplap.core.store.identity import canonical_json
from shiplap.rootfs.erofs.superblock import is_erofs, read_superblock
from shiplap.verity.format import format_file
from shiplap.verity.identity import erofs_uuid, store_image_salt, uuid_for_salt
from shiplap.verity.parameters import VerityParameters
from shiplap.verity.verify import BadBlock, verify_file

_STORE_JSON_LIMIT_BYTES = 16 << 20
_SQUASHFS_MAGIC = b"hsqs"
_TAR_MAGIC_OFFSET = 257


class NotVerifiable(Refused):
    """Something that this release cannot verify."""


@dataclass(slots=True)
class Verification:
    """What has been checked so far: (link, what was seen), in order. ``unchecked``: (link, why it was not looked at)."""

    limits: Limits
    progress: Progress
    links: list[tuple[str, str]] = field(default_factory=list)

    unchecked: list[tuple[str, str]] = field(default_factory=list)
    held: Held | None = None
    """What the thing holds, once that was verified."""

    def holds(self, link: str, detail: str) -> None:
        self.links.append((link, detail))


def verify_thing(thing: Path, root_hash: str | None, verification: Verification) -> None:
    """Verify an output folder, a store image, a ``store.tar`` (with its store.json beside it) or an archive.

    ``root_hash``: the one to trust, hex; for a folder it must equal the one in it. Raises BrokenLink at
    the first link that does not hold, NotVerifiable for something of no known kind.
    """
    if thing.is_dir():
        _verify_folder(thing, root_hash, verification)
        return
    try:
        with thing.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise NotVerifiable(f"cannot read {thing}: {error.strerror}") from error
    if head.startswith(_SQUASHFS_MAGIC):
        hash_file = thing.with_suffix(".verity")
        if root_hash is not None:
            _verify_root_hash(thing, hash_file if hash_file.exists() else None, root_hash, verification)
        _verify_image(thing, None, verification)
    elif is_erofs(thing):
        hash_file = thing.with_suffix(".verity")
        if root_hash is not None:
            _verify_root_hash(thing, hash_file if hash_file.exists() else None, root_hash, verification)
        beside = thing.with_name("store.json")
        _verify_erofs(thing, _read_json(beside) if beside.exists() else None, verification)
    elif thing.name == "store.tar":
        _refuse_root_hash(thing, root_hash)
        store_json = thing.with_name("store.json")
        if not store_json.exists():
            raise NotVerifiable(f"{thing} needs its store.json beside it", hint="give the whole output folder")
        _verify_tar(thing, _read_json(store_json), verification)
    elif head[_TAR_MAGIC_OFFSET : _TAR_MAGIC_OFFSET + 5] == b"ustar" or thing.name.startswith("images.tar"):
        _refuse_root_hash(thing, root_hash)
        _verify_archive(thing, verification)
    else:
        raise NotVerifiable(
            f"{thing} is no output folder, store image, store.tar or image archive",
            hint="for the hash tree of any file there is `shiplap verity verify`",
        )


def verify_against_lock(lock: Lock, name: str, verification: Verification) -> None:
    """After :func:`verify_thing`: the images are those that the lock ``name`` pins. Raises BrokenLink."""
    assert verification.held is not None, "verify_thing has found what there is"
    for link, detail in hold_against(verification.held, lock, name):
        verification.holds(link, detail)
    unproven = unproven_manifests(lock)
    if unproven:
        why = f"{name} has no bytes (lock --manifest-bytes) of the manifests of {', '.join(unproven)}: their digests are the lock's word"
        verification.unchecked.append(("manifests", why))


def _refuse_root_hash(thing: Path, root_hash: str | None) -> None:
    if root_hash is not None:
        raise NotVerifiable(f"{thing} has no hash tree to hold against --root-hash")


def _verify_folder(folder: Path, root_hash: str | None, verification: Verification) -> None:
    _verify_sums(folder, verification)
    image, erofs, store_tar = folder / "store.squashfs", folder / "store.erofs", folder / "store.tar"
    image = erofs if erofs.exists() and not image.exists() else image
    archives = sorted(path for path in folder.iterdir() if path.name in ARTIFACTS and path.name.startswith("images.tar"))
    if not (image.exists() or store_tar.exists() or archives):
        raise NotVerifiable(f"{folder} holds no store and no archive")
    stated = folder / "store.roothash"
    trusted = root_hash
    if stated.exists():
        text = stated.read_text("ascii", "replace").strip()[:256]
        if root_hash is not None and text != root_hash:
            raise BrokenLink(f"{stated} holds {text}, --root-hash is {root_hash}")
        trusted = text
    if image.exists():
        hash_file = folder / "store.verity"
        if trusted is not None:
            _verify_root_hash(image, hash_file if hash_file.exists() else None, trusted, verification)
        check = _verify_erofs if image == erofs else _verify_image
        check(image, _read_json(folder / "store.json"), verification)
    elif root_hash is not None:
        raise NotVerifiable(f"{folder} has no store image to hold against --root-hash")
    if store_tar.exists():
        _verify_tar(store_tar, _read_json(folder / "store.json"), verification)
    for archive in archives:
        _verify_archive(archive, verification, _read_json(folder / "store.json"))


def _verify_sums(folder: Path, verification: Verification) -> None:
    sums = folder / SUMS_NAME
    if not sums.exists():
        raise BrokenLink(f"{folder} has no {SUMS_NAME}: it is incomplete, or no output folder")
    stated: dict[str, str] = {}
    for number, line in enumerate(sums.read_text("utf-8", "replace").splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or name not in ARTIFACTS or name in stated:
            raise BrokenLink(f"{sums}, line {number} names no artifact of shiplap")
        stated[name] = digest
    for name in ARTIFACTS:
        path = folder / name
        if name == SUMS_NAME or name == "store.roothash.p7s":  # signatures are attached afterwards
            continue
        if path.exists() != (name in stated):
            problem = "is missing" if name in stated else f"is not in {SUMS_NAME}"
            raise BrokenLink(f"{path} {problem}")
    for name in sorted(stated):
        path = folder / name
        with verification.progress.task(f"sha256 of {name}", path.stat().st_size) as task:
            digest, _ = sha256_file(path, task.advance)
        if digest != stated[name]:
            raise BrokenLink(f"{path} has sha256 {digest}, {SUMS_NAME} says {stated[name]}")
    verification.holds("checksums", f"{len(stated)} files are as {SUMS_NAME} says")


def _verify_root_hash(image: Path, hash_file: Path | None, root_hash: str, verification: Verification) -> None:
    size_bytes = image.stat().st_size
    with _as_link(f"root hash of {image}"), verification.progress.task(f"root hash of {image.name}", size_bytes) as task:
        if hash_file is not None:
            bad = verify_file(image, hash_file, root_hash, advance=task.advance)
            if bad:
                raise BrokenLink(f"{image} does not hold against its root hash: {_bad_block(bad[0])}, {len(bad)} bad in all")
            verification.holds("root hash", f"{root_hash} through {hash_file.name}")
            return
        # Without the tree file the tree is built again: salt and UUID follow from store.json.
        salt = store_image_salt(_json_inside(image, verification.limits))
        with tempfile.TemporaryDirectory(prefix="shiplap-verify-") as folder:
            computed = format_file(image, Path(folder, "tree"), VerityParameters(salt=salt, uuid=uuid_for_salt(salt)), advance=task.advance)
        if computed != root_hash:
            raise BrokenLink(f"{image} has root hash {computed} (sha256, salt from store.json), expected {root_hash}")
        verification.holds("root hash", f"{root_hash}, from a tree built again")


def _verify_image(image: Path, store_json: bytes | None, verification: Verification) -> None:
    with _as_link(str(image)), open_image(image, entry_limit=verification.limits.image_entries) as view:
        if store_json is not None and view.find(b"store.json") is None:
            raise BrokenLink(f"{image}: it has no store.json inside")
        inside = read_small(view, "store.json", _STORE_JSON_LIMIT_BYTES)
        if store_json is not None and inside != store_json:
            raise BrokenLink(f"{image}: its store.json differs from the one beside it")
        verification.holds("SquashFS", f"{image.name} can be read")
        _report(verify_store(view, inside, verification.limits, verification.progress), view, verification)
        verification.held = held_by_store_json(inside)


def _json_inside(image: Path, limits: Limits) -> bytes:
    if is_erofs(image):
        return read_small(erofs_view(image), "store.json", _STORE_JSON_LIMIT_BYTES)
    with open_image(image, entry_limit=limits.image_entries) as view:
        return read_small(view, "store.json", _STORE_JSON_LIMIT_BYTES)


def _verify_erofs(image: Path, store_json: bytes | None, verification: Verification) -> None:
    """Superblock, store.json, configs, and that every file can be decompressed: all that can be known without a reader of our own."""
    with _as_link(str(image)):
        superblock = read_superblock(image)
        try:
            view = erofs_view(image)
        except ProgramMissing as missing:
            if store_json is None:
                raise
            verification.unchecked.append(("configs", missing.message))
        else:
            inside = read_small(view, "store.json", _STORE_JSON_LIMIT_BYTES)
            if store_json is not None and inside != store_json:
                raise BrokenLink(f"{image}: its store.json differs from the one beside it")
            store_json = inside
            identity = read_identity(view, store_json, verification.limits)
            verification.holds("configs", f"{len(identity.images)} images of {image.name} have the digests in store.json")
        document = parse_object(store_json, what="store.json", limit_bytes=_STORE_JSON_LIMIT_BYTES)
        if (superblock.uuid, superblock.build_epoch) != (erofs_uuid(store_json), document.get("epoch")):
            raise BrokenLink(
                f"{image}: its superblock has UUID {superblock.uuid} and time {superblock.build_epoch}, not those of store.json"
            )
        verification.held = held_by_store_json(store_json)
        verification.holds("EROFS", f"the superblock of {image.name} has its checksum, and UUID and time of store.json")
        try:
            with verification.progress.task(f"fsck.erofs {image.name}"):
                form = document.get("erofs")
                check_contents(image, str(form.get("compression")) if isinstance(form, dict) else "none")
            verification.holds("contents", f"fsck.erofs can decompress every file of {image.name}")
        except ProgramMissing as missing:
            verification.unchecked.append(("contents", missing.message))
    why = "there is no reader of EROFS in shiplap; the root hash covers every byte that the build wrote"
    verification.unchecked.append(("layers and tree", why))


def _verify_tar(path: Path, store_json: bytes, verification: Verification) -> None:
    with _as_link(str(path)), open_tar_view(path) as view:
        verification.holds("tar", f"{path.name} can be read")
        _report(verify_store(view, store_json, verification.limits, verification.progress), view, verification)
        verification.held = held_by_store_json(store_json)


def _report(report: ChainReport, view: StoreView, verification: Verification) -> None:
    verification.holds("configs", f"{report.images} images of {view.name} have the digests in store.json")
    verification.holds("layers", f"{report.layers} tars from tar-split data and files have their diffIDs ({report.layer_bytes} bytes)")
    verification.holds("tree", f"{report.entries} entries are what the layers and configs say, and no other")


def _verify_archive(path: Path, verification: Verification, store_json: bytes | None = None) -> None:
    layers = 0
    with _as_link(str(path)), open_images(parse_source(f"docker-archive:{path}"), platform=None, limits=verification.limits) as images:
        for image in images:
            for layer in image.layers:
                with (
                    verification.progress.task(f"verify layer {layer.index} of {image.label}") as task,
                    uncompressed_layer(image, layer, verification.limits, task.advance),
                ):
                    layers += 1
        verification.holds("configs", f"{len(images)} images of {path.name} have the digests they are named by")
        if store_json is not None:
            _compare_identity(path, images, store_json)
            verification.holds("store.json", f"lists the same images under the same names as {path.name}")
        verification.held = held_by_archive(images) if store_json is None else held_by_store_json(store_json)
    verification.holds("layers", f"{layers} layers have their diffIDs")


def _compare_identity(path: Path, images: Sequence[Image], store_json: bytes) -> None:
    """An archive knows tags only, so digest references of store.json are left out of the comparison."""
    document = parse_object(store_json, what="store.json", limit_bytes=_STORE_JSON_LIMIT_BYTES)
    try:
        canonical = canonical_json(document)
        stated = {
            item["config"]: (
                sorted(name for name in item["references"] if "@" not in name),
                [(layer["chainID"], layer["diffID"]) for layer in item["layers"]],
            )
            for item in document["images"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenLink(f"store.json lacks a key or holds another type: {error}") from error
    if canonical != store_json:
        raise BrokenLink("store.json is not in its canonical form")
    found = {
        image.config_digest: (sorted(image.references), list(zip(chain_ids(image.diff_ids), image.diff_ids, strict=True)))
        for image in images
    }
    if stated != found:
        raise BrokenLink(f"store.json lists other images, names or layers than {path.name}")


def _bad_block(block: BadBlock) -> str:
    where = {"data": "data block", "hash": f"hash block of level {block.level},", "root": "top hash block"}[block.kind]
    return f"{where} {block.index} (byte {block.offset_bytes}) {'is missing' if block.missing else 'has another digest'}"


def _read_json(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_STORE_JSON_LIMIT_BYTES + 1)


@contextmanager
def _as_link(what: str) -> Iterator[None]:
    """Inside a thing under verification, what would be refused as input is a link that does not hold."""
    try:
        yield
    except (StoreUnreadable, PastLimit) as error:
        raise NotVerifiable(error.message, hint=error.hint) from error
    except Refused as error:
        raise BrokenLink(error.message if what in error.message else f"{what}: {error.message}", hint=error.hint) from error
