"""Partition types and partition UUIDs of the Discoverable Partitions Specification (uapi-group.org), for sealed images.

A root hash alone finds its two partitions: the data partition's UUID is the first 128 bits of it, the hash
partition's the last 128. No label, no number, and of two firmwares on one disk each finds its own.
"""

from __future__ import annotations

import uuid as uuids
from dataclasses import dataclass

from shiplap.core.errors import Refused

EFI_SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
LINUX_GENERIC = "0fc63daf-8483-4772-8e79-3d69d8477de4"
"""Data that nothing mounts by itself: the store, and the device's own writable partition."""

READ_ONLY_FLAG = 1 << 60
"""The partition attribute "read-only" of the specification."""

_UUID_HEX = 32


class NotDiscoverable(Refused):
    """No partition of the specification can be named for this."""


@dataclass(frozen=True, slots=True)
class PartitionTypes:
    """Type UUIDs for one architecture."""

    root: str
    root_verity: str
    usr: str
    usr_verity: str
    root_verity_signature: str


# By GOARCH, as platforms name architectures.
_TYPES = {
    "386": PartitionTypes(
        "44479540-f297-41b2-9af7-d131d5f0458a",
        "d13c5d3b-b5d1-422a-b29f-9454fdc89d76",
        "75250d76-8cc6-458e-bd66-bd47cc81a812",
        "8f461b0d-14ee-4e81-9aa9-049b6fb97abd",
        "5996fc05-109c-48de-808b-23fa0830b676",
    ),
    "amd64": PartitionTypes(
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
        "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",
        "8484680c-9521-48c6-9c11-b0720656f69e",
        "77ff5f63-e7b6-4633-acf4-1565b864c0e6",
        "41092b05-9fc8-4523-994f-2def0408b176",
    ),
    "arm": PartitionTypes(
        "69dad710-2ce4-4e3c-b16c-21a1d49abed3",
        "7386cdf2-203c-47a9-a498-f2ecce45a2d6",
        "7d0359a3-02b3-4f0a-865c-654403e70625",
        "c215d751-7bcd-4649-be90-6627490a4c05",
        "42b0455f-eb11-491d-98d3-56145ba9d037",
    ),
    "arm64": PartitionTypes(
        "b921b045-1df0-41c3-af44-4c6f280d3fae",
        "df3300ce-d69f-4c92-978c-9bfb0f38d820",
        "b0e01050-ee5f-4390-949a-9101b17104e9",
        "6e11a4e7-fbca-4ded-b9e9-e1a512bb664e",
        "6db69de6-29f4-4758-a7a5-962190f00ce3",
    ),
    "loong64": PartitionTypes(
        "77055800-792c-4f94-b39a-98c91b762bb6",
        "f3393b22-e9af-4613-a948-9d3bfbd0c535",
        "e611c702-575c-4cbe-9a46-434fa0bf7e3f",
        "f46b2c26-59ae-48f0-9106-c50ed47f673d",
        "5afb67eb-ecc8-4f85-ae8e-ac1e7c50e7d0",
    ),
    "mips64le": PartitionTypes(
        "700bda43-7a34-4507-b179-eeb93d7a7ca3",
        "16b417f8-3e06-4f57-8dd2-9b5232f41aa6",
        "c97c1f32-ba06-40b4-9f22-236061b08aa8",
        "3c3d61fe-b5f3-414d-bb71-8739a694a4ef",
        "904e58ef-5c65-4a31-9c57-6af5fc7c5de7",
    ),
    "mipsle": PartitionTypes(
        "37c58c8a-d913-4156-a25f-48b1b64e07f0",
        "d7d150d2-2a04-4a33-8f12-16651205ff7b",
        "0f4868e9-9952-4706-979f-3ed3a473e947",
        "46b98d8d-b55c-4e8f-aab3-37fca7f80752",
        "c919cc1f-4456-4eff-918c-f75e94525ca5",
    ),
    "ppc64le": PartitionTypes(
        "c31c45e6-3f39-412e-80fb-4809c4980599",
        "906bd944-4589-4aae-a4e4-dd983917446a",
        "15bb03af-77e7-4d4a-b12b-c0d084f7491c",
        "ee2b9983-21e8-4153-86d9-b6901a54d1ce",
        "d4a236e7-e873-4c07-bf1d-bf6cf7f1c3c6",
    ),
    "riscv64": PartitionTypes(
        "72ec70a6-cf74-40e6-bd49-4bda08e8f224",
        "b6ed5582-440b-4209-b8da-5ff7c419ea3d",
        "beaec34b-8442-439b-a40b-984381ed097d",
        "8f1056be-9b05-47c4-81d6-be53128e5b54",
        "efe0f087-ea8d-4469-821a-4c2a96a8386a",
    ),
    "s390x": PartitionTypes(
        "5eead9a9-fe09-4a1e-a1d7-520d00531306",
        "b325bfbe-c7be-4ab8-8357-139e652d2f6b",
        "8a4f5770-50aa-4ed3-874a-99b710db6fea",
        "31741cc4-1a2a-4111-a581-e00b447d2d06",
        "c80187a5-73a3-491a-901a-017c3fa953e9",
    ),
}


def partition_types(architecture: str) -> PartitionTypes:
    """The type UUIDs for ``architecture`` (``amd64``, ``arm64``, ``arm``, …). Raises NotDiscoverable."""
    if architecture not in _TYPES:
        raise NotDiscoverable(f"no partition types are known for the architecture {architecture}", hint=f"known: {', '.join(_TYPES)}")
    return _TYPES[architecture]


def partition_uuids(root_hash: str) -> tuple[str, str]:
    """The UUIDs of the data and of the hash partition of ``root_hash`` (hex). Raises NotDiscoverable for a hash under 256 bits."""
    if len(root_hash) < 2 * _UUID_HEX:
        raise NotDiscoverable(f"the root hash {root_hash} is too short for two partition UUIDs", hint="use sha256 or longer")
    return str(uuids.UUID(root_hash[:_UUID_HEX])), str(uuids.UUID(root_hash[-_UUID_HEX:]))
