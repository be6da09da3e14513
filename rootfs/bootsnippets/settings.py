"""What the snippets are made from."""

from __future__ import annotations

from dataclasses import dataclass

from shiplap.rootfs.gpt import ALIGNMENT_BYTES
from shiplap.verity.discoverable import PartitionTypes, partition_types, partition_uuids
from shiplap.verity.tree import Tree


@dataclass(frozen=True, slots=True)
class SealedImage:
    """An image with its hash tree. ``role``: ``root`` or ``store``, also the beginning of its partitions' names.

    ``image``, ``tree``: file names. ``layout``: of the tree. ``image_bytes``, ``tree_bytes``: of the files.
    """

    role: str
    image: str
    tree: str
    root_hash: str
    layout: Tree
    image_bytes: int
    tree_bytes: int

    @property
    def data_uuid(self) -> str:
        """UUID of the partition with the image."""
        return partition_uuids(self.root_hash)[0]

    @property
    def tree_uuid(self) -> str:
        """UUID of the partition with the hash tree."""
        return partition_uuids(self.root_hash)[1]


@dataclass(frozen=True, slots=True)
class BootSettings:
    """``store``: only where it has partitions of its own. ``data_bytes``: of an empty writable partition, 0 for none."""

    architecture: str
    root: SealedImage
    store: SealedImage | None
    disk_uuid: str
    data_uuid: str
    data_bytes: int = 0
    health_seconds: int = 120

    @property
    def types(self) -> PartitionTypes:
        """Type UUIDs for the architecture."""
        return partition_types(self.architecture)

    @property
    def images(self) -> tuple[SealedImage, ...]:
        """Every image that an update replaces together."""
        return (self.root,) if self.store is None else (self.root, self.store)


def mebibytes(size_bytes: int) -> int:
    """Whole MiB that hold so many bytes: the size of a partition."""
    return -(-size_bytes // ALIGNMENT_BYTES) * (ALIGNMENT_BYTES >> 20)
