"""Trees that try everything SquashFS can hold, images of them made by real tools, and what independent readers see in one.

Run as a program (``squashfsimages.py IMAGE MOUNTPOINT FILESYSTEM``, inside a private mount namespace) it lets the kernel
read the image and prints the facts.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from requirement import SEARCH_PATH, missing
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.tar.records import write_records
from shiplap.rootfs.squashfs import SquashfsReader

Facts = tuple[Any, ...]
K = Kind

# A valid version 2 vfs capability (cap_net_raw+ep): the kernel refuses to set a made-up one.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
SHARED = bytes(range(256)) + b"shared by many, longer than 64 bytes"


def tree_order(entries: Iterable[Entry]) -> list[Entry]:
    """Parents before children, children by their bytes; the later names of a link group point to its first."""
    return sorted(entries, key=lambda entry: entry.path.split(b"/") if entry.path else [])


def small_tree() -> list[Entry]:
    """A few entries of every kind."""
    return tree_order(
        [
            Entry(b"", K.DIRECTORY, 0o755, 12, 34, 1_111_111_111),
            Entry(b"dir", K.DIRECTORY, 0o2775, 0, 7, 5, xattrs=((b"trusted.overlay.opaque", b"y"),)),
            Entry(b"dir/data", K.REGULAR, 0o644, 1000, 1000, 77, content=Bytes(random.Random(1).randbytes(5000))),
            Entry(b"dir/empty", K.REGULAR, 0o600, content=Bytes(b"")),
            Entry(b"dir/sub", K.DIRECTORY, 0o700),
            Entry(b"dir/sub/text", K.REGULAR, 0o4755, 3, 4, 99, xattrs=((b"user.a", SHARED),), content=Bytes(b"line\n" * 2000)),
            Entry(b"dir/sub/zz", K.REGULAR, 0o4755, 3, 4, 99, xattrs=((b"user.b", SHARED),), content=Bytes(bytes(40000) + b"end")),
            Entry(b"fifo", K.FIFO, 0o640),
            Entry(b"first", K.HARDLINK, 0o4755, 3, 4, 99, link=b"dir/sub/text"),
            Entry(b"null", K.CHARACTER, 0o666, device=(1, 3)),
            Entry(b"sda", K.BLOCK, 0o660, 0, 6, device=(8, 1)),
            Entry(b"symlink", K.SYMLINK, 0o777, link=b"dir/sub/text"),
        ]
    )


def torture_tree(block_size_bytes: int, *, largest_xattr_bytes: int = 2000, hard_linked_symlinks: bool = True) -> list[Entry]:
    """Everything at once: about 3,200 entries and 25 blocks of data."""
    rng = random.Random(7)
    entries = [Entry(b"", K.DIRECTORY, 0o1755, 12, 34, 1_111_111_111, xattrs=((b"user.root", b"yes"),))]
    entries += _deep() + _many() + _special() + _named() + _owned() + list(_sized(block_size_bytes, rng)) + _attributed(largest_xattr_bytes)
    linked = _linked()
    if not hard_linked_symlinks:
        linked = [entry for entry in linked if b"symlink" not in entry.path]
    entries += linked
    return tree_order(entries)


def _deep() -> list[Entry]:
    path = b"deep"
    found = [Entry(path, K.DIRECTORY, 0o755)]
    for _ in range(60):
        path += b"/d"
        found.append(Entry(path, K.DIRECTORY, 0o755))
    return [*found, Entry(path + b"/leaf", K.REGULAR, 0o644, content=Bytes(b"leaf"))]


def _many() -> list[Entry]:
    # Long names: a listing of many metadata blocks, for which tools write an index.
    names = [b"many/%04d-%s" % (number, b"x" * (number % 90)) for number in range(3000)]
    return [Entry(b"many", K.DIRECTORY, 0o755)] + [
        Entry(name, K.REGULAR, 0o644, mtime_epoch=number, content=Bytes(b"%d" % number)) for number, name in enumerate(names)
    ]


def _special() -> list[Entry]:
    return [
        Entry(b"special", K.DIRECTORY, 0o755),
        Entry(b"special/null", K.CHARACTER, 0o666, 0, 5, 9, device=(1, 3)),
        Entry(b"special/sda1", K.BLOCK, 0o660, 0, 6, 9, device=(8, 1)),
        Entry(b"special/large", K.BLOCK, 0o600, device=(259, 300_000)),
        Entry(b"special/whiteout", K.CHARACTER, 0, 1000, 1000, device=(0, 0)),
        Entry(b"special/attributed", K.CHARACTER, 0o600, device=(5, 1), xattrs=((b"trusted.x", b"device"),)),
        Entry(b"special/fifo", K.FIFO, 0o620, 3, 4, 5),
        Entry(b"special/fifo-attributed", K.FIFO, 0o620, 3, 4, 5, xattrs=((b"trusted.x", b"fifo"),)),
        Entry(b"special/setuid", K.REGULAR, 0o4755, content=Bytes(b"s")),
        Entry(b"special/setgid", K.DIRECTORY, 0o2775),
        Entry(b"special/sticky", K.DIRECTORY, 0o1777),
        Entry(b"special/nothing", K.REGULAR, 0, content=Bytes(b"mode 0")),
    ]


def _named() -> list[Entry]:
    names = (b"x" * 255, b"\xff\xfe\x80", b"new\nline", b"back\\slash", b" ", "grüße".encode(), b"-", b"~", b"...", b"a b", b"\x01")
    found = [Entry(b"named", K.DIRECTORY, 0o755)]
    found += [Entry(b"named/" + name, K.REGULAR, 0o644, content=Bytes(name)) for name in names]
    targets = (b"/absolute", b"../../..", b"dangling", b"\xff/\xfe", b"t" * 100, b"t" * 101, b"/" + b"long/" * 200, b"a\nb")
    return found + [Entry(b"named/link%d" % number, K.SYMLINK, 0o777, 1, 2, 3, link=target) for number, target in enumerate(targets)]


def _owned() -> list[Entry]:
    ids = (1, 65535, 65536, 0o7777777, 0o10000000, 2**31, 2**32 - 2)
    times = (1, 2**31 - 1, 2**31, 2**32 - 1)
    found = [Entry(b"owned", K.DIRECTORY, 0o755)]
    found += [Entry(b"owned/%d" % number, K.REGULAR, 0o644, number, 2**32 - 1 - number, content=Bytes(b"")) for number in ids]
    return found + [Entry(b"owned/at%d" % epoch, K.DIRECTORY, 0o755, mtime_epoch=epoch) for epoch in times]


def _sized(block: int, rng: random.Random) -> Iterator[Entry]:
    yield Entry(b"sized", K.DIRECTORY, 0o755)
    noise = rng.randbytes(2 * block + 7)
    text = b"The quick brown fox. " * (2 * block // 21 + 2)
    contents = {
        b"empty": b"",
        b"one": b"1",
        b"less": noise[: block - 1],
        b"exact": noise[:block],
        b"more": noise[: block + 1],
        b"text-exact": text[: 2 * block],
        b"text-more": text[: 2 * block + 5],
        b"copy": noise[:block],
        b"copy-tail": b"1",
        b"zeros": bytes(2 * block),
        b"zeros-tail": bytes(2 * block + 100),
        b"hole": noise[:block] + bytes(block) + noise[-9:],
        b"hole-first": bytes(block) + text[:block],
        b"sparse": bytes(3 * block) + b"end",
    }
    for name, data in contents.items():
        yield Entry(b"sized/" + name, K.REGULAR, 0o644, content=Bytes(data))


def _attributed(largest_bytes: int) -> list[Entry]:
    sets = {
        b"capability": ((b"security.capability", CAPABILITY),),
        b"binary": ((b"user.binary", bytes(range(256))), (b"user.text", b"a=b\nc")),
        b"large": ((b"user.large", random.Random(3).randbytes(largest_bytes)),),
        b"three": ((b"security.x", b"1"), (b"trusted.x", b"2"), (b"user.x", b"3")),
        b"name": ((b"user." + b"n" * 250, b"long name"),),
    }
    for number in range(6):
        sets[b"shared%d" % number] = ((b"user.own", b"%d" % number), (b"user.shared", SHARED))
    found = [Entry(b"attributed", K.DIRECTORY, 0o755)]
    found += [Entry(b"attributed/" + name, K.REGULAR, 0o755, content=Bytes(name), xattrs=xattrs) for name, xattrs in sets.items()]
    opaque = ((b"trusted.overlay.opaque", b"y"),)
    found.append(Entry(b"attributed/link", K.SYMLINK, 0o777, link=b"three", xattrs=((b"trusted.x", b"link"),)))
    return [
        *found,
        Entry(b"attributed/opaque", K.DIRECTORY, 0o755, xattrs=opaque),
        Entry(b"attributed/opaque2", K.DIRECTORY, 0o755, xattrs=opaque),
    ]


def _linked() -> list[Entry]:
    found = [Entry(path, K.DIRECTORY, 0o755) for path in (b"linked", b"linked/a", b"linked/b", b"linked/c")]
    firsts = [
        Entry(b"linked/a/file", K.REGULAR, 0o640, 8, 9, 10, content=Bytes(b"one inode"), xattrs=((b"user.x", b"once"),)),
        Entry(b"linked/a/fifo", K.FIFO, 0o600, 8, 9, 10),
        Entry(b"linked/a/device", K.CHARACTER, 0o600, 8, 9, 10, device=(4, 64)),
        Entry(b"linked/a/symlink", K.SYMLINK, 0o777, 8, 9, 10, link=b"file"),
        Entry(b"linked/a/empty", K.REGULAR, 0o640, 8, 9, 10, content=Bytes(b"")),
    ]
    for first in firsts:
        name = first.path.rpartition(b"/")[2]
        others = (b"linked/a/zz-" + name, b"linked/b/" + name, b"linked/c/" + name)
        found += [Entry(other, K.HARDLINK, first.mode, first.uid, first.gid, first.mtime_epoch, link=first.path) for other in others]
    return found + firsts


def facts(entry: Entry) -> Facts:
    """Everything about an entry that two readers can agree on; contents by their hash."""
    digest = None
    if entry.content is not None:
        digest = hashlib.sha256(b"".join(entry.content.chunks())).hexdigest()
    fields = (entry.path.hex(), entry.kind.value, entry.mode, entry.uid, entry.gid, entry.mtime_epoch, entry.link.hex())
    return (*fields, list(entry.device), [[name.hex(), value.hex()] for name, value in entry.xattrs], digest)


def expected_facts(entries: Iterable[Entry]) -> list[Facts]:
    return [facts(entry) for entry in entries]


def facts_of_image(path: Path) -> list[Facts]:
    with SquashfsReader.open(path) as image:
        return [facts(entry) for entry in image.entries()]


def facts_of_host_tree(root: bytes) -> list[Facts]:
    """The same of real files below ``root``."""
    first_names: dict[int, bytes] = {}
    found = []
    paths = [b""]
    while paths:
        path = paths.pop()
        full = root + b"/" + path if path else root
        entry = _host_entry(full, path, first_names)
        if entry.kind is K.DIRECTORY:
            paths += [path + b"/" + name if path else name for name in sorted(os.listdir(full), reverse=True)]
        found.append(facts(entry))
    return found


def _host_entry(full: bytes, path: bytes, first_names: dict[int, bytes]) -> Entry:
    status = os.lstat(full)
    kind = {
        stat.S_IFREG: K.REGULAR,
        stat.S_IFDIR: K.DIRECTORY,
        stat.S_IFLNK: K.SYMLINK,
        stat.S_IFCHR: K.CHARACTER,
        stat.S_IFBLK: K.BLOCK,
        stat.S_IFIFO: K.FIFO,
    }[stat.S_IFMT(status.st_mode)]
    entry = Entry(path, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, int(status.st_mtime_ns // 10**9))
    if status.st_nlink > 1 and kind is not K.DIRECTORY:
        first = first_names.setdefault(status.st_ino, path)
        if first != path:
            return replace(entry, kind=K.HARDLINK, link=first)
    try:
        names = sorted(os.listxattr(full, follow_symlinks=False))
    except OSError as error:
        # Linux says so of a SquashFS that has no attributes at all.
        if error.errno != errno.ENOTSUP:
            raise
        names = []
    return replace(
        entry,
        link=os.readlink(full) if kind is K.SYMLINK else b"",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
        xattrs=tuple((os.fsencode(name), os.getxattr(full, name, follow_symlinks=False)) for name in names),
        content=Bytes(Path(os.fsdecode(full)).read_bytes()) if kind is K.REGULAR else None,
    )


def lay_out(entries: Iterable[Entry], root: bytes) -> None:
    """Make real files of the entries (as root: devices, owners, trusted attributes)."""
    directories = []
    for entry in entries:
        path = root + b"/" + entry.path if entry.path else root
        if entry.kind is K.HARDLINK:
            os.link(root + b"/" + entry.link, path, follow_symlinks=False)
            continue
        _make(entry, path)
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if entry.kind is not K.SYMLINK:
            os.chmod(path, entry.mode)
        for name, value in entry.xattrs:
            os.setxattr(path, name, value, follow_symlinks=False)
        if entry.kind is K.DIRECTORY:
            directories.append((path, entry.mtime_epoch))
        else:
            os.utime(path, (entry.mtime_epoch, entry.mtime_epoch), follow_symlinks=False)
    for path, epoch in reversed(directories):
        os.utime(path, (epoch, epoch))


def _make(entry: Entry, path: bytes) -> None:
    if entry.kind is K.DIRECTORY:
        os.makedirs(path, exist_ok=True)
    elif entry.kind is K.SYMLINK:
        os.symlink(entry.link, path)
    elif entry.kind is K.FIFO:
        os.mkfifo(path)
    elif entry.kind is K.REGULAR:
        assert entry.content is not None
        with open(path, "wb") as file:
            for chunk in entry.content.chunks():
                file.write(chunk)
    else:
        os.mknod(path, (stat.S_IFCHR if entry.kind is K.CHARACTER else stat.S_IFBLK) | 0o600, os.makedev(*entry.device))


def tar_of(entries: Iterable[Entry]) -> bytes:
    pieces: list[bytes] = []
    write_records(entries, pieces.append)
    return b"".join(pieces)


def tar2sqfs(output: Path, entries: Iterable[Entry], *options: str) -> Path:
    """An image made by tar2sqfs with any options, also such as the sink never uses."""
    subprocess.run(["tar2sqfs", "-q", "-s", "-f", *options, str(output)], input=tar_of(entries), check=True)
    return output


def mksquashfs(output: Path, tree: Path, *options: str) -> Path:
    """An image of real files made by whatever mksquashfs is installed."""
    argv = ["mksquashfs", str(tree), str(output), "-noappend", "-no-progress", "-quiet", *options]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return output


def mksquashfs_for_tar() -> Path:
    """The mksquashfs of SHIPLAP_MKSQUASHFS or of PATH if it is 4.6 or newer; skips the test otherwise."""
    program = os.environ.get("SHIPLAP_MKSQUASHFS") or shutil.which("mksquashfs", path=SEARCH_PATH)
    said = subprocess.run([program, "-version"], capture_output=True, check=False).stdout if program else b""
    numbers = said.removeprefix(b"mksquashfs version ").split(b" ")[0].split(b".")
    if not program or [int(number) for number in numbers if number.isdigit()] < [4, 6]:
        missing("tools-newer", "mksquashfs 4.6 or newer (tests/make_newer_tools brings one; SHIPLAP_MKSQUASHFS names it)")
    assert program
    return Path(program)


def facts_of_the_kernel(image: Path, scratch: Path, filesystem: str = "squashfs") -> list[Facts]:
    """What the kernel sees in a mounted image; skips the test where mounting is not possible."""
    mount_point = scratch / "mounted"
    mount_point.mkdir(exist_ok=True)
    argv = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, str(image), str(mount_point), filesystem]
    done = subprocess.run(argv, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    if done.returncode == 77:
        pytest.skip(f"cannot mount here: {done.stderr.decode()}")
    assert done.returncode == 0, done.stderr.decode()
    return [tuple(item) for item in json.loads(done.stdout)]


def _mount_and_print(image: str, mount_point: str, filesystem: str) -> None:
    done = subprocess.run(["mount", "-t", filesystem, "-o", "ro,loop", image, mount_point], capture_output=True, check=False)
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stderr)
        sys.exit(77)
    json.dump(facts_of_host_tree(os.fsencode(mount_point)), sys.stdout)


if __name__ == "__main__":
    _mount_and_print(*sys.argv[1:])
