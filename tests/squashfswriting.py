"""Images by our own writer, for tests; and a tree that never changes, for golden digests.

Run as a program (``squashfswriting.py COMPRESSION LEVEL BLOCK_SIZE JOBS IMAGE``, LEVEL ``-`` for the default) it
writes the golden tree and prints the digest and the compressor's library. Needs nothing but shiplap.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.rootfs.squashfs.compress import compressor
from shiplap.rootfs.squashfs.write import Layout, SquashfsWriter, Written

K = Kind
ROOT = Entry(b"", K.DIRECTORY, 0o755)


def write_image(
    path: Path,
    entries: Iterable[Entry],
    compression: str = "zstd",
    level: int | None = None,
    layout: Layout | None = None,
    jobs: int | None = None,
) -> Written:
    """Write an image to ``path``; level None is the default, layout None blocks of 4 KiB."""
    layout = layout or Layout(4096)
    made = compressor(compression, level, layout.block_size_bytes)
    with FileIO(path, "w+") as file, SquashfsWriter(file, str(path), made, layout, jobs=jobs) as writer:
        for entry in entries:
            writer.add(entry)
        return writer.finish()


def file(path: bytes, data: bytes, **attributes: object) -> Entry:
    return Entry(path, K.REGULAR, 0o644, content=Bytes(data), **attributes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Content that is made when it is read: zeros (or ``fill``), with ``data`` at the places ``at``."""

    size_bytes: int
    data: bytes = b""
    at: tuple[int, ...] = ()
    fill: bytes = b"\0"

    def chunks(self) -> Iterator[bytes]:
        zeros = self.fill * (1 << 20)
        for start in range(0, self.size_bytes, 1 << 20):
            size = min(1 << 20, self.size_bytes - start)
            piece = zeros if size == 1 << 20 else zeros[:size]
            for place in self.at:
                if start <= place < start + size:
                    within = place - start
                    piece = piece[:within] + self.data + piece[within + len(self.data) :]
            assert len(piece) == size
            yield piece


def kernel_says(image: Path, scratch: Path, script: str) -> str:
    """What a shell script prints whose folder is the mounted image; skips the test where mounting is not possible."""
    mount_point = scratch / "mounted"
    mount_point.mkdir(exist_ok=True)
    mount = 'mount -t squashfs -o ro,loop "$1" "$2" || exit 77; cd "$2" || exit 1; '
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount + script, "sh", str(image), str(mount_point)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        import pytest

        pytest.skip(f"cannot mount here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def golden_tree() -> list[Entry]:
    """A little of everything. Never edited: digests depend on it."""
    rng = random.Random(20240229)
    noise = rng.randbytes(20000)
    text = b"".join(b"line %d of the text\n" % (number % 700) for number in range(1500))
    entries = [
        Entry(b"", K.DIRECTORY, 0o1755, 7, 8, 1_600_000_000, xattrs=((b"user.root", b"yes"),)),
        Entry(b"blocks", K.DIRECTORY, 0o755),
        file(b"blocks/noise", noise, mtime_epoch=5),
        file(b"blocks/noise-again", noise, uid=1000),
        file(b"blocks/noise-head", noise[:8192]),
        file(b"blocks/sparse", bytes(8192) + text + bytes(12288)),
        file(b"blocks/text", text),
        file(b"blocks/zeros", bytes(40960)),
        Entry(b"devices", K.DIRECTORY, 0o700),
        Entry(b"devices/console", K.CHARACTER, 0o600, 0, 5, 9, device=(5, 1)),
        Entry(b"devices/disk", K.BLOCK, 0o660, 0, 6, 9, device=(259, 300_000), xattrs=((b"trusted.x", b"y"),)),
        Entry(b"devices/fifo", K.FIFO, 0o644),
        Entry(b"links", K.DIRECTORY, 0o2755),
        Entry(b"links/hard", K.HARDLINK, 0o644, 0, 0, 5, link=b"blocks/noise"),
        Entry(b"links/hard-fifo", K.HARDLINK, 0o644, link=b"devices/fifo"),
        Entry(b"links/soft", K.SYMLINK, 0o777, link=b"/nowhere/at/all"),
        Entry(b"links/soft-marked", K.SYMLINK, 0o777, link=b"soft", xattrs=((b"trusted.x", b"y"),)),
        Entry(b"many", K.DIRECTORY, 0o755),
    ]
    entries += [file(b"many/%04d-%s" % (number, b"n" * (number % 50)), b"%d" % (number % 90), mtime_epoch=number) for number in range(700)]
    label = b"system_u:object_r:usr_t:s0\0"
    for number in range(12):
        xattrs = ((b"security.selinux", label), (b"user.number", b"%d" % number))
        entries.append(file(b"z%02d" % number, noise[number : 300 * number], uid=number, gid=2**32 - 2 - number, xattrs=xattrs))
    return entries


if __name__ == "__main__":
    name, level, block_size, jobs, image = sys.argv[1:]
    size = int(block_size)
    number = None if level == "-" else int(level)
    write_image(Path(image), golden_tree(), name, number, Layout(size, 1_700_000_000, exportable=True), int(jobs) or None)
    print(hashlib.sha256(Path(image).read_bytes()).hexdigest(), compressor(name, number, size).library)
