"""What decides a hash tree besides the data: hash, block sizes, salt, UUID (dm-verity's table and superblock)."""

from __future__ import annotations

import uuid as uuids
from dataclasses import dataclass

from shiplap.core.errors import Refused

# Kernel and superblock name -> digest bytes. The kernel takes any hash it has; these are the ones that
# every Python, every OpenSSL in FIPS mode and every kernel configuration with dm-verity in use spell alike.
DIGEST_BYTES = {"sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}
SALT_MAX_BYTES = 256
# veritysetup's range. The kernel wants at most the page size for data blocks, which we cannot know here.
BLOCK_MIN_BYTES, BLOCK_MAX_BYTES = 512, 512 * 1024
KERNEL_PAGE_BYTES = 4096
SECTOR_BYTES = 512


class UnfitParameters(Refused):
    """Parameters that dm-verity does not take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerityParameters:
    """The parameters of one hash tree, in veritysetup's terms.

    ``salt``: at most 256 bytes, empty for none. ``uuid``: canonical (lower case, with hyphens); it only lives in
    the superblock. ``superblock``: whether one stands before the tree. ``hash_type``: 1, or 0 as the original
    Chrome OS wrote it (salt after the data, digests not padded). Raises UnfitParameters.
    """

    hash_name: str = "sha256"
    data_block_bytes: int = 4096
    hash_block_bytes: int = 4096
    salt: bytes = b""
    uuid: str
    superblock: bool = True
    hash_type: int = 1

    def __post_init__(self) -> None:
        if self.hash_name not in DIGEST_BYTES:
            raise UnfitParameters(f"unknown hash {self.hash_name!r}", hint=f"one of {', '.join(DIGEST_BYTES)}")
        for what, size_bytes in (("data", self.data_block_bytes), ("hash", self.hash_block_bytes)):
            if not BLOCK_MIN_BYTES <= size_bytes <= BLOCK_MAX_BYTES or size_bytes & (size_bytes - 1):
                raise UnfitParameters(
                    f"{size_bytes} is no {what} block size",
                    hint=f"a power of two from {BLOCK_MIN_BYTES} to {BLOCK_MAX_BYTES}, usually 4096",
                )
        if len(self.salt) > SALT_MAX_BYTES:
            raise UnfitParameters(f"a salt of {len(self.salt)} bytes is too long", hint=f"at most {SALT_MAX_BYTES} bytes")
        if self.hash_type not in (0, 1):
            raise UnfitParameters(f"unknown hash type {self.hash_type}", hint="1, or 0 for the original Chrome OS format")
        if not _is_canonical_uuid(self.uuid):
            raise UnfitParameters(f"{self.uuid!r} is not a UUID in canonical form", hint="xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx, lower case")

    @property
    def digest_bytes(self) -> int:
        return DIGEST_BYTES[self.hash_name]

    @property
    def slot_bytes(self) -> int:
        """Room for one digest in a hash block: type 1 pads digests to a power of two."""
        return self.digest_bytes if self.hash_type == 0 else 1 << (self.digest_bytes - 1).bit_length()

    @property
    def fanout(self) -> int:
        """Digests in one hash block: always a power of two, also where type 0 could pack more."""
        return 1 << ((self.hash_block_bytes // self.digest_bytes).bit_length() - 1)


def _is_canonical_uuid(text: str) -> bool:
    try:
        return str(uuids.UUID(text)) == text
    except ValueError:
        return False
