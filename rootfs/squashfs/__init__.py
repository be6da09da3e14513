"""Reading SquashFS 4.0 images: pure Python, no root, no mount, no external program."""

from shiplap.rootfs.squashfs.file import SquashfsError
from shiplap.rootfs.squashfs.reader import SquashfsReader, open_squashfs
from shiplap.rootfs.squashfs.superblock import Superblock

__all__ = ["SquashfsError", "SquashfsReader", "Superblock", "open_squashfs"]
