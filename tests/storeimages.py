"""A fixed set of images that shows what a store can hold, and stores of them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from archives import ImageSpec, docker_archive
from images import CAPABILITY, X, character, directory, fifo, file, hardlink, symlink
from layertar import build
from shiplap.core.collect import collected_images, parse_argument
from shiplap.core.entries import Entry
from shiplap.core.limits import Limits
from shiplap.core.platform import parse_platform
from shiplap.core.progress import SILENT, Meter, Progress
from shiplap.core.store.forms import form_of
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import StoredImage
from shiplap.core.store.overlay2 import SealedStoreWriter
from shiplap.core.store.writer import StoreWriter, write_store
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry

EPOCH = 1700000000
DIGEST = "sha256:" + "5" * 64

BASE = build(
    [
        directory("./", mode=0o700, mtime=5),
        directory("./bin/", mtime=1500000000),
        file("./bin/sh", b"#!" * 3000, mode=0o755),
        file("./bin/ping", b"ping" * 50, mode=0o755, pax={X + "security.capability": CAPABILITY, X + "user.note": b"\0\xff"}),
        file("./bin/su", b"su", mode=0o4755),
        hardlink("./bin/sh2", "bin/sh", mode=0o755),
        symlink("./bin/bash", "sh", mtime=1500000001),
        directory("./tmp/", mode=0o1777),
        directory("./dev/"),
        character("./dev/null", 1, 3, mode=0o666),
        hardlink("./dev/zero", "dev/null", mode=0o666),
        fifo("./run/pipe", uid=7, gid=8),
        file("./etc/passwd", b"root:x:0:0::/:/bin/sh\n", pax={"mtime": "1600000000.123456789"}),
        file(b"./etc/\xff\xfe", b"binary name", uid=4_000_000_000, gid=100_000),
        symlink("./etc/long", "/" + "t" * 150),
        file("./" + "deep/" * 40 + "f", b"deep"),
    ]
)
APP = build(
    [
        file("etc/passwd", b"root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:\n"),
        file("bin/.wh.su"),
        file("srv/app", b"app" * 70_000, uid=1000, gid=1000),
    ]
)
DATA = build([directory("tmp", mode=0o1777), file("tmp/.wh..wh..opq"), file("/srv/x", b"hidden"), file("srv/x", b"shown")])
EMPTY = build([])

APP_IMAGE = ImageSpec([BASE, APP], tags=["app:1"])
DATA_IMAGE = ImageSpec([BASE, EMPTY, DATA, EMPTY], tags=["reg.example:5000/me/data:2", "data:latest"])
IMAGES = (APP_IMAGE, DATA_IMAGE)


@contextmanager
def stored_images(folder: Path, images: Sequence[ImageSpec] = IMAGES) -> Iterator[tuple[StoredImage, ...]]:
    source = f"docker-archive:{docker_archive(folder / 'images.tar', images)}"
    with collected_images([parse_argument(source)], None, Limits(), folder) as found:
        yield found


def identity(
    images: Sequence[StoredImage],
    *,
    epoch: int = EPOCH,
    store_path: str = "/usr/share/shiplap",
    engine: str = "docker",
    driver: str = "overlay2",
) -> StoreIdentity:
    options = (("squashfs", {"compression": "zstd", "level": 15}),)
    return StoreIdentity("store", engine, driver, parse_platform("linux/amd64"), store_path, epoch, tuple(images), options)


def explicit(
    images: Sequence[StoredImage], *, engine: str = "docker", driver: str = "overlay2", allow: Sequence[str] = ()
) -> StoreIdentity:
    """The identity of a store without extended attributes. ``allow``: what every image may lose."""
    store = identity([replace(one, allow_lost_xattrs=tuple(allow)) for one in images], engine=engine, driver=driver)
    return replace(store, options=(("squashfs", {"whiteouts": "explicit"}),))


def streams(store: StoreIdentity, *, notes: list[str] | None = None, limits: Limits | None = None) -> tuple[bytes, bytes]:
    """The tar streams of the store image and of store.tar, written together."""
    sealed: list[bytes] = []
    data_root: list[bytes] = []
    note: Callable[[str], object] = (lambda message: None) if notes is None else notes.append
    form = form_of(store)
    writers = [form.image(store, records_to(sealed), note), form.tar(store, records_to(data_root))]
    write(store, writers, limits=limits)
    return b"".join(sealed) + END_OF_ARCHIVE, b"".join(data_root) + END_OF_ARCHIVE


def records_to(records: list[bytes]) -> Callable[[Entry], object]:
    """Takes entries as tar records."""
    return lambda entry: write_entry(entry, records.append)


def sealed_writer(store: StoreIdentity, records: list[bytes], note: Callable[[str], object] = lambda message: None) -> SealedStoreWriter:
    """The writer of a store image, its entries as tar records."""
    return SealedStoreWriter(store, records_to(records), note)


def write(
    store: StoreIdentity, writers: Sequence[StoreWriter], *, limits: Limits | None = None, progress: Progress = SILENT
) -> dict[str, int]:
    return write_store(store, writers, form_of(store).unpacking(store), limits or Limits(), progress, Meter(progress))
