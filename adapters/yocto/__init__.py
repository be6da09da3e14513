"""A layer for Yocto and OpenEmbedded: BitBake fetches the locked blobs, shiplap-native builds the store, packages carry it."""

from __future__ import annotations

from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.yocto.layer import files_folder, layer_files, next_steps, tool_folder

__all__ = ["carried", "next_steps", "render"]


def render(config: AdapterConfig) -> dict[str, str]:
    """Path in the layer → text. Raises GenerateRefused."""
    return layer_files(config)


def carried(config: AdapterConfig) -> dict[str, str]:
    """Files that the layer carries because no URL is known for them."""
    if config.prebuilt is not None:
        return {} if config.prebuilt.url else {f"{files_folder(config)}/{config.prebuilt.file_name}": "prebuilt"}
    return {} if config.host_tool.url else {f"{tool_folder()}/{config.host_tool.file_name}": "host-tool"}
