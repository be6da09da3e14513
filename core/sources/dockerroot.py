"""``docker-root:PATH[:REF]``: images in the data-root of a Docker engine that has stopped.

Each layer's tar is put together from tar-split data and the files, byte for byte what the engine once unpacked, so an image from
here is the image that was loaded, pulled or built there. Without REF all images that have a tag; with ``@sha256:…`` any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.core.blobs import SourceInvalidContent
from shiplap.core.image import Image, Layer
from shiplap.core.jsontext import shown
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform
from shiplap.core.reference import Reference, ReferenceInvalid, parse_reference
from shiplap.core.sources.access import Access
from shiplap.core.sources.config import ImageConfig, parse_config
from shiplap.core.sources.dataroot import DataRoot, DataRootUnusable, require_readable
from shiplap.core.sources.directory import Directory
from shiplap.core.sources.selection import Found, choose
from shiplap.core.sources.spec import SourceSpec, parse_selector


@contextmanager
def open_root(spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Iterator[tuple[Image, ...]]:
    """Opener of ``docker-root:PATH[:REF]``."""
    selector = parse_selector(spec.reference, spec.text, transport=spec.transport)
    with open_data_root(spec.location, spec.base_name, limits) as root:
        images = found(root, limits)
        if selector is None:
            if root.warning:
                access.progress.note(root.warning)
            images = [one for one in images if one.references]
            if not images:
                raise DataRootUnusable(f"{root.label} has no image with a tag", hint=f"name one by its ID: {spec.public_text}:@sha256:…")
        yield choose(images, selector, platform, root.label, spec.public_text)


@contextmanager
def open_data_root(path: str, label: str, limits: Limits) -> Iterator[DataRoot]:
    """The data-root at ``path``, of an engine that does not run; raises DataRootUnusable, EngineRunning, SourceMissing."""
    require_readable(Path(path), label)
    with Directory(path, label) as files:
        root = DataRoot(Path(path), files, limits)
        root.require_stopped()
        yield root


def found(root: DataRoot, limits: Limits) -> list[Found]:
    """Every image, sorted by its first name, then those without one by their digests. Untagged ones have no ``references``."""
    names = root.names()
    images = []
    for digest, raw in root.configs():
        what = f"config {digest[:19]} in {root.label}"
        config = parse_config(raw, what=what, limits=limits)
        images.append((config, _references(names.get(digest, []), what)))
    images.sort(key=lambda one: (not one[1][0], [str(tag) for tag in one[1][0]], one[0].digest))
    return [_found(root, position, config, *known) for position, (config, known) in enumerate(images)]


def _found(root: DataRoot, position: int, config: ImageConfig, tags: list[Reference], digests: list[Reference]) -> Found:
    references = tuple(str(tag) for tag in tags)
    what = references[0] if references else config.digest[:19]
    return Found(
        entry=position,
        names=tuple(one.familiar for one in (*tags, *digests)),
        references=references,
        config=config,
        layers=_layers(root, config.diff_ids, f"{what} in {root.label}"),
    )


def _layers(root: DataRoot, diff_ids: tuple[str, ...], what: str) -> Callable[[], tuple[Layer, ...]]:
    return lambda: tuple(Layer(index, blob.digest or "", blob) for index, blob in enumerate(root.layers(diff_ids, what)))


def _references(names: list[str], what: str) -> tuple[list[Reference], list[Reference]]:
    """Tags, and names by digest."""
    tags: list[Reference] = []
    digests: list[Reference] = []
    for name in names:
        try:
            reference = parse_reference(name, default_tag=False)
        except ReferenceInvalid as error:
            raise SourceInvalidContent(f"repositories.json names {what} '{shown(name)}': {error.message}") from None
        (tags if reference.tag is not None and reference.digest is None else digests).append(reference)
    return sorted(tags, key=str), sorted(digests, key=str)
