"""An output folder of ``shiplap build`` as the ingredients of a firmware: each file proven against SHA256SUMS before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shiplap.core.entries import Entry, FileSlice, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.jsontext import parse_object
from shiplap.core.layer.rules import clean
from shiplap.core.output import SUMS_NAME, sha256_file
from shiplap.core.platform import Platform, parse_platform
from shiplap.core.store.identity import EPOCH_MAX
from shiplap.core.tar.reader import read_headers
from shiplap.core.tar.records import KINDS
from shiplap.core.tar.window import Window
from shiplap.rootfs.target.conf import conf_values

KIT_NAME = "target.tar"
KIT_CONF = b"etc/shiplap/store.conf"
_STORE_IMAGES = ("store.squashfs", "store.erofs")
_ARCHIVES = ("images.tar", "images.tar.gz", "images.tar.xz", "images.tar.zst")
_SEAL = ("store.verity", "store.roothash")
_SIGNATURE = "store.roothash.p7s"
_SIGNATURE_BYTES_MAX = 32767
"""What a key in the kernel's ring may have (security/keys/user_defined.c): dm-verity is handed the signature as one."""
_SMALL_BYTES = 16 << 20
_KIT_ENTRIES_MAX = 10_000


class StoreFolderRefused(Refused):
    """A folder that is no finished build, or not one that a root file system can take."""


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """``image``: the store image or, in archive mode, the archive. ``root_hash``: hex, None where the store is not sealed.

    ``placed``: every file that goes to the device, ``image`` first. ``kit``: target.tar, None where the build wrote none.
    ``sums``: sha256 of what was used, by file name.
    """

    mode: str
    engine: str
    platform: Platform
    store_path: str
    epoch: int
    image: Path
    root_hash: str | None
    placed: tuple[Path, ...]
    kit: Path | None
    sums: dict[str, str]

    @property
    def tree(self) -> Path | None:
        """The hash tree of the store image."""
        return self._placed(_SEAL[0])

    @property
    def signature(self) -> Path | None:
        """The signature of its root hash, where somebody has put one beside it."""
        return self._placed(_SIGNATURE)

    def _placed(self, name: str) -> Path | None:
        return next((path for path in self.placed if path.name == name), None)


def read_store_folder(folder: Path, advance: Callable[[int], object] = lambda amount_bytes: None) -> StoreFolder:
    """Read and prove the folder. Raises StoreFolderRefused, also for a file that differs from SHA256SUMS."""
    stated = _sums(folder)
    images = [name for name in (*_STORE_IMAGES, *_ARCHIVES) if name in stated]
    if "store.json" not in stated or not images:
        raise StoreFolderRefused(
            f"{folder} has no store image and no archive for a root file system", hint="build with `--output squashfs,verity`"
        )
    sealed = all(name in stated for name in _SEAL)
    names = [images[0], *(_SEAL if sealed else ())]
    sums = {}
    for name in (*names, "store.json", *([KIT_NAME] if KIT_NAME in stated else [])):
        sums[name] = _proven(folder / name, stated[name], advance)
    identity = parse_object(_small(folder / "store.json"), what=f"{folder}/store.json", limit_bytes=_SMALL_BYTES)
    mode, engine, store_path, epoch = (identity.get(key) for key in ("mode", "engine", "store-path", "epoch"))
    if not (
        isinstance(mode, str) and isinstance(engine, str) and isinstance(store_path, str) and isinstance(identity.get("platform"), str)
    ):
        raise StoreFolderRefused(f"{folder}/store.json does not say what the store is")
    if not store_path.startswith("/") or not store_path.strip("/") or {".", ".."} & set(store_path.split("/")):
        raise StoreFolderRefused(f"{folder}/store.json names the store path {store_path!r:.80}")
    if not isinstance(epoch, int) or not 0 <= epoch <= EPOCH_MAX:
        raise StoreFolderRefused(f"{folder}/store.json has no epoch")
    signature = [_SIGNATURE] if sealed and _has_signature(folder / _SIGNATURE) else []
    return StoreFolder(
        mode,
        engine,
        parse_platform(identity["platform"]).normalised,
        store_path,
        epoch,
        folder / images[0],
        _root_hash(folder / _SEAL[1]) if sealed else None,
        tuple(folder / name for name in (*names, *signature)),
        folder / KIT_NAME if KIT_NAME in stated else None,
        sums,
    )


@contextmanager
def kit_entries(kit: Path) -> Iterator[Iterator[Entry]]:
    """The target kit's files as entries. Raises StoreFolderRefused for what our own kit never has."""
    with kit.open("rb") as file:
        yield _entries(FileSlice(file.fileno(), 0, kit.stat().st_size, kit.name))


def kit_conf(kit: Path) -> bytes:
    """The target kit's ``store.conf``. Raises StoreFolderRefused."""
    with kit_entries(kit) as entries:
        for entry in entries:
            if entry.path == KIT_CONF and entry.content is not None and entry.content.size_bytes < _SMALL_BYTES:
                return b"".join(entry.content.chunks())
    raise StoreFolderRefused(f"{kit} has no /{KIT_CONF.decode()}", hint="build again")


def kit_image(kit: Path) -> str:
    """Where the target kit looks for the store image: a path, ``PARTUUID=…``, or empty. Raises StoreFolderRefused."""
    values = conf_values(kit_conf(kit))
    return values.get("IMAGE", "") + values.get("ARCHIVE", "")


def _entries(tar: FileSlice) -> Iterator[Entry]:
    for count, header in enumerate(read_headers(Window(tar), what=tar.name)):
        path = clean(header.name).lstrip(b"/")
        kind = KINDS.get(header.typeflag)
        if path == b".":
            continue
        if count > _KIT_ENTRIES_MAX or kind not in (Kind.REGULAR, Kind.DIRECTORY, Kind.SYMLINK) or path.startswith(b".."):
            raise StoreFolderRefused(f"{tar.name}: {printable(header.name)} is nothing that a target kit has")
        content = None
        if kind is Kind.REGULAR:
            content = FileSlice(tar.descriptor, tar.offset + header.data_offset, header.data_bytes, tar.name)
        yield Entry(
            path, kind, header.mode & 0o7777, header.uid, header.gid, max(0, header.mtime_epoch), link=header.linkname, content=content
        )


def _sums(folder: Path) -> dict[str, str]:
    try:
        lines = _small(folder / SUMS_NAME).decode("ascii", "replace").splitlines()
    except FileNotFoundError:
        raise StoreFolderRefused(
            f"{folder} is no finished build: it has no {SUMS_NAME}", hint="name the output folder of `shiplap build`"
        ) from None
    except OSError as error:
        raise StoreFolderRefused(f"cannot read {folder}: {error.strerror}") from error
    pairs = [line.partition("  ") for line in lines]
    return {name: digest for digest, _, name in pairs}


def _proven(path: Path, stated: str, advance: Callable[[int], object]) -> str:
    try:
        found, _ = sha256_file(path, advance)
    except OSError as error:
        raise StoreFolderRefused(f"cannot read {path}: {error.strerror}", hint="build again") from error
    if found != stated:
        raise StoreFolderRefused(f"{path} is not what {SUMS_NAME} says: sha256 {found}, stated {stated:.64}", hint="build again")
    return found


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_SMALL_BYTES + 1)
    if len(data) > _SMALL_BYTES:
        raise StoreFolderRefused(f"{path} has more than {_SMALL_BYTES} bytes")
    return data


def _has_signature(path: Path) -> bool:
    """It is attached after the build: no sum covers it."""
    if not path.exists():
        return False
    if not path.is_file() or not 0 < path.stat().st_size <= _SIGNATURE_BYTES_MAX:
        raise StoreFolderRefused(
            f"{path} is no signature: a file of 1 to {_SIGNATURE_BYTES_MAX} bytes is one", hint="sign store.roothash again, or remove it"
        )
    return True


def _root_hash(path: Path) -> str:
    text = _small(path).decode("ascii", "replace").strip()
    if not 40 <= len(text) <= 128 or not set(text) <= set("0123456789abcdef"):
        raise StoreFolderRefused(f"{path} holds no root hash")
    return text
