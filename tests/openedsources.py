"""Opening sources in tests: ``with opened(f"oci:{path}") as images: …``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shiplap.core.compression import uncompressed
from shiplap.core.errors import Refused
from shiplap.core.image import Image, Layer
from shiplap.core.limits import Limits
from shiplap.core.platform import parse_platform
from shiplap.core.sources import open_images, parse_source


@contextmanager
def opened(source: str, platform: str | None = None, limits: Limits | None = None) -> Iterator[tuple[Image, ...]]:
    wanted = parse_platform(platform) if platform else None
    with open_images(parse_source(source), platform=wanted, limits=limits or Limits()) as images:
        yield images


def layer_tar(layer: Layer, limits: Limits | None = None) -> bytes:
    """The uncompressed tar of ``layer``, read through its verifying blob."""
    return b"".join(uncompressed(layer.blob.chunks(), location=layer.blob.location, limit_bytes=(limits or Limits()).layer_bytes))


def layer_tars(image: Image, limits: Limits | None = None) -> list[bytes]:
    return [layer_tar(layer, limits) for layer in image.layers]


def refusal(source: str | Path, platform: str | None = None, limits: Limits | None = None) -> Refused:
    """The error with which ``source`` is refused: when it is opened, or when its layers are read."""
    with pytest.raises(Refused) as caught, opened(str(source), platform, limits) as images:
        for image in images:
            layer_tars(image, limits)
    return caught.value
