"""What the manifest states of the images' licences, as the file that licence reports of the build systems collect."""

from __future__ import annotations

from shiplap.adapters.config import AdapterConfig


def licence_statement(config: AdapterConfig, head: str) -> str:
    """``head`` (whole lines), then each image with its config's digest and its SPDX expression."""
    return head + "".join(f"\n{image.reference}\n  {image.locked.config}\n  {image.license}\n" for image in config.images)
