"""One layer of the chain: tar-split data and files → its tar = the diffID → the tree that follows from it = the stored tree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import IO

from shiplap.audit.links import BrokenLink, equal_content, require_same
from shiplap.audit.reassembly import reassemble
from shiplap.audit.storeview import StoreView
from shiplap.core.entries import Content, Entry, FileSlice, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.rules import clean
from shiplap.core.layer.spool import cannot_spool
from shiplap.core.layer.tarsplit import SEGMENT_BYTES, FilePart, Segment, StoredGzip, TarSplitWriter, read_parts
from shiplap.core.layer.unpack import TarOutline, write_tar_split
from shiplap.core.limits import Limits, PastLimit
from shiplap.core.store.forms import StoreForm
from shiplap.core.store.model import LayerFacts, StoredLayer
from shiplap.core.store.unpacking import Unpacking
from shiplap.core.store.whiteouts import ImageTrees


@dataclass(frozen=True, slots=True)
class LayerDone:
    """``facts``: what the engine's metadata must say of the layer."""

    facts: LayerFacts
    entries: int


def _where(view: StoreView, stored: StoredLayer) -> str:
    return f"{view.name}, layer {stored.hex[:12]} ({stored.where})"


def tar_split_of(view: StoreView, stored: StoredLayer, form: StoreForm) -> Content:
    """The layer's tar-split data; raises BrokenLink."""
    found = view.find(form.tar_split(stored, view.sealed))
    if found is None or found.content is None:
        raise BrokenLink(f"{_where(view, stored)}: its tar-split data is missing")
    return found.content


class LayerLink:
    """One layer: its stored entries, its tar put together again, the tree derived from that tar.

    ``trees``: how a store image holds the trees, None where they are held as they are.
    """

    def __init__(
        self,
        view: StoreView,
        stored: StoredLayer,
        form: StoreForm,
        unpacking: Unpacking,
        trees: ImageTrees | None,
        limits: Limits,
        *,
        threads: bool,
    ) -> None:
        self._view = view
        self._stored = stored
        self._unpacking = unpacking
        self._trees = trees
        self._limits = limits
        self._threads = threads
        self._root = form.layer_root(stored, view.sealed)
        self._where = _where(view, stored)
        self.tar_split = tar_split_of(view, stored, form)
        # By path inside the layer.
        self._entries: dict[bytes, Entry] = {}
        # Offset in the tar → path: contents that were taken from the stored tree and need no second look.
        self._taken: dict[int, bytes] = {}
        # Offset in the tar → checksum of the file there, proven while the tar was put together.
        self._checksums: dict[int, bytes] = {}
        self._tar_split_sha256 = b""

    def check(self, spool: IO[bytes], advance: Callable[[int], object]) -> LayerDone:
        """Raises BrokenLink and PastLimit. ``spool``: gets the layer's tar; ``advance``: is told its bytes."""
        if self._view.find(self._root) is None:
            raise BrokenLink(f"{self._where}: its tree is missing")
        cut = len(self._root) + 1
        for entry in self._view.subtree(self._root):
            self._entries[entry.path[cut:]] = entry
        tar_bytes = self._reassemble(spool, advance)
        tar = FileSlice(spool.fileno(), 0, tar_bytes, self._where)
        unpacked = self._unpacking.layer(self._stored, tar, where=self._where, entries_max=self._limits.entries, note=lambda message: None)
        self._check_tar_split(tar, unpacked.outline)
        count = 0
        tree = unpacked.tree
        for derived in tree.stream(self._root, tar) if self._trees is None else self._trees.stream(self._stored, tree, self._root, tar):
            wanted = self._view.keeps(derived)
            stored = self._entries.pop(derived.path[cut:], None)
            if wanted.kind is Kind.HARDLINK and not wanted.link.startswith(self._root + b"/"):
                self._require_shared(wanted, stored)
            else:
                require_same(wanted, stored, self._where, self._same_content)
            count += 1
        if self._entries:
            extra = min(self._entries)
            raise BrokenLink(f"{self._where}: '{printable(extra)}' is in the store, but not in the layer")
        return LayerDone(unpacked.facts, count)

    def _require_shared(self, wanted: Entry, stored: Entry | None) -> None:
        """A file of a lower layer's tree under its name in this one. Only a tar says which of its names is the first."""
        if not self._view.sealed:
            require_same(wanted, stored, self._where, self._same_content)
            return
        first = self._view.find(wanted.link)
        if stored is not None and stored.kind is Kind.HARDLINK:
            stored = self._view.find(stored.link)
        if stored is None or first is None:
            raise BrokenLink(f"{self._where}: '{printable(wanted.path)}' is missing")
        require_same(replace(first, path=wanted.path), stored, self._where, lambda one, other, _: equal_content(one, other))

    def _check_tar_split(self, tar: FileSlice, outline: TarOutline) -> None:
        """Other data could give the same tar; only one form of it follows from the tar."""
        hasher = hashlib.sha256()
        gzip = StoredGzip(hasher.update)
        write_tar_split(tar, outline, TarSplitWriter(gzip.write), known=self._checksums)
        gzip.close()
        if hasher.digest() != self._tar_split_sha256:
            raise BrokenLink(f"{self._where}: its tar-split data gives the layer's tar, but is not what shiplap writes for it")

    def _parts(self) -> Iterator[Segment | FilePart]:
        hasher = hashlib.sha256()

        def hashed(chunks: Iterator[bytes]) -> Iterator[bytes]:
            for chunk in chunks:
                hasher.update(chunk)
                yield chunk

        parts_max = 3 * self._limits.entries + self._limits.layer_bytes // SEGMENT_BYTES
        parts = read_parts(hashed(self.tar_split.chunks()), what=f"tar-split data of {self._where}")
        for number, part in enumerate(parts):
            if number > parts_max:
                raise PastLimit(
                    f"{self._where}: its tar-split data has more than {parts_max} parts",
                    hint="give --limit entries=… if you trust the store",
                )
            yield part
        self._tar_split_sha256 = hasher.digest()

    def _content(self, path: bytes) -> Content | None:
        entry = self._entries.get(path)
        if entry is not None and entry.kind is Kind.HARDLINK:
            entry = self._view.find(entry.link)
        return None if entry is None else entry.content

    def _reassemble(self, spool: IO[bytes], advance: Callable[[int], object]) -> int:
        # Of parts that were begun: most tars spell every name in a way that has to be cleaned.
        paths: dict[bytes, bytes] = {}

        def content(part: FilePart, offset: int) -> Content:
            path = paths.pop(part.name, None) or _path(part)
            found = self._content(path)
            if found is None:
                raise BrokenLink(f"{self._where}: the layer's file '{printable(part.name)}' is missing")
            self._taken[offset] = path
            return found

        def begin(part: FilePart) -> bool:
            path = paths.get(part.name) or paths.setdefault(part.name, _path(part))
            found = self._content(path)
            return found is None or self._view.begin(found)

        passed_bytes = 0

        def advanced(amount_bytes: int) -> None:
            nonlocal passed_bytes
            passed_bytes += amount_bytes
            if passed_bytes > self._limits.layer_bytes:
                raise PastLimit(
                    f"{self._where}: its tar is larger than {self._limits.layer_bytes} bytes",
                    hint="give --limit layer-bytes=… if you trust the store",
                )
            advance(amount_bytes)

        try:
            made = reassemble(self._parts(), content, begin, spool, advanced, what=self._where, threads=self._threads)
            spool.flush()
        except OSError as error:
            raise cannot_spool(self._where, error) from error
        except PastLimit:
            raise
        except Refused as error:
            raise BrokenLink(error.message, hint=error.hint) from error
        digest = "sha256:" + made.sha256_hex
        if digest != self._stored.layer.diff_id:
            raise BrokenLink(f"{self._where}: the tar from its files has diffID {digest}, the config says {self._stored.layer.diff_id}")
        self._checksums = made.checksums
        return made.size_bytes

    def _same_content(self, derived: Content, stored: Content, path: bytes) -> bool:
        assert isinstance(derived, FileSlice)
        if derived.size_bytes != stored.size_bytes:
            return False
        if derived.size_bytes == 0 or self._taken.get(derived.offset) == path[len(self._root) + 1 :]:
            return True
        return equal_content(derived, stored)


def _path(part: FilePart) -> bytes:
    return clean(part.name.lstrip(b"/"))
