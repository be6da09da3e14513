"""Images in memory for archive tests, and a program that writes a fixed archive.

``python archiveimages.py [COMPRESSION]`` writes the archive of :func:`fixed_images` to standard output: the tests run it
under every interpreter, libarchive, locale and user that they can get, and compare bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import locale
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import layertar
from shiplap.core.archive import ArchiveImage, write_images_tar
from shiplap.core.entries import FileSlice
from shiplap.core.image import Image, Layer
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform

EPOCH = 1700000000


@dataclass(frozen=True, slots=True)
class MemoryBlob:
    """Stored bytes of a layer; with ``descriptor`` they also lie in a file, as those of a local source do."""

    data: bytes
    descriptor: int | None = None
    location: str = "a blob in memory"
    media_type: str | None = None

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.data).hexdigest()

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        yield self.data

    def slice(self) -> FileSlice | None:
        return None if self.descriptor is None else FileSlice(self.descriptor, 0, len(self.data), self.location)


def in_file(data: bytes) -> MemoryBlob:
    """A blob whose bytes also lie in an open, unlinked file (it lives as long as the process)."""
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    os.write(descriptor, data)
    return MemoryBlob(data, descriptor)


def image(
    tars: Sequence[bytes], *, blobs: Sequence[MemoryBlob] | None = None, diff_ids: Sequence[str] | None = None, author: str = ""
) -> Image:
    """An image of ``tars``, base first, whose config is otherwise constant."""
    diff_ids = [layertar.diff_id(tar) for tar in tars] if diff_ids is None else diff_ids
    config = json.dumps(
        {
            "architecture": "amd64",
            "author": author,
            "config": {"Cmd": ["/bin/app"]},
            "created": "2020-01-01T00:00:00Z",
            "history": [{"created_by": f"layer {index}"} for index in range(len(diff_ids))],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        },
        sort_keys=True,
    ).encode()
    stored = [MemoryBlob(tar) for tar in tars] if blobs is None else blobs
    layers = tuple(Layer(index, diff_id, blob) for index, (diff_id, blob) in enumerate(zip(diff_ids, stored, strict=True)))
    return Image(config, "sha256:" + hashlib.sha256(config).hexdigest(), layers, (), Platform("linux", "amd64"), "docker-archive:test.tar")


BASE = layertar.build([{"name": "bin", "type": "5"}, {"name": "bin/app", "data": b"#!/bin/sh\n" * 100, "mode": 0o755}])
MIDDLE = layertar.build([{"name": "etc", "type": "5"}, {"name": "etc/app.conf", "data": bytes(range(256)) * 90}])
TOP = layertar.build([{"name": "etc", "type": "5"}, {"name": "etc/.wh.app.conf"}, {"name": "etc/ümlaut", "data": b"x"}])
EMPTY = layertar.build([])

APP = image([BASE, MIDDLE, TOP], author="app")
TOOL = image([BASE, TOP, BASE, EMPTY], author="tool")
NAMELESS = image([BASE], author="nobody")


def fixed_images() -> list[ArchiveImage]:
    """Shared layers, one layer twice, an empty layer, two tags, a registry with a port, a digest reference, no tag at all."""
    digest_reference = "docker.io/library/app@sha256:" + "1" * 64
    return [
        ArchiveImage(APP, ("docker.io/library/app:latest", "docker.io/library/app:1", digest_reference)),
        ArchiveImage(TOOL, ("registry.example.org:5000/team/tool:v2.0",)),
        ArchiveImage(NAMELESS, ()),
    ]


def compressed_copy(one: Image) -> Image:
    """The same image as another source holds it: every second layer gzipped, the others in a file."""
    layers = []
    for layer in one.layers:
        tar = b"".join(layer.blob.chunks())
        layers.append(Layer(layer.index, layer.diff_id, MemoryBlob(gzip.compress(tar)) if layer.index % 2 else in_file(tar)))
    return Image(one.config, one.config_digest, tuple(layers), one.references, one.platform, "oci:elsewhere")


if __name__ == "__main__":
    print(sys.version_info[:2], locale.nl_langinfo(locale.CODESET), file=sys.stderr)
    write_images_tar(
        fixed_images(), sys.stdout.buffer.write, epoch=EPOCH, limits=Limits(), compression=sys.argv[1] if sys.argv[1:] else "none"
    )
