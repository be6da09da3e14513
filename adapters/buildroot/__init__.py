"""A BR2_EXTERNAL tree for Buildroot: shiplap as host package, the images as target package, dm-verity for the squashfs root."""

from __future__ import annotations

from shiplap.adapters.buildroot.package import next_steps
from shiplap.adapters.buildroot.tree import PACKAGE, TOOL_PACKAGE, tree_files
from shiplap.adapters.config import AdapterConfig

__all__ = ["carried", "next_steps", "render"]


def render(config: AdapterConfig) -> dict[str, str]:
    """Path in the tree → text. Raises GenerateRefused."""
    return tree_files(config)


def carried(config: AdapterConfig) -> dict[str, str]:
    """Archives that the tree carries because no URL is known for them."""
    if config.prebuilt is not None:
        return {} if config.prebuilt.url else {f"{PACKAGE}/{config.prebuilt.file_name}": "prebuilt"}
    return {} if config.host_tool.url else {f"{TOOL_PACKAGE}/{config.host_tool.file_name}": "host-tool"}
