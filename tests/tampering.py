"""Finished stores, taken apart into entries, changed, and put together again as an attacker would: consistently."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from memorytar import Memory
from shiplap.audit.verify import Verification, verify_thing
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.limits import Limits
from shiplap.core.output import SUMS_NAME
from shiplap.core.progress import SILENT
from shiplap.core.tar.reader import read_headers
from shiplap.core.tar.records import write_records
from shiplap.rootfs.sinks import SquashfsOptions, open_sink
from shiplap.verity.format import format_file
from shiplap.verity.identity import pad_file, store_image_salt, uuid_for_salt
from shiplap.verity.parameters import VerityParameters
from storeimages import EPOCH

KINDS = {
    b"0": Kind.REGULAR,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
Entries = dict[str, Entry]
Change = Callable[[Entries], object]


def entries_of(tar: bytes) -> Entries:
    """The entries of one of our own tar streams, by path (``.`` is the root)."""
    found: Entries = {}
    for header in read_headers(Memory(tar)):
        path = header.name.rstrip(b"/")
        kind = KINDS[header.typeflag]
        content = Bytes(tar[header.data_offset : header.data_offset + header.data_bytes]) if kind is Kind.REGULAR else None
        found[path.decode("utf-8", "surrogateescape")] = Entry(
            b"" if path == b"." else path,
            kind,
            header.mode,
            header.uid,
            header.gid,
            header.mtime_epoch,
            header.mtime_nanoseconds,
            header.linkname,
            (header.devmajor, header.devminor),
            header.xattrs,
            content,
        )
    return found


def data_of(entry: Entry) -> bytes:
    assert isinstance(entry.content, Bytes)
    return entry.content.data


def edit(entries: Entries, path: str, **fields: object) -> None:
    entries[path] = replace(entries[path], **fields)  # type: ignore[arg-type]


def rewrite(entries: Entries, path: str, change: Callable[[bytes], bytes]) -> None:
    edit(entries, path, content=Bytes(change(data_of(entries[path]))))


def add(entries: Entries, path: str, like: str, **fields: object) -> None:
    """A further entry, sorted in behind its parent."""
    new = replace(entries[like], path=path.encode(), **fields)  # type: ignore[arg-type]
    order = sorted([*entries.values(), new], key=lambda entry: entry.path.split(b"/") if entry.path else [])
    entries.clear()
    entries.update({entry.path.decode("utf-8", "surrogateescape") or ".": entry for entry in order})


def write_image(entries: Iterable[Entry], path: Path, *, epoch: int) -> None:
    """A store image of ``entries``, padded, with its own hash tree and root hash beside it."""
    path.unlink(missing_ok=True)
    held = list(entries)
    with open_sink(SquashfsOptions(level=1, epoch=epoch), path) as write:
        write_records(held, write)
    pad_file(path, 4096)
    store_json = next((data_of(entry) for entry in held if entry.path == b"store.json" and entry.content), b"")
    seal(path, store_json)


def seal(image: Path, store_json: bytes) -> None:
    salt = store_image_salt(store_json)
    tree = image.with_suffix(".verity")
    tree.unlink(missing_ok=True)
    root_hash = format_file(image, tree, VerityParameters(salt=salt, uuid=uuid_for_salt(salt)))
    image.with_suffix(".roothash").write_text(root_hash + "\n")


def write_tar(entries: Iterable[Entry], path: Path) -> None:
    with path.open("wb") as file:
        write_records(entries, file.write)


def write_sums(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir() if path.name != SUMS_NAME)
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / SUMS_NAME).write_text("".join(lines))


def verify(thing: Path, root_hash: str | None = None, limits: Limits | None = None) -> list[tuple[str, str]]:
    """The links that held."""
    verification = Verification(limits or Limits(), SILENT)
    verify_thing(thing, root_hash, verification)
    return verification.links


@dataclass(frozen=True, repr=False)
class Made:
    """A store in memory: store.json, the store image's stream, store.tar."""

    store_json: bytes
    sealed: bytes
    data_root: bytes


class Form:
    """One of the two forms of a store: how its paths are called, and how a changed one is written."""

    def __init__(self, folder: Path, store_json: bytes, tar: bytes, *, image: bool) -> None:
        self.folder = folder
        self.image = image
        self.store_json = store_json
        self.entries = entries_of(tar)
        self.metadata = "skeleton/" if image else ""

    def layer(self, chain: str, path: str = "") -> str:
        root = f"layers/{chain}" if self.image else f"overlay2/{chain}/diff"
        return f"{root}/{path}" if path else root

    def tar_split(self, chain: str) -> str:
        return f"layers/{chain}.tar-split.json.gz" if self.image else f"image/overlay2/layerdb/sha256/{chain}/tar-split.json.gz"

    def write(self) -> Path:
        """The store as it is now, in a folder of its own where sums, hash tree and root hash all fit."""
        name = "store.squashfs" if self.image else "store.tar"
        if self.image:
            write_image(self.entries.values(), self.folder / name, epoch=EPOCH)
        else:
            write_tar(self.entries.values(), self.folder / name)
        (self.folder / "store.json").write_bytes(self.store_json)
        write_sums(self.folder)
        return self.folder
