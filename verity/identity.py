"""Salt and UUIDs derived from content, so that the same input gives the same tree (DESIGN.md section 2).

A salt against prepared collisions need not be secret, only different for different content.
"""

from __future__ import annotations

import hashlib
import os
import uuid as uuids
from pathlib import Path

from shiplap.verity.data import opened, pad_file

__all__ = ["content_uuid", "erofs_uuid", "file_salt", "pad_file", "store_image_salt", "uuid_for_salt"]

_SALT_PREFIX = b"shiplap-verity-salt\n"
_EDGE_BYTES = 64 * 1024
_NAMESPACE = uuids.UUID("fa7ba89a-7b0d-4d53-8e5c-2c6d6b7c1f10")


def store_image_salt(store_json: bytes) -> bytes:
    """The salt (32 bytes) of a store image: sha256 over the prefix and the bytes of its ``store.json``."""
    return hashlib.sha256(_SALT_PREFIX + store_json).digest()


def file_salt(path: Path) -> bytes:
    """The salt (32 bytes) of any other file: from its size, first 64 KiB and last 64 KiB (they may overlap).

    Of the data as it is covered: pad it first. Raises UnfitFile.
    """
    with opened(path) as file, os.fdopen(os.dup(file.descriptor), "rb") as stream:
        size_bytes = file.size_bytes
        first = stream.read(_EDGE_BYTES)
        stream.seek(max(0, size_bytes - _EDGE_BYTES))
        last = stream.read(_EDGE_BYTES)
    return hashlib.sha256(_SALT_PREFIX + f"{size_bytes}\n".encode() + first + last).digest()


def uuid_for_salt(salt: bytes) -> str:
    """The UUID that goes with ``salt``: uuid5 of its hex digits in shiplap's namespace, in canonical form."""
    return str(uuids.uuid5(_NAMESPACE, salt.hex()))


def erofs_uuid(store_json: bytes) -> str:
    """The UUID of a store's EROFS: another one than that of its hash tree, so that no two things on a device share it."""
    return str(uuids.uuid5(_NAMESPACE, "erofs " + store_image_salt(store_json).hex()))


def content_uuid(what: str) -> str:
    """The UUID of something that ``what`` tells apart from everything else: uuid5 in shiplap's namespace, in canonical form."""
    return str(uuids.uuid5(_NAMESPACE, what))
