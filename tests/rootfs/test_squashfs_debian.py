"""Stores of real Debian images: our reader, the kernel, unsquashfs and sqfs2tar see, entry by entry, the stream that went in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import ImageSpec
from debianimages import CAPABILITY, debian_images
from shiplap.core.entries import Entry, Kind
from shiplap.core.store.forms import form_of
from shiplap.rootfs.sinks import SquashfsOptions, open_sink
from sinktools import prepared
from squashfsimages import Facts, facts
from squashfsreaders import assert_every_reader_sees
from storeimages import EPOCH, identity, stored_images, write


@pytest.fixture(scope="module")
def images() -> Iterator[tuple[ImageSpec, ImageSpec]]:
    yield debian_images()


@pytest.mark.parametrize(
    ("options", "engine", "driver"),
    [
        (SquashfsOptions(level=1, epoch=EPOCH), "docker", "overlay2"),
        (SquashfsOptions(compression="gzip", level=1, block_size_bytes=1 << 20, epoch=EPOCH), "podman", "overlay"),
        (SquashfsOptions("tar2sqfs", level=1, epoch=EPOCH), "docker", "overlay2"),
        (SquashfsOptions("mksquashfs", level=1, epoch=EPOCH), "docker", "overlay2"),
    ],
    ids=["builtin", "builtin-gzip-1M-podman", "tar2sqfs", "mksquashfs"],
)
def test_every_reader_sees_the_store_of_real_images(
    options: SquashfsOptions,
    engine: str,
    driver: str,
    images: tuple[ImageSpec, ImageSpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepared(options.tool, tmp_path, monkeypatch)
    seen: dict[tuple[bytes, ...], Facts] = {}
    kinds: Counter[Kind] = Counter()
    setuid = capable = opaque = 0
    with stored_images(tmp_path, images) as found, open_sink(options, tmp_path / "image") as add:

        def put(entry: Entry) -> None:
            nonlocal setuid, capable, opaque
            add(entry)
            # In the order of the tree, root first.
            seen[tuple(entry.path.split(b"/")) if entry.path else ()] = facts(entry)
            kinds[entry.kind] += 1
            setuid += entry.kind is Kind.REGULAR and entry.mode & 0o4000 != 0
            capable += (b"security.capability", CAPABILITY.encode()) in entry.xattrs
            opaque += (b"trusted.overlay.opaque", b"y") in entry.xattrs

        store = identity(found, engine=engine, driver=driver)
        write(store, [form_of(store).image(store, put, lambda message: None)])
    # Real enough?
    assert kinds[Kind.REGULAR] > 500 and kinds[Kind.DIRECTORY] > 60 and kinds[Kind.SYMLINK] > 20, kinds
    assert kinds[Kind.HARDLINK] and kinds[Kind.CHARACTER] >= 2 and setuid >= 5 and capable == 2 and opaque, kinds
    assert_every_reader_sees(tmp_path / "image", [one for _, one in sorted(seen.items())], tmp_path)
