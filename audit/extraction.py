"""``extract``: the entries of a SquashFS, a tar, a store or an image as one canonical stream.

A path means what is in that file. An image (a source, or a reference that is picked from a store or an
archive) means the root file system that a container of it would see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from shiplap.audit import thingkinds as kinds
from shiplap.audit.diffstores import Store, open_store
from shiplap.audit.difftar import open_tar_tree
from shiplap.audit.trees import NotInTree, SquashfsTree, TarTree, Tree, open_squashfs_tree, order_key, relative
from shiplap.core.entries import Entry, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.image import Image
from shiplap.core.jsontext import shown
from shiplap.core.layer.merged import MergedTree
from shiplap.core.layer.rules import clean
from shiplap.core.layer.spool import uncompressed_layer
from shiplap.core.layer.unpack import unpack_layer
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform
from shiplap.core.progress import Progress
from shiplap.core.reference import ReferenceInvalid, parse_reference
from shiplap.core.sources import Access, SourceSpec, open_images

_STORE_JSON_LIMIT_BYTES = 16 << 20
_ARCHIVES = ("images.tar", "images.tar.gz", "images.tar.xz", "images.tar.zst")
_LISTED = 20
_HINT = "a SquashFS, a tar, an output folder, or a source such as oci:DIR"
_EROFS_HINT = "for an EROFS there is `fsck.erofs --extract=DIR`"


class NotExtractable(Refused):
    """Something that holds no entries, or an image that is not there."""


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """``image``: reference or config digest of the image whose root file system is meant; None: the file's own entries."""

    limits: Limits
    progress: Progress
    image: str | None = None
    platform: Platform | None = None
    access: Access | None = None


Node = tuple[Entry, bytes]


@contextmanager
def open_entries(thing: str, paths: Sequence[str], options: ExtractOptions) -> Iterator[Iterator[Entry]]:
    """The entries of ``thing`` at and below ``paths`` (all of them without one), in tree order; valid inside the context.

    A hard link always comes behind its target: what has its first name outside ``paths`` comes whole under the first
    name inside. What cannot be told as an entry (a socket) is left out with a note. Raises Refused.
    """
    wanted = [_wanted(path) for path in paths]
    with ExitStack() as stack:
        walk = _open(thing, stack, options)
        below = _common(wanted)
        yield _linked(_selected(walk(below), wanted))


def _open(thing: str, stack: ExitStack, options: ExtractOptions) -> Callable[[bytes], Iterator[Node]]:
    kind = kinds.kind_of(thing)
    path = Path(thing)
    if kind == kinds.FOLDER:
        path = _artifact(path)
        kind = kinds.kind_of(str(path))
    if kind in (kinds.SOURCE, kinds.LAYOUT):
        return _image_root(kinds.source_of(thing, kind), stack, options)
    if kind == kinds.SQUASHFS:
        tree: Tree = stack.enter_context(open_squashfs_tree(path, entry_limit=options.limits.image_entries))
    elif kind in (kinds.TAR, kinds.COMPRESSED):
        tree, _ = stack.enter_context(open_tar_tree(path, options.limits))
    else:
        raise NotExtractable(f"{path} is no SquashFS, tar, store or image", hint=_EROFS_HINT if kind == kinds.EROFS else _HINT)
    if options.image is None:
        return lambda below: _walk(tree, below, options.progress)
    store = open_store(tree, _store_json(path, tree))
    if store is not None:
        return _store_root(store, options)
    if isinstance(tree, TarTree) and (b"manifest.json" in tree or b"oci-layout" in tree):
        return _image_root(kinds.source_of(str(path), kinds.TAR), stack, options)
    raise NotExtractable(f"{path} is neither a store nor an archive of images: it has no image {shown(options.image)}")


def _artifact(folder: Path) -> Path:
    for name in ("store.squashfs", "store.tar", *_ARCHIVES, "store.erofs"):
        if (folder / name).is_file():
            return folder / name
    raise NotExtractable(f"{folder} is neither an output folder nor an OCI layout")


def _store_json(path: Path, tree: Tree) -> bytes | None:
    beside = path.with_name("store.json")
    if not isinstance(tree, TarTree) or not beside.is_file():
        return None
    with beside.open("rb") as file:
        return file.read(_STORE_JSON_LIMIT_BYTES + 1)


def _walk(tree: Tree, below: bytes, progress: Progress) -> Iterator[Node]:
    if below and tree.find(below) is None and isinstance(tree, SquashfsTree):
        raise NotInTree(f"{tree.name} has no entry '{printable(below)}'")
    yield from tree.nodes(below)
    if tree.left_out:
        names = ", ".join(printable(path) for path in tree.left_out[:5])
        progress.note(f"{len(tree.left_out)} sockets are left out, which no tar can hold: {names}")


def _store_root(store: Store, options: ExtractOptions) -> Callable[[bytes], Iterator[Node]]:
    assert options.image is not None
    found = next((image for image in store.images if _is(options.image, image.references, image.config_digest)), None)
    if found is None:
        raise _no_image(store.tree.name, options.image, (image.references or (image.config_digest,) for image in store.images))
    merged = MergedTree(f"{store.tree.name}, {found.label}", options.limits.entries)
    for chain, _ in found.layers:
        root = store.layer_root(chain)
        merged.add(_linked(relative(store.tree.nodes(root), root)))
    return lambda below: merged.nodes()


def _image_root(spec: SourceSpec, stack: ExitStack, options: ExtractOptions) -> Callable[[bytes], Iterator[Node]]:
    images = stack.enter_context(open_images(spec, platform=options.platform, limits=options.limits, access=options.access))
    image = _picked(spec.text, images, options.image)
    merged = MergedTree(image.label, options.limits.entries)
    for layer in image.layers:
        where = f"{image.label}, layer {layer.index}"
        with options.progress.task(f"read layer {layer.index} of {image.label}") as task:
            tar = stack.enter_context(uncompressed_layer(image, layer, options.limits, task.advance))
            epoch = max(0, image.created_epoch or 0)
            tree, _ = unpack_layer(tar, where=where, epoch=epoch, entries_max=options.limits.entries, note=options.progress.note)
            merged.add(tree.stream(b"", tar))
    return lambda below: merged.nodes()


def _picked(source: str, images: Sequence[Image], wanted: str | None) -> Image:
    if wanted is None:
        if len(images) == 1:
            return images[0]
        titles = ", ".join(shown(image.label) for image in images[:_LISTED])
        raise NotExtractable(f"{source} has {len(images)} images: {titles}", hint="say which one: --image REF")
    found = next((image for image in images if _is(wanted, image.references, image.config_digest)), None)
    if found is None:
        raise _no_image(source, wanted, (image.references or (image.config_digest,) for image in images))
    return found


def _is(wanted: str, references: Iterable[str], config_digest: str) -> bool:
    """Whether ``wanted``, a reference or a config digest (with or without its algorithm), means that image."""
    if wanted in (config_digest, config_digest.partition(":")[2]) or wanted in references:
        return True
    try:
        return str(parse_reference(wanted)) in references
    except ReferenceInvalid:
        return False


def _no_image(name: str, wanted: str, have: Iterable[Iterable[str]]) -> NotExtractable:
    titles = [shown(title) for group in have for title in group]
    more = f" and {len(titles) - _LISTED} more" if len(titles) > _LISTED else ""
    return NotExtractable(f"{name} has no image {shown(wanted)}; it has {', '.join(titles[:_LISTED])}{more}")


def _wanted(text: str) -> bytes:
    path = clean(text.encode("utf-8", "surrogateescape").lstrip(b"/"))
    if path == b".." or path.startswith(b"../"):
        raise NotInTree(f"the path {text!r} leaves the tree")
    return b"" if path == b"." else path


def _common(paths: Sequence[bytes]) -> bytes:
    """The deepest path that all ``paths`` are at or below; hard links between them are found from there."""
    if not paths:
        return b""
    split = [path.split(b"/") if path else [] for path in paths]
    common = []
    for names in zip(*split, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return b"/".join(common)


def _selected(nodes: Iterator[Node], wanted: Sequence[bytes]) -> Iterator[Node]:
    """The nodes at and below the wanted paths. Raises NotInTree at the end when one of them was not there."""
    if not wanted:
        yield from nodes
        return
    missing = set(wanted)
    # In tree order, without what another one holds: one of them at a time is the next that can match.
    roots: list[bytes] = []
    for path in sorted(set(wanted), key=order_key):
        if not roots or not (roots[-1] == b"" or path.startswith(roots[-1] + b"/")):
            roots.append(path)
    at = 0
    for entry, first in nodes:
        path = entry.path
        missing.discard(path)
        while at < len(roots) and order_key(roots[at]) < order_key(path) and not _is_below(path, roots[at]):
            at += 1
        if at < len(roots) and _is_below(path, roots[at]):
            yield entry, first
    if missing:
        raise NotInTree(f"there is no entry '{printable(min(missing))}'", hint="`shiplap extract --list` shows what there is")


def _is_below(path: bytes, root: bytes) -> bool:
    return not root or path == root or path.startswith(root + b"/")


def _linked(nodes: Iterable[Node]) -> Iterator[Entry]:
    """Nodes as an entry stream: the first name that comes has the content, later ones are hard links to it."""
    names: dict[bytes, bytes] = {}
    for entry, first in nodes:
        if first != entry.path:
            came = names.setdefault(first, entry.path)
            if came != entry.path:
                yield replace(entry, kind=Kind.HARDLINK, link=came, device=(0, 0), xattrs=(), content=None)
                continue
        elif entry.kind is not Kind.DIRECTORY:
            names[first] = first
        yield entry
