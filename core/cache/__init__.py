"""Blobs kept by digest, shared by every build of this user: fetched once, verified whenever they are read."""

from shiplap.core.cache.cache import Cache, Partial, cache_folder

__all__ = ["Cache", "Partial", "cache_folder"]
