"""Writing SquashFS 4.0 images from an entry stream: no temporary tree, no external program, the same bytes everywhere."""

from shiplap.rootfs.squashfs.write.errors import SquashfsCannotHold
from shiplap.rootfs.squashfs.write.writer import Layout, SquashfsWriter, Written

__all__ = ["Layout", "SquashfsCannotHold", "SquashfsWriter", "Written"]
