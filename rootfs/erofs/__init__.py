"""EROFS images, as far as shiplap reads them itself: the superblock."""

from shiplap.rootfs.erofs.superblock import ErofsError, Superblock, is_erofs, read_superblock

__all__ = ["ErofsError", "Superblock", "is_erofs", "read_superblock"]
