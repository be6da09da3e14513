"""SquashFS images written byte by byte, with every lie one likes.

Metadata is stored uncompressed unless asked for, so that a reference is plain arithmetic. Nothing is checked.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

DIRECTORY, FILE, SYMLINK, BLOCK, CHARACTER, FIFO, SOCKET = range(1, 8)
EXTENDED = 7
NOTHING = 0xFFFFFFFF
NO_TABLE = 0xFFFFFFFFFFFFFFFF
BLOCK_SIZE = 4096
STORED = 1 << 24

Name = tuple[bytes, int, int, int]
"""Name, type, reference of the inode, number of the inode."""


def metadata(content: bytes, *, compressed: bool = False) -> bytes:
    """``content`` as metadata blocks."""
    blocks = []
    for start in range(0, len(content), 8192):
        piece = content[start : start + 8192]
        if compressed:
            piece = zlib.compress(piece)
        blocks.append(struct.pack("<H", len(piece) | (0 if compressed else 0x8000)) + piece)
    return b"".join(blocks)


def reference(offset: int) -> int:
    """Reference of byte ``offset`` of an uncompressed area."""
    return (offset // 8192 * 8194) << 16 | offset % 8192


def listing(names: list[Name]) -> bytes:
    """A directory listing with one header for each name."""
    lines = []
    for name, type_, inode, number in names:
        header = struct.pack("<III", 0, inode >> 16, number)
        lines.append(header + struct.pack("<HhHH", inode & 0xFFFF, 0, type_, len(name) - 1) + name)
    return b"".join(lines)


@dataclass
class Craft:
    """An image in the making. The methods append an inode and return its reference.

    ``listing_blocks``: metadata blocks of any size, instead of ``listings`` in blocks of 8 KiB.
    """

    inodes: bytearray = field(default_factory=bytearray)
    listings: bytearray = field(default_factory=bytearray)
    listing_blocks: list[bytes] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    ids: list[int] = field(default_factory=lambda: [0])
    fragments: list[tuple[int, int]] = field(default_factory=list)
    xattr_pairs: bytes = b""
    xattr_sets: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def next_inode(self) -> int:
        return reference(len(self.inodes))

    def inode(self, type_: int, number: int, body: bytes, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> int:
        found = self.next_inode
        self.inodes += struct.pack("<HHHHII", type_, mode, uid, gid, 0, number) + body
        return found

    def put(self, data: bytes) -> int:
        """Append to the data area; returns the byte of the image."""
        found = 96 + len(self.data)
        self.data += data
        return found

    def file(
        self,
        number: int,
        *,
        size: int = 0,
        start: int = 96,
        fragment: int = NOTHING,
        offset: int = 0,
        words: tuple[int, ...] = (),
        xattrs: int = NOTHING,
        links: int = 1,
    ) -> int:
        """An extended file."""
        body = struct.pack("<QQQIIII", start, size, 0, links, fragment, offset, xattrs)
        return self.inode(FILE + EXTENDED, number, body + struct.pack(f"<{len(words)}I", *words), mode=0o644)

    def directory(self, number: int, raw: bytes, *, size: int | None = None, index: list[tuple[int, int, bytes]] | None = None) -> int:
        """A directory with the listing ``raw``; extended if it has an index."""
        at = reference(len(self.listings))
        self.listings += raw
        size = len(raw) + 3 if size is None else size
        if index is None:
            return self.inode(DIRECTORY, number, struct.pack("<IIHHI", at >> 16, 2, size, at & 0xFFFF, 1))
        body = struct.pack("<IIIIHHI", 2, size, at >> 16, 1, len(index), at & 0xFFFF, NOTHING)
        body += b"".join(struct.pack("<III", byte, block, len(name) - 1) + name for byte, block, name in index)
        return self.inode(DIRECTORY + EXTENDED, number, body)

    def image(self, root_inode: int, *, compressed: bool = False, **changes: int) -> bytes:
        """The image. ``changes`` replaces fields of the superblock."""
        fields: dict[str, int] = {
            "inode_count": 10,
            "mtime": 0,
            "block_size": BLOCK_SIZE,
            "fragment_count": len(self.fragments),
            "compressor": 1,
            "block_log": 12,
            "flags": 0,
            "id_count": len(self.ids),
            "major": 4,
            "minor": 0,
            "root": root_inode,
            "bytes_used": 0,
            "id_table": 0,
            "xattr_table": NO_TABLE,
            "inode_table": 96 + len(self.data),
            "directory_table": 0,
            "fragment_table": NO_TABLE,
            "export_table": NO_TABLE,
        }
        body = bytes(self.data) + metadata(bytes(self.inodes), compressed=compressed)
        fields["directory_table"] = 96 + len(body)
        for block in self.listing_blocks:
            body += metadata(block)
        body += metadata(bytes(self.listings), compressed=compressed)
        for name, records in (
            ("fragment_table", b"".join(struct.pack("<QII", start, word, 0) for start, word in self.fragments)),
            ("id_table", struct.pack(f"<{len(self.ids)}I", *self.ids)),
        ):
            if records:
                block = 96 + len(body)
                body += metadata(records)
                fields[name] = 96 + len(body)
                body += struct.pack("<Q", block)
        if self.xattr_sets:
            pairs = 96 + len(body)
            body += metadata(self.xattr_pairs)
            sets = 96 + len(body)
            body += metadata(b"".join(struct.pack("<QII", *item) for item in self.xattr_sets))
            fields["xattr_table"] = 96 + len(body)
            body += struct.pack("<QIIQ", pairs, len(self.xattr_sets), 0, sets)
        fields["bytes_used"] = 96 + len(body)
        fields |= changes
        return b"hsqs" + struct.pack("<IIIIHHHHHHQQQQQQQQ", *fields.values()) + body


def pair(prefix: int, name: bytes, value: bytes) -> bytes:
    """An extended attribute as it is stored in line."""
    return struct.pack("<HH", prefix, len(name)) + name + struct.pack("<I", len(value)) + value
