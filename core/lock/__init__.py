"""``shiplap.lock.yaml``: every digest of every image, pinned once."""

from shiplap.core.lock.model import DEFAULT_LOCK_NAME, Lock, LockedImage, LockedLayer, LockedManifest

__all__ = ["DEFAULT_LOCK_NAME", "Lock", "LockedImage", "LockedLayer", "LockedManifest"]
