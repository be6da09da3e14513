"""What the snippets are made from."""

from __future__ import annotations

from dataclasses import dataclass

from shiplap.rootfs.gpt import ALIGNMENT_BYTES
from shiplap.verity.discoverable import PartitionTypes, partition_types, partition_uuids
from shiplap.verity.tree import Tree, lay_out


@dataclass(frozen=True, slots=True)
class SealedImage:
    """An image with its hash tree. ``role``: ``root`` or ``store``, also the beginning of its partitions' names.

    ``image``, ``tree``: file names. ``layout``: of the tree. ``image_bytes``, ``tree_bytes``: of the files.
    ``image_sha256``, ``tree_sha256``: hex. ``room_bytes``: the least size of the image's partition, for larger images of later firmwares.
    """

    role: str
    image: str
    tree: str
    root_hash: str
    layout: Tree
    image_bytes: int
    tree_bytes: int
    image_sha256: str
    tree_sha256: str
    room_bytes: int = 0

    @property
    def filesystem(self) -> str:
        """``squashfs`` or ``erofs``: the kernel's name, and the ending of the image's."""
        return self.image.rpartition(".")[2]

    @property
    def data_partition_bytes(self) -> int:
        """Size of the partition with the image."""
        return max(self.image_bytes, self.room_bytes)

    @property
    def tree_partition_bytes(self) -> int:
        """Size of the partition with the hash tree: as large as an image that fills its partition needs."""
        parameters = self.layout.parameters
        blocks = -(-self.data_partition_bytes // parameters.data_block_bytes)
        return max(self.tree_bytes, lay_out(parameters, blocks).end_bytes)

    @property
    def data_uuid(self) -> str:
        """UUID of the partition with the image."""
        return partition_uuids(self.root_hash)[0]

    @property
    def tree_uuid(self) -> str:
        """UUID of the partition with the hash tree."""
        return partition_uuids(self.root_hash)[1]


@dataclass(frozen=True, slots=True)
class RootSignature:
    """``der``: a detached PKCS#7 signature of the root hash's hex digits. ``partition_…``, ``file``: of the partition that holds it."""

    der: bytes
    partition_uuid: str
    partition_bytes: int
    file: str


@dataclass(frozen=True, slots=True)
class BootSettings:
    """``store``: only where it has partitions of its own. ``data_bytes``: of an empty writable partition, 0 for none.

    ``slots``: 1, or 2 where a second set of partitions waits for the first update. ``esp_bytes``, ``esp_uuid``: of a partition that
    UEFI boots from, where there is one. ``signature``: of the root's hash, likewise.
    """

    architecture: str
    root: SealedImage
    store: SealedImage | None
    disk_uuid: str
    data_uuid: str
    data_bytes: int = 0
    health_seconds: int = 120
    esp_bytes: int = 0
    esp_uuid: str = ""
    signature: RootSignature | None = None
    slots: int = 1

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
