"""What images have alone, what they share, and what sharing saves; for any way of measuring a layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageShare:
    """``own_bytes``: layers that no other image has. ``shared_bytes``: layers that others have, too."""

    own_bytes: int
    shared_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.own_bytes + self.shared_bytes


@dataclass(frozen=True, slots=True)
class Sharing:
    """``images`` in the order asked for. ``unique_bytes``: all layers, each once. ``saved_bytes``: more, if nothing were shared."""

    images: tuple[ImageShare, ...]
    unique_bytes: int
    saved_bytes: int


def sharing(images: Sequence[Sequence[str]], layer_bytes: Mapping[str, int]) -> Sharing:
    """``images``: the layers of each, by whatever names them in ``layer_bytes``; one that an image has twice counts once."""
    users = Counter(layer for image in images for layer in set(image))
    shares = tuple(
        ImageShare(
            sum(layer_bytes[layer] for layer in set(image) if users[layer] == 1),
            sum(layer_bytes[layer] for layer in set(image) if users[layer] > 1),
        )
        for image in images
    )
    unique_bytes = sum(layer_bytes[layer] for layer in users)
    return Sharing(shares, unique_bytes, sum(share.total_bytes for share in shares) - unique_bytes)
