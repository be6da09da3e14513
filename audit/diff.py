"""``diff``: why two artifacts differ, down to the entry and the field.

Files of equal bytes are equal, whatever they hold. Of others the kind is told by their first bytes, and two of
one kind are compared by what they mean; two of different kinds, and what is of no known kind, by their bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from shiplap.audit import thingkinds as kinds
from shiplap.audit.diffcontent import escaped, first_difference, shown_difference
from shiplap.audit.differences import Change, Finding, Section, fields_of
from shiplap.audit.diffimages import compare_sources
from shiplap.audit.diffjson import DOCUMENT_LIMIT_BYTES, causes, compare_documents, compare_records, parsed
from shiplap.audit.diffsquashfs import compare_left_out, compare_squashfs
from shiplap.audit.diffstores import compare_stores, open_store
from shiplap.audit.difftar import compare_tars, open_tar_tree
from shiplap.audit.difftrees import compare_nodes
from shiplap.audit.diffverity import compare_verity
from shiplap.audit.thingkinds import source_of
from shiplap.audit.trees import SquashfsTree, TarTree, Tree, open_squashfs_tree
from shiplap.core.entries import FileSlice
from shiplap.core.errors import Refused
from shiplap.core.limits import Limits
from shiplap.core.output import SUMS_NAME
from shiplap.core.platform import Platform
from shiplap.core.progress import Progress
from shiplap.core.run import run
from shiplap.core.sources import Access, SourceSpec, open_images

RECORD = "record.json"
_TREES = (kinds.SQUASHFS, kinds.TAR, kinds.COMPRESSED)
_IMAGES = (kinds.SOURCE, kinds.LAYOUT)
# Why comes before what; sums follow from everything else.
_FIRST = (RECORD, "store.json")
_LAST = ("store.verity", "store.roothash", SUMS_NAME)
_DIFFOSCOPE_LINES = 2000


class NotComparable(Refused):
    """Two things that have nothing in common."""


@dataclass(frozen=True, slots=True)
class DiffOptions:
    """``keep``: findings that are kept in each section. ``diffoscope``: its path, for kinds that we do not know."""

    limits: Limits
    progress: Progress
    keep: int = 100
    diffoscope: str | None = None
    access: Access | None = None
    platform: Platform | None = None


def diff_things(a: str, b: str, options: DiffOptions) -> Section:
    """Compare two paths or sources. Raises Refused for what cannot be read or compared, OutsideFailure where reading fails."""
    kind = kinds.kind_of(a), kinds.kind_of(b)
    section = Section(f"{escaped(a)} / {escaped(b)}", _kind_text(*kind), options.keep)
    if kinds.FOLDER in kind:
        if kind != (kinds.FOLDER, kinds.FOLDER):
            raise NotComparable(f"{a} is a {kind[0]}, {b} a {kind[1]}", hint="give the folder's file instead, or two folders")
        _folders(Path(a), Path(b), section, options)
    elif kind[0] in _IMAGES or kind[1] in _IMAGES:
        _sources(source_of(a, kind[0]), source_of(b, kind[1]), section, options)
    else:
        _files(Path(a), Path(b), section, options)
    return section


def _kind_text(one: str, other: str) -> str:
    return one if one == other else f"{one} / {other}"


def _sources(a: SourceSpec, b: SourceSpec, section: Section, options: DiffOptions) -> None:
    with ExitStack() as stack:
        images = [
            stack.enter_context(open_images(spec, platform=options.platform, limits=options.limits, access=options.access))
            for spec in (a, b)
        ]
        compare_sources(images[0], images[1], section, options.limits, options.progress)


def _folders(a: Path, b: Path, section: Section, options: DiffOptions) -> None:
    """The files of two folders by name; what lies in folders below is not looked at."""
    names = [{path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")} for folder in (a, b)]
    if not names[0] and not names[1]:
        raise NotComparable(f"neither {a} nor {b} has files to compare", hint="folders of folders are not looked into")
    common = names[0] & names[1]
    if RECORD in common:
        documents = [_document(folder / RECORD) for folder in (a, b)]
        section.causes += causes(*documents)
    for name in sorted(names[0] ^ names[1]):
        section.add(Finding(escaped(name), "only in A" if name in names[0] else "only in B", kind="file"))
    order = {name: number for number, name in enumerate((*_FIRST, "", *_LAST))}
    for name in sorted(common, key=lambda name: (order.get(name, order[""]), name)):
        below = section.section(escaped(name), "")
        with options.progress.task(f"compare {name}"):
            below.kind = _kind_text(kinds.kind_of(str(a / name)), kinds.kind_of(str(b / name)))
            _files(a / name, b / name, below, options)
        below.follows = name in _LAST
        if name == RECORD:
            below.causes.clear()  # they stand above everything
    below_folders = sorted({path.name for folder in (a, b) for path in folder.iterdir() if path.is_dir()})
    if below_folders:
        section.remarks.append(f"not looked into: {', '.join(escaped(name) for name in below_folders[:10])}")


def _document(path: Path) -> object:
    if path.stat().st_size > DOCUMENT_LIMIT_BYTES:
        return None
    return parsed(path.read_bytes(), path.name)


def _files(a: Path, b: Path, section: Section, options: DiffOptions) -> None:
    if _same_bytes(a, b):
        return
    section.bytes_differ = True
    kind = kinds.kind_of(str(a)), kinds.kind_of(str(b))
    if kind[0] in _TREES and kind[1] in _TREES and _trees(a, b, section, options):
        return
    compare = _COMPARISONS.get(kind[0]) if kind[0] == kind[1] else None
    if compare is None and a.name == SUMS_NAME == b.name:
        compare = _sums
    if compare is None or not compare(a, b, section):
        _bytes(a, b, section)
        if options.diffoscope is not None:
            _diffoscope(options.diffoscope, a, b, section)


def _same_bytes(a: Path, b: Path) -> bool:
    with a.open("rb") as one, b.open("rb") as other:
        sizes = [os.lseek(file.fileno(), 0, os.SEEK_END) for file in (one, other)]
        if sizes[0] != sizes[1]:
            return False
        slices = [FileSlice(file.fileno(), 0, size, path.name) for file, size, path in zip((one, other), sizes, (a, b), strict=True)]
        return first_difference(slices[0].chunks(), slices[1].chunks()) is None


def _trees(a: Path, b: Path, section: Section, options: DiffOptions) -> bool:
    """Compare two trees: stores by their layers, archives of images by their images. False: one of them is no tree."""
    with ExitStack() as stack:
        trees = [_tree(path, stack, options) for path in (a, b)]
        one, other = trees
        if one is None or other is None:
            return False
        if _are_archives(one[0], other[0]):
            section.kind = "archive of images"
            _compression_remark(one[1], other[1], section)
            _sources(source_of(str(a), kinds.TAR), source_of(str(b), kinds.TAR), section, options)
            if not any(below.differs for below in section.sections) and not section.total:
                compare_tars(one[0], other[0], section.section("records of the archive", "tar"))  # type: ignore[arg-type]
            return True
        stores = [open_store(tree, _store_json(path, tree)) for path, (tree, _) in zip((a, b), (one, other), strict=True)]
        _compression_remark(one[1], other[1], section)
        if stores[0] is not None and stores[1] is not None:
            section.kind = "store"
            compare_stores(stores[0], stores[1], section)
        else:
            _compare_trees(one[0], other[0], section)
    return True


def _tree(path: Path, stack: ExitStack, options: DiffOptions) -> tuple[Tree, str] | None:
    kind = kinds.kind_of(str(path))
    if kind == kinds.SQUASHFS:
        return stack.enter_context(open_squashfs_tree(path, entry_limit=options.limits.image_entries)), "none"
    try:
        return stack.enter_context(open_tar_tree(path, options.limits))
    except Refused:
        if kind == kinds.COMPRESSED:
            return None  # something else is compressed
        raise


def _compare_trees(a: Tree, b: Tree, section: Section) -> None:
    if isinstance(a, SquashfsTree) and isinstance(b, SquashfsTree):
        compare_squashfs(a, b, section)
    elif isinstance(a, TarTree) and isinstance(b, TarTree):
        compare_tars(a, b, section)
    else:
        section.remarks.append("two kinds of container: they are compared entry by entry")
        compare_nodes(a.nodes(), b.nodes(), section)
        compare_left_out(a.left_out, b.left_out, section)


def _are_archives(a: Tree, b: Tree) -> bool:
    return all(isinstance(tree, TarTree) and (b"manifest.json" in tree or b"oci-layout" in tree) for tree in (a, b))


def _store_json(path: Path, tree: Tree) -> bytes | None:
    """A store.tar has its store.json beside it, an image inside."""
    beside = path.with_name("store.json")
    if not isinstance(tree, TarTree) or path.name != "store.tar" or not beside.is_file():
        return None
    with beside.open("rb") as file:
        return file.read(DOCUMENT_LIMIT_BYTES + 1)


def _compression_remark(one: str, other: str, section: Section) -> None:
    if one != other:
        section.causes.append(f"compressed with {one} and {other}")
    elif one != "none":
        section.remarks.append(f"compressed with {one}; what is inside is compared")


def _json(a: Path, b: Path, section: Section) -> bool:
    documents = [_document(path) for path in (a, b)]
    if documents[0] is None or documents[1] is None:
        return False
    if a.name == RECORD == b.name:
        section.causes += causes(*documents)
        compare_records(documents[0], documents[1], section)
    else:
        compare_documents(documents[0], documents[1], section)
    if not section.total_in_all:
        section.remarks.append("the two documents mean the same and are written differently")
        return False
    return True


def _verity(a: Path, b: Path, section: Section) -> bool:
    compare_verity(a, b, section)
    return True


def _sums(a: Path, b: Path, section: Section) -> bool:
    """SHA256SUMS: which names have another sum."""
    sums = []
    for path in (a, b):
        if path.stat().st_size > DOCUMENT_LIMIT_BYTES:
            return False
        lines = [line.partition("  ") for line in path.read_text("utf-8", "replace").splitlines()]
        sums.append({name: digest for digest, _, name in lines})
    for name in sorted(sums[0].keys() | sums[1].keys()):
        one, other = sums[0].get(name), sums[1].get(name)
        if one is None or other is None:
            section.add(Finding(escaped(name), "only in B" if one is None else "only in A"))
        elif one != other:
            section.changed(escaped(name), [Change("sha256", escaped(one), escaped(other))])
    return bool(section.total)


_COMPARISONS: dict[str, Callable[[Path, Path, Section], bool]] = {kinds.JSON: _json, kinds.VERITY: _verity}


def _bytes(a: Path, b: Path, section: Section) -> None:
    """Sizes, and the first place that differs; small texts as a unified diff."""
    with a.open("rb") as one, b.open("rb") as other:
        slices = [FileSlice(file.fileno(), 0, os.lseek(file.fileno(), 0, os.SEEK_END)) for file in (one, other)]
        changes = fields_of([("size", slices[0].size_bytes, slices[1].size_bytes)])
        detail = shown_difference(slices[0], slices[1])
    section.add(Finding("the file", changes=(*changes, Change("content", None, None)), detail=detail))


def _diffoscope(program: str, a: Path, b: Path, section: Section) -> None:
    """What diffoscope says of two files; it exits with 1 when they differ."""
    # Its work is not worth waiting for without end, and its report is of bounded length.
    argv = [program, "--no-progress", "--max-text-report-size", str(1 << 20), "--timeout", "600", "--text", "-"]
    said = run([*argv, str(a), str(b)], allowed=(0, 1)).stdout.decode("utf-8", "replace").splitlines()
    below = section.section("diffoscope", "diffoscope's report")
    lines = [escaped(line) for line in said[:_DIFFOSCOPE_LINES]]
    below.add(Finding("its report", changes=(Change("content", None, None),), detail=tuple(lines)))
