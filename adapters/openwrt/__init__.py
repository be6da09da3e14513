"""A feed for OpenWrt: one package that carries the store, its target kit as procd services, and what the kernel has to know."""

from __future__ import annotations

from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.openwrt.feed import carried_files, feed_files, next_steps
from shiplap.adapters.openwrt.fitting import check_fit

__all__ = ["carried", "next_steps", "render"]


def render(config: AdapterConfig) -> dict[str, str]:
    """Path in the feed → text. Raises GenerateRefused."""
    check_fit(config)
    return feed_files(config)


def carried(config: AdapterConfig) -> dict[str, str]:
    """Archives that the feed carries because no URL is known for them."""
    return carried_files(config)
