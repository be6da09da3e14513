"""Blobs kept by digest, shared by every build of this user: fetched once, verified whenever they are read."""

from shiplap.core.cache.cache import Cache
from shiplap.core.cache.folder import CacheUnusable, cache_folder
from shiplap.core.cache.partial import Partial

__all__ = ["Cache", "CacheUnusable", "Partial", "cache_folder"]
