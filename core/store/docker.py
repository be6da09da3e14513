"""Docker's data-root: the small files around the layers' trees, for the drivers overlay2 and vfs.

Layout, names and modes as the engine's own code writes them (moby: layer/filestore.go, image/fs.go,
reference/store.go, daemon/graphdriver/overlay2/overlay.go). The engine's random values are replaced by
content: the cache-id is the chainID's hex, the link name comes from a hash of the chainID.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator

from shiplap.core.entries import Bytes, Content, Entry, Kind
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import LayerFacts, StoredImage, unique_layers

DATA_ROOT_MODE = 0o710
_LINK_NAME_LENGTH = 26
_SIZE_MAX_DIGITS = 20


def link_name(chain_id: str) -> str:
    """The short name below ``overlay2/l`` that keeps mount options short: 26 base32 characters."""
    return base64.b32encode(hashlib.sha256(f"link:{chain_id}".encode()).digest()).decode()[:_LINK_NAME_LENGTH]


class MetadataTree:
    """Small files and directories, gathered in any order, given out as a sorted tree."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._entries: dict[tuple[bytes, ...], Entry] = {}

    def directory(self, path: str, mode: int) -> None:
        self._put(Entry(path.encode(), Kind.DIRECTORY, mode, mtime_epoch=self._epoch))

    def file(self, path: str, content: bytes | Content, mode: int) -> None:
        held = Bytes(content) if isinstance(content, bytes) else content
        self._put(Entry(path.encode(), Kind.REGULAR, mode, mtime_epoch=self._epoch, content=held))

    def symlink(self, path: str, target: str) -> None:
        self._put(Entry(path.encode(), Kind.SYMLINK, 0o777, mtime_epoch=self._epoch, link=target.encode()))

    def _put(self, entry: Entry) -> None:
        self._entries[tuple(entry.path.split(b"/")) if entry.path else ()] = entry

    def entries(self) -> Iterator[Entry]:
        """Parents first, children in byte order of their names."""
        for key in sorted(self._entries):
            yield self._entries[key]


_DRIVER_DIRECTORIES = {"overlay2": (("overlay2", 0o710), ("overlay2/l", 0o700)), "vfs": (("vfs", 0o710), ("vfs/dir", 0o710))}


def put_base(tree: MetadataTree, at: str, driver: str = "overlay2") -> None:
    """The directories every data-root of this driver has, below ``at`` (``skeleton/`` or nothing)."""
    tree.directory(at.rstrip("/"), DATA_ROOT_MODE)
    for path, mode in (
        ("image", 0o700),
        (f"image/{driver}", 0o700),
        (f"image/{driver}/imagedb", 0o700),
        (f"image/{driver}/imagedb/content", 0o700),
        (f"image/{driver}/imagedb/content/sha256", 0o700),
        (f"image/{driver}/layerdb", 0o700),
        (f"image/{driver}/layerdb/sha256", 0o755),
        *_DRIVER_DIRECTORIES[driver],
    ):
        tree.directory(at + path, mode)


def config_path(driver: str, config_digest: str) -> str:
    """Where the data-root keeps a config."""
    return f"image/{driver}/imagedb/content/sha256/{config_digest.partition(':')[2]}"


def record_path(driver: str, layer_hex: str) -> str:
    """The directory of a layer's record in the layer database."""
    return f"image/{driver}/layerdb/sha256/{layer_hex}"


def put_images(tree: MetadataTree, at: str, images: Iterable[StoredImage], driver: str = "overlay2") -> None:
    """Configs, ``repositories.json``, and which layer is which registry's blob."""
    repositories: dict[str, dict[str, str]] = {}
    for stored in images:
        digest = stored.image.config_digest
        tree.file(at + config_path(driver, digest), stored.image.config, 0o600)
        for reference in stored.references:
            name = reference.familiar_name
            names = repositories.setdefault(name, {})
            if reference.tag:
                names[f"{name}:{reference.tag}"] = digest
            if reference.digest:
                names[f"{name}@{reference.digest}"] = digest
        put_blobs(tree, at, stored, driver)
    text = json.dumps({"Repositories": repositories}, sort_keys=True, separators=(",", ":"))
    tree.file(f"{at}image/{driver}/repositories.json", text.encode(), 0o600)


def put_record(tree: MetadataTree, at: str, facts: LayerFacts, driver: str) -> None:
    """A layer's record in ``layerdb``, without ``tar-split.json.gz``."""
    stored = facts.stored
    record = at + record_path(driver, stored.hex)
    tree.directory(record, 0o700)
    tree.file(f"{record}/cache-id", stored.hex.encode(), 0o644)
    tree.file(f"{record}/diff", stored.layer.diff_id.encode(), 0o644)
    tree.file(f"{record}/size", str(facts.size_bytes).encode(), 0o644)
    if stored.ancestors:
        tree.file(f"{record}/parent", stored.ancestors[0].encode(), 0o644)


def put_blobs(tree: MetadataTree, at: str, stored: StoredImage, driver: str) -> None:
    """By this map a later pull says "Already exists" instead of fetching a layer again (distribution/metadata/metadata.go)."""
    for diff_id, blob in zip(stored.image.diff_ids, stored.blobs, strict=False):
        if blob is not None:
            home = f"{at}image/{driver}/distribution"
            algorithm, _, blob_hex = blob.partition(":")
            tree.directory(home, 0o700)
            tree.directory(f"{home}/diffid-by-digest", 0o755)
            tree.directory(f"{home}/diffid-by-digest/{algorithm}", 0o755)
            tree.file(f"{home}/diffid-by-digest/{algorithm}/{blob_hex}", diff_id.encode(), 0o644)


def put_layer(tree: MetadataTree, at: str, facts: LayerFacts) -> None:
    """A layer's record in ``layerdb`` and its directory below ``overlay2``.

    Not among them: ``diff`` and ``tar-split.json.gz``, which are links in a skeleton and real in a
    data-root.
    """
    stored = facts.stored
    put_record(tree, at, facts, "overlay2")
    home = f"{at}overlay2/{stored.hex}"
    tree.directory(home, 0o710)
    tree.file(f"{home}/link", link_name(stored.chain_id).encode(), 0o644)
    tree.symlink(f"{at}overlay2/l/{link_name(stored.chain_id)}", f"../{stored.hex}/diff")
    # The engine makes it when something is put on a layer; until then it mounts the layer writable (to save an image, for
    # one), which fails for a layer that lies in a read-only image (overlay.go, ``Get``).
    tree.file(f"{home}/committed", b"", 0o600)
    if stored.ancestors:
        tree.file(f"{home}/lower", ":".join(f"l/{link_name(chain_id)}" for chain_id in stored.ancestors).encode(), 0o644)
        tree.directory(f"{home}/work", 0o700)


def read_sizes(driver: str, read: Callable[[str], bytes], identity: StoreIdentity) -> dict[str, int] | None:
    """chainID → the ``size`` in each layer's record; None when one is no number."""
    found: dict[str, int] = {}
    for stored in unique_layers(identity.images):
        text = read(f"{record_path(driver, stored.hex)}/size")
        if not text.isdigit() or len(text) > _SIZE_MAX_DIGITS:
            return None
        found[stored.chain_id] = int(text)
    return found
