"""The superblock: 96 little-endian bytes that say where everything else lies (SquashFS 4.0)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from shiplap.rootfs.squashfs.decompress import COMPRESSORS
from shiplap.rootfs.squashfs.file import ImageFile

SUPERBLOCK_BYTES = 96
NOTHING = 0xFFFFFFFF
"""A 32-bit field that points nowhere: no fragment, no xattrs."""

_LAYOUT = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_NO_TABLE = 0xFFFFFFFFFFFFFFFF
_MAGIC = b"hsqs"
_OLD_MAGICS = (b"sqsh", b"shsq", b"qshs")  # big-endian 3.x and vendors' lzma variants
_SMALLEST_INODE_BYTES = 20


@dataclass(frozen=True, slots=True)
class Superblock:
    """What the superblock says. Table positions are bytes from the image's start, None for an absent table.

    ``mtime_epoch``: when the image was made (unsigned 32 bit). ``bytes_used``: size of the image without
    the padding behind it. ``compressor``: gzip, lzma, lzo, xz, lz4 or zstd. ``flags``: as stored.
    """

    inode_count: int
    mtime_epoch: int
    block_size_bytes: int
    fragment_count: int
    compressor: str
    flags: int
    id_count: int
    root_inode: int
    bytes_used: int
    id_table: int
    xattr_table: int | None
    inode_table: int
    directory_table: int
    fragment_table: int | None
    export_table: int | None

    @property
    def exportable(self) -> bool:
        """Whether the image has the table that NFS needs."""
        return bool(self.flags & 0x80)


def read_superblock(file: ImageFile) -> Superblock:
    """Read and check the superblock; raises SquashfsError."""
    if file.size_bytes < SUPERBLOCK_BYTES:
        raise file.error(f"not a SquashFS image: only {file.size_bytes} bytes")
    # fmt: off
    (magic, inode_count, mtime, block_size, fragment_count, compressor, block_log, flags, id_count, major, minor,
     root_inode, bytes_used, id_table, xattr_table, inode_table, directory_table, fragment_table, export_table,
    ) = _LAYOUT.unpack(file.read(0, SUPERBLOCK_BYTES, "the superblock"))
    # fmt: on
    if magic in _OLD_MAGICS:
        raise file.error("a SquashFS older than 4.0 or of a vendor's own kind, which no current kernel mounts")
    if magic != _MAGIC:
        raise file.error("not a SquashFS image: the magic number is missing")
    if (major, minor) != (4, 0):
        raise file.error(f"SquashFS version {major}.{minor}; only 4.0 is known")
    if compressor not in COMPRESSORS:
        raise file.error(f"the superblock names the unknown compressor {compressor}")
    superblock = Superblock(
        inode_count=inode_count,
        mtime_epoch=mtime,
        block_size_bytes=block_size,
        fragment_count=fragment_count,
        compressor=COMPRESSORS[compressor],
        flags=flags,
        id_count=id_count,
        root_inode=root_inode,
        bytes_used=bytes_used,
        id_table=id_table,
        xattr_table=None if xattr_table == _NO_TABLE else xattr_table,
        inode_table=inode_table,
        directory_table=directory_table,
        fragment_table=None if fragment_table == _NO_TABLE or not fragment_count else fragment_table,
        export_table=None if export_table == _NO_TABLE else export_table,
    )
    if block_size != 1 << (block_log & 63) or not 4096 <= block_size <= 1 << 20:
        raise file.error(f"the superblock's block size {block_size} (logarithm {block_log}) is no power of two from 4 KiB to 1 MiB")
    _check_layout(file, superblock)
    return superblock


def _check_layout(file: ImageFile, superblock: Superblock) -> None:
    used = superblock.bytes_used
    if used > file.size_bytes:
        raise file.error(f"cut short: the superblock says {used} bytes, the file has {file.size_bytes}")
    # The order is the format's: data, inodes, directories, then the tables that index the rest.
    if not SUPERBLOCK_BYTES <= superblock.inode_table < superblock.directory_table <= used:
        raise file.error(
            f"the superblock puts the inode table at {superblock.inode_table} and the directory table at {superblock.directory_table}"
            f" of {used} bytes"
        )
    for name, position in (
        ("fragment", superblock.fragment_table),
        ("export", superblock.export_table),
        ("id", superblock.id_table),
        ("xattr", superblock.xattr_table),
    ):
        if position is not None and not superblock.directory_table <= position < used:
            raise file.error(f"the superblock puts the {name} table at byte {position} of {used}")
    if superblock.fragment_count and superblock.fragment_table is None:
        raise file.error(f"the superblock counts {superblock.fragment_count} fragments but has no fragment table")
    if not superblock.inode_count or not superblock.id_count:
        raise file.error("the superblock counts no inodes or no ids")
    # A metadata block has two bytes of header, at least one of content, and gives at most 8192.
    room = (superblock.directory_table - superblock.inode_table) // 3 * (8192 // _SMALLEST_INODE_BYTES + 1)
    if superblock.inode_count > room:
        raise file.error(f"the superblock counts {superblock.inode_count} inodes, more than its inode table can hold")
