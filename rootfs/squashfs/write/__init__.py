"""Writing SquashFS 4.0 images from an entry stream: no temporary tree, no external program, the same bytes everywhere."""

from shiplap.rootfs.squashfs.write.errors import SquashfsCannotHold
from shiplap.rootfs.squashfs.write.writer import WRITER_NUMBER, Layout, SquashfsWriter, Written

__all__ = ["WRITER_NUMBER", "Layout", "SquashfsCannotHold", "SquashfsWriter", "Written"]
