"""What changed from one lock to the next, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from shiplap.core.lock.document import UNKNOWN, image_data
from shiplap.core.lock.model import Lock, LockedImage, LockedLayer


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One thing that is different; None: it was not, or is not there."""

    name: str
    old: str | int | None
    new: str | int | None


@dataclass(frozen=True, slots=True)
class LayerChange:
    """``kind``: ``added``, ``removed`` or ``repacked`` (the same content as another blob). ``index``: in the image that has it."""

    kind: str
    index: int
    old: LockedLayer | None
    new: LockedLayer | None


@dataclass(frozen=True, slots=True)
class ImageChange:
    """``kind``: ``added``, ``removed``, ``moved`` (the name means another image) or ``changed`` (the same image, told differently)."""

    kind: str
    ref: str
    old: LockedImage | None
    new: LockedImage | None
    fields: tuple[FieldChange, ...] = ()
    layers: tuple[LayerChange, ...] = ()


@dataclass(frozen=True, slots=True)
class LockDifference:
    """From one lock (None: there was none) to the next. False where nothing changed."""

    fields: tuple[FieldChange, ...] = ()
    images: tuple[ImageChange, ...] = ()
    reordered: bool = False

    def __bool__(self) -> bool:
        return bool(self.fields or self.images or self.reordered)

    def text(self) -> str:
        """For people, one change per line; empty where nothing changed."""
        lines = [_line(change) for change in self.fields]
        for image in self.images:
            lines.extend(_image_lines(image))
        if self.reordered:
            lines.append("the images stand in another order")
        return "\n".join(lines)

    def data(self) -> dict[str, Any]:
        """For ``--json`` (docs/machine-output.md)."""
        return {
            "fields": [{"name": one.name, "old": one.old, "new": one.new} for one in self.fields],
            "images": [_image_change(one) for one in self.images],
            "reordered": self.reordered,
        }


def lock_difference(old: Lock | None, new: Lock) -> LockDifference:
    """What ``new`` says differently than ``old``; both texts are equal where this is empty."""
    before = {str(image.ref): image for image in old.images} if old else {}
    after = {str(image.ref): image for image in new.images}
    fields = []
    if old is not None:
        fields = [
            FieldChange(name, one, other)
            for name, one, other in (("store-format", old.store_format, new.store_format), ("epoch", old.epoch, new.epoch))
            if one != other
        ]
    images = [ImageChange("removed", ref, image, None) for ref, image in before.items() if ref not in after]
    for ref, image in after.items():
        if ref not in before:
            images.append(ImageChange("added", ref, None, image))
        elif before[ref] != image:
            images.append(_compared(before[ref], image))
    kept = [ref for ref in before if ref in after]
    return LockDifference(tuple(fields), tuple(images), kept != [ref for ref in after if ref in before])


def _compared(old: LockedImage, new: LockedImage) -> ImageChange:
    one, other = _flat(old), _flat(new)
    fields = tuple(FieldChange(name, one.get(name), other.get(name)) for name in (*one, *(name for name in other if name not in one)))
    return ImageChange(
        "changed" if old.config == new.config else "moved",
        str(new.ref),
        old,
        new,
        tuple(change for change in fields if change.old != change.new),
        tuple(_layer_changes(old.layers, new.layers)),
    )


def _flat(image: LockedImage) -> dict[str, str | int]:
    """Everything but the layers, in the file's order, each under a path of keys."""
    flat: dict[str, str | int] = {}
    for key, value in image_data(image).items():
        if key == "manifest" and value != UNKNOWN:
            flat["manifest"] = value["digest"]
            flat |= {f"manifest {name}": one for name, one in value.items() if name != "digest"}
        elif key == "config":
            flat |= {"config": value["digest"], "config size": value["size"]}
        elif key == "signature":
            flat |= {f"signature {name}": one for name, one in value.items()}
        elif key not in ("ref", "layers"):
            flat[key] = value
    return flat


def _layer_changes(old: tuple[LockedLayer, ...], new: tuple[LockedLayer, ...]) -> Iterator[LayerChange]:
    matcher = SequenceMatcher(None, [layer.diff_id for layer in old], [layer.diff_id for layer in new], autojunk=False)
    for _, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        if [layer.diff_id for layer in old[old_start:old_end]] == [layer.diff_id for layer in new[new_start:new_end]]:
            for index in range(new_start, new_end):
                before = old[old_start + index - new_start]
                if before != new[index]:
                    yield LayerChange("repacked", index, before, new[index])
            continue
        for index in range(old_start, old_end):
            yield LayerChange("removed", index, old[index], None)
        for index in range(new_start, new_end):
            yield LayerChange("added", index, None, new[index])


# --- text


def _line(change: FieldChange) -> str:
    if change.name == "manifest bytes":  # base64 that nobody reads
        return f"{change.name}: {'others' if change.old and change.new else 'added' if change.new else 'removed'}"
    return f"{change.name}: {'none' if change.old is None else change.old} → {'none' if change.new is None else change.new}"


def _image_lines(change: ImageChange) -> Iterator[str]:
    if change.kind == "removed":
        yield f"- {change.ref}"
        return
    assert change.new is not None
    if change.kind == "added":
        image = change.new
        manifest = image.manifest.digest if image.manifest else UNKNOWN
        yield f"+ {change.ref}  {image.platform}, {_layers(len(image.layers))}{_size(image)}, from {image.source}"
        yield f"    manifest: {manifest}"
        yield f"    config: {image.config}"
        return
    yield f"~ {change.ref}" + ("  is another image now" if change.kind == "moved" else "")
    for one in change.fields:
        yield f"    {_line(one)}"
    if change.layers:
        assert change.old is not None
        yield f"    layers: {_layers(len(change.old.layers))}{_size(change.old)} → {_layers(len(change.new.layers))}{_size(change.new)}"
    for layer in change.layers:
        yield f"      {_layer_line(layer)}"


def _layer_line(change: LayerChange) -> str:
    if change.kind == "repacked":
        assert change.old is not None and change.new is not None
        return f"~ layer {change.index} {change.new.diff_id}: {_blob(change.old)} → {_blob(change.new)}"
    layer = change.new or change.old
    assert layer is not None
    return f"{'+' if change.new else '-'} layer {change.index} {layer.diff_id}, {_blob(layer)}"


def _blob(layer: LockedLayer) -> str:
    return "blob unknown" if layer.blob is None else f"blob {layer.blob} ({layer.size_bytes} bytes, {layer.media_type})"


def _layers(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"


def _size(image: LockedImage) -> str:
    sizes = [layer.size_bytes for layer in image.layers]
    known = [size for size in sizes if size is not None]
    return f" ({sum(known)} bytes)" if known and len(known) == len(sizes) else ""


# --- data


def _image_change(change: ImageChange) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "ref": change.ref,
        "old": None if change.old is None else image_data(change.old),
        "new": None if change.new is None else image_data(change.new),
        "fields": [{"name": one.name, "old": one.old, "new": one.new} for one in change.fields],
        "layers": [
            {
                "kind": one.kind,
                "index": one.index,
                "diff-id": ((one.new or one.old) or LockedLayer("")).diff_id,
                "old-blob": one.old.blob if one.old else None,
                "new-blob": one.new.blob if one.new else None,
            }
            for one in change.layers
        ],
    }
