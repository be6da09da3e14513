"""Which files of a layer are seen in the image, without laying the layers over each other as trees.

A layer is looked at once, in whatever order the layers come; of each only hashes of paths are kept that hide something below it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from shiplap.core.entries import Content, FileSlice, Kind
from shiplap.core.layer.rules import OPAQUE_MARKER, WHITEOUT_PREFIX, clean
from shiplap.core.layer.tree import LayerTree
from shiplap.core.tar.reader import TarCorrupt
from shiplap.core.tar.records import KINDS
from shiplap.core.tar.skim import Skimmed, skim_headers
from shiplap.core.tar.window import Window


class LayerAudit(Protocol):
    """Looks at every layer once while it is read anyway: as a tree, or as a tar where there is no tree of it."""

    def tree(self, diff_id: str, tree: LayerTree, tar: FileSlice) -> None: ...

    def tar(self, diff_id: str, tar: FileSlice, where: str, entries_max: int) -> None: ...


@dataclass(slots=True)
class Hidden:
    """What a layer hides of those below it, as hashes of paths.

    ``all``: the path and everything below it goes (files, links, whiteouts, opaque directories). ``files``: only a file of that
    name goes, since directories merge. The hash is Python's own: 64 bits, and a key that images cannot know.
    """

    all: array[int] = field(default_factory=lambda: array("q"))
    files: array[int] = field(default_factory=lambda: array("q"))

    def add(self, path: bytes, *, merges: bool) -> None:
        (self.files if merges else self.all).append(hash(path))

    def among(self, interesting: set[int]) -> tuple[set[int], set[int]]:
        """``all`` and ``files``, of them what :func:`hashes_of` knows."""
        return {one for one in self.all if one in interesting}, {one for one in self.files if one in interesting}

    def __len__(self) -> int:
        return len(self.all) + len(self.files)


def hashes_of(names: Iterable[bytes]) -> set[int]:
    """Of paths and all directories above them."""
    hashes: set[int] = set()
    directories: set[bytes] = set()
    for name in names:
        hashes.add(hash(name))
        for directory in _ancestors(name):
            if directory in directories:
                break
            directories.add(directory)
            hashes.add(hash(directory))
    return hashes


def is_hidden(name: bytes, hidden_all: set[int], hidden_files: set[int]) -> bool:
    """Whether layers above, whose :meth:`Hidden.among` are given, hide the file ``name``."""
    if not hidden_all and not hidden_files:
        return False
    own = hash(name)
    return own in hidden_files or own in hidden_all or any(hash(directory) in hidden_all for directory in _ancestors(name))


def _ancestors(path: bytes) -> Iterator[bytes]:
    """``a/b``, ``a`` and the root of ``a/b/c``."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


class TarReading:
    """A layer's tar, entry by entry, without the rules that make a tree of it: nothing is refused here.

    ``files``: the regular files that ``wants`` takes by their headers, with all their names and contents, by the first name.
    ``hidden``: for a layer that has others below it (``is_upper``).
    """

    def __init__(self, tar: FileSlice, is_upper: bool, wants: Callable[[Skimmed], bool]) -> None:
        self._tar = tar
        self._wants = wants
        self.hidden = Hidden() if is_upper else None
        self.files: dict[bytes, tuple[list[bytes], Content]] = {}
        self._parents: set[int] = set()

    def read(self, where: str, entries_max: int) -> None:
        """Raises TarCorrupt; what came before it has been taken."""
        hidden = self.hidden
        for number, header in enumerate(skim_headers(Window(self._tar), what=where)):
            if number >= entries_max:
                raise TarCorrupt(f"{where}: it has more than {entries_max} entries")
            kind = KINDS.get(header.typeflag)
            wanted = kind is Kind.REGULAR and not header.sparse and self._wants(header)
            # In a base layer the others are of no interest, and most entries are others.
            if kind is None or (hidden is None and not wanted and kind is not Kind.HARDLINK):
                continue
            path = clean(header.name).lstrip(b"/")
            if path in (b"", b".", b"..") or path.startswith(b"../"):
                continue
            parent, _, base = path.rpartition(b"/")
            if hidden is not None:
                self._hide(path, parent, base, hidden, directory=kind is Kind.DIRECTORY)
                # As the layer rules: a few paths of thousands of folders each would take all memory.
                if len(self._parents) > 2 * entries_max:
                    raise TarCorrupt(f"{where}: it implies more than {2 * entries_max} directories")
            if base.startswith(WHITEOUT_PREFIX):
                continue
            if kind is Kind.HARDLINK:
                target = clean(header.linkname).lstrip(b"/")
                if target in self.files:
                    self.files[target][0].append(path)
            elif wanted:
                content = FileSlice(self._tar.descriptor, self._tar.offset + header.data_offset, header.data_bytes, self._tar.name)
                self.files[path] = ([path], content)

    def _hide(self, path: bytes, parent: bytes, base: bytes, hidden: Hidden, *, directory: bool) -> None:
        while parent and (own := hash(parent)) not in self._parents:
            # Implied directories, too, take the place of files below.
            self._parents.add(own)
            hidden.add(parent, merges=True)
            parent = parent.rpartition(b"/")[0]
        if base == OPAQUE_MARKER:
            # On the root of a layer overlayfs takes no notice of it.
            if path != base:
                hidden.add(path.rpartition(b"/")[0], merges=False)
        elif base.startswith(WHITEOUT_PREFIX):
            hidden.add(path[: -len(base)] + base[len(WHITEOUT_PREFIX) :], merges=False)
        else:
            hidden.add(path, merges=directory)
