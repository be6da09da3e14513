"""The stated limits that keep hostile or broken input from taking the machine's memory, disk and time."""

from __future__ import annotations

from dataclasses import dataclass

from shiplap.core.errors import Refused

MAX_LAYERS = 125
_IMAGE_ENTRIES = 4_000_000


class PastLimit(Refused):
    """More than a stated limit that an option raises: for a verification no fault of what is verified."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may cost; ``limits:`` in the manifest raises the first two.

    ``layer_bytes``: one layer uncompressed, and an archive that is compressed as a whole.
    ``entries``: records of one layer's tar. ``metadata_bytes``: one JSON document of an image (what
    containers/image allows for a manifest or a config). ``layers``: what Docker's layer store takes
    before it says "max depth exceeded". ``members``: files of an archive that holds images.
    """

    layer_bytes: int = 16 << 30
    entries: int = 2_000_000
    metadata_bytes: int = 4 << 20
    layers: int = MAX_LAYERS
    members: int = 100_000

    @property
    def image_entries(self) -> int:
        """Entries of a finished store image, all layers together; never fewer than usual."""
        return max(_IMAGE_ENTRIES, 2 * self.entries)
