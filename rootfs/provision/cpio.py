"""A small initramfs archive in the "newc" format: kernel Documentation/driver-api/early-userspace/buffer-format.

Several archives one behind the other are one initramfs; a later file takes the place of an earlier one. An uncompressed archive
must begin at a multiple of four bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

ALIGNMENT_BYTES = 4
_DIRECTORY, _REGULAR = 0o040000, 0o100000
_END = b"TRAILER!!!"


def newc_archive(files: Mapping[str, tuple[int, bytes]], epoch: int) -> bytes:
    """``files``: path without leading slash → (permissions, content). Their folders are made; everything is root's.

    ``epoch``: the time of all of it, seconds, of which the format holds 32 bits.
    """
    entries: dict[bytes, tuple[int, bytes]] = {}
    for name, (mode, content) in files.items():
        path = name.encode()
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            entries[b"/".join(parts[:depth])] = (_DIRECTORY | 0o755, b"")
        entries[path] = (_REGULAR | mode, content)
    # A folder's name is shorter than those of what is in it, so it comes first.
    pieces = [_record(number, path, *entries[path], epoch) for number, path in enumerate(sorted(entries), 1)]
    return b"".join([*pieces, _record(0, _END, 0, b"", 0)])


def _record(inode: int, path: bytes, mode: int, content: bytes, epoch: int) -> bytes:
    links = 2 if mode & _DIRECTORY else 1
    name = path + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device ×2, special device ×2, name's length, checksum (unused)
    fields = (inode, mode, 0, 0, links, min(epoch, 0xFFFFFFFF), len(content), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return header + bytes(-len(header) % ALIGNMENT_BYTES) + content + bytes(-len(content) % ALIGNMENT_BYTES)
