"""The dm-verity superblock, version 1: 512 bytes, little-endian, in front of the tree.

Layout as cryptsetup writes it (its wiki page "DMVerity", on-disk format)::

    0 signature "verity\\0\\0"   8 version (1)        12 hash type      16 UUID (16 bytes)
    32 hash name (32, NULs)      64 data block bytes  68 hash block bytes
    72 data blocks (64 bit)      80 salt bytes (16)   82 zeros (6)     88 salt (256)    344 zeros (168)

The root hash does not cover the superblock: a changed field shows when the tree no longer fits the root
hash, except for the UUID, which nothing protects.
"""

from __future__ import annotations

import struct
import uuid as uuids
from dataclasses import dataclass

from shiplap.core.errors import Refused
from shiplap.verity.parameters import DIGEST_BYTES, SALT_MAX_BYTES, UnfitParameters, VerityParameters

SUPERBLOCK_BYTES = 512
SIGNATURE = b"verity\0\0"
_LAYOUT = struct.Struct("<8sII16s32sIIQH6s256s168s")
assert _LAYOUT.size == SUPERBLOCK_BYTES


class UnfitSuperblock(Refused):
    """Bytes that are no dm-verity superblock that we would follow."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a superblock says: the parameters and the number of data blocks covered."""

    parameters: VerityParameters
    data_blocks: int


def pack(superblock: Superblock) -> bytes:
    """The 512 bytes of ``superblock``."""
    parameters = superblock.parameters
    return _LAYOUT.pack(
        SIGNATURE,
        1,
        parameters.hash_type,
        uuids.UUID(parameters.uuid).bytes,
        parameters.hash_name.encode(),
        parameters.data_block_bytes,
        parameters.hash_block_bytes,
        superblock.data_blocks,
        len(parameters.salt),
        b"",
        parameters.salt,
        b"",
    )


def parse(data: bytes, where: str) -> Superblock:
    """Read a superblock strictly: every byte means something or is zero.

    ``where`` names the file (and offset) for messages. Raises UnfitSuperblock. Whether the data blocks it
    counts exist, and whether a tree of that size can, is for the reader of the tree to find.
    """
    if len(data) < SUPERBLOCK_BYTES:
        raise UnfitSuperblock(f"{where}: no dm-verity superblock: the file ends after {len(data)} of its {SUPERBLOCK_BYTES} bytes")
    fields = _LAYOUT.unpack(data[:SUPERBLOCK_BYTES])
    signature, version, hash_type, raw_uuid, name, data_block, hash_block, data_blocks, salt_bytes, pad_1, salt, pad_2 = fields
    if signature != SIGNATURE:
        raise UnfitSuperblock(
            f"{where}: no dm-verity superblock (its signature is missing)",
            hint="check --hash-offset; a tree without superblock needs --no-superblock and its parameters",
        )
    if version != 1:
        raise UnfitSuperblock(f"{where}: superblock version {version} is unknown; 1 is")
    hash_name = name.rstrip(b"\0")
    if hash_name.decode("ascii", "replace") not in DIGEST_BYTES:
        raise UnfitSuperblock(f"{where}: the superblock names the hash {hash_name!r}; known are {', '.join(DIGEST_BYTES)}")
    if salt_bytes > SALT_MAX_BYTES:
        raise UnfitSuperblock(f"{where}: the superblock counts {salt_bytes} salt bytes of at most {SALT_MAX_BYTES}")
    if any(pad_1) or any(pad_2) or any(salt[salt_bytes:]):
        raise UnfitSuperblock(f"{where}: the superblock has bytes where zeros belong")
    if data_blocks == 0:
        raise UnfitSuperblock(f"{where}: the superblock counts no data blocks")
    try:
        parameters = VerityParameters(
            hash_name=hash_name.decode(),
            data_block_bytes=data_block,
            hash_block_bytes=hash_block,
            salt=salt[:salt_bytes],
            uuid=str(uuids.UUID(bytes=raw_uuid)),
            superblock=True,
            hash_type=hash_type,
        )
    except UnfitParameters as error:
        raise UnfitSuperblock(f"{where}: the superblock cannot be followed: {error.message}") from error
    return Superblock(parameters, data_blocks)
