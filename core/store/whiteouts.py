"""How the layers of a store image say what they hide: as overlayfs marks it, or without extended attributes.

Linux without CONFIG_SQUASHFS_XATTR ignores the extended attributes of an image, in silence: a directory that was marked
opaque shows again what lies below it. ``squashfs: {whiteouts: explicit}`` writes in its place a whiteout (a character
device 0:0) for every name that it hides, so that a container sees the same tree. Rules: kernel, filesystems/overlayfs.rst.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from shiplap.core.elfreport import Allowances
from shiplap.core.entries import Entry, FileSlice, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.tree import OPAQUE, Inode, LayerTree
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import StoredImage, StoredLayer, unique_layers

EXPLICIT = "explicit"
_SHOWN = 10


class LostXattrs(Refused):
    """Files of an image have extended attributes that a store image without any cannot hold."""


@dataclass(frozen=True, slots=True)
class _Lost:
    """A file or directory with attributes: the layer's index, its diffID, the attributes' names."""

    layer: int
    diff_id: str
    names: tuple[bytes, ...]


class _Folder:
    """A directory of several layers together. ``names``: what is seen in it. Never changed once the layer is done."""

    __slots__ = ("lost", "names")

    def __init__(self, lost: _Lost | None = None) -> None:
        self.lost = lost
        self.names: dict[bytes, _Seen] = {}


_Seen: TypeAlias = "_Folder | _Lost | None"  # None: anything but a directory, without attributes
_NOTHING = _Folder()


def has_explicit_whiteouts(identity: StoreIdentity) -> bool:
    """Whether the store image has whiteouts in the place of opaque directories, and no extended attributes."""
    form = dict(identity.options).get("squashfs")
    return isinstance(form, dict) and form.get("whiteouts") == EXPLICIT


class ImageTrees:
    """The layers' trees as a store image holds them. Layers below come first, as :func:`unique_layers` lists them.

    ``finish`` judges what the images lose; who only compares leaves it out.
    """

    def __init__(self, identity: StoreIdentity) -> None:
        self._images = identity.images
        self._epoch = identity.epoch
        self.explicit = has_explicit_whiteouts(identity)
        # What the layers of a chain show together, as long as a layer to come lies on it. Directories that a layer leaves
        # alone are the same object in all of them.
        self._shown: dict[str, _Folder] = {}
        self._uses = Counter(one.ancestors[0] for one in unique_layers(identity.images) if one.ancestors) if self.explicit else Counter()
        self._tops = {one.chain_ids[-1] for one in identity.images if one.chain_ids} if self.explicit else set()
        # By the chainID of an image's uppermost layer.
        self._lost: dict[str, list[tuple[bytes, _Lost]]] = {}

    def stream(self, stored: StoredLayer, tree: LayerTree, root: bytes, tar: FileSlice) -> Iterator[Entry]:
        """The layer's entries below ``root``, with content from its ``tar``."""
        if not self.explicit:
            yield from tree.stream(root, tar)
            return
        for entry in self._explicit(stored, tree).stream(root, tar):
            yield replace(entry, xattrs=()) if entry.xattrs else entry

    def _explicit(self, stored: StoredLayer, tree: LayerTree) -> LayerTree:
        below = _NOTHING
        if stored.ancestors:
            parent = stored.ancestors[0]
            below = self._shown[parent]
            self._uses[parent] -= 1
            if not self._uses[parent]:
                del self._shown[parent]
        layer = _ExplicitLayer(stored, self._epoch)
        made, shown = layer.over(below, tree)
        if self._uses[stored.chain_id]:
            self._shown[stored.chain_id] = shown
        if stored.chain_id in self._tops:
            self._lost[stored.chain_id] = list(_lost(shown))
        return made

    def finish(self, note: Callable[[str], object]) -> None:
        """Tell ``note`` what images lose because they may; raises LostXattrs where one may not."""
        if not self.explicit:
            return
        refused: list[tuple[StoredImage, bytes, _Lost]] = []
        for stored in self._images:
            allowed = Allowances(stored.allow_lost_xattrs)
            for path, lost in self._lost.get(stored.chain_ids[-1], ()) if stored.chain_ids else ():
                if allowed.allows(path):
                    note(f"{stored.image.label}: /{printable(path)} loses {lost_names(lost)}, as `allow-lost-xattrs` says")
                else:
                    refused.append((stored, path, lost))
            for text in allowed.unused():
                note(f"{stored.image.label}: `allow-lost-xattrs: {text}` matches nothing that has extended attributes")
        if refused:
            raise _refusal(refused)


class _ExplicitLayer:
    """Turns one layer's opaque directories into whiteouts."""

    def __init__(self, stored: StoredLayer, epoch: int) -> None:
        self._stored = stored
        self._epoch = epoch

    def over(self, below: _Folder, tree: LayerTree) -> tuple[LayerTree, _Folder]:
        """The layer's tree with whiteouts, and what it shows together with ``below``. ``tree`` itself stays as it is."""
        root, top = _copied(tree.root), _Folder()
        # The root's own mark is read by no kernel (see core/layer/merged.py), so it hides nothing here either.
        waiting = [(tree.root, root, below, top, False)]
        while waiting:
            directory, copy, under, shown, hides = waiting.pop()
            assert directory.children is not None and copy.children is not None
            if hides:
                copy.children.update((name, self._whiteout()) for name in under.names if name not in directory.children)
            else:
                shown.names.update(under.names)
            for name, inode in directory.children.items():
                if inode.children is None:
                    copy.children[name] = inode
                    if inode.kind is Kind.CHARACTER and inode.device == (0, 0):
                        shown.names.pop(name, None)
                    else:
                        shown.names[name] = self._lost(inode)
                    continue
                lower = under.names.get(name)
                made, seen = _copied(inode), _Folder(self._lost(inode))
                copy.children[name], shown.names[name] = made, seen
                # overlayfs looks for nothing below an opaque directory, so whatever meets one there has to be hidden, too.
                opaque = hides or (inode.xattrs is not None and OPAQUE[0] in inode.xattrs)
                waiting.append((inode, made, lower if isinstance(lower, _Folder) else _NOTHING, seen, opaque))
        return LayerTree(root), top

    def _whiteout(self) -> Inode:
        return Inode(Kind.CHARACTER, 0, 0, 0, self._epoch)

    def _lost(self, inode: Inode) -> _Lost | None:
        names = tuple(sorted(name for name in inode.xattrs or () if name != OPAQUE[0]))
        return _Lost(self._stored.layer.index, self._stored.layer.diff_id, names) if names else None


def _copied(one: Inode) -> Inode:
    return Inode(Kind.DIRECTORY, one.mode, one.uid, one.gid, one.mtime_epoch, one.mtime_nanoseconds)


def _lost(top: _Folder) -> Iterator[tuple[bytes, _Lost]]:
    """Everything below ``top`` that has attributes, by path. The root is left out: a container has one of its own."""
    found: list[tuple[bytes, _Lost]] = []
    waiting = [(b"", top)]
    while waiting:
        prefix, folder = waiting.pop()
        for name, seen in folder.names.items():
            lost = seen.lost if isinstance(seen, _Folder) else seen
            if lost is not None:
                found.append((prefix + name, lost))
            if isinstance(seen, _Folder):
                waiting.append((prefix + name + b"/", seen))
    yield from sorted(found, key=lambda pair: pair[0])


def lost_names(lost: _Lost) -> str:
    """The attributes for a message; ``security.capability`` by the name that people know it by."""
    return ", ".join("its file capability" if name == b"security.capability" else printable(name) for name in lost.names)


def _refusal(refused: Iterable[tuple[StoredImage, bytes, _Lost]]) -> LostXattrs:
    found = list(refused)
    lines = [
        f"{stored.image.label}, layer {lost.layer} ({lost.diff_id[:19]}): /{printable(path)} would lose {lost_names(lost)}"
        for stored, path, lost in found[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        lines.append(f"and {len(found) - _SHOWN} more")
    heading = "`squashfs: {whiteouts: explicit}` leaves no extended attributes in the store image"
    return LostXattrs(
        "\n  ".join([heading, *lines]),
        hint="where the containers do without them, name the paths or folders at the image: `allow-lost-xattrs: […]`;"
        " else set CONFIG_SQUASHFS_XATTR in the device's kernel and leave `whiteouts` out, or use `mode: archive`",
    )
