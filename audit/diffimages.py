"""Images against images: references, configs field by field, layers by diffID, the entries of layers that differ.

Images are paired by a reference that both sides know, then by their order. A pair's layers are paired by
diffID, what is left in order: a rebuilt layer meets its earlier self.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from shiplap.audit.differences import Change, Finding, Section, fields_of
from shiplap.audit.diffjson import compare_documents, parsed
from shiplap.audit.difftar import compare_tars
from shiplap.audit.trees import TarTree
from shiplap.core.compression import DETECT_BYTES, detect
from shiplap.core.image import Image, Layer
from shiplap.core.jsontext import shown
from shiplap.core.layer.spool import uncompressed_layer
from shiplap.core.limits import Limits
from shiplap.core.progress import Progress


@dataclass(frozen=True, slots=True)
class Known:
    """One image of a source or a store. ``layers``: (identity of the layer, diffID), base first."""

    label: str
    config_digest: str
    references: tuple[str, ...]
    layers: tuple[tuple[str, str], ...]
    config: bytes | None = None


LayerPair = tuple[int | None, int | None]


def pair_images(a: Sequence[Known], b: Sequence[Known]) -> list[tuple[Known | None, Known | None]]:
    """Every image with its counterpart, None where there is none: by config, by a common reference, then by order."""
    partners: dict[int, int] = {}
    free = dict.fromkeys(range(len(b)))
    for keys in (lambda known: known.references, lambda known: (known.config_digest,)):
        where = {key: position for position in reversed(free) for key in keys(b[position])}
        for number, one in enumerate(a):
            match = next((where[key] for key in keys(one) if where.get(key) in free), None) if number not in partners else None
            if match is not None:
                partners[number] = match
                del free[match]
    for number, position in zip([number for number in range(len(a)) if number not in partners], list(free), strict=False):
        partners[number] = position
        del free[position]
    pairs: list[tuple[Known | None, Known | None]] = []
    for number, one in enumerate(a):
        pairs.append((one, b[partners[number]] if number in partners else None))
    return pairs + [(None, b[position]) for position in free]


def pair_layers(a: Sequence[str], b: Sequence[str]) -> list[LayerPair]:
    """Positions of layers that belong together: equal ones, then what is left in its order."""
    free = list(range(len(b)))
    pairs: list[LayerPair] = []
    lonely: list[int] = []
    for position, layer in enumerate(a):
        match = next((other for other in free if b[other] == layer), None)
        if match is None:
            lonely.append(position)
        else:
            free.remove(match)
            pairs.append((position, match))
    pairs += list(zip(lonely, free, strict=False))
    pairs += [(position, None) for position in lonely[len(free) :]]
    pairs += [(None, position) for position in free[len(lonely) :]]
    return sorted(pairs, key=lambda pair: tuple(len(a) + len(b) if one is None else one for one in pair))


def compare_identities(one: Known, other: Known, section: Section) -> list[LayerPair]:
    """References, config and order of the layers of a pair; returns the pairs of its layers."""
    section.bytes_differ |= one.config_digest != other.config_digest
    for reference in sorted(set(one.references) ^ set(other.references)):
        section.add(Finding(f"reference {shown(reference)}", "only in A" if reference in one.references else "only in B"))
    if one.config_digest != other.config_digest:
        config = section.section("config", "image config")
        config.changed("digest", [Change("digest", one.config_digest, other.config_digest)])
        documents = [None if known.config is None else parsed(known.config, "config") for known in (one, other)]
        if documents[0] is not None and documents[1] is not None:
            compare_documents(documents[0], documents[1], config)
            if config.total == 1:
                config.remarks.append("the two configs mean the same and are written differently")
    return pair_layers([diff_id for _, diff_id in one.layers], [diff_id for _, diff_id in other.layers])


def compare_image_lists(
    a: Sequence[Known], b: Sequence[Known], section: Section, compare: Callable[[Known, Known, Section], object]
) -> None:
    """Pair the images and let ``compare`` look into each pair."""
    for one, other in pair_images(a, b):
        if one is not None and other is not None:
            compare(one, other, section.section(f"image {one.label}", "image"))
        else:
            alone = one or other
            assert alone is not None
            section.add(Finding(f"image {alone.label}", "only in A" if other is None else "only in B", kind="image"))


def compare_sources(a: Iterable[Image], b: Iterable[Image], section: Section, limits: Limits, progress: Progress) -> None:
    """The images of two open sources. Raises what reading their layers raises (Refused, OutsideFailure)."""
    images = [{image.config_digest: image for image in side} for side in (a, b)]
    known = [[known_image(image) for image in side.values()] for side in images]

    def compare(one: Known, other: Known, below: Section) -> None:
        pair = _ImagePair(images[0][one.config_digest], images[1][other.config_digest], limits, progress)
        pair.compare(compare_identities(one, other, below), below)

    compare_image_lists(known[0], known[1], section, compare)


def known_image(image: Image) -> Known:
    layers = tuple((diff_id, diff_id) for diff_id in image.diff_ids)
    return Known(shown(image.label), image.config_digest, image.references, layers, image.config)


@dataclass(frozen=True, slots=True)
class _ImagePair:
    a: Image
    b: Image
    limits: Limits
    progress: Progress

    def compare(self, pairs: list[LayerPair], section: Section) -> None:
        digests = fields_of(
            [
                ("manifest digest", self.a.manifest_digest, self.b.manifest_digest),
                ("index digest", self.a.index_digest, self.b.index_digest),
            ]
        )
        if digests and all(change.a and change.b for change in digests):
            section.changed("manifest", digests)
        for left, right in pairs:
            if left is None or right is None:
                side, layer = ("B", self.b.layers[right]) if right is not None else ("A", self.a.layers[left or 0])
                section.add(Finding(f"layer {layer.index} {layer.diff_id}", f"only in {side}", kind="layer"))
                continue
            one, other = self.a.layers[left], self.b.layers[right]
            if one.diff_id == other.diff_id:
                self._stored(one, other, section)
            else:
                self._contents(one, other, section)

    def _stored(self, one: Layer, other: Layer, section: Section) -> None:
        """A layer of the same content: where it lies, and in which form."""
        forms = [_form(layer) for layer in (one, other)]
        if forms[0] != forms[1]:
            section.remarks.append(f"layer {one.index} has the same content, stored as {forms[0]} and as {forms[1]}")
        if one.index != other.index:
            section.changed(f"layer {one.diff_id}", [Change("position", one.index, other.index)])

    def _contents(self, one: Layer, other: Layer, section: Section) -> None:
        below = section.section(f"layer {one.index}" + (f" / {other.index}" if one.index != other.index else ""), "layer")
        below.bytes_differ = True
        below.changed("layer", [Change("diffID", one.diff_id, other.diff_id)])
        with ExitStack() as stack:
            trees = []
            for image, layer in ((self.a, one), (self.b, other)):
                task = stack.enter_context(self.progress.task(f"read layer {layer.index} of {image.label}"))
                tar = stack.enter_context(uncompressed_layer(image, layer, self.limits, task.advance))
                trees.append(TarTree(f"layer {layer.index} of {image.label}", tar, entry_limit=2 * self.limits.entries))
            compare_tars(trees[0], trees[1], below.section("entries", "tar"))


def _form(layer: Layer) -> str:
    plain = layer.blob.slice()
    form = "" if plain is None else detect(b"".join(_first(plain.chunks()))[:DETECT_BYTES])
    digest = f" {layer.blob.digest}" if layer.blob.digest else ""
    return f"{'a plain tar' if form == 'none' else form or 'a blob'}{digest} of {layer.blob.size_bytes} bytes"


def _first(chunks: Iterable[bytes]) -> Iterable[bytes]:
    for chunk in chunks:
        yield chunk
        return
